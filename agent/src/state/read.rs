//! From stored values to what matters of them, with the reason where they make no sense.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use margay_endpoint::is_valid_interface_name;
use margay_endpoint::shaping::Bandwidth;
use margay_ipam_core::block::allocated;
use margay_model::key::Owner;
use margay_model::names::EndpointName;
use margay_model::resource::cluster::NodeSpec;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::resource::pool::{AllowedUse, IPPool};
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, Key, Resource, ipam};
use margay_selector::Selector;
use margay_store::{Entry, Revision};

use super::{Attachment, Block, Endpoint, NodeAddresses, Pool, TunnelEnd};

pub(super) fn node(value: &[u8]) -> Result<NodeAddresses, String> {
    let node: Resource<NodeSpec> = Resource::decode(value).map_err(text)?;
    let spec = node.spec;
    let bgp = spec.bgp.unwrap_or_default();
    Ok(NodeAddresses {
        v4: node_address("ipv4Address", bgp.ipv4_address, Family::V4)?,
        v6: node_address("ipv6Address", bgp.ipv6_address, Family::V6)?,
        tunnel_v4: TunnelEnd {
            address: parsed("ipv4VXLANTunnelAddr", spec.ipv4_vxlan_tunnel_addr)?
                .map(|v4: Ipv4Addr| IpAddr::V4(v4)),
            mac: parsed("vxlanTunnelMACAddr", spec.vxlan_tunnel_mac_addr)?,
        },
        tunnel_v6: TunnelEnd {
            address: parsed("ipv6VXLANTunnelAddr", spec.ipv6_vxlan_tunnel_addr)?
                .map(|v6: Ipv6Addr| IpAddr::V6(v6)),
            mac: parsed("vxlanTunnelMACAddrV6", spec.vxlan_tunnel_mac_addr_v6)?,
        },
        labels: node.metadata.labels,
        as_number: match bgp.as_number {
            None => None,
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| format!("spec.bgp.asNumber {value} is no AS number"))?,
        },
        cluster_id: parsed(
            "bgp.routeReflectorClusterID",
            bgp.route_reflector_cluster_id,
        )?,
    })
}

fn parsed<T>(field: &str, value: Option<String>) -> Result<Option<T>, String>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    match value.filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value
            .parse()
            .map(Some)
            .map_err(|error| format!("spec.{field} {value:?}: {error}")),
    }
}

fn node_address(
    field: &str,
    value: Option<String>,
    family: Family,
) -> Result<Option<IpNetwork>, String> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.parse::<IpNetwork>() {
        Ok(network) if Family::of(network.ip()) == family => Ok(Some(network)),
        _ => Err(format!("spec.bgp.{field} {value:?} is no {family} address")),
    }
}

pub(super) fn pool(value: &[u8]) -> Result<Pool, String> {
    let pool = IPPool::decode(value).map_err(text)?;
    let cidr = pool
        .spec
        .cidr
        .parse()
        .map_err(|error| format!("spec.cidr: {error}"))?;
    let uses = &pool.spec.allowed_uses;
    let nodes = match pool.spec.node_selector.as_deref() {
        None => None,
        Some(selector) => {
            let selector = Selector::parse(selector)
                .map_err(|error| format!("spec.nodeSelector {selector:?}: {error}"))?;
            (!selector.is_all()).then_some(selector)
        }
    };
    Ok(Pool {
        cidr,
        ipip: pool.spec.ipip_mode.unwrap_or_default(),
        vxlan: pool.spec.vxlan_mode.unwrap_or_default(),
        for_tunnels: !pool.spec.disabled && (uses.is_empty() || uses.contains(&AllowedUse::Tunnel)),
        nodes,
        export: !pool.spec.disable_bgp_export,
        nat_outgoing: pool.spec.nat_outgoing,
    })
}

pub(super) fn block(cidr: Cidr, value: &[u8]) -> Result<Block, String> {
    let block: ipam::Block = serde_json::from_slice(value).map_err(text)?;
    if block.cidr != cidr {
        return Err(format!("it calls itself {}", block.cidr));
    }
    if block.allocations.len() as u128 > cidr.size() {
        return Err(format!("it has {} addresses", block.allocations.len()));
    }
    let owner = block.affinity.as_deref().and_then(Owner::from_affinity);
    let node = match &owner {
        Some(Owner::Host(node)) => Some(node.clone()),
        Some(Owner::Virtual(_)) | None => None,
    };
    let mut borrowed = BTreeMap::new();
    let mut used = 0;
    let in_use = allocated(&block).filter(|(_, attribute)| attribute.released_at.is_none());
    for (address, attribute) in in_use {
        used += 1;
        let user = attribute.secondary.get("node");
        if let Some(user) = user.filter(|user| Some(*user) != node.as_ref()) {
            borrowed.insert(address, user.clone());
        }
    }
    Ok(Block {
        node,
        borrowed,
        used,
    })
}

pub(super) fn endpoint(
    name: EndpointName,
    entry: &Entry,
) -> Result<(Endpoint, Option<Attachment>), String> {
    let endpoint = WorkloadEndpoint::decode(&entry.value).map_err(text)?;
    let attachment = attachment(&name, &endpoint, entry.revision);
    let labels = endpoint.metadata.labels;
    let spec = endpoint.spec;
    let interface = spec.interface_name.unwrap_or_default();
    if !is_valid_interface_name(&interface) {
        return Err(format!(
            "spec.interfaceName {interface:?} is no interface name"
        ));
    }
    let mac = match spec.mac.as_deref() {
        None | Some("") => None,
        Some(mac) => Some(mac.parse().map_err(|error| format!("spec.mac: {error}"))?),
    };
    let address = |network: &String| match network.parse::<IpNetwork>() {
        Ok(network) if is_host(&network) && is_usable(network.ip()) => Ok(network.ip()),
        _ => Err(format!("spec.ipNetworks: {network:?} is no single address")),
    };
    let addresses = spec
        .ip_networks
        .iter()
        .map(address)
        .collect::<Result<_, _>>()?;
    let namespace = match &entry.key {
        Key::Resource {
            namespace: Some(namespace),
            ..
        } => namespace.clone(),
        _ => String::new(),
    };
    let endpoint = Endpoint {
        name,
        namespace,
        interface,
        mac,
        addresses,
        labels,
        bandwidth: spec
            .qos_controls
            .as_ref()
            .map(Bandwidth::of)
            .unwrap_or_default(),
    };
    Ok((endpoint, attachment))
}

/// Whose the endpoint is; `None` where no container's plugin made it, or it does not say when.
fn attachment(
    name: &EndpointName,
    endpoint: &WorkloadEndpoint,
    revision: Revision,
) -> Option<Attachment> {
    if !matches!(name.orchestrator.as_str(), "cni" | "k8s") {
        return None;
    }
    let created = endpoint.metadata.creation_timestamp.as_deref()?;
    Some(Attachment {
        container_id: endpoint
            .spec
            .container_id
            .clone()
            .filter(|id| !id.is_empty())?,
        ifname: name.endpoint.clone(),
        created: Timestamp::parse_rfc3339(created)?,
        revision,
    })
}

fn is_host(network: &IpNetwork) -> bool {
    network.prefix() == Family::of(network.ip()).width()
}

/// Whether an address can be one workload's.
fn is_usable(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}

fn text(error: serde_json::Error) -> String {
    error.to_string()
}
