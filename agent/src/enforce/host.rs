//! What the node is to policy: its own interfaces, the pools, and how sources are translated.

use std::net::IpAddr;

use margay_model::Cidr;
use margay_netlink::Interfaces;
use margay_ruleset::compile::{Nat, Node, Pool as NatPool};

use super::settings::{Exclusions, PolicySettings};
use crate::state::{Pool, Settings, State};

/// From what the store says and the machine has.
pub(crate) fn node(state: &State, settings: &Settings, interfaces: &Interfaces) -> Node {
    let prefixes = &settings.interface_prefixes;
    let is_workload = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let mut own: Vec<(String, Vec<IpAddr>)> = interfaces
        .iter()
        .filter(|link| !link.loopback && !is_workload(&link.name))
        .map(|link| {
            let addresses = link.addresses.iter().map(ipnetwork::IpNetwork::ip);
            (link.name.clone(), addresses.collect())
        })
        .collect();
    own.sort();
    let pools = state.pools().values();
    Node {
        interfaces: own,
        pools: pools
            .map(|pool| NatPool {
                cidr: pool.cidr,
                nat_outgoing: pool.nat_outgoing,
            })
            .collect(),
        nat: nat(state, &settings.policy),
        tunnel_peers: tunnel_peers(state, settings),
    }
}

/// The other nodes, where packets between nodes go through VXLAN.
fn tunnel_peers(state: &State, settings: &Settings) -> Vec<IpAddr> {
    if !settings.vxlan.enabled || !state.pools().values().any(Pool::tunnels) {
        return Vec::new();
    }
    let others = state
        .nodes()
        .iter()
        .filter(|(name, _)| *name != state.node());
    let addresses = others.flat_map(|(_, node)| [node.v4, node.v6]).flatten();
    let mut peers: Vec<IpAddr> = addresses.map(|network| network.ip()).collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

fn nat(state: &State, settings: &PolicySettings) -> Nat {
    let hosts = || {
        let nodes = state.nodes().values();
        let addresses = nodes.flat_map(|node| [node.v4, node.v6]).flatten();
        let mut hosts: Vec<Cidr> = addresses.map(|network| Cidr::host(network.ip())).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    };
    Nat {
        ports: settings.nat_ports,
        addresses: settings.nat_address.into_iter().map(IpAddr::V4).collect(),
        excluded: match settings.nat_exclusions {
            Exclusions::PoolsAndHosts => hosts(),
            Exclusions::Pools => Vec::new(),
        },
    }
}
