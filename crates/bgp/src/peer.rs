//! A peer: its configuration, its connections, its routes and its clocks.

mod connection;
mod received;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use margay_model::Family;
use margay_model::scalar::AsNumber;

use crate::config::{Families, PeerConfig, PerFamily};
use crate::event::{ConnectionId, DownReason};
use crate::message::Capability;
use crate::status::{PeerCounters, State};
use crate::table::PeerSource;
pub(crate) use connection::{Connection, Graceful, Phase, Session};
pub(crate) use received::{AdjRibIn, InRoute, Rejection, Restart};

/// A peer of this speaker; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PeerId(pub(crate) u32);

/// An update group of this speaker; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupId(pub(crate) u32);

/// A peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) name: Arc<str>,
    pub(crate) config: PeerConfig,
    /// The range the peer came from, if it has no configuration of its own.
    pub(crate) range: Option<Arc<str>>,
    /// Connections on their way up, and the one that is up.
    pub(crate) connections: Vec<Connection>,
    /// When a connection is tried next.
    pub(crate) retry_at: Option<Duration>,
    /// Until when nothing is tried or taken, after an error.
    pub(crate) idle_until: Option<Duration>,
    /// How many errors came in a row.
    pub(crate) errors: u32,
    /// What is known of the peer by its last OPEN.
    pub(crate) known: Option<Known>,
    /// Routes of the peer by family.
    pub(crate) received: PerFamily<AdjRibIn>,
    /// What the peer's routes in the table have in common, of the last session.
    pub(crate) source: Option<Arc<PeerSource>>,
    /// The update groups the peer is a member of.
    pub(crate) groups: PerFamily<Option<GroupId>>,
    /// Whether there was a session ever.
    pub(crate) was_up: bool,
    /// The state as it was told last, and since when it is.
    pub(crate) state: State,
    pub(crate) since: Duration,
    pub(crate) last_error: Option<DownReason>,
    pub(crate) counters: PeerCounters,
    /// The time for which the speaker has been asked to look after the peer.
    pub(crate) armed: Option<Duration>,
}

/// What an OPEN said of a peer.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) asn: AsNumber,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) local_capabilities: Vec<Capability>,
    pub(crate) local_address: Option<IpAddr>,
}

impl Peer {
    pub(crate) fn new(
        id: PeerId,
        name: Arc<str>,
        config: PeerConfig,
        range: Option<Arc<str>>,
        now: Duration,
    ) -> Self {
        Self {
            id,
            name,
            config,
            range,
            connections: Vec::new(),
            retry_at: None,
            idle_until: None,
            errors: 0,
            known: None,
            received: PerFamily::default(),
            source: None,
            groups: PerFamily::default(),
            was_up: false,
            state: State::Idle,
            since: now,
            last_error: None,
            counters: PeerCounters::default(),
            armed: None,
        }
    }

    /// The connection that is up.
    pub(crate) fn established(&self) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|connection| connection.phase == Phase::Established)
    }

    /// The session that is up.
    pub(crate) fn session(&self) -> Option<&Session> {
        self.established()?.session.as_ref()
    }

    pub(crate) fn connection(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|connection| connection.id == id)
    }

    pub(crate) fn connection_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == id)
    }

    /// The state now.
    pub(crate) fn current_state(&self) -> State {
        let farthest = self
            .connections
            .iter()
            .map(|connection| connection.phase)
            .max();
        match farthest {
            Some(Phase::Established) => State::Established,
            Some(Phase::OpenConfirm) => State::OpenConfirm,
            Some(Phase::OpenSent) => State::OpenSent,
            Some(Phase::Connecting) => State::Connect,
            None if self.config.shutdown.is_some() || self.idle_until.is_some() => State::Idle,
            None => State::Active,
        }
    }

    /// When the peer needs to be looked after next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let connections = self.connections.iter().filter_map(Connection::deadline);
        let restarts = [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| self.received.get(family).restart.deadline());
        connections
            .chain(restarts)
            .chain(self.retry_at)
            .chain(self.idle_until)
            .min()
    }

    /// The families in use; none while there is no session.
    pub(crate) fn families(&self) -> Families {
        self.session()
            .map_or(Families::NONE, |session| session.context.families)
    }
}
