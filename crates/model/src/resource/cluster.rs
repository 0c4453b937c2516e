//! Cluster-wide objects and nodes.

use serde_json::Value;

use super::{Resource, Spec, only_default};
use crate::cidr::{Cidr, Family};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::scalar::AsNumber;
use crate::syntax::{is_dns_label, is_interface_name, is_mac};

/// What the cluster is; only one, named `default`.
pub type ClusterInformation = Resource<ClusterInformationSpec>;

/// An ordered group of policies.
pub type Tier = Resource<TierSpec>;

/// A node of the cluster.
pub type Node = Resource<NodeSpec>;

object! {
    /// Specification of [`ClusterInformation`].
    pub struct ClusterInformationSpec {
        /// 32 hexadecimal digits.
        "clusterGUID" => pub cluster_guid: Option<String>,
        /// Comma-separated set such as `k8s,bgp`.
        "clusterType" => pub cluster_type: Option<String>,
        /// Version of the software that initialised the cluster.
        "calicoVersion" => pub calico_version: Option<String>,
        /// False while the store is locked for migration: no addresses are assigned then.
        "datastoreReady" => pub datastore_ready: Option<bool>,
        /// Variant of the software.
        "variant" => pub variant: Option<String>,
    }
}

object! {
    /// Specification of a [`Tier`].
    pub struct TierSpec {
        /// Rank; absent is last.
        #[serde(serialize_with = "crate::scalar::order")]
        "order" => pub order: Option<f64>,
        /// `Deny` or `Pass`: what happens where policies of the tier apply and none decides.
        "defaultAction" => pub default_action: Option<String>,
    }
}

object! {
    /// Specification of a [`Node`].
    pub struct NodeSpec {
        /// Addresses and AS number; absent where the node has no routing.
        "bgp" => pub bgp: Option<NodeBgp>,
        /// Address of the IPv4 VXLAN device.
        "ipv4VXLANTunnelAddr" => pub ipv4_vxlan_tunnel_addr: Option<String>,
        /// MAC address of the IPv4 VXLAN device.
        "vxlanTunnelMACAddr" => pub vxlan_tunnel_mac_addr: Option<String>,
        /// Address of the IPv6 VXLAN device.
        "ipv6VXLANTunnelAddr" => pub ipv6_vxlan_tunnel_addr: Option<String>,
        /// MAC address of the IPv6 VXLAN device.
        "vxlanTunnelMACAddrV6" => pub vxlan_tunnel_mac_addr_v6: Option<String>,
        /// The node's names in orchestrators.
        "orchRefs" => pub orch_refs: Vec<OrchRef>,
        /// WireGuard addresses.
        "wireguard" => pub wireguard: Option<NodeWireguard>,
        /// The node's addresses.
        "addresses" => pub addresses: Vec<NodeAddress>,
        /// The node's interfaces.
        "interfaces" => pub interfaces: Vec<NodeInterface>,
    }
}

object! {
    /// BGP part of a node.
    pub struct NodeBgp {
        /// AS number, overriding the cluster's.
        "asNumber" => pub as_number: Option<Value>,
        /// Address and prefix length, such as `192.0.2.11/24`.
        "ipv4Address" => pub ipv4_address: Option<String>,
        /// Address and prefix length, such as `2001:db8::11/64`.
        "ipv6Address" => pub ipv6_address: Option<String>,
        /// Address of the IP-in-IP device.
        "ipv4IPIPTunnelAddr" => pub ipv4_ipip_tunnel_addr: Option<String>,
        /// Cluster id of a route reflector, a dotted quad.
        "routeReflectorClusterID" => pub route_reflector_cluster_id: Option<String>,
    }
}

object! {
    /// A node's name in an orchestrator.
    pub struct OrchRef {
        /// The name there.
        "nodeName" => pub node_name: Option<String>,
        /// The orchestrator, such as `k8s`.
        "orchestrator" => pub orchestrator: String,
    }
}

object! {
    /// An address of a node.
    pub struct NodeAddress {
        /// Address, or address and prefix length.
        "address" => pub address: String,
        /// `CalicoNodeIP`, `InternalIP` or `ExternalIP`.
        "type" => pub kind: Option<String>,
    }
}

object! {
    /// Addresses of a node's WireGuard devices.
    pub struct NodeWireguard {
        /// Address of the IPv4 device.
        "interfaceIPv4Address" => pub interface_ipv4_address: String,
        /// Address of the IPv6 device.
        "interfaceIPv6Address" => pub interface_ipv6_address: String,
    }
}

object! {
    /// An interface of a node.
    pub struct NodeInterface {
        /// The name.
        "name" => pub name: String,
        /// Its addresses, with or without a prefix length.
        "addresses" => pub addresses: Vec<String>,
    }
}

impl NodeBgp {
    fn check(&self, problems: &mut Problems) {
        if *self == Self::default() {
            problems.refuse("{}", "at least one field");
        }
        if let Some(value) = &self.as_number {
            let fits = serde_json::from_value::<AsNumber>(value.clone()).is_ok();
            problems.require(fits, "asNumber", value, "0 to 4294967295");
        }
        for (name, text, family) in [
            ("ipv4Address", &self.ipv4_address, Family::V4),
            ("ipv6Address", &self.ipv6_address, Family::V6),
        ] {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else {
                continue;
            };
            let cidr = text.parse::<Cidr>();
            let allowed = format!("an {family} address, with or without a prefix length");
            problems.require(
                cidr.is_ok_and(|c| c.family() == family),
                name,
                text,
                allowed,
            );
        }
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let tunnel = text(&self.ipv4_ipip_tunnel_addr);
        problems.address("ipv4IPIPTunnelAddr", &tunnel, Some(Family::V4));
        let cluster = text(&self.route_reflector_cluster_id);
        problems.address("routeReflectorClusterID", &cluster, Some(Family::V4));
    }
}

impl Spec for ClusterInformationSpec {
    const KIND: Kind = Kind::ClusterInformation;

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        only_default(metadata, problems);
    }
}

impl Spec for TierSpec {
    const KIND: Kind = Kind::Tier;

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        spec.order.get_or_insert(DEFAULT_TIER_ORDER);
        if spec.default_action.as_deref().is_none_or(str::is_empty) {
            spec.default_action = Some("Deny".to_owned());
        }
    }

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        let allowed = "1 to 63 of a-z, 0-9 and -, beginning and ending alphanumerically";
        let name = &metadata.name;
        problems.require(is_dns_label(name), "name", name, allowed);
    }

    fn validate(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let action = spec.default_action.as_deref().unwrap_or("Deny");
        let (allowed, order) = match metadata.name.as_str() {
            "default" => (&["Deny"][..], Some(DEFAULT_TIER_ORDER)),
            "kube-admin" | "kube-baseline" => (&["Pass"][..], None),
            _ => (&["Deny", "Pass"][..], None),
        };
        let fits = allowed.contains(&action);
        problems.require(fits, "defaultAction", action, allowed.join(", "));
        if let (Some(wanted), Some(found)) = (order, spec.order) {
            problems.require(wanted == found, "order", found, wanted.to_string());
        }
    }
}

impl Spec for NodeSpec {
    const KIND: Kind = Kind::Node;

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        if let Some(value) = spec.bgp.as_mut().and_then(|bgp| bgp.as_number.as_mut())
            && let Ok(number) = serde_json::from_value::<AsNumber>(value.clone())
        {
            *value = number.0.into();
        }
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        if let Some(bgp) = &spec.bgp {
            problems.field("bgp", |problems| bgp.check(problems));
        }
        for (name, address, family) in [
            (
                "ipv4VXLANTunnelAddr",
                &spec.ipv4_vxlan_tunnel_addr,
                Family::V4,
            ),
            (
                "ipv6VXLANTunnelAddr",
                &spec.ipv6_vxlan_tunnel_addr,
                Family::V6,
            ),
        ] {
            problems.address(name, address.as_deref().unwrap_or_default(), Some(family));
        }
        for (name, mac) in [
            ("vxlanTunnelMACAddr", &spec.vxlan_tunnel_mac_addr),
            ("vxlanTunnelMACAddrV6", &spec.vxlan_tunnel_mac_addr_v6),
        ] {
            let mac = mac.as_deref().unwrap_or_default();
            let allowed = "a MAC address such as 02:00:00:00:00:01";
            problems.require(mac.is_empty() || is_mac(mac), name, mac, allowed);
        }
        if let Some(wireguard) = &spec.wireguard {
            problems.field("wireguard", |problems| {
                let (v4, v6) = (
                    &wireguard.interface_ipv4_address,
                    &wireguard.interface_ipv6_address,
                );
                problems.address("interfaceIPv4Address", v4, Some(Family::V4));
                problems.address("interfaceIPv6Address", v6, Some(Family::V6));
            });
        }
        problems.items("interfaces", &spec.interfaces, |problems, interface| {
            let name = &interface.name;
            let allowed = "a name of at most 15 of A-Z, a-z, 0-9, _, . and -";
            problems.require(is_interface_name(name), "name", name, allowed);
            problems.items("addresses", &interface.addresses, |problems, address| {
                problems.cidr_here(address);
            });
        });
        problems.items("orchRefs", &spec.orch_refs, |problems, reference| {
            let name = &reference.orchestrator;
            problems.require(
                !name.is_empty(),
                "orchestrator",
                name,
                "the name of an orchestrator",
            );
        });
        problems.items("addresses", &spec.addresses, |problems, address| {
            problems.field("address", |problems| {
                problems.cidr_here(&address.address);
            });
            let kind = address.kind.as_deref().unwrap_or_default();
            let fits = kind.is_empty() || ADDRESS_TYPES.contains(&kind);
            problems.require(fits, "type", kind, ADDRESS_TYPES.join(", "));
        });
    }
}

/// Rank of a tier that says none.
const DEFAULT_TIER_ORDER: f64 = 1_000_000.0;

const ADDRESS_TYPES: [&str; 3] = ["CalicoNodeIP", "InternalIP", "ExternalIP"];
