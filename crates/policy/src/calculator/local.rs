//! This node's endpoints and the policies that they have.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use margay_model::resource::endpoint::{QosControls, WorkloadEndpointSpec};
use margay_model::resource::hostendpoint::HostEndpointSpec;
use margay_model::syntax::{is_interface_name, is_mac};
use margay_model::{AnyResource, Cidr, Key};
use margay_selector::{Change, Index, ItemId};

use super::Calculator;
use crate::compile::{Compiled, Stage};
use crate::condition::Problem;
use crate::item::{Item, addresses};
use crate::output::{Chains, EndpointId, Host, HostInterface, Tier, TierDefault, Workload};

/// The endpoints of this node.
#[derive(Debug, Default)]
pub(super) struct Locals {
    /// The endpoints against the selectors of the policies.
    pub(super) index: Index,
    endpoints: BTreeMap<Subject, (ItemId, Local)>,
    subjects: HashMap<ItemId, Subject>,
    numbers: u32,
    free: Vec<ItemId>,
    /// Workloads by interface.
    interfaces: BTreeMap<String, BTreeSet<EndpointId>>,
}

/// An endpoint of this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Workload(EndpointId),
    Host(String),
}

/// What of an endpoint goes into its result as it is.
#[derive(Debug, PartialEq)]
pub(super) enum Local {
    Workload {
        interface: String,
        mac: Option<String>,
        addresses: Vec<IpAddr>,
        spoofable: Vec<Cidr>,
        profiles: Vec<String>,
        qos: Option<Box<QosControls>>,
    },
    Host {
        interface: HostInterface,
        addresses: Vec<IpAddr>,
        profiles: Vec<String>,
    },
}

impl Locals {
    pub(super) fn subject(&self, item: ItemId) -> Option<&Subject> {
        self.subjects.get(&item)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&Subject, &Local)> {
        self.endpoints
            .iter()
            .map(|(subject, (_, local))| (subject, local))
    }

    pub(super) fn number(&self, subject: &Subject) -> Option<ItemId> {
        self.endpoints.get(subject).map(|(number, _)| *number)
    }

    /// The workload that has an interface: of several the first by name.
    pub(super) fn holder(&self, interface: &str) -> Option<&EndpointId> {
        self.interfaces.get(interface)?.first()
    }

    fn put(&mut self, subject: Subject, item: &Item, local: Local) -> Vec<Subject> {
        let mut touched = self.unclaim(&subject);
        if let (Subject::Workload(id), Local::Workload { interface, .. }) = (&subject, &local) {
            let holders = self.interfaces.entry(interface.clone()).or_default();
            holders.insert(id.clone());
            touched.extend(holders.iter().cloned().map(Subject::Workload));
        }
        let number = match self.endpoints.get(&subject) {
            Some((number, _)) => *number,
            None => self.free.pop().unwrap_or_else(|| {
                self.numbers += 1;
                ItemId(self.numbers - 1)
            }),
        };
        let labels = item.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let parents = item.parents.iter().map(String::as_str);
        self.index.set_item(number, labels, parents);
        self.subjects.insert(number, subject.clone());
        self.endpoints.insert(subject.clone(), (number, local));
        touched.push(subject);
        touched
    }

    fn remove(&mut self, subject: Subject) -> Vec<Subject> {
        let mut touched = self.unclaim(&subject);
        if let Some((number, _)) = self.endpoints.remove(&subject) {
            self.index.remove_item(number);
            self.subjects.remove(&number);
            self.free.push(number);
            touched.push(subject);
        }
        touched
    }

    /// Gives an endpoint's interface free; who else claims it.
    fn unclaim(&mut self, subject: &Subject) -> Vec<Subject> {
        let (Subject::Workload(id), Some((_, Local::Workload { interface, .. }))) =
            (subject, self.endpoints.get(subject))
        else {
            return Vec::new();
        };
        let Some(holders) = self.interfaces.get_mut(interface) else {
            return Vec::new();
        };
        holders.remove(id);
        let others = holders.iter().cloned().map(Subject::Workload).collect();
        if holders.is_empty() {
            self.interfaces.remove(interface);
        }
        others
    }
}

impl Calculator {
    /// Takes in an endpoint of this node, or that there is none.
    pub(super) fn change_local(
        &mut self,
        key: &Key,
        value: Option<&AnyResource>,
        item: Option<&Item>,
        problems: &mut Vec<Problem>,
    ) {
        let Some(subject) = Subject::of(key) else {
            return;
        };
        let local = value.and_then(|value| match value {
            AnyResource::WorkloadEndpoint(endpoint) => workload(&endpoint.spec, item, problems),
            AnyResource::HostEndpoint(endpoint) => Some(host(&endpoint.spec, item, problems)),
            _ => None,
        });
        let touched = match local.zip(item) {
            Some((local, item)) => self.locals.put(subject, item, local),
            None => self.locals.remove(subject),
        };
        self.dirty.subjects.extend(touched);
    }

    /// Takes over that endpoints of this node have other policies.
    pub(super) fn locals_changed(&mut self, changes: &[Change]) {
        let subjects = changes.iter();
        let subjects = subjects.filter_map(|change| self.locals.subject(change.item));
        self.dirty.subjects.extend(subjects.cloned());
    }

    /// A workload as it should be in force.
    pub(super) fn workload(&self, id: &EndpointId) -> Option<Workload> {
        let subject = Subject::Workload(id.clone());
        let (
            number,
            Local::Workload {
                interface,
                mac,
                addresses,
                spoofable,
                profiles,
                qos,
            },
        ) = self.locals.endpoints.get(&subject)?
        else {
            return None;
        };
        if self.locals.holder(interface) != Some(id) {
            return None;
        }
        let policies = self.policies_of(*number);
        let chains = self.chains(
            policies.iter().copied().filter(|p| p.staged.is_none()),
            NORMAL,
        );
        Some(Workload {
            interface: interface.clone(),
            mac: mac.clone(),
            addresses: addresses.clone(),
            spoofable: spoofable.clone(),
            staged: self.staged(&policies, &chains),
            chains,
            profiles: profiles.clone(),
            qos: qos.as_deref().cloned(),
        })
    }

    /// A host endpoint as it should be in force.
    pub(super) fn host(&self, name: &str) -> Option<Host> {
        let subject = Subject::Host(name.to_owned());
        let (
            number,
            Local::Host {
                interface,
                addresses,
                profiles,
            },
        ) = self.locals.endpoints.get(&subject)?
        else {
            return None;
        };
        let policies = self.policies_of(*number);
        let enforced = || policies.iter().copied().filter(|p| p.staged.is_none());
        let normal = self.chains(enforced(), NORMAL);
        let untracked = if *interface == HostInterface::Every {
            Chains::default()
        } else {
            passing(self.chains(enforced(), |stage| stage == Stage::Untracked))
        };
        Some(Host {
            interface: interface.clone(),
            addresses: addresses.clone(),
            staged: self.staged(&policies, &normal),
            normal,
            forward: self.chains(enforced(), |stage| stage == Stage::Normal { forward: true }),
            pre_dnat: passing(self.chains(enforced(), |stage| stage == Stage::PreDnat)).ingress,
            untracked,
            profiles: profiles.clone(),
        })
    }

    /// The policies that an endpoint has, in the order of evaluation, staged ones included.
    pub(super) fn policies_of(&self, number: ItemId) -> Vec<&Compiled> {
        let selectors = self.locals.index.selectors_of(number);
        let policies = selectors.filter_map(|selector| self.policies.of_selector(selector));
        let mut policies: Vec<&Compiled> = policies.map(AsRef::as_ref).collect();
        policies.sort_by(|left, right| {
            self.tiers
                .compare(&left.tier, &right.tier)
                .then(left.order.total_cmp(&right.order))
                .then_with(|| left.rank.cmp(&right.rank))
        });
        policies
    }

    /// Policies of some stages by tier and direction.
    fn chains<'a>(
        &self,
        policies: impl Iterator<Item = &'a Compiled>,
        stage: impl Fn(Stage) -> bool,
    ) -> Chains {
        let mut chains = Chains::default();
        let add = |tiers: &mut Vec<Tier>, policy: &Compiled| match tiers.last_mut() {
            Some(tier) if tier.name == policy.tier => tier.policies.push(policy.id.clone()),
            _ => tiers.push(Tier {
                name: policy.tier.clone(),
                policies: vec![policy.id.clone()],
                default: self.tiers.get(&policy.tier).default,
            }),
        };
        for policy in policies.filter(|policy| stage(policy.stage)) {
            if policy.ingress.is_some() {
                add(&mut chains.ingress, policy);
            }
            if policy.egress.is_some() {
                add(&mut chains.egress, policy);
            }
        }
        chains
    }

    /// The tiers as they would be with every staged policy in force, where that differs.
    fn staged(&self, policies: &[&Compiled], now: &Chains) -> Option<Chains> {
        if self.policies.stages_nothing() {
            return None;
        }
        let then = policies.iter().copied();
        let then = then.filter(|policy| !self.policies.is_replaced(&policy.id));
        Some(self.chains(then, NORMAL)).filter(|then| then != now)
    }
}

impl Subject {
    pub(super) fn of(key: &Key) -> Option<Self> {
        match (EndpointId::of(key), key) {
            (Some(id), _) => Some(Self::Workload(id)),
            (
                None,
                Key::Resource {
                    kind: margay_model::Kind::HostEndpoint,
                    name,
                    ..
                },
            ) => Some(Self::Host(name.clone())),
            _ => None,
        }
    }

    pub(super) fn key(&self) -> Key {
        match self {
            Self::Workload(id) => id.key(),
            Self::Host(name) => Key::resource(margay_model::Kind::HostEndpoint, name),
        }
    }
}

impl Local {
    pub(super) fn profiles(&self) -> &[String] {
        match self {
            Self::Workload { profiles, .. } | Self::Host { profiles, .. } => profiles,
        }
    }
}

fn workload(
    spec: &WorkloadEndpointSpec,
    item: Option<&Item>,
    problems: &mut Vec<Problem>,
) -> Option<Local> {
    let interface = spec.interface_name.clone().unwrap_or_default();
    let mut lacks = |what| problems.push(Problem::Lacks { what });
    if !is_interface_name(&interface) {
        lacks("interface");
        return None;
    }
    let Some(item) = item else {
        lacks("address");
        return None;
    };
    let mut left_out = |reason| problems.push(Problem::LeftOut { reason });
    let mac = spec.mac.as_ref().filter(|mac| !mac.is_empty());
    let (mac, bad_mac) = match mac {
        Some(mac) if !is_mac(mac) => (None, Some(mac)),
        mac => (mac.map(|mac| mac.to_ascii_lowercase()), None),
    };
    if let Some(mac) = bad_mac {
        left_out(format!("spec.mac: {mac:?} is no MAC address"));
    }
    let mut spoofable = Vec::new();
    for text in &spec.allow_spoofed_source_prefixes {
        match text.parse() {
            Ok(prefix) => spoofable.push(prefix),
            Err(error) => left_out(format!("spec.allowSpoofedSourcePrefixes: {error}")),
        }
    }
    spoofable.sort_unstable();
    spoofable.dedup();
    Some(Local::Workload {
        interface,
        mac,
        addresses: addresses(&item.nets).collect(),
        spoofable,
        profiles: spec.profiles.clone(),
        qos: spec.qos_controls.clone().map(Box::new),
    })
}

fn host(spec: &HostEndpointSpec, item: Option<&Item>, problems: &mut Vec<Problem>) -> Local {
    let interface = match spec.interface_name.as_str() {
        "" => HostInterface::Addressed,
        "*" => HostInterface::Every,
        name => HostInterface::Named(name.to_owned()),
    };
    let addresses: Vec<IpAddr> = item
        .map(|item| addresses(&item.nets).collect())
        .unwrap_or_default();
    if interface == HostInterface::Addressed && addresses.is_empty() {
        problems.push(Problem::Lacks {
            what: "interface and no address",
        });
    }
    Local::Host {
        interface,
        addresses,
        profiles: spec.profiles.clone(),
    }
}

/// Chains that only come before others: what they do not decide goes on.
fn passing(mut chains: Chains) -> Chains {
    for tier in chains.ingress.iter_mut().chain(&mut chains.egress) {
        tier.default = TierDefault::Pass;
    }
    chains
}

const NORMAL: fn(Stage) -> bool = |stage| matches!(stage, Stage::Normal { .. });
