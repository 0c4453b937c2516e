//! Conditions of rules as expressions of BIRD's filter language.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;

use margay_bgp::policy::{PrefixMatch, PrefixOperator, PrefixSet};
use margay_bgp::{Community, Condition, LargeCommunity, LocalRoute};
use margay_model::{Cidr, Family};

use super::filter::Functions;
use super::{PRIORITY, TAG};

/// A truth value that is known, or a text that BIRD finds out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    Known(bool),
    Asked(String),
}

/// Where a condition is evaluated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) family: Family,
    /// Whether the session is external.
    pub(super) external: bool,
    pub(super) routes: &'a BTreeMap<Cidr, LocalRoute>,
}

impl Expression {
    fn not(self) -> Self {
        match self {
            Self::Known(known) => Self::Known(!known),
            Self::Asked(text) => Self::Asked(format!("!({text})")),
        }
    }

    /// All of them, or one of them where `all` is false.
    pub(super) fn joined(parts: impl IntoIterator<Item = Self>, all: bool) -> Self {
        let mut texts = Vec::new();
        for part in parts {
            match part {
                Self::Known(known) if known == all => {}
                Self::Known(known) => return Self::Known(known),
                Self::Asked(text) => texts.push(text),
            }
        }
        match texts.as_slice() {
            [] => Self::Known(all),
            [one] => Self::Asked(one.clone()),
            many => {
                let glue = if all { ") && (" } else { ") || (" };
                Self::Asked(format!("({})", many.join(glue)))
            }
        }
    }

    /// The condition at a place; functions that it needs are added.
    pub(super) fn of(condition: &Condition, place: &Place<'_>, functions: &mut Functions) -> Self {
        let asked = |text: String| Self::Asked(text);
        match condition {
            Condition::Prefix(comparison) => prefix(comparison, place.family),
            Condition::PrefixSet(set) => prefix_set(set, place.family),
            Condition::Family(family) => Self::Known(*family == place.family),
            Condition::FromPeers => asked("source = RTS_BGP".to_owned()),
            Condition::Local => asked("source = RTS_STATIC".to_owned()),
            Condition::Tag(tag) => asked(format!("defined({TAG}) && {TAG} = {tag}")),
            Condition::Interface(names) => {
                let fits = |route: &&LocalRoute| {
                    let name = route.interface.as_deref();
                    name.is_some_and(|name| names.holds(name))
                };
                let own = place.routes.values().filter(fits);
                let set = PrefixSet::exactly(own.map(|route| route.prefix));
                let local = asked("source = RTS_STATIC".to_owned());
                Self::joined([prefix_set(&set, place.family), local], true)
            }
            Condition::Community(community) => {
                asked(format!("{} ~ bgp_community", pair(*community)))
            }
            Condition::LargeCommunity(community) => {
                asked(format!("{} ~ bgp_large_community", triple(*community)))
            }
            Condition::AsPathPrefix(numbers) if numbers.is_empty() => Self::Known(true),
            Condition::AsPathPrefix(numbers) => {
                asked(format!("bgp_path ~ [= {} * =]", join(numbers, " ")))
            }
            Condition::Priority(priority) => asked(has_priority(*priority)),
            Condition::External => Self::Known(place.external),
            Condition::Internal => Self::Known(!place.external),
            Condition::NextHop(addresses) => next_hop(addresses),
            Condition::Owner(owners) => {
                let owner = asked(format!("{}()", functions.owner(owners, place.family)));
                Self::joined([asked("source != RTS_BGP".to_owned()), owner], false)
            }
            Condition::Not(condition) => Self::of(condition, place, functions).not(),
            Condition::Any(parts) => {
                let parts: Vec<_> = each(parts, place, functions);
                Self::joined(parts, false)
            }
            Condition::All(parts) => {
                let parts: Vec<_> = each(parts, place, functions);
                Self::joined(parts, true)
            }
        }
    }
}

/// Each of several conditions.
pub(super) fn each(
    conditions: &[Condition],
    place: &Place<'_>,
    functions: &mut Functions,
) -> Vec<Expression> {
    let conditions = conditions.iter();
    conditions
        .map(|condition| Expression::of(condition, place, functions))
        .collect()
}

fn prefix(comparison: &PrefixMatch, family: Family) -> Expression {
    let cidr = comparison.cidr;
    let inverse = matches!(
        comparison.operator,
        PrefixOperator::NotEqual | PrefixOperator::NotIn
    );
    let equal = matches!(
        comparison.operator,
        PrefixOperator::Equal | PrefixOperator::NotEqual
    );
    let min = comparison.min.unwrap_or_else(|| cidr.length());
    let max = comparison.max.unwrap_or_else(|| family.width());
    let held = if cidr.family() != family {
        Expression::Known(false)
    } else if equal {
        let bounded = comparison.min.is_some() || comparison.max.is_some();
        if bounded && !(min..=max).contains(&cidr.length()) {
            Expression::Known(false)
        } else {
            Expression::Asked(format!("net = {cidr}"))
        }
    } else {
        among(range(&cidr, min, max))
    };
    if inverse { held.not() } else { held }
}

fn prefix_set(set: &PrefixSet, family: Family) -> Expression {
    among(items(set, family))
}

/// The items of a set that are of a family.
pub(super) fn items(set: &PrefixSet, family: Family) -> Vec<String> {
    let own = set.iter().filter(|(prefix, _)| prefix.family() == family);
    own.filter_map(|(prefix, (min, max))| range(prefix, min, max))
        .collect()
}

/// Whether the prefix is one of those that a set's items describe.
pub(super) fn among(items: impl IntoIterator<Item = String>) -> Expression {
    let items: Vec<String> = items.into_iter().collect();
    match items.as_slice() {
        [] => Expression::Known(false),
        items => Expression::Asked(format!("net ~ [ {} ]", items.join(", "))),
    }
}

/// The prefixes of `min` to `max` bits within another; `None` if there can be none.
pub(super) fn range(prefix: &Cidr, min: u8, max: u8) -> Option<String> {
    let max = max.min(prefix.family().width());
    let min = min.max(prefix.length());
    (min <= max).then(|| format!("{prefix}{{{min},{max}}}"))
}

fn next_hop(addresses: &BTreeSet<IpAddr>) -> Expression {
    if addresses.is_empty() {
        return Expression::Known(false);
    }
    Expression::Asked(format!("bgp_next_hop ~ [ {} ]", join(addresses, ", ")))
}

/// An own route's priority, or what the local preference stands for.
fn has_priority(priority: u32) -> String {
    let by_preference = match PRIORITY_BASE.checked_sub(priority) {
        None => return format!("defined({PRIORITY}) && {PRIORITY} = {priority}"),
        Some(0) => String::from("= 0"),
        Some(preference) if priority == 0 => format!(">= {preference}"),
        Some(preference) => format!("= {preference}"),
    };
    format!(
        "(defined({PRIORITY}) && {PRIORITY} = {priority}) || (!defined({PRIORITY}) && \
         defined(bgp_local_pref) && bgp_local_pref {by_preference})"
    )
}

/// `(65000,7)`.
pub(super) fn pair(community: Community) -> String {
    format!("({},{})", community.0 >> 16, community.0 & 0xffff)
}

/// `(65000,1,2)`.
pub(super) fn triple(community: LargeCommunity) -> String {
    let [global, first, second] = community.0;
    format!("({global},{first},{second})")
}

/// Items with something between.
pub(super) fn join<T: Display>(items: impl IntoIterator<Item = T>, glue: &str) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    texts.join(glue)
}

const PRIORITY_BASE: u32 = 2_147_483_647;
