//! The speaker: all peers, the table, and what ties them together.

mod configure;
mod connect;
mod export;
mod import;
mod open;
mod restart;
mod session;
mod show;
mod timers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_model::Cidr;

use crate::config::SpeakerConfig;
use crate::decision::Metrics;
use crate::event::{ConnectionId, DownReason, Event, Output};
use crate::group::Group;
use crate::intern::Interner;
use crate::message::{Notification, cease};
use crate::peer::{GroupId, Peer, PeerId};
use crate::random::Random;
use crate::route::LocalRoute;
use crate::table::{Freshness, PathSource, Table};
use restart::OwnRestart;

/// A BGP speaker.
///
/// Every call that takes `now` takes the time since a moment of the caller's choosing; it must not
/// go backwards. After any call, [`Speaker::poll`] says what is to be done, and
/// [`Speaker::deadline`] when [`Speaker::tick`] is due.
#[derive(Debug)]
pub struct Speaker {
    config: SpeakerConfig,
    random: Random,
    peers: BTreeMap<PeerId, Peer>,
    names: BTreeMap<Arc<str>, PeerId>,
    connections: BTreeMap<ConnectionId, PeerId>,
    groups: BTreeMap<GroupId, Group>,
    table: Table,
    metrics: Metrics,
    interner: Interner,
    clock: BTreeSet<(Duration, PeerId)>,
    outputs: Vec<Output>,
    restart: OwnRestart,
    stopping: bool,
    next_peer: u32,
    next_group: u32,
    next_connection: u64,
}

/// How a speaker stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Forwarding goes on while nobody speaks: peers that agreed to keep routes do so. Connections
    /// are closed without a word, since most peers take any NOTIFICATION as the end of forwarding;
    /// only those that agreed otherwise (RFC 8538) are told.
    KeepForwarding,
    /// Peers are told to drop our routes at once, with a text for people (RFC 9003).
    Withdraw(String),
}

impl Speaker {
    /// A speaker that has not started any session.
    ///
    /// `restarting` says that the kernel still forwards by the routes of an earlier speaker: peers
    /// are then asked to keep theirs, and [`Output::Converged`] waits for them.
    #[must_use]
    pub fn new(config: SpeakerConfig, now: Duration, seed: u64, restarting: bool) -> Self {
        let deferral = config.deferral.min(crate::config::DEFERRAL_MAX);
        let bare = SpeakerConfig {
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            ..config
        };
        let mut speaker = Self {
            config: bare,
            random: Random::new(seed),
            peers: BTreeMap::new(),
            names: BTreeMap::new(),
            connections: BTreeMap::new(),
            groups: BTreeMap::new(),
            table: Table::default(),
            metrics: Metrics::new(),
            interner: Interner::default(),
            clock: BTreeSet::new(),
            outputs: Vec::new(),
            restart: OwnRestart::new(restarting.then(|| now + deferral)),
            stopping: false,
            next_peer: 0,
            next_group: 0,
            next_connection: 0,
        };
        speaker.configure(now, config);
        speaker
    }

    /// Announces a route of our own, in the place of an earlier one of the same prefix.
    pub fn announce(&mut self, route: LocalRoute) {
        if self.table.local(&route.prefix) == Some(&route) {
            return;
        }
        let prefix = route.prefix;
        let attributes = self.interner.intern(route.attributes());
        let source = PathSource::Local(Arc::new(route));
        self.table
            .set(prefix, &source, 0, &attributes, Freshness::Fresh);
    }

    /// Withdraws a route of our own; does nothing if there is none.
    pub fn withdraw(&mut self, prefix: &Cidr) {
        self.table.remove(prefix, None, 0);
    }

    /// Has these routes, and no others, as our own.
    pub fn set_local_routes(&mut self, routes: impl IntoIterator<Item = LocalRoute>) {
        let mut wanted = BTreeSet::new();
        for route in routes {
            wanted.insert(route.prefix);
            self.announce(route);
        }
        let present = self.table.iter().map(|(prefix, _)| *prefix);
        let gone: Vec<_> = present
            .filter(|prefix| !wanted.contains(prefix) && self.table.local(prefix).is_some())
            .collect();
        for prefix in gone {
            self.withdraw(&prefix);
        }
    }

    /// Says how far next hops are; `None` for one that cannot be reached. All that are not listed
    /// can be reached at no cost.
    pub fn set_next_hops(&mut self, metrics: BTreeMap<IpAddr, Option<u32>>) {
        if self.metrics != metrics {
            self.metrics = metrics;
            self.table.touch_all();
        }
    }

    /// What is to be done now, in order.
    pub fn poll(&mut self, now: Duration) -> Vec<Output> {
        self.check_deferral(now);
        self.spread_changes();
        self.announce_news(now);
        std::mem::take(&mut self.outputs)
    }

    /// Ends the session with a peer and starts it anew. Returns whether there is such a peer.
    pub fn reset(&mut self, now: Duration, name: &str) -> bool {
        let Some(id) = self.names.get(name).copied() else {
            return false;
        };
        if let Some(peer) = self.peers.get_mut(&id) {
            (peer.idle_until, peer.errors) = (None, 0);
        }
        let told = Notification::new(crate::message::Code::Cease, cease::RESET);
        self.drop_all(now, id, &DownReason::Reset, Some(told));
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.retry_at = Some(now);
        }
        self.arm(id);
        true
    }

    /// Stops all sessions for good.
    pub fn stop(&mut self, now: Duration, how: &Stop) {
        self.stopping = true;
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let session = self.peers.get(&id).and_then(Peer::session);
            let agreed = session.is_some_and(|session| session.graceful.notification);
            let told = match how {
                Stop::KeepForwarding => {
                    let restart = Notification::new(crate::message::Code::Cease, cease::RESET);
                    agreed.then_some(restart)
                }
                Stop::Withdraw(text) => {
                    let shutdown = Notification::cease_with_text(cease::SHUTDOWN, text);
                    Some(if agreed {
                        shutdown.into_hard_reset()
                    } else {
                        shutdown
                    })
                }
            };
            self.drop_all(now, id, &DownReason::Stopping, told);
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push(Output::Event(event));
    }
}
