//! The configuration of a peer.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_model::scalar::AsNumber;

use super::family::{Families, PerFamily};
use crate::policy::Policy;

/// A peer, or the template of dynamic peers.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerConfig {
    /// The peer's address.
    pub address: IpAddr,
    /// The TCP port that connections are made to.
    pub port: u16,
    /// The interface's index of a link-local address; 0 otherwise.
    pub scope: u32,
    /// What kind of peer this is in the words of whoever configured it, such as `mesh`.
    pub label: String,
    /// Given for a peer that is shut down, with the text it is told (RFC 9003).
    pub shutdown: Option<String>,
    /// Which AS the peer may be of.
    pub remote_as: RemoteAs,
    /// The AS we claim to be of on this session, instead of our own.
    pub local_as: Option<AsNumber>,
    /// Waits for the peer's connection instead of making one.
    pub passive: bool,
    /// Our address on the session.
    pub source: Option<IpAddr>,
    /// The key of TCP's MD5 signatures (RFC 2385).
    pub password: Option<Password>,
    /// How far the peer may be.
    pub ttl: TtlMode,
    /// Times.
    pub timers: TimersConfig,
    /// The families of routes that are exchanged.
    pub families: Families,
    /// Which next hop routes are announced with.
    pub next_hop: NextHopMode,
    /// How often our AS may stand in the path of a route from this peer.
    pub allow_own_as: u8,
    /// Whether routes are reflected to and from the peer (RFC 4456); only for internal peers.
    pub reflector_client: bool,
    /// The most prefixes that are taken from the peer.
    pub max_prefixes: PerFamily<Option<MaxPrefixes>>,
    /// What happens to routes while a side restarts.
    pub graceful_restart: GracefulRestart,
    /// Several paths for a prefix (RFC 7911).
    pub add_path: AddPath,
    /// IPv4 routes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether a route from an external peer must have the peer's AS first in its path.
    pub enforce_first_as: bool,
    /// What is taken from the peer. Without a policy everything is, from an internal peer, and
    /// nothing from an external one (RFC 8212).
    pub import: Option<Arc<Policy>>,
    /// What is announced to the peer. As above without one.
    pub export: Option<Arc<Policy>>,
}

/// Which AS a peer may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteAs {
    /// This.
    Is(AsNumber),
    /// Any.
    Any,
    /// Any but ours.
    External,
    /// Ours.
    Internal,
}

/// How far a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TtlMode {
    /// On a common link if the peer is external; anywhere if it is internal.
    Auto,
    /// At most so many hops away.
    Multihop(u8),
    /// Packets must have a TTL that shows the peer to be at most so many hops away (RFC 5082); 1 is
    /// a common link.
    Security(u8),
}

/// Times of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimersConfig {
    /// The session ends when nothing came for so long: 0 (never), or 3 s and more. The smaller of
    /// both sides' counts.
    pub hold: Duration,
    /// How often a sign of life is sent; a third of the hold time when absent, and never longer.
    pub keepalive: Option<Duration>,
    /// The pause before another connection is tried, less up to a quarter by chance.
    pub connect_retry: Duration,
    /// The pause after an error; it doubles with each further one, up to `error_wait_max`.
    pub error_wait: Duration,
    /// The longest pause after errors.
    pub error_wait_max: Duration,
    /// The session ends when nothing could be sent for so long (RFC 9687); the larger of eight
    /// minutes and twice the hold time when absent.
    pub send_hold: Option<Duration>,
}

/// Which next hop routes are announced with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NextHopMode {
    /// Ours to external peers; unchanged to internal peers, but for our own routes.
    Auto,
    /// Ours.
    Own,
    /// Unchanged, but for our own routes.
    Keep,
}

/// The most prefixes that are taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// So many.
    pub limit: u32,
    /// What happens with one more.
    pub over: OverLimit,
}

/// What happens when a peer announces more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverLimit {
    /// The session ends, and is tried again after this; never by itself when absent.
    Stop {
        /// The pause.
        restart: Option<Duration>,
    },
    /// Further prefixes are not taken.
    Discard,
}

/// What happens to routes while a side restarts (RFC 4724, RFC 8538, RFC 9494).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GracefulRestart {
    /// Whether the capability is announced and the peer's honoured.
    pub enabled: bool,
    /// How long the peer is asked to keep our routes: up to 4095 s.
    pub restart_time: Duration,
    /// The longest that the peer's routes are kept after its session ended, whatever it asks for.
    pub helper_time: Duration,
    /// How long a peer that is back may take to announce its routes again.
    pub stale_time: Duration,
    /// How long routes are kept as a last resort after that; none when absent (RFC 9494).
    pub long_lived: Option<Duration>,
}

/// Several paths for a prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddPath {
    /// Whether the peer may announce several.
    pub receive: bool,
    /// The most that are announced to the peer; 0 announces the best as usual.
    pub send: u8,
}

/// A key of TCP's MD5 signatures: 1 to 80 octets, shown by nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Password(Arc<str>);

/// A text that cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a BGP password has 1 to 80 octets, and this one has {0}")]
pub struct PasswordError(usize);

impl PeerConfig {
    /// A peer with the usual settings.
    #[must_use]
    pub fn new(address: IpAddr, remote_as: RemoteAs) -> Self {
        Self {
            address,
            port: BGP_PORT,
            scope: 0,
            label: String::new(),
            shutdown: None,
            remote_as,
            local_as: None,
            passive: false,
            source: None,
            password: None,
            ttl: TtlMode::Auto,
            timers: TimersConfig::default(),
            families: if address.is_ipv4() {
                Families::V4
            } else {
                Families::V6
            },
            next_hop: NextHopMode::Auto,
            allow_own_as: 0,
            reflector_client: false,
            max_prefixes: PerFamily::default(),
            graceful_restart: GracefulRestart::default(),
            add_path: AddPath::default(),
            extended_next_hop: false,
            enforce_first_as: true,
            import: None,
            export: None,
        }
    }

    /// Whether a change from `self` to `next` can only be made with a new session.
    pub(crate) fn needs_reset(&self, next: &Self) -> bool {
        let as_before = Self {
            label: next.label.clone(),
            allow_own_as: next.allow_own_as,
            reflector_client: next.reflector_client,
            next_hop: next.next_hop,
            max_prefixes: next.max_prefixes,
            enforce_first_as: next.enforce_first_as,
            import: next.import.clone(),
            export: next.export.clone(),
            passive: next.passive,
            timers: TimersConfig {
                hold: self.timers.hold,
                ..next.timers
            },
            ..self.clone()
        };
        as_before != *next
    }
}

impl RemoteAs {
    /// Whether a peer of AS `asn` is meant, ours being `own`.
    #[must_use]
    pub fn holds(self, asn: AsNumber, own: AsNumber) -> bool {
        match self {
            Self::Is(wanted) => asn == wanted,
            Self::Any => true,
            Self::External => asn != own,
            Self::Internal => asn == own,
        }
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(asn) => asn.fmt(f),
            Self::Any => f.write_str("any"),
            Self::External => f.write_str("external"),
            Self::Internal => f.write_str("internal"),
        }
    }
}

impl Default for TimersConfig {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(90),
            keepalive: None,
            connect_retry: Duration::from_secs(5),
            error_wait: Duration::from_secs(2),
            error_wait_max: Duration::from_secs(30),
            send_hold: None,
        }
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            enabled: true,
            restart_time: Duration::from_secs(120),
            helper_time: Duration::from_secs(600),
            stale_time: Duration::from_secs(360),
            long_lived: None,
        }
    }
}

impl Password {
    /// A key.
    ///
    /// # Errors
    /// An empty text, or one of more than 80 octets (`TCP_MD5SIG_MAXKEYLEN`).
    pub fn new(text: &str) -> Result<Self, PasswordError> {
        match text.len() {
            1..=PASSWORD_MAX => Ok(Self(text.into())),
            length => Err(PasswordError(length)),
        }
    }

    /// The key's octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// The port of BGP.
pub const BGP_PORT: u16 = 179;
const PASSWORD_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_bounded_and_not_shown() {
        assert_eq!(
            format!("{:?}", Password::new("secret").unwrap()),
            "Password(…)"
        );
        assert_eq!(Password::new(""), Err(PasswordError(0)));
        assert!(Password::new(&"x".repeat(80)).is_ok());
        assert_eq!(Password::new(&"x".repeat(81)), Err(PasswordError(81)));
    }

    #[test]
    fn only_what_the_session_is_made_of_resets_it() {
        let peer = PeerConfig::new("10.0.0.2".parse().unwrap(), RemoteAs::Internal);
        let filtered = PeerConfig {
            import: Some(Policy::reject_all()),
            allow_own_as: 2,
            timers: TimersConfig {
                connect_retry: Duration::from_secs(1),
                ..peer.timers
            },
            ..peer.clone()
        };
        assert!(!peer.needs_reset(&filtered));
        let password = Some(Password::new("x").unwrap());
        for changed in [
            PeerConfig {
                remote_as: RemoteAs::Any,
                ..peer.clone()
            },
            PeerConfig {
                password,
                ..peer.clone()
            },
            PeerConfig {
                families: Families::BOTH,
                ..peer.clone()
            },
            PeerConfig {
                local_as: Some(AsNumber(1)),
                ..peer.clone()
            },
            PeerConfig {
                ttl: TtlMode::Security(1),
                ..peer.clone()
            },
        ] {
            assert!(peer.needs_reset(&changed), "{changed:?}");
        }
    }
}
