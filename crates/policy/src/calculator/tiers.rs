//! Tiers and their order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use margay_model::policy_names::DEFAULT_TIER;
use margay_model::resource::cluster::TierSpec;

use super::Calculator;
use crate::output::TierDefault;

/// The tiers of the store.
#[derive(Debug, Default)]
pub(super) struct Tiers(BTreeMap<String, TierInfo>);

/// What of a tier matters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TierInfo {
    /// Whether it exists.
    known: bool,
    order: Option<f64>,
    pub(super) default: TierDefault,
}

impl Tiers {
    /// A tier as it counts: the default one exists always, as in clusters whose components know no
    /// others; another that does not exist denies and comes last.
    pub(super) fn get(&self, name: &str) -> TierInfo {
        self.0.get(name).copied().unwrap_or_else(|| TierInfo {
            known: name == DEFAULT_TIER,
            order: (name == DEFAULT_TIER).then_some(DEFAULT_ORDER),
            default: TierDefault::Deny,
        })
    }

    /// Whether a tier exists.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.get(name).known
    }

    /// The order of evaluation: tiers that exist first, then by order, those without one last, then by
    /// name.
    pub(super) fn compare(&self, left: &str, right: &str) -> Ordering {
        let (l, r) = (self.get(left), self.get(right));
        let by_order = match (l.order, r.order) {
            (Some(l), Some(r)) => l.total_cmp(&r),
            (l, r) => r.is_some().cmp(&l.is_some()),
        };
        r.known.cmp(&l.known).then(by_order).then(left.cmp(right))
    }
}

impl Calculator {
    pub(super) fn set_tier(&mut self, name: &str, spec: Option<&TierSpec>) {
        let before = self.tiers.get(name);
        match spec {
            Some(spec) => {
                let passes = spec.default_action.as_deref() == Some("Pass");
                let tier = TierInfo {
                    known: true,
                    order: spec.order,
                    default: if passes {
                        TierDefault::Pass
                    } else {
                        TierDefault::Deny
                    },
                };
                self.tiers.0.insert(name.to_owned(), tier);
            }
            None => {
                self.tiers.0.remove(name);
            }
        }
        if self.tiers.get(name) != before {
            let subjects = self.policies.in_tier(name).flat_map(|selector| {
                let items = self.locals.index.items_of(selector);
                items.filter_map(|item| self.locals.subject(item))
            });
            self.dirty.subjects.extend(subjects.cloned());
        }
    }
}

/// The order of the default tier where the store does not say.
const DEFAULT_ORDER: f64 = 1_000_000.0;
