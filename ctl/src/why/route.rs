//! The way to the destination: pool, block, node, encapsulation and MTU.

use ipnetwork::IpNetwork;
use margay_model::resource::pool::{EncapMode, IPPoolSpec};
use margay_model::{AnyResource, Cidr, Family};
use margay_route::{VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6};
use serde::Serialize;

use super::ends::{End, node_spec};
use super::{World, setting};

/// The way to the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Route {
    /// The way, in words.
    pub way: String,
    /// The pool that has the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The block that has the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Cidr>,
    /// The node that owns the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner: Option<String>,
    /// `None`, `VXLAN` or `IPIP`.
    pub encapsulation: &'static str,
    /// Whether the source address becomes that of the node.
    pub nat_outgoing: bool,
    /// How large packets may be.
    pub mtu: Mtu,
    /// What is wrong with the way, and what the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How large packets may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mtu {
    /// Bytes that encapsulation takes.
    pub overhead: u32,
    /// What the tunnel's device is configured to, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configured: Option<u32>,
    /// The MTU of the source's workloads in bytes, where this is their node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workloads: Option<u32>,
}

impl Route {
    /// Whether packets travel inside others.
    pub(super) fn is_encapsulated(&self) -> bool {
        self.encapsulation != PLAIN
    }
}

/// The way from one end to the other.
pub(super) fn route(world: &World, source: &End, destination: &End) -> Route {
    let family = Family::of(destination.address);
    let holder = pool(world, destination);
    let block = world
        .blocks
        .iter()
        .filter(|block| !block.deleted && block.cidr.contains(destination.address))
        .max_by_key(|block| block.cidr.length());
    let block_owner = block.and_then(|block| {
        let affinity = block.affinity.as_deref()?;
        affinity.strip_prefix("host:").map(str::to_owned)
    });
    let mut route = Route {
        pool: holder.map(|(name, _)| name.to_owned()),
        block: block.map(|block| block.cidr),
        encapsulation: PLAIN,
        ..Route::default()
    };
    let workloads = world.here.as_ref();
    let here = workloads.filter(|(node, _)| source.node.as_ref() == Some(node));
    route.mtu.workloads = here.map(|(_, mtu)| *mtu);
    let near = source.node.is_some() && source.node == destination.node;
    let leaves = holder.is_none() && source.endpoint.is_some() && !near;
    route.nat_outgoing = leaves && pool(world, source).is_some_and(|(_, pool)| pool.nat_outgoing);
    let of_workload = destination.endpoint.is_some();
    route.way = match (&destination.node, of_workload) {
        (Some(node), true) if near => {
            format!("both ends are on node {node}: a route to the endpoint")
        }
        (Some(node), _) if near => format!("the node itself, {node}"),
        (Some(node), true) => {
            if let (Some(from), Some((_, spec))) = (&source.node, holder) {
                route.encapsulation = encapsulation(world, spec, from, node, family);
            }
            match (&block_owner, block) {
                (Some(owner), Some(block)) if owner == node => {
                    format!("to node {node}, by the route of block {}", block.cidr)
                }
                (Some(owner), Some(block)) => format!(
                    "to node {node}, by a route of the address's own: its block {} is of node {owner}",
                    block.cidr
                ),
                _ => {
                    route.advice = Some(format!(
                        "no block of a node has {}: look at `margayctl ipam check`",
                        destination.address
                    ));
                    format!(
                        "to node {node}, if a route leads there: no node's block has the address"
                    )
                }
            }
        }
        (Some(node), false) => format!("to node {node}, by the machine's own routes"),
        (None, _) => match (&route.pool, &block_owner) {
            (Some(pool), Some(owner)) => {
                route.advice = Some(format!(
                    "no endpoint has {}: is the workload gone? `margayctl ipam show --ip={}` tells who \
                     holds it",
                    destination.address, destination.address
                ));
                format!("to node {owner}, where no endpoint has the address (pool {pool})")
            }
            (Some(pool), None) => {
                route.advice = Some(format!("nobody has {}", destination.address));
                format!("to nowhere: no block of pool {pool} has the address")
            }
            (None, _) => "out, by the machine's own routes".to_owned(),
        },
    };
    route.block_owner = block_owner;
    route.mtu.overhead = match (route.encapsulation, family) {
        (VXLAN, Family::V4) => VXLAN_OVERHEAD_V4,
        (VXLAN, Family::V6) => VXLAN_OVERHEAD_V6,
        (IPIP, _) => IPIP_OVERHEAD,
        _ => 0,
    };
    if route.encapsulation == VXLAN {
        let field = match family {
            Family::V4 => "vxlanMTU",
            Family::V6 => "vxlanMTUV6",
        };
        let node = source.node.as_deref().unwrap_or_default();
        let configured = setting(&world.state, node, field).and_then(|value| value.as_u64());
        route.mtu.configured = configured
            .and_then(|mtu| u32::try_from(mtu).ok())
            .filter(|mtu| *mtu > 0);
    }
    route
}

/// The pool that has an end's address: of several, the one with the longest prefix.
fn pool<'w>(world: &'w World, end: &End) -> Option<(&'w str, &'w IPPoolSpec)> {
    let pools = world.state.resources.values();
    let pools = pools.filter_map(|resource| match resource {
        AnyResource::IPPool(pool) => {
            let cidr: Cidr = pool.spec.cidr.parse().ok()?;
            let holds = cidr.contains(end.address);
            holds.then_some((cidr.length(), pool.metadata.name.as_str(), &pool.spec))
        }
        _ => None,
    });
    let (_, name, spec) = pools.max_by_key(|(length, ..)| *length)?;
    Some((name, spec))
}

fn encapsulation(
    world: &World,
    pool: &IPPoolSpec,
    from: &str,
    to: &str,
    family: Family,
) -> &'static str {
    let network = |node: &str| -> Option<IpNetwork> {
        let bgp = node_spec(world, node)?.bgp.as_ref()?;
        let text = match family {
            Family::V4 => bgp.ipv4_address.as_ref(),
            Family::V6 => bgp.ipv6_address.as_ref(),
        };
        text?.parse().ok()
    };
    let near = matches!(
        (network(from), network(to)),
        (Some(from), Some(to)) if from.contains(to.ip())
    );
    let asked = |mode: Option<EncapMode>| match mode {
        None | Some(EncapMode::Never) => false,
        Some(EncapMode::Always) => true,
        Some(EncapMode::CrossSubnet) => !near,
    };
    if asked(pool.vxlan_mode) {
        VXLAN
    } else if asked(pool.ipip_mode) {
        IPIP
    } else {
        PLAIN
    }
}

const PLAIN: &str = "None";
const VXLAN: &str = "VXLAN";
const IPIP: &str = "IPIP";
/// Bytes of an IPv4 header without options (RFC 2003).
const IPIP_OVERHEAD: u32 = 20;
