//! The planner: from a difference to a transaction.

use std::iter;

use crate::batch::{Batch, Operation};
use crate::observed::{Observed, ObservedBase, ObservedChain, ObservedRule, ObservedSet};
use crate::{
    Base, Chain, Changes, Data, Element, Hook, Key, ObservedTable, Rule, Set, Statement, Table,
    Verdict,
};

/// The transaction from `observed` to `desired`.
///
/// What is not in `desired` is removed: the table is ours alone. A set, base chain or table that
/// has become another kind of thing cannot be changed in place; then the whole table is replaced,
/// still in one transaction, so that no packet meets a gap.
///
/// Order: sets, with elements that lead nowhere; chains without rules; rules; elements that lead
/// to chains; then the rules, sets and chains that are gone, so that nothing is removed while
/// something leads to it. A chain that has changed gets all its rules anew, which sets their
/// counters to 0.
#[must_use]
pub fn plan(desired: &Table, observed: &Observed) -> Batch {
    let Some(table) = usable(desired, observed) else {
        return replacement(desired, observed);
    };
    let mut planner = Planner::default();
    for (name, set) in desired.sets() {
        match table.sets.get(name) {
            None => planner.add_set(name, set),
            Some(there) if there.spec.as_ref() != Some(&set.spec) => {
                return replacement(desired, observed);
            }
            Some(there) => planner.compare_elements(name, set, there),
        }
    }
    for name in table
        .sets
        .keys()
        .filter(|name| !desired.sets().contains_key(*name))
    {
        planner.remove_set(name);
    }
    for (name, chain) in desired.chains() {
        if planner
            .compare_chain(name, chain, table.chains.get(name))
            .is_none()
        {
            return replacement(desired, observed);
        }
    }
    for name in table
        .chains
        .keys()
        .filter(|name| !desired.chains().contains_key(*name))
    {
        planner.remove_chain(name);
    }
    planner.finish(desired.name())
}

/// As [`plan()`], looking at nothing but what has changed: `observed` must be as it was when
/// `changes` began to be noted.
#[must_use]
pub fn plan_changes(desired: &Table, observed: &Observed, changes: &Changes) -> Batch {
    let Some(table) = usable(desired, observed) else {
        return replacement(desired, observed);
    };
    let mut planner = Planner::default();
    for name in &changes.sets {
        match (desired.sets().get(name), table.sets.get(name)) {
            (None, None) => {}
            (None, Some(_)) => planner.remove_set(name),
            (Some(set), None) => planner.add_set(name, set),
            (Some(set), Some(there)) if there.spec.as_ref() != Some(&set.spec) => {
                return replacement(desired, observed);
            }
            (Some(set), Some(there)) => planner.compare_elements(name, set, there),
        }
    }
    for (name, keys) in &changes.elements {
        if let (Some(set), Some(there)) = (desired.sets().get(name), table.sets.get(name)) {
            let keys = keys.iter();
            planner.compare_keys(name, set, keys.map(|key| (key, there.elements.get(key))));
        }
    }
    for name in &changes.chains {
        let there = table.chains.get(name);
        match desired.chains().get(name) {
            None if there.is_some() => planner.remove_chain(name),
            Some(chain) if planner.compare_chain(name, chain, there).is_none() => {
                return replacement(desired, observed);
            }
            _ => {}
        }
    }
    planner.finish(desired.name())
}

/// A small table that drops whatever goes to or from workloads, except what is established: to
/// be put in force first when ours is gone, since the whole may take a while.
///
/// `prefixes` are those of the workloads' interfaces.
#[must_use]
pub fn closed(name: &str, comment: &str, prefixes: &[String]) -> Table {
    let mut table = Table::new(name, comment);
    for (chain, hook, field) in [
        ("closed-from", Hook::Forward, crate::Field::InInterface),
        ("closed-to", Hook::Forward, crate::Field::OutInterface),
        ("closed-in", Hook::Input, crate::Field::InInterface),
    ] {
        let established = Rule::new([Statement::is(
            crate::Field::CtState,
            crate::datatype::CT_ESTABLISHED.to_ne_bytes(),
        )])
        .then(Verdict::Accept);
        let drops = prefixes.iter().map(|prefix| {
            Rule::new([
                Statement::Interface {
                    field,
                    prefix: prefix.clone(),
                    negated: false,
                },
                Statement::Counter,
            ])
            .then(Verdict::Drop)
            .commented("the table is being restored")
        });
        let rules = iter::once(established).chain(drops);
        table.put_chain(chain, Chain::base(Base::filter(hook, CLOSED), rules));
    }
    table
}

/// The table that is there, if it can be changed in place.
fn usable<'a>(desired: &Table, observed: &'a Observed) -> Option<&'a ObservedTable> {
    observed.table.as_ref().filter(|table| {
        let ours = table.comment.as_deref() == Some(desired.comment());
        ours && table.flags == 0 && !table.foreign
    })
}

/// The whole table, in place of what is there.
fn replacement(desired: &Table, observed: &Observed) -> Batch {
    let mut planner = Planner::default();
    for (name, set) in desired.sets() {
        planner.add_set(name, set);
    }
    for (name, chain) in desired.chains() {
        planner.add_chain(name, chain);
    }
    let mut batch = planner.finish(desired.name());
    let remove = observed.table.is_some().then_some(Operation::DeleteTable);
    let add = Operation::AddTable {
        comment: desired.comment().to_owned(),
    };
    let rest = std::mem::take(&mut batch.operations);
    batch.operations = remove.into_iter().chain([add]).chain(rest).collect();
    batch
}

/// The operations found so far, by their place in the order.
#[derive(Debug, Default)]
struct Planner {
    new_sets: Vec<Operation>,
    new_chains: Vec<Operation>,
    rules: Vec<Operation>,
    verdicts: Vec<Operation>,
    gone_rules: Vec<Operation>,
    gone_sets: Vec<Operation>,
    gone_chains: Vec<Operation>,
}

impl Planner {
    fn add_set(&mut self, name: &str, set: &Set) {
        self.new_sets.push(Operation::AddSet {
            name: name.to_owned(),
            spec: set.spec.clone(),
        });
        let elements = set.elements.iter();
        let elements = elements.map(|(key, element)| (key.clone(), element.clone()));
        self.add_elements(name, set, elements.collect());
    }

    fn remove_set(&mut self, name: &str) {
        let name = name.to_owned();
        self.gone_sets.push(Operation::DeleteSet { name });
    }

    fn compare_elements(&mut self, name: &str, set: &Set, there: &ObservedSet) {
        let new = set.elements.keys();
        let new = new.map(|key| (key, there.elements.get(key)));
        let gone = there.elements.iter();
        let gone = gone.filter(|(key, _)| !set.elements.contains_key(*key));
        let gone = gone.map(|(key, element)| (key, Some(element)));
        self.compare_keys(name, set, new.chain(gone));
    }

    /// `keys` are what may differ, each with what is there.
    fn compare_keys<'k>(
        &mut self,
        name: &str,
        set: &Set,
        keys: impl Iterator<Item = (&'k Key, Option<&'k Element>)>,
    ) {
        let mut added = Vec::new();
        let mut removed = Vec::new();
        for (key, there) in keys {
            let wanted = set.elements.get(key);
            if wanted == there {
                continue;
            }
            if there.is_some() {
                removed.push(key.clone());
            }
            if let Some(wanted) = wanted {
                added.push((key.clone(), wanted.clone()));
            }
        }
        // First, for elements that have another value and intervals that take others' place.
        if !removed.is_empty() {
            self.elements(set).push(Operation::DeleteElements {
                set: name.to_owned(),
                spec: set.spec.clone(),
                keys: removed,
            });
        }
        self.add_elements(name, set, added);
    }

    fn add_elements(&mut self, name: &str, set: &Set, elements: Vec<(Key, Element)>) {
        if !elements.is_empty() {
            self.elements(set).push(Operation::AddElements {
                set: name.to_owned(),
                spec: set.spec.clone(),
                elements,
            });
        }
    }

    /// Where a set's elements come in the order.
    fn elements(&mut self, set: &Set) -> &mut Vec<Operation> {
        if set.spec.data == Some(Data::Verdict) {
            &mut self.verdicts
        } else {
            &mut self.new_sets
        }
    }

    fn add_chain(&mut self, name: &str, chain: &Chain) {
        self.new_chains.push(Operation::AddChain {
            name: name.to_owned(),
            base: chain.base,
            comment: chain.comment.clone(),
        });
        self.add_rules(name, chain);
    }

    fn add_rules(&mut self, name: &str, chain: &Chain) {
        self.rules
            .extend(chain.rules.iter().map(|rule| Operation::AddRule {
                chain: name.to_owned(),
                rule: rule.clone(),
            }));
    }

    fn remove_chain(&mut self, name: &str) {
        let name = name.to_owned();
        self.gone_rules
            .push(Operation::FlushChain { name: name.clone() });
        self.gone_chains.push(Operation::DeleteChain { name });
    }

    /// `None` if the chain cannot be changed in place.
    fn compare_chain(
        &mut self,
        name: &str,
        chain: &Chain,
        there: Option<&ObservedChain>,
    ) -> Option<()> {
        let Some(there) = there else {
            self.add_chain(name, chain);
            return Some(());
        };
        let base = chain.base.map_or(ObservedBase::Regular, ObservedBase::Base);
        if base != there.base || chain.comment != there.comment {
            return None;
        }
        let same = chain.rules.len() == there.rules.len()
            && iter::zip(&chain.rules, &there.rules)
                .all(|(rule, there)| ObservedRule::from(rule) == *there);
        if !same {
            let name_of = name.to_owned();
            self.rules.push(Operation::FlushChain { name: name_of });
            self.add_rules(name, chain);
        }
        Some(())
    }

    fn finish(self, table: &str) -> Batch {
        let parts = [
            self.new_sets,
            self.new_chains,
            self.rules,
            self.verdicts,
            self.gone_rules,
            self.gone_sets,
            self.gone_chains,
        ];
        Batch {
            table: table.to_owned(),
            operations: parts.into_iter().flatten().collect(),
        }
    }
}

/// Before every other filter.
const CLOSED: i32 = -310;
