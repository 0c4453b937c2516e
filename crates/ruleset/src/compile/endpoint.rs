//! A workload endpoint's own part: elements only, except where it has limits.

use std::collections::BTreeMap;

use margay_model::Family;
use margay_policy::Workload;

use super::interval::{merged, octets};
use crate::expression::Limit;
use crate::{Chain, DataType, Element, Key, Rule, Set, Statement, Table, Verdict, interface_bytes};

pub(super) const FROM: &str = "wl-from";
pub(super) const TO: &str = "wl-to";
pub(super) const CONNECTIONS_FROM: &str = "connections-from";
pub(super) const CONNECTIONS_TO: &str = "connections-to";
pub(super) const RATE_FROM: &str = "rate-from";
pub(super) const RATE_TO: &str = "rate-to";
pub(super) const MACS: &str = "macs";
pub(super) const MAC_CHECKED: &str = "mac-checked";

/// The addresses that an endpoint may send from.
pub(super) fn sources(family: Family) -> &'static str {
    match family {
        Family::V4 => "sources4",
        Family::V6 => "sources6",
    }
}

/// The prefixes that an endpoint may send from beside its addresses.
pub(super) fn spoofable(family: Family) -> &'static str {
    match family {
        Family::V4 => "spoofable4",
        Family::V6 => "spoofable6",
    }
}

/// Elements by set and key, and chains by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Own {
    elements: BTreeMap<(&'static str, Key), Element>,
    chains: BTreeMap<String, Chain>,
}

/// The empty sets that endpoints fill.
pub(super) fn add_sets(table: &mut Table) {
    let interface = DataType::Interface;
    for family in [Family::V4, Family::V6] {
        let fields = [interface, DataType::address(family)];
        table.put_set(sources(family), Set::new(fields));
        table.put_set(spoofable(family), Set::new(fields).with_intervals());
    }
    table.put_set(MACS, Set::new([interface, DataType::Mac]));
    table.put_set(MAC_CHECKED, Set::new([interface]));
    for map in [
        FROM,
        TO,
        CONNECTIONS_FROM,
        CONNECTIONS_TO,
        RATE_FROM,
        RATE_TO,
    ] {
        table.put_set(map, Set::verdicts([interface]));
    }
}

impl Own {
    /// What an endpoint has, given the chains of its classes.
    pub(super) fn new(workload: &Workload, ingress: &str, egress: &str) -> Self {
        let mut own = Self::default();
        let interface = interface_bytes(&workload.interface);
        for address in &workload.addresses {
            let key = Key::concatenation(&[&interface, &octets(*address)]);
            own.put(sources(Family::of(*address)), key, Element::default());
        }
        for family in [Family::V4, Family::V6] {
            for (first, last) in merged(&workload.spoofable, family) {
                let key = Key::intervals(&[(&interface, &interface), (&first, &last)]);
                own.put(spoofable(family), key, Element::default());
            }
        }
        if let Some(mac) = workload.mac.as_deref().and_then(mac_bytes) {
            own.put(MAC_CHECKED, Key::of(interface), Element::default());
            let key = Key::concatenation(&[&interface, &mac]);
            own.put(MACS, key, Element::default());
        }
        own.dispatch(workload, ingress, egress);
        own
    }

    fn dispatch(&mut self, workload: &Workload, ingress: &str, egress: &str) {
        let name = &workload.interface;
        let qos = workload.qos.clone().unwrap_or_default();
        let key = || Key::of(interface_bytes(name));
        for (map, class) in [(FROM, egress), (TO, ingress)] {
            let goto = Verdict::Goto(class.to_owned());
            self.put(map, key(), Element::verdict(goto));
        }
        for (map, connections, letter) in [
            (CONNECTIONS_FROM, qos.egress_max_connections, 'f'),
            (CONNECTIONS_TO, qos.ingress_max_connections, 't'),
        ] {
            let Some(most) = positive(connections) else {
                continue;
            };
            let chain = format!("l{letter}-{name}");
            let limit = Statement::ConnectionsOver(most);
            let rule = Rule::new([limit, Statement::Counter])
                .then(Verdict::Drop)
                .commented("too many connections");
            self.chains.insert(chain.clone(), Chain::regular([rule]));
            self.put(map, key(), Element::verdict(Verdict::Jump(chain)));
        }
        for (map, rate, burst, letter) in [
            (
                RATE_FROM,
                qos.egress_packet_rate,
                qos.egress_packet_burst,
                'f',
            ),
            (
                RATE_TO,
                qos.ingress_packet_rate,
                qos.ingress_packet_burst,
                't',
            ),
        ] {
            let Some(rate) = positive(rate) else {
                continue;
            };
            let chain = format!("r{letter}-{name}");
            let limit = Statement::Limit(Limit {
                rate: rate.into(),
                seconds: 1,
                burst: positive(burst).unwrap_or(BURST),
                over: true,
            });
            let rule = Rule::new([limit, Statement::Counter])
                .then(Verdict::Drop)
                .commented("too many packets");
            self.chains.insert(chain.clone(), Chain::regular([rule]));
            self.put(map, key(), Element::verdict(Verdict::Jump(chain)));
        }
    }

    fn put(&mut self, set: &'static str, key: Key, element: Element) {
        self.elements.insert((set, key), element);
    }

    /// Puts this into the table in the place of what the endpoint had before.
    pub(super) fn replace(&self, before: Option<&Self>, table: &mut Table) {
        if let Some(before) = before {
            for (set, key) in before.elements.keys() {
                if !self.elements.contains_key(&(*set, key.clone())) {
                    table.remove_element(set, key);
                }
            }
            for name in before
                .chains
                .keys()
                .filter(|name| !self.chains.contains_key(*name))
            {
                table.remove_chain(name);
            }
        }
        for (name, chain) in &self.chains {
            table.put_chain(name, chain.clone());
        }
        for ((set, key), element) in &self.elements {
            table.put_element(set, key.clone(), element.clone());
        }
    }

    /// Its chains.
    pub(super) fn chains(&self) -> impl Iterator<Item = &str> {
        self.chains.keys().map(String::as_str)
    }
}

/// Limits are positive where they are valid at all.
fn positive(limit: Option<i64>) -> Option<u32> {
    limit
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|limit| *limit > 0)
}

fn mac_bytes(text: &str) -> Option<[u8; 6]> {
    let mut octets = [0; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut octets {
        *octet = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

/// As nftables' programs do where none is given.
const BURST: u32 = 5;
