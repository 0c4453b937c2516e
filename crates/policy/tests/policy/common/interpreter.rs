//! What becomes of a packet by the calculated state alone, as the crate's page says.

use std::net::IpAddr;

use margay_model::{Cidr, Family};
use margay_policy::evaluator::{Direction, HostStage, Packet, Place, Verdict};
use margay_policy::{
    Action, Chains, Desired, Failsafes, Icmp, Member, Rule, SetId, Side, Tier, TierDefault,
};

/// What becomes of a packet at a place; `None` where there is no such endpoint.
pub(crate) fn interpret(
    desired: &Desired,
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
    direction: Direction,
    packet: &'a Packet,
}

impl View<'_> {
    fn is_failsafe(&self) -> bool {
        let failsafes = Failsafes::default();
        let (list, other) = match self.direction {
            Direction::Ingress => (failsafes.inbound, self.packet.source),
            Direction::Egress => (failsafes.outbound, self.packet.destination),
        };
        let (protocol, port) = (self.packet.protocol, self.packet.destination_port);
        list.iter()
            .any(|failsafe| failsafe.covers(protocol, port, other))
    }

    fn tiers(&self, tiers: &[Tier]) -> Option<Verdict> {
        for tier in tiers {
            let mut outcome = None;
            for id in &tier.policies {
                let policy = &self.desired.policies[id];
                assert_eq!(policy.tier, tier.name);
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
        for name in profiles {
            let profile = &self.desired.profiles[name];
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
                Member::Port { .. } => panic!("a set of ports where one of prefixes is expected"),
            })
        };
        let is_named = |id: &SetId| {
            self.members(id).any(|member| match member {
                Member::Port {
                    address: a,
                    protocol,
                    port: p,
                } => (*a, *protocol, *p) == (address, self.packet.protocol, port),
                Member::Net(_) => panic!("a set of prefixes where one of ports is expected"),
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
        self.desired.sets[id].members.iter()
    }
}
