//! A transaction: all of it is put in force at once, or none.

use crate::{Base, Element, Key, Rule, SetSpec};

/// Operations on a table that are put in force together, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The table's name.
    pub table: String,
    /// The operations.
    pub operations: Vec<Operation>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Makes the table if it is not there.
    AddTable {
        /// Its comment.
        comment: String,
    },
    /// Removes the table with everything in it.
    DeleteTable,
    /// Makes a set.
    AddSet {
        /// Its name.
        name: String,
        /// What it is.
        spec: SetSpec,
    },
    /// Removes a set that no rule reads.
    DeleteSet {
        /// Its name.
        name: String,
    },
    /// Puts elements into a set.
    AddElements {
        /// The set.
        set: String,
        /// What it is.
        spec: SetSpec,
        /// The elements.
        elements: Vec<(Key, Element)>,
    },
    /// Takes elements out of a set.
    DeleteElements {
        /// The set.
        set: String,
        /// What it is.
        spec: SetSpec,
        /// Their keys.
        keys: Vec<Key>,
    },
    /// Makes a chain without rules.
    AddChain {
        /// Its name.
        name: String,
        /// Where packets come in.
        base: Option<Base>,
        /// Its comment.
        comment: Option<String>,
    },
    /// Removes the rules of a chain.
    FlushChain {
        /// Its name.
        name: String,
    },
    /// Removes a chain that nothing leads to.
    DeleteChain {
        /// Its name.
        name: String,
    },
    /// Puts a rule at the end of a chain.
    AddRule {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
}

impl Batch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }
}

impl Operation {
    /// The object it is about, for errors and logs.
    #[must_use]
    pub fn object(&self) -> String {
        match self {
            Self::AddTable { .. } => "adding the table".to_owned(),
            Self::DeleteTable => "deleting the table".to_owned(),
            Self::AddSet { name, .. } => format!("adding set {name}"),
            Self::DeleteSet { name } => format!("deleting set {name}"),
            Self::AddElements { set, elements, .. } => {
                format!("adding {} elements to set {set}", elements.len())
            }
            Self::DeleteElements { set, keys, .. } => {
                format!("deleting {} elements of set {set}", keys.len())
            }
            Self::AddChain { name, .. } => format!("adding chain {name}"),
            Self::FlushChain { name } => format!("emptying chain {name}"),
            Self::DeleteChain { name } => format!("deleting chain {name}"),
            Self::AddRule { chain, rule } => match &rule.comment {
                Some(comment) => format!("adding the rule of {comment:?} to chain {chain}"),
                None => format!("adding a rule to chain {chain}"),
            },
        }
    }
}
