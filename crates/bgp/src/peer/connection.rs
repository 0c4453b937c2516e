//! A connection with a peer on its way to a session (RFC 4271 §8).

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use margay_model::scalar::AsNumber;

use crate::config::{Families, PerFamily};
use crate::event::ConnectionId;
use crate::message::Context;

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnectionId,
    /// Whether the peer made it.
    pub(crate) incoming: bool,
    pub(crate) phase: Phase,
    /// Our address.
    pub(crate) local: Option<IpAddr>,
    /// What came and is no whole message yet.
    pub(crate) partial: Vec<u8>,
    /// Messages to send before any route.
    pub(crate) control: Vec<u8>,
    /// What both sides agreed on, from OPEN on.
    pub(crate) session: Option<Session>,
    /// When the attempt is given up, or the session, for want of messages.
    pub(crate) hold_until: Option<Duration>,
    /// When a sign of life is due.
    pub(crate) keepalive_at: Option<Duration>,
    /// When the session is given up because nothing can be sent.
    pub(crate) send_until: Option<Duration>,
    /// Whether the shell has been told that there is something to send.
    pub(crate) announced: bool,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Connecting,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What both sides of a session agreed on.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) asn: AsNumber,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) context: Context,
    /// The families for which several paths are sent.
    pub(crate) add_path_send: Families,
    /// Zero for none.
    pub(crate) hold: Duration,
    /// Zero for none.
    pub(crate) keepalive: Duration,
    pub(crate) refresh: bool,
    pub(crate) enhanced_refresh: bool,
    pub(crate) graceful: Graceful,
}

/// What the peer wants of its restarts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graceful {
    /// Whether the peer announced the capability, and so will send End-of-RIB.
    pub(crate) announced: bool,
    /// Whether forwarding outlives NOTIFICATIONs (RFC 8538): both sides said so.
    pub(crate) notification: bool,
    /// How long the peer's routes are to be kept.
    pub(crate) time: Duration,
    /// The families whose routes are to be kept.
    pub(crate) families: Families,
    /// The families whose forwarding outlived the peer's last restart.
    pub(crate) forwarding: Families,
    /// The families whose routes are kept as a last resort, and for how long (RFC 9494).
    pub(crate) long_lived: PerFamily<Option<Duration>>,
    /// Whether the peer takes long-lived stale routes.
    pub(crate) takes_long_lived: bool,
}

impl Connection {
    pub(crate) fn new(id: ConnectionId, incoming: bool) -> Self {
        Self {
            id,
            incoming,
            phase: Phase::Connecting,
            local: None,
            partial: Vec::new(),
            control: Vec::new(),
            session: None,
            hold_until: None,
            keepalive_at: None,
            send_until: None,
            announced: false,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        [self.hold_until, self.keepalive_at, self.send_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// What reading depends on.
    pub(crate) fn context(&self) -> Context {
        self.session
            .as_ref()
            .map_or(Context::NONE, |session| session.context)
    }
}
