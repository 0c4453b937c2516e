//! The labels without which a selector cannot hold.

use super::intern::{Interner, Sym};
use crate::{Expr, Selector};

/// A label that something has: with this value, or with any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Filing {
    name: Sym,
    value: Option<Sym>,
}

impl Filing {
    /// What a label can be found under.
    pub(super) fn of_label(label: &(Sym, Sym)) -> [Self; 2] {
        let (name, value) = *label;
        [value.into(), None].map(|value| Self { name, value })
    }

    pub(super) fn names(self) -> impl Iterator<Item = Sym> {
        [Some(self.name), self.value].into_iter().flatten()
    }
}

/// Labels one of which has to be there for the selector to hold, each with a reference taken; `None`
/// where it can hold without any.
///
/// Where a selector needs several, those are chosen that cost the fewest tests, as `count` says.
pub(super) fn filings(
    selector: &Selector,
    names: &mut Interner,
    count: &dyn Fn(Filing) -> usize,
) -> Option<Vec<Filing>> {
    let needs = needs(selector.expr())?;
    // Counted with names that are known already; what is not known, nothing has.
    let cost = |needs: &[Need<'_>]| -> usize {
        let known = needs.iter().filter_map(|need| {
            Some(Filing {
                name: names.get(need.name)?,
                value: need
                    .value
                    .map(|value| names.get(value))
                    .map_or(Some(None), |v| v.map(Some))?,
            })
        });
        known.map(count).sum()
    };
    let fewest = needs.into_iter().min_by_key(|needs| cost(needs))?;
    let filings = fewest.into_iter().map(|need| Filing {
        name: names.acquire(need.name),
        value: need.value.map(|value| names.acquire(value)),
    });
    Some(filings.collect())
}

struct Need<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

/// Alternatives, each of which is a list of labels one of which is needed; `None` where none is.
fn needs(expr: &Expr) -> Option<Vec<Vec<Need<'_>>>> {
    match expr {
        Expr::Equal(name, value) => Some(vec![vec![Need {
            name,
            value: Some(value),
        }]]),
        Expr::In(name, values) => Some(vec![
            values
                .iter()
                .map(|value| Need {
                    name,
                    value: Some(value),
                })
                .collect(),
        ]),
        Expr::Has(name)
        | Expr::Contains(name, _)
        | Expr::StartsWith(name, _)
        | Expr::EndsWith(name, _) => Some(vec![vec![Need { name, value: None }]]),
        Expr::And(operands) => {
            let alternatives: Vec<_> = operands.iter().filter_map(needs).flatten().collect();
            (!alternatives.is_empty()).then_some(alternatives)
        }
        Expr::Or(operands) => {
            // One alternative of each operand: whichever holds, its label is there.
            let mut all = Vec::new();
            for operand in operands {
                let first = needs(operand)?.into_iter().min_by_key(Vec::len)?;
                all.extend(first);
            }
            Some(vec![all])
        }
        Expr::All | Expr::Global | Expr::NotEqual(..) | Expr::NotIn(..) | Expr::Not(_) => None,
    }
}
