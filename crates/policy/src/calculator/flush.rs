//! What has changed since the last time.

use std::collections::HashMap;
use std::sync::Arc;

use super::Calculator;
use super::local::Subject;
use crate::compile::{Compiled, CompiledProfile, Sets, denying_profile};
use crate::output::{Chains, Delta, EndpointId, Host, Policy, PolicyId, Profile, Tier, Workload};

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Told {
    workloads: HashMap<EndpointId, Workload>,
    hosts: HashMap<String, Host>,
    policies: HashMap<PolicyId, Arc<Compiled>>,
    profiles: HashMap<String, Arc<CompiledProfile>>,
    /// How many endpoints' directions name each policy.
    policy_users: HashMap<PolicyId, usize>,
    /// How many endpoints name each profile.
    profile_users: HashMap<String, usize>,
}

/// What a told endpoint names.
struct Names<'a> {
    chains: Vec<&'a [Tier]>,
    profiles: &'a [String],
}

impl Told {
    /// Whether a policy is in force.
    pub(super) fn has_policy(&self, id: &PolicyId) -> bool {
        self.policies.contains_key(id)
    }
}

impl Calculator {
    pub(super) fn flush_all(&mut self) -> Delta {
        let mut delta = Delta::default();
        for subject in std::mem::take(&mut self.dirty.subjects) {
            match subject {
                Subject::Workload(id) => self.flush_workload(id, &mut delta),
                Subject::Host(name) => self.flush_host(name, &mut delta),
            }
        }
        for id in std::mem::take(&mut self.dirty.policies) {
            self.flush_policy(id, &mut delta);
        }
        for name in std::mem::take(&mut self.dirty.profiles) {
            self.flush_profile(name, &mut delta);
        }
        self.sets.flush(&mut self.index, &mut delta);
        delta
    }

    fn flush_workload(&mut self, id: EndpointId, delta: &mut Delta) {
        let new = self.workload(&id);
        let old = self.told.workloads.remove(&id);
        if new != old {
            if let Some(new) = &new {
                self.count(&names_of_workload(new), 1);
            }
            if let Some(old) = &old {
                self.count(&names_of_workload(old), -1);
            }
            match &new {
                Some(new) => drop(delta.workloads.insert(id.clone(), new.clone())),
                None => drop(delta.removed_workloads.insert(id.clone())),
            }
        }
        if let Some(new) = new {
            self.told.workloads.insert(id, new);
        }
    }

    fn flush_host(&mut self, name: String, delta: &mut Delta) {
        let new = self.host(&name);
        let old = self.told.hosts.remove(&name);
        if new != old {
            if let Some(new) = &new {
                self.count(&names_of_host(new), 1);
            }
            if let Some(old) = &old {
                self.count(&names_of_host(old), -1);
            }
            match &new {
                Some(new) => drop(delta.hosts.insert(name.clone(), new.clone())),
                None => drop(delta.removed_hosts.insert(name.clone())),
            }
        }
        if let Some(new) = new {
            self.told.hosts.insert(name, new);
        }
    }

    /// Counts who names policies and profiles, and marks those that begin or cease to be named.
    fn count(&mut self, names: &Names<'_>, by: isize) {
        let policies = names.chains.iter().copied().flatten();
        for id in policies.flat_map(|tier| &tier.policies) {
            if count(&mut self.told.policy_users, id, by) {
                self.dirty.policies.insert(id.clone());
            }
        }
        for profile in names.profiles {
            if count(&mut self.told.profile_users, profile, by) {
                self.dirty.profiles.insert(profile.clone());
            }
        }
    }

    fn flush_policy(&mut self, id: PolicyId, delta: &mut Delta) {
        let used = self.told.policy_users.contains_key(&id);
        let new = self.policies.get(&id).filter(|compiled| {
            let needed = used || compiled.everywhere && compiled.selector.is_some();
            needed && compiled.staged.is_none()
        });
        let new = new.cloned();
        let old = self.told.policies.remove(&id);
        let nothing = Sets::new();
        let sets = |compiled: &Option<Arc<Compiled>>| compiled.as_ref().map(|c| c.sets.clone());
        let (new_sets, old_sets) = (sets(&new), sets(&old));
        self.exchange(
            new_sets.as_ref().unwrap_or(&nothing),
            old_sets.as_ref().unwrap_or(&nothing),
        );
        let (after, before) = (new.as_deref().map(rules), old.as_deref().map(rules));
        if after != before {
            match after {
                Some(policy) => drop(delta.policies.insert(id.clone(), policy)),
                None => drop(delta.removed_policies.insert(id.clone())),
            }
        }
        if let Some(new) = new {
            self.told.policies.insert(id, new);
        }
    }

    fn flush_profile(&mut self, name: String, delta: &mut Delta) {
        let used = self.told.profile_users.contains_key(&name);
        let new = used.then(|| match self.profiles.get(&name) {
            Some(profile) => Arc::clone(profile),
            None => Arc::new(denying_profile()),
        });
        let old = self.told.profiles.remove(&name);
        let nothing = Sets::new();
        let sets =
            |profile: &Option<Arc<CompiledProfile>>| profile.as_ref().map(|p| p.sets.clone());
        let (new_sets, old_sets) = (sets(&new), sets(&old));
        self.exchange(
            new_sets.as_ref().unwrap_or(&nothing),
            old_sets.as_ref().unwrap_or(&nothing),
        );
        let rules = |profile: &Option<Arc<CompiledProfile>>| -> Option<Profile> {
            profile.as_ref().map(|profile| profile.rules.clone())
        };
        let (after, before) = (rules(&new), rules(&old));
        if after != before {
            match after {
                Some(profile) => drop(delta.profiles.insert(name.clone(), profile)),
                None => drop(delta.removed_profiles.insert(name.clone())),
            }
        }
        if let Some(new) = new {
            self.told.profiles.insert(name, new);
        }
    }

    /// Takes the new sets in use before the old ones are let go, so that what stays is not built anew.
    fn exchange(&mut self, new: &Sets, old: &Sets) {
        for (id, spec) in new.iter().filter(|(id, _)| !old.contains_key(id)) {
            self.sets
                .acquire(*id, spec, &mut self.index, &self.items, &self.services);
        }
        for id in old.keys().filter(|id| !new.contains_key(id)) {
            self.sets.release(*id);
        }
    }
}

/// Whether something begins or ceases to be counted.
fn count<K: Clone + Eq + std::hash::Hash>(
    users: &mut HashMap<K, usize>,
    key: &K,
    by: isize,
) -> bool {
    let before = users.get(key).copied().unwrap_or_default();
    let after = before.saturating_add_signed(by);
    if after == 0 {
        users.remove(key);
    } else {
        users.insert(key.clone(), after);
    }
    (before == 0) != (after == 0)
}

fn names_of_workload(workload: &Workload) -> Names<'_> {
    Names {
        chains: both(&workload.chains).into(),
        profiles: &workload.profiles,
    }
}

fn names_of_host(host: &Host) -> Names<'_> {
    let mut chains = Vec::new();
    for pair in [&host.normal, &host.forward, &host.untracked] {
        chains.extend(both(pair));
    }
    chains.push(&host.pre_dnat);
    Names {
        chains,
        profiles: &host.profiles,
    }
}

fn both(chains: &Chains) -> [&[Tier]; 2] {
    [&chains.ingress, &chains.egress]
}

fn rules(compiled: &Compiled) -> Policy {
    Policy {
        tier: compiled.tier.clone(),
        ingress: compiled.ingress.clone().unwrap_or_default(),
        egress: compiled.egress.clone().unwrap_or_default(),
    }
}
