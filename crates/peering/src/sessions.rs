//! Which sessions a node has, and what they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::{NextHopMode, Password, PeerConfig, RemoteAs, TtlMode};
use margay_model::Family;
use margay_model::resource::bgp::{self, BGPPeerSpec, ReversePeering, SourceAddress};
use margay_model::scalar::{AsNumber, GoDuration};
use margay_selector::Selector;
use serde::Serialize;

use crate::Problem;
use crate::configuration::{to_workloads, unknown_field};
use crate::input::{Input, Node};
use crate::policy::{Pair, Policies};

/// Where a session comes from, in Calico's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PeerType {
    /// A BGPPeer for all nodes.
    #[serde(rename = "global")]
    Global,
    /// A BGPPeer for some nodes.
    #[serde(rename = "node specific")]
    Node,
    /// The mesh of all nodes.
    #[serde(rename = "node-to-node mesh")]
    Mesh,
    /// A BGPPeer for workloads of the node itself.
    #[serde(rename = "local workload")]
    Workload,
}

impl fmt::Display for PeerType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Node => "node specific",
            Self::Mesh => "node-to-node mesh",
            Self::Workload => "local workload",
        })
    }
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: String,
    pub(crate) kind: PeerType,
    pub(crate) config: PeerConfig,
    /// By which the peer is reached.
    pub(crate) gateway: Option<IpAddr>,
}

/// The sessions of `own`, the node for which `input` asks: one for each address.
///
/// What is configured comes before the mesh, peers of all nodes before those of some, and then the
/// order of the names counts.
pub(crate) fn sessions(
    input: &Input<'_>,
    own: &Node,
    policies: &Policies,
    problems: &mut BTreeSet<Problem>,
) -> Vec<Session> {
    let mut list = List {
        input,
        own,
        policies,
        problems,
        by_address: BTreeMap::new(),
    };
    let mut some_nodes = Vec::new();
    for (name, spec) in input.peers {
        if is_global(spec) {
            list.configured(name, spec);
        } else {
            some_nodes.push((name, spec));
        }
    }
    for (name, spec) in some_nodes {
        list.configured(name, spec);
    }
    list.mesh();
    list.by_address
        .into_values()
        .map(|(_, session)| session)
        .collect()
}

struct List<'i, 'p> {
    input: &'i Input<'i>,
    own: &'i Node,
    policies: &'i Policies,
    problems: &'p mut BTreeSet<Problem>,
    /// The session with each address, and the object that asked for it.
    by_address: BTreeMap<IpAddr, (String, Session)>,
}

/// The other side of a session.
struct Far<'i> {
    address: IpAddr,
    port: u16,
    asn: AsNumber,
    /// Its record, where it is a node.
    node: Option<&'i Node>,
}

impl<'i> List<'i, '_> {
    fn complain(&mut self, object: &str, reason: String) {
        self.problems.insert(Problem {
            object: object.to_owned(),
            reason,
        });
    }

    /// The full mesh, which reflectors do not join.
    fn mesh(&mut self) {
        let cluster = self.input.configuration();
        let off = cluster.and_then(|cluster| cluster.node_to_node_mesh_enabled) == Some(false);
        if off || self.own.cluster_id.is_some() {
            return;
        }
        let object = "BGPConfiguration default";
        let password = match cluster.and_then(|cluster| cluster.node_mesh_password.as_ref()) {
            None => None,
            Some(told) => match self.password(told) {
                Ok(password) => Some(password),
                Err(reason) => {
                    self.complain(object, format!("nodeMeshPassword: {reason}"));
                    return;
                }
            },
        };
        let restart = cluster.and_then(|cluster| cluster.node_mesh_max_restart_time);
        // Without filters there is nothing that could be missing.
        let Ok(policies) = self.policies.of(&[], true) else {
            return;
        };
        for (name, node) in self.input.nodes {
            if name == self.input.node || node.cluster_id.is_some() {
                continue;
            }
            for far in self.ends(name, node) {
                if self.by_address.contains_key(&far.address) {
                    continue;
                }
                let mut config = self.base(&far, &policies, far.node);
                config.password.clone_from(&password);
                if let Some(time) = restart {
                    set_restart_time(&mut config, time);
                }
                self.insert(object, PeerType::Mesh, config, None);
            }
        }
    }

    /// A BGPPeer: its sessions from this node, and the other halves of those to this node.
    fn configured(&mut self, name: &str, spec: &BGPPeerSpec) {
        let object = format!("BGPPeer {name}");
        for field in spec.extra.keys() {
            self.complain(&object, unknown_field(field));
        }
        let done = if spec.local_workload_selector.is_empty() {
            self.try_configured(&object, spec)
        } else {
            self.try_workloads(&object, spec)
        };
        if let Err(reason) = done {
            self.complain(&object, reason);
        }
    }

    /// A BGPPeer for workloads: sessions with those of this node.
    ///
    /// They connect to the address that the configuration says, whichever node they are on.
    fn try_workloads(&mut self, object: &str, spec: &BGPPeerSpec) -> Result<(), String> {
        for (field, given) in [
            ("peerIP", !spec.peer_ip.is_empty()),
            ("peerSelector", !spec.peer_selector.is_empty()),
            ("reachableBy", !spec.reachable_by.is_empty()),
        ] {
            if given {
                return Err(format!(
                    "{field} and localWorkloadSelector exclude each other; give one"
                ));
            }
        }
        let workloads = selector("localWorkloadSelector", &spec.local_workload_selector)?;
        let nodes = selector("nodeSelector", &spec.node_selector)?;
        self.exists(spec)?;
        let asn = match spec.as_number {
            None | Some(AsNumber(0)) => {
                return Err("asNumber is missing; give the workloads'".to_owned());
            }
            Some(asn) => asn,
        };
        if !is_of(spec, nodes.as_ref(), self.input.node, self.own) {
            return Ok(());
        }
        let chosen = self.input.endpoints.values().filter(|endpoint| {
            let workloads = workloads.as_ref();
            workloads.is_none_or(|workloads| workloads.matches(&endpoint.labels))
        });
        let addresses = chosen.flat_map(|endpoint| endpoint.addresses.iter());
        let mut missing = BTreeSet::new();
        for address in addresses.copied() {
            if self.own.address(Family::of(address)).is_none() {
                continue;
            }
            match to_workloads(self.input, Family::of(address)) {
                Ok(_) => {
                    let far = Far {
                        address,
                        port: crate::DEFAULT_PORT,
                        asn,
                        node: None,
                    };
                    self.add(object, spec, PeerType::Workload, &far)?;
                }
                Err(reason) => {
                    missing.insert(reason);
                }
            }
        }
        for reason in missing {
            self.complain(object, reason);
        }
        Ok(())
    }

    fn exists(&self, spec: &BGPPeerSpec) -> Result<(), String> {
        if spec.node.is_empty() || self.input.nodes.contains_key(&spec.node) {
            return Ok(());
        }
        Err(format!("node {} does not exist", spec.node))
    }

    fn try_configured(&mut self, object: &str, spec: &BGPPeerSpec) -> Result<(), String> {
        let nodes = selector("nodeSelector", &spec.node_selector)?;
        let peers = selector("peerSelector", &spec.peer_selector)?;
        self.exists(spec)?;
        let is_local = |name: &str, node: &Node| is_of(spec, nodes.as_ref(), name, node);
        if let Some(ReversePeering::Other(other)) = &spec.reverse_peering {
            return Err(format!(
                "reversePeering {other:?} is not known; give Auto or Manual"
            ));
        }
        let mut far = Vec::new();
        let mut is_peer = false;
        let router = spec.peer_address();
        match (&peers, router) {
            (Some(peers), _) => {
                for (name, node) in self.input.nodes {
                    let chosen = peers.matches(&node.labels);
                    if name == self.input.node {
                        is_peer = chosen;
                    } else if chosen {
                        far.extend(self.ends(name, node));
                    }
                }
            }
            (None, Some((address, port))) => {
                let node = self.input.node_at(address);
                is_peer = node.is_some_and(|(name, _)| name == self.input.node);
                if !is_peer {
                    far.push(self.end(spec, address, port, node)?);
                }
            }
            (None, None) => {
                return Err(format!(
                    "peerIP {:?} is no address; give peerIP or peerSelector",
                    spec.peer_ip
                ));
            }
        }
        let kind = if is_global(spec) {
            PeerType::Global
        } else {
            PeerType::Node
        };
        if is_local(self.input.node, self.own) {
            for far in &far {
                self.add(object, spec, kind, far)?;
            }
        }
        if is_peer && spec.reverse_peering != Some(ReversePeering::Manual) {
            for (name, node) in self.input.nodes {
                if name == self.input.node || !is_local(name, node) {
                    continue;
                }
                for far in self.ends(name, node) {
                    let told = router.map(|(address, _)| address);
                    let same = |address: IpAddr| address.is_ipv4() == far.address.is_ipv4();
                    let both_ways = self.by_address.contains_key(&far.address);
                    if told.is_none_or(same) && !both_ways {
                        self.add(object, spec, kind, &far)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A session from this node, as a BGPPeer says.
    fn add(
        &mut self,
        object: &str,
        spec: &BGPPeerSpec,
        kind: PeerType,
        far: &Far<'i>,
    ) -> Result<(), String> {
        let policies = self.policies.of(&spec.filters, far.node.is_some())?;
        let mut config = self.base(far, &policies, far.node);
        if let Some(local) = spec.local_as_number {
            config.local_as = Some(local);
        }
        let own = config
            .local_as
            .unwrap_or_else(|| self.input.as_number(self.own));
        let internal = own == far.asn;
        config.reflector_client = self.reflects_to(internal, far.node);
        if let Some(told) = &spec.password {
            config.password = Some(
                self.password(told)
                    .map_err(|reason| format!("password: {reason}"))?,
            );
        }
        match &spec.source_address {
            _ if kind == PeerType::Workload => {
                config.source = Some(to_workloads(self.input, Family::of(far.address))?);
                // A workload that is gone for good would be tried for ever.
                config.passive = true;
            }
            None | Some(SourceAddress::UseNodeIP) => {}
            Some(SourceAddress::None) => config.source = None,
            Some(SourceAddress::Other(other)) => {
                return Err(format!("sourceAddress {other:?} is not known"));
            }
        }
        if let Some(time) = spec.max_restart_time {
            time.to_std().ok_or("maxRestartTime is less than nothing")?;
            set_restart_time(&mut config, time);
        }
        if let Some(time) = spec.keepalive_time {
            let time = time.to_std().filter(|time| !time.is_zero());
            let time = time.ok_or("keepaliveTime is not longer than nothing")?;
            config.timers.keepalive = Some(time);
            config.timers.hold = config.timers.hold.max(time * 3);
        }
        if let Some(count) = spec.num_allowed_local_as_numbers {
            config.allow_own_as = u8::try_from(count)
                .map_err(|_| format!("numAllowedLocalASNumbers {count} is not within 0 and 255"))?;
        }
        if let Some(hops) = spec.ttl_security.filter(|hops| *hops > 0) {
            config.ttl = TtlMode::Security(hops);
        }
        config.next_hop = match &spec.next_hop_mode {
            Some(bgp::NextHopMode::Auto) => NextHopMode::Auto,
            Some(bgp::NextHopMode::SelfHop) => NextHopMode::Own,
            Some(bgp::NextHopMode::Keep) => NextHopMode::Keep,
            Some(bgp::NextHopMode::Other(other)) => {
                return Err(format!("nextHopMode {other:?} is not known"));
            }
            None if spec.keep_original_next_hop && !internal => NextHopMode::Keep,
            None => NextHopMode::Auto,
        };
        let gateway = match spec.reachable_by.as_str() {
            "" => None,
            text => match text.parse::<IpAddr>() {
                Ok(gateway) if gateway.is_ipv4() == far.address.is_ipv4() => Some(gateway),
                _ => {
                    return Err(format!(
                        "reachableBy {text:?} is no address of the peer's family"
                    ));
                }
            },
        };
        self.insert(object, kind, config, gateway);
        Ok(())
    }

    fn insert(
        &mut self,
        object: &str,
        kind: PeerType,
        config: PeerConfig,
        gateway: Option<IpAddr>,
    ) {
        let address = config.address;
        if let Some((holder, _)) = self.by_address.get(&address) {
            if holder != object {
                let reason =
                    format!("{holder} has a session with {address} already; delete one of the two");
                self.complain(object, reason);
            }
            return;
        }
        let session = Session {
            name: name(kind, address, config.port),
            kind,
            config,
            gateway,
        };
        self.by_address
            .insert(address, (object.to_owned(), session));
    }

    /// What all sessions have in common.
    fn base(&self, far: &Far<'_>, policies: &Pair, node: Option<&Node>) -> PeerConfig {
        let mut config = PeerConfig::new(far.address, RemoteAs::Is(far.asn));
        config.port = far.port;
        config.source = self.own.address(Family::of(far.address));
        config.ttl = TtlMode::Multihop(HOPS);
        // Of two nodes, the one whose address is the later text makes the connection.
        let later = config
            .source
            .is_some_and(|own| far.address.to_string() > own.to_string());
        config.passive = node.is_some() && later;
        config.import = Some(policies.import.clone());
        config.export = Some(policies.export.clone());
        config.add_path.receive = true;
        config
    }

    /// Whether routes are reflected to a peer (RFC 4456): this node is a reflector, and the peer is of
    /// its AS and of another cluster or none.
    fn reflects_to(&self, internal: bool, node: Option<&Node>) -> bool {
        let Some(cluster) = self.own.cluster_id else {
            return false;
        };
        internal && node.and_then(|node| node.cluster_id) != Some(cluster)
    }

    /// A node's ends, of the families that both have.
    fn ends(&self, name: &str, node: &'i Node) -> Vec<Far<'i>> {
        let families = [Family::V4, Family::V6].into_iter();
        families
            .filter(|family| self.own.address(*family).is_some())
            .filter_map(|family| node.address(family))
            .map(|address| Far {
                address,
                port: self.input.listen_port(name),
                asn: self.input.as_number(node),
                node: Some(node),
            })
            .collect()
    }

    /// The end at an address, which may be a node's.
    fn end(
        &self,
        spec: &BGPPeerSpec,
        address: IpAddr,
        port: Option<u16>,
        node: Option<(&'i str, &'i Node)>,
    ) -> Result<Far<'i>, String> {
        let of_node = node.map(|(_, node)| self.input.as_number(node));
        let asn = match (spec.as_number, of_node) {
            (Some(told), Some(real)) if told != real => {
                return Err(format!(
                    "asNumber {told} does not fit: node {} at {address} is of AS {real}",
                    node.map_or("", |(name, _)| name)
                ));
            }
            (Some(AsNumber(0)), _) => return Err("asNumber 0 is no AS".to_owned()),
            (Some(told), _) => told,
            (None, Some(real)) => real,
            (None, None) => return Err("asNumber is missing; give the router's".to_owned()),
        };
        let usual = node.map_or(crate::DEFAULT_PORT, |(name, _)| {
            self.input.listen_port(name)
        });
        Ok(Far {
            address,
            port: port.unwrap_or(usual),
            asn,
            node: node.map(|(_, node)| node),
        })
    }

    fn password(&self, told: &bgp::Password) -> Result<Password, String> {
        let reference = told.secret_key_ref.as_ref();
        let reference = reference.ok_or("secretKeyRef is missing")?;
        (self.input.passwords)(reference)
    }
}

/// Whether a BGPPeer is for a node; `nodes` is what its selector says.
fn is_of(spec: &BGPPeerSpec, nodes: Option<&Selector>, name: &str, node: &Node) -> bool {
    match nodes {
        Some(nodes) => nodes.matches(&node.labels),
        None => spec.node.is_empty() || spec.node == name,
    }
}

/// Whether a BGPPeer is for all nodes.
fn is_global(spec: &BGPPeerSpec) -> bool {
    spec.node.is_empty() && spec.node_selector.is_empty()
}

fn selector(field: &str, text: &str) -> Result<Option<Selector>, String> {
    match text {
        "" => Ok(None),
        text => Selector::parse(text)
            .map(Some)
            .map_err(|error| format!("{field} {text:?}: {error}")),
    }
}

fn set_restart_time(config: &mut PeerConfig, time: GoDuration) {
    if let Some(time) = time.to_std() {
        config.graceful_restart.restart_time = time.min(RESTART_TIME_MAX);
    }
}

/// As Calico names its sessions.
fn name(kind: PeerType, address: IpAddr, port: u16) -> String {
    let kind = match kind {
        PeerType::Global => "Global",
        PeerType::Node => "Node",
        PeerType::Mesh => "Mesh",
        PeerType::Workload => "Local_Workload",
    };
    let address = address.to_string().replace(['.', ':'], "_");
    if port == crate::DEFAULT_PORT {
        format!("{kind}_{address}")
    } else {
        format!("{kind}_{address}_port_{port}")
    }
}

/// Peers may be behind routers, as with Calico.
const HOPS: u8 = 64;
/// What the capability has room for (RFC 4724 §3).
const RESTART_TIME_MAX: Duration = Duration::from_secs(4095);
