//! The Adj-RIB-In: a peer's routes of a family as it announced them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use margay_model::Cidr;

use crate::attribute::Attributes;
use crate::status::RestartState;
use crate::table::Freshness;

/// A peer's routes of a family.
#[derive(Debug, Default)]
pub(crate) struct AdjRibIn {
    /// By prefix and path identifier.
    pub(crate) routes: BTreeMap<(Cidr, u32), InRoute>,
    /// How many import policy took.
    pub(crate) accepted: u32,
    /// What is done about the routes while the peer restarts.
    pub(crate) restart: Restart,
    /// Whether End-of-RIB came in this session.
    pub(crate) ended: bool,
    /// Whether the peer announced that it sends everything again (RFC 7313).
    pub(crate) refreshing: bool,
    /// Whether people were told that the limit is near.
    pub(crate) near_limit: bool,
}

/// A route as announced.
#[derive(Debug)]
pub(crate) struct InRoute {
    /// The attributes before import policy.
    pub(crate) attributes: Arc<Attributes>,
    /// Why it is not taken.
    pub(crate) rejection: Option<Rejection>,
    /// Whether it outlived its session.
    pub(crate) stale: Freshness,
    /// Whether it was announced before the refresh that is under way.
    pub(crate) before_refresh: bool,
}

/// What is done about routes while their peer restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Nothing.
    #[default]
    None,
    /// They are kept until the peer is back.
    Waiting {
        /// No longer than this.
        until: Duration,
        /// However often the peer restarts meanwhile, no longer than this.
        limit: Duration,
    },
    /// The peer is back; those it does not announce again go.
    Syncing {
        /// At the latest now.
        until: Duration,
    },
    /// They are kept as a last resort.
    LongLived {
        /// No longer than this.
        until: Duration,
    },
}

/// Why a route is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    AsLoop,
    OriginatorLoop,
    ClusterLoop,
    FirstAs,
    NextHop,
    NoPolicy,
    Policy(Option<Arc<str>>),
    NotWantedStale,
}

impl Restart {
    pub(crate) fn deadline(self) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Waiting { until, .. } | Self::Syncing { until } | Self::LongLived { until } => {
                Some(until)
            }
        }
    }

    pub(crate) fn shown(self) -> RestartState {
        match self {
            Self::None => RestartState::None,
            Self::Waiting { .. } => RestartState::Waiting,
            Self::Syncing { .. } => RestartState::Syncing,
            Self::LongLived { .. } => RestartState::LongLived,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsLoop => f.write_str("our AS is in the path"),
            Self::OriginatorLoop => f.write_str("we are the originator"),
            Self::ClusterLoop => f.write_str("our cluster is in the cluster list"),
            Self::FirstAs => f.write_str("the path does not start with the peer's AS"),
            Self::NextHop => f.write_str("the next hop is no unicast address, or our own"),
            Self::NoPolicy => f.write_str("no import policy for an external peer"),
            Self::Policy(Some(rule)) => write!(f, "import policy: {rule}"),
            Self::Policy(None) => f.write_str("import policy: no rule accepts it"),
            Self::NotWantedStale => f.write_str("not to be kept beyond its session"),
        }
    }
}
