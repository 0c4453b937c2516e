//! Selectors of the API turned into selectors over an endpoint's own and inherited labels.
//!
//! Endpoints inherit their namespace's labels with the prefix `pcns.` and their service account's with
//! `pcsa.`, so a condition on the namespace becomes a condition on the endpoint.

use crate::parse::is_label;
use crate::{Expr, Selector};

/// The label that says which namespace an endpoint is in.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// The label that says which service account an endpoint runs under.
pub const SERVICE_ACCOUNT_LABEL: &str = "projectcalico.org/serviceaccount";

impl Selector {
    /// `label == value`; `None` where the language cannot write it (a bad label, or both kinds of quote).
    pub fn equal(label: &str, value: &str) -> Option<Self> {
        (is_label(label) && is_quotable(value))
            .then(|| Self(Expr::Equal(label.to_owned(), value.to_owned())))
    }

    /// `label in {values}`; `None` where the language cannot write it.
    pub fn one_of<'a>(label: &str, values: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().map(str::to_owned).collect();
        values.sort_unstable();
        values.dedup();
        (is_label(label) && values.iter().all(|value| is_quotable(value)))
            .then(|| Self(Expr::In(label.to_owned(), values)))
    }

    /// Both conditions; `all()` on either side adds nothing.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Expr::All, only) | (only, Expr::All) => Self(only),
            (Expr::And(mut left), Expr::And(right)) => {
                left.extend(right);
                Self(Expr::And(left))
            }
            (Expr::And(mut left), right) => {
                left.push(right);
                Self(Expr::And(left))
            }
            (left, Expr::And(mut right)) => {
                right.insert(0, left);
                Self(Expr::And(right))
            }
            (left, right) => Self(Expr::And(vec![left, right])),
        }
    }

    /// The opposite condition.
    #[must_use]
    pub fn negated(self) -> Self {
        match self.0 {
            Expr::Not(inner) => Self(*inner),
            operand => Self(Expr::Not(Box::new(operand))),
        }
    }

    /// A namespace selector as a condition on endpoints: labels get the prefix `pcns.`, `all()` becomes
    /// "in some namespace" and `global()` "in none".
    #[must_use]
    pub fn on_namespace(&self) -> Self {
        Self(self.0.rewritten("pcns.", &|expr| match expr {
            Expr::All => Expr::Has(NAMESPACE_LABEL.to_owned()),
            Expr::Global => Expr::Not(Box::new(Expr::Has(NAMESPACE_LABEL.to_owned()))),
            other => other,
        }))
    }

    /// A service account selector as a condition on endpoints: labels get the prefix `pcsa.`.
    #[must_use]
    pub fn on_service_account(&self) -> Self {
        Self(self.0.rewritten("pcsa.", &|expr| expr))
    }

    /// The service account selector of a global policy as a condition on endpoints: as
    /// [`Selector::on_service_account`], but `all()` becomes "under some service account".
    #[must_use]
    pub fn under_service_account(&self) -> Self {
        Self(self.0.rewritten("pcsa.", &|expr| match expr {
            Expr::All => Expr::Has(SERVICE_ACCOUNT_LABEL.to_owned()),
            other => other,
        }))
    }
}

impl Expr {
    fn rewritten(&self, prefix: &str, leaf: &dyn Fn(Self) -> Self) -> Self {
        let name = |label: &String| format!("{prefix}{label}");
        let each = |operands: &Vec<Self>| {
            operands
                .iter()
                .map(|operand| operand.rewritten(prefix, leaf))
                .collect()
        };
        match self {
            Self::All | Self::Global => leaf(self.clone()),
            Self::Has(label) => Self::Has(name(label)),
            Self::Equal(label, value) => Self::Equal(name(label), value.clone()),
            Self::NotEqual(label, value) => Self::NotEqual(name(label), value.clone()),
            Self::In(label, values) => Self::In(name(label), values.clone()),
            Self::NotIn(label, values) => Self::NotIn(name(label), values.clone()),
            Self::Contains(label, text) => Self::Contains(name(label), text.clone()),
            Self::StartsWith(label, text) => Self::StartsWith(name(label), text.clone()),
            Self::EndsWith(label, text) => Self::EndsWith(name(label), text.clone()),
            Self::Not(operand) => match operand.rewritten(prefix, leaf) {
                Self::Not(inner) => *inner,
                operand => Self::Not(Box::new(operand)),
            },
            Self::And(operands) => Self::And(each(operands)),
            Self::Or(operands) => Self::Or(each(operands)),
        }
    }
}

fn is_quotable(value: &str) -> bool {
    !(value.contains('"') && value.contains('\''))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    #[test]
    fn namespace_selectors() {
        assert_eq!(
            parse("env == 'prod' && !has(x)").on_namespace(),
            parse("pcns.env == 'prod' && !has(pcns.x)")
        );
        assert_eq!(
            parse("all()").on_namespace(),
            parse("has(projectcalico.org/namespace)")
        );
        assert_eq!(
            parse("global()").on_namespace(),
            parse("!has(projectcalico.org/namespace)")
        );
        assert_eq!(
            parse("!global()").on_namespace(),
            parse("has(projectcalico.org/namespace)")
        );
        assert_eq!(
            parse("a != 'b'").on_service_account(),
            parse("pcsa.a != 'b'")
        );
        assert_eq!(parse("all()").on_service_account(), parse("all()"));
        assert_eq!(
            parse("all() && has(a)").under_service_account(),
            parse("has(projectcalico.org/serviceaccount) && has(pcsa.a)")
        );
    }

    #[test]
    fn conjunction_is_flat_and_neutral_on_all() {
        let both = parse("has(a)").and(parse("has(b) && has(c)"));
        assert_eq!(both, parse("has(a) && has(b) && has(c)"));
        assert_eq!(parse("all()").and(parse("has(a)")), parse("has(a)"));
        assert_eq!(
            parse("has(a) || has(b)").and(parse("has(c)")),
            parse("(has(a) || has(b)) && has(c)")
        );
    }

    #[test]
    fn negation_is_its_own_opposite() {
        assert_eq!(parse("has(a)").negated(), parse("!has(a)"));
        assert_eq!(parse("has(a)").negated().negated(), parse("has(a)"));
    }

    #[test]
    fn unwritable_values_are_refused() {
        assert_eq!(Selector::equal("a", "\"'"), None);
        assert_eq!(Selector::equal("a b", "x"), None);
        assert_eq!(
            Selector::one_of(SERVICE_ACCOUNT_LABEL, ["b", "a", "b"]),
            Some(parse("projectcalico.org/serviceaccount in {'a','b'}"))
        );
    }
}
