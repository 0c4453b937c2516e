//! The selector language: parse, print, evaluate, index.
//!
//! A selector is a condition on labels, such as `role == 'db' && !has(retired)`. It never touches the
//! objects whose labels it tests: a caller brings a [`Labels`] and gets a yes or a no.
//!
//! ```
//! use std::collections::BTreeMap;
//! let selector: margay_selector::Selector = "role in {'web', 'db'} && !has(retired)".parse()?;
//! let labels = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
//! assert!(selector.matches(&labels));
//! assert_eq!(selector.to_string(), r#"(role in {"db", "web"} && !has(retired))"#);
//! # Ok::<(), margay_selector::ParseError>(())
//! ```

mod convert;
mod index;
mod labels;
mod parse;
mod print;
mod validate;

use std::str::FromStr;

pub use convert::{NAMESPACE_LABEL, SERVICE_ACCOUNT_LABEL};
pub use index::{Change, Index, ItemId, SelectorId};
pub use labels::Labels;
pub use parse::ParseError;
pub use validate::{GlobalUse, InvalidSelector, MAX_LENGTH, validate};

/// A parsed selector.
///
/// Its text form ([`Display`](std::fmt::Display)) is canonical: two texts that differ in blanks, quotes or
/// the order of a set print alike, and parsing the printed text gives an equal selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Expr);

/// A node of a selector's tree.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expr {
    /// `all()`: everything.
    All,
    /// `global()`: in a namespace selector, what is in no namespace. Matches everything by itself.
    Global,
    /// `has(label)`.
    Has(String),
    /// `label == "value"`.
    Equal(String, String),
    /// `label != "value"`; true where the label is absent.
    NotEqual(String, String),
    /// `label in {…}`; values sorted, without duplicates.
    In(String, Vec<String>),
    /// `label not in {…}`; true where the label is absent.
    NotIn(String, Vec<String>),
    /// `label contains "text"`.
    Contains(String, String),
    /// `label starts with "text"`.
    StartsWith(String, String),
    /// `label ends with "text"`.
    EndsWith(String, String),
    /// `!operand`.
    Not(Box<Self>),
    /// Two or more operands joined by `&&`.
    And(Vec<Self>),
    /// Two or more operands joined by `||`.
    Or(Vec<Self>),
}

impl Selector {
    /// The selector that matches everything.
    pub fn all() -> Self {
        Self(Expr::All)
    }

    /// Reads a selector; a blank text is `all()`.
    ///
    /// # Errors
    /// The text does not follow the grammar.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text).map(Self)
    }

    /// The tree.
    pub fn expr(&self) -> &Expr {
        &self.0
    }

    /// Whether it is exactly `all()`.
    pub fn is_all(&self) -> bool {
        self.0 == Expr::All
    }

    /// Whether the labels satisfy it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.0.matches(labels)
    }

    /// Every label name it tests, in order of appearance, with repetitions.
    pub fn label_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        self.0.visit(&mut |expr| names.extend(expr.label()));
        names
    }
}

impl FromStr for Selector {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Default for Selector {
    fn default() -> Self {
        Self::all()
    }
}

impl Expr {
    /// Whether the labels satisfy it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        match self {
            Self::All | Self::Global => true,
            Self::Has(label) => labels.label(label).is_some(),
            Self::Equal(label, value) => labels.label(label) == Some(value),
            Self::NotEqual(label, value) => labels.label(label) != Some(value),
            Self::In(label, values) => labels.label(label).is_some_and(|v| among(values, v)),
            Self::NotIn(label, values) => !labels.label(label).is_some_and(|v| among(values, v)),
            Self::Contains(label, text) => labels.label(label).is_some_and(|v| v.contains(text)),
            Self::StartsWith(label, text) => {
                labels.label(label).is_some_and(|v| v.starts_with(text))
            }
            Self::EndsWith(label, text) => labels.label(label).is_some_and(|v| v.ends_with(text)),
            Self::Not(operand) => !operand.matches(labels),
            Self::And(operands) => operands.iter().all(|operand| operand.matches(labels)),
            Self::Or(operands) => operands.iter().any(|operand| operand.matches(labels)),
        }
    }

    /// The label this node tests; `None` for nodes that test none themselves.
    pub fn label(&self) -> Option<&str> {
        match self {
            Self::Has(label)
            | Self::Equal(label, _)
            | Self::NotEqual(label, _)
            | Self::In(label, _)
            | Self::NotIn(label, _)
            | Self::Contains(label, _)
            | Self::StartsWith(label, _)
            | Self::EndsWith(label, _) => Some(label),
            Self::All | Self::Global | Self::Not(_) | Self::And(_) | Self::Or(_) => None,
        }
    }

    fn visit<'a>(&'a self, see: &mut impl FnMut(&'a Self)) {
        see(self);
        match self {
            Self::Not(operand) => operand.visit(see),
            Self::And(operands) | Self::Or(operands) => {
                for operand in operands {
                    operand.visit(see);
                }
            }
            _ => {}
        }
    }
}

fn among(sorted: &[String], value: &str) -> bool {
    sorted
        .binary_search_by(|candidate| candidate.as_str().cmp(value))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        Selector::parse(selector).unwrap().matches(labels)
    }

    #[test]
    fn negative_operators_hold_for_absent_labels() {
        assert!(matches("a != 'x'", &[]));
        assert!(matches("a not in {'x'}", &[]));
        assert!(!matches("a == 'x'", &[]));
        assert!(!matches("a in {'x'}", &[]));
        assert!(!matches("a contains ''", &[]));
        assert!(!matches("a starts with ''", &[]));
        assert!(!matches("a ends with ''", &[]));
        assert!(!matches("has(a)", &[]));
    }

    #[test]
    fn operators_on_present_labels() {
        let labels = [("a", "front-end"), ("b", "")];
        for (selector, expected) in [
            ("a == 'front-end'", true),
            ("a != 'front-end'", false),
            ("a in {'x', 'front-end'}", true),
            ("a not in {'x'}", true),
            ("a contains 't-e'", true),
            ("a starts with 'front'", true),
            ("a starts with 'end'", false),
            ("a ends with 'end'", true),
            ("has(b) && b == \"\"", true),
            ("has(c) || !has(c)", true),
            ("!(has(a) && has(b))", false),
            ("has(c) && has(a) || has(b)", true),
            ("has(c) && (has(a) || has(b))", false),
        ] {
            assert_eq!(matches(selector, &labels), expected, "{selector}");
        }
    }

    #[test]
    fn tested_labels_are_listed() {
        let selector = Selector::parse("has(a) && (!(b == 'x') || all())").unwrap();
        assert_eq!(selector.label_names(), ["a", "b"]);
    }
}
