//! Which items satisfy which selectors, kept up to date change by change.

mod class;
mod filing;
mod ids;
mod intern;

use std::collections::HashMap;
use std::sync::Arc;

use crate::Selector;
use class::{Class, ClassKey, Effective, Parent};
use filing::{Filing, filings};
use ids::{Ids, Slots};
use intern::{Interner, Sym};

/// An item, by a small number that the caller gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub u32);

/// A selector of an [`Index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectorId(u32);

/// A selector that an item has begun, or ceased, to satisfy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// The item.
    pub item: ItemId,
    /// The selector.
    pub selector: SelectorId,
    /// Whether the item satisfies it now.
    pub matches: bool,
}

/// Items and the selectors they satisfy.
///
/// An item has labels of its own, and those of its parents: its own win, then those of the earlier
/// parent. Items with the same labels and parents form a class, and only classes are tested, so that an
/// item like others costs nothing but its entry. A selector is tested on those classes only that have a
/// label without which it cannot hold, and a class with those selectors only.
///
/// ```
/// use margay_selector::{Index, ItemId, Selector};
///
/// let mut index = Index::default();
/// let web = index.add_selector(Selector::parse("app == 'web' && env == 'prod'")?);
/// index.set_item(ItemId(7), [("app", "web")], ["prod-namespace"]);
/// assert!(!index.matches(ItemId(7), web));
/// let changes = index.set_parent("prod-namespace", [("env", "prod")]);
/// assert_eq!(changes.len(), 1);
/// assert!(index.matches(ItemId(7), web));
/// # Ok::<(), margay_selector::ParseError>(())
/// ```
#[derive(Debug, Default)]
pub struct Index {
    names: Interner,
    /// The class of each item, by its number.
    items: Vec<Option<u32>>,
    classes: Slots<Class>,
    by_key: HashMap<Arc<ClassKey>, u32>,
    /// Classes by their own labels.
    own: HashMap<Filing, Ids>,
    parents: HashMap<Sym, Parent>,
    /// Parents by their labels.
    inherited: HashMap<Filing, Vec<Sym>>,
    selectors: Slots<Entry>,
    /// Selectors by a label of which they need one.
    filed: HashMap<Filing, Ids>,
    /// Selectors that can hold without any label.
    unfiled: Ids,
}

#[derive(Debug)]
struct Entry {
    selector: Selector,
    /// The labels one of which it needs; `None` where it can hold without any.
    filings: Option<Vec<Filing>>,
    /// The classes that satisfy it.
    classes: Ids,
}

impl Index {
    /// Adds an item, or gives it other labels and parents.
    ///
    /// Of a parent that is named twice the first place counts; one that is not set has no labels.
    pub fn set_item<'a>(
        &mut self,
        item: ItemId,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        parents: impl IntoIterator<Item = &'a str>,
    ) -> Vec<Change> {
        let key = ClassKey::new(&mut self.names, labels, parents);
        let class = self.class(key);
        let before = self.class_of(item);
        if before == Some(class) {
            return Vec::new();
        }
        self.place(item, Some(class));
        let matched = |class: u32| &self.classes[class].selectors;
        let changes = match before {
            None => started(item, matched(class).iter()).collect(),
            Some(before) => changes(item, matched(before), matched(class)),
        };
        if let Some(before) = before {
            self.leave(item, before);
        }
        changes
    }

    /// Removes an item; it ceases to satisfy every selector.
    pub fn remove_item(&mut self, item: ItemId) -> Vec<Change> {
        let Some(class) = self.class_of(item) else {
            return Vec::new();
        };
        let stopped = changes(item, &self.classes[class].selectors, &Ids::default());
        self.place(item, None);
        self.leave(item, class);
        stopped
    }

    /// Gives a parent these labels.
    pub fn set_parent<'a>(
        &mut self,
        name: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Vec<Change> {
        let name = self.names.acquire(name);
        let labels = class::pairs(&mut self.names, labels);
        let old = self.parents.get(&name);
        if old.map_or(labels.is_empty(), |old| old.labels == labels) {
            self.names
                .release_all(labels.iter().flat_map(|(n, v)| [*n, *v]));
            self.names.release(name);
            return Vec::new();
        }
        // The parent keeps the name for as long as it has labels.
        let parent = self.parents.entry(name).or_default();
        if !parent.labels.is_empty() {
            self.names.release(name);
        }
        let old = std::mem::replace(&mut parent.labels, labels);
        let (new, classes) = (parent.labels.clone(), parent.classes.clone());
        for filing in old.iter().flat_map(Filing::of_label) {
            if let Some(parents) = self.inherited.get_mut(&filing) {
                parents.retain(|parent| *parent != name);
                if parents.is_empty() {
                    self.inherited.remove(&filing);
                }
            }
        }
        for filing in new.iter().flat_map(Filing::of_label) {
            self.inherited.entry(filing).or_default().push(name);
        }
        self.names
            .release_all(old.iter().flat_map(|(n, v)| [*n, *v]));
        if new.is_empty() {
            self.names.release(name);
            if classes.is_empty() {
                self.parents.remove(&name);
            }
        }
        let mut changes = Vec::new();
        for class in classes.iter() {
            self.test_class(class, &mut changes);
        }
        changes
    }

    /// Takes a parent's labels away.
    pub fn remove_parent(&mut self, name: &str) -> Vec<Change> {
        self.set_parent(name, [])
    }

    /// Adds a selector. Which items satisfy it, [`Index::items_of`] tells.
    pub fn add_selector(&mut self, selector: Selector) -> SelectorId {
        let filings = filings(&selector, &mut self.names, &|filing| {
            let parents = self.inherited.get(&filing).into_iter().flatten();
            let through = parents.map(|parent| self.parents[parent].classes.len());
            let classes = self.own.get(&filing).map_or(0, Ids::len) + through.sum::<usize>();
            // Classes to be tested now, and selectors to be tested with them on every new class.
            classes + self.filed.get(&filing).map_or(0, Ids::len)
        });
        let candidates = match &filings {
            None => self.classes.ids().collect(),
            Some(filings) => self.classes_with(filings),
        };
        let satisfied: Ids = candidates
            .iter()
            .filter(|class| selector.matches(&self.effective(*class)))
            .collect();
        let id = self.selectors.next();
        for class in satisfied.iter() {
            self.classes[class].selectors.insert(id);
        }
        match &filings {
            None => self.unfiled.insert(id),
            Some(filings) => {
                for filing in filings {
                    self.filed.entry(*filing).or_default().insert(id);
                }
            }
        }
        self.selectors.put(Entry {
            selector,
            filings,
            classes: satisfied,
        });
        SelectorId(id)
    }

    /// Removes a selector.
    pub fn remove_selector(&mut self, id: SelectorId) {
        let Some(entry) = self.selectors.take(id.0) else {
            return;
        };
        for class in entry.classes.iter() {
            self.classes[class].selectors.remove(id.0);
        }
        let Some(filings) = entry.filings else {
            self.unfiled.remove(id.0);
            return;
        };
        for filing in filings {
            remove_from(&mut self.filed, filing, id.0);
            self.names.release_all(filing.names());
        }
    }

    /// Whether an item satisfies a selector; `false` where either is unknown.
    pub fn matches(&self, item: ItemId, selector: SelectorId) -> bool {
        self.class_of(item)
            .is_some_and(|class| self.classes[class].selectors.contains(selector.0))
    }

    /// The selectors that an item satisfies, in the order of their numbers.
    pub fn selectors_of(&self, item: ItemId) -> impl Iterator<Item = SelectorId> + '_ {
        self.class_of(item)
            .into_iter()
            .flat_map(|class| self.classes[class].selectors.iter())
            .map(SelectorId)
    }

    /// The items that satisfy a selector, in no particular order.
    pub fn items_of(&self, selector: SelectorId) -> impl Iterator<Item = ItemId> + '_ {
        self.selectors
            .get(selector.0)
            .into_iter()
            .flat_map(|entry| entry.classes.iter())
            .flat_map(|class| self.classes[class].items.iter())
            .map(ItemId)
    }

    /// The labels of an item, inherited ones included; `None` for an unknown item.
    pub fn labels_of(&self, item: ItemId) -> Option<impl crate::Labels + '_> {
        self.class_of(item).map(|class| self.effective(class))
    }

    /// Number of classes: of combinations of labels and parents that items have.
    pub fn classes(&self) -> usize {
        self.by_key.len()
    }

    fn class_of(&self, item: ItemId) -> Option<u32> {
        *self.items.get(item.0 as usize)?
    }

    fn place(&mut self, item: ItemId, class: Option<u32>) {
        let at = item.0 as usize;
        if at >= self.items.len() {
            self.items.resize(at + 1, None);
        }
        self.items[at] = class;
        if let Some(class) = class {
            self.classes[class].items.insert(item.0);
        }
    }

    /// The class with this key, made if there is none.
    fn class(&mut self, key: ClassKey) -> u32 {
        if let Some(class) = self.by_key.get(&key) {
            self.names.release_all(key.names());
            return *class;
        }
        let key = Arc::new(key);
        let class = self.classes.put(Class::new(Arc::clone(&key)));
        for filing in key.labels().flat_map(|label| Filing::of_label(&label)) {
            self.own.entry(filing).or_default().insert(class);
        }
        for parent in key.parents() {
            self.parents
                .entry(*parent)
                .or_default()
                .classes
                .insert(class);
        }
        self.by_key.insert(key, class);
        self.test_class(class, &mut Vec::new());
        class
    }

    /// Takes an item out of a class, and the class away with its last item.
    fn leave(&mut self, item: ItemId, class: u32) {
        self.classes[class].items.remove(item.0);
        if !self.classes[class].items.is_empty() {
            return;
        }
        let Some(Class { key, selectors, .. }) = self.classes.take(class) else {
            return;
        };
        self.by_key.remove(&key);
        for filing in key.labels().flat_map(|label| Filing::of_label(&label)) {
            remove_from(&mut self.own, filing, class);
        }
        for name in key.parents() {
            if let Some(parent) = self.parents.get_mut(name) {
                parent.classes.remove(class);
                if parent.classes.is_empty() && parent.labels.is_empty() {
                    self.parents.remove(name);
                }
            }
        }
        for selector in selectors.iter() {
            self.selectors[selector].classes.remove(class);
        }
        self.names.release_all(key.names());
    }

    /// Tests a class against all selectors that can hold for it, and tells what changes for its items.
    fn test_class(&mut self, class: u32, all: &mut Vec<Change>) {
        let effective = self.effective(class);
        let mut candidates: Vec<u32> = self.unfiled.iter().collect();
        for filing in effective
            .labels()
            .flat_map(|label| Filing::of_label(&label))
        {
            candidates.extend(self.filed.get(&filing).into_iter().flat_map(Ids::iter));
        }
        let candidates: Ids = candidates.into_iter().collect();
        let satisfied: Ids = candidates
            .iter()
            .filter(|id| self.selectors[*id].selector.matches(&effective))
            .collect();
        let before = std::mem::replace(&mut self.classes[class].selectors, satisfied);
        let Class {
            items, selectors, ..
        } = &self.classes[class];
        let differences = changes(ItemId(0), &before, selectors);
        for item in items.iter().map(ItemId) {
            all.extend(differences.iter().map(|change| Change { item, ..*change }));
        }
        for change in differences {
            let classes = &mut self.selectors[change.selector.0].classes;
            if change.matches {
                classes.insert(class);
            } else {
                classes.remove(class);
            }
        }
    }

    /// The classes that have one of these labels, their own or inherited.
    fn classes_with(&self, filings: &[Filing]) -> Ids {
        let mut found = Vec::new();
        for filing in filings {
            found.extend(self.own.get(filing).into_iter().flat_map(Ids::iter));
            for parent in self.inherited.get(filing).into_iter().flatten() {
                found.extend(self.parents[parent].classes.iter());
            }
        }
        found.into_iter().collect()
    }

    fn effective(&self, class: u32) -> Effective<'_> {
        Effective {
            names: &self.names,
            key: &self.classes[class].key,
            parents: &self.parents,
        }
    }
}

fn started(item: ItemId, selectors: impl Iterator<Item = u32>) -> impl Iterator<Item = Change> {
    selectors.map(move |selector| Change {
        item,
        selector: SelectorId(selector),
        matches: true,
    })
}

/// What changes for an item that satisfied `before` and satisfies `after`.
fn changes(item: ItemId, before: &Ids, after: &Ids) -> Vec<Change> {
    let stopped = before.iter().filter(|id| !after.contains(*id));
    let begun = after.iter().filter(|id| !before.contains(*id));
    started(item, stopped)
        .map(|change| Change {
            matches: false,
            ..change
        })
        .chain(started(item, begun))
        .collect()
}

fn remove_from(map: &mut HashMap<Filing, Ids>, filing: Filing, id: u32) {
    if let Some(ids) = map.get_mut(&filing) {
        ids.remove(id);
        if ids.is_empty() {
            map.remove(&filing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    #[test]
    fn own_labels_win_and_earlier_parents_before_later_ones() {
        let mut index = Index::default();
        index.set_parent("p", [("a", "p"), ("b", "p")]);
        index.set_parent("q", [("a", "q"), ("b", "q"), ("c", "q")]);
        index.set_item(ItemId(0), [("a", "own")], ["p", "q", "p"]);
        for (text, expected) in [
            ("a == 'own' && b == 'p' && c == 'q'", true),
            ("a == 'p' || a == 'q' || b == 'q'", false),
        ] {
            let selector = index.add_selector(parse(text));
            assert_eq!(index.matches(ItemId(0), selector), expected, "{text}");
        }
    }

    #[test]
    fn changes_are_told_once_and_only_for_what_changes() {
        let mut index = Index::default();
        let web = index.add_selector(parse("app == 'web'"));
        let prod = index.add_selector(parse("env == 'prod'"));
        let change = |item, selector, matches| Change {
            item: ItemId(item),
            selector,
            matches,
        };
        assert_eq!(
            index.set_item(ItemId(1), [("app", "web")], ["ns"]),
            [change(1, web, true)]
        );
        assert_eq!(
            index.set_item(ItemId(2), [("app", "web")], ["ns"]),
            [change(2, web, true)]
        );
        assert_eq!(index.classes(), 1);
        assert_eq!(
            index.set_parent("ns", [("env", "prod")]),
            [change(1, prod, true), change(2, prod, true)]
        );
        assert_eq!(index.set_parent("ns", [("env", "prod")]), []);
        assert_eq!(
            index.set_item(ItemId(2), [("app", "db")], ["ns"]),
            [change(2, web, false)]
        );
        assert_eq!(
            index.remove_item(ItemId(1)),
            [change(1, web, false), change(1, prod, false)]
        );
        assert_eq!(index.remove_item(ItemId(1)), []);
    }

    #[test]
    fn nothing_is_kept_of_what_is_gone() {
        let mut index = Index::default();
        index.set_parent("ns", [("env", "prod")]);
        index.set_parent("ns", [("env", "test"), ("x", "y")]);
        index.set_item(ItemId(1), [("app", "web")], ["ns", "other"]);
        index.set_item(ItemId(1), [("app", "db")], ["ns"]);
        let selector = index.add_selector(parse("env in {'test', 'dev'} && has(app)"));
        assert!(index.matches(ItemId(1), selector));
        index.remove_item(ItemId(1));
        index.remove_selector(selector);
        index.remove_parent("ns");
        assert_eq!(index.names.len(), 0);
        assert!(index.own.is_empty() && index.inherited.is_empty() && index.filed.is_empty());
        assert!(index.parents.is_empty() && index.by_key.is_empty());
    }

    #[test]
    fn selectors_are_tested_where_they_can_hold_only() {
        let mut names = Interner::default();
        let mut filed =
            |text: &str| filings(&parse(text), &mut names, &|_| 0).map(|filings| filings.len());
        for (text, expected) in [
            ("a == 'x'", Some(1)),
            ("a in {'x', 'y'} || has(b)", Some(3)),
            ("a != 'x' && b starts with 'y'", Some(1)),
            ("a != 'x'", None),
            ("a == 'x' || !has(b)", None),
            ("all()", None),
            ("a in {}", Some(0)),
        ] {
            assert_eq!(filed(text), expected, "{text}");
        }
    }
}
