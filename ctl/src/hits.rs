//! What policy has let through and dropped on this node, from the kernel's counters.
//!
//! Values in, values out: how counters of rules and of elements become hits by tier, policy and rule, and
//! drops by reason.

use std::collections::BTreeMap;

use margay_nft::{ElementCounter, RuleCounter};
use margay_ruleset::Verdict;
use serde::Serialize;

use crate::table::plain;

/// What is counted on a node since its chains were last changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hits {
    /// By rule.
    pub rules: Vec<Hit>,
    /// By reason, the most frequent first.
    pub drops: Vec<Drop>,
}

/// What a rule, or the end of a tier, has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hit {
    /// The tier; `profile` for rules of profiles.
    pub tier: String,
    /// The policy, `<kind>/<name>` or `<kind>/<namespace>/<name>`; `end of tier`; or the profile.
    pub policy: String,
    /// The place of the rule in the policy's list, from 0; `default` at the end of a tier.
    pub rule: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// What it does: `Allow`, `Deny` or `Pass`.
    pub action: &'static str,
    /// First packets of connections, and packets of what is not tracked.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drop {
    /// The reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Groups counters; only those of one policy if one is named.
pub fn hits(rules: &[RuleCounter], elements: &[ElementCounter], policy: Option<&str>) -> Hits {
    let mut found: BTreeMap<Named, (u64, u64)> = BTreeMap::new();
    let mut drops: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for counter in rules {
        let comment = counter.comment.as_deref().unwrap_or("no comment");
        let counted = (counter.packets, counter.bytes);
        let named = Named::read(comment, &counter.chain, action(counter));
        if counter.denies {
            let reason = match &named {
                Some(named) if named.policy == END_OF_TIER => format!("end of tier {}", named.tier),
                Some(_) => "denied by a rule".to_owned(),
                None => comment.to_owned(),
            };
            add(drops.entry(reason).or_default(), counted);
        }
        if let Some(named) = named {
            add(found.entry(named).or_default(), counted);
        }
    }
    for counter in elements {
        let comment = counter.comment.as_deref().unwrap_or_default();
        if let Some(named) = Named::read(comment, &counter.set, ALLOW) {
            let counted = (counter.packets, counter.bytes);
            add(found.entry(named).or_default(), counted);
        }
    }
    let mut rules: Vec<Hit> = found
        .into_iter()
        .filter(|(named, _)| policy.is_none_or(|policy| named.is(policy)))
        .map(|(named, (packets, bytes))| Hit {
            tier: named.tier,
            policy: named.policy,
            rule: named.rule,
            direction: named.direction,
            action: named.action,
            packets,
            bytes,
        })
        .collect();
    // Rules of one policy by number.
    rules.sort_by_cached_key(|hit| {
        let number: u32 = hit.rule.parse().unwrap_or(u32::MAX);
        let ends = hit.policy == END_OF_TIER;
        (
            hit.tier.clone(),
            ends,
            hit.policy.clone(),
            hit.direction,
            number,
        )
    });
    let mut drops: Vec<Drop> = drops
        .into_iter()
        .filter(|(_, (packets, _))| *packets > 0 && policy.is_none())
        .map(|(reason, (packets, bytes))| Drop {
            reason,
            packets,
            bytes,
        })
        .collect();
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.packets));
    Hits { rules, drops }
}

impl Hits {
    /// Two tables for people.
    pub fn text(&self) -> String {
        let rules: Vec<Vec<String>> = self.rules.iter().map(Hit::row).collect();
        let mut out = plain(&RULES, &rules);
        if !self.drops.is_empty() {
            let drops = self.drops.iter().map(|drop| {
                let (packets, bytes) = (drop.packets.to_string(), drop.bytes.to_string());
                vec![drop.reason.clone(), packets, bytes]
            });
            out.push('\n');
            out.push_str(&plain(&DROPS, &drops.collect::<Vec<_>>()));
        }
        out
    }
}

impl Hit {
    fn row(&self) -> Vec<String> {
        vec![
            self.tier.clone(),
            self.policy.clone(),
            self.rule.clone(),
            self.direction.to_owned(),
            self.action.to_owned(),
            self.packets.to_string(),
            self.bytes.to_string(),
        ]
    }
}

/// What a comment `<tier>|<policy>|<rule>` names, with what the name of its chain or map tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    tier: String,
    policy: String,
    rule: String,
    direction: &'static str,
    action: &'static str,
}

impl Named {
    /// `None` for other comments.
    fn read(comment: &str, place: &str, action: &'static str) -> Option<Self> {
        let (tier, rest) = comment.split_once('|')?;
        let (policy, rule) = rest.rsplit_once('|')?;
        let kind = place.split('-').next().unwrap_or_default();
        let direction = match kind.trim_end_matches(['4', '6']).chars().next_back() {
            Some('i') => "ingress",
            Some('o') => "egress",
            _ => "",
        };
        Some(Self {
            tier: tier.to_owned(),
            policy: policy.to_owned(),
            rule: rule.to_owned(),
            direction,
            action,
        })
    }

    /// Whether a user who writes this means it: the whole name, or without the kind or the namespace.
    fn is(&self, text: &str) -> bool {
        let before = self.policy.strip_suffix(text);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }
}

/// What a rule of policy does with what it counts.
fn action(counter: &RuleCounter) -> &'static str {
    match &counter.verdict {
        _ if counter.denies => "Deny",
        Some(Verdict::Accept) => ALLOW,
        Some(Verdict::Return) => "Pass",
        _ => "",
    }
}

fn add(to: &mut (u64, u64), (packets, bytes): (u64, u64)) {
    to.0 = to.0.saturating_add(packets);
    to.1 = to.1.saturating_add(bytes);
}

const ALLOW: &str = "Allow";
const END_OF_TIER: &str = "end of tier";
const RULES: [&str; 7] = [
    "TIER",
    "POLICY",
    "RULE",
    "DIRECTION",
    "ACTION",
    "PACKETS",
    "BYTES",
];
const DROPS: [&str; 3] = ["DROPPED BECAUSE", "PACKETS", "BYTES"];

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(chain: &str, comment: &str, denies: bool, packets: u64) -> RuleCounter {
        RuleCounter {
            chain: chain.to_owned(),
            index: 0,
            comment: Some(comment.to_owned()),
            denies,
            verdict: match denies {
                true => Some(Verdict::Drop),
                false => Some(Verdict::Accept),
            },
            packets,
            bytes: packets * 60,
        }
    }

    fn sample() -> (Vec<RuleCounter>, Vec<ElementCounter>) {
        let element = |set: &str, packets| ElementCounter {
            set: set.to_owned(),
            comment: Some("default|NetworkPolicy/prod/db|2".to_owned()),
            packets,
            bytes: packets * 60,
        };
        let rules = vec![
            rule("pi-0a", "default|NetworkPolicy/prod/db|10", false, 4),
            // The rule for the other family.
            rule("pi-0a", "default|NetworkPolicy/prod/db|2", false, 1),
            rule("po-0a", "default|NetworkPolicy/prod/db|2", true, 7),
            rule("ci-1", "default|end of tier|default", true, 3),
            rule("ci-2", "default|end of tier|default", true, 2),
            rule("sent", "spoofed source address", true, 9),
            rule("sent", "spoofed MAC address", true, 0),
            rule("nat-post", "natOutgoing", false, 8),
            RuleCounter {
                verdict: Some(Verdict::Return),
                ..rule("ri-1", "profile|kns.prod|0", false, 6)
            },
        ];
        (rules, vec![element("li4-00", 20), element("li4-00", 30)])
    }

    #[test]
    fn rules_and_elements_come_together() {
        let (rules, elements) = sample();
        let hits = hits(&rules, &elements, None);
        let found: Vec<_> = hits
            .rules
            .iter()
            .map(|hit| {
                (
                    &*hit.policy,
                    &*hit.rule,
                    hit.direction,
                    hit.action,
                    hit.packets,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("NetworkPolicy/prod/db", "2", "egress", "Deny", 7),
                ("NetworkPolicy/prod/db", "2", "ingress", "Allow", 51),
                ("NetworkPolicy/prod/db", "10", "ingress", "Allow", 4),
                ("end of tier", "default", "ingress", "Deny", 5),
                ("kns.prod", "0", "ingress", "Pass", 6),
            ]
        );
        let drops: Vec<_> = hits
            .drops
            .iter()
            .map(|drop| (&*drop.reason, drop.packets, drop.bytes))
            .collect();
        assert_eq!(
            drops,
            [
                ("spoofed source address", 9, 540),
                ("denied by a rule", 7, 420),
                ("end of tier default", 5, 300),
            ]
        );
    }

    #[test]
    fn a_policy_is_meant_by_any_end_of_its_name() {
        let (rules, elements) = sample();
        for (name, count) in [
            ("NetworkPolicy/prod/db", 3),
            ("prod/db", 3),
            ("db", 3),
            ("b", 0),
            ("kns.prod", 1),
        ] {
            let found = hits(&rules, &elements, Some(name));
            assert_eq!(found.rules.len(), count, "{name}");
            assert_eq!(found.drops, [], "{name}");
        }
    }

    #[test]
    fn tables() {
        let (rules, _) = sample();
        let text = hits(&rules[3..6], &[], None).text();
        assert_eq!(
            text,
            "TIER      POLICY        RULE      DIRECTION   ACTION   PACKETS   BYTES\n\
             default   end of tier   default   ingress     Deny     5         300\n\n\
             DROPPED BECAUSE          PACKETS   BYTES\n\
             spoofed source address   9         540\n\
             end of tier default      5         300\n"
        );
    }
}
