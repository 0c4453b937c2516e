//! Classes: endpoints whose traffic is decided by the same tiers and profiles share a chain.

use std::collections::BTreeSet;

use margay_policy::{Action, Desired, PolicyId, Rule as PolicyRule, Tier, TierDefault};

use super::lookup::LookupKey;
use super::names;
use super::rule::{Allow, denial};
use super::settings::{Direction, IPIP, Settings, UDP};
use crate::{Chain, Field, Rule, Side, Statement, Verdict};
use margay_model::Family;

/// What endpoints of a class have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassKey {
    pub(super) kind: Kind,
    pub(super) direction: Direction,
    pub(super) tiers: Vec<Tier>,
    pub(super) profiles: Vec<String>,
}

/// Which packets a class decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Those of workloads.
    Workload,
    /// Those of the host's own processes.
    Host,
    /// Those that pass through the host.
    Forward,
    /// Those that come in, before destination translation.
    PreDnat,
    /// All of the host's, before connection tracking.
    Untracked,
}

/// What a class leads to beside its own chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Parts {
    pub(super) policies: Vec<PolicyId>,
    pub(super) lookups: Vec<LookupKey>,
}

impl Kind {
    pub(super) fn allow(self) -> Allow {
        match self {
            Self::Workload | Self::Host | Self::Forward => Allow::Accept,
            Self::PreDnat => Allow::PreDnat,
            Self::Untracked => Allow::Untracked,
        }
    }
}

impl ClassKey {
    /// The name of its chain.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Workload => 'c',
            Kind::Host => 'h',
            Kind::Forward => 'f',
            Kind::PreDnat => 'd',
            Kind::Untracked => 'u',
        };
        let mut text = String::new();
        for tier in &self.tiers {
            text += &format!("tier {} {:?}\n", tier.name, tier.default);
            for policy in &tier.policies {
                text += &format!("policy {policy}\n");
            }
        }
        for profile in &self.profiles {
            text += &format!("profile {profile}\n");
        }
        format!("{kind}{}-{}", self.direction.letter(), names::hash(&text))
    }

    /// Whether a policy stands in one of its tiers.
    pub(super) fn has_policy(&self, id: &PolicyId) -> bool {
        self.tiers.iter().any(|tier| tier.policies.contains(id))
    }

    /// Its chain, and what that leads to.
    ///
    /// `families` are those that sets have members of; `is_plain` says of a policy whether it can be looked up.
    pub(super) fn chain(
        &self,
        settings: &Settings,
        desired: &Desired,
        families: &BTreeSet<Family>,
        is_plain: &dyn Fn(&PolicyId, Direction) -> bool,
    ) -> (Chain, Parts) {
        let mut parts = Parts::default();
        let mut rules = self.head(settings);
        for tier in &self.tiers {
            let looked_up = self.tier(tier, settings, desired, is_plain, &mut rules, &mut parts);
            if let Some((at, key)) = looked_up {
                let dispatch = families.iter().map(|family| {
                    Rule::new([
                        Statement::Family(*family),
                        Statement::dispatch([key.field(*family)], &key.map(*family)),
                    ])
                });
                rules.splice(at..at, dispatch);
                parts.lookups.push(key);
            }
        }
        for profile in &self.profiles {
            let has_rules = desired
                .profiles
                .get(profile)
                .is_some_and(|profile| !self.rules(&profile.ingress, &profile.egress).is_empty());
            if has_rules {
                let chain = names::profile(profile, self.direction);
                rules.push(Rule::default().then(Verdict::Jump(chain)));
            }
        }
        match self.kind {
            Kind::Workload | Kind::Host => {
                let deny = denial(settings.deny, self.kind.allow());
                let rule = Rule::new([Statement::Counter, deny]);
                rules.push(rule.commented("no policy and no profile has decided"));
            }
            // What nothing has decided goes on.
            Kind::Forward | Kind::PreDnat | Kind::Untracked => {}
        }
        let tiers: Vec<_> = self.tiers.iter().map(|tier| tier.name.as_str()).collect();
        let chain = Chain::regular(rules).commented(&format!(
            "tiers {}; profiles {}",
            tiers.join(" "),
            self.profiles.join(" ")
        ));
        (chain, parts)
    }

    /// Appends a tier; where a lookup has to stand in it, and which, if one does.
    fn tier(
        &self,
        tier: &Tier,
        settings: &Settings,
        desired: &Desired,
        is_plain: &dyn Fn(&PolicyId, Direction) -> bool,
        rules: &mut Vec<Rule>,
        parts: &mut Parts,
    ) -> Option<(usize, LookupKey)> {
        let own = |id: &PolicyId| {
            let policy = desired.policies.get(id);
            policy
                .map(|policy| self.rules(&policy.ingress, &policy.egress))
                .unwrap_or_default()
        };
        let policies = || tier.policies.iter().filter(|id| !own(id).is_empty());
        let only_allows = policies().all(|id| own(id).iter().all(allows));
        let plain: Vec<_> = policies()
            .filter(|id| is_plain(id, self.direction))
            .cloned()
            .collect();
        let count: usize = plain.iter().map(|id| own(id).len()).sum();
        let looked_up = self.kind == Kind::Workload && only_allows && count > settings.lookup_above;
        let lookup = looked_up.then(|| {
            let key = LookupKey {
                direction: self.direction,
                policies: plain.clone(),
            };
            (rules.len(), key)
        });
        let bit = settings.marks.pass;
        let passes = |id: &&PolicyId| own(id).iter().any(|rule| rule.action == Action::Pass);
        let any_passes = policies().any(|id| passes(&id));
        let clear = Rule::new([Statement::SetMark {
            mask: bit,
            value: 0,
        }]);
        let unless_passed = Statement::Marked {
            mask: bit,
            value: 0,
        };
        if any_passes {
            rules.push(clear.clone());
        }
        let mut may_have_passed = false;
        for id in policies().filter(|id| !(looked_up && plain.contains(id))) {
            let guard = may_have_passed.then(|| unless_passed.clone());
            let chain = names::policy(id, self.direction, self.kind.allow());
            let statements: Vec<_> = guard.into_iter().collect();
            rules.push(Rule::new(statements).then(Verdict::Jump(chain)));
            may_have_passed |= passes(&id);
            parts.policies.push(id.clone());
        }
        if tier.default == TierDefault::Deny {
            let guard = any_passes.then_some(unless_passed);
            let deny = denial(settings.deny, self.kind.allow());
            let statements: Vec<_> = guard
                .into_iter()
                .chain([Statement::Counter, deny])
                .collect();
            let label = names::label(&tier.name, "end of tier", "default");
            rules.push(Rule::new(statements).commented(&label));
        }
        if any_passes {
            rules.push(clear);
        }
        lookup
    }

    /// What comes before every policy.
    fn head(&self, settings: &Settings) -> Vec<Rule> {
        let drop = |statements: Vec<Statement>, comment: &str| {
            let statements: Vec<_> = statements.into_iter().chain([Statement::Counter]).collect();
            Rule::new(statements).then(Verdict::Drop).commented(comment)
        };
        let mut rules = Vec::new();
        match (self.kind, self.direction) {
            (Kind::Workload, Direction::Egress) => {
                if !settings.allow_ipip {
                    let what = vec![Statement::Family(Family::V4), Statement::protocol(IPIP)];
                    rules.push(drop(what, "IP in IP from a workload"));
                }
                if !settings.allow_vxlan {
                    let port = Field::Port(Side::Destination);
                    let port = Statement::is(port, settings.vxlan_port.to_be_bytes());
                    let what = vec![Statement::protocol(UDP), port];
                    rules.push(drop(what, "VXLAN from a workload"));
                }
            }
            (Kind::Host | Kind::PreDnat, Direction::Ingress) => {
                rules.push(Rule::default().then(Verdict::Jump(FAILSAFE_IN.to_owned())));
            }
            (Kind::Host, Direction::Egress) => {
                rules.push(Rule::default().then(Verdict::Jump(FAILSAFE_OUT.to_owned())));
            }
            (Kind::Untracked, direction) => {
                let (own, answers) = match direction {
                    Direction::Ingress => (FAILSAFE_IN, ANSWERS_IN),
                    Direction::Egress => (FAILSAFE_OUT, ANSWERS_OUT),
                };
                // Without tracking, answers have to be known by their source port.
                for chain in [own, answers] {
                    rules.push(Rule::default().then(Verdict::Jump(chain.to_owned())));
                }
            }
            _ => {}
        }
        rules
    }

    fn rules<'a>(&self, ingress: &'a [PolicyRule], egress: &'a [PolicyRule]) -> &'a [PolicyRule] {
        super::rules_of(ingress, egress, self.direction)
    }
}

fn allows(rule: &PolicyRule) -> bool {
    rule.action == Action::Allow
}

pub(super) const FAILSAFE_IN: &str = "failsafe-in";
pub(super) const FAILSAFE_OUT: &str = "failsafe-out";
pub(super) const ANSWERS_IN: &str = "failsafe-answers-in";
pub(super) const ANSWERS_OUT: &str = "failsafe-answers-out";
