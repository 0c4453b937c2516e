//! Which routes a changed policy may decide otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_model::Cidr;

use super::{Condition, Owners, Policy, PrefixSet, Rule};

/// Routes that two policies may not agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Any.
    All,
    /// Those whose prefixes lie within one of these; none where there are none.
    Within(BTreeSet<Cidr>),
}

impl Policy {
    /// On which routes the policy may decide otherwise than an earlier one.
    ///
    /// Policies that are made of the same rules and differ in the prefixes of their sets and in those prefixes'
    /// owners alone differ on routes within these prefixes only, since no rule changes a route's prefix.
    #[must_use]
    pub fn difference(&self, earlier: &Self) -> Difference {
        let mut changed = BTreeSet::new();
        let alike = self.otherwise == earlier.otherwise
            && each(&self.rules, &earlier.rules, |rule, earlier| {
                rule.alike(earlier, &mut changed)
            });
        if alike {
            Difference::Within(changed)
        } else {
            Difference::All
        }
    }
}

impl Difference {
    /// Between policies, where there are any.
    pub(crate) fn between(now: Option<&Arc<Policy>>, earlier: Option<&Arc<Policy>>) -> Self {
        match (now, earlier) {
            (None, None) => Self::Within(BTreeSet::new()),
            (Some(now), Some(earlier)) if Arc::ptr_eq(now, earlier) => {
                Self::Within(BTreeSet::new())
            }
            (Some(now), Some(earlier)) => now.difference(earlier),
            _ => Self::All,
        }
    }
}

impl Rule {
    /// Whether the rules differ in prefixes alone; adds those.
    fn alike(&self, earlier: &Self, changed: &mut BTreeSet<Cidr>) -> bool {
        self.name == earlier.name
            && self.operations == earlier.operations
            && self.verdict == earlier.verdict
            && each(
                &self.conditions,
                &earlier.conditions,
                |condition, earlier| condition.alike(earlier, changed),
            )
    }
}

impl Condition {
    fn alike(&self, earlier: &Self, changed: &mut BTreeSet<Cidr>) -> bool {
        match (self, earlier) {
            (Self::PrefixSet(now), Self::PrefixSet(earlier)) => {
                if !Arc::ptr_eq(now, earlier) {
                    now.changed(earlier, changed);
                }
                true
            }
            (Self::Owner(now), Self::Owner(earlier)) => {
                Arc::ptr_eq(now, earlier) || now.alike(earlier, changed)
            }
            (Self::Not(now), Self::Not(earlier)) => now.alike(earlier, changed),
            (Self::Any(now), Self::Any(earlier)) | (Self::All(now), Self::All(earlier)) => {
                each(now, earlier, |now, earlier| now.alike(earlier, changed))
            }
            (now, earlier) => now == earlier,
        }
    }
}

impl PrefixSet {
    fn changed(&self, earlier: &Self, changed: &mut BTreeSet<Cidr>) {
        differing(&self.by_prefix, &earlier.by_prefix, changed);
    }
}

impl Owners {
    fn alike(&self, earlier: &Self, changed: &mut BTreeSet<Cidr>) -> bool {
        differing(&self.by_prefix, &earlier.by_prefix, changed);
        self.reflectors == earlier.reflectors
    }
}

/// Adds the prefixes that have other values, or are in one map only.
fn differing<T: PartialEq>(
    now: &BTreeMap<Cidr, T>,
    earlier: &BTreeMap<Cidr, T>,
    changed: &mut BTreeSet<Cidr>,
) {
    let other = now
        .iter()
        .filter(|(prefix, value)| earlier.get(prefix) != Some(value));
    let gone = earlier.keys().filter(|prefix| !now.contains_key(prefix));
    changed.extend(other.map(|(prefix, _)| *prefix));
    changed.extend(gone.copied());
}

/// Whether both have as many items, of which each pair is alike.
fn each<T>(now: &[T], earlier: &[T], mut alike: impl FnMut(&T, &T) -> bool) -> bool {
    now.len() == earlier.len()
        && now
            .iter()
            .zip(earlier)
            .all(|(now, earlier)| alike(now, earlier))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Candidate, Operation, RouteSource, Verdict};
    use crate::route::LocalRoute;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    /// The import policy of a node: a route of a pool, from its owner.
    fn policy(pools: &[&str], owners: &[(&str, &str)], reflectors: &[&str]) -> Policy {
        let pools = PrefixSet::within(pools.iter().map(|pool| cidr(pool)));
        let by_prefix = owners.iter().map(|(prefix, owner)| {
            let owner: IpAddr = owner.parse().unwrap();
            (cidr(prefix), BTreeSet::from([owner]))
        });
        let owners = Owners {
            by_prefix: by_prefix.collect(),
            reflectors: reflectors.iter().map(|r| r.parse().unwrap()).collect(),
        };
        let of_nodes = vec![
            Condition::PrefixSet(Arc::new(pools)),
            Condition::Owner(Arc::new(owners)),
        ];
        let rule = Rule::new(
            "not of a node",
            vec![Condition::Not(Box::new(Condition::All(of_nodes)))],
            Verdict::Reject,
        );
        Policy {
            name: "import".to_owned(),
            rules: vec![rule],
            otherwise: Verdict::Accept,
        }
    }

    fn within(prefixes: &[&str]) -> Difference {
        Difference::Within(prefixes.iter().map(|prefix| cidr(prefix)).collect())
    }

    #[test]
    fn a_changed_block_is_all_that_differs() {
        let owners = [("10.65.0.0/26", "10.0.0.2"), ("10.65.1.0/26", "10.0.0.3")];
        let earlier = policy(&["10.65.0.0/16"], &owners, &[]);
        assert_eq!(earlier.difference(&earlier.clone()), within(&[]));
        let moved = [("10.65.0.0/26", "10.0.0.3"), ("10.65.1.0/26", "10.0.0.3")];
        let moved = policy(&["10.65.0.0/16"], &moved, &[]);
        assert_eq!(moved.difference(&earlier), within(&["10.65.0.0/26"]));
        let fewer = policy(&["10.65.0.0/16"], &owners[..1], &[]);
        assert_eq!(fewer.difference(&earlier), within(&["10.65.1.0/26"]));
        assert_eq!(earlier.difference(&fewer), within(&["10.65.1.0/26"]));
        let pools = policy(&["10.65.0.0/16", "10.66.0.0/16"], &owners, &[]);
        assert_eq!(pools.difference(&earlier), within(&["10.66.0.0/16"]));
    }

    #[test]
    fn what_is_not_of_prefixes_differs_on_all() {
        let earlier = policy(&["10.65.0.0/16"], &[("10.65.0.0/26", "10.0.0.2")], &[]);
        let mut others = vec![policy(
            &["10.65.0.0/16"],
            &[("10.65.0.0/26", "10.0.0.2")],
            &["10.0.0.9"],
        )];
        let mut change = |change: &dyn Fn(&mut Policy)| {
            let mut other = earlier.clone();
            change(&mut other);
            others.push(other);
        };
        change(&|policy| policy.otherwise = Verdict::Reject);
        change(&|policy| policy.rules.clear());
        change(&|policy| policy.rules[0].verdict = Some(Verdict::Accept));
        change(&|policy| policy.rules[0].name = "other".into());
        change(&|policy| policy.rules[0].operations = vec![Operation::SetLocalPref(7)]);
        change(&|policy| policy.rules[0].conditions = vec![Condition::FromPeers]);
        change(&|policy| policy.rules[0].conditions.push(Condition::Local));
        for other in others {
            assert_eq!(other.difference(&earlier), Difference::All, "{other:?}");
        }
        let none = Difference::between(None, Some(&Arc::new(earlier)));
        assert_eq!(none, Difference::All);
    }

    const HOSTS: [&str; 3] = ["10.0.0.2", "10.0.0.3", "10.0.0.4"];

    fn prefix() -> impl Strategy<Value = Cidr> {
        (0..64_u8, 24..=32_u8).prop_map(|(last, length)| {
            Cidr::new([10, 65, last / 16, last % 16 * 16].into(), length).unwrap()
        })
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        let pools = prop::collection::vec(prefix(), 0..3);
        let owners = prop::collection::vec((prefix(), 0..3_usize), 0..8);
        (pools, owners).prop_map(|(pools, owners)| {
            let pools: Vec<String> = pools.iter().map(Cidr::to_string).collect();
            let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
            let owners: Vec<(String, usize)> =
                owners.iter().map(|(p, h)| (p.to_string(), *h)).collect();
            let owners: Vec<(&str, &str)> = owners
                .iter()
                .map(|(p, h)| (p.as_str(), HOSTS[*h]))
                .collect();
            policy(&pools, &owners, &["10.0.0.4"])
        })
    }

    proptest! {
        #[test]
        fn policies_agree_on_whatever_is_not_within_their_difference(
            earlier in any_policy(),
            now in any_policy(),
            routes in prop::collection::vec((prefix(), 0..3_usize, 0..3_usize), 1..40),
        ) {
            let Difference::Within(changed) = now.difference(&earlier) else {
                panic!("they differ in prefixes alone");
            };
            for (prefix, next_hop, peer) in routes {
                let mut route = LocalRoute::new(prefix);
                route.next_hop = Some(HOSTS[next_hop].parse().unwrap());
                let attributes = route.attributes();
                let candidate = Candidate {
                    prefix,
                    attributes: &attributes,
                    source: RouteSource::Peer { address: HOSTS[peer].parse().unwrap() },
                    external: false,
                };
                let same = now.takes(&candidate) == earlier.takes(&candidate);
                let inside = changed.iter().any(|changed| changed.covers(&prefix));
                prop_assert!(same || inside, "{prefix}: {now:?} {earlier:?}");
            }
        }
    }
}
