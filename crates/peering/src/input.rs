//! What the datastore says of BGP, as far as it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_bgp::Password;
use margay_model::resource::bgp::{BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, SecretKeyRef};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use crate::{AS_NUMBER, DEFAULT_PORT};

/// What the datastore says, and the node for which it is asked.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The node.
    pub node: &'a str,
    /// All nodes by name.
    pub nodes: &'a BTreeMap<String, Node>,
    /// BGPConfigurations by name: `default`, and `node.<node>`.
    pub configurations: &'a BTreeMap<String, BGPConfigurationSpec>,
    /// BGPPeers by name.
    pub peers: &'a BTreeMap<String, BGPPeerSpec>,
    /// BGPFilters by name.
    pub filters: &'a BTreeMap<String, BGPFilterSpec>,
    /// Address pools.
    pub pools: &'a [Pool],
    /// Blocks with the node that each belongs to.
    pub blocks: &'a BTreeMap<Cidr, String>,
    /// Addresses that a node uses out of another's block.
    pub borrowed: &'a BTreeMap<IpAddr, String>,
    /// This node's endpoints by name.
    pub endpoints: &'a BTreeMap<String, Endpoint>,
    /// Passwords by reference; an error is the reason in words.
    pub passwords: &'a dyn Fn(&SecretKeyRef) -> Result<Password, String>,
}

/// A node as far as BGP goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// Its AS number, where it differs from the cluster's.
    pub as_number: Option<AsNumber>,
    /// The cluster for which it reflects routes; `None` if it does not.
    pub cluster_id: Option<Ipv4Addr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A pool as far as BGP goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its prefix.
    pub cidr: Cidr,
    /// Whether its routes are announced.
    pub export: bool,
}

/// An endpoint of this node as far as BGP goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// The interface that leads to it.
    pub interface: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Its address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }

    /// Its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| self.address(family))
    }
}

impl<'a> Input<'a> {
    /// The cluster's configuration.
    pub(crate) fn configuration(&self) -> Option<&'a BGPConfigurationSpec> {
        self.configurations.get(DEFAULT)
    }

    /// A node's own configuration.
    pub(crate) fn configuration_of(&self, node: &str) -> Option<&'a BGPConfigurationSpec> {
        self.configurations.get(&format!("{OF_NODE}{node}"))
    }

    /// The AS number of a node.
    pub(crate) fn as_number(&self, node: &Node) -> AsNumber {
        let cluster = self.configuration().and_then(|cluster| cluster.as_number);
        node.as_number.or(cluster).unwrap_or(AS_NUMBER)
    }

    /// The port on which a node awaits connections.
    pub(crate) fn listen_port(&self, node: &str) -> u16 {
        let told = |spec: Option<&BGPConfigurationSpec>| {
            spec.and_then(|spec| spec.listen_port)
                .filter(|port| *port > 0)
        };
        told(self.configuration_of(node))
            .or_else(|| told(self.configuration()))
            .unwrap_or(DEFAULT_PORT)
    }

    /// The node that has an address.
    pub(crate) fn node_at(&self, address: IpAddr) -> Option<(&'a str, &'a Node)> {
        self.nodes
            .iter()
            .find(|(_, node)| node.addresses().any(|own| own == address))
            .map(|(name, node)| (name.as_str(), node))
    }
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("node", &self.node)
            .field("nodes", &self.nodes)
            .field("configurations", &self.configurations)
            .field("peers", &self.peers)
            .field("filters", &self.filters)
            .field("pools", &self.pools)
            .field("blocks", &self.blocks)
            .field("borrowed", &self.borrowed)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// The name of the cluster's configuration.
pub(crate) const DEFAULT: &str = "default";
/// How the names of nodes' configurations begin.
pub(crate) const OF_NODE: &str = "node.";
