//! Whether a rule matches a packet.

use std::net::IpAddr;

use margay_model::resource::rule::{EntityRule, IcmpMatch, Rule};
use margay_model::scalar::{Action, Port, Protocol};
use margay_model::{Cidr, Family};
use margay_selector::{Expr, Selector};

use super::items::Item;
use super::{Packet, State};

/// Whether every part of a rule makes sense.
pub(super) fn understood(rule: &Rule) -> bool {
    let protocol_ok = |protocol: &Option<Protocol>| {
        protocol
            .as_ref()
            .is_none_or(|protocol| protocol.number().is_some_and(|number| number != 0))
    };
    let icmp_ok = |icmp: &Option<IcmpMatch>| {
        icmp.as_ref().is_none_or(|icmp| {
            icmp.kind.is_none_or(|kind| (0..=254).contains(&kind))
                && icmp.code.is_none_or(|code| (0..=255).contains(&code))
                && (icmp.code.is_none() || icmp.kind.is_some())
        })
    };
    let typed = |icmp: &Option<IcmpMatch>| icmp.as_ref().is_some_and(|icmp| icmp.kind.is_some());
    let number = rule.protocol.as_ref().and_then(Protocol::number);
    let icmp_fits = matches!(number, None | Some(1 | 58));
    let with_ports = matches!(number, Some(6 | 17 | 132));
    let entity_ok = |entity: &EntityRule| {
        let mut nets = entity.nets.iter().chain(&entity.not_nets);
        let mut ports = entity.ports.iter().chain(&entity.not_ports);
        let accounts = entity.service_accounts.as_ref();
        let mut selectors = vec![
            entity.selector.as_str(),
            &entity.not_selector,
            &entity.namespace_selector,
        ];
        selectors.extend(accounts.map(|accounts| accounts.selector.as_str()));
        nets.all(|net| net.parse::<Cidr>().is_ok())
            && selectors.iter().all(|text| Selector::parse(text).is_ok())
            && ports.all(|port| with_ports && port_ok(port))
            && accounts.is_none_or(|accounts| {
                let mut names = accounts.names.iter();
                names.all(|name| !(name.contains('\'') && name.contains('"')))
            })
    };
    !matches!(rule.action, Action::Other(_))
        && matches!(rule.ip_version, None | Some(4 | 6))
        && protocol_ok(&rule.protocol)
        && protocol_ok(&rule.not_protocol)
        && icmp_ok(&rule.icmp)
        && icmp_ok(&rule.not_icmp)
        && (icmp_fits || !(typed(&rule.icmp) || typed(&rule.not_icmp)))
        && entity_ok(&rule.source)
        && entity_ok(&rule.destination)
}

fn port_ok(port: &Port) -> bool {
    match port {
        Port::Range { .. } => true,
        Port::Named(name) => {
            let good = |char: char| char.is_ascii_alphanumeric() || "_.-".contains(char);
            (1..=128).contains(&name.len())
                && name.chars().all(good)
                && !name.chars().all(|char| char.is_ascii_digit())
        }
    }
}

/// Whether a rule of a policy of this namespace matches a packet.
pub(super) fn matches(
    rule: &Rule,
    namespace: Option<&str>,
    packet: &Packet,
    state: &State,
    items: &[Item<'_>],
) -> bool {
    let family = Family::of(packet.source);
    let number = |protocol: &Option<Protocol>| protocol.as_ref().and_then(Protocol::number);
    if rule.action != Action::Deny && asks_the_impossible(rule) {
        return false;
    }
    let version = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    if rule.ip_version.is_some_and(|wanted| wanted != version) {
        return false;
    }
    if number(&rule.protocol).is_some_and(|wanted| wanted != packet.protocol)
        || number(&rule.not_protocol) == Some(packet.protocol)
    {
        return false;
    }
    if let Some(wanted) = &rule.icmp
        && wanted.kind.is_some()
        && !icmp(wanted, packet, family).unwrap_or(false)
    {
        return false;
    }
    if let Some(unwanted) = &rule.not_icmp
        && unwanted.kind.is_some()
        && icmp(unwanted, packet, family).unwrap_or(true)
    {
        return false;
    }
    let protocol = number(&rule.protocol).unwrap_or_default();
    let scene = Scene {
        namespace,
        protocol,
        packet,
        items,
        state,
    };
    scene.side(&rule.source, packet.source, packet.source_port, true)
        && scene.side(
            &rule.destination,
            packet.destination,
            packet.destination_port,
            false,
        )
}

/// Whether a rule asks for what only other programs can tell.
fn asks_the_impossible(rule: &Rule) -> bool {
    let entity = |entity: &EntityRule| {
        !entity.extra.is_empty()
            || entity
                .service_accounts
                .as_ref()
                .is_some_and(|x| !x.extra.is_empty())
            || entity
                .services
                .as_ref()
                .is_some_and(|x| !x.extra.is_empty())
    };
    let icmp = |icmp: &Option<IcmpMatch>| icmp.as_ref().is_some_and(|x| !x.extra.is_empty());
    rule.http.is_some()
        || !rule.extra.is_empty()
        || entity(&rule.source)
        || entity(&rule.destination)
        || icmp(&rule.icmp)
        || icmp(&rule.not_icmp)
}

/// Whether the packet is of this type and code; `None` where it is no ICMP of its family.
fn icmp(wanted: &IcmpMatch, packet: &Packet, family: Family) -> Option<bool> {
    let protocol = match family {
        Family::V4 => 1,
        Family::V6 => 58,
    };
    let (kind, code) = packet.icmp.filter(|_| packet.protocol == protocol)?;
    Some(
        wanted.kind == Some(i64::from(kind))
            && wanted.code.is_none_or(|wanted| wanted == i64::from(code)),
    )
}

/// A rule's policy and the packet.
struct Scene<'a> {
    namespace: Option<&'a str>,
    /// The rule's protocol.
    protocol: u8,
    packet: &'a Packet,
    items: &'a [Item<'a>],
    state: &'a State,
}

impl Scene<'_> {
    fn side(&self, entity: &EntityRule, address: IpAddr, port: u16, is_source: bool) -> bool {
        self.nets(entity, address)
            && self.selectors(entity, address, port)
            && self.not_ports(entity, address, port)
            && self.services(entity, address, port, is_source)
    }

    fn nets(&self, entity: &EntityRule, address: IpAddr) -> bool {
        let family = Family::of(address);
        let read = |texts: &[String]| -> Vec<Cidr> {
            texts.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let (nets, not_nets) = (read(&entity.nets), read(&entity.not_nets));
        // A list that has nothing of the packet's family is for packets of the other one.
        let for_family =
            |nets: &[Cidr]| nets.is_empty() || nets.iter().any(|net| net.family() == family);
        for_family(&nets)
            && for_family(&not_nets)
            && (nets.is_empty() || nets.iter().any(|net| net.contains(address)))
            && !not_nets.iter().any(|net| net.contains(address))
    }

    fn selectors(&self, entity: &EntityRule, address: IpAddr, port: u16) -> bool {
        let mut numbers = entity.ports.iter().filter(|port| !is_named(port));
        let has_numbers = numbers.clone().next().is_some();
        let by_number = numbers.any(|range| in_range(range, port));
        let has_names = entity.ports.iter().any(is_named);
        let by_name = has_names && self.named(&entity.ports, entity, address, port);
        if !entity.ports.is_empty() && !by_number && !by_name {
            return false;
        }
        if !self.is_positive(entity) {
            let not = Selector::parse(&entity.not_selector).unwrap_or_default();
            return entity.not_selector.is_empty()
                || !self.items.iter().any(|item| {
                    item.holds(address) && holds(not.expr(), &|name| item.label(name), true, true)
                });
        }
        // Where there are names only, the ports are those of what the selectors match.
        let by_names_only = has_names && !has_numbers;
        by_names_only
            || self
                .items
                .iter()
                .any(|item| item.holds(address) && self.is_meant(entity, item))
    }

    fn not_ports(&self, entity: &EntityRule, address: IpAddr, port: u16) -> bool {
        let mut numbers = entity.not_ports.iter().filter(|port| !is_named(port));
        !numbers.any(|range| in_range(range, port))
            && !self.named(&entity.not_ports, entity, address, port)
    }

    /// Whether one of the names is the port's, at something that the side's selectors match.
    fn named(&self, ports: &[Port], entity: &EntityRule, address: IpAddr, port: u16) -> bool {
        let names = ports.iter().filter_map(|port| match port {
            Port::Named(name) => Some(name),
            Port::Range { .. } => None,
        });
        names.into_iter().any(|name| {
            self.items.iter().any(|item| {
                self.is_meant(entity, item)
                    && self.packet.protocol == self.protocol
                    && item.names(name, self.protocol, address, port)
            })
        })
    }

    fn services(&self, entity: &EntityRule, address: IpAddr, port: u16, is_source: bool) -> bool {
        let Some(service) = &entity.services else {
            return true;
        };
        let namespace = match service.namespace.as_str() {
            "" => self.namespace.unwrap_or_default(),
            namespace => namespace,
        };
        let ports = self
            .state
            .services
            .get(&format!("{namespace}/{}", service.name));
        ports.into_iter().flatten().any(|served| {
            let served_here = served.protocol == self.packet.protocol && served.port == port;
            served.address == address && (is_source || served_here)
        })
    }

    /// Whether the side asks for something that has labels.
    fn is_positive(&self, entity: &EntityRule) -> bool {
        let accounts = entity.service_accounts.as_ref();
        let by_account = accounts.is_some_and(|a| !a.names.is_empty() || !a.selector.is_empty());
        !entity.selector.is_empty()
            || !entity.namespace_selector.is_empty()
            || by_account
            || (self.namespace.is_some() && !entity.not_selector.is_empty())
    }

    /// Whether the side's selectors mean this endpoint or network set.
    fn is_meant(&self, entity: &EntityRule, item: &Item<'_>) -> bool {
        if !self.is_positive(entity) {
            return true;
        }
        let parse = |text: &str| Selector::parse(text).unwrap_or_default();
        let own = |name: &str| item.label(name);
        let namespace = item.label("projectcalico.org/namespace");
        if !holds(parse(&entity.selector).expr(), &own, true, true) {
            return false;
        }
        if !entity.not_selector.is_empty()
            && holds(parse(&entity.not_selector).expr(), &own, true, true)
        {
            return false;
        }
        if !entity.namespace_selector.is_empty() {
            let inherited = |name: &str| item.label(&format!("pcns.{name}"));
            let selector = parse(&entity.namespace_selector);
            let somewhere = namespace.is_some();
            if !holds(selector.expr(), &inherited, somewhere, !somewhere) {
                return false;
            }
        } else if self.namespace.is_some() && namespace != self.namespace {
            return false;
        }
        let Some(accounts) = &entity.service_accounts else {
            return true;
        };
        let inherited = |name: &str| item.label(&format!("pcsa.{name}"));
        let account = item.label("projectcalico.org/serviceaccount");
        holds(parse(&accounts.selector).expr(), &inherited, true, true)
            && (accounts.names.is_empty()
                || accounts
                    .names
                    .iter()
                    .any(|name| account == Some(name.as_str())))
    }
}

/// Whether labels satisfy an expression in which `all()` and `global()` mean what is given.
pub(super) fn holds<'l>(
    expr: &Expr,
    label: &dyn Fn(&str) -> Option<&'l str>,
    all: bool,
    global: bool,
) -> bool {
    match expr {
        Expr::All => all,
        Expr::Global => global,
        Expr::Has(name) => label(name).is_some(),
        Expr::Equal(name, value) => label(name) == Some(value.as_str()),
        Expr::NotEqual(name, value) => label(name) != Some(value.as_str()),
        Expr::In(name, values) => {
            label(name).is_some_and(|found| values.iter().any(|v| v == found))
        }
        Expr::NotIn(name, values) => {
            !label(name).is_some_and(|found| values.iter().any(|v| v == found))
        }
        Expr::Contains(name, text) => label(name).is_some_and(|found| found.contains(text)),
        Expr::StartsWith(name, text) => label(name).is_some_and(|found| found.starts_with(text)),
        Expr::EndsWith(name, text) => label(name).is_some_and(|found| found.ends_with(text)),
        Expr::Not(operand) => !holds(operand, label, all, global),
        Expr::And(operands) => operands.iter().all(|o| holds(o, label, all, global)),
        Expr::Or(operands) => operands.iter().any(|o| holds(o, label, all, global)),
    }
}

fn is_named(port: &Port) -> bool {
    matches!(port, Port::Named(_))
}

fn in_range(port: &Port, number: u16) -> bool {
    match port {
        Port::Range { first, last } => (*first..=*last).contains(&number),
        Port::Named(_) => false,
    }
}
