//! Keys of stored objects, and the prefixes that lists and watches name.
//!
//! Every key but Margay's own is one of Calico v3's. Margay's own state (node liveness, markers) lives
//! below `/margay/`, because Calico's programs drop fields they do not know when they rewrite an object.

use std::fmt;

use crate::cidr::{Cidr, Family};
use crate::kind::Kind;
use crate::names::{escape_id, unescape_id};

/// The key of one stored object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A v3 resource.
    Resource {
        /// Its kind.
        kind: Kind,
        /// Its namespace; present exactly for namespaced kinds.
        namespace: Option<String>,
        /// Its name as stored.
        name: String,
    },
    /// An IPAM block.
    Block(Cidr),
    /// A block affinity.
    Affinity(Owner, Cidr),
    /// An IPAM handle.
    Handle(String),
    /// The IPAM configuration that allocators read.
    IpamConfig,
    /// Calico's legacy directory entry of a host.
    IpamHost(String),
    /// Status of a workload endpoint, written by the node's agent.
    WorkloadStatus {
        /// `no-region`, or `region-<name>`.
        region: String,
        /// Node name.
        host: String,
        /// Orchestrator id.
        orchestrator: String,
        /// `<namespace>/<workload>`.
        workload: String,
        /// Endpoint id.
        endpoint: String,
    },
    /// Status of a host endpoint.
    HostEndpointStatus {
        /// Node name.
        host: String,
        /// Host endpoint name.
        name: String,
    },
    /// Liveness report of a node's agent, kept under a lease.
    AgentStatus {
        /// `no-region`, or `region-<name>`.
        region: String,
        /// Node name.
        host: String,
    },
    /// The last liveness report, without a lease.
    LastAgentStatus {
        /// `no-region`, or `region-<name>`.
        region: String,
        /// Node name.
        host: String,
    },
    /// Margay: which machine holds a node name, kept under a lease.
    NodeLease(String),
    /// Margay: that an agent has run on a node, kept beyond its life.
    Membership(String),
    /// Margay: written once the first pool of the cluster has existed.
    PoolMarker,
    /// Margay: a network of Docker's, by its id.
    DockerNetwork(String),
}

/// Who an affinity binds a block to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A node.
    Host(String),
    /// A virtual owner such as `load-balancer`.
    Virtual(String),
}

/// A range of keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// All resources of a kind.
    Resources(Kind),
    /// All resources of a kind in a namespace.
    Namespace(Kind, String),
    /// Resources of a kind in a namespace whose names begin so.
    NamesFrom(Kind, String, String),
    /// All blocks.
    Blocks,
    /// All blocks of a family.
    BlocksOf(Family),
    /// All affinities of an owner.
    Affinities(Owner),
    /// An owner's affinities of a family.
    AffinitiesOf(Owner, Family),
    /// All affinities of all nodes (and Calico's legacy host entries).
    HostAffinities,
    /// All handles.
    Handles,
    /// All of IPAM.
    Ipam,
    /// All workload endpoint statuses of a node.
    WorkloadStatuses {
        /// `no-region`, or `region-<name>`.
        region: String,
        /// Node name.
        host: String,
    },
    /// All host endpoint statuses of a node.
    HostEndpointStatuses {
        /// Node name.
        host: String,
    },
    /// All node leases.
    NodeLeases,
    /// All of Docker's networks.
    DockerNetworks,
    /// All memberships of nodes.
    Memberships,
    /// Everything Calico keeps.
    Calico,
    /// Everything Margay keeps for itself.
    Margay,
}

impl Key {
    /// The key of a global resource.
    pub fn resource(kind: Kind, name: impl Into<String>) -> Self {
        Self::Resource {
            kind,
            namespace: None,
            name: name.into(),
        }
    }

    /// The key of a namespaced resource.
    pub fn namespaced(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Resource {
            kind,
            namespace: Some(namespace.into()),
            name: name.into(),
        }
    }

    /// The key of a node's affinity for a block.
    pub fn host_affinity(node: impl Into<String>, block: Cidr) -> Self {
        Self::Affinity(Owner::Host(node.into()), block)
    }

    /// The text of the key in etcd.
    pub fn path(&self) -> String {
        match self {
            Self::Resource {
                kind,
                namespace: None,
                name,
            } => {
                format!("{RESOURCES}{}/{name}", kind.plural())
            }
            Self::Resource {
                kind,
                namespace: Some(namespace),
                name,
            } => {
                format!("{RESOURCES}{}/{namespace}/{name}", kind.plural())
            }
            Self::Block(cidr) => format!("{BLOCKS}{}", block_tail(*cidr)),
            Self::Affinity(owner, cidr) => format!("{}{}", owner.root(), block_tail(*cidr)),
            Self::Handle(id) => format!("{HANDLES}{id}"),
            Self::IpamConfig => IPAM_CONFIG.to_owned(),
            Self::IpamHost(node) => format!("{HOSTS}{node}"),
            Self::WorkloadStatus {
                region,
                host,
                orchestrator,
                workload,
                endpoint,
            } => format!(
                "{FELIX2}{region}/host/{host}/workload/{}/{}/endpoint/{}",
                escape_id(orchestrator),
                escape_id(workload),
                escape_id(endpoint)
            ),
            Self::HostEndpointStatus { host, name } => {
                format!("{FELIX1}host/{host}/endpoint/{}", escape_id(name))
            }
            Self::AgentStatus { region, host } => format!("{FELIX2}{region}/host/{host}/status"),
            Self::LastAgentStatus { region, host } => {
                format!("{FELIX2}{region}/host/{host}/last_reported_status")
            }
            Self::NodeLease(node) => format!("{NODE_LEASES}{node}"),
            Self::Membership(node) => format!("{MEMBERSHIPS}{node}"),
            Self::PoolMarker => POOL_MARKER.to_owned(),
            Self::DockerNetwork(id) => format!("{DOCKER_NETWORKS}{id}"),
        }
    }

    /// Reads [`Key::path`]; `None` for any other text.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix(RESOURCES) {
            return parse_resource(rest);
        }
        if let Some(rest) = path.strip_prefix(BLOCKS) {
            return parse_block_tail(rest).map(Self::Block);
        }
        if let Some(rest) = path.strip_prefix(HOSTS) {
            return parse_affinity(rest, Owner::Host)
                .or_else(|| segment(rest).map(|node| Self::IpamHost(node.to_owned())));
        }
        if let Some(rest) = path.strip_prefix(VIRTUALS) {
            return parse_affinity(rest, Owner::Virtual);
        }
        if let Some(id) = path.strip_prefix(HANDLES) {
            return (!id.is_empty()).then(|| Self::Handle(id.to_owned()));
        }
        if let Some(rest) = path.strip_prefix(FELIX2) {
            return parse_felix(rest);
        }
        if let Some(rest) = path.strip_prefix(FELIX1) {
            let (host, name) = rest.strip_prefix("host/")?.split_once("/endpoint/")?;
            let host = segment(host)?.to_owned();
            return Some(Self::HostEndpointStatus {
                host,
                name: unescape_id(segment(name)?),
            });
        }
        if let Some(node) = path.strip_prefix(NODE_LEASES) {
            return segment(node).map(|node| Self::NodeLease(node.to_owned()));
        }
        if let Some(id) = path.strip_prefix(DOCKER_NETWORKS) {
            return segment(id).map(|id| Self::DockerNetwork(id.to_owned()));
        }
        if let Some(node) = path.strip_prefix(MEMBERSHIPS) {
            return segment(node).map(|node| Self::Membership(node.to_owned()));
        }
        match path {
            IPAM_CONFIG => Some(Self::IpamConfig),
            POOL_MARKER => Some(Self::PoolMarker),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

impl Owner {
    /// The text in a block's `affinity` field: `host:<node>` or `virtual:<name>`.
    pub fn affinity(&self) -> String {
        match self {
            Self::Host(node) => format!("host:{node}"),
            Self::Virtual(name) => format!("virtual:{name}"),
        }
    }

    /// Reads [`Owner::affinity`].
    pub fn from_affinity(text: &str) -> Option<Self> {
        if let Some(node) = text.strip_prefix("host:") {
            return Some(Self::Host(node.to_owned()));
        }
        text.strip_prefix("virtual:")
            .map(|name| Self::Virtual(name.to_owned()))
    }

    fn root(&self) -> String {
        match self {
            Self::Host(node) => format!("{HOSTS}{node}/"),
            Self::Virtual(name) => format!("{VIRTUALS}{name}/"),
        }
    }
}

impl Prefix {
    /// The text that every key of the range begins with.
    pub fn path(&self) -> String {
        match self {
            Self::Resources(kind) => format!("{RESOURCES}{}/", kind.plural()),
            Self::Namespace(kind, namespace) => {
                format!("{RESOURCES}{}/{namespace}/", kind.plural())
            }
            Self::NamesFrom(kind, namespace, name) => {
                format!("{RESOURCES}{}/{namespace}/{name}", kind.plural())
            }
            Self::Blocks => BLOCKS.to_owned(),
            Self::BlocksOf(family) => format!("{BLOCKS}{}/block/", family.key_form()),
            Self::Affinities(owner) => owner.root(),
            Self::AffinitiesOf(owner, family) => {
                format!("{}{}/block/", owner.root(), family.key_form())
            }
            Self::HostAffinities => HOSTS.to_owned(),
            Self::Handles => HANDLES.to_owned(),
            Self::Ipam => IPAM.to_owned(),
            Self::WorkloadStatuses { region, host } => {
                format!("{FELIX2}{region}/host/{host}/workload/")
            }
            Self::HostEndpointStatuses { host } => format!("{FELIX1}host/{host}/endpoint/"),
            Self::NodeLeases => NODE_LEASES.to_owned(),
            Self::DockerNetworks => DOCKER_NETWORKS.to_owned(),
            Self::Memberships => MEMBERSHIPS.to_owned(),
            Self::Calico => "/calico/".to_owned(),
            Self::Margay => "/margay/".to_owned(),
        }
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        key.path().starts_with(&self.path())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

fn block_tail(cidr: Cidr) -> String {
    format!("{}/block/{}", cidr.family().key_form(), cidr.key_form())
}

fn parse_block_tail(text: &str) -> Option<Cidr> {
    let (family, cidr) = text.split_once("/block/")?;
    let cidr = Cidr::from_key_form(cidr)?;
    (cidr.family().key_form() == family).then_some(cidr)
}

fn parse_affinity(text: &str, owner: fn(String) -> Owner) -> Option<Key> {
    let (name, tail) = text.split_once('/')?;
    Some(Key::Affinity(
        owner(segment(name)?.to_owned()),
        parse_block_tail(tail)?,
    ))
}

fn parse_resource(text: &str) -> Option<Key> {
    let (plural, rest) = text.split_once('/')?;
    let kind = Kind::from_plural(plural)?;
    if !kind.namespaced() {
        return Some(Key::resource(kind, segment(rest)?));
    }
    let (namespace, name) = rest.split_once('/')?;
    Some(Key::namespaced(kind, segment(namespace)?, segment(name)?))
}

fn parse_felix(text: &str) -> Option<Key> {
    let (region, rest) = text.split_once("/host/")?;
    let (host, rest) = rest.split_once('/')?;
    let (region, host) = (segment(region)?.to_owned(), segment(host)?.to_owned());
    match rest {
        "status" => return Some(Key::AgentStatus { region, host }),
        "last_reported_status" => return Some(Key::LastAgentStatus { region, host }),
        _ => {}
    }
    let mut parts = rest.strip_prefix("workload/")?.split('/');
    let (orchestrator, workload, fixed, endpoint) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if fixed != "endpoint" || parts.next().is_some() {
        return None;
    }
    Some(Key::WorkloadStatus {
        region,
        host,
        orchestrator: unescape_id(orchestrator),
        workload: unescape_id(workload),
        endpoint: unescape_id(endpoint),
    })
}

/// A path segment: not empty, without `/`.
fn segment(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const IPAM: &str = "/calico/ipam/v2/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const HOSTS: &str = "/calico/ipam/v2/host/";
const VIRTUALS: &str = "/calico/ipam/v2/virtual/";
const HANDLES: &str = "/calico/ipam/v2/handle/";
const IPAM_CONFIG: &str = "/calico/ipam/v2/config";
const FELIX1: &str = "/calico/felix/v1/";
const FELIX2: &str = "/calico/felix/v2/";
const NODE_LEASES: &str = "/margay/v1/node-leases/";
const DOCKER_NETWORKS: &str = "/margay/v1/docker/networks/";
const MEMBERSHIPS: &str = "/margay/v1/nodes/";
const POOL_MARKER: &str = "/margay/v1/pool-existed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_keys_parse_and_print() {
        for path in [
            "/calico/ipam/v2/assignment/ipv4/block/192.168.224.192-26",
            "/calico/ipam/v2/assignment/ipv6/block/fd00:65::40-122",
            "/calico/ipam/v2/handle/calinet.cnitool-bad930507234c0c08a40",
            "/calico/ipam/v2/host/cp-h1/ipv4/block/192.168.224.192-26",
            "/calico/ipam/v2/host/cp-h1",
            "/calico/ipam/v2/virtual/load-balancer/ipv4/block/10.65.3.64-26",
            "/calico/ipam/v2/config",
            "/calico/resources/v3/projectcalico.org/ippools/default-ipv4-ippool",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/default/cp--h1-cni-x-eth0",
            "/calico/felix/v2/no-region/host/cp-h4/workload/cni/default%2ffxipt000/endpoint/eth0",
            "/calico/felix/v2/no-region/host/cp-h4/status",
            "/calico/felix/v2/region-a/host/cp-h4/last_reported_status",
            "/calico/felix/v1/host/cp-h4/endpoint/eth0",
            "/margay/v1/node-leases/n1",
            "/margay/v1/nodes/n1",
            "/margay/v1/pool-existed",
            "/margay/v1/docker/networks/a230012d26c0",
        ] {
            assert_eq!(
                Key::parse(path).map(|key| key.path()).as_deref(),
                Some(path)
            );
        }
    }

    #[test]
    fn other_texts_are_no_keys() {
        for path in [
            "",
            "/calico/ipam/v2/assignment/ipv6/block/10.0.0.0-26",
            "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0",
            "/calico/resources/v3/projectcalico.org/unknowns/x",
            "/calico/resources/v3/projectcalico.org/workloadendpoints/x",
            "/calico/resources/v3/projectcalico.org/ippools/a/b",
        ] {
            assert_eq!(Key::parse(path), None, "{path}");
        }
    }

    #[test]
    fn prefixes_end_where_their_range_does() {
        assert_eq!(
            Prefix::AffinitiesOf(Owner::Host("cp-h1".into()), Family::V4).path(),
            "/calico/ipam/v2/host/cp-h1/ipv4/block/"
        );
        assert!(Prefix::Blocks.contains(&Key::Block("10.0.0.0/26".parse().unwrap())));
        assert!(!Prefix::Resources(Kind::Node).contains(&Key::resource(Kind::IPPool, "x")));
    }
}
