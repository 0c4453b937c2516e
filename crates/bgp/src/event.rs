//! What a speaker tells: commands for its shell, changes of its table, events for people.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};
use serde::Serialize;

use crate::attribute::{Attributes, NextHop};
use crate::config::{Families, Password};
use crate::message::Notification;

/// A connection of the speaker; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ConnectionId(pub(crate) u64);

/// Something the shell is to do or to pass on.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Make a TCP connection; answer with `connected` or `connection_closed`.
    Connect {
        /// What the connection will be called.
        connection: ConnectionId,
        /// Where to.
        target: Target,
    },
    /// There is something to send: take it by `transmit`.
    Transmit(ConnectionId),
    /// Send what is left, as far as the socket takes it now, then close the connection. The
    /// speaker has forgotten it.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// The last octets: a NOTIFICATION, or nothing.
        last: Vec<u8>,
    },
    /// The best routes of a prefix are others now; `None` when there are none. Own routes are told
    /// too.
    Best {
        /// The prefix.
        prefix: Cidr,
        /// The routes.
        best: Option<Arc<BestRoute>>,
    },
    /// All peers that were waited for have announced their routes, or the wait is over: what the
    /// table does not have is gone. Told once.
    Converged,
    /// Something happened that people may want to know.
    Event(Event),
}

/// Where a connection goes to, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The interface's index of a link-local address; 0 otherwise.
    pub scope: u32,
    /// Our address.
    pub source: Option<IpAddr>,
    /// Options of the socket.
    pub options: SocketOptions,
}

/// Options of a session's socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// TTL or hop limit of what is sent; the system's when absent.
    pub ttl: Option<u8>,
    /// The least TTL or hop limit of what is received (RFC 5082); any when absent.
    pub min_ttl: Option<u8>,
    /// The key of TCP's MD5 signatures.
    pub password: Option<Password>,
}

/// The best routes of a prefix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BestRoute {
    /// Whose the best route is.
    pub source: Source,
    /// The best route's attributes after import policy.
    pub attributes: Arc<Attributes>,
    /// The next hops of all routes that are as good, in order and without repetition, the best
    /// route's first if there is room for one only. None for a route of our own.
    pub next_hops: Vec<NextHop>,
    /// Why the best is the best.
    pub reason: BestReason,
    /// Whether it outlived its session and awaits confirmation.
    pub stale: bool,
}

/// Whose a route is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Our own.
    Local,
    /// A peer's.
    Peer {
        /// The peer's name.
        name: Arc<str>,
        /// The peer's address.
        address: IpAddr,
    },
}

/// The step of the decision that left one route (RFC 4271 §9.1.2.2, RFC 4456 §9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BestReason {
    /// There is no other.
    OnlyPath,
    /// It is our own.
    Local,
    /// The others are long-lived stale (RFC 9494 §4.3).
    NotStale,
    /// It has the highest local preference.
    LocalPreference,
    /// It has the shortest AS path.
    AsPathLength,
    /// It has the best origin.
    Origin,
    /// It has the lowest MULTI_EXIT_DISC among routes of the same neighbouring AS.
    Med,
    /// It is external.
    External,
    /// Its next hop is the nearest.
    NextHopMetric,
    /// Its originator has the lowest BGP identifier.
    RouterId,
    /// It was reflected the fewest times.
    ClusterListLength,
    /// Its peer has the lowest address.
    PeerAddress,
    /// It has the lowest path identifier.
    PathId,
}

impl BestReason {
    /// The first step in which two routes of peers differ by what they bear: the attributes of each, and whether
    /// its session is external. `None` for routes that are as good. For speakers that do not say why a route is
    /// the best.
    #[must_use]
    pub fn by_attributes(one: (&Attributes, bool), other: (&Attributes, bool)) -> Option<Self> {
        let ((one, external), (other, other_external)) = (one, other);
        let steps = [
            (
                one.preference() == other.preference(),
                Self::LocalPreference,
            ),
            (
                one.as_path.length() == other.as_path.length(),
                Self::AsPathLength,
            ),
            (one.origin == other.origin, Self::Origin),
            (one.med == other.med, Self::Med),
            (external == other_external, Self::External),
        ];
        steps
            .into_iter()
            .find(|(same, _)| !same)
            .map(|(_, reason)| reason)
    }
}

impl fmt::Display for BestReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyPath => "only path",
            Self::Local => "own route",
            Self::NotStale => "others are long-lived stale",
            Self::LocalPreference => "higher local preference",
            Self::AsPathLength => "shorter AS path",
            Self::Origin => "better origin",
            Self::Med => "lower MED",
            Self::External => "external before internal",
            Self::NextHopMetric => "nearer next hop",
            Self::RouterId => "lower router ID",
            Self::ClusterListLength => "shorter cluster list",
            Self::PeerAddress => "lower peer address",
            Self::PathId => "lower path ID",
        })
    }
}

/// Something that people may want to know.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A session is up.
    PeerUp {
        /// The peer's name.
        peer: Arc<str>,
        /// The peer's address.
        address: IpAddr,
        /// The peer's AS.
        asn: AsNumber,
        /// The families in use.
        families: Families,
    },
    /// A session that was up is down.
    PeerDown {
        /// The peer's name.
        peer: Arc<str>,
        /// The peer's address.
        address: IpAddr,
        /// Why.
        reason: DownReason,
        /// Whether the peer's routes are kept for its restart.
        kept: bool,
    },
    /// A session did not come up.
    PeerFailed {
        /// The peer's name.
        peer: Arc<str>,
        /// The peer's address.
        address: IpAddr,
        /// Why.
        reason: DownReason,
    },
    /// A peer announces more than three quarters of what it may.
    PrefixLimitNear {
        /// The peer's name.
        peer: Arc<str>,
        /// The family.
        family: Family,
        /// How many prefixes there are.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A peer announces more than it may.
    PrefixLimitReached {
        /// The peer's name.
        peer: Arc<str>,
        /// The family.
        family: Family,
        /// How many there may be.
        limit: u32,
    },
    /// A peer sent an UPDATE with an error that did not end the session (RFC 7606).
    AttributeError {
        /// The peer's name.
        peer: Arc<str>,
        /// What is wrong, and the attribute in hexadecimal.
        detail: String,
    },
    /// A connection was not taken.
    ConnectionRefused {
        /// From where it came.
        address: IpAddr,
        /// Why.
        reason: Refusal,
    },
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Nobody is expected there.
    #[error("no peer is configured with this address; configure one, or a range that holds it")]
    UnknownPeer,
    /// The peer is shut down here.
    #[error("the peer is shut down by configuration")]
    ShutDown,
    /// There are enough connections with the peer.
    #[error("the peer has a connection already")]
    Duplicate,
    /// The range has its most peers.
    #[error("the range of dynamic peers is full; raise its limit")]
    RangeFull,
    /// The peer waits after an error.
    #[error("the peer is held down after an error")]
    HeldDown,
    /// Too many connections came from there lately.
    #[error("too many connections come from there; those beyond some a second are refused")]
    TooMany,
    /// The speaker stops.
    #[error("the speaker stops")]
    Stopping,
}

/// Why a session ended or did not come up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum DownReason {
    /// Nothing came for the hold time.
    #[error("hold timer expired")]
    HoldTimer,
    /// Nothing could be sent for the send hold time (RFC 9687).
    #[error("send hold timer expired: the peer takes no data")]
    SendHoldTimer,
    /// The connection broke or was not made.
    #[error("TCP: {0}")]
    Transport(String),
    /// The peer is of another AS than configured.
    #[error("wrong AS {found}, want {wanted}")]
    WrongAs {
        /// What the peer says.
        found: AsNumber,
        /// What is configured.
        wanted: String,
    },
    /// The peer's BGP identifier is 0 or ours.
    #[error("bad BGP identifier {0}: it is zero or our own")]
    BadIdentifier(std::net::Ipv4Addr),
    /// No family is wanted by both.
    #[error("no common address family")]
    NoCommonFamily,
    /// Another connection with the peer won (RFC 4271 §6.8).
    #[error("duplicate session")]
    Collision,
    /// The peer made a new connection, so the old one must be dead (RFC 4724 §4.2).
    #[error("the peer restarted")]
    PeerRestarted,
    /// The peer told why.
    #[error("peer says: {0}")]
    Received(Notification),
    /// The peer's message was wrong; this is what it was told.
    #[error("protocol error: {0}")]
    Sent(Notification),
    /// The peer announced more than it may.
    #[error("more than {limit} {family} prefixes")]
    MaxPrefixes {
        /// The family.
        family: Family,
        /// The limit.
        limit: u32,
    },
    /// The configuration changed in a way that needs a new session.
    #[error("configuration changed")]
    Reconfigured,
    /// The peer is no longer configured.
    #[error("peer removed")]
    Removed,
    /// The peer is shut down by configuration.
    #[error("shut down by configuration")]
    ShutDown,
    /// A person asked for it.
    #[error("reset by an operator")]
    Reset,
    /// The speaker stops.
    #[error("the speaker stops")]
    Stopping,
}

#[cfg(test)]
mod tests {
    use margay_model::Cidr;
    use margay_model::scalar::AsNumber;

    use super::*;
    use crate::attribute::Origin;
    use crate::route::LocalRoute;

    #[test]
    fn the_first_step_in_which_routes_differ_is_told() {
        let prefix: Cidr = "10.65.0.0/26".parse().unwrap();
        let plain = LocalRoute::new(prefix).attributes();
        let with = |change: &dyn Fn(&mut Attributes)| {
            let mut other = plain.clone();
            change(&mut other);
            other
        };
        let med = with(&|other| other.med = Some(7));
        let origin = with(&|other| {
            other.origin = Origin::Incomplete;
            other.med = Some(7);
        });
        let path = with(&|other| {
            other.as_path.prepend(&[AsNumber(1)]);
            other.origin = Origin::Egp;
        });
        let preference = with(&|other| {
            other.local_pref = Some(200);
            other.as_path.prepend(&[AsNumber(1)]);
        });
        // 100 is what an absent LOCAL_PREF stands for.
        let usual = with(&|other| other.local_pref = Some(100));
        for (other, external, wanted) in [
            (&usual, false, None),
            (&usual, true, Some(BestReason::External)),
            (&med, true, Some(BestReason::Med)),
            (&origin, false, Some(BestReason::Origin)),
            (&path, false, Some(BestReason::AsPathLength)),
            (&preference, false, Some(BestReason::LocalPreference)),
        ] {
            let told = BestReason::by_attributes((&plain, false), (other, external));
            assert_eq!(told, wanted);
            let told = BestReason::by_attributes((other, external), (&plain, false));
            assert_eq!(told, wanted);
        }
    }
}
