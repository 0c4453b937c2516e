//! Classes: items with the same labels and the same parents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ids::Ids;
use super::intern::{Interner, Sym};
use crate::Labels;

/// What the items of a class have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    /// Names and values of the labels in turn, sorted by name; then the parents in their order.
    syms: Box<[Sym]>,
    labels: usize,
}

#[derive(Debug)]
pub(super) struct Class {
    pub(super) key: Arc<ClassKey>,
    pub(super) items: Ids,
    /// The selectors it satisfies.
    pub(super) selectors: Ids,
}

/// Labels that classes inherit.
#[derive(Debug, Default)]
pub(super) struct Parent {
    /// Sorted by name.
    pub(super) labels: Vec<(Sym, Sym)>,
    /// The classes that name it.
    pub(super) classes: Ids,
}

/// The labels of a class, its own and inherited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effective<'a> {
    pub(super) names: &'a Interner,
    pub(super) key: &'a ClassKey,
    pub(super) parents: &'a HashMap<Sym, Parent>,
}

impl ClassKey {
    /// Takes a reference to each name.
    pub(super) fn new<'a>(
        names: &mut Interner,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        parents: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let labels = pairs(names, labels);
        let mut syms: Vec<Sym> = labels.iter().flat_map(|(n, v)| [*n, *v]).collect();
        let start = syms.len();
        for parent in parents {
            let parent = names.acquire(parent);
            if syms[start..].contains(&parent) {
                names.release(parent);
            } else {
                syms.push(parent);
            }
        }
        Self {
            syms: syms.into(),
            labels: labels.len(),
        }
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (Sym, Sym)> + '_ {
        self.syms[..2 * self.labels]
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
    }

    pub(super) fn parents(&self) -> &[Sym] {
        &self.syms[2 * self.labels..]
    }

    /// Every name that it refers to.
    pub(super) fn names(&self) -> impl Iterator<Item = Sym> + '_ {
        self.syms.iter().copied()
    }
}

impl Class {
    pub(super) fn new(key: Arc<ClassKey>) -> Self {
        Self {
            key,
            items: Ids::default(),
            selectors: Ids::default(),
        }
    }
}

impl<'a> Effective<'a> {
    /// Every label that counts.
    pub(super) fn labels(self) -> impl Iterator<Item = (Sym, Sym)> {
        let mut all: BTreeMap<Sym, Sym> = self.key.labels().collect();
        for (name, value) in self.inherited() {
            all.entry(name).or_insert(value);
        }
        all.into_iter()
    }

    /// The parents' labels, those of earlier ones first.
    fn inherited(self) -> impl Iterator<Item = (Sym, Sym)> + 'a {
        let parents = self.key.parents().iter();
        parents
            .filter_map(move |parent| self.parents.get(parent))
            .flat_map(|parent| parent.labels.iter().copied())
    }
}

impl Labels for Effective<'_> {
    fn label(&self, name: &str) -> Option<&str> {
        let name = self.names.get(name)?;
        self.key
            .labels()
            .chain(self.inherited())
            .find_map(|(label, value)| (label == name).then(|| self.names.text(value)))
    }
}

/// Labels sorted, with a reference taken to each name and value. Of a label that is given twice the
/// last value counts.
pub(super) fn pairs<'a>(
    names: &mut Interner,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<(Sym, Sym)> {
    let labels: BTreeMap<&str, &str> = labels.into_iter().collect();
    let mut pairs: Vec<(Sym, Sym)> = labels
        .into_iter()
        .map(|(name, value)| (names.acquire(name), names.acquire(value)))
        .collect();
    pairs.sort_unstable();
    pairs
}
