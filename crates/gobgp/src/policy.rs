//! Policies as GoBGP's: sets, and statements that refer to them.
//!
//! A statement of GoBGP's has at most one condition of each kind, and all must hold; there is no "or" and no
//! nesting. So each condition of ours is found out by statements of its own, which mark the route with a
//! large community of an AS that nobody has; marks are combined by statements that look at marks, and rules
//! look at the last. All marks are taken away before a route leaves the policy, and those that a peer sends
//! before it is looked at.

mod sets;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use margay_bgp::policy::{Owners, PrefixSet, priority_of_preference};
use margay_bgp::{
    Condition, LocalRoute, NextHopMode, Operation, PeerConfig, Policy, RemoteAs, Rule,
    SpeakerConfig, Verdict,
};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use crate::api::{self, Actions, CommunityAction, Conditions, MatchSet, Statement};
use sets::Sets;

/// All policies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policies {
    /// Sets and policies; those of imports and exports are named [`Policies::IMPORT`] and
    /// [`Policies::EXPORT`]. Where none decides a route is rejected.
    pub request: api::SetPoliciesRequest,
    /// Peers whose policies cannot be had, by name, with what GoBGP cannot do.
    pub left_out: BTreeMap<String, String>,
}

impl Policies {
    /// The name of the policy of what is taken.
    pub const IMPORT: &'static str = "margay-import";
    /// The name of the policy of what is announced.
    pub const EXPORT: &'static str = "margay-export";
}

/// The policies of all peers. Own routes decide what their tags, interfaces and priorities mean.
#[must_use]
pub fn policies(speaker: &SpeakerConfig, routes: &BTreeMap<Cidr, LocalRoute>) -> Policies {
    let mut left_out = BTreeMap::new();
    let mut sets = Sets::default();
    let mut made = Vec::new();
    // Own routes come in by themselves, whatever peers may announce.
    let own = Statement {
        name: "margay-own".to_owned(),
        conditions: Some(Conditions {
            route_type: LOCAL,
            ..Conditions::default()
        }),
        actions: Some(actions(ACCEPT)),
    };
    for direction in [Direction::Import, Direction::Export] {
        let mut groups: Vec<(Group<'_>, Vec<&str>, BTreeSet<IpAddr>)> = Vec::new();
        for (name, peer) in &speaker.peers {
            let group = Group::of(speaker, peer, direction);
            match groups.iter_mut().find(|(other, ..)| *other == group) {
                Some((_, names, addresses)) => {
                    names.push(name);
                    addresses.insert(peer.address);
                }
                None => groups.push((group, vec![name], BTreeSet::from([peer.address]))),
            }
        }
        let mut statements = match direction {
            Direction::Import => vec![own.clone()],
            Direction::Export => Vec::new(),
        };
        for (number, (group, names, addresses)) in groups.into_iter().enumerate() {
            let word = match direction {
                Direction::Import => "import",
                Direction::Export => "export",
            };
            let mut writer = Writer {
                sets: &mut sets,
                routes,
                group,
                peers: addresses,
                prefix: format!("{word}-{number}"),
                statements: Vec::new(),
                marks: 0,
            };
            match writer.write() {
                Ok(()) => statements.append(&mut writer.statements),
                Err(reason) => {
                    let names = names.into_iter();
                    left_out.extend(names.map(|name| (name.to_owned(), reason.clone())));
                }
            }
        }
        let name = match direction {
            Direction::Import => Policies::IMPORT,
            Direction::Export => Policies::EXPORT,
        };
        made.push(api::Policy {
            name: name.to_owned(),
            statements,
        });
    }
    Policies {
        request: api::SetPoliciesRequest {
            defined_sets: sets.into_messages(),
            policies: made,
        },
        left_out,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Import,
    Export,
}

/// What peers have in common that share statements.
#[derive(Debug, Clone, PartialEq)]
struct Group<'a> {
    policy: Option<&'a Arc<Policy>>,
    direction: Direction,
    external: bool,
    own_as: AsNumber,
    next_hop: NextHopMode,
}

impl<'a> Group<'a> {
    fn of(speaker: &SpeakerConfig, peer: &'a PeerConfig, direction: Direction) -> Self {
        let own = peer.local_as.unwrap_or(speaker.asn);
        Self {
            policy: match direction {
                Direction::Import => peer.import.as_ref(),
                Direction::Export => peer.export.as_ref(),
            },
            direction,
            external: match peer.remote_as {
                RemoteAs::Is(asn) => asn != own,
                RemoteAs::External => true,
                RemoteAs::Any | RemoteAs::Internal => false,
            },
            own_as: own,
            next_hop: peer.next_hop,
        }
    }
}

/// What is known of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Truth {
    Known(bool),
    /// The route bears this mark if the condition holds.
    Marked(u32),
}

struct Writer<'s, 'a> {
    sets: &'s mut Sets,
    routes: &'a BTreeMap<Cidr, LocalRoute>,
    group: Group<'a>,
    peers: BTreeSet<IpAddr>,
    prefix: String,
    statements: Vec<Statement>,
    marks: u32,
}

impl Writer<'_, '_> {
    fn write(&mut self) -> Result<(), String> {
        self.say(Conditions::default(), forget(0));
        if self.group.external && self.group.direction == Direction::Import {
            // RFC 8326 §4: whatever is about to go is the last choice.
            let community_set = Some(self.sets.communities(["65535:0".to_owned()]));
            let conditions = Conditions {
                community_set,
                ..Conditions::default()
            };
            self.say(conditions, prefer(0));
        }
        match self.group.policy {
            // RFC 8212: nothing without policy, but within the AS.
            None => self.decide(Truth::Known(true), verdict(!self.group.external)),
            Some(policy) => {
                for rule in &policy.rules {
                    self.rule(rule)?;
                }
                self.decide(Truth::Known(true), policy.otherwise);
            }
        }
        Ok(())
    }

    fn rule(&mut self, rule: &Rule) -> Result<(), String> {
        let holds = self.all(&rule.conditions)?;
        if holds == Truth::Known(false) {
            return Ok(());
        }
        if rule.verdict != Some(Verdict::Reject) {
            for operation in &rule.operations {
                for change in self.changes(operation)? {
                    let conditions = self.marked(holds);
                    self.say(conditions, change);
                }
            }
        }
        if let Some(verdict) = rule.verdict {
            self.decide(holds, verdict);
        }
        Ok(())
    }

    fn decide(&mut self, holds: Truth, verdict: Verdict) {
        let conditions = self.marked(holds);
        let actions = match verdict {
            Verdict::Reject => actions(REJECT),
            Verdict::Accept => Actions {
                route_action: ACCEPT,
                nexthop: match self.group.next_hop {
                    _ if self.group.direction == Direction::Import => None,
                    NextHopMode::Own => Some(api::NexthopAction {
                        self_: true,
                        unchanged: false,
                    }),
                    NextHopMode::Keep if self.group.external => Some(api::NexthopAction {
                        self_: false,
                        unchanged: true,
                    }),
                    NextHopMode::Auto | NextHopMode::Keep => None,
                },
                ..forget(0)
            },
        };
        self.say(conditions, actions);
    }

    /// A statement for the peers of this group.
    fn say(&mut self, conditions: Conditions, actions: Actions) {
        let peers = self.peers.iter().copied();
        let neighbor_set = conditions
            .neighbor_set
            .or_else(|| Some(self.sets.neighbours(peers)));
        self.statements.push(Statement {
            name: format!("margay-{}-{}", self.prefix, self.statements.len()),
            conditions: Some(Conditions {
                neighbor_set,
                ..conditions
            }),
            actions: Some(actions),
        });
    }

    /// A mark for what a statement finds out.
    fn mark(&mut self, conditions: Conditions) -> Truth {
        self.marks += 1;
        let number = self.marks;
        self.say(conditions, mark(number));
        Truth::Marked(number)
    }

    fn marked(&mut self, holds: Truth) -> Conditions {
        Conditions {
            large_community_set: match holds {
                Truth::Known(_) => None,
                Truth::Marked(number) => Some(self.sets.large([text(number)], ANY)),
            },
            ..Conditions::default()
        }
    }

    fn all(&mut self, conditions: &[Condition]) -> Result<Truth, String> {
        self.joined(conditions, true)
    }

    /// All conditions, or one of them where `all` is false.
    fn joined(&mut self, conditions: &[Condition], all: bool) -> Result<Truth, String> {
        let mut numbers = Vec::new();
        for condition in conditions {
            match self.holds(condition)? {
                Truth::Known(known) if known == all => {}
                Truth::Known(known) => return Ok(Truth::Known(known)),
                Truth::Marked(number) => numbers.push(number),
            }
        }
        Ok(match numbers.as_slice() {
            [] => Truth::Known(all),
            [one] => Truth::Marked(*one),
            many => {
                let kind = if all { ALL } else { ANY };
                let set = self
                    .sets
                    .large(many.iter().map(|number| text(*number)), kind);
                self.mark(Conditions {
                    large_community_set: Some(set),
                    ..Conditions::default()
                })
            }
        })
    }

    fn not(&mut self, truth: Truth) -> Truth {
        match truth {
            Truth::Known(known) => Truth::Known(!known),
            Truth::Marked(number) => {
                let set = self.sets.large([text(number)], INVERT);
                self.mark(Conditions {
                    large_community_set: Some(set),
                    ..Conditions::default()
                })
            }
        }
    }

    fn holds(&mut self, condition: &Condition) -> Result<Truth, String> {
        let none = Conditions::default;
        Ok(match condition {
            Condition::Prefix(comparison) => {
                let (set, inverse) = sets::comparison(comparison);
                let found = self.within(&set, false);
                if inverse { self.not(found) } else { found }
            }
            Condition::PrefixSet(set) => self.within(set, false),
            Condition::Family(family) => self.mark(Conditions {
                afi_safi_in: vec![api::Family::of(*family)],
                ..none()
            }),
            Condition::FromPeers => {
                let local = self.local();
                self.not(local)
            }
            Condition::Local => self.local(),
            Condition::Tag(tag) => self.own(|route| route.tag == *tag),
            Condition::Interface(names) => self.own(|route| {
                let name = route.interface.as_deref();
                name.is_some_and(|name| names.holds(name))
            }),
            Condition::Community(community) => {
                let community_set = Some(self.sets.communities([community.to_string()]));
                self.mark(Conditions {
                    community_set,
                    ..none()
                })
            }
            Condition::LargeCommunity(community) => {
                let set = self.sets.large([community.to_string()], ANY);
                self.mark(Conditions {
                    large_community_set: Some(set),
                    ..none()
                })
            }
            Condition::AsPathPrefix(numbers) if numbers.is_empty() => Truth::Known(true),
            Condition::AsPathPrefix(numbers) => {
                // A route on its way out has our own AS before all others by then.
                let own = self.puts_own_as().then_some(self.group.own_as);
                let numbers: Vec<String> =
                    own.iter().chain(numbers).map(ToString::to_string).collect();
                let as_path_set = Some(self.sets.path(&format!("^{}( |$)", numbers.join(" "))));
                self.mark(Conditions {
                    as_path_set,
                    ..none()
                })
            }
            Condition::Priority(_) => {
                return Err(
                    "a filter asks for a priority, and GoBGP's policies cannot look at LOCAL_PREF; \
                     take the priority out"
                        .to_owned(),
                );
            }
            Condition::External => Truth::Known(self.group.external),
            Condition::Internal => Truth::Known(!self.group.external),
            Condition::NextHop(addresses) if addresses.is_empty() => Truth::Known(false),
            Condition::NextHop(addresses) => self.mark(Conditions {
                next_hop_in_list: addresses.iter().map(ToString::to_string).collect(),
                ..none()
            }),
            Condition::Owner(owners) => self.owned(owners),
            Condition::Not(condition) => {
                let holds = self.holds(condition)?;
                self.not(holds)
            }
            Condition::Any(conditions) => self.joined(conditions, false)?,
            Condition::All(conditions) => self.joined(conditions, true)?,
        })
    }

    fn local(&mut self) -> Truth {
        self.mark(Conditions {
            route_type: LOCAL,
            ..Conditions::default()
        })
    }

    /// Own routes of a kind, which are known one by one.
    fn own(&mut self, of_kind: impl Fn(&LocalRoute) -> bool) -> Truth {
        let routes = self.routes.values().filter(|route| of_kind(route));
        let set = PrefixSet::exactly(routes.map(|route| route.prefix));
        self.within(&set, true)
    }

    /// Whether the prefix lies in a set, and the route is our own where that is asked for.
    fn within(&mut self, set: &PrefixSet, own: bool) -> Truth {
        let number = self.marks + 1;
        let mut any = false;
        for family in [Family::V4, Family::V6] {
            // A set of GoBGP's is of one family.
            let Some(prefix_set) = self.sets.prefixes(set, family) else {
                continue;
            };
            let conditions = Conditions {
                prefix_set: Some(prefix_set),
                route_type: if own { LOCAL } else { 0 },
                ..Conditions::default()
            };
            self.say(conditions, mark(number));
            any = true;
        }
        if !any {
            return Truth::Known(false);
        }
        self.marks = number;
        Truth::Marked(number)
    }

    /// Whether a learned route comes from its owner: prefixes within others come after those.
    fn owned(&mut self, owners: &Owners) -> Truth {
        self.marks += 1;
        let number = self.marks;
        for (within, groups) in sets::owners(owners) {
            for family in [Family::V4, Family::V6] {
                if let Some(prefix_set) = self.sets.prefixes(&within, family) {
                    let conditions = Conditions {
                        prefix_set: Some(prefix_set),
                        ..Conditions::default()
                    };
                    self.say(conditions, forget(number));
                }
            }
            for (addresses, set) in groups {
                let peers: BTreeSet<IpAddr> =
                    addresses.union(&owners.reflectors).copied().collect();
                let peers: Vec<IpAddr> = peers.intersection(&self.peers).copied().collect();
                if peers.is_empty() || addresses.is_empty() {
                    continue;
                }
                for family in [Family::V4, Family::V6] {
                    let Some(prefix_set) = self.sets.prefixes(&set, family) else {
                        continue;
                    };
                    let neighbor_set = Some(self.sets.neighbours(peers.iter().copied()));
                    let conditions = Conditions {
                        prefix_set: Some(prefix_set),
                        neighbor_set,
                        next_hop_in_list: addresses.iter().map(ToString::to_string).collect(),
                        ..Conditions::default()
                    };
                    self.say(conditions, mark(number));
                }
            }
        }
        // Own routes are ours.
        let conditions = Conditions {
            route_type: LOCAL,
            ..Conditions::default()
        };
        self.say(conditions, mark(number));
        Truth::Marked(number)
    }

    /// Whether the session puts our AS before the path, which GoBGP does before it asks the policy.
    fn puts_own_as(&self) -> bool {
        self.group.external && self.group.direction == Direction::Export
    }

    fn changes(&self, operation: &Operation) -> Result<Vec<Actions>, String> {
        let community = |kind, text: String| Actions {
            community: Some(CommunityAction {
                kind,
                communities: vec![text],
            }),
            ..Actions::default()
        };
        let large = |kind, text: String| Actions {
            large_community: Some(CommunityAction {
                kind,
                communities: vec![text],
            }),
            ..Actions::default()
        };
        Ok(match operation {
            Operation::AddCommunity(value) => vec![community(ADD, value.to_string())],
            Operation::RemoveCommunity(value) => vec![community(REMOVE, value.to_string())],
            Operation::AddLargeCommunity(value) => vec![large(ADD, value.to_string())],
            Operation::RemoveLargeCommunity(value) => vec![large(REMOVE, value.to_string())],
            Operation::ClearCommunities => {
                return Err(
                    "a policy clears all communities, which GoBGP cannot beside its other conditions"
                        .to_owned(),
                );
            }
            Operation::PrependAs(numbers)
                if self.puts_own_as() && numbers.iter().any(|asn| *asn != self.group.own_as) =>
            {
                return Err(format!(
                    "a policy puts AS numbers before the path that are not ours, and GoBGP would put \
                     them before our own; prepend {} alone",
                    self.group.own_as
                ));
            }
            Operation::PrependAs(numbers) => {
                let last_first = numbers.iter().rev();
                last_first
                    .map(|asn| Actions {
                        as_prepend: Some(api::AsPrependAction {
                            asn: asn.0,
                            repeat: 1,
                        }),
                        ..Actions::default()
                    })
                    .collect()
            }
            Operation::SetLocalPref(value) => vec![prefer(*value)],
            Operation::SetPriority(value) => vec![prefer(priority_of_preference(*value))],
            Operation::SetMed(Some(value)) => vec![Actions {
                med: Some(api::MedAction {
                    kind: 1,
                    value: i64::from(*value),
                }),
                ..Actions::default()
            }],
            Operation::SetMed(None) => {
                return Err("a policy takes MULTI_EXIT_DISC away, which GoBGP cannot".to_owned());
            }
            Operation::SetNextHop(mode) if *mode == self.group.next_hop => Vec::new(),
            Operation::SetNextHop(_) => {
                return Err(
                    "a policy chooses the next hop of some routes, which is done by session only; \
                     set nextHopMode of the peer"
                        .to_owned(),
                );
            }
        })
    }
}

fn verdict(accept: bool) -> Verdict {
    if accept {
        Verdict::Accept
    } else {
        Verdict::Reject
    }
}

fn actions(route_action: i32) -> Actions {
    Actions {
        route_action,
        ..Actions::default()
    }
}

fn prefer(value: u32) -> Actions {
    Actions {
        local_pref: Some(api::LocalPrefAction { value }),
        ..Actions::default()
    }
}

/// Puts a mark on a route.
fn mark(number: u32) -> Actions {
    change_marks(ADD, text(number))
}

/// Takes a mark from a route; all for 0.
fn forget(number: u32) -> Actions {
    let which = match number {
        0 => format!("^{MARK_AS}:{MARK}:[0-9]+$"),
        number => text(number),
    };
    change_marks(REMOVE, which)
}

fn change_marks(kind: i32, which: String) -> Actions {
    Actions {
        large_community: Some(CommunityAction {
            kind,
            communities: vec![which],
        }),
        ..Actions::default()
    }
}

/// A mark as a large community.
fn text(number: u32) -> String {
    format!("{MARK_AS}:{MARK}:{number}")
}

/// How a set matches.
fn matching(name: String, kind: i32) -> MatchSet {
    MatchSet { kind, name }
}

/// The last AS, which is reserved (RFC 7300).
const MARK_AS: u32 = u32::MAX;
const MARK: u32 = 77;
const ANY: i32 = 0;
const ALL: i32 = 1;
const INVERT: i32 = 2;
const ACCEPT: i32 = 1;
const REJECT: i32 = 2;
const ADD: i32 = 0;
const REMOVE: i32 = 1;
const LOCAL: i32 = 3;
