//! Address pools and reservations.

use std::fmt;

use margay_selector::GlobalUse;
use serde::{Deserialize, Serialize};

use super::{Resource, Spec};
use crate::cidr::{Cidr, Family};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

/// An address pool.
pub type IPPool = Resource<IPPoolSpec>;

/// Addresses that are never assigned automatically.
pub type IPReservation = Resource<IPReservationSpec>;

object! {
    /// Specification of an [`IPPool`].
    pub struct IPPoolSpec {
        /// The pool's prefix.
        "cidr" => pub cidr: String,
        /// VXLAN encapsulation.
        "vxlanMode" => pub vxlan_mode: Option<EncapMode>,
        /// IP-in-IP encapsulation.
        "ipipMode" => pub ipip_mode: Option<EncapMode>,
        /// Whether traffic from the pool to addresses outside all pools is masqueraded.
        "natOutgoing" => pub nat_outgoing: bool,
        /// Whether the pool gives no new addresses.
        "disabled" => pub disabled: bool,
        /// Whether the pool's routes are kept from BGP peers.
        "disableBGPExport" => pub disable_bgp_export: bool,
        /// Prefix length of the pool's blocks: 20–32 (IPv4), 116–128 (IPv6); default 26 and 122.
        "blockSize" => pub block_size: Option<u8>,
        /// Nodes that may claim blocks of the pool.
        "nodeSelector" => pub node_selector: Option<String>,
        /// Namespaces whose workloads may use the pool.
        "namespaceSelector" => pub namespace_selector: Option<String>,
        /// What addresses may be used for.
        "allowedUses" => pub allowed_uses: Vec<AllowedUse>,
        /// Whether the pool is used without being asked for.
        "assignmentMode" => pub assignment_mode: Option<AssignmentMode>,
    }
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

object! {
    /// Specification of an [`IPReservation`].
    pub struct IPReservationSpec {
        /// Prefixes or addresses of either family.
        "reservedCIDRs" => pub reserved_cidrs: Vec<String>,
    }
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

    fn fits(&self, cidr: Cidr, problems: &mut Problems) {
        let family = cidr.family();
        for reserved in link_local() {
            if cidr.overlaps(&reserved) {
                let allowed = format!("a prefix outside the link-local range {reserved}");
                problems.refuse_field("cidr", cidr, allowed);
            }
        }
        let (least, most) = match family {
            Family::V4 => (20, 32),
            Family::V6 => (116, 128),
        };
        let size = self
            .block_size
            .unwrap_or_else(|| default_block_size(family));
        problems.range("blockSize", Some(size), least..=most);
        if cidr.length() > size && !self.disabled {
            let least = cidr.length();
            let allowed = format!("{least} or more: a block lies within its pool");
            problems.refuse_field("blockSize", size, allowed);
        }
        let ipip = self.ipip_mode.unwrap_or_default();
        let fits = family == Family::V4 || ipip == EncapMode::Never;
        problems.require(fits, "ipipMode", ipip, "Never in an IPv6 pool");
    }

    fn fits_load_balancers(&self, problems: &mut Problems) {
        let alone = self
            .allowed_uses
            .iter()
            .all(|allowed| *allowed == AllowedUse::LoadBalancer);
        problems.require(
            alone,
            "allowedUses",
            "LoadBalancer",
            "LoadBalancer alone, or others",
        );
        for (name, mode) in [("vxlanMode", self.vxlan_mode), ("ipipMode", self.ipip_mode)] {
            let mode = mode.unwrap_or_default();
            problems.require(
                mode == EncapMode::Never,
                name,
                mode,
                "Never for load balancers",
            );
        }
        let export = self.disable_bgp_export;
        problems.require(
            !export,
            "disableBGPExport",
            export,
            "false for load balancers",
        );
        let selector = self.node_selector.as_deref().unwrap_or("all()");
        problems.require(
            selector == "all()",
            "nodeSelector",
            selector,
            "all() for load balancers",
        );
    }
}

/// The first pool that shares an address with the prefix, other than the pool of this name.
pub fn overlapping<'a>(
    name: &str,
    cidr: Cidr,
    pools: impl IntoIterator<Item = &'a IPPool>,
) -> Option<&'a IPPool> {
    pools.into_iter().find(|pool| {
        let other = pool.spec.cidr.parse::<Cidr>();
        pool.metadata.name != name && other.is_ok_and(|other| other.overlaps(&cidr))
    })
}

/// The ranges of link-local addresses (RFC 3927, RFC 4291), which no pool may share an address with.
fn link_local() -> impl Iterator<Item = Cidr> {
    ["169.254.0.0/16", "fe80::/10"]
        .into_iter()
        .filter_map(|text| text.parse().ok())
}

impl fmt::Display for EncapMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Never => "Never",
            Self::Always => "Always",
            Self::CrossSubnet => "CrossSubnet",
        })
    }
}

impl Spec for IPPoolSpec {
    const KIND: Kind = Kind::IPPool;

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        if let Some(cidr) = spec.masked_cidr() {
            spec.cidr = cidr.to_string();
            spec.block_size
                .get_or_insert_with(|| default_block_size(cidr.family()));
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

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        match spec.masked_cidr() {
            Some(cidr) => spec.fits(cidr, problems),
            None => problems.refuse_field(
                "cidr",
                &spec.cidr,
                "a prefix whose host bits are zero, such as 10.0.0.0/16 or fd00::/64",
            ),
        }
        let vxlan = spec.vxlan_mode.unwrap_or_default();
        let ipip = spec.ipip_mode.unwrap_or_default();
        if vxlan != EncapMode::Never && ipip != EncapMode::Never {
            problems.refuse_field("ipipMode", ipip, "Never where vxlanMode is another");
        }
        let node_selector = spec.node_selector.as_deref().unwrap_or_default();
        problems.selector("nodeSelector", node_selector, GlobalUse::Forbidden);
        let namespaces = spec.namespace_selector.as_deref().unwrap_or_default();
        problems.selector("namespaceSelector", namespaces, GlobalUse::Forbidden);
        if !namespaces.is_empty() && spec.allowed_uses.contains(&AllowedUse::Tunnel) {
            let allowed = "none where allowedUses has Tunnel";
            problems.refuse_field("namespaceSelector", namespaces, allowed);
        }
        if spec.allowed_uses.contains(&AllowedUse::LoadBalancer) {
            spec.fits_load_balancers(problems);
        }
    }

    fn validate_update(old: &Self, new: &Self, problems: &mut Problems) {
        match (old.cidr.parse::<Cidr>(), new.cidr.parse::<Cidr>()) {
            (Ok(old), Ok(new)) => problems.unchanged("cidr", &old, &new),
            _ => problems.unchanged("cidr", &old.cidr, &new.cidr),
        }
        let size = |spec: &Self| {
            let cidr = spec.cidr.parse::<Cidr>().ok();
            spec.block_size
                .or_else(|| cidr.map(|cidr| default_block_size(cidr.family())))
        };
        problems.unchanged("blockSize", &size(old), &size(new));
        let balances = |spec: &Self| spec.allowed_uses.contains(&AllowedUse::LoadBalancer);
        if balances(old) && !balances(new) {
            let allowed = "LoadBalancer: a pool for load balancers stays one";
            problems.refuse_field("allowedUses", "others", allowed);
        }
    }
}

impl Spec for IPReservationSpec {
    const KIND: Kind = Kind::IPReservation;

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        problems.items("reservedCIDRs", &spec.reserved_cidrs, |problems, cidr| {
            problems.cidr_here(cidr);
        });
    }
}
