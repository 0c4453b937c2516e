//! Graceful restart: a peer's, and our own (RFC 4724, RFC 8538, RFC 9494).

use std::time::Duration;

use margay_model::Family;

use super::Speaker;
use crate::config::{FAMILIES, PerFamily};
use crate::event::{DownReason, Output};
use crate::peer::{PeerId, Restart, Session};
use crate::table::Freshness;

/// Our own restart.
#[derive(Debug)]
pub(super) struct OwnRestart {
    /// Whether an earlier speaker's routes were still in the kernel when this one began.
    pub(super) restarted: bool,
    /// Until when peers' routes are waited for; `None` once they are not.
    pub(super) deferral: Option<Duration>,
    told: bool,
}

impl OwnRestart {
    pub(super) fn new(deferral: Option<Duration>) -> Self {
        Self {
            restarted: deferral.is_some(),
            deferral,
            told: false,
        }
    }
}

impl Speaker {
    /// Decides what becomes of a peer's routes when its session ends; returns whether any are kept.
    ///
    /// Routes that are stale from an earlier restart are kept on, but never beyond the time they
    /// were given first. RFC 4724 §4.2 has them deleted at the second restart; then a peer that
    /// restarts twice would lose traffic that it still forwards.
    pub(super) fn keep_or_flush(
        &mut self,
        now: Duration,
        id: PeerId,
        session: &Session,
        reason: &DownReason,
    ) -> bool {
        let keeps = survives(session, reason);
        let mut kept = false;
        for family in FAMILIES {
            let Some(peer) = self.peers.get_mut(&id) else {
                return kept;
            };
            let settings = &peer.config.graceful_restart;
            let graceful = &session.graceful;
            let time = graceful.time.min(settings.helper_time);
            let long_lived = graceful.long_lived.get(family).is_some();
            let received = peer.received.get_mut(family);
            let wanted = graceful.families.has(family) && (!time.is_zero() || long_lived);
            if !keeps || !wanted || received.routes.is_empty() {
                received.restart = Restart::None;
                self.forget_routes(id, family, |_| true);
                continue;
            }
            let fresh = now + time + settings.stale_time;
            let limit = match received.restart {
                Restart::Syncing { until } => until.min(fresh),
                _ => fresh,
            };
            received.restart = Restart::Waiting {
                until: (now + time).min(limit),
                limit,
            };
            kept = true;
            self.mark_routes(id, family, Freshness::Stale);
        }
        kept
    }

    /// Sees what a peer that is back kept of its forwarding.
    pub(super) fn restarted_peer_is_back(&mut self, now: Duration, id: PeerId, session: &Session) {
        for family in FAMILIES {
            let Some(peer) = self.peers.get_mut(&id) else {
                return;
            };
            let stale_time = peer.config.graceful_restart.stale_time;
            let received = peer.received.get_mut(family);
            let limit = match received.restart {
                Restart::None | Restart::Syncing { .. } => continue,
                Restart::Waiting { limit, .. } => limit,
                Restart::LongLived { until } => until,
            };
            let graceful = &session.graceful;
            let kept = graceful.families.has(family) && graceful.forwarding.has(family);
            if kept {
                let until = (now + stale_time).min(limit);
                received.restart = Restart::Syncing { until };
                // Routes are weighed as those of the new session.
                self.import_again(id);
            } else {
                received.restart = Restart::None;
                self.forget_routes(id, family, |_| true);
            }
        }
    }

    /// Ends a peer's restart when its time is over.
    pub(super) fn restart_expired(&mut self, now: Duration, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let long_lived = long_lived_time(peer.known.as_ref(), &peer.config, family);
        let received = peer.received.get_mut(family);
        match (received.restart, long_lived) {
            (Restart::Waiting { .. }, Some(time)) => {
                received.restart = Restart::LongLived { until: now + time };
                self.mark_routes(id, family, Freshness::LongLived);
                // RFC 9494 §4.2: those that must not be kept go at once.
                self.forget_routes(id, family, |route| {
                    route
                        .attributes
                        .has_community(crate::attribute::Community::NO_LLGR)
                });
            }
            _ => {
                received.restart = Restart::None;
                self.forget_routes(id, family, |route| route.stale != Freshness::Fresh);
            }
        }
        self.forget_if_done(id);
    }

    /// Notes that a peer has announced all its routes of a family.
    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let received = peer.received.get_mut(family);
        received.ended = true;
        if received.restart != Restart::None {
            received.restart = Restart::None;
            self.forget_routes(id, family, |route| route.stale != Freshness::Fresh);
        }
    }

    /// Ends the wait for peers after our own restart once they have all announced their routes, or
    /// it lasted long enough. Our own routes never wait.
    pub(super) fn check_deferral(&mut self, now: Duration) {
        if let Some(until) = self.restart.deferral {
            if now < until && !self.all_announced() {
                return;
            }
            self.restart.deferral = None;
            self.table.touch_all();
            self.spread_changes();
            for group in self.groups.values_mut() {
                group.end_for_all();
            }
            self.news_for_all();
        }
        if !self.restart.told {
            self.restart.told = true;
            self.spread_changes();
            self.outputs.push(Output::Converged);
        }
    }

    /// Whether every configured peer is up and has announced all its routes.
    fn all_announced(&self) -> bool {
        let expected = self
            .peers
            .values()
            .filter(|peer| peer.config.shutdown.is_none());
        self.config.ranges.is_empty()
            && expected.into_iter().all(|peer| {
                peer.session().is_some_and(|session| {
                    let mut families = session.context.families.iter();
                    !session.graceful.announced
                        || families.all(|family| peer.received.get(family).ended)
                })
            })
    }
}

/// Whether a peer's routes outlive the session, which ended for the given reason.
fn survives(session: &Session, reason: &DownReason) -> bool {
    let graceful = &session.graceful;
    match reason {
        DownReason::Transport(_) | DownReason::PeerRestarted => graceful.announced,
        // RFC 8538 §3: what is told or heard in a NOTIFICATION does not end forwarding either, if
        // both sides agreed on that.
        DownReason::HoldTimer | DownReason::SendHoldTimer | DownReason::Sent(_) => {
            graceful.notification
        }
        DownReason::Received(told) => graceful.notification && !told.is_hard_reset(),
        _ => false,
    }
}

fn long_lived_time(
    known: Option<&crate::peer::Known>,
    config: &crate::config::PeerConfig,
    family: Family,
) -> Option<Duration> {
    let most = config.graceful_restart.long_lived?;
    let mut times: PerFamily<Option<Duration>> = PerFamily::default();
    for capability in &known?.capabilities {
        if let crate::message::Capability::LongLivedRestart(families) = capability {
            for listed in families {
                *times.get_mut(listed.family) = Some(Duration::from_secs(u64::from(listed.time)));
            }
        }
    }
    times
        .get(family)
        .map(|time| time.min(most))
        .filter(|time| !time.is_zero())
}
