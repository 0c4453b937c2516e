//! All policies of the cluster, under the names their authors gave them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use margay_model::Key;
use margay_selector::SelectorId;

use super::Calculator;
use crate::compile::{Compiled, Staged};
use crate::output::PolicyId;

/// The policies, in force or staged.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: HashMap<PolicyId, Known>,
    /// The policy that a stored key is of.
    ids: HashMap<Key, PolicyId>,
    by_selector: HashMap<SelectorId, PolicyId>,
    tiers: BTreeMap<String, BTreeSet<PolicyId>>,
    /// Staged policies by the policy whose place they would take.
    over: BTreeMap<PolicyId, BTreeSet<PolicyId>>,
}

#[derive(Debug)]
struct Known {
    /// The same policy under the names it is stored under: releases of Calico differ in that.
    forms: BTreeMap<String, Arc<Compiled>>,
    live: Arc<Compiled>,
    selector: Option<SelectorId>,
}

impl Policies {
    pub(super) fn get(&self, id: &PolicyId) -> Option<&Arc<Compiled>> {
        self.known.get(id).map(|known| &known.live)
    }

    pub(super) fn of_selector(&self, selector: SelectorId) -> Option<&Arc<Compiled>> {
        self.get(self.by_selector.get(&selector)?)
    }

    /// The selectors of a tier's policies.
    pub(super) fn in_tier(&self, tier: &str) -> impl Iterator<Item = SelectorId> + '_ {
        let ids = self.tiers.get(tier).into_iter().flatten();
        ids.filter_map(|id| self.known.get(id)?.selector)
    }

    /// The keys that policies are stored under, with the policies.
    pub(super) fn stored(&self) -> impl Iterator<Item = (&Key, &PolicyId)> {
        self.ids.iter()
    }

    /// Whether a staged policy would take this one's place.
    pub(super) fn is_replaced(&self, id: &PolicyId) -> bool {
        self.over.contains_key(id)
    }

    /// Whether nothing is staged.
    pub(super) fn stages_nothing(&self) -> bool {
        self.over.is_empty()
    }
}

impl Known {
    /// The form that counts: the one stored under the policy's own name, as the newest components do.
    fn best(&self, id: &PolicyId) -> Option<&Arc<Compiled>> {
        let own = self.forms.get(&id.name);
        own.or_else(|| self.forms.values().next())
    }
}

impl Calculator {
    pub(super) fn set_policy(&mut self, key: &Key, stored: &str, compiled: Option<Compiled>) {
        let id = compiled.as_ref().map(|compiled| compiled.id.clone());
        let before = match &id {
            Some(id) => self.policies.ids.insert(key.clone(), id.clone()),
            None => self.policies.ids.remove(key),
        };
        if let Some(before) = before.filter(|before| Some(before) != id.as_ref()) {
            if let Some(known) = self.policies.known.get_mut(&before) {
                known.forms.remove(stored);
            }
            self.refresh_policy(&before);
        }
        let Some((id, compiled)) = id.zip(compiled) else {
            return;
        };
        let compiled = Arc::new(compiled);
        if let Some(known) = self.policies.known.get_mut(&id) {
            known.forms.insert(stored.to_owned(), compiled);
            self.refresh_policy(&id);
        } else {
            let known = Known {
                forms: BTreeMap::from([(stored.to_owned(), Arc::clone(&compiled))]),
                live: Arc::clone(&compiled),
                selector: None,
            };
            self.policies.known.insert(id.clone(), known);
            self.attach(&id, &compiled);
        }
    }

    /// Brings a policy up to date with the forms it is stored in.
    fn refresh_policy(&mut self, id: &PolicyId) {
        let Some(known) = self.policies.known.get_mut(id) else {
            return;
        };
        let old = Arc::clone(&known.live);
        let Some(new) = known.best(id).cloned() else {
            self.detach(id, &old);
            self.policies.known.remove(id);
            return;
        };
        if new == old {
            return;
        }
        known.live = Arc::clone(&new);
        if place(&new) == place(&old) {
            // The rules only.
            self.dirty.policies.insert(id.clone());
        } else {
            self.detach(id, &old);
            self.attach(id, &new);
        }
    }

    /// Puts a policy before the endpoints it is for.
    fn attach(&mut self, id: &PolicyId, compiled: &Compiled) {
        self.dirty.policies.insert(id.clone());
        let tier = self
            .policies
            .tiers
            .entry(compiled.tier.clone())
            .or_default();
        tier.insert(id.clone());
        if let Some(target) = compiled.target() {
            let over = self.policies.over.entry(target.clone()).or_default();
            over.insert(id.clone());
            self.touch_endpoints(&target);
        }
        // One that only deletes another is for nobody itself.
        let selector = compiled
            .selector
            .clone()
            .filter(|_| compiled.staged != Some(Staged::Deletes));
        if let Some(selector) = selector {
            let selector = self.locals.index.add_selector(selector);
            self.policies.by_selector.insert(selector, id.clone());
            if let Some(known) = self.policies.known.get_mut(id) {
                known.selector = Some(selector);
            }
            self.touch_endpoints(id);
        }
    }

    /// Takes a policy away from its endpoints.
    fn detach(&mut self, id: &PolicyId, compiled: &Compiled) {
        self.dirty.policies.insert(id.clone());
        self.touch_endpoints(id);
        if let Some(tier) = self.policies.tiers.get_mut(&compiled.tier) {
            tier.remove(id);
            if tier.is_empty() {
                self.policies.tiers.remove(&compiled.tier);
            }
        }
        if let Some(target) = compiled.target() {
            if let Some(over) = self.policies.over.get_mut(&target) {
                over.remove(id);
                if over.is_empty() {
                    self.policies.over.remove(&target);
                }
            }
            self.touch_endpoints(&target);
        }
        let known = self.policies.known.get_mut(id);
        if let Some(selector) = known.and_then(|known| known.selector.take()) {
            self.policies.by_selector.remove(&selector);
            self.locals.index.remove_selector(selector);
        }
    }

    fn touch_endpoints(&mut self, id: &PolicyId) {
        let known = self.policies.known.get(id);
        let Some(selector) = known.and_then(|known| known.selector) else {
            return;
        };
        let items = self.locals.index.items_of(selector);
        let subjects = items.filter_map(|item| self.locals.subject(item));
        self.dirty.subjects.extend(subjects.cloned());
    }
}

/// What decides where a policy stands at which endpoints.
fn place(compiled: &Compiled) -> impl PartialEq + '_ {
    (
        &compiled.tier,
        compiled.order.to_bits(),
        &compiled.selector,
        compiled.ingress.is_some(),
        compiled.egress.is_some(),
        compiled.stage,
        compiled.staged,
    )
}
