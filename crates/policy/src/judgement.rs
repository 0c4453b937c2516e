//! What becomes of a packet by the calculated state alone, as the crate's page says.
//!
//! This is what the kernel does with the first packet of a connection. It goes through rules one by one, but knows
//! only what is in force on one node; [`evaluator`](crate::evaluator) asks the resources themselves.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::evaluator::{Direction, HostStage, Packet, Place, Verdict};
use crate::{
    Action, Chains, Delta, Desired, EndpointId, Failsafes, Icmp, Member, PolicyId, Rule, SetId,
    Side, Tier, TierDefault, Workload,
};
use margay_model::{Cidr, Family};

/// What becomes of a packet at a place; `None` where there is no such endpoint.
///
/// `failsafes` are those of host endpoints. What the state names and lacks matches nothing and allows nothing.
pub fn judge(
    desired: &Desired,
    failsafes: &Failsafes,
    place: &Place,
    direction: Direction,
    packet: &Packet,
) -> Option<Verdict> {
    let of = |chains: &Chains| match direction {
        Direction::Ingress => chains.ingress.clone(),
        Direction::Egress => chains.egress.clone(),
    };
    let view = View {
        desired,
        failsafes,
        direction,
        packet,
    };
    match place {
        Place::Workload(id) => {
            let workload = desired.workloads.get(id)?;
            let tiers = view.tiers(&of(&workload.chains));
            Some(tiers.unwrap_or_else(|| view.profiles(&workload.profiles)))
        }
        Place::Host(name, stage) => {
            let host = desired.hosts.get(name)?;
            if *stage != HostStage::Forward && view.is_failsafe() {
                return Some(Verdict::Allow);
            }
            Some(match stage {
                HostStage::Normal => view
                    .tiers(&of(&host.normal))
                    .unwrap_or_else(|| view.profiles(&host.profiles)),
                HostStage::Forward => view.tiers(&of(&host.forward)).unwrap_or(Verdict::Allow),
                HostStage::Untracked => view.tiers(&of(&host.untracked)).unwrap_or(Verdict::GoesOn),
                HostStage::PreDnat if direction == Direction::Ingress => {
                    view.tiers(&host.pre_dnat).unwrap_or(Verdict::GoesOn)
                }
                HostStage::PreDnat => Verdict::GoesOn,
            })
        }
    }
}

struct View<'a> {
    desired: &'a Desired,
    failsafes: &'a Failsafes,
    direction: Direction,
    packet: &'a Packet,
}

impl View<'_> {
    fn is_failsafe(&self) -> bool {
        let (list, other) = match self.direction {
            Direction::Ingress => (&self.failsafes.inbound, self.packet.source),
            Direction::Egress => (&self.failsafes.outbound, self.packet.destination),
        };
        let (protocol, port) = (self.packet.protocol, self.packet.destination_port);
        list.iter()
            .any(|failsafe| failsafe.covers(protocol, port, other))
    }

    fn tiers(&self, tiers: &[Tier]) -> Option<Verdict> {
        for tier in tiers {
            let mut outcome = None;
            let policies = &self.desired.policies;
            for policy in tier.policies.iter().filter_map(|id| policies.get(id)) {
                debug_assert_eq!(policy.tier, tier.name);
                outcome = self.rules(match self.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                });
                if outcome.is_some() {
                    break;
                }
            }
            match outcome {
                Some(Action::Allow) => return Some(Verdict::Allow),
                Some(Action::Deny) => return Some(Verdict::Deny),
                None if tier.default == TierDefault::Deny => return Some(Verdict::Deny),
                _ => {}
            }
        }
        None
    }

    fn profiles(&self, profiles: &[String]) -> Verdict {
        let stored = &self.desired.profiles;
        for profile in profiles.iter().filter_map(|name| stored.get(name)) {
            match self.rules(match self.direction {
                Direction::Ingress => &profile.ingress,
                Direction::Egress => &profile.egress,
            }) {
                Some(Action::Allow) => return Verdict::Allow,
                Some(Action::Deny) => return Verdict::Deny,
                _ => {}
            }
        }
        Verdict::Deny
    }

    /// The first deciding action.
    fn rules(&self, rules: &[Rule]) -> Option<Action> {
        let mut matching = rules.iter().filter(|rule| self.matches(rule));
        matching
            .find(|rule| rule.action != Action::Log)
            .map(|rule| rule.action)
    }

    fn matches(&self, rule: &Rule) -> bool {
        let packet = self.packet;
        let family = Family::of(packet.source);
        let of_family = |icmp: &Icmp| {
            let number = if family == Family::V4 { 1 } else { 58 };
            packet
                .icmp
                .filter(|_| packet.protocol == number)
                .map(|(kind, code)| {
                    icmp.kind == kind && icmp.code.is_none_or(|wanted| wanted == code)
                })
        };
        rule.family.is_none_or(|wanted| wanted == family)
            && rule.protocol.is_none_or(|wanted| wanted == packet.protocol)
            && rule.not_protocol != Some(packet.protocol)
            && rule.icmp.is_none_or(|icmp| of_family(&icmp) == Some(true))
            && rule
                .not_icmp
                .is_none_or(|icmp| of_family(&icmp) == Some(false))
            && self.side(&rule.source, packet.source, packet.source_port)
            && self.side(
                &rule.destination,
                packet.destination,
                packet.destination_port,
            )
    }

    fn side(&self, side: &Side, address: IpAddr, port: u16) -> bool {
        let among = |nets: &[Cidr]| nets.iter().any(|net| net.contains(address));
        let in_set = |id: &SetId| {
            self.members(id).any(|member| match member {
                Member::Net(net) => net.contains(address),
                Member::Port { .. } => false,
            })
        };
        let is_named = |id: &SetId| {
            self.members(id).any(|member| match member {
                Member::Port {
                    address: a,
                    protocol,
                    port: p,
                } => (*a, *protocol, *p) == (address, self.packet.protocol, port),
                Member::Net(_) => false,
            })
        };
        let any_port = side.ports.is_empty() && side.named_ports.is_empty();
        (side.nets.is_empty() || among(&side.nets))
            && !among(&side.not_nets)
            && side.sets.iter().all(in_set)
            && !side.not_sets.iter().any(in_set)
            && (any_port
                || side.ports.iter().any(|range| range.contains(port))
                || side.named_ports.iter().any(is_named))
            && !side.not_ports.iter().any(|range| range.contains(port))
            && !side.not_named_ports.iter().any(is_named)
            && side.service.iter().all(is_named)
    }

    fn members(&self, id: &SetId) -> impl Iterator<Item = &Member> {
        let set = self.desired.sets.get(id);
        set.into_iter().flat_map(|set| &set.members)
    }
}

impl Desired {
    /// What of it bears on these workloads: the workloads, their policies and profiles, and the sets of those.
    pub fn excerpt<'e>(&self, workloads: impl IntoIterator<Item = &'e EndpointId>) -> Self {
        let mut excerpt = Self::default();
        for (id, workload) in workloads
            .into_iter()
            .filter_map(|id| self.workloads.get_key_value(id))
        {
            for policy in workload.policies() {
                if let Some((id, policy)) = self.policies.get_key_value(policy) {
                    excerpt.policies.insert(id.clone(), policy.clone());
                }
            }
            for profile in &workload.profiles {
                if let Some(stored) = self.profiles.get(profile) {
                    excerpt.profiles.insert(profile.clone(), stored.clone());
                }
            }
            excerpt.workloads.insert(id.clone(), workload.clone());
        }
        let policies = excerpt.policies.values();
        let of_policies = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress));
        let profiles = excerpt.profiles.values();
        let of_profiles =
            profiles.flat_map(|profile| profile.ingress.iter().chain(&profile.egress));
        let sets: BTreeSet<SetId> = of_policies
            .chain(of_profiles)
            .flat_map(Rule::sets)
            .collect();
        for (id, set) in sets.iter().filter_map(|id| self.sets.get_key_value(id)) {
            excerpt.sets.insert(*id, set.clone());
        }
        excerpt
    }

    /// The workloads on which a difference bears that has been applied, except those that are new with it: the ones
    /// that differ, and those whose policies or profiles differ or read sets that do.
    ///
    /// `before` says whether a workload was there before.
    pub fn concerned(
        &self,
        delta: &Delta,
        before: impl Fn(&EndpointId) -> bool,
    ) -> BTreeSet<EndpointId> {
        let changed: BTreeSet<SetId> = delta.sets.keys().copied().collect();
        let reads = |ingress: &[Rule], egress: &[Rule]| {
            let rules = ingress.iter().chain(egress);
            !changed.is_empty() && rules.flat_map(Rule::sets).any(|id| changed.contains(&id))
        };
        let policies: BTreeSet<&PolicyId> = self
            .policies
            .iter()
            .filter(|(id, policy)| {
                delta.policies.contains_key(id) || reads(&policy.ingress, &policy.egress)
            })
            .map(|(id, _)| id)
            .collect();
        let profiles: BTreeSet<&String> = self
            .profiles
            .iter()
            .filter(|(id, profile)| {
                delta.profiles.contains_key(*id) || reads(&profile.ingress, &profile.egress)
            })
            .map(|(id, _)| id)
            .collect();
        let concerned = self.workloads.iter().filter(|(id, workload)| {
            before(id)
                && (delta.workloads.contains_key(id)
                    || workload.policies().any(|policy| policies.contains(policy))
                    || workload
                        .profiles
                        .iter()
                        .any(|profile| profiles.contains(profile)))
        });
        concerned.map(|(id, _)| id.clone()).collect()
    }
}

impl Workload {
    fn policies(&self) -> impl Iterator<Item = &PolicyId> {
        let tiers = self.chains.ingress.iter().chain(&self.chains.egress);
        tiers.flat_map(|tier| &tier.policies)
    }
}

impl Rule {
    /// The sets that it reads.
    pub fn sets(&self) -> Vec<SetId> {
        let sides = [&self.source, &self.destination];
        let sets = sides.into_iter().flat_map(|side| {
            let lists = [
                &side.sets,
                &side.not_sets,
                &side.named_ports,
                &side.not_named_ports,
            ];
            lists.into_iter().flatten().chain(&side.service).copied()
        });
        sets.collect()
    }
}
