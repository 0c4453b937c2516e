//! What selectors can match: endpoints and network sets, with labels and members.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::resource::endpoint::WorkloadEndpointSpec;
use margay_model::resource::hostendpoint::HostEndpointSpec;
use margay_model::scalar::Protocol;
use margay_model::{AnyResource, Cidr, Family, Key, Kind, Metadata};
use margay_selector::{ItemId, NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};

use crate::condition::Problem;

/// What of an object selectors can match, and what sets get from it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Item {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) parents: Vec<String>,
    pub(crate) nets: Vec<Cidr>,
    pub(crate) ports: Vec<NamedPort>,
    pub(crate) problems: Vec<Problem>,
}

/// A port with a name that rules can use.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamedPort {
    pub(crate) name: Box<str>,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
}

impl Item {
    /// What selectors can match of a resource; `None` for kinds that have nothing of that.
    pub(crate) fn of(key: &Key, resource: &AnyResource) -> Option<Self> {
        let Key::Resource { namespace, .. } = key else {
            return None;
        };
        let namespace = namespace.as_deref().unwrap_or_default();
        match resource {
            AnyResource::WorkloadEndpoint(endpoint) => {
                Some(workload(namespace, &endpoint.metadata, &endpoint.spec))
            }
            AnyResource::HostEndpoint(endpoint) => Some(host(&endpoint.metadata, &endpoint.spec)),
            AnyResource::GlobalNetworkSet(set) => {
                let mut item = Self {
                    labels: set.metadata.labels.clone(),
                    ..Self::default()
                };
                item.add_nets("spec.nets", &set.spec.nets);
                Some(item)
            }
            AnyResource::NetworkSet(set) => {
                let mut item = Self {
                    labels: namespaced_labels(namespace, &set.metadata),
                    parents: vec![format!("kns.{namespace}")],
                    ..Self::default()
                };
                item.add_nets("spec.nets", &set.spec.nets);
                Some(item)
            }
            _ => None,
        }
    }

    fn add_nets(&mut self, field: &str, texts: &[String]) {
        for text in texts {
            match text.parse::<Cidr>() {
                Ok(net) => self.nets.push(net),
                Err(error) => self.problems.push(Problem::LeftOut {
                    reason: format!("{field}: {error}"),
                }),
            }
        }
        self.nets.sort_unstable();
        self.nets.dedup();
    }

    fn add_ports<'a>(&mut self, ports: impl Iterator<Item = (&'a str, Option<&'a Protocol>, u16)>) {
        // Ports without a name are the host's to forward, and none of the rules'.
        let named = ports.filter(|(name, ..)| !name.is_empty());
        for (name, protocol, port) in named {
            match protocol
                .filter(|p| p.has_ports())
                .and_then(Protocol::number)
            {
                Some(protocol) => self.ports.push(NamedPort {
                    name: name.into(),
                    protocol,
                    port,
                }),
                None => self.problems.push(Problem::LeftOut {
                    reason: format!("spec.ports: {name:?} has no protocol that has ports"),
                }),
            }
        }
        self.ports.sort_unstable();
        self.ports.dedup();
    }
}

fn workload(namespace: &str, metadata: &Metadata, spec: &WorkloadEndpointSpec) -> Item {
    let mut labels = namespaced_labels(namespace, metadata);
    if let Some(account) = spec.service_account_name.as_ref().filter(|a| !a.is_empty()) {
        labels.insert(SERVICE_ACCOUNT_LABEL.to_owned(), account.clone());
    }
    let mut item = Item {
        labels,
        parents: spec.profiles.clone(),
        ..Item::default()
    };
    item.add_nets("spec.ipNetworks", &spec.ip_networks);
    let ports = spec.ports.iter();
    item.add_ports(ports.map(|port| (port.name.as_str(), port.protocol.as_ref(), port.port)));
    item
}

fn host(metadata: &Metadata, spec: &HostEndpointSpec) -> Item {
    let mut item = Item {
        labels: metadata.labels.clone(),
        parents: spec.profiles.clone(),
        ..Item::default()
    };
    for text in &spec.expected_ips {
        match text.parse::<IpAddr>() {
            Ok(address) => item.nets.push(Cidr::host(address)),
            Err(_) => item.problems.push(Problem::LeftOut {
                reason: format!("spec.expectedIPs: {text:?} is no IP address"),
            }),
        }
    }
    item.nets.sort_unstable();
    item.nets.dedup();
    let ports = spec.ports.iter();
    item.add_ports(ports.map(|port| {
        let number = port.port.unwrap_or_default();
        (port.name.as_str(), port.protocol.as_ref(), number)
    }));
    item
}

/// The labels of an object in a namespace. It cannot pretend to be in another, nor to have labels of its
/// namespace or its service account that these do not have.
fn namespaced_labels(namespace: &str, metadata: &Metadata) -> BTreeMap<String, String> {
    let own = metadata.labels.iter();
    let own = own.filter(|(name, _)| !INHERITED.iter().any(|prefix| name.starts_with(prefix)));
    let mut labels: BTreeMap<_, _> = own.map(|(n, v)| (n.clone(), v.clone())).collect();
    labels.insert(NAMESPACE_LABEL.to_owned(), namespace.to_owned());
    labels
}

/// Beginnings of labels that come from the namespace and the service account only.
const INHERITED: [&str; 2] = ["pcns.", "pcsa."];

/// All items of the cluster, in little space: numbers, prefixes and ports. Labels are the index's.
#[derive(Debug, Default)]
pub(crate) struct Items {
    numbers: HashMap<ItemKey, ItemId>,
    members: Vec<Members>,
    free: Vec<ItemId>,
    /// Lists of ports, each kept once.
    ports: HashSet<Arc<[NamedPort]>>,
}

/// What sets get from an item.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(crate) nets: Box<[Cidr]>,
    pub(crate) ports: Option<Arc<[NamedPort]>>,
}

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct ItemKey {
    kind: Kind,
    /// Namespace and name, with a `/` after the namespace.
    name: Box<str>,
}

impl Items {
    /// Adds an item or gives it other members; its number, and the members it had before.
    pub(crate) fn put(
        &mut self,
        key: &Key,
        nets: Vec<Cidr>,
        ports: Vec<NamedPort>,
    ) -> Option<(ItemId, Members)> {
        let key = ItemKey::of(key)?;
        let members = Members {
            nets: nets.into(),
            ports: self.shared(ports),
        };
        if let Some(id) = self.numbers.get(&key).copied() {
            let before = std::mem::replace(&mut self.members[id.0 as usize], members);
            self.forget(&before);
            return Some((id, before));
        }
        let id = if let Some(id) = self.free.pop() {
            self.members[id.0 as usize] = members;
            id
        } else {
            self.members.push(members);
            // invariant: items are objects in memory, and there are fewer of those.
            ItemId(u32::try_from(self.members.len() - 1).unwrap_or(u32::MAX))
        };
        self.numbers.insert(key, id);
        Some((id, Members::default()))
    }

    /// Removes a key's item; its number, and the members it had.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<(ItemId, Members)> {
        let id = self.numbers.remove(&ItemKey::of(key)?)?;
        let members = std::mem::take(&mut self.members[id.0 as usize]);
        self.forget(&members);
        self.free.push(id);
        Some((id, members))
    }

    /// Whose these addresses are: an endpoint's, else that of the network set with the longest prefix that has it.
    /// Reads all items once.
    pub(crate) fn owners(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Key> {
        let mut found: BTreeMap<IpAddr, (Nearness, &ItemKey)> = BTreeMap::new();
        for (key, id) in &self.numbers {
            let mut offer = |address: IpAddr, nearness: Nearness| {
                let best = found.entry(address).or_insert((nearness, key));
                *best = (*best).min((nearness, key));
            };
            for net in &*self.members(*id).nets {
                let nearness = key.nearness(net);
                if net.length() < net.family().width() {
                    let inside = addresses.iter().filter(|address| net.contains(**address));
                    inside.for_each(|address| offer(*address, nearness));
                } else if addresses.contains(&net.address()) {
                    offer(net.address(), nearness);
                }
            }
        }
        let keys = found.into_iter();
        keys.map(|(address, (_, key))| (address, key.key()))
            .collect()
    }

    pub(crate) fn members(&self, id: ItemId) -> &Members {
        &self.members[id.0 as usize]
    }

    fn shared(&mut self, ports: Vec<NamedPort>) -> Option<Arc<[NamedPort]>> {
        if ports.is_empty() {
            return None;
        }
        if let Some(known) = self.ports.get(ports.as_slice()) {
            return Some(Arc::clone(known));
        }
        let ports: Arc<[NamedPort]> = ports.into();
        self.ports.insert(Arc::clone(&ports));
        Some(ports)
    }

    /// Lets go of a list of ports that no item has any longer, besides the one given.
    fn forget(&mut self, members: &Members) {
        if let Some(ports) = &members.ports
            && Arc::strong_count(ports) == 2
        {
            self.ports.remove(ports);
        }
    }
}

impl Members {
    /// The addresses that are prefixes of their own.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        addresses(&self.nets)
    }

    pub(crate) fn ports(&self) -> &[NamedPort] {
        self.ports.as_deref().unwrap_or_default()
    }
}

/// The addresses among prefixes.
pub(crate) fn addresses(nets: &[Cidr]) -> impl Iterator<Item = IpAddr> + '_ {
    let single = |net: &&Cidr| net.length() == Family::of(net.address()).width();
    nets.iter().filter(single).map(Cidr::address)
}

/// How near an item is to an address; the least is the nearest.
type Nearness = (u8, u8);

impl ItemKey {
    fn key(&self) -> Key {
        match self.name.split_once('/') {
            Some((namespace, name)) => Key::namespaced(self.kind, namespace, name),
            None => Key::resource(self.kind, &*self.name),
        }
    }

    /// How near the item is to the addresses of one of its prefixes.
    fn nearness(&self, net: &Cidr) -> Nearness {
        let kind = match self.kind {
            Kind::WorkloadEndpoint => 0,
            Kind::HostEndpoint => 1,
            _ => 2,
        };
        (kind, u8::MAX - net.length())
    }

    fn of(key: &Key) -> Option<Self> {
        let Key::Resource {
            kind,
            namespace,
            name,
        } = key
        else {
            return None;
        };
        let name = match namespace {
            None => name.as_str().into(),
            Some(namespace) => format!("{namespace}/{name}").into(),
        };
        Some(Self { kind: *kind, name })
    }
}
