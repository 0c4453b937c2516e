//! What policy says of a packet, read straight from the description of `margay-policy`.

use std::net::IpAddr;

use margay_model::{Cidr, Family};
use margay_policy::{Action, Desired, Icmp, Member, Rule, SetId, Side, TierDefault, Workload};

use crate::packet::{Outcome, Packet};

pub(crate) fn decide(desired: &Desired, workload: &Workload, packet: &Packet) -> Outcome {
    for tier in &workload.chains.ingress {
        let policies = tier.policies.iter().map(|id| &desired.policies[id]);
        let rules = policies.flat_map(|policy| &policy.ingress);
        match first(desired, rules, packet) {
            Some(Action::Allow) => return Outcome::Accept,
            Some(Action::Deny) => return Outcome::Drop,
            Some(_) => {}
            None if tier.default == TierDefault::Deny => return Outcome::Drop,
            None => {}
        }
    }
    for profile in &workload.profiles {
        let rules = desired.profiles[profile].ingress.iter();
        match first(desired, rules, packet) {
            Some(Action::Allow) => return Outcome::Accept,
            Some(Action::Deny) => return Outcome::Drop,
            _ => {}
        }
    }
    Outcome::Drop
}

fn first<'a>(
    desired: &Desired,
    mut rules: impl Iterator<Item = &'a Rule>,
    packet: &Packet,
) -> Option<Action> {
    rules
        .find(|rule| rule.action != Action::Log && matches(desired, rule, packet))
        .map(|rule| rule.action)
}

fn matches(desired: &Desired, rule: &Rule, packet: &Packet) -> bool {
    let own_icmp = match packet.family() {
        Family::V4 => 1,
        Family::V6 => 58,
    };
    let icmp = |icmp: &Icmp| {
        let (kind, code) = packet.icmp;
        icmp.kind == kind && icmp.code.is_none_or(|wanted| wanted == code)
    };
    let is_icmp = packet.protocol == own_icmp;
    rule.family.is_none_or(|family| family == packet.family())
        && rule
            .protocol
            .is_none_or(|protocol| protocol == packet.protocol)
        && rule
            .not_protocol
            .is_none_or(|protocol| protocol != packet.protocol)
        && rule
            .icmp
            .as_ref()
            .is_none_or(|wanted| is_icmp && icmp(wanted))
        && rule
            .not_icmp
            .as_ref()
            .is_none_or(|wanted| is_icmp && !icmp(wanted))
        && side(
            desired,
            &rule.source,
            packet,
            rule.protocol,
            (packet.source, packet.source_port),
        )
        && side(
            desired,
            &rule.destination,
            packet,
            rule.protocol,
            (packet.destination, packet.destination_port),
        )
}

fn side(
    desired: &Desired,
    side: &Side,
    packet: &Packet,
    protocol: Option<u8>,
    (address, port): (IpAddr, u16),
) -> bool {
    let has_ports = matches!(packet.protocol, 6 | 17) || protocol == Some(packet.protocol);
    let holds = |nets: &[Cidr]| nets.iter().any(|net| net.contains(address));
    let within = |id: &SetId| {
        desired.sets[id].members.iter().any(|member| match member {
            Member::Net(net) => net.contains(address),
            Member::Port { .. } => false,
        })
    };
    let named = |id: &SetId| {
        desired.sets[id].members.contains(&Member::Port {
            address,
            protocol: packet.protocol,
            port,
        })
    };
    let ranges = |ranges: &[margay_policy::PortRange]| {
        has_ports && ranges.iter().any(|range| range.contains(port))
    };
    let no_ports = side.ports.is_empty() && side.named_ports.is_empty();
    (side.nets.is_empty() || holds(&side.nets))
        && !holds(&side.not_nets)
        && side.sets.iter().all(within)
        && !side.not_sets.iter().any(within)
        && (no_ports || ranges(&side.ports) || side.named_ports.iter().any(named))
        && !ranges(&side.not_ports)
        && !side.not_named_ports.iter().any(named)
        && side.service.as_ref().is_none_or(named)
}
