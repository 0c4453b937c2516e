//! Connections: made, taken, closed; what is sent on them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Speaker;
use crate::config::{FAMILIES, PeerConfig, RemoteAs, TtlMode};
use crate::event::{ConnectionId, DownReason, Event, Output, Refusal, SocketOptions, Target};
use crate::message::{self, Notification, cease};
use crate::peer::{Connection, Peer, PeerId, Phase};

impl Speaker {
    /// Takes or refuses a connection that somebody made to us. The options are to be set on its
    /// socket before anything is read.
    ///
    /// # Errors
    /// Why the connection is to be closed at once.
    pub fn accept(
        &mut self,
        now: Duration,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<(ConnectionId, SocketOptions), Refusal> {
        let (local, remote) = (local.to_canonical(), remote.to_canonical());
        let taken = self
            .find_peer(now, remote)
            .and_then(|id| self.may_accept(now, id));
        let id = match taken {
            Ok(id) => id,
            Err(reason) => {
                self.tell(Event::ConnectionRefused {
                    address: remote,
                    reason,
                });
                return Err(reason);
            }
        };
        let connection = self.new_connection(id, true);
        let options = self.options(id);
        self.opened(now, connection, local);
        Ok((connection, options))
    }

    /// Says that a connection we asked for is there.
    pub fn connected(&mut self, now: Duration, connection: ConnectionId, local: IpAddr) {
        self.opened(now, connection, local.to_canonical());
    }

    /// Says that a connection is closed, or could not be made.
    pub fn closed(&mut self, now: Duration, connection: ConnectionId, why: &str) {
        let reason = DownReason::Transport(why.to_owned());
        self.lose_connection(now, connection, reason);
    }

    /// Writes what is to be sent on a connection to the end of `out`: nothing if there is nothing,
    /// else up to about 20 kB. Returns whether there is more. To be called only when all that it
    /// wrote before is on its way.
    pub fn transmit(&mut self, now: Duration, id: ConnectionId, out: &mut Vec<u8>) -> bool {
        let Some(peer) = self
            .connections
            .get(&id)
            .and_then(|peer| self.peers.get_mut(peer))
        else {
            return false;
        };
        let (peer_id, groups, send_hold) = (peer.id, peer.groups, peer.send_hold());
        let Some(connection) = peer.connection_mut(id) else {
            return false;
        };
        out.append(&mut connection.control);
        let limit = out.len() + TRANSMIT_LIMIT;
        let mut more = false;
        if connection.phase == Phase::Established {
            for group in FAMILIES
                .into_iter()
                .filter_map(|family| *groups.get(family))
            {
                let Some(group) = self.groups.get_mut(&group) else {
                    continue;
                };
                let written = group.transmit(peer_id, out, limit);
                more |= group.has_news(peer_id);
                peer.counters.sent.update += written.updates;
                peer.counters.sent.refresh += written.refreshes;
            }
        }
        if let Some(connection) = peer.connection_mut(id) {
            connection.announced = more;
            connection.send_until = more.then(|| now + send_hold);
            connection.control.shrink_to(CONTROL_KEPT);
        }
        self.arm(peer_id);
        more
    }

    /// Makes a connection to a peer, unless there is one on its way.
    pub(super) fn connect(&mut self, now: Duration, id: PeerId) {
        let stopping = self.stopping;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.retry_at = None;
        let idle = peer.config.passive || peer.config.shutdown.is_some() || stopping;
        if idle || peer.idle_until.is_some() || peer.range.is_some() {
            return;
        }
        if !peer.connections.is_empty() {
            // Once that one fails, the next is tried.
            return;
        }
        let timeout = peer.config.timers.connect_retry.max(CONNECT_TIMEOUT);
        let (address, port, scope) = (peer.config.address, peer.config.port, peer.config.scope);
        let source = peer.config.source;
        let connection = self.new_connection(id, false);
        let options = self.options(id);
        let target = Target {
            address,
            port,
            scope,
            source,
            options,
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            if let Some(made) = peer.connection_mut(connection) {
                made.hold_until = Some(now + timeout);
            }
            peer.note_state(now);
        }
        self.outputs.push(Output::Connect { connection, target });
    }

    /// Closes a connection of ours, with a last word for the peer.
    pub(super) fn drop_connection(
        &mut self,
        now: Duration,
        connection: ConnectionId,
        reason: DownReason,
        told: Option<Notification>,
    ) {
        let known = self
            .connections
            .get(&connection)
            .and_then(|id| self.peers.get_mut(id));
        let Some(peer) = known else {
            return;
        };
        let mut last = Vec::new();
        if let Some(told) = &told {
            message::encode_notification(&mut last, told);
            peer.counters.sent.notification += 1;
        }
        self.outputs.push(Output::Close { connection, last });
        self.lose_connection(now, connection, reason);
    }

    /// Closes all connections of a peer.
    pub(super) fn drop_all(
        &mut self,
        now: Duration,
        id: PeerId,
        reason: &DownReason,
        told: Option<Notification>,
    ) {
        let connections = self.peers.get(&id).map(|peer| {
            peer.connections
                .iter()
                .map(|c| (c.id, c.phase))
                .collect::<Vec<_>>()
        });
        for (connection, phase) in connections.into_iter().flatten() {
            let told = told.clone().filter(|_| phase > Phase::Connecting);
            self.drop_connection(now, connection, reason.clone(), told);
        }
    }

    /// Forgets a connection, and with it the session it carried; decides when to try again.
    fn lose_connection(&mut self, now: Duration, id: ConnectionId, reason: DownReason) {
        let Some(peer_id) = self.connections.remove(&id) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let Some(place) = peer.connections.iter().position(|c| c.id == id) else {
            return;
        };
        let connection = peer.connections.remove(place);
        let up = connection.phase == Phase::Established;
        let superseded = matches!(reason, DownReason::Collision | DownReason::PeerRestarted);
        if !superseded || peer.connections.is_empty() {
            peer.last_error = Some(reason.clone());
        }
        if up {
            if let Some(session) = connection.session {
                self.session_down(now, peer_id, &session, &reason);
            }
        } else if !superseded {
            let (name, address) = (Arc::clone(&peer.name), peer.config.address);
            self.tell(Event::PeerFailed {
                peer: name,
                address,
                reason: reason.clone(),
            });
        }
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let timers = peer.config.timers;
        let jitter = self.config.connect_jitter;
        match pause(&reason, up) {
            _ if !peer.connections.is_empty() => {}
            Pause::Short => peer.retry_at = Some(now + self.random.within(jitter)),
            Pause::Retry => {
                peer.retry_at = Some(now + self.random.jittered(timers.connect_retry));
            }
            Pause::Error => {
                let doublings = peer.errors.min(8);
                peer.errors = peer.errors.saturating_add(1);
                let wait = (timers.error_wait * 2_u32.pow(doublings)).min(timers.error_wait_max);
                peer.idle_until = Some(now + self.random.jittered(wait));
            }
            Pause::Limit => peer.idle_until = peer.limit_pause(now, &reason),
            Pause::Never => {}
        }
        peer.note_state(now);
        self.arm(peer_id);
        self.forget_if_done(peer_id);
    }

    /// Forgets a peer that came from a range and has neither connection nor routes.
    pub(super) fn forget_if_done(&mut self, id: PeerId) {
        let done = self.peers.get(&id).is_some_and(|peer| {
            let routes = FAMILIES
                .iter()
                .any(|f| !peer.received.get(*f).routes.is_empty());
            peer.range.is_some() && peer.connections.is_empty() && !routes
        });
        if done {
            self.remove_peer(id);
        }
    }

    fn new_connection(&mut self, peer: PeerId, incoming: bool) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        self.connections.insert(id, peer);
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.connections.push(Connection::new(id, incoming));
        }
        id
    }

    /// The peer at an address, made from a range if need be.
    fn find_peer(&mut self, now: Duration, remote: IpAddr) -> Result<PeerId, Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        let here = self
            .peers
            .values()
            .filter(|peer| peer.config.address == remote);
        // Of several sessions with one address, the one that is not up.
        if let Some(peer) = here.min_by_key(|peer| peer.established().is_some()) {
            return Ok(peer.id);
        }
        let ranges = self
            .config
            .ranges
            .iter()
            .filter(|(_, range)| range.cidr.contains(remote));
        let Some((name, range)) = ranges.max_by_key(|(_, range)| range.cidr.length()) else {
            return Err(Refusal::UnknownPeer);
        };
        let name: Arc<str> = name.as_str().into();
        let count = self
            .peers
            .values()
            .filter(|p| p.range.as_ref() == Some(&name))
            .count();
        if count >= range.limit {
            return Err(Refusal::RangeFull);
        }
        let config = PeerConfig {
            address: remote,
            passive: true,
            ..range.template.clone()
        };
        Ok(self.add_peer(now, &format!("{name}-{remote}"), config, Some(name)))
    }

    fn may_accept(&mut self, now: Duration, id: PeerId) -> Result<PeerId, Refusal> {
        let Some(peer) = self.peers.get(&id) else {
            return Err(Refusal::UnknownPeer);
        };
        if peer.config.shutdown.is_some() {
            return Err(Refusal::ShutDown);
        }
        if peer.idle_until.is_some() {
            return Err(Refusal::HeldDown);
        }
        // An earlier connection of the peer's that has not come up is dead: it made a new one.
        let dead = peer
            .connections
            .iter()
            .find(|connection| connection.incoming && connection.phase != Phase::Established)
            .map(|connection| connection.id);
        if let Some(dead) = dead {
            let told = Notification::new(message::Code::Cease, cease::COLLISION);
            self.drop_connection(now, dead, DownReason::Collision, Some(told));
        }
        // A peer from a range may have gone with its connection, but is about to have another.
        if self.peers.contains_key(&id) {
            Ok(id)
        } else {
            Err(Refusal::Duplicate)
        }
    }

    fn options(&self, id: PeerId) -> SocketOptions {
        let Some(peer) = self.peers.get(&id) else {
            return SocketOptions::default();
        };
        let own = self.own_as(&peer.config);
        let external = match peer.config.remote_as {
            RemoteAs::Is(asn) => asn != own,
            RemoteAs::External => true,
            RemoteAs::Any | RemoteAs::Internal => false,
        };
        let (ttl, min_ttl) = match peer.config.ttl {
            TtlMode::Auto if external => (Some(1), None),
            TtlMode::Auto => (None, None),
            TtlMode::Multihop(hops) => (Some(hops.max(1)), None),
            TtlMode::Security(hops) => (Some(u8::MAX), Some(u8::MAX - hops.max(1) + 1)),
        };
        SocketOptions {
            ttl,
            min_ttl,
            password: peer.config.password.clone(),
        }
    }
}

impl Peer {
    /// Notes when the state changed.
    pub(super) fn note_state(&mut self, now: Duration) {
        let state = self.current_state();
        if state != self.state {
            self.state = state;
            self.since = now;
        }
    }

    fn limit_pause(&self, now: Duration, reason: &DownReason) -> Option<Duration> {
        let DownReason::MaxPrefixes { family, .. } = reason else {
            return Some(Duration::MAX);
        };
        match self.config.max_prefixes.get(*family) {
            Some(crate::config::MaxPrefixes {
                over:
                    crate::config::OverLimit::Stop {
                        restart: Some(pause),
                    },
                ..
            }) => Some(now + *pause),
            _ => Some(Duration::MAX),
        }
    }
}

/// What follows the end of a connection.
enum Pause {
    /// Another try soon.
    Short,
    /// Another try after the usual pause.
    Retry,
    /// A pause that grows.
    Error,
    /// A pause as the limit of prefixes says.
    Limit,
    /// No try.
    Never,
}

fn pause(reason: &DownReason, up: bool) -> Pause {
    match reason {
        DownReason::Transport(_) | DownReason::HoldTimer | DownReason::SendHoldTimer if up => {
            Pause::Short
        }
        DownReason::Transport(_) => Pause::Retry,
        DownReason::Collision
        | DownReason::PeerRestarted
        | DownReason::Reconfigured
        | DownReason::Reset => Pause::Short,
        DownReason::Received(told) if told.is_collision() => Pause::Retry,
        DownReason::MaxPrefixes { .. } => Pause::Limit,
        DownReason::Removed | DownReason::ShutDown | DownReason::Stopping => Pause::Never,
        _ => Pause::Error,
    }
}

const TRANSMIT_LIMIT: usize = 16 * 1024;
const CONTROL_KEPT: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
