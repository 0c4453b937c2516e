//! What this node announces of its own.

use std::collections::BTreeMap;

use margay_bgp::LocalRoute;
use margay_model::{Cidr, Family};

use crate::input::{Input, Node};

/// The node's blocks, addresses of its endpoints outside of them, and services' ranges.
///
/// A block of one address is announced by its endpoint alone.
pub(crate) fn routes(input: &Input<'_>, own: &Node) -> BTreeMap<Cidr, LocalRoute> {
    let mut routes = BTreeMap::new();
    let mut add = |prefix: Cidr, tag: u32| {
        if own.address(prefix.family()).is_some() {
            let route = LocalRoute {
                tag,
                ..LocalRoute::new(prefix)
            };
            routes.entry(prefix).or_insert(route);
        }
    };
    let blocks = input.blocks.iter();
    let mine: Vec<Cidr> = blocks
        .filter(|(_, node)| *node == input.node)
        .map(|(cidr, _)| *cidr)
        .filter(|cidr| cidr.length() < width(*cidr))
        .collect();
    for cidr in &mine {
        add(*cidr, TAG_BLOCK);
    }
    for address in input.endpoints {
        if !mine.iter().any(|block| block.contains(*address)) {
            add(Cidr::host(*address), TAG_HOST);
        }
    }
    let excluded = own.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS);
    for (cluster_addresses, cidr) in services(input) {
        if cluster_addresses || !excluded {
            add(cidr, TAG_SERVICE);
        }
    }
    routes
}

/// The ranges of services that are announced, and whether each is of cluster addresses.
pub(crate) fn services(input: &Input<'_>) -> impl Iterator<Item = (bool, Cidr)> {
    let lists = input
        .configuration()
        .into_iter()
        .flat_map(margay_model::resource::bgp::BGPConfigurationSpec::service_blocks);
    lists.flat_map(|(name, blocks)| {
        let cluster_addresses = name == "serviceClusterIPs";
        blocks
            .iter()
            .filter_map(move |block| Some((cluster_addresses, block.cidr.parse().ok()?)))
    })
}

fn width(cidr: Cidr) -> u8 {
    Family::of(cidr.address()).width()
}

/// Marks blocks of the node.
pub const TAG_BLOCK: u32 = 1;
/// Marks single addresses of the node's endpoints.
pub const TAG_HOST: u32 = 2;
/// Marks ranges of services.
pub const TAG_SERVICE: u32 = 3;

/// The label of nodes that take no traffic for load balancers.
const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
