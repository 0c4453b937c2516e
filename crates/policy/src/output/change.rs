//! The state of a node, and how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    EndpointId, Host, HostInterface, Member, Policy, PolicyId, Profile, Set, SetId, Workload,
};

/// Everything that should be in force on a node.
///
/// Closed: whatever a part of it names is there, and nothing is there that no part of it names, except
/// endpoints, and policies that ask to be prepared on every node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// The sets that the rules below name.
    pub sets: BTreeMap<SetId, Set>,
    /// The policies that endpoints below have.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// The profiles that endpoints below have.
    pub profiles: BTreeMap<String, Profile>,
    /// The workload endpoints of this node.
    pub workloads: BTreeMap<EndpointId, Workload>,
    /// The host endpoints of this node, by name.
    pub hosts: BTreeMap<String, Host>,
}

/// The difference between two [`Desired`] states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// Sets that are new, and members that come and go.
    pub sets: BTreeMap<SetId, SetChange>,
    /// Sets that are gone.
    pub removed_sets: BTreeSet<SetId>,
    /// Policies that are new or have other rules.
    pub policies: BTreeMap<PolicyId, Policy>,
    /// Policies that are gone.
    pub removed_policies: BTreeSet<PolicyId>,
    /// Profiles that are new or have other rules.
    pub profiles: BTreeMap<String, Profile>,
    /// Profiles that are gone.
    pub removed_profiles: BTreeSet<String>,
    /// Workload endpoints that are new or differ.
    pub workloads: BTreeMap<EndpointId, Workload>,
    /// Workload endpoints that are gone.
    pub removed_workloads: BTreeSet<EndpointId>,
    /// Host endpoints that are new or differ.
    pub hosts: BTreeMap<String, Host>,
    /// Host endpoints that are gone.
    pub removed_hosts: BTreeSet<String>,
}

/// What happens to a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetChange {
    /// It is new.
    New(Set),
    /// It has other members.
    Members {
        /// Those that it did not have.
        added: BTreeSet<Member>,
        /// Those that it has no longer.
        removed: BTreeSet<Member>,
    },
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Desired> for Delta {
    /// The difference from the empty state.
    fn from(desired: Desired) -> Self {
        let sets = desired.sets.into_iter();
        Self {
            sets: sets.map(|(id, set)| (id, SetChange::New(set))).collect(),
            policies: desired.policies,
            profiles: desired.profiles,
            workloads: desired.workloads,
            hosts: desired.hosts,
            ..Self::default()
        }
    }
}

impl Desired {
    /// Takes in a difference.
    ///
    /// Differences are told in order, each once, beginning with the empty state; members of a set that
    /// is not there are passed over.
    pub fn apply(&mut self, delta: Delta) {
        for id in &delta.removed_sets {
            self.sets.remove(id);
        }
        for (id, change) in delta.sets {
            match change {
                SetChange::New(set) => {
                    self.sets.insert(id, set);
                }
                SetChange::Members { added, removed } => {
                    if let Some(set) = self.sets.get_mut(&id) {
                        for member in &removed {
                            set.members.remove(member);
                        }
                        set.members.extend(added);
                    }
                }
            }
        }
        replace(&mut self.policies, delta.policies, &delta.removed_policies);
        replace(&mut self.profiles, delta.profiles, &delta.removed_profiles);
        replace(
            &mut self.workloads,
            delta.workloads,
            &delta.removed_workloads,
        );
        replace(&mut self.hosts, delta.hosts, &delta.removed_hosts);
    }

    /// The host endpoint that governs an interface which leads to no workload and bears these
    /// addresses.
    ///
    /// Of those that claim it by name or by address, the first by name; where none does, the first of
    /// those that claim every interface.
    pub fn host_of(&self, interface: &str, addresses: &[IpAddr]) -> Option<(&str, &Host)> {
        let first = |wanted: &dyn Fn(&Host) -> bool| {
            let mut hosts = self.hosts.iter();
            hosts.find(|(_, host)| wanted(host))
        };
        first(&|host| host.governs(interface, addresses))
            .or_else(|| first(&|host| host.interface == HostInterface::Every))
            .map(|(name, host)| (name.as_str(), host))
    }
}

impl Host {
    /// Whether it claims this interface in particular, by name or by address. One that claims an
    /// interface by name claims no other by address.
    pub fn governs(&self, interface: &str, addresses: &[IpAddr]) -> bool {
        match &self.interface {
            HostInterface::Named(name) => name == interface,
            HostInterface::Addressed => addresses.iter().any(|a| self.addresses.contains(a)),
            HostInterface::Every => false,
        }
    }
}

fn replace<K: Ord, V>(map: &mut BTreeMap<K, V>, changed: BTreeMap<K, V>, removed: &BTreeSet<K>) {
    for key in removed {
        map.remove(key);
    }
    map.extend(changed);
}
