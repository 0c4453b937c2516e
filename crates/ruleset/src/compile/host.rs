//! Host endpoints: maps from the host's interfaces to classes.

use std::collections::BTreeMap;

use margay_policy::{Chains, Desired, Host, HostInterface, Tier};

use super::class::{ClassKey, Kind};
use super::settings::{Direction, Node};
use crate::{DataType, Element, Field, Key, Rule, Set, Statement, Table, Verdict, interface_bytes};

pub(super) const IN: &str = "hep-in";
pub(super) const OUT: &str = "hep-out";
pub(super) const FWD_FROM: &str = "hep-fwd-from";
pub(super) const FWD_TO: &str = "hep-fwd-to";
pub(super) const PRE_DNAT: &str = "hep-pre-dnat";
pub(super) const RAW_FROM: &str = "hep-raw-from";
pub(super) const RAW_TO: &str = "hep-raw-to";

/// The chains of the host endpoint that claims every interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wildcards {
    pub(super) to_host: Option<String>,
    pub(super) from_host: Option<String>,
    pub(super) fwd_from: Option<String>,
    pub(super) fwd_to: Option<String>,
    pub(super) pre_dnat: Option<String>,
    pub(super) raw_from: Option<String>,
    pub(super) raw_to: Option<String>,
}

/// All that host endpoints need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hosts {
    pub(super) classes: Vec<ClassKey>,
    pub(super) wildcards: Wildcards,
    maps: BTreeMap<&'static str, Vec<(Key, Element)>>,
}

/// The empty maps.
pub(super) fn add_sets(table: &mut Table) {
    for map in [IN, OUT, FWD_FROM, FWD_TO, PRE_DNAT, RAW_FROM, RAW_TO] {
        table.put_set(map, Set::verdicts([DataType::Interface]));
    }
}

/// The rules that lead to host endpoints' classes.
pub(super) fn dispatch(map: &str, wildcard: Option<&str>, field: Field) -> Vec<Rule> {
    let mut rules = vec![Rule::new([Statement::dispatch([field], map)])];
    if let Some(chain) = wildcard {
        let lo = Statement::is(field, interface_bytes("lo"));
        rules.push(Rule::new([lo]).then(Verdict::Accept));
        rules.push(Rule::default().then(Verdict::Goto(chain.to_owned())));
    }
    rules
}

impl Hosts {
    /// The host endpoints as the node's interfaces now are.
    pub(super) fn new(desired: &Desired, node: &Node) -> Self {
        let mut hosts = Self::default();
        for (interface, addresses) in &node.interfaces {
            let Some((_, host)) = desired.host_of(interface, addresses) else {
                continue;
            };
            if host.interface != HostInterface::Every {
                hosts.add(interface, host);
            }
        }
        let every = desired
            .hosts
            .values()
            .find(|host| host.interface == HostInterface::Every);
        if let Some(host) = every {
            let chain = |(_, class): &(&'static str, ClassKey)| Some(class.name());
            let classes = classes(host);
            let [
                to_host,
                from_host,
                fwd_from,
                fwd_to,
                pre_dnat,
                raw_from,
                raw_to,
            ] = &classes;
            hosts.wildcards = Wildcards {
                to_host: chain(to_host),
                from_host: chain(from_host),
                fwd_from: chain(fwd_from),
                fwd_to: chain(fwd_to),
                pre_dnat: chain(pre_dnat),
                raw_from: chain(raw_from).filter(|_| !raw_from.1.tiers.is_empty()),
                raw_to: chain(raw_to).filter(|_| !raw_to.1.tiers.is_empty()),
            };
            hosts
                .classes
                .extend(classes.into_iter().map(|(_, class)| class));
        }
        hosts
    }

    fn add(&mut self, interface: &str, host: &Host) {
        for (map, class) in classes(host) {
            // Before tracking and translation, what has no policy meets no rule at all.
            let early = matches!(class.kind, Kind::Untracked);
            if early && class.tiers.is_empty() {
                continue;
            }
            let element = Element::verdict(Verdict::Goto(class.name()));
            let key = Key::of(interface_bytes(interface));
            self.maps.entry(map).or_default().push((key, element));
            self.classes.push(class);
        }
    }

    /// Puts the maps into the table.
    pub(super) fn fill(&self, table: &mut Table) {
        for map in [IN, OUT, FWD_FROM, FWD_TO, PRE_DNAT, RAW_FROM, RAW_TO] {
            let mut set = Set::verdicts([DataType::Interface]);
            set.elements
                .extend(self.maps.get(map).into_iter().flatten().cloned());
            table.put_set(map, set);
        }
    }
}

/// The seven classes of a host endpoint, each with its map.
fn classes(host: &Host) -> [(&'static str, ClassKey); 7] {
    let class = |kind, direction, tiers: &[Tier], profiles: &[String]| ClassKey {
        kind,
        direction,
        tiers: tiers.to_owned(),
        profiles: profiles.to_owned(),
    };
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    let Chains {
        ingress: to,
        egress: from,
    } = &host.normal;
    [
        (IN, class(Kind::Host, ingress, to, &host.profiles)),
        (OUT, class(Kind::Host, egress, from, &host.profiles)),
        (
            FWD_FROM,
            class(Kind::Forward, ingress, &host.forward.ingress, &[]),
        ),
        (
            FWD_TO,
            class(Kind::Forward, egress, &host.forward.egress, &[]),
        ),
        (PRE_DNAT, class(Kind::PreDnat, ingress, &host.pre_dnat, &[])),
        (
            RAW_FROM,
            class(Kind::Untracked, ingress, &host.untracked.ingress, &[]),
        ),
        (
            RAW_TO,
            class(Kind::Untracked, egress, &host.untracked.egress, &[]),
        ),
    ]
}
