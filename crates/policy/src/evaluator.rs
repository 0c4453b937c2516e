//! The slow and obvious answer: what becomes of a packet, and what decides it.
//!
//! It goes through the resources one by one for every packet and keeps nothing. The tests hold the
//! [`Calculator`](crate::Calculator) against it, and people ask it why. Beyond the resources' types and
//! the selector language it has nothing in common with the calculation.

mod items;
mod matching;
mod policies;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use margay_model::resource::endpoint::WorkloadEndpointSpec;
use margay_model::resource::profile::{DEFAULT_ALLOW, default_allow};
use margay_model::resource::rule::Rule;
use margay_model::{AnyResource, Key, Kind};

use crate::calculator::ServicePort;
use crate::failsafe::Failsafes;
use crate::output::{EndpointId, PolicyId, TierDefault};
use items::{Item, items};
use matching::{matches, understood};
use policies::Applied;

/// What decides: the resources of the store and what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The resources by key.
    pub resources: BTreeMap<Key, AnyResource>,
    /// The ports of services, by `<namespace>/<name>`.
    pub services: BTreeMap<String, Vec<ServicePort>>,
    /// The ports of hosts that stay open.
    pub failsafes: Failsafes,
    /// Whether staged policies are taken for such in force.
    pub staged: bool,
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes to; of the family of `source`.
    pub destination: IpAddr,
    /// The protocol number (IANA).
    pub protocol: u8,
    /// The source port; 0 where the protocol has none.
    pub source_port: u16,
    /// The destination port; 0 where the protocol has none.
    pub destination_port: u16,
    /// Type and code of ICMP.
    pub icmp: Option<(u8, u8)>,
}

/// A direction of traffic, seen from the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Where a packet is decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a workload endpoint.
    Workload(EndpointId),
    /// At a host endpoint, by name.
    Host(String, HostStage),
}

/// The chains of a host endpoint; see [`Host`](crate::Host).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the chain of that name")]
pub enum HostStage {
    Untracked,
    PreDnat,
    Forward,
    Normal,
}

/// What becomes of a packet at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is accepted.
    Allow,
    /// It is dropped.
    Deny,
    /// It goes on: a chain that only comes before others has not decided.
    GoesOn,
}

/// Something that bears on a packet, in the order of evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A rule of a policy matches.
    Policy {
        /// The tier.
        tier: String,
        /// The policy.
        policy: PolicyId,
        /// The place of the rule in the policy's list, from 0; `None` where the policy denies because
        /// it cannot be understood.
        rule: Option<usize>,
        /// What the rule does.
        action: String,
    },
    /// No rule of a tier that has policies for the endpoint matches.
    EndOfTier {
        /// The tier.
        tier: String,
        /// What happens then.
        default: TierDefault,
    },
    /// A rule of a profile matches.
    Profile {
        /// The profile.
        profile: String,
        /// The place of the rule in the profile's list, from 0; `None` where the profile denies because
        /// it does not exist or cannot be understood.
        rule: Option<usize>,
        /// What the rule does.
        action: String,
    },
    /// A failsafe port keeps the way open.
    Failsafe,
    /// Nothing has decided.
    Nothing,
}

/// What becomes of a packet at one place, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// What bears on it, the last of which decides.
    pub steps: Vec<Step>,
}

/// What becomes of a packet between workloads, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// At the workload that has the source address, if one does.
    pub egress: Option<(EndpointId, Decision)>,
    /// At the workload that has the destination address, if one does.
    pub ingress: Option<(EndpointId, Decision)>,
}

/// What becomes of a packet between workloads, wherever in the cluster they are.
///
/// Of several workloads with one address the first by name counts.
pub fn verdict(packet: &Packet, state: &State) -> Trace {
    let at = |address: IpAddr, direction| {
        let id = workload_with(state, address)?;
        let decision = decide(state, &Place::Workload(id.clone()), direction, packet)?;
        Some((id, decision))
    };
    Trace {
        egress: at(packet.source, Direction::Egress),
        ingress: at(packet.destination, Direction::Ingress),
    }
}

/// What becomes of a packet at one place; `None` where there is no such endpoint.
pub fn decide(
    state: &State,
    place: &Place,
    direction: Direction,
    packet: &Packet,
) -> Option<Decision> {
    let items = items(state);
    let key = match place {
        Place::Workload(id) => id.key(),
        Place::Host(name, _) => Key::resource(Kind::HostEndpoint, name),
    };
    let subject = items.iter().find(|item| *item.key == key)?;
    let mut evaluation = Evaluation {
        state,
        items: &items,
        direction,
        packet,
        steps: Vec::new(),
    };
    let verdict = evaluation.run(place, subject);
    Some(Decision {
        verdict,
        steps: evaluation.steps,
    })
}

impl Trace {
    /// Whether the packet arrives: nobody denies it.
    pub fn allows(&self) -> bool {
        let decisions = [&self.egress, &self.ingress].into_iter().flatten();
        decisions
            .map(|(_, decision)| decision.verdict)
            .all(|verdict| verdict != Verdict::Deny)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy {
                tier,
                policy,
                rule: Some(rule),
                action,
            } => write!(f, "tier {tier}: rule {rule} of {policy}: {action}"),
            Self::Policy { tier, policy, .. } => {
                write!(f, "tier {tier}: {policy} cannot be understood: Deny")
            }
            Self::EndOfTier { tier, default } => {
                write!(f, "tier {tier}: no rule matches: {default:?}")
            }
            Self::Profile {
                profile,
                rule: Some(rule),
                action,
            } => write!(f, "profile {profile}: rule {rule}: {action}"),
            Self::Profile { profile, .. } => {
                write!(
                    f,
                    "profile {profile} does not exist or cannot be understood: Deny"
                )
            }
            Self::Failsafe => f.write_str("failsafe port: Allow"),
            Self::Nothing => f.write_str("nothing has decided"),
        }
    }
}

/// A packet on its way through the chains of one place.
struct Evaluation<'a> {
    state: &'a State,
    items: &'a [Item<'a>],
    direction: Direction,
    packet: &'a Packet,
    steps: Vec<Step>,
}

/// What a list of rules says.
enum Outcome {
    Allow,
    Deny,
    Pass,
    Nothing,
}

impl Evaluation<'_> {
    fn run(&mut self, place: &Place, subject: &Item<'_>) -> Verdict {
        let stage = match place {
            Place::Workload(_) => HostStage::Normal,
            Place::Host(_, stage) => *stage,
        };
        let on_host = matches!(place, Place::Host(..));
        if on_host && stage != HostStage::Forward && self.is_failsafe() {
            self.steps.push(Step::Failsafe);
            return Verdict::Allow;
        }
        // A host endpoint for every interface has no untracked policies.
        let impossible = stage == HostStage::Untracked && subject.claims_everything();
        let tiers = if impossible {
            Vec::new()
        } else {
            policies::tiers(self.state, subject, stage, self.direction)
        };
        for (tier, default, policies) in tiers {
            match self.tier(&tier, &policies) {
                Outcome::Allow => return Verdict::Allow,
                Outcome::Deny => return Verdict::Deny,
                Outcome::Pass => {}
                Outcome::Nothing => {
                    self.steps.push(Step::EndOfTier { tier, default });
                    if default == TierDefault::Deny {
                        return Verdict::Deny;
                    }
                }
            }
        }
        match stage {
            HostStage::Untracked | HostStage::PreDnat => {
                self.steps.push(Step::Nothing);
                Verdict::GoesOn
            }
            HostStage::Forward => {
                self.steps.push(Step::Nothing);
                Verdict::Allow
            }
            HostStage::Normal => self.profiles(subject.profiles()),
        }
    }

    fn is_failsafe(&self) -> bool {
        let (list, other) = match self.direction {
            Direction::Ingress => (&self.state.failsafes.inbound, self.packet.source),
            Direction::Egress => (&self.state.failsafes.outbound, self.packet.destination),
        };
        let port = self.packet.destination_port;
        list.iter()
            .any(|failsafe| failsafe.covers(self.packet.protocol, port, other))
    }

    fn tier(&mut self, tier: &str, policies: &[Applied<'_>]) -> Outcome {
        for policy in policies {
            let step = |rule, action: &str| Step::Policy {
                tier: tier.to_owned(),
                policy: policy.id.clone(),
                rule,
                action: action.to_owned(),
            };
            if !policy.understood {
                self.steps.push(step(None, "Deny"));
                return Outcome::Deny;
            }
            let rules = match self.direction {
                Direction::Ingress => &policy.ingress,
                Direction::Egress => &policy.egress,
            };
            let namespace = policy.id.namespace.as_deref();
            match self.rules(rules, namespace, &step) {
                Outcome::Nothing => {}
                decided => return decided,
            }
        }
        Outcome::Nothing
    }

    fn profiles(&mut self, profiles: &[String]) -> Verdict {
        for name in profiles {
            let step = |rule, action: &str| Step::Profile {
                profile: name.clone(),
                rule,
                action: action.to_owned(),
            };
            let stored = self
                .state
                .resources
                .get(&Key::resource(Kind::Profile, name));
            let built_in;
            let spec = match stored {
                Some(AnyResource::Profile(profile)) => Some(&profile.spec),
                _ if name == DEFAULT_ALLOW => {
                    built_in = default_allow();
                    Some(&built_in.spec)
                }
                _ => None,
            };
            let rules = spec
                .filter(|spec| spec.ingress.iter().chain(&spec.egress).all(understood))
                .map(|spec| match self.direction {
                    Direction::Ingress => spec.ingress.clone(),
                    Direction::Egress => spec.egress.clone(),
                });
            let Some(rules) = rules else {
                self.steps.push(step(None, "Deny"));
                return Verdict::Deny;
            };
            match self.rules(&rules, None, &step) {
                Outcome::Allow => return Verdict::Allow,
                Outcome::Deny => return Verdict::Deny,
                Outcome::Pass | Outcome::Nothing => {}
            }
        }
        self.steps.push(Step::Nothing);
        Verdict::Deny
    }

    fn rules(
        &mut self,
        rules: &[Rule],
        namespace: Option<&str>,
        step: &dyn Fn(Option<usize>, &str) -> Step,
    ) -> Outcome {
        for (index, rule) in rules.iter().enumerate() {
            if !matches(rule, namespace, self.packet, self.state, self.items) {
                continue;
            }
            let action = rule.action.as_str();
            self.steps.push(step(Some(index), action));
            match action {
                "Allow" => return Outcome::Allow,
                "Deny" => return Outcome::Deny,
                "Pass" => return Outcome::Pass,
                _ => {}
            }
        }
        Outcome::Nothing
    }
}

fn workload_with(state: &State, address: IpAddr) -> Option<EndpointId> {
    let has = |spec: &WorkloadEndpointSpec| {
        let mut networks = spec.ip_networks.iter();
        networks.any(|net| {
            net.parse::<margay_model::Cidr>()
                .is_ok_and(|net| net == margay_model::Cidr::host(address))
        })
    };
    state.resources.iter().find_map(|(key, resource)| {
        let AnyResource::WorkloadEndpoint(endpoint) = resource else {
            return None;
        };
        EndpointId::of(key).filter(|_| has(&endpoint.spec))
    })
}
