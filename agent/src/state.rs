//! What the store says, as typed values that are changed in place.
//!
//! One bad object is isolated: it is remembered with the reason, and what the object last said well
//! stays in force until it is well again or deleted.

mod bgp;
mod felix;
mod read;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use margay_endpoint::shaping::Bandwidth;
use margay_model::names::EndpointName;
use margay_model::resource::pool::EncapMode;
use margay_model::scalar::AsNumber;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, Key, Kind, Prefix};
use margay_route::Mac;
use margay_selector::Selector;
use margay_store::follow::Update;
use margay_store::{Entry, Revision};

pub use bgp::Bgp;
pub use felix::{Settings, Vxlan};

use crate::config::Tunables;
use crate::enforce::Enforcer;

/// Everything the agent knows of the store.
#[derive(Debug, Clone)]
pub struct State {
    /// This node's name.
    node: String,
    nodes: BTreeMap<String, NodeAddresses>,
    pools: BTreeMap<String, Pool>,
    blocks: BTreeMap<Cidr, Block>,
    endpoints: BTreeMap<Key, Endpoint>,
    /// Of those, the ones that containers' plugins made.
    attachments: BTreeMap<Key, Attachment>,
    /// Keys of all workload endpoints of the cluster, this node's or not.
    cluster_endpoints: HashSet<Key>,
    felix: BTreeMap<String, Tunables>,
    bgp: Bgp,
    bad: BTreeMap<Key, String>,
    /// Addresses that endpoints of this node had.
    vacated: BTreeSet<IpAddr>,
    /// Grows with every change of what decides on BGP.
    bgp_generation: u64,
}

/// A node's addresses, with the prefix lengths of their networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The IPv4 address.
    pub v4: Option<IpNetwork>,
    /// The IPv6 address.
    pub v6: Option<IpNetwork>,
    /// Its end of IPv4 tunnels.
    pub tunnel_v4: TunnelEnd,
    /// Its end of IPv6 tunnels.
    pub tunnel_v6: TunnelEnd,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its AS number, where it differs from the cluster's.
    pub as_number: Option<AsNumber>,
    /// The cluster for which it reflects routes; `None` if it does not.
    pub cluster_id: Option<Ipv4Addr>,
}

/// A node's end of VXLAN tunnels, as its record says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The device's address.
    pub address: Option<IpAddr>,
    /// The device's MAC address, where it is not the one that follows from the node's name.
    pub mac: Option<Mac>,
}

/// What of a pool matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its prefix.
    pub cidr: Cidr,
    /// IP-in-IP encapsulation.
    pub ipip: EncapMode,
    /// VXLAN encapsulation.
    pub vxlan: EncapMode,
    /// Whether tunnels' addresses are assigned out of it on nodes that `nodes` selects.
    pub for_tunnels: bool,
    /// Nodes that use it; `None` is all.
    pub nodes: Option<Selector>,
    /// Whether its routes are announced by BGP.
    pub export: bool,
    /// Whether sources from it are translated on their way out of all pools.
    pub nat_outgoing: bool,
}

/// What of a block matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The node it belongs to.
    pub node: Option<String>,
    /// Addresses that other nodes use, with the node.
    pub borrowed: BTreeMap<IpAddr, String>,
    /// Number of addresses in use.
    pub used: usize,
}

/// An endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its identity.
    pub name: EndpointName,
    /// Its namespace.
    pub namespace: String,
    /// The host end's interface.
    pub interface: String,
    /// The workload's MAC; without it neighbours are resolved as usual.
    pub mac: Option<Mac>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Limits of its bandwidth.
    pub bandwidth: Bandwidth,
}

/// Whose an endpoint of this node is, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The container's id.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// When it was made.
    pub created: Timestamp,
    /// The record's revision.
    pub revision: Revision,
}

/// What a change touched: how soon it is to be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// Nothing that matters here.
    Nothing,
    /// Something of the cluster.
    Cluster,
    /// An endpoint of this node.
    Endpoint,
}

impl State {
    /// What a node knows before it has read anything.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            blocks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            attachments: BTreeMap::new(),
            cluster_endpoints: HashSet::new(),
            felix: BTreeMap::new(),
            bgp: Bgp::default(),
            bad: BTreeMap::new(),
            vacated: BTreeSet::new(),
            bgp_generation: 0,
        }
    }

    /// The ranges of the store that matter, workload endpoints first.
    pub fn prefixes() -> Vec<Prefix> {
        let own = [
            Prefix::Resources(Kind::WorkloadEndpoint),
            Prefix::Resources(Kind::Node),
            Prefix::Resources(Kind::IPPool),
            Prefix::Resources(Kind::FelixConfiguration),
            Prefix::Resources(Kind::BGPConfiguration),
            Prefix::Resources(Kind::BGPPeer),
            Prefix::Resources(Kind::BGPFilter),
            Prefix::Blocks,
        ];
        let of_policy = Enforcer::kinds().map(Prefix::Resources);
        let mut all = own.to_vec();
        all.extend(of_policy.filter(|prefix| !own.contains(prefix)));
        all
    }

    /// Takes in one change.
    pub fn update(&mut self, update: &Update) -> Touched {
        match update {
            Update::Put(entry) => self.put(entry),
            Update::Delete(key) => self.delete(key),
        }
    }

    /// Takes in a written object.
    pub fn put(&mut self, entry: &Entry) -> Touched {
        match self.try_put(entry) {
            Ok(touched) => {
                let healed = self.bad.remove(&entry.key).is_some();
                if healed {
                    touched.max(Touched::Cluster)
                } else {
                    touched
                }
            }
            Err(reason) => {
                tracing::warn!(
                    key = %entry.key,
                    revision = %entry.revision,
                    %reason,
                    "an object in the datastore cannot be used; what it last said well stays in force"
                );
                self.bad.insert(entry.key.clone(), reason);
                Touched::Cluster
            }
        }
    }

    /// Takes in that an object is gone.
    pub fn delete(&mut self, key: &Key) -> Touched {
        let was_bad = self.bad.remove(key).is_some();
        let felix = self.felix.len();
        let touched = match key {
            Key::Block(cidr) if self.blocks.remove(cidr).is_some() => Touched::Cluster,
            Key::Resource { kind, name, .. } => match kind {
                Kind::WorkloadEndpoint => {
                    self.attachments.remove(key);
                    let known = self.cluster_endpoints.remove(key);
                    match (self.endpoints.remove(key), known) {
                        (Some(endpoint), _) => {
                            self.vacated.extend(endpoint.addresses);
                            Touched::Endpoint
                        }
                        // The number of the cluster's endpoints is a figure, and figures can wait.
                        (None, _) => Touched::Nothing,
                    }
                }
                Kind::Node if self.nodes.remove(name).is_some() => Touched::Cluster,
                Kind::IPPool if self.pools.remove(name).is_some() => Touched::Cluster,
                Kind::FelixConfiguration if self.felix.remove(name).is_some() => Touched::Cluster,
                kind if self.bgp.remove(*kind, name) => Touched::Cluster,
                _ => Touched::Nothing,
            },
            _ => Touched::Nothing,
        };
        let of_bgp = touched != Touched::Nothing && self.felix.len() == felix;
        self.bgp_generation += u64::from(of_bgp);
        if was_bad {
            touched.max(Touched::Cluster)
        } else {
            touched
        }
    }

    fn try_put(&mut self, entry: &Entry) -> Result<Touched, String> {
        match &entry.key {
            Key::Block(cidr) => {
                let block = read::block(*cidr, &entry.value)?;
                let before = self.blocks.get(cidr).map(Block::users);
                let same = before == Some(block.users());
                self.bgp_generation += u64::from(!same);
                Ok(replace(&mut self.blocks, *cidr, block, Touched::Cluster))
            }
            Key::Resource { kind, name, .. } => match kind {
                Kind::WorkloadEndpoint => self.put_endpoint(entry, name),
                Kind::Node => {
                    let node = read::node(&entry.value)?;
                    let nodes = &mut self.nodes;
                    let touched = replace(nodes, name.clone(), node, Touched::Cluster);
                    Ok(self.of_bgp(touched))
                }
                Kind::IPPool => {
                    let pool = read::pool(&entry.value)?;
                    let pools = &mut self.pools;
                    let touched = replace(pools, name.clone(), pool, Touched::Cluster);
                    Ok(self.of_bgp(touched))
                }
                Kind::FelixConfiguration if self.heeds(name) => {
                    let (tunables, wrong) = felix::read(&entry.value)?;
                    let touched =
                        replace(&mut self.felix, name.clone(), tunables, Touched::Cluster);
                    // The fields that are right hold, whatever the others are.
                    if wrong.is_empty() {
                        Ok(touched)
                    } else {
                        Err(wrong.join("; "))
                    }
                }
                kind => match self.bgp.put(*kind, name, &entry.value)? {
                    true => Ok(self.of_bgp(Touched::Cluster)),
                    false => Ok(Touched::Nothing),
                },
            },
            _ => Ok(Touched::Nothing),
        }
    }

    fn put_endpoint(&mut self, entry: &Entry, name: &str) -> Result<Touched, String> {
        if !self.cluster_endpoints.contains(&entry.key) {
            self.cluster_endpoints.insert(entry.key.clone());
        }
        let Some(identity) = EndpointName::parse(name) else {
            return Err(format!("{name:?} is no name of a workload endpoint"));
        };
        if identity.node != self.node {
            return Ok(Touched::Nothing);
        }
        // A record that has become bad is evidence of nothing.
        self.attachments.remove(&entry.key);
        let (endpoint, attachment) = read::endpoint(identity, entry)?;
        if let Some(attachment) = attachment {
            self.attachments.insert(entry.key.clone(), attachment);
        }
        let before = self.endpoints.get(&entry.key);
        let same = before.is_some_and(|before| {
            before.addresses == endpoint.addresses
                && before.labels == endpoint.labels
                && before.interface == endpoint.interface
        });
        self.bgp_generation += u64::from(!same);
        if let Some(before) = before {
            self.vacated
                .extend(before.addresses.difference(&endpoint.addresses));
        }
        Ok(replace(
            &mut self.endpoints,
            entry.key.clone(),
            endpoint,
            Touched::Endpoint,
        ))
    }

    fn of_bgp(&mut self, touched: Touched) -> Touched {
        self.bgp_generation += u64::from(touched != Touched::Nothing);
        touched
    }

    /// Whether a FelixConfiguration of this name is for this node.
    fn heeds(&self, name: &str) -> bool {
        name == felix::DEFAULT || name.strip_prefix(felix::OF_NODE) == Some(&self.node)
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The nodes by name.
    pub fn nodes(&self) -> &BTreeMap<String, NodeAddresses> {
        &self.nodes
    }

    /// The pools by name.
    pub fn pools(&self) -> &BTreeMap<String, Pool> {
        &self.pools
    }

    /// The blocks by prefix.
    pub fn blocks(&self) -> &BTreeMap<Cidr, Block> {
        &self.blocks
    }

    /// This node's endpoints by key.
    pub fn endpoints(&self) -> &BTreeMap<Key, Endpoint> {
        &self.endpoints
    }

    /// Which of this node's endpoints are containers', by key.
    pub fn attachments(&self) -> &BTreeMap<Key, Attachment> {
        &self.attachments
    }

    /// Whether endpoints of this node have given up addresses since [`Self::take_vacated`].
    pub fn has_vacated(&self) -> bool {
        !self.vacated.is_empty()
    }

    /// Addresses that endpoints of this node had since this was last asked, and none has now.
    pub fn take_vacated(&mut self) -> BTreeSet<IpAddr> {
        let mut vacated = std::mem::take(&mut self.vacated);
        for endpoint in self.endpoints.values() {
            vacated.retain(|address| !endpoint.addresses.contains(address));
        }
        vacated
    }

    /// Number of the cluster's workload endpoints.
    pub fn cluster_endpoints(&self) -> usize {
        self.cluster_endpoints.len()
    }

    /// A number that is another after every change of what decides on BGP, and the same while there is none.
    pub fn bgp_generation(&self) -> u64 {
        self.bgp_generation
    }

    /// What is said of BGP.
    pub fn bgp(&self) -> &Bgp {
        &self.bgp
    }

    /// Objects that cannot be used, with the reason.
    pub fn bad(&self) -> &BTreeMap<Key, String> {
        &self.bad
    }

    /// What is in force: what flags and environment say, then the node's FelixConfiguration, then
    /// the cluster's, then defaults.
    pub fn settings(&self, local: &Tunables) -> Settings {
        let of_node = self.felix.get(&format!("{}{}", felix::OF_NODE, self.node));
        Settings::resolve([Some(local), of_node, self.felix.get(felix::DEFAULT)])
    }
}

impl NodeAddresses {
    /// The address of a family.
    pub fn of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
        .map(|network| network.ip())
    }

    /// The address of a family with the prefix length of its network.
    pub fn network(&self, family: Family) -> Option<IpNetwork> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// Its end of a family's tunnels.
    pub fn tunnel(&self, family: Family) -> TunnelEnd {
        match family {
            Family::V4 => self.tunnel_v4,
            Family::V6 => self.tunnel_v6,
        }
    }
}

impl Block {
    /// Whose it is, and who else uses addresses of it.
    fn users(&self) -> (Option<&String>, &BTreeMap<IpAddr, String>) {
        (self.node.as_ref(), &self.borrowed)
    }
}

impl Pool {
    /// Whether its packets between some nodes or all go through VXLAN tunnels.
    pub fn tunnels(&self) -> bool {
        self.vxlan != EncapMode::Never
    }
}

fn replace<K: Ord, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    touched: Touched,
) -> Touched {
    if map.get(&key) == Some(&value) {
        return Touched::Nothing;
    }
    map.insert(key, value);
    touched
}

#[cfg(test)]
mod tests;
