//! What rules may say.

use margay_selector::GlobalUse;

use super::{EntityRule, HttpMatch, IcmpMatch, Rule};
use crate::cidr::{Cidr, Family};
use crate::problem::Problems;
use crate::scalar::{Action, Port, Protocol};
use crate::syntax::{is_dns_subdomain, is_port_name};

/// Where rules stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a policy for all namespaces.
    Global,
    /// In a policy of a namespace.
    Namespaced,
    /// In a profile.
    Profile,
}

/// The direction of traffic that rules are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// Checks the rules of both directions.
pub(crate) fn rules(ingress: &[Rule], egress: &[Rule], place: Place, problems: &mut Problems) {
    for (name, rules, direction) in [
        ("ingress", ingress, Direction::Ingress),
        ("egress", egress, Direction::Egress),
    ] {
        problems.at_most(name, rules.len(), MAX_RULES);
        problems.items(name, rules, |problems, rule| {
            check(rule, direction, place, problems);
        });
    }
}

fn check(rule: &Rule, direction: Direction, place: Place, problems: &mut Problems) {
    problems.word("action", &rule.action);
    problems.require(
        matches!(rule.ip_version, None | Some(4 | 6)),
        "ipVersion",
        rule.ip_version.unwrap_or_default(),
        "4, 6",
    );
    protocols(rule, problems);
    problems.field("source", |problems| {
        entity(&rule.source, rule, place, problems);
        no_services(&rule.source, direction == Direction::Egress, problems);
    });
    problems.field("destination", |problems| {
        entity(&rule.destination, rule, place, problems);
        no_services(&rule.destination, direction == Direction::Ingress, problems);
        services_have_their_ports(&rule.destination, problems);
    });
    one_family(rule, problems);
    if let Some(http) = &rule.http {
        problems.field("http", |problems| {
            http_match(http, problems);
            if direction == Direction::Egress {
                problems.refuse("given", "none in a rule of egress");
            }
            if rule.action != Action::Allow {
                problems.refuse("given", "none where the action is not Allow");
            }
            if rule
                .protocol
                .as_ref()
                .is_some_and(|protocol| protocol.number() != Some(TCP))
            {
                problems.refuse("given", "none where the protocol is not TCP");
            }
        });
    }
}

fn protocols(rule: &Rule, problems: &mut Problems) {
    let fields = [
        ("protocol", &rule.protocol),
        ("notProtocol", &rule.not_protocol),
    ];
    for (name, protocol) in fields {
        let Some(protocol) = protocol else { continue };
        problems.require(protocol.is_valid(), name, protocol, PROTOCOLS);
        if let (Some(wanted), Some(given)) = (icmp_version(protocol), rule.ip_version)
            && wanted != given
        {
            let allowed = format!("another where ipVersion is {given}");
            problems.refuse_field(name, protocol, allowed);
        }
    }
    for (name, icmp) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        if let Some(icmp) = icmp {
            problems.field(name, |problems| icmp_match(icmp, problems));
        }
    }
    if rule.icmp.is_some() && rule.protocol.as_ref().and_then(icmp_version).is_none() {
        problems.refuse_field(
            "icmp",
            "given",
            "none where the protocol is not ICMP or ICMPv6",
        );
    }
}

/// The IP version that an ICMP protocol belongs to.
fn icmp_version(protocol: &Protocol) -> Option<i64> {
    match protocol.number()? {
        1 => Some(4),
        58 => Some(6),
        _ => None,
    }
}

fn icmp_match(icmp: &IcmpMatch, problems: &mut Problems) {
    problems.range("type", icmp.kind, 0..=254);
    problems.range("code", icmp.code, 0..=255);
    if let (Some(code), None) = (icmp.code, icmp.kind) {
        problems.refuse_field("code", code, "none where no type is given");
    }
}

fn entity(entity: &EntityRule, rule: &Rule, place: Place, problems: &mut Problems) {
    for (name, nets) in [("nets", &entity.nets), ("notNets", &entity.not_nets)] {
        problems.at_most(name, nets.len(), MAX_NETS);
        problems.items(name, nets, |problems, net| {
            let cidr = problems.cidr_here(net);
            if name == "notNets" && cidr.is_some_and(|cidr| cidr.length() == 0) {
                problems.refuse(net, "a prefix that leaves some addresses to match");
            }
        });
    }
    problems.selector("selector", &entity.selector, GlobalUse::Forbidden);
    problems.selector("notSelector", &entity.not_selector, GlobalUse::Forbidden);
    problems.selector(
        "namespaceSelector",
        &entity.namespace_selector,
        GlobalUse::Alone,
    );
    if let Some(accounts) = &entity.service_accounts {
        problems.field("serviceAccounts", |problems| {
            problems.selector("selector", &accounts.selector, GlobalUse::Forbidden);
            problems.items("names", &accounts.names, |problems, name| {
                if !is_dns_subdomain(name) {
                    problems.refuse(name, "the name of a service account");
                }
            });
        });
    }
    for (name, ports) in [("ports", &entity.ports), ("notPorts", &entity.not_ports)] {
        problems.at_most(name, ports.len(), MAX_PORTS);
        problems.items(name, ports, port);
        if !ports.is_empty() && !rule.protocol.as_ref().is_some_and(Protocol::has_ports) {
            let allowed = "none where the protocol is not TCP, UDP or SCTP";
            problems.refuse_field(name, "given", allowed);
        }
    }
    services(entity, place, problems);
}

/// Checks one port at the current place.
pub(crate) fn port(problems: &mut Problems, port: &Port) {
    let fits = match port {
        Port::Range { .. } => true,
        Port::Named(name) => is_port_name(name) && !name.bytes().all(|byte| byte.is_ascii_digit()),
    };
    if !fits {
        problems.refuse(
            port,
            "0 to 65535, a range such as 1000:2000, or the name of a port",
        );
    }
}

fn services(entity: &EntityRule, place: Place, problems: &mut Problems) {
    let Some(services) = &entity.services else {
        return;
    };
    problems.field("services", |problems| {
        let name = &services.name;
        problems.require(
            is_dns_subdomain(name),
            "name",
            name,
            "the name of a service",
        );
        let namespace = &services.namespace;
        if namespace.is_empty() {
            let needed = place != Place::Namespaced;
            problems.require(!needed, "namespace", "", "the namespace of the service");
        } else {
            problems.require(
                is_dns_subdomain(namespace),
                "namespace",
                namespace,
                "a namespace",
            );
        }
    });
    for (name, given) in [
        ("nets", !entity.nets.is_empty()),
        ("notNets", !entity.not_nets.is_empty()),
        ("selector", !entity.selector.is_empty()),
        ("notSelector", !entity.not_selector.is_empty()),
        ("namespaceSelector", !entity.namespace_selector.is_empty()),
        ("serviceAccounts", entity.service_accounts.is_some()),
    ] {
        problems.require(!given, name, "given", "none beside services");
    }
}

fn no_services(entity: &EntityRule, wrong_side: bool, problems: &mut Problems) {
    let given = entity.services.is_some();
    let allowed = "none: services are a source of ingress and a destination of egress";
    problems.require(!(given && wrong_side), "services", "given", allowed);
}

fn services_have_their_ports(entity: &EntityRule, problems: &mut Problems) {
    if entity.services.is_some() {
        let allowed = "none beside services, which have ports of their own";
        problems.require(entity.ports.is_empty(), "ports", "given", allowed);
        problems.require(entity.not_ports.is_empty(), "notPorts", "given", allowed);
    }
}

/// All prefixes of a rule belong to one family, which is that of its IP version.
fn one_family(rule: &Rule, problems: &mut Problems) {
    let mut wanted = match rule.ip_version {
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        _ => None,
    };
    for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        for (name, nets) in [("nets", &entity.nets), ("notNets", &entity.not_nets)] {
            problems.field(side, |problems| {
                problems.items(name, nets, |problems, net| {
                    let Ok(cidr) = net.parse::<Cidr>() else {
                        return;
                    };
                    let family = *wanted.get_or_insert_with(|| cidr.family());
                    if cidr.family() != family {
                        problems.refuse(net, format!("{family}, as the rest of the rule"));
                    }
                });
            });
        }
    }
}

fn http_match(http: &HttpMatch, problems: &mut Problems) {
    problems.at_most("methods", http.methods.len(), MAX_HTTP);
    problems.at_most("paths", http.paths.len(), MAX_HTTP);
    problems.items("paths", &http.paths, |problems, path| {
        if path.exact.is_empty() == path.prefix.is_empty() {
            problems.refuse("", "one of exact and prefix");
        }
        for (name, text) in [("exact", &path.exact), ("prefix", &path.prefix)] {
            let length = text.chars().count();
            if length > MAX_PATH {
                let allowed = format!("at most {MAX_PATH} characters");
                problems.refuse_field(name, format!("{length} characters"), allowed);
            }
        }
    });
}

const MAX_RULES: usize = 1024;
const MAX_NETS: usize = 256;
const MAX_PORTS: usize = 50;
const MAX_HTTP: usize = 20;
const MAX_PATH: usize = 1024;
const TCP: u8 = 6;
const PROTOCOLS: &str = "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or 1 to 255";
