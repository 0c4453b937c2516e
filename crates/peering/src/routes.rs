//! What this node announces of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_bgp::LocalRoute;
use margay_model::resource::bgp::BGPConfigurationSpec;
use margay_model::scalar::Switch;
use margay_model::{Cidr, Family};

use crate::configuration::priorities;
use crate::input::{Input, Node};

/// The node's blocks, addresses of its endpoints outside of them, and services' ranges.
///
/// A block of one address is announced by its endpoint alone.
pub(crate) fn routes(input: &Input<'_>, own: &Node) -> BTreeMap<Cidr, LocalRoute> {
    let mut routes = BTreeMap::new();
    let mut add = |route: LocalRoute| {
        if own.address(route.prefix.family()).is_some() {
            routes.entry(route.prefix).or_insert(route);
        }
    };
    let plain = |prefix: Cidr, tag: u32| LocalRoute {
        tag,
        ..LocalRoute::new(prefix)
    };
    let blocks = input.blocks.iter();
    let mine: Vec<Cidr> = blocks
        .filter(|(_, node)| *node == input.node)
        .map(|(cidr, _)| *cidr)
        .filter(|cidr| cidr.length() < width(*cidr))
        .collect();
    for cidr in &mine {
        add(plain(*cidr, TAG_BLOCK));
    }
    let (normal_v4, normal_v6) = priorities(input);
    for endpoint in input.endpoints.values() {
        let beyond = |address: &&IpAddr| !mine.iter().any(|block| block.contains(**address));
        for address in endpoint.addresses.iter().filter(beyond) {
            let prefix = Cidr::host(*address);
            add(LocalRoute {
                interface: Some(endpoint.interface.as_str().into()),
                priority: Some(match prefix.family() {
                    Family::V4 => normal_v4,
                    Family::V6 => normal_v6,
                }),
                ..plain(prefix, TAG_HOST)
            });
        }
    }
    let excluded = own.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS);
    for (list, cidr) in services(input) {
        if list == CLUSTER_ADDRESSES || !excluded {
            add(plain(cidr, TAG_SERVICE));
        }
    }
    routes
}

/// The ranges of services that are announced, each with the name of the list that has it.
///
/// Where load balancers' addresses are not to be announced as whole ranges, only the single addresses
/// among them are: nothing here knows of services.
pub(crate) fn services<'i>(
    input: &Input<'i>,
) -> impl Iterator<Item = (&'static str, Cidr)> + use<'i> {
    let cluster = input.configuration();
    let single = cluster.is_some_and(only_single);
    let lists = cluster
        .into_iter()
        .flat_map(BGPConfigurationSpec::service_blocks);
    lists.flat_map(move |(name, blocks)| {
        let ranges = blocks.iter().filter_map(|block| block.cidr.parse().ok());
        let taken =
            move |cidr: &Cidr| !single || name != LOAD_BALANCERS || cidr.length() == width(*cidr);
        ranges.filter(taken).map(move |cidr| (name, cidr))
    })
}

/// Whether only single addresses of load balancers are announced.
pub(crate) fn only_single(cluster: &BGPConfigurationSpec) -> bool {
    cluster.service_load_balancer_aggregation == Switch::Disabled
}

pub(crate) fn width(cidr: Cidr) -> u8 {
    cidr.family().width()
}

/// Marks blocks of the node.
pub const TAG_BLOCK: u32 = 1;
/// Marks single addresses of the node's endpoints.
pub const TAG_HOST: u32 = 2;
/// Marks ranges of services.
pub const TAG_SERVICE: u32 = 3;

/// The label of nodes that take no traffic for load balancers.
const EXCLUDE_FROM_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const CLUSTER_ADDRESSES: &str = "serviceClusterIPs";
/// The list of load balancers' ranges.
pub(crate) const LOAD_BALANCERS: &str = "serviceLoadBalancerIPs";
