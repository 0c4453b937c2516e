//! Import and export policy: rules on routes, the first that decides wins.

mod condition;
mod difference;
mod evaluate;

use std::sync::Arc;

use margay_model::scalar::AsNumber;

use crate::attribute::{Community, LargeCommunity};
use crate::config::NextHopMode;

pub use condition::{Condition, Interfaces, Owners, PrefixMatch, PrefixOperator, PrefixSet};
pub use difference::Difference;
pub(crate) use evaluate::Outcome;
pub use evaluate::{Candidate, RouteSource};

/// Rules on routes in one direction of a session.
///
/// Rules are tried in order. One whose conditions all hold applies its operations; its verdict, if
/// it has one, ends the evaluation. Where no rule decides, `otherwise` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A name for people: where the policy comes from.
    pub name: String,
    /// The rules in order.
    pub rules: Vec<Rule>,
    /// What happens to a route that no rule decides on.
    pub otherwise: Verdict,
}

/// A rule on routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A name for people, given as the reason of a rejection.
    pub name: Arc<str>,
    /// What must hold, all of it; an empty list always holds.
    pub conditions: Vec<Condition>,
    /// Changes to the route, in order.
    pub operations: Vec<Operation>,
    /// The decision; `None` goes on with the next rule.
    pub verdict: Option<Verdict>,
}

/// What happens to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Accept,
    /// It is dropped.
    Reject,
}

/// A change to a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds a community.
    AddCommunity(Community),
    /// Adds a large community.
    AddLargeCommunity(LargeCommunity),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Removes a large community.
    RemoveLargeCommunity(LargeCommunity),
    /// Removes all communities and large communities.
    ClearCommunities,
    /// Puts AS numbers before the path, in the given order.
    PrependAs(Vec<AsNumber>),
    /// Sets LOCAL_PREF.
    SetLocalPref(u32),
    /// Sets the kernel priority that Calico carries in LOCAL_PREF: 2147483647 less `0`.
    SetPriority(u32),
    /// Sets MULTI_EXIT_DISC.
    SetMed(Option<u32>),
    /// Chooses the next hop on export, before the session's own mode.
    SetNextHop(NextHopMode),
}

impl Policy {
    /// A policy that takes everything.
    #[must_use]
    pub fn accept_all() -> Arc<Self> {
        Self::without_rules("accept all", Verdict::Accept)
    }

    /// A policy that takes nothing.
    #[must_use]
    pub fn reject_all() -> Arc<Self> {
        Self::without_rules("reject all", Verdict::Reject)
    }

    fn without_rules(name: &str, otherwise: Verdict) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            rules: Vec::new(),
            otherwise,
        })
    }
}

impl Rule {
    /// A rule that changes nothing.
    pub fn new(name: impl Into<Arc<str>>, conditions: Vec<Condition>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            conditions,
            operations: Vec::new(),
            verdict: Some(verdict),
        }
    }

    /// A rule that only changes.
    pub fn change(
        name: impl Into<Arc<str>>,
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Self {
        Self {
            name: name.into(),
            conditions,
            operations,
            verdict: None,
        }
    }
}

/// The priority that a local preference stands for in Calico's scheme, and back.
#[must_use]
pub fn priority_of_preference(local_pref: u32) -> u32 {
    PRIORITY_BASE.saturating_sub(local_pref)
}

const PRIORITY_BASE: u32 = 2_147_483_647;
