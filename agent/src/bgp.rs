//! BGP in the agent: what the speaker is told, what it tells, and where people see it.

pub mod backend;
pub mod bird;
pub mod order;
pub mod secrets;
pub mod task;
pub mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use margay_model::Cidr;
use margay_peering::{Endpoint, Input, Node, Peering, Pool, peering};

use crate::state::State;

/// What the speaker of this node is to do, as the datastore says; passwords are below `secrets`.
pub fn desired(state: &State, secrets: &Path) -> Peering {
    let nodes: BTreeMap<String, Node> = state
        .nodes()
        .iter()
        .map(|(name, node)| {
            let node = Node {
                v4: node.v4.and_then(|network| v4(network.ip())),
                v6: node.v6.and_then(|network| v6(network.ip())),
                as_number: node.as_number,
                cluster_id: node.cluster_id,
                labels: node.labels.clone(),
            };
            (name.clone(), node)
        })
        .collect();
    let pools: Vec<Pool> = state
        .pools()
        .values()
        .map(|pool| Pool {
            cidr: pool.cidr,
            export: pool.export,
        })
        .collect();
    let owned = |(cidr, block): (&Cidr, &crate::state::Block)| Some((*cidr, block.node.clone()?));
    let blocks: BTreeMap<Cidr, String> = state.blocks().iter().filter_map(owned).collect();
    let borrowed: BTreeMap<IpAddr, String> = state
        .blocks()
        .values()
        .flat_map(|block| block.borrowed.clone())
        .collect();
    let endpoints: BTreeMap<String, Endpoint> = state
        .endpoints()
        .iter()
        .map(|(key, endpoint)| {
            let endpoint = Endpoint {
                addresses: endpoint.addresses.clone(),
                labels: endpoint.labels.clone(),
            };
            (key.to_string(), endpoint)
        })
        .collect();
    peering(&Input {
        node: state.node(),
        nodes: &nodes,
        configurations: &state.bgp().configurations,
        peers: &state.bgp().peers,
        filters: &state.bgp().filters,
        pools: &pools,
        blocks: &blocks,
        borrowed: &borrowed,
        endpoints: &endpoints,
        passwords: &|reference| secrets::password(secrets, reference),
    })
}

fn v4(address: IpAddr) -> Option<std::net::Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: IpAddr) -> Option<std::net::Ipv6Addr> {
    match address {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    }
}
