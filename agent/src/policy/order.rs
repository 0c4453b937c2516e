//! What the node is and how policy is to be put in force, from what the store and the machine say; pure.

use std::net::IpAddr;

use margay_model::Key;
use margay_netlink::Interfaces;
use margay_policy::Calculator;
use margay_route::Ownership;
use margay_ruleset::compile::{Nat, Node, Pool, Settings as Choices};
use margay_store::follow::Update;

use crate::state::{Settings, State};

/// What the compilation has to know beside policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The operator's choices.
    pub settings: Choices,
    /// The node.
    pub node: Node,
}

impl Order {
    /// From the store and the machine.
    pub fn new(
        state: &State,
        settings: &Settings,
        interfaces: &Interfaces,
        ownership: &Ownership,
    ) -> Self {
        let pools = state.pools().values().map(|pool| Pool {
            cidr: pool.cidr,
            nat_outgoing: pool.nat_outgoing,
        });
        Self {
            settings: Choices {
                workload_prefixes: settings.interface_prefixes.clone(),
                vxlan_port: settings.vxlan.port,
                ..Choices::default()
            },
            node: Node {
                interfaces: host_interfaces(interfaces, ownership),
                pools: pools.collect(),
                nat: Nat::default(),
            },
        }
    }
}

/// The interfaces that lead to no workload, sorted by name, each with its addresses.
fn host_interfaces(interfaces: &Interfaces, ownership: &Ownership) -> Vec<(String, Vec<IpAddr>)> {
    let hosts = interfaces
        .iter()
        .filter(|link| !link.loopback && !ownership.owns_interface(&link.name));
    let mut hosts: Vec<_> = hosts
        .map(|link| {
            let addresses = link.addresses.iter().map(ipnetwork::IpNetwork::ip);
            (link.name.clone(), addresses.collect())
        })
        .collect();
    hosts.sort();
    hosts
}

/// Whether an update says something of policy.
pub(super) fn concerns(update: &Update) -> bool {
    let key = match update {
        Update::Put(entry) => &entry.key,
        Update::Delete(key) => key,
    };
    matches!(key, Key::Resource { kind, .. } if Calculator::kinds().contains(kind))
}
