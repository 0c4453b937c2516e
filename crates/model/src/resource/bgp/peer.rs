//! BGP sessions with routers and between nodes.

use crate::kind::Kind;
use crate::resource::{Resource, Spec};
use crate::scalar::{AsNumber, GoDuration};

/// Sessions of some nodes with a router, with other nodes or with workloads.
pub type BGPPeer = Resource<BGPPeerSpec>;

words! {
    /// The source address of a session.
    pub enum SourceAddress {
        /// The node's own.
        UseNodeIP = "UseNodeIP",
        /// What the kernel chooses.
        None = "None",
    }
}

words! {
    /// The next hop of announced routes.
    pub enum NextHopMode {
        /// As BGP prescribes.
        Auto = "Auto",
        /// The node itself.
        SelfHop = "Self",
        /// As it was learned.
        Keep = "Keep",
    }
}

words! {
    /// Whether nodes that are peers get the session's other half.
    pub enum ReversePeering {
        /// They do.
        Auto = "Auto",
        /// They do not.
        Manual = "Manual",
    }
}

object! {
    /// Specification of a [`BGPPeer`].
    pub struct BGPPeerSpec {
        /// The node; all nodes where neither this nor the selector is given.
        "node" => pub node: String,
        /// The nodes.
        "nodeSelector" => pub node_selector: String,
        /// The router: `192.0.2.1`, `192.0.2.1:179` or `[2001:db8::1]:179`.
        "peerIP" => pub peer_ip: String,
        /// The router's AS number.
        "asNumber" => pub as_number: Option<AsNumber>,
        /// The nodes to peer with.
        "peerSelector" => pub peer_selector: String,
        /// Whether the next hop stays as it was learned; older than `nextHopMode`.
        "keepOriginalNextHop" => pub keep_original_next_hop: bool,
        /// Password of the session.
        "password" => pub password: Option<Password>,
        /// The source address; the node's own when absent.
        "sourceAddress" => pub source_address: Option<SourceAddress>,
        /// How long routes outlive a restart; 120 s when absent.
        "maxRestartTime" => pub max_restart_time: Option<GoDuration>,
        /// How often the session's liveness is announced.
        "keepaliveTime" => pub keepalive_time: Option<GoDuration>,
        /// How often the own AS number may occur in a learned path.
        "numAllowedLocalASNumbers" => pub num_allowed_local_as_numbers: Option<i32>,
        /// Most hops to the router (RFC 5082).
        "ttlSecurity" => pub ttl_security: Option<u8>,
        /// Gateway by which the router is reached.
        "reachableBy" => pub reachable_by: String,
        /// Filters, in order.
        "filters" => pub filters: Vec<String>,
        /// The local workloads to peer with.
        "localWorkloadSelector" => pub local_workload_selector: String,
        /// Whether nodes that are peers get the session's other half.
        "reversePeering" => pub reverse_peering: Option<ReversePeering>,
        /// The next hop of announced routes.
        "nextHopMode" => pub next_hop_mode: Option<NextHopMode>,
        /// AS number of the nodes on this session.
        "localASNumber" => pub local_as_number: Option<AsNumber>,
    }
}

object! {
    /// Where a password is kept.
    pub struct Password {
        /// A key of a Kubernetes secret.
        "secretKeyRef" => pub secret_key_ref: Option<SecretKeyRef>,
    }
}

object! {
    /// A key of a Kubernetes secret.
    pub struct SecretKeyRef {
        /// The secret.
        "name" => pub name: String,
        /// The key.
        "key" => pub key: String,
        /// Whether it may be missing.
        "optional" => pub optional: Option<bool>,
    }
}

impl Spec for BGPPeerSpec {
    const KIND: Kind = Kind::BGPPeer;
}
