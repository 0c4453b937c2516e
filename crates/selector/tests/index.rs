//! The index agrees, after every change, with testing every selector on every item.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use margay_selector::{Index, ItemId, Selector, SelectorId};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Item(u32, Vec<(usize, usize)>, Vec<usize>),
    RemoveItem(u32),
    Parent(usize, Vec<(usize, usize)>),
    Selector(String),
    RemoveSelector(usize),
}

const LABELS: [&str; 4] = ["app", "env", "pcns.env", "role"];
const VALUES: [&str; 3] = ["web", "prod", "x"];
const PARENTS: [&str; 3] = ["kns.a", "kns.b", "ksa.a.b"];

type Items = BTreeMap<u32, (BTreeMap<String, String>, Vec<usize>)>;

fn labels() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((0..LABELS.len(), 0..VALUES.len()), 0..4)
}

fn condition() -> impl Strategy<Value = String> {
    let (label, value) = (
        prop::sample::select(&LABELS[..]),
        prop::sample::select(&VALUES[..]),
    );
    (0..8, label, value).prop_map(|(operator, label, value)| match operator {
        0 => "all()".to_owned(),
        1 => format!("has({label})"),
        2 => format!("{label} != '{value}'"),
        3 => format!("{label} in {{'{value}', 'web'}}"),
        4 => format!("{label} not in {{'{value}', 'web'}}"),
        5 => format!("{label} starts with 'p'"),
        _ => format!("{label} == '{value}'"),
    })
}

fn selector() -> impl Strategy<Value = String> {
    condition().prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|x| format!("!({x})")),
            (inner.clone(), inner.clone()).prop_map(|(x, y)| format!("({x}) && ({y})")),
            (inner.clone(), inner).prop_map(|(x, y)| format!("({x}) || ({y})")),
        ]
    })
}

fn step() -> impl Strategy<Value = Step> {
    let parents = prop::collection::vec(0..PARENTS.len(), 0..3);
    prop_oneof![
        4 => (0..6u32, labels(), parents).prop_map(|(i, l, p)| Step::Item(i, l, p)),
        1 => (0..6u32).prop_map(Step::RemoveItem),
        2 => (0..PARENTS.len(), labels()).prop_map(|(p, l)| Step::Parent(p, l)),
        3 => selector().prop_map(Step::Selector),
        1 => (0..8usize).prop_map(Step::RemoveSelector),
    ]
}

fn named(labels: &[(usize, usize)]) -> BTreeMap<String, String> {
    let named =
        |(label, value): &(usize, usize)| (LABELS[*label].to_owned(), VALUES[*value].to_owned());
    labels.iter().map(named).collect()
}

fn borrowed(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    labels
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
}

fn expected(
    items: &Items,
    parents: &BTreeMap<usize, BTreeMap<String, String>>,
    selectors: &[(SelectorId, Selector)],
) -> BTreeSet<(ItemId, SelectorId)> {
    let mut expected = BTreeSet::new();
    for (item, (own, of)) in items {
        let mut all = BTreeMap::new();
        for parent in of.iter().rev() {
            all.extend(parents.get(parent).cloned().unwrap_or_default());
        }
        all.extend(own.clone());
        for (id, selector) in selectors {
            if selector.matches(&all) {
                expected.insert((ItemId(*item), *id));
            }
        }
    }
    expected
}

proptest! {
    #[test]
    fn index_equals_brute_force(steps in prop::collection::vec(step(), 1..40)) {
        let mut index = Index::default();
        let mut items = Items::new();
        let mut parents = BTreeMap::new();
        let mut selectors: Vec<(SelectorId, Selector)> = Vec::new();
        // What the changes alone tell.
        let mut told = BTreeSet::new();
        for step in steps {
            let changes = match step {
                Step::Item(item, own, of) => {
                    // The first place of a parent counts.
                    let mut once: Vec<usize> = Vec::new();
                    of.iter().for_each(|p| if !once.contains(p) { once.push(*p) });
                    let own = named(&own);
                    let names = of.iter().map(|parent| PARENTS[*parent]);
                    let changes = index.set_item(ItemId(item), borrowed(&own), names);
                    items.insert(item, (own, once));
                    changes
                }
                Step::RemoveItem(item) => {
                    items.remove(&item);
                    index.remove_item(ItemId(item))
                }
                Step::Parent(parent, own) => {
                    let own = named(&own);
                    let changes = index.set_parent(PARENTS[parent], borrowed(&own));
                    parents.insert(parent, own);
                    changes
                }
                Step::Selector(text) => {
                    let selector: Selector = text.parse().unwrap();
                    let id = index.add_selector(selector.clone());
                    told.extend(index.items_of(id).map(|item| (item, id)));
                    selectors.push((id, selector));
                    Vec::new()
                }
                Step::RemoveSelector(at) => {
                    if at < selectors.len() {
                        let (id, _) = selectors.remove(at);
                        index.remove_selector(id);
                        told.retain(|(_, selector)| *selector != id);
                    }
                    Vec::new()
                }
            };
            for change in changes {
                let pair = (change.item, change.selector);
                let news = if change.matches { told.insert(pair) } else { told.remove(&pair) };
                prop_assert!(news, "told twice: {change:?}");
            }
            let expected = expected(&items, &parents, &selectors);
            prop_assert_eq!(&told, &expected);
            for item in 0..6 {
                let found: BTreeSet<_> = index.selectors_of(ItemId(item)).collect();
                let wanted = expected.iter().filter(|(i, _)| i.0 == item).map(|(_, s)| *s);
                prop_assert_eq!(found, wanted.collect::<BTreeSet<_>>());
            }
        }
    }
}
