//! OPEN: what we say, what both sides agree on, and which of two connections stays.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use margay_model::Family;
use margay_model::scalar::AsNumber;

use super::Speaker;
use crate::config::{Families, PeerConfig, PerFamily};
use crate::event::{ConnectionId, DownReason};
use crate::message::{
    self, AddPathMode, Capability, Code, Context, GracefulFamily, LongLivedFamily, Notification,
    Open, cease,
};
use crate::peer::{Graceful, Known, Peer, PeerId, Phase, Session};

impl Speaker {
    /// Our AS towards a peer.
    pub(super) fn own_as(&self, config: &PeerConfig) -> AsNumber {
        config.local_as.unwrap_or(self.config.asn)
    }

    /// Sends OPEN on a connection that is there.
    pub(super) fn opened(&mut self, now: Duration, id: ConnectionId, local: IpAddr) {
        let known = self
            .connections
            .get(&id)
            .and_then(|peer| self.peers.get(peer));
        let Some(peer) = known else {
            return;
        };
        let peer_id = peer.id;
        let open = Open {
            asn: self.own_as(&peer.config),
            hold_time: seconds(peer.config.timers.hold),
            router_id: self.config.router_id,
            capabilities: self.capabilities(peer),
        };
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        if let Some(connection) = peer.connection_mut(id) {
            connection.phase = Phase::OpenSent;
            connection.local = Some(local);
            connection.hold_until = Some(now + OPEN_WAIT);
            message::encode_open(&mut connection.control, &open);
        }
        peer.counters.sent.open += 1;
        peer.note_state(now);
        self.announce_control(now, peer_id);
        self.arm(peer_id);
    }

    fn capabilities(&self, peer: &Peer) -> Vec<Capability> {
        let config = &peer.config;
        let families: Vec<Family> = config.families.iter().collect();
        let mut list: Vec<_> = families
            .iter()
            .copied()
            .map(Capability::Multiprotocol)
            .collect();
        list.push(Capability::RouteRefresh);
        list.push(Capability::EnhancedRefresh);
        list.push(Capability::FourOctetAs(self.own_as(config)));
        if config.extended_next_hop && config.families.v4 {
            list.push(Capability::ExtendedNextHop);
        }
        // Forwarding goes on while a speaker that was there before is not.
        let forwarding = self.restart.restarted || peer.was_up;
        let restart = &config.graceful_restart;
        if restart.enabled {
            let families = families.iter().map(|family| GracefulFamily {
                family: *family,
                forwarding,
            });
            list.push(Capability::GracefulRestart {
                restarted: self.restart.deferral.is_some(),
                notification: true,
                time: seconds(restart.restart_time).min(message::RESTART_TIME_MAX),
                families: families.collect(),
            });
        }
        if let Some(time) = restart.long_lived.filter(|_| restart.enabled) {
            let time = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
            let time = time.min(message::LONG_LIVED_TIME_MAX);
            let family = |family: &Family| LongLivedFamily {
                family: *family,
                forwarding,
                time,
            };
            list.push(Capability::LongLivedRestart(
                families.iter().map(family).collect(),
            ));
        }
        let mode = match (config.add_path.receive, config.add_path.send > 0) {
            (true, true) => Some(AddPathMode::Both),
            (true, false) => Some(AddPathMode::Receive),
            (false, true) => Some(AddPathMode::Send),
            (false, false) => None,
        };
        if let Some(mode) = mode {
            list.push(Capability::AddPath(
                families.iter().map(|f| (*f, mode)).collect(),
            ));
        }
        list
    }

    /// Weighs the peer's OPEN; the connection goes on, or goes.
    pub(super) fn handle_open(&mut self, now: Duration, id: ConnectionId, open: Open) {
        let known = self
            .connections
            .get(&id)
            .and_then(|peer| self.peers.get(peer));
        let Some(peer) = known else {
            return;
        };
        let (peer_id, own) = (peer.id, self.own_as(&peer.config));
        let local = self.capabilities(peer);
        let negotiated = negotiate(&open, &local, &peer.config, own, self.config.router_id);
        let session = match negotiated {
            Ok(session) => session,
            Err((told, reason)) => {
                self.drop_connection(now, id, reason, Some(told));
                return;
            }
        };
        if !self.survives_collision(now, peer_id, id, &open, own) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&peer_id) else {
            return;
        };
        let Some(connection) = peer.connection_mut(id) else {
            return;
        };
        connection.phase = Phase::OpenConfirm;
        message::keepalive(&mut connection.control);
        let hold = Some(session.hold).filter(|hold| !hold.is_zero());
        connection.hold_until = hold.map(|hold| now + hold);
        connection.keepalive_at = hold.map(|_| now + session.keepalive);
        connection.session = Some(session);
        let local_address = connection.local;
        peer.counters.sent.keepalive += 1;
        peer.known = Some(Known {
            asn: open.asn,
            router_id: open.router_id,
            capabilities: open.capabilities,
            local_capabilities: local,
            local_address,
        });
        peer.note_state(now);
    }

    /// Whether a connection stays beside others with the same peer (RFC 4271 §6.8); those that do
    /// not are closed.
    fn survives_collision(
        &mut self,
        now: Duration,
        peer_id: PeerId,
        id: ConnectionId,
        open: &Open,
        own: AsNumber,
    ) -> bool {
        let Some(peer) = self.peers.get(&peer_id) else {
            return false;
        };
        let Some(incoming) = peer.connection(id).map(|connection| connection.incoming) else {
            return false;
        };
        let collision = Notification::new(Code::Cease, cease::COLLISION);
        if let Some(old) = peer.established() {
            let graceful = old.session.as_ref().is_some_and(|s| s.graceful.announced);
            let old = old.id;
            if !graceful || !peer.config.graceful_restart.enabled {
                self.drop_connection(now, id, DownReason::Collision, Some(collision));
                return false;
            }
            // RFC 4724 §4.2: the peer would not have come again, had it not restarted.
            self.drop_connection(now, old, DownReason::PeerRestarted, None);
            return self.connections.contains_key(&id);
        }
        let other = peer.connections.iter().find(|other| {
            other.id != id && matches!(other.phase, Phase::OpenSent | Phase::OpenConfirm)
        });
        let connecting = peer
            .connections
            .iter()
            .find(|other| other.phase == Phase::Connecting);
        let connecting = connecting.map(|other| other.id);
        if let Some(other) = other {
            let other = other.id;
            // The connection that the speaker with the higher identifier made stays; of equal
            // ones, that of the higher AS (RFC 6286 §2.3).
            let ours = (self.config.router_id, own) > (open.router_id, open.asn);
            let loser = if incoming == ours { id } else { other };
            self.drop_connection(now, loser, DownReason::Collision, Some(collision));
            if loser == id {
                return false;
            }
        }
        if let Some(connecting) = connecting {
            self.drop_connection(now, connecting, DownReason::Collision, None);
        }
        true
    }
}

type Refused = (Notification, DownReason);

/// What two OPENs agree on.
fn negotiate(
    open: &Open,
    local: &[Capability],
    config: &PeerConfig,
    own: AsNumber,
    router_id: Ipv4Addr,
) -> Result<Session, Refused> {
    if !config.remote_as.holds(open.asn, own) {
        let wanted = config.remote_as.to_string();
        let reason = DownReason::WrongAs {
            found: open.asn,
            wanted,
        };
        return Err((Notification::new(Code::Open, 2), reason));
    }
    let external = open.asn != own;
    if !external && open.router_id == router_id {
        let reason = DownReason::BadIdentifier(open.router_id);
        return Err((Notification::new(Code::Open, 3), reason));
    }
    let families = families(open).and(&config.families);
    if families.is_empty() {
        let mut wanted = Vec::new();
        for capability in local {
            if matches!(capability, Capability::Multiprotocol(_)) {
                capability.encode(&mut wanted);
            }
        }
        let told = Notification::with_data(Code::Open, 7, wanted);
        return Err((told, DownReason::NoCommonFamily));
    }
    let both = |wanted: &Capability| open.capabilities.contains(wanted) && local.contains(wanted);
    let has = |wanted: &Capability| open.capabilities.contains(wanted);
    let hold = config
        .timers
        .hold
        .min(Duration::from_secs(u64::from(open.hold_time)));
    let third = hold / 3;
    let keepalive = config.timers.keepalive.unwrap_or(third).min(third);
    let context = Context {
        external,
        four_octet_as: open
            .capabilities
            .iter()
            .any(|c| matches!(c, Capability::FourOctetAs(_))),
        families,
        add_path: families
            .and(&add_path(open, AddPathMode::sends))
            .and(&Families {
                v4: config.add_path.receive,
                v6: config.add_path.receive,
            }),
        extended_next_hop: both(&Capability::ExtendedNextHop),
    };
    let sends = Families {
        v4: config.add_path.send > 0,
        v6: config.add_path.send > 0,
    };
    Ok(Session {
        asn: open.asn,
        router_id: open.router_id,
        context,
        add_path_send: families
            .and(&add_path(open, AddPathMode::receives))
            .and(&sends),
        hold,
        keepalive,
        refresh: has(&Capability::RouteRefresh),
        enhanced_refresh: has(&Capability::EnhancedRefresh),
        graceful: graceful(open, config, families),
    })
}

/// The families the peer speaks: IPv4 if it does not say (RFC 4760 §8).
fn families(open: &Open) -> Families {
    let mut families = Families::NONE;
    let mut said = false;
    for capability in &open.capabilities {
        match capability {
            Capability::Multiprotocol(family) => {
                *families.get_mut(*family) = true;
                said = true;
            }
            // Of a family that is not ours.
            Capability::Other { code: 1, .. } => said = true,
            _ => {}
        }
    }
    if said { families } else { Families::V4 }
}

fn add_path(open: &Open, wanted: impl Fn(AddPathMode) -> bool) -> Families {
    let mut families = Families::NONE;
    for capability in &open.capabilities {
        if let Capability::AddPath(modes) = capability {
            for (family, mode) in modes {
                *families.get_mut(*family) = wanted(*mode);
            }
        }
    }
    families
}

fn graceful(open: &Open, config: &PeerConfig, used: Families) -> Graceful {
    let settings = &config.graceful_restart;
    let mut graceful = Graceful::default();
    if !settings.enabled {
        return graceful;
    }
    for capability in &open.capabilities {
        match capability {
            Capability::GracefulRestart {
                notification,
                time,
                families,
                ..
            } => {
                graceful.announced = true;
                graceful.notification = *notification;
                graceful.time = Duration::from_secs(u64::from(*time));
                for GracefulFamily { family, forwarding } in families {
                    *graceful.families.get_mut(*family) = used.has(*family);
                    *graceful.forwarding.get_mut(*family) = *forwarding;
                }
            }
            Capability::LongLivedRestart(families) => {
                graceful.takes_long_lived = true;
                let Some(most) = settings.long_lived else {
                    continue;
                };
                for LongLivedFamily { family, time, .. } in families {
                    let time = Duration::from_secs(u64::from(*time)).min(most);
                    let kept = used.has(*family) && !time.is_zero();
                    *graceful.long_lived.get_mut(*family) = kept.then_some(time);
                }
            }
            _ => {}
        }
    }
    if !graceful.announced {
        // RFC 9494 §4.2: without the one, the other means nothing.
        graceful.long_lived = PerFamily::default();
    }
    graceful
}

fn seconds(time: Duration) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(u16::MAX)
}

/// How long OPEN may take.
const OPEN_WAIT: Duration = Duration::from_secs(60);
