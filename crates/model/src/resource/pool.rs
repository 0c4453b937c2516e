//! Address pools and reservations.

use serde::{Deserialize, Serialize};

use super::{Resource, Spec};
use crate::cidr::{Cidr, Family};
use crate::json::{Extra, is_false};
use crate::kind::Kind;
use crate::metadata::Metadata;

/// An address pool.
pub type IPPool = Resource<IPPoolSpec>;

/// Addresses that are never assigned automatically.
pub type IPReservation = Resource<IPReservationSpec>;

/// Specification of an [`IPPool`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolSpec {
    /// The pool's prefix.
    #[serde(default)]
    pub cidr: String,
    /// VXLAN encapsulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<EncapMode>,
    /// IP-in-IP encapsulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipip_mode: Option<EncapMode>,
    /// Whether traffic from the pool to addresses outside all pools is masqueraded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nat_outgoing: bool,
    /// Whether the pool gives no new addresses.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Whether the pool's routes are kept from BGP peers.
    #[serde(rename = "disableBGPExport", default, skip_serializing_if = "is_false")]
    pub disable_bgp_export: bool,
    /// Prefix length of the pool's blocks: 20–32 (IPv4), 116–128 (IPv6); default 26 and 122.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Nodes that may claim blocks of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<String>,
    /// Namespaces whose workloads may use the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<String>,
    /// What addresses may be used for.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub allowed_uses: Vec<AllowedUse>,
    /// Whether the pool is used without being asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<AssignmentMode>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// When a pool's traffic is encapsulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncapMode {
    /// Never.
    #[default]
    Never,
    /// Always.
    Always,
    /// Only between nodes of different subnets.
    CrossSubnet,
}

/// What a pool's addresses are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowedUse {
    /// Pods and virtual machines.
    Workload,
    /// The nodes' tunnel devices.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

/// Whether a pool is used without being asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssignmentMode {
    /// Used for every workload its selectors admit.
    #[default]
    Automatic,
    /// Used only by name or prefix.
    Manual,
}

/// Specification of an [`IPReservation`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IPReservationSpec {
    /// Prefixes or addresses of either family.
    #[serde(
        rename = "reservedCIDRs",
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub reserved_cidrs: Vec<String>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Prefix length of a pool's blocks where the pool says nothing.
pub fn default_block_size(family: Family) -> u8 {
    match family {
        Family::V4 => 26,
        Family::V6 => 122,
    }
}

impl IPPoolSpec {
    /// The pool's prefix, when it is one whose host bits are zero.
    fn masked_cidr(&self) -> Option<Cidr> {
        let (address, length) = self.cidr.split_once('/')?;
        let address = address.parse().ok()?;
        let cidr = Cidr::new(address, length.parse().ok()?)?;
        (cidr.address() == address).then_some(cidr)
    }
}

impl Spec for IPPoolSpec {
    const KIND: Kind = Kind::IPPool;

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        if let Some(cidr) = spec.masked_cidr() {
            spec.cidr = cidr.to_string();
            spec.block_size
                .get_or_insert(default_block_size(cidr.family()));
        }
        spec.vxlan_mode.get_or_insert(EncapMode::Never);
        spec.ipip_mode.get_or_insert(EncapMode::Never);
        if spec.node_selector.as_deref().is_none_or(str::is_empty) {
            spec.node_selector = Some("all()".to_owned());
        }
        if spec.allowed_uses.is_empty() {
            spec.allowed_uses = vec![AllowedUse::Workload, AllowedUse::Tunnel];
        }
        spec.assignment_mode
            .get_or_insert(AssignmentMode::Automatic);
    }
}

impl Spec for IPReservationSpec {
    const KIND: Kind = Kind::IPReservation;
}
