//! The incremental calculation: updates of the store in, differences out.

mod conditions;
mod flush;
mod local;
mod policies;
mod sets;
mod tiers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::names::EndpointName;
use margay_model::resource::profile::{DEFAULT_ALLOW, ProfileSpec, default_allow};
use margay_model::{AnyResource, Key, Kind};
use margay_selector::{Change, Index};
use serde_json::Value;

use crate::compile::{self, CompiledProfile};
use crate::condition::{Condition, Problem};
use crate::item::{Item, Items};
use crate::output::{Delta, PolicyId, PolicyKind};
use flush::Told;
use local::{Locals, Subject};
use policies::Policies;
use sets::LiveSets;
use tiers::Tiers;

/// Calculates what should be in force on one node, change by change.
///
/// [`Calculator::update`] takes in what the store says, in any order; [`Calculator::flush`] tells what
/// that changes. A change costs what it touches: sets exist for rules that are in force here only, rules
/// for policies that endpoints of this node have, and of the other nodes' endpoints only labels, addresses
/// and named ports are kept. The order of changes and of flushes does not matter for where they lead.
///
/// ```
/// use margay_model::{AnyResource, Key};
/// use margay_policy::Calculator;
///
/// let mut calculator = Calculator::new("n1");
/// let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/n1-k8s-web-eth0";
/// let endpoint = br#"{"kind": "WorkloadEndpoint", "spec": {"interfaceName": "cali1",
///     "ipNetworks": ["10.65.0.2/32"], "profiles": ["projectcalico-default-allow"]}}"#;
/// calculator.update_bytes(&Key::parse(key).unwrap(), Some(endpoint));
/// let delta = calculator.flush();
/// assert_eq!(delta.workloads.len(), 1);
/// assert_eq!(delta.profiles.len(), 1);
/// assert!(calculator.flush().is_empty());
/// ```
#[derive(Debug)]
pub struct Calculator {
    node: String,
    tiers: Tiers,
    policies: Policies,
    profiles: HashMap<String, Arc<CompiledProfile>>,
    items: Items,
    /// All items against the selectors of the sets.
    index: Index,
    sets: LiveSets,
    /// This node's endpoints, against the selectors of the policies.
    locals: Locals,
    services: BTreeMap<String, BTreeSet<ServicePort>>,
    problems: BTreeMap<Key, Vec<Problem>>,
    dirty: Dirty,
    told: Told,
}

/// A port that an endpoint of a service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The protocol number (IANA).
    pub protocol: u8,
    /// The endpoint's port.
    pub port: u16,
}

/// What the next flush has to look at.
#[derive(Debug, Default)]
struct Dirty {
    subjects: BTreeSet<Subject>,
    policies: BTreeSet<PolicyId>,
    profiles: BTreeSet<String>,
}

impl Calculator {
    /// What a node knows before it has read anything.
    pub fn new(node: impl Into<String>) -> Self {
        let mut calculator = Self {
            node: node.into(),
            tiers: Tiers::default(),
            policies: Policies::default(),
            profiles: HashMap::new(),
            items: Items::default(),
            index: Index::default(),
            sets: LiveSets::default(),
            locals: Locals::default(),
            services: BTreeMap::new(),
            problems: BTreeMap::new(),
            dirty: Dirty::default(),
            told: Told::default(),
        };
        calculator.set_profile(DEFAULT_ALLOW, Some(&default_allow().spec));
        calculator
    }

    /// The kinds whose resources matter.
    pub fn kinds() -> [Kind; 11] {
        [
            Kind::Tier,
            Kind::GlobalNetworkPolicy,
            Kind::NetworkPolicy,
            Kind::StagedGlobalNetworkPolicy,
            Kind::StagedNetworkPolicy,
            Kind::StagedKubernetesNetworkPolicy,
            Kind::Profile,
            Kind::GlobalNetworkSet,
            Kind::NetworkSet,
            Kind::HostEndpoint,
            Kind::WorkloadEndpoint,
        ]
    }

    /// Takes in a stored value, or that there is none; keys that do not matter are passed over.
    ///
    /// A value that cannot be read counts as none, with a condition. A policy of which all but the rules
    /// can be read denies everything to its endpoints.
    pub fn update_bytes(&mut self, key: &Key, value: Option<&[u8]>) {
        let Some((kind, value)) = kind(key).zip(value) else {
            self.update(key, None);
            return;
        };
        match AnyResource::decode(kind, value) {
            Ok(resource) => self.update(key, Some(&resource)),
            Err(error) => {
                let reason = error.to_string();
                match without_rules(kind, value) {
                    Some(resource) => self.put(key, Some(&resource), Some(&reason)),
                    None => {
                        self.update(key, None);
                        let problem = Problem::Unreadable { reason };
                        self.problems.insert(key.clone(), vec![problem]);
                    }
                }
            }
        }
    }

    /// Takes in a resource, or that there is none; keys that do not matter are passed over. The resource
    /// is of the key's kind.
    pub fn update(&mut self, key: &Key, value: Option<&AnyResource>) {
        self.put(key, value, None);
    }

    /// Takes in the endpoints of a Kubernetes service, or that there is no such service.
    ///
    /// Services are no objects of the store; who watches Kubernetes tells of them here.
    pub fn set_service(
        &mut self,
        namespace: &str,
        name: &str,
        ports: Option<impl IntoIterator<Item = ServicePort>>,
    ) {
        let service = format!("{namespace}/{name}");
        let before = match ports {
            Some(ports) => self
                .services
                .insert(service.clone(), ports.into_iter().collect()),
            None => self.services.remove(&service),
        };
        let nothing = BTreeSet::new();
        let after = self.services.get(&service).unwrap_or(&nothing);
        self.sets
            .change_service(&service, &before.unwrap_or_default(), after);
    }

    /// What has changed since the last flush.
    ///
    /// Before the store has been read completely, what is missing counts as missing: profiles deny, and
    /// sets lack members. Who reads the store flushes when it has been.
    pub fn flush(&mut self) -> Delta {
        self.flush_all()
    }

    /// Whose addresses these are: the workload endpoint's or host endpoint's that has it, else that of the network
    /// set with the longest prefix that has it. Costs a look at every endpoint and network set of the cluster.
    pub fn owners(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Key> {
        self.items.owners(addresses)
    }

    /// What is wrong with objects, by key.
    pub fn conditions(&self) -> Vec<Condition> {
        self.all_conditions()
    }

    fn put(&mut self, key: &Key, value: Option<&AnyResource>, unreadable: Option<&str>) {
        let Key::Resource {
            kind,
            namespace,
            name,
        } = key
        else {
            return;
        };
        debug_assert!(value.is_none_or(|value| value.kind() == *kind));
        self.problems.remove(key);
        let problems = if PolicyKind::of(*kind).is_some() {
            let compiled =
                value.and_then(|value| compile::policy(namespace.as_deref(), value, unreadable));
            let problems = compiled.as_ref().map(|c| c.problems.clone());
            self.set_policy(key, name, compiled);
            problems.unwrap_or_default()
        } else {
            match (kind, value) {
                (Kind::Tier, value) => {
                    let tier = match value {
                        Some(AnyResource::Tier(tier)) => Some(&tier.spec),
                        _ => None,
                    };
                    self.set_tier(name, tier);
                    Vec::new()
                }
                (Kind::Profile, value) => match value {
                    Some(AnyResource::Profile(profile)) => {
                        self.set_profile(name, Some(&profile.spec))
                    }
                    // This one exists whatever the store says.
                    _ if name == DEFAULT_ALLOW => Vec::new(),
                    _ => self.set_profile(name, None),
                },
                (
                    Kind::GlobalNetworkSet
                    | Kind::NetworkSet
                    | Kind::HostEndpoint
                    | Kind::WorkloadEndpoint,
                    value,
                ) => self.set_item(key, value),
                _ => Vec::new(),
            }
        };
        if !problems.is_empty() {
            self.problems.insert(key.clone(), problems);
        }
    }

    fn set_profile(&mut self, name: &str, spec: Option<&ProfileSpec>) -> Vec<Problem> {
        let nothing = BTreeMap::new();
        let labels = spec.map_or(&nothing, |spec| &spec.labels_to_apply);
        let pairs = || {
            labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
        };
        let changes = self.index.set_parent(name, pairs());
        self.apply(&changes);
        let changes = self.locals.index.set_parent(name, pairs());
        self.locals_changed(&changes);
        let compiled = spec.map(compile::profile);
        let problems = compiled.as_ref().map(|c| c.problems.clone());
        match compiled {
            Some(compiled) => self.profiles.insert(name.to_owned(), Arc::new(compiled)),
            None => self.profiles.remove(name),
        };
        self.dirty.profiles.insert(name.to_owned());
        problems.unwrap_or_default()
    }

    fn set_item(&mut self, key: &Key, value: Option<&AnyResource>) -> Vec<Problem> {
        let (local, mut problems) = match value {
            None => (None, Vec::new()),
            Some(value) => match self.is_local(key, value) {
                Ok(local) => (Some(local), Vec::new()),
                Err(problem) => (None, vec![problem]),
            },
        };
        let item = value
            .filter(|_| local.is_some())
            .and_then(|value| Item::of(key, value))
            // An endpoint that nothing can be sent to or come from is as good as none.
            .filter(|item| key_is_set(key) || is_host(key) || !item.nets.is_empty());
        self.change_local(
            key,
            value.filter(|_| local == Some(true)),
            item.as_ref(),
            &mut problems,
        );
        match item {
            Some(mut item) => {
                problems.append(&mut item.problems);
                self.put_item(key, item);
            }
            None => self.remove_item(key),
        }
        problems
    }

    /// Whether an endpoint is this node's; what is no endpoint is nobody's.
    fn is_local(&self, key: &Key, value: &AnyResource) -> Result<bool, Problem> {
        match (value, key) {
            (AnyResource::WorkloadEndpoint(_), Key::Resource { name, .. }) => {
                let identity = EndpointName::parse(name).ok_or_else(|| Problem::Unreadable {
                    reason: format!("{name:?} is no name of a workload endpoint"),
                })?;
                Ok(identity.node == self.node)
            }
            (AnyResource::HostEndpoint(endpoint), _) => Ok(endpoint.spec.node == self.node),
            _ => Ok(false),
        }
    }

    fn put_item(&mut self, key: &Key, item: Item) {
        let Some((id, before)) = self.items.put(key, item.nets, item.ports) else {
            return;
        };
        let labels = item.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let parents = item.parents.iter().map(String::as_str);
        if *self.items.members(id) == before {
            let changes = self.index.set_item(id, labels, parents);
            self.apply(&changes);
            return;
        }
        for selector in self.index.selectors_of(id) {
            self.sets.take(selector, &before);
        }
        self.index.set_item(id, labels, parents);
        for selector in self.index.selectors_of(id) {
            self.sets.give(selector, self.items.members(id));
        }
    }

    fn remove_item(&mut self, key: &Key) {
        let Some((id, before)) = self.items.remove(key) else {
            return;
        };
        for selector in self.index.selectors_of(id) {
            self.sets.take(selector, &before);
        }
        self.index.remove_item(id);
    }

    /// Takes changes of the index over into the sets.
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let members = self.items.members(change.item);
            if change.matches {
                self.sets.give(change.selector, members);
            } else {
                self.sets.take(change.selector, members);
            }
        }
    }
}

fn kind(key: &Key) -> Option<Kind> {
    match key {
        Key::Resource { kind, .. } => Some(*kind),
        _ => None,
    }
}

fn key_is_set(key: &Key) -> bool {
    matches!(kind(key), Some(Kind::GlobalNetworkSet | Kind::NetworkSet))
}

fn is_host(key: &Key) -> bool {
    kind(key) == Some(Kind::HostEndpoint)
}

/// A policy without its rules, where that much can be read.
fn without_rules(kind: Kind, value: &[u8]) -> Option<AnyResource> {
    PolicyKind::of(kind)?;
    let mut document: Value = serde_json::from_slice(value).ok()?;
    let spec = document.get_mut("spec")?.as_object_mut()?;
    spec.remove("ingress");
    spec.remove("egress");
    AnyResource::decode(kind, &serde_json::to_vec(&document).ok()?).ok()
}
