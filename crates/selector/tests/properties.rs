//! Properties that hold for every selector and every text.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use margay_selector::{Expr, Selector};
use proptest::prelude::*;

/// A text of the grammar, with what it means, computed without the crate.
#[derive(Clone, Debug)]
struct Sample {
    text: String,
    meaning: Meaning,
}

#[derive(Clone, Debug)]
enum Meaning {
    Always,
    /// Label, and whether each of `None`, `Some(VALUES[i])` satisfies the condition.
    Leaf(&'static str, [bool; 5]),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
}

const NAMES: [&str; 4] = ["a", "in", "pcns.b", "k8s.io/c-d_e"];
const VALUES: [&str; 4] = ["", "x", "xy", "don't"];

impl Meaning {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Always => true,
            Self::Leaf(name, truth) => {
                let index = labels.get(*name).map_or(0, |value| {
                    1 + VALUES.iter().position(|v| v == value).unwrap()
                });
                truth[index]
            }
            Self::Not(inner) => !inner.holds(labels),
            Self::And(left, right) => left.holds(labels) && right.holds(labels),
            Self::Or(left, right) => left.holds(labels) || right.holds(labels),
        }
    }
}

fn leaf() -> impl Strategy<Value = Sample> {
    (0..9usize, 0..4usize, 0..4usize, 0..4usize).prop_map(|(operator, name, first, second)| {
        let (name, value, other) = (NAMES[name], VALUES[first], VALUES[second]);
        let truth = |absent: bool, test: &dyn Fn(&str) -> bool| {
            let mut truth = [absent; 5];
            for (index, candidate) in VALUES.iter().enumerate() {
                truth[index + 1] = test(candidate);
            }
            Meaning::Leaf(name, truth)
        };
        let (text, meaning) = match operator {
            0 => ("all()".to_owned(), Meaning::Always),
            1 => (format!("has( {name})"), truth(false, &|_| true)),
            2 => (
                format!("{name}==\"{value}\""),
                truth(false, &|v| v == value),
            ),
            3 => (
                format!("{name} != \"{value}\""),
                truth(true, &|v| v != value),
            ),
            4 => (
                format!("{name} in {{\"{value}\",\t\"{other}\"}}"),
                truth(false, &|v| v == value || v == other),
            ),
            5 => (
                format!("{name} not in {{\"{value}\", \"{other}\", }}"),
                truth(true, &|v| v != value && v != other),
            ),
            6 => (
                format!("{name} contains \"{value}\""),
                truth(false, &|v| v.contains(value)),
            ),
            7 => (
                format!("{name} startswith \"{value}\""),
                truth(false, &|v| v.starts_with(value)),
            ),
            _ => (
                format!("{name} ends with \"{value}\""),
                truth(false, &|v| v.ends_with(value)),
            ),
        };
        Sample { text, meaning }
    })
}

fn sample() -> impl Strategy<Value = Sample> {
    leaf().prop_recursive(5, 40, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|x| Sample {
                text: format!("!({})", x.text),
                meaning: Meaning::Not(x.meaning.into()),
            }),
            (inner.clone(), inner.clone()).prop_map(|(x, y)| Sample {
                text: format!("({}) && ({})", x.text, y.text),
                meaning: Meaning::And(x.meaning.into(), y.meaning.into()),
            }),
            (inner.clone(), inner).prop_map(|(x, y)| Sample {
                text: format!("({})||({})", x.text, y.text),
                meaning: Meaning::Or(x.meaning.into(), y.meaning.into()),
            }),
        ]
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(
        prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        prop::sample::select(&VALUES[..]).prop_map(str::to_owned),
        0..=4,
    )
}

proptest! {
    #[test]
    fn evaluation_equals_the_oracle(sample in sample(), labels in labels()) {
        let selector = Selector::parse(&sample.text).unwrap();
        prop_assert_eq!(selector.matches(&labels), sample.meaning.holds(&labels));
    }

    #[test]
    fn printing_keeps_the_selector(sample in sample(), labels in labels()) {
        let selector = Selector::parse(&sample.text).unwrap();
        let printed = selector.to_string();
        let again = Selector::parse(&printed).unwrap();
        prop_assert_eq!(&again, &selector);
        prop_assert_eq!(again.to_string(), printed);
        prop_assert_eq!(again.matches(&labels), selector.matches(&labels));
    }

    #[test]
    fn rewriting_prefixes_every_label(sample in sample()) {
        let rewritten = Selector::parse(&sample.text).unwrap().on_service_account();
        prop_assert!(rewritten.label_names().iter().all(|name| name.starts_with("pcsa.")));
        let printed = rewritten.to_string();
        prop_assert_eq!(Selector::parse(&printed).unwrap(), rewritten);
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn no_text_near_the_grammar_panics(text in "[ab\t =!&|(){},'\"éinhaslgotcw-]{0,40}") {
        if let Ok(selector) = Selector::parse(&text) {
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}

#[test]
fn trees_are_readable() {
    let selector = Selector::parse("a == 'x'").unwrap();
    assert_eq!(selector.expr(), &Expr::Equal("a".into(), "x".into()));
}
