//! A session: messages received, up and down.

use std::sync::Arc;
use std::time::Duration;

use super::Speaker;
use crate::config::FAMILIES;
use crate::event::{ConnectionId, DownReason, Event};
use crate::group::End;
use crate::message::{
    self, Code, Message, Notification, Refresh, RefreshKind, cease, encode_refresh,
};
use crate::peer::{Peer, PeerId, Phase, Session};
use crate::table::PeerSource;

impl Speaker {
    /// Says what was received on a connection.
    pub fn received(&mut self, now: Duration, id: ConnectionId, octets: &[u8]) {
        let Some(peer_id) = self.connections.get(&id).copied() else {
            return;
        };
        let connection = self
            .peers
            .get_mut(&peer_id)
            .and_then(|peer| peer.connection_mut(id));
        let Some(connection) = connection else {
            return;
        };
        // Most of the time what comes is whole messages, which need not be kept.
        let mut kept = std::mem::take(&mut connection.partial);
        let mut rest = if kept.is_empty() {
            octets
        } else {
            kept.extend_from_slice(octets);
            kept.as_slice()
        };
        loop {
            let size = match message::frame(rest) {
                Ok(Some(size)) => size,
                Ok(None) => break,
                Err(told) => {
                    self.protocol_error(now, id, told);
                    break;
                }
            };
            let (one, others) = rest.split_at_checked(size).unwrap_or((rest, &[]));
            rest = others;
            self.message(now, id, one);
            if !self.connections.contains_key(&id) {
                break;
            }
        }
        let connection = self
            .peers
            .get_mut(&peer_id)
            .and_then(|peer| peer.connection_mut(id));
        if let Some(connection) = connection {
            connection.partial = rest.to_vec();
        }
        self.announce_control(now, peer_id);
        self.arm(peer_id);
    }

    fn message(&mut self, now: Duration, id: ConnectionId, octets: &[u8]) {
        let known = self
            .connections
            .get(&id)
            .and_then(|peer| self.peers.get_mut(peer));
        let Some(peer) = known else {
            return;
        };
        let Some(connection) = peer.connection_mut(id) else {
            return;
        };
        let phase = connection.phase;
        let decoded = message::decode(octets, &connection.context());
        let hold = connection.session.as_ref().map(|session| session.hold);
        if let Some(hold) = hold {
            connection.hold_until = (!hold.is_zero()).then(|| now + hold);
        }
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(told) => return self.protocol_error(now, id, told),
        };
        peer.count_received(&decoded);
        match (phase, decoded) {
            (_, Message::Notification(told)) => {
                self.lose_by_notification(now, id, told);
            }
            (Phase::OpenSent, Message::Open(open)) => self.handle_open(now, id, open),
            (Phase::OpenConfirm, Message::Keepalive) => self.session_up(now, id),
            (Phase::Established, Message::Keepalive) => {}
            (Phase::Established, Message::Update(update)) => {
                let peer = peer.id;
                self.handle_update(now, peer, update);
            }
            (Phase::Established, Message::Refresh(refresh)) => {
                let peer = peer.id;
                if let Some(refresh) = refresh {
                    self.handle_refresh(peer, refresh);
                }
            }
            (phase, _) => {
                // RFC 6608.
                let subcode = match phase {
                    Phase::Connecting => 0,
                    Phase::OpenSent => 1,
                    Phase::OpenConfirm => 2,
                    Phase::Established => 3,
                };
                self.protocol_error(now, id, Notification::new(Code::StateMachine, subcode));
            }
        }
    }

    /// Ends a connection because of what the peer sent.
    pub(super) fn protocol_error(&mut self, now: Duration, id: ConnectionId, told: Notification) {
        self.drop_connection(now, id, DownReason::Sent(told.clone()), Some(told));
    }

    fn lose_by_notification(&mut self, now: Duration, id: ConnectionId, told: Notification) {
        self.drop_connection(now, id, DownReason::Received(told), None);
    }

    fn session_up(&mut self, now: Duration, id: ConnectionId) {
        let cluster_client = |peer: &Peer, session: &Session| {
            peer.config.reflector_client && !session.context.external
        };
        let known = self
            .connections
            .get(&id)
            .and_then(|peer| self.peers.get_mut(peer));
        let Some(peer) = known else {
            return;
        };
        let peer_id = peer.id;
        let Some(connection) = peer.connection_mut(id) else {
            return;
        };
        let Some(session) = connection.session.clone() else {
            return;
        };
        connection.phase = Phase::Established;
        let others: Vec<_> = peer
            .connections
            .iter()
            .filter(|other| other.id != id)
            .map(|other| other.id)
            .collect();
        peer.source = Some(Arc::new(PeerSource {
            id: peer_id,
            name: Arc::clone(&peer.name),
            address: peer.config.address,
            router_id: session.router_id,
            external: session.context.external,
            client: cluster_client(peer, &session),
        }));
        peer.was_up = true;
        peer.errors = 0;
        peer.retry_at = None;
        peer.last_error = None;
        for family in FAMILIES {
            let received = peer.received.get_mut(family);
            (received.ended, received.refreshing, received.near_limit) = (false, false, false);
        }
        peer.note_state(now);
        let up = Event::PeerUp {
            peer: Arc::clone(&peer.name),
            address: peer.config.address,
            asn: session.asn,
            families: session.context.families,
        };
        for other in others {
            let told = Notification::new(Code::Cease, cease::COLLISION);
            self.drop_connection(now, other, DownReason::Collision, Some(told));
        }
        self.restarted_peer_is_back(now, peer_id, &session);
        self.join_groups(peer_id);
        self.tell(up);
    }

    /// Does what follows from the end of a session.
    pub(super) fn session_down(
        &mut self,
        now: Duration,
        id: PeerId,
        session: &Session,
        reason: &DownReason,
    ) {
        self.leave_groups(id);
        let kept = self.keep_or_flush(now, id, session, reason);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.flaps += 1;
        let down = Event::PeerDown {
            peer: Arc::clone(&peer.name),
            address: peer.config.address,
            reason: reason.clone(),
            kept,
        };
        self.tell(down);
    }

    fn handle_refresh(&mut self, id: PeerId, refresh: Refresh) {
        let family = refresh.family;
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(enhanced) = peer.session().map(|session| session.enhanced_refresh) else {
            return;
        };
        match refresh.kind {
            RefreshKind::Request => self.send_again(id, family, enhanced),
            RefreshKind::Begin if enhanced => {
                let received = peer.received.get_mut(family);
                received.refreshing = true;
                for route in received.routes.values_mut() {
                    route.before_refresh = true;
                }
            }
            RefreshKind::End if enhanced => self.refresh_ended(id, family),
            RefreshKind::Begin | RefreshKind::End => {}
        }
    }

    /// Tells a peer all its routes of a family again.
    fn send_again(&mut self, id: PeerId, family: margay_model::Family, enhanced: bool) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(group) = peer
            .groups
            .get(family)
            .and_then(|group| self.groups.get_mut(&group))
        else {
            return;
        };
        group.repeat(id, enhanced.then_some(End::OfRefresh));
        if enhanced
            && let Some(connection) = peer
                .connections
                .iter_mut()
                .find(|c| c.phase == Phase::Established)
        {
            encode_refresh(
                &mut connection.control,
                Refresh {
                    family,
                    kind: RefreshKind::Begin,
                },
            );
            peer.counters.sent.refresh += 1;
        }
    }

    /// Tells a peer all its routes again, as if it had asked. Returns whether there is a session.
    pub fn refresh_out(&mut self, name: &str) -> bool {
        let Some(id) = self.names.get(name).copied() else {
            return false;
        };
        let Some((families, enhanced)) = self.peers.get(&id).and_then(|peer| {
            let session = peer.session()?;
            Some((session.context.families, session.enhanced_refresh))
        }) else {
            return false;
        };
        for family in families.iter() {
            self.send_again(id, family, enhanced);
        }
        true
    }

    /// Asks a peer for all its routes again (RFC 2918). Returns whether it can be asked.
    pub fn refresh_in(&mut self, now: Duration, name: &str) -> bool {
        let Some(peer) = self.names.get(name).and_then(|id| self.peers.get_mut(id)) else {
            return false;
        };
        let id = peer.id;
        let families = peer.families();
        let Some(connection) = peer.connections.iter_mut().find(|connection| {
            connection
                .session
                .as_ref()
                .is_some_and(|session| session.refresh)
                && connection.phase == Phase::Established
        }) else {
            return false;
        };
        for family in families.iter() {
            let refresh = Refresh {
                family,
                kind: RefreshKind::Request,
            };
            encode_refresh(&mut connection.control, refresh);
            peer.counters.sent.refresh += 1;
        }
        self.announce_control(now, id);
        true
    }
}

impl Peer {
    fn count_received(&mut self, message: &Message) {
        let counters = &mut self.counters.received;
        let counter = match message {
            Message::Open(_) => &mut counters.open,
            Message::Update(_) => &mut counters.update,
            Message::Notification(_) => &mut counters.notification,
            Message::Keepalive => &mut counters.keepalive,
            Message::Refresh(_) => &mut counters.refresh,
        };
        *counter += 1;
    }
}
