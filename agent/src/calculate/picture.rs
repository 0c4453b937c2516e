//! The result of a calculation, and its words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_endpoint::Sysctl;
use margay_model::{Cidr, Key};
use margay_route::{Desired, Route, RouteKey, Vxlan};

use crate::state::Endpoint;

/// What should be, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Routes, neighbours and forwarding entries.
    pub desired: Desired,
    /// Destinations of routes that BGP peers announced.
    pub learned: BTreeSet<IpNetwork>,
    /// Routes that BGP peers announced and another program keeps in the kernel.
    pub elsewhere: Vec<Route>,
    /// Destinations that are reached by encapsulation, or not at all.
    pub encapsulated: BTreeSet<Cidr>,
    /// Prefixes that BGP peers announced whose next hops nothing leads to, with those.
    pub unresolved: BTreeMap<Cidr, Vec<IpAddr>>,
    /// Devices of tunnels.
    pub devices: Vec<Vxlan>,
    /// The workloads' MTU in bytes; `None` where nothing is known of it.
    pub mtu: Option<u32>,
    /// Addresses that the node presents to workloads with which it has BGP sessions, by interface.
    pub presented: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Why each route is wanted.
    pub sources: BTreeMap<RouteKey, Source>,
    /// Settings of workloads' interfaces, by interface.
    pub settings: BTreeMap<String, Vec<Sysctl>>,
    /// Settings of the machine.
    pub host_settings: Vec<Sysctl>,
    /// This node's endpoints.
    pub endpoints: BTreeMap<Key, Placed>,
    /// Nodes whose workloads cannot be reached from here.
    pub unreachable: Vec<Unreachable>,
    /// What people should look at.
    pub problems: BTreeSet<Problem>,
}

/// Why a route is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An endpoint of this node.
    Endpoint(String),
    /// A block of this node.
    OwnBlock,
    /// A block of another node.
    Block {
        /// The node.
        node: String,
        /// Whether packets go through a tunnel.
        tunnel: bool,
    },
    /// An address in use by a node other than its block's.
    Borrowed {
        /// Who uses it.
        node: String,
        /// Where it comes from.
        block: Cidr,
        /// Whether packets go through a tunnel.
        tunnel: bool,
    },
    /// So that the machine answers for the workloads' gateway.
    Gateway,
    /// A BGP peer announced it.
    Bgp {
        /// The peer's name.
        peer: String,
    },
    /// It leads to a BGP peer that is on no common link.
    PeerGateway,
}

/// Where the agent knows a route from. An earlier one wins over a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// From this node's own endpoints and blocks.
    Own,
    /// From the datastore: the other node is on a common link.
    Store,
    /// From the datastore: the other node is at the other end of a VXLAN tunnel.
    Vxlan,
    /// From a BGP peer.
    Bgp,
}

impl Origin {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Store => "store",
            Self::Vxlan => "vxlan",
            Self::Bgp => "bgp",
        }
    }
}

impl Source {
    /// A block of another node, reached without a tunnel.
    pub fn block(node: &str) -> Self {
        Self::Block {
            node: node.to_owned(),
            tunnel: false,
        }
    }

    /// The same through a tunnel.
    #[must_use]
    pub(super) fn tunnelled(mut self) -> Self {
        if let Self::Block { tunnel, .. } | Self::Borrowed { tunnel, .. } = &mut self {
            *tunnel = true;
        }
        self
    }

    /// Where the agent knows the route from.
    pub fn origin(&self) -> Origin {
        match self {
            Self::Endpoint(_) | Self::OwnBlock | Self::Gateway => Origin::Own,
            Self::PeerGateway => Origin::Store,
            Self::Bgp { .. } => Origin::Bgp,
            Self::Block { tunnel: false, .. } | Self::Borrowed { tunnel: false, .. } => {
                Origin::Store
            }
            Self::Block { tunnel: true, .. } | Self::Borrowed { tunnel: true, .. } => Origin::Vxlan,
        }
    }
}

/// What becomes of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its routes; empty where there are none to be made.
    pub routes: Vec<RouteKey>,
    /// Why it has no routes, or not all.
    pub hindrance: Option<Hindrance>,
}

/// Why an endpoint has no routes, or not all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// Its interface is missing or down.
    InterfaceDown(String),
    /// It has no address that is handled.
    NoAddress,
    /// Its interface is none of ours.
    ForeignInterface(String),
    /// Another endpoint has its address.
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The other endpoint.
        holder: String,
    },
    /// The kernel could not hold what its record asks.
    Impossible,
}

impl Hindrance {
    /// Whether somebody has to do something, rather than wait.
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::InterfaceDown(_) | Self::NoAddress)
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterfaceDown(interface) => write!(f, "waiting for {interface} to come up"),
            Self::NoAddress => f.write_str("it has no address"),
            Self::ForeignInterface(interface) => {
                write!(f, "{interface} is not the name of a workload's interface")
            }
            Self::AddressTaken { address, holder } => write!(f, "{holder} has {address} too"),
            Self::Impossible => f.write_str("its record makes no endpoint"),
        }
    }
}

/// A node that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unreachable {
    /// Its name.
    pub node: String,
    /// What of it lies in the dark.
    pub destinations: Vec<Cidr>,
    /// Why.
    pub reason: String,
}

/// Something that people should look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Two endpoints of this node claim one address.
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
        /// Who does not get it.
        other: String,
    },
    /// An endpoint of this node has an address that its block gives to another node.
    AddressElsewhere {
        /// The address.
        address: IpAddr,
        /// The endpoint here.
        endpoint: String,
        /// The node there.
        node: String,
    },
    /// An endpoint's interface is none of ours.
    ForeignInterface {
        /// The endpoint.
        endpoint: String,
        /// Its interface.
        interface: String,
    },
    /// The node's recorded address is not the machine's.
    AddressGone {
        /// The address.
        address: IpAddr,
    },
    /// The node's record is gone.
    Unregistered,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        write!(
            f,
            "{}/{}/{}/{}",
            name.orchestrator, self.namespace, name.workload, name.endpoint
        )
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::OwnBlock => f.write_str("block of this node"),
            Self::Block { node, .. } => write!(f, "block of node {node}"),
            Self::Borrowed { node, block, .. } => {
                write!(f, "address of block {block} in use by node {node}")
            }
            Self::Gateway => f.write_str("gateway of the workloads, which no other route leads to"),
            Self::Bgp { peer } => write!(f, "announced by {peer}"),
            Self::PeerGateway => f.write_str("BGP peer, by the gateway in reachableBy"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressTwice {
                address,
                holder,
                other,
            } => write!(
                f,
                "endpoints {holder} and {other} both have {address}; only the first is routed. Delete one of them"
            ),
            Self::AddressElsewhere {
                address,
                endpoint,
                node,
            } => write!(
                f,
                "endpoint {endpoint} of this node has {address}, which its block gives to node {node}. \
                 Delete the endpoint that should not have it"
            ),
            Self::ForeignInterface {
                endpoint,
                interface,
            } => write!(
                f,
                "endpoint {endpoint} is on {interface}, whose name has none of the prefixes in \
                 FELIX_INTERFACEPREFIX; it is left alone"
            ),
            Self::AddressGone { address } => write!(
                f,
                "the node's recorded address {address} is on no interface of this machine, so other nodes \
                 do not reach its workloads; restart the agent to choose another"
            ),
            Self::Unregistered => f.write_str(
                "the record of this node is gone from the datastore, so other nodes do not reach its \
                 workloads; restart the agent to register it again, or stop it",
            ),
        }
    }
}
