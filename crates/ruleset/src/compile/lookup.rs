//! Tiers that only allow, by selectors and ports, as lookups: one for the address, which says
//! which ports are open to it, and one for the port.
//!
//! Rules that allow can be asked in any order as long as nothing stands between them that does
//! not, so a run of them is the union of what they match. A packet costs the same with 10 policies
//! and with 1,000.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::{Cidr, Family};
use margay_policy::{Action, Desired, Member, PolicyId, Rule as PolicyRule, SetId, Side};

use super::interval::octets;
use super::names;
use super::rule::{merge_ports, port_key};
use super::settings::Direction;
use crate::{Chain, DataType, Element, Field, Key, Rule, Set, Statement, Table, Value, Verdict};

/// Policies of one tier whose rules are looked up together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LookupKey {
    pub(super) direction: Direction,
    pub(super) policies: Vec<PolicyId>,
}

/// What is in force of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lookup {
    /// What each set is allowed, and by which rule first.
    allowed: BTreeMap<SetId, Allowed>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Allowed {
    families: BTreeSet<Family>,
    ports: BTreeSet<Ports>,
    label: String,
}

/// What a rule opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ports {
    All,
    Protocol(u8),
    Range(u8, u16, u16),
}

impl LookupKey {
    /// The name of its map of a family.
    pub(super) fn map(&self, family: Family) -> String {
        let policies: Vec<_> = self.policies.iter().map(ToString::to_string).collect();
        let hash = names::hash(&policies.join("\n"));
        format!(
            "l{}{}-{hash}",
            self.direction.letter(),
            names::digit(family)
        )
    }

    /// The field whose addresses are looked up.
    pub(super) fn field(&self, family: Family) -> Field {
        Field::Address(peer(self.direction), family)
    }
}

impl Lookup {
    /// Reads the policies; every one must be [`is_plain`].
    pub(super) fn new(key: &LookupKey, desired: &Desired) -> Self {
        let mut lookup = Self::default();
        for id in &key.policies {
            let Some(policy) = desired.policies.get(id) else {
                continue;
            };
            for rule in super::rules_of(&policy.ingress, &policy.egress, key.direction) {
                let Some(set) = peer_side(rule, key.direction).sets.first() else {
                    continue;
                };
                let allowed = lookup.allowed.entry(*set).or_default();
                if allowed.label.is_empty() {
                    let index = rule.index.to_string();
                    allowed.label = names::label(&policy.tier, &id.to_string(), &index);
                }
                match rule.family {
                    Some(family) => drop(allowed.families.insert(family)),
                    None => allowed.families.extend([Family::V4, Family::V6]),
                }
                let ports = &rule.destination.ports;
                allowed
                    .ports
                    .extend(match (rule.protocol, ports.is_empty()) {
                        (None, _) => vec![Ports::All],
                        (Some(protocol), true) => vec![Ports::Protocol(protocol)],
                        (Some(protocol), false) => {
                            let ports = ports.iter();
                            ports
                                .map(|port| Ports::Range(protocol, port.first, port.last))
                                .collect()
                        }
                    });
            }
        }
        lookup
    }

    /// Whether members of a set matter to it.
    pub(super) fn reads(&self, set: SetId) -> bool {
        self.allowed.contains_key(&set)
    }

    /// Puts the maps of these families into the table, with all that they lead to.
    pub(super) fn fill(
        &self,
        key: &LookupKey,
        desired: &Desired,
        families: &BTreeSet<Family>,
        table: &mut Table,
    ) {
        let mut addresses = BTreeSet::new();
        for set in self.allowed.keys().filter_map(|id| desired.sets.get(id)) {
            addresses.extend(set.members.iter().filter_map(single));
        }
        for family in families.iter().copied() {
            let mut map = Set::verdicts([DataType::address(family)]).counted();
            let own = addresses
                .iter()
                .filter(|address| Family::of(**address) == family);
            for address in own {
                if let Some(element) = self.element(*address, desired, table) {
                    map.elements.insert(Key::of(octets(*address)), element);
                }
            }
            table.put_set(&key.map(family), map);
        }
    }

    /// Puts one address as it now is into its map.
    pub(super) fn refresh(
        &self,
        key: &LookupKey,
        address: IpAddr,
        desired: &Desired,
        table: &mut Table,
    ) {
        let map = key.map(Family::of(address));
        let in_map = Key::of(octets(address));
        match self.element(address, desired, table) {
            Some(element) => table.put_element(&map, in_map, element),
            None => table.remove_element(&map, &in_map),
        }
    }

    fn element(&self, address: IpAddr, desired: &Desired, table: &mut Table) -> Option<Element> {
        let member = Member::Net(Cidr::host(address));
        let family = Family::of(address);
        let mut ports = BTreeSet::new();
        let mut label = None;
        for (id, allowed) in &self.allowed {
            let holds = || {
                desired
                    .sets
                    .get(id)
                    .is_some_and(|set| set.members.contains(&member))
            };
            if allowed.families.contains(&family) && holds() {
                ports.extend(&allowed.ports);
                label = label.or(Some(&allowed.label));
            }
        }
        Some(Element::verdict(open(&ports, table)).commented(label?))
    }
}

/// The verdict that opens these ports, and the chain that it leads to.
fn open(ports: &BTreeSet<Ports>, table: &mut Table) -> Verdict {
    if ports.contains(&Ports::All) {
        return Verdict::Accept;
    }
    let name = format!("g-{}", names::hash(&format!("{ports:?}")));
    if table.chains().contains_key(&name) {
        return Verdict::Jump(name);
    }
    let whole: BTreeSet<u8> = ports.iter().filter_map(|ports| ports.protocol()).collect();
    let ranges = ports.iter().filter_map(|ports| match ports {
        Ports::Range(protocol, first, last) if !whole.contains(protocol) => {
            Some((*protocol, *first, *last))
        }
        _ => None,
    });
    let ranges = merge_ports(ranges);
    let mut rules: Vec<_> = whole
        .iter()
        .map(|protocol| Rule::new([Statement::protocol(*protocol)]).then(Verdict::Accept))
        .collect();
    if !ranges.is_empty() {
        let map = format!("m{name}");
        let fields = [Field::Protocol, Field::Port(crate::Side::Destination)];
        rules.push(Rule::new([Statement::dispatch(fields, &map)]));
        let mut set = Set::verdicts([DataType::Protocol, DataType::Port]);
        set.spec.interval = ranges.iter().any(|(_, first, last)| first != last);
        set.elements = ranges
            .into_iter()
            .map(|(protocol, first, last)| {
                let accept = Element::verdict(Verdict::Accept);
                (port_key(protocol, first, last), accept)
            })
            .collect();
        table.put_set(&map, set);
    }
    table.put_chain(&name, Chain::regular(rules));
    Verdict::Jump(name)
}

impl Ports {
    fn protocol(self) -> Option<u8> {
        match self {
            Self::Protocol(protocol) => Some(protocol),
            _ => None,
        }
    }
}

/// Whether a policy's rules of a direction can be looked up: each allows the addresses of one set,
/// and no more than ports beside.
pub(super) fn is_plain(
    rules: &[PolicyRule],
    direction: Direction,
    is_wide: &dyn Fn(SetId, Family) -> bool,
) -> bool {
    rules.iter().all(|rule| {
        let peer = peer_side(rule, direction);
        let [set] = peer.sets.as_slice() else {
            return false;
        };
        let simple = PolicyRule {
            index: 0,
            action: Action::Allow,
            family: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Side::default(),
            destination: Side::default(),
            annotations: BTreeMap::new(),
        };
        let mut rest = rule.clone();
        rest.index = 0;
        rest.family = None;
        rest.annotations.clear();
        rest.destination.ports.clear();
        match direction {
            Direction::Ingress => rest.source.sets.clear(),
            Direction::Egress => rest.destination.sets.clear(),
        }
        let ports = rule.protocol.is_some() || rule.destination.ports.is_empty();
        rest.protocol = None;
        let wide = [Family::V4, Family::V6]
            .iter()
            .any(|family| is_wide(*set, *family));
        rest == simple && ports && !wide
    })
}

fn peer(direction: Direction) -> crate::Side {
    match direction {
        Direction::Ingress => crate::Side::Source,
        Direction::Egress => crate::Side::Destination,
    }
}

fn peer_side(rule: &PolicyRule, direction: Direction) -> &Side {
    match direction {
        Direction::Ingress => &rule.source,
        Direction::Egress => &rule.destination,
    }
}

/// The address of a member that is one.
pub(super) fn single(member: &Member) -> Option<IpAddr> {
    match member {
        Member::Net(cidr) if cidr.length() == cidr.family().width() => Some(cidr.address()),
        _ => None,
    }
}

/// The chain of an element that opens ports.
pub(super) fn group(element: &Element) -> Option<&str> {
    match &element.value {
        Some(Value::Verdict(verdict)) => verdict.chain(),
        _ => None,
    }
}
