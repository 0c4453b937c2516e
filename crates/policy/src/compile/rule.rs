//! Rules: selectors become sets, names become numbers.

use std::sync::Arc;

use margay_model::resource::rule::{EntityRule, IcmpMatch, Rule as Stored};
use margay_model::scalar::{Action as StoredAction, Port, Protocol};
use margay_model::syntax::is_port_name;
use margay_model::{Cidr, Family, Problems};
use margay_selector::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL, Selector};

use super::Sets;
use crate::condition::Problem;
use crate::output::{Action, Icmp, PortRange, Rule, SetId, Side};
use crate::spec::SetSpec;

/// Compiles the rules of one policy or profile.
pub(super) struct Compiler<'a> {
    namespace: Option<&'a str>,
    sets: Sets,
    unsupported: Vec<Problem>,
    flaws: Problems,
}

/// Which end of a connection a side is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Families that a rule can match.
#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

impl<'a> Compiler<'a> {
    /// For rules of a policy of this namespace, or of a policy or profile of none.
    pub(super) fn new(namespace: Option<&'a str>) -> Self {
        Self {
            namespace,
            sets: Sets::new(),
            unsupported: Vec::new(),
            flaws: Problems::new(),
        }
    }

    /// Compiles the rules in a field. What cannot be understood is among the flaws, and its rule is not
    /// to be relied on.
    pub(super) fn rules(&mut self, field: &str, rules: &[Stored]) -> Vec<Rule> {
        let mut flaws = std::mem::take(&mut self.flaws);
        let mut compiled = Vec::with_capacity(rules.len());
        let mut index = 0;
        flaws.field("spec", |flaws| {
            flaws.items(field, rules, |flaws, rule| {
                let path = format!("spec.{field}[{index}]");
                compiled.extend(self.rule(index, rule, &path, flaws));
                index += 1;
            });
        });
        self.flaws = flaws;
        compiled
    }

    pub(super) fn flaws(&mut self) -> &mut Problems {
        &mut self.flaws
    }

    pub(super) fn finish(self) -> (Sets, Vec<Problem>, Problems) {
        (self.sets, self.unsupported, self.flaws)
    }

    /// `None` for a rule that can match nothing.
    fn rule(
        &mut self,
        index: usize,
        stored: &Stored,
        path: &str,
        flaws: &mut Problems,
    ) -> Option<Rule> {
        let action = match &stored.action {
            StoredAction::Allow => Action::Allow,
            StoredAction::Deny => Action::Deny,
            StoredAction::Log => Action::Log,
            StoredAction::Pass => Action::Pass,
            StoredAction::Other(text) => {
                flaws.refuse_field("action", text, "Allow, Deny, Log, Pass");
                return None;
            }
        };
        let unsupported = unsupported(stored);
        for field in &unsupported {
            self.unsupported.push(Problem::Unsupported {
                path: format!("{path}.{field}"),
                denies: action == Action::Deny,
            });
        }
        let protocol = number("protocol", stored.protocol.as_ref(), flaws);
        let not_protocol = number("notProtocol", stored.not_protocol.as_ref(), flaws);
        let icmp = icmp_match("icmp", stored.icmp.as_ref(), flaws);
        let not_icmp = icmp_match("notICMP", stored.not_icmp.as_ref(), flaws);
        let mut families = Families::of_version(stored.ip_version, flaws);
        if icmp.is_some() || not_icmp.is_some() {
            match protocol {
                Some(ICMP) => families.keep(Family::V4),
                Some(ICMP_V6) => families.keep(Family::V6),
                Some(_) => {
                    flaws.refuse_field("icmp", "given", "none where the protocol is not ICMP");
                }
                None => {}
            }
        }
        let mut source = Side::default();
        flaws.field("source", |flaws| {
            source = self.side(End::Source, &stored.source, protocol, &mut families, flaws);
        });
        let mut destination = Side::default();
        flaws.field("destination", |flaws| {
            let (end, entity) = (End::Destination, &stored.destination);
            destination = self.side(end, entity, protocol, &mut families, flaws);
        });
        let family = families.one()?;
        if !unsupported.is_empty() && action != Action::Deny {
            return None;
        }
        Some(Rule {
            index,
            action,
            family,
            protocol,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
            annotations: stored
                .metadata
                .as_ref()
                .map(|metadata| metadata.annotations.clone())
                .unwrap_or_default(),
        })
    }

    fn side(
        &mut self,
        end: End,
        entity: &EntityRule,
        protocol: Option<u8>,
        families: &mut Families,
        flaws: &mut Problems,
    ) -> Side {
        let mut side = Side {
            nets: nets("nets", &entity.nets, families, flaws),
            not_nets: nets("notNets", &entity.not_nets, families, flaws),
            ..Side::default()
        };
        let mut selector = self.selector(entity, flaws);
        if let Some(not) = parse("notSelector", &entity.not_selector, flaws) {
            // Beside a positive selector the negative one narrows it, as in Calico: an address that
            // several objects share matches if one of them satisfies both.
            selector = match selector {
                Some(selector) => Some(selector.and(not.negated())),
                None => {
                    side.not_sets.push(self.set(SetSpec::Selector(not)));
                    None
                }
            };
        }
        let (ports, names) = split_ports("ports", &entity.ports, protocol, flaws);
        let (not_ports, not_names) = split_ports("notPorts", &entity.not_ports, protocol, flaws);
        let named = |name| SetSpec::NamedPort {
            selector: selector.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default(),
            name,
        };
        side.named_ports = names
            .into_iter()
            .map(|name| self.set(named(name)))
            .collect();
        let not_named = not_names.into_iter().map(|name| self.set(named(name)));
        side.not_named_ports = not_named.collect();
        // Named ports are those of what the selector matches, so that they stand for it, too.
        if let Some(selector) = selector
            && (!ports.is_empty() || side.named_ports.is_empty())
        {
            side.sets.push(self.set(SetSpec::Selector(selector)));
        }
        side.ports = ports;
        side.not_ports = not_ports;
        if let Some(service) = &entity.services {
            let namespace = match service.namespace.as_str() {
                "" => self.namespace.unwrap_or_default(),
                namespace => namespace,
            };
            let name = format!("{namespace}/{}", service.name);
            match end {
                End::Source => side.sets.push(self.set(SetSpec::ServiceAddresses(name))),
                End::Destination => {
                    side.service = Some(self.set(SetSpec::ServicePorts(name)));
                }
            }
        }
        side
    }

    /// What a side's selectors ask for together, except `notSelector`; `None` where they ask nothing.
    fn selector(&self, entity: &EntityRule, flaws: &mut Problems) -> Option<Selector> {
        let own = parse("selector", &entity.selector, flaws);
        let accounts = service_accounts(entity, flaws);
        let on = parse("namespaceSelector", &entity.namespace_selector, flaws)
            .map(|selector| selector.on_namespace());
        let within = match self.namespace {
            // A namespaced policy speaks of its own namespace, as soon as it speaks of endpoints.
            Some(namespace)
                if entity.namespace_selector.is_empty()
                    && (own.is_some() || accounts.is_some() || !entity.not_selector.is_empty()) =>
            {
                Selector::equal(NAMESPACE_LABEL, namespace)
            }
            _ => None,
        };
        [on, within, accounts, own]
            .into_iter()
            .flatten()
            .reduce(Selector::and)
    }

    fn set(&mut self, spec: SetSpec) -> SetId {
        let id = spec.id();
        self.sets.entry(id).or_insert_with(|| Arc::new(spec));
        id
    }
}

impl Families {
    fn of_version(version: Option<i64>, flaws: &mut Problems) -> Self {
        let (v4, v6) = match version {
            None => (true, true),
            Some(4) => (true, false),
            Some(6) => (false, true),
            Some(other) => {
                flaws.refuse_field("ipVersion", other, "4, 6");
                (true, true)
            }
        };
        Self { v4, v6 }
    }

    fn keep(&mut self, family: Family) {
        self.v4 &= family == Family::V4;
        self.v6 &= family == Family::V6;
    }

    /// `None` where there is none left, `Some(None)` where both are.
    fn one(self) -> Option<Option<Family>> {
        match (self.v4, self.v6) {
            (true, true) => Some(None),
            (true, false) => Some(Some(Family::V4)),
            (false, true) => Some(Some(Family::V6)),
            (false, false) => None,
        }
    }
}

/// The fields of a rule that cannot be enforced: requests of HTTP, and what only other releases know.
fn unsupported(rule: &Stored) -> Vec<String> {
    let mut fields: Vec<String> = rule.extra.keys().cloned().collect();
    if rule.http.is_some() {
        fields.push("http".to_owned());
    }
    for (side, entity) in [("source", &rule.source), ("destination", &rule.destination)] {
        fields.extend(entity.extra.keys().map(|field| format!("{side}.{field}")));
        let accounts = entity.service_accounts.iter();
        let extra = accounts.flat_map(|accounts| accounts.extra.keys());
        fields.extend(extra.map(|field| format!("{side}.serviceAccounts.{field}")));
        let services = entity.services.iter();
        let extra = services.flat_map(|services| services.extra.keys());
        fields.extend(extra.map(|field| format!("{side}.services.{field}")));
    }
    for (name, icmp) in [("icmp", &rule.icmp), ("notICMP", &rule.not_icmp)] {
        let extra = icmp.iter().flat_map(|icmp| icmp.extra.keys());
        fields.extend(extra.map(|field| format!("{name}.{field}")));
    }
    fields
}

fn parse(field: &str, text: &str, flaws: &mut Problems) -> Option<Selector> {
    if text.is_empty() {
        return None;
    }
    match Selector::parse(text) {
        Ok(selector) => Some(selector),
        Err(error) => {
            flaws.refuse_field(field, text, error.to_string());
            None
        }
    }
}

fn service_accounts(entity: &EntityRule, flaws: &mut Problems) -> Option<Selector> {
    let accounts = entity.service_accounts.as_ref()?;
    let mut selector = None;
    flaws.field("serviceAccounts", |flaws| {
        let labelled = parse("selector", &accounts.selector, flaws).map(|s| s.on_service_account());
        let named = if accounts.names.is_empty() {
            None
        } else {
            let names = accounts.names.iter().map(String::as_str);
            let named = Selector::one_of(SERVICE_ACCOUNT_LABEL, names);
            flaws.require(
                named.is_some(),
                "names",
                accounts.names.join(", "),
                "names of service accounts",
            );
            named
        };
        selector = [labelled, named]
            .into_iter()
            .flatten()
            .reduce(Selector::and);
    });
    selector
}

fn nets(field: &str, texts: &[String], families: &mut Families, flaws: &mut Problems) -> Vec<Cidr> {
    let mut nets = Vec::with_capacity(texts.len());
    flaws.items(field, texts, |flaws, text| {
        nets.extend(flaws.cidr_here(text))
    });
    // As in Calico, a list without a prefix of a family keeps the rule from packets of that family, be
    // the list negated or not.
    if !nets.is_empty() {
        families.v4 &= nets.iter().any(|net| net.family() == Family::V4);
        families.v6 &= nets.iter().any(|net| net.family() == Family::V6);
    }
    nets
}

fn number(field: &str, protocol: Option<&Protocol>, flaws: &mut Problems) -> Option<u8> {
    let protocol = protocol?;
    let number = protocol.number().filter(|_| protocol.is_valid());
    let allowed = "TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite, or 1 to 255";
    flaws.require(number.is_some(), field, protocol, allowed);
    number
}

fn icmp_match(field: &str, stored: Option<&IcmpMatch>, flaws: &mut Problems) -> Option<Icmp> {
    let stored = stored?;
    let mut icmp = None;
    flaws.field(field, |flaws| {
        flaws.range("type", stored.kind, 0..=254);
        flaws.range("code", stored.code, 0..=255);
        if let (Some(code), None) = (stored.code, stored.kind) {
            flaws.refuse_field("code", code, "none where no type is given");
        }
        icmp = stored
            .kind
            .and_then(|kind| u8::try_from(kind).ok())
            .map(|kind| Icmp {
                kind,
                code: stored.code.and_then(|code| u8::try_from(code).ok()),
            });
    });
    icmp
}

/// The ranges, and the names.
fn split_ports(
    field: &str,
    ports: &[Port],
    protocol: Option<u8>,
    flaws: &mut Problems,
) -> (Vec<PortRange>, Vec<String>) {
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    flaws.items(field, ports, |flaws, port| match port {
        Port::Range { first, last } => ranges.push(PortRange {
            first: *first,
            last: *last,
        }),
        Port::Named(name) if is_port_name(name) && !is_number(name) => names.push(name.clone()),
        Port::Named(name) => {
            flaws.refuse(
                name,
                "0 to 65535, a range such as 1000:2000, or the name of a port",
            );
        }
    });
    if !ports.is_empty() && !matches!(protocol, Some(TCP | UDP | SCTP)) {
        flaws.refuse_field(
            field,
            "given",
            "none where the protocol is not TCP, UDP or SCTP",
        );
    }
    names.sort_unstable();
    names.dedup();
    (ranges, names)
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP_V6: u8 = 58;
const SCTP: u8 = 132;
