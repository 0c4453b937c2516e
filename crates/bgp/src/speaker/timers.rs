//! Time: what is due when.

use std::time::Duration;

use super::Speaker;
use crate::config::FAMILIES;
use crate::event::{ConnectionId, DownReason};
use crate::message::{Code, Notification, keepalive};
use crate::peer::{Peer, PeerId, Phase};

impl Speaker {
    /// When [`Speaker::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let first = self.clock.first().map(|(time, _)| *time);
        first.into_iter().chain(self.restart.deferral).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        while let Some((time, id)) = self.clock.first().copied().filter(|(time, _)| *time <= now) {
            self.clock.remove(&(time, id));
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.armed = None;
            }
            self.look_after(now, id);
        }
    }

    /// Sees to it that the peer is looked after in time.
    pub(super) fn arm(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(deadline) = peer.deadline() else {
            return;
        };
        // Clocks that run longer than they were set for find out when they ring.
        if peer.armed.is_none_or(|armed| deadline < armed) {
            if let Some(armed) = peer.armed.replace(deadline) {
                self.clock.remove(&(armed, id));
            }
            self.clock.insert((deadline, id));
        }
    }

    fn look_after(&mut self, now: Duration, id: PeerId) {
        let due = |time: Option<Duration>| time.is_some_and(|time| time <= now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if due(peer.idle_until) {
            peer.idle_until = None;
            peer.retry_at = Some(now);
        }
        let mut expired: Vec<(ConnectionId, DownReason, Option<Notification>)> = Vec::new();
        for connection in &mut peer.connections {
            if due(connection.send_until) {
                expired.push((connection.id, DownReason::SendHoldTimer, None));
            } else if due(connection.hold_until) {
                let (reason, told) = match connection.phase {
                    Phase::Connecting => (DownReason::Transport("no answer".to_owned()), None),
                    _ => (
                        DownReason::HoldTimer,
                        Some(Notification::new(Code::HoldTimer, 0)),
                    ),
                };
                expired.push((connection.id, reason, told));
            } else if due(connection.keepalive_at) {
                keepalive(&mut connection.control);
                peer.counters.sent.keepalive += 1;
                let interval = connection.session.as_ref().map(|session| session.keepalive);
                connection.keepalive_at = interval
                    .filter(|interval| !interval.is_zero())
                    .map(|interval| now + self.random.jittered(interval));
            }
        }
        for (connection, reason, told) in expired {
            self.drop_connection(now, connection, reason, told);
        }
        for family in FAMILIES {
            let restart = self
                .peers
                .get(&id)
                .map(|peer| peer.received.get(family).restart);
            if restart.is_some_and(|restart| due(restart.deadline())) {
                self.restart_expired(now, id, family);
            }
        }
        if self.peers.get(&id).is_some_and(|peer| due(peer.retry_at)) {
            self.connect(now, id);
        }
        self.announce_control(now, id);
        self.arm(id);
    }

    /// Tells the shell of messages that wait on the peer's connections.
    pub(super) fn announce_control(&mut self, now: Duration, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let send_hold = peer.send_hold();
        for connection in &mut peer.connections {
            if !connection.control.is_empty() && !connection.announced {
                connection.announced = true;
                connection.send_until = Some(now + send_hold);
                self.outputs
                    .push(crate::event::Output::Transmit(connection.id));
            }
        }
    }
}

impl Peer {
    /// How long nothing may be taken from us.
    pub(super) fn send_hold(&self) -> Duration {
        self.config.timers.send_hold.unwrap_or_else(|| {
            let hold = self
                .session()
                .map_or(self.config.timers.hold, |session| session.hold);
            (hold * 2).max(SEND_HOLD_MIN)
        })
    }
}

/// RFC 9687 §4.
const SEND_HOLD_MIN: Duration = Duration::from_secs(480);
