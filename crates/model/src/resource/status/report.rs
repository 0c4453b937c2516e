//! What a report on a node contains.

use serde::{Deserialize, Serialize};

use crate::json::{Extra, null_is_default};

words! {
    /// How a routing daemon is.
    pub enum DaemonState {
        /// It works.
        Ready = "Ready",
        /// It does not.
        NotReady = "NotReady",
    }
}

words! {
    /// Why there is a session.
    pub enum PeerKind {
        /// All nodes peer with each other.
        NodeMesh = "NodeMesh",
        /// A `BGPPeer` for some nodes.
        NodePeer = "NodePeer",
        /// A `BGPPeer` for all nodes.
        GlobalPeer = "GlobalPeer",
    }
}

words! {
    /// The state of a session (RFC 4271 section 8.2.2).
    #[expect(missing_docs, reason = "each variant is the state of that name")]
    pub enum SessionState {
        Idle = "Idle",
        Connect = "Connect",
        Active = "Active",
        OpenSent = "OpenSent",
        OpenConfirm = "OpenConfirm",
        Established = "Established",
        Close = "Close",
    }
}

words! {
    /// Whether a route is in use.
    pub enum RouteKind {
        /// The kernel forwards by it.
        Fib = "FIB",
        /// It is known only.
        Rib = "RIB",
    }
}

words! {
    /// Where a route was learned.
    pub enum RouteSource {
        /// From the kernel.
        Kernel = "Kernel",
        /// From the daemon's configuration.
        Static = "Static",
        /// From an interface.
        Direct = "Direct",
        /// From another node of the mesh.
        NodeMesh = "NodeMesh",
        /// From another peer.
        BGPPeer = "BGPPeer",
    }
}

/// A report on a node: the status of a `CalicoNodeStatus`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeReport {
    /// When the report was made, RFC 3339, UTC.
    pub last_updated: Option<String>,
    /// The state of the routing daemon.
    pub agent: AgentStatus,
    /// Its sessions.
    pub bgp: BgpStatus,
    /// Its routes.
    pub routes: RoutesStatus,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The state of the routing daemon, per family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentStatus {
    /// For IPv4.
    #[serde(rename = "birdV4")]
    pub v4: DaemonStatus,
    /// For IPv6.
    #[serde(rename = "birdV6")]
    pub v6: DaemonStatus,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The node's sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BgpStatus {
    /// IPv4 sessions that are established.
    #[serde(rename = "numberEstablishedV4")]
    pub established_v4: u32,
    /// IPv4 sessions that are not.
    #[serde(rename = "numberNotEstablishedV4")]
    pub not_established_v4: u32,
    /// IPv6 sessions that are established.
    #[serde(rename = "numberEstablishedV6")]
    pub established_v6: u32,
    /// IPv6 sessions that are not.
    #[serde(rename = "numberNotEstablishedV6")]
    pub not_established_v6: u32,
    /// IPv4 sessions.
    #[serde(
        rename = "peersV4",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub peers_v4: Vec<PeerStatus>,
    /// IPv6 sessions.
    #[serde(
        rename = "peersV6",
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub peers_v6: Vec<PeerStatus>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

object! {
    /// The node's routes.
    pub struct RoutesStatus {
        /// IPv4 routes.
        "routesV4" => pub v4: Vec<RouteStatus>,
        /// IPv6 routes.
        "routesV6" => pub v6: Vec<RouteStatus>,
    }
}

object! {
    /// The state of a routing daemon.
    pub struct DaemonStatus {
        /// How it is.
        "state" => pub state: DaemonState,
        /// Its version.
        "version" => pub version: String,
        /// Its router id.
        "routerID" => pub router_id: String,
        /// When it started.
        "lastBootTime" => pub last_boot_time: String,
        /// When it last read its configuration.
        "lastReconfigurationTime" => pub last_reconfiguration_time: String,
    }
}

object! {
    /// A session.
    pub struct PeerStatus {
        /// The peer's address.
        "peerIP" => pub peer_ip: String,
        /// Why there is a session.
        "type" => pub kind: PeerKind,
        /// Its state.
        "state" => pub state: SessionState,
        /// When the state began.
        "since" => pub since: String,
    }
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteStatus {
    /// Whether it is in use.
    #[serde(rename = "type")]
    pub kind: RouteKind,
    /// The prefix it leads to.
    pub destination: String,
    /// The next router.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// The interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Where it was learned.
    #[serde(rename = "learnedFrom")]
    pub learned_from: LearnedFrom,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

object! {
    /// Where a route was learned.
    pub struct LearnedFrom {
        /// From what.
        "sourceType" => pub source_type: RouteSource,
        /// The peer's address, where it was one.
        "peerIP" => pub peer_ip: String,
    }
}
