//! Tunnels: which devices there should be, and by which way a destination is reached.

use ipnetwork::IpNetwork;
use margay_model::resource::pool::EncapMode;
use margay_model::{Cidr, Family};
use margay_route::{FdbEntry, NextHop, VXLAN_V4, VXLAN_V6, Vxlan, vtep_mac};

use super::Local;
use crate::mtu::Mtus;
use crate::state::{NodeAddresses, Pool, Settings, State};

/// How packets to another node's workloads travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carriage<'s> {
    /// As they are.
    Plain,
    /// In VXLAN.
    Vxlan,
    /// In IP-in-IP, as this pool asks.
    Ipip(&'s str),
}

/// The other end of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Far {
    /// The way into the tunnel.
    pub(super) hop: NextHop,
    /// Where the device sends frames for the other end.
    pub(super) entry: FdbEntry,
}

/// How packets for `destination`, of node `far`, travel from node `own`: as the pool that holds the
/// destination asks. Nodes are of one subnet when the far one's address is in the own one's network.
pub(super) fn carriage<'s>(
    state: &'s State,
    destination: Cidr,
    own: Option<IpNetwork>,
    far: Option<IpNetwork>,
) -> Carriage<'s> {
    let address = destination.address();
    let holds = |pool: &&Pool| pool.cidr.contains(address);
    let pools = state.pools().iter().filter(|(_, pool)| holds(pool));
    let Some((name, pool)) = pools.max_by_key(|(_, pool)| pool.cidr.length()) else {
        return Carriage::Plain;
    };
    let near = matches!((own, far), (Some(own), Some(far)) if own.contains(far.ip()));
    let asked = |mode: EncapMode| match mode {
        EncapMode::Never => false,
        EncapMode::Always => true,
        EncapMode::CrossSubnet => !near,
    };
    if asked(pool.vxlan) {
        Carriage::Vxlan
    } else if asked(pool.ipip) {
        Carriage::Ipip(name)
    } else {
        Carriage::Plain
    }
}

/// The devices that this node should have: one of each family that a pool asks for, once the node's
/// record says the device's address and an interface bears the node's own.
pub(super) fn devices(
    state: &State,
    settings: &Settings,
    local: &Local,
    mtus: Option<Mtus>,
) -> Vec<Vxlan> {
    let families = [Family::V4, Family::V6].into_iter();
    families
        .filter_map(|family| device(state, settings, local, mtus?, family))
        .collect()
}

/// Whether there are tunnels of a family.
pub(super) fn wanted(state: &State, settings: &Settings, family: Family) -> bool {
    let mut pools = state.pools().values();
    settings.vxlan.enabled
        && (family == Family::V4 || settings.ipv6)
        && pools.any(|pool| pool.tunnels() && pool.cidr.family() == family)
}

/// The way to the other end of a tunnel; why there is none.
pub(super) fn towards(
    devices: &[Vxlan],
    name: &str,
    node: &NodeAddresses,
    family: Family,
) -> Result<Far, String> {
    let Some(device) = devices
        .iter()
        .find(|vxlan| vxlan.name == device_name(family))
    else {
        return Err(format!(
            "this node has no {} device yet: its record has no address for it, or no interface \
             bears the node's own {family} address",
            device_name(family)
        ));
    };
    let Some(address) = node.of(family) else {
        return Err(format!("its record has no {family} address"));
    };
    let end = node.tunnel(family);
    let Some(gateway) = end.address else {
        return Err(format!(
            "its record has no address for {}: no agent runs there, or none has been assigned",
            device.name
        ));
    };
    let ipv4 = family == Family::V4;
    Ok(Far {
        hop: NextHop {
            gateway: Some(gateway),
            interface: device.name.clone(),
            onlink: true,
            weight: 1,
        },
        entry: FdbEntry {
            interface: device.name.clone(),
            mac: end.mac.unwrap_or_else(|| vtep_mac(name, ipv4)),
            destination: address,
        },
    })
}

/// The name of a family's device.
pub(super) fn device_name(family: Family) -> &'static str {
    match family {
        Family::V4 => VXLAN_V4,
        Family::V6 => VXLAN_V6,
    }
}

fn device(
    state: &State,
    settings: &Settings,
    local: &Local,
    mtus: Mtus,
    family: Family,
) -> Option<Vxlan> {
    if !wanted(state, settings, family) {
        return None;
    }
    let node = state.nodes().get(state.node())?;
    let own = node.of(family)?;
    let end = node.tunnel(family);
    let bears = |address: &IpNetwork| address.ip() == own;
    let mut uplinks = local.uplinks.iter();
    let parent = uplinks.find(|uplink| uplink.addresses.iter().any(bears))?;
    let ipv4 = family == Family::V4;
    Some(Vxlan {
        name: device_name(family).to_owned(),
        vni: settings.vxlan.vni,
        port: settings.vxlan.port,
        parent: parent.name.clone(),
        local: own,
        mac: end.mac.unwrap_or_else(|| vtep_mac(state.node(), ipv4)),
        mtu: if ipv4 { mtus.vxlan_v4 } else { mtus.vxlan_v6 },
        address: end.address?,
    })
}
