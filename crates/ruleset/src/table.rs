//! Our table: what is in it, and what of it has changed.

use std::collections::{BTreeMap, BTreeSet};

use crate::expression::Expression;
use crate::{Element, Key, Set, Statement, Verdict};

/// A table of family `inet`, as it should be.
///
/// It notes what has been changed since [`Table::take_changes`], so that a change costs the
/// change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: String,
    comment: String,
    sets: BTreeMap<String, Set>,
    chains: BTreeMap<String, Chain>,
    changes: Changes,
}

/// What may differ from what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Chains that are new, gone or other.
    pub chains: BTreeSet<String>,
    /// Sets that are new, gone or other as a whole.
    pub sets: BTreeSet<String>,
    /// Elements that are new, gone or other, by their set.
    pub elements: BTreeMap<String, BTreeSet<Key>>,
}

/// A chain of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where packets come in; `None` for a chain that others lead to.
    pub base: Option<Base>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// What it stands for, for people; at most 127 bytes.
    pub comment: Option<String>,
}

/// Where packets come into a base chain. Its policy is to accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: ChainKind,
    /// Where in the packet's path.
    pub hook: Hook,
    /// Its place among the chains of that hook: the lowest is first.
    pub priority: i32,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Decide.
    Filter,
    /// Translate addresses; sees the first packet of a connection only.
    Nat,
}

/// A place in a packet's path (`NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Everything that comes in.
    Prerouting,
    /// What comes in for the host itself.
    Input,
    /// What passes through.
    Forward,
    /// What the host itself sends.
    Output,
    /// Everything that leaves.
    Postrouting,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it says, in order.
    pub statements: Vec<Statement>,
    /// Where it comes from, for people; at most 127 bytes.
    pub comment: Option<String>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(name: &str, comment: &str) -> Self {
        Self {
            name: name.to_owned(),
            comment: crate::comment(comment),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
            changes: Changes::default(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is for, for people.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Its sets and maps, by name.
    #[must_use]
    pub fn sets(&self) -> &BTreeMap<String, Set> {
        &self.sets
    }

    /// Its chains, by name.
    #[must_use]
    pub fn chains(&self) -> &BTreeMap<String, Chain> {
        &self.chains
    }

    /// Puts a chain in place of the one of this name, if any.
    pub fn put_chain(&mut self, name: &str, chain: Chain) {
        if self.chains.get(name) != Some(&chain) {
            self.changes.chains.insert(name.to_owned());
            self.chains.insert(name.to_owned(), chain);
        }
    }

    /// Takes a chain out.
    pub fn remove_chain(&mut self, name: &str) {
        if self.chains.remove(name).is_some() {
            self.changes.chains.insert(name.to_owned());
        }
    }

    /// Puts a set in place of the one of this name, if any.
    pub fn put_set(&mut self, name: &str, set: Set) {
        if self.sets.get(name) != Some(&set) {
            self.changes.sets.insert(name.to_owned());
            self.changes.elements.remove(name);
            self.sets.insert(name.to_owned(), set);
        }
    }

    /// Takes a set out.
    pub fn remove_set(&mut self, name: &str) {
        if self.sets.remove(name).is_some() {
            self.changes.sets.insert(name.to_owned());
            self.changes.elements.remove(name);
        }
    }

    /// Puts an element into a set; nothing happens if there is no such set.
    pub fn put_element(&mut self, set: &str, key: Key, element: Element) {
        let Some(found) = self.sets.get_mut(set) else {
            return;
        };
        if found.elements.get(&key) != Some(&element) {
            found.elements.insert(key.clone(), element);
            self.note_element(set, key);
        }
    }

    /// Takes an element out of a set.
    pub fn remove_element(&mut self, set: &str, key: &Key) {
        let found = self.sets.get_mut(set);
        if found.is_some_and(|set| set.elements.remove(key).is_some()) {
            self.note_element(set, key.clone());
        }
    }

    /// What has been changed since it was last asked.
    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    fn note_element(&mut self, set: &str, key: Key) {
        if self.changes.sets.contains(set) {
            return;
        }
        match self.changes.elements.get_mut(set) {
            Some(keys) => {
                keys.insert(key);
            }
            None => {
                let keys = BTreeSet::from([key]);
                self.changes.elements.insert(set.to_owned(), keys);
            }
        }
    }
}

impl Changes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.sets.is_empty() && self.elements.is_empty()
    }
}

impl Chain {
    /// A chain that others lead to.
    #[must_use]
    pub fn regular(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            base: None,
            rules: rules.into_iter().collect(),
            comment: None,
        }
    }

    /// A chain into which packets come.
    #[must_use]
    pub fn base(base: Base, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            base: Some(base),
            rules: rules.into_iter().collect(),
            comment: None,
        }
    }

    /// The same with a comment, cut to what fits.
    #[must_use]
    pub fn commented(mut self, comment: &str) -> Self {
        self.comment = Some(crate::comment(comment));
        self
    }
}

impl Base {
    /// A place for filtering.
    #[must_use]
    pub fn filter(hook: Hook, priority: i32) -> Self {
        Self {
            kind: ChainKind::Filter,
            hook,
            priority,
        }
    }
}

impl Rule {
    /// A rule of these statements.
    #[must_use]
    pub fn new(statements: impl Into<Vec<Statement>>) -> Self {
        Self {
            statements: statements.into(),
            comment: None,
        }
    }

    /// The same with a comment, cut to what fits.
    #[must_use]
    pub fn commented(mut self, comment: &str) -> Self {
        self.comment = Some(crate::comment(comment));
        self
    }

    /// The same with a verdict at its end.
    #[must_use]
    pub fn then(mut self, verdict: Verdict) -> Self {
        self.statements.push(Statement::Verdict(verdict));
        self
    }

    /// The instructions that say it to the kernel.
    #[must_use]
    pub fn expressions(&self) -> Vec<Expression> {
        let mut expressions = Vec::new();
        for statement in &self.statements {
            statement.lower(&mut expressions);
        }
        expressions
    }
}
