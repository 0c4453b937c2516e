//! What the kernel has under our table's name.

use std::collections::BTreeMap;

use crate::batch::{Batch, Operation};
use crate::expression::Expression;
use crate::{Base, Element, Key, Rule, Set, SetSpec};

/// What the kernel has under our table's name: nothing, or a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The table.
    pub table: Option<ObservedTable>,
}

/// A table as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedTable {
    /// `NFT_TABLE_F_*`: dormant, or owned by a process. Ours has none.
    pub flags: u32,
    /// Its comment.
    pub comment: Option<String>,
    /// Its sets, by name.
    pub sets: BTreeMap<String, ObservedSet>,
    /// Its chains, by name.
    pub chains: BTreeMap<String, ObservedChain>,
    /// Whether it has things that ours never has: objects, flowtables.
    pub foreign: bool,
}

/// A set as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSet {
    /// What it is; `None` if no set of ours is like that.
    pub spec: Option<SetSpec>,
    /// What is in it.
    pub elements: BTreeMap<Key, Element>,
}

/// A chain as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedChain {
    /// Where packets come in.
    pub base: ObservedBase,
    /// The rules, in order.
    pub rules: Vec<ObservedRule>,
    /// Its comment.
    pub comment: Option<String>,
}

/// Where packets come into a chain as the kernel has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ObservedBase {
    /// Only from other chains.
    #[default]
    Regular,
    /// As into a base chain of ours.
    Base(Base),
    /// As into no chain of ours.
    Foreign,
}

/// A rule as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedRule {
    /// Its instructions.
    pub expressions: Vec<Expression>,
    /// Its comment.
    pub comment: Option<String>,
}

impl Observed {
    /// What the kernel has after a batch, if it took it.
    pub fn apply(&mut self, batch: &Batch) {
        for operation in &batch.operations {
            self.apply_one(operation);
        }
    }

    fn apply_one(&mut self, operation: &Operation) {
        if let Operation::AddTable { comment } = operation {
            self.table.get_or_insert_with(|| ObservedTable {
                comment: Some(comment.clone()),
                ..ObservedTable::default()
            });
            return;
        }
        if *operation == Operation::DeleteTable {
            self.table = None;
            return;
        }
        let Some(table) = &mut self.table else {
            return;
        };
        match operation {
            Operation::AddTable { .. } | Operation::DeleteTable => {}
            Operation::AddSet { name, spec } => {
                let set = ObservedSet {
                    spec: Some(spec.clone()),
                    elements: BTreeMap::new(),
                };
                table.sets.insert(name.clone(), set);
            }
            Operation::DeleteSet { name } => {
                table.sets.remove(name);
            }
            Operation::AddElements { set, elements, .. } => {
                if let Some(set) = table.sets.get_mut(set) {
                    set.elements.extend(elements.iter().cloned());
                }
            }
            Operation::DeleteElements { set, keys, .. } => {
                if let Some(set) = table.sets.get_mut(set) {
                    for key in keys {
                        set.elements.remove(key);
                    }
                }
            }
            Operation::AddChain {
                name,
                base,
                comment,
            } => {
                let chain = ObservedChain {
                    base: base.map_or(ObservedBase::Regular, ObservedBase::Base),
                    rules: Vec::new(),
                    comment: comment.clone(),
                };
                table.chains.insert(name.clone(), chain);
            }
            Operation::FlushChain { name } => {
                if let Some(chain) = table.chains.get_mut(name) {
                    chain.rules.clear();
                }
            }
            Operation::DeleteChain { name } => {
                table.chains.remove(name);
            }
            Operation::AddRule { chain, rule } => {
                if let Some(chain) = table.chains.get_mut(chain) {
                    chain.rules.push(ObservedRule::from(rule));
                }
            }
        }
    }
}

impl From<&Rule> for ObservedRule {
    fn from(rule: &Rule) -> Self {
        Self {
            expressions: rule.expressions(),
            comment: rule.comment.clone(),
        }
    }
}

impl ObservedSet {
    /// Whether it is the same as this, elements and all.
    #[must_use]
    pub fn is(&self, set: &Set) -> bool {
        self.spec.as_ref() == Some(&set.spec) && self.elements == set.elements
    }
}
