//! BGP sessions with routers and between nodes.

use std::net::{IpAddr, SocketAddr};

use margay_selector::GlobalUse;

use crate::cidr::Family;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::resource::{Resource, Spec};
use crate::scalar::{AsNumber, GoDuration};
use crate::syntax::is_dns_subdomain;

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

impl BGPPeerSpec {
    /// The router's address, and its port where one is given; `None` where `peerIP` is neither.
    pub fn peer_address(&self) -> Option<(IpAddr, Option<u16>)> {
        if let Ok(ip) = self.peer_ip.parse::<IpAddr>() {
            return Some((ip, None));
        }
        let socket: SocketAddr = self.peer_ip.parse().ok()?;
        (socket.port() > 0).then_some((socket.ip(), Some(socket.port())))
    }

    /// Reports fields that exclude or need each other.
    fn fields_go_together(&self, problems: &mut Problems) {
        let number = self
            .as_number
            .map(|number| number.to_string())
            .unwrap_or_default();
        let given = |text: &str| !text.is_empty();
        let (peer, workloads) = (&self.peer_selector, &self.local_workload_selector);
        for (conflict, name, value, other) in [
            (
                given(&self.node),
                "nodeSelector",
                &self.node_selector,
                "node",
            ),
            (given(peer), "peerIP", &self.peer_ip, "peerSelector"),
            (given(peer), "asNumber", &number, "peerSelector"),
            (
                given(workloads),
                "peerIP",
                &self.peer_ip,
                "localWorkloadSelector",
            ),
            (
                given(workloads),
                "peerSelector",
                peer,
                "localWorkloadSelector",
            ),
            (
                given(peer),
                "reachableBy",
                &self.reachable_by,
                "peerSelector",
            ),
        ] {
            if conflict && given(value) {
                problems.refuse_field(name, value, format!("none where {other} is given"));
            }
        }
        if given(workloads) && self.as_number.is_none() {
            let allowed = "an AS number where localWorkloadSelector is given";
            problems.refuse_field("asNumber", "", allowed);
        }
        if self.keep_original_next_hop && self.next_hop_mode.is_some() {
            let allowed = "false where nextHopMode is given";
            problems.refuse_field("keepOriginalNextHop", true, allowed);
        }
    }
}

impl Spec for BGPPeerSpec {
    const KIND: Kind = Kind::BGPPeer;

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        for (name, selector) in [
            ("nodeSelector", &spec.node_selector),
            ("peerSelector", &spec.peer_selector),
            ("localWorkloadSelector", &spec.local_workload_selector),
        ] {
            problems.selector(name, selector, GlobalUse::Forbidden);
        }
        spec.fields_go_together(problems);
        let (address, peer) = (spec.peer_address(), &spec.peer_ip);
        let fits = peer.is_empty() || address.is_some();
        problems.require(
            fits,
            "peerIP",
            peer,
            "an address, a.b.c.d:port, or [v6]:port",
        );
        if !spec.reachable_by.is_empty() {
            let family = address.map(|(ip, _)| Family::of(ip));
            problems.address("reachableBy", &spec.reachable_by, family);
        }
        problems.optional_word("sourceAddress", spec.source_address.as_ref());
        problems.optional_word("nextHopMode", spec.next_hop_mode.as_ref());
        problems.optional_word("reversePeering", spec.reverse_peering.as_ref());
        problems.positive("maxRestartTime", spec.max_restart_time);
        problems.positive("keepaliveTime", spec.keepalive_time);
        let count = spec.num_allowed_local_as_numbers;
        problems.range("numAllowedLocalASNumbers", count, 0..=i32::MAX);
        problems.items("filters", &spec.filters, |problems, filter| {
            if !is_dns_subdomain(filter) {
                problems.refuse(filter, "the name of a BGPFilter");
            }
        });
    }
}
