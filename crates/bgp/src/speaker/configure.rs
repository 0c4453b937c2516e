//! Changes of the configuration: what differs is done, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Speaker;
use crate::config::{PeerConfig, SpeakerConfig};
use crate::event::DownReason;
use crate::message::{Code, Notification, cease};
use crate::peer::{Peer, PeerId};
use crate::policy::{Difference, Policy};

impl Speaker {
    /// Has the speaker do what `config` says from now on.
    ///
    /// Policies, next hop modes, limits and the like take effect on the sessions that are up. A
    /// change of address, AS, password, families or another thing that a session is made of ends
    /// that session; a change of our own AS or BGP identifier ends all.
    pub fn configure(&mut self, now: Duration, config: SpeakerConfig) {
        let identity = |config: &SpeakerConfig| (config.asn, config.router_id);
        let reset_all = identity(&self.config) != identity(&config);
        let cluster_changed = self.config.cluster() != config.cluster();
        if self.config.multipath != config.multipath {
            self.table.touch_all();
        }
        let SpeakerConfig { peers, ranges, .. } = &config;
        let (peers, ranges) = (peers.clone(), ranges.clone());
        self.config = SpeakerConfig {
            peers: BTreeMap::new(),
            ..config
        };

        let mut differences = Differences::default();
        for id in self.peers.keys().copied().collect::<Vec<_>>() {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let wanted = match &peer.range {
                None => peers.get(&*peer.name).cloned(),
                Some(range) => ranges.get(&**range).map(|range| PeerConfig {
                    address: peer.config.address,
                    passive: true,
                    ..range.template.clone()
                }),
            };
            match wanted {
                None => self.deconfigure(now, id),
                Some(wanted) => {
                    self.reconfigure(now, id, wanted, reset_all, &mut differences);
                }
            }
            if cluster_changed {
                self.import_again(id);
            }
        }
        for (name, peer) in peers {
            if !self.names.contains_key(name.as_str()) {
                self.add_peer(now, &name, peer, None);
            }
        }
        self.regroup();
    }

    pub(super) fn add_peer(
        &mut self,
        now: Duration,
        name: &str,
        config: PeerConfig,
        range: Option<Arc<str>>,
    ) -> PeerId {
        self.next_peer += 1;
        let id = PeerId(self.next_peer);
        let name: Arc<str> = name.into();
        let mut peer = Peer::new(id, Arc::clone(&name), config, range, now);
        peer.retry_at = Some(now + self.random.within(self.config.connect_jitter));
        peer.note_state(now);
        self.names.insert(name, id);
        self.peers.insert(id, peer);
        self.arm(id);
        id
    }

    /// Forgets a peer that has no connection.
    pub(super) fn remove_peer(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.remove(&id) {
            self.names.remove(&peer.name);
            if let Some(armed) = peer.armed {
                self.clock.remove(&(armed, id));
            }
        }
    }

    fn deconfigure(&mut self, now: Duration, id: PeerId) {
        let told = self.cease(id, Notification::new(Code::Cease, cease::DECONFIGURED));
        self.drop_all(now, id, &DownReason::Removed, Some(told));
        for family in crate::config::FAMILIES {
            self.forget_routes(id, family, |_| true);
        }
        self.remove_peer(id);
    }

    fn reconfigure(
        &mut self,
        now: Duration,
        id: PeerId,
        wanted: PeerConfig,
        reset_all: bool,
        differences: &mut Differences,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.config == wanted && !reset_all {
            return;
        }
        let reset = reset_all || peer.config.needs_reset(&wanted);
        let policies = (wanted.import.as_ref(), peer.config.import.as_ref());
        let policy = differences.between(policies.0, policies.1);
        let import = peer.config.allow_own_as != wanted.allow_own_as
            || peer.config.enforce_first_as != wanted.enforce_first_as;
        let client = peer.config.reflector_client != wanted.reflector_client;
        let shutdown = wanted.shutdown.clone();
        if reset {
            let (told, reason) = match &shutdown {
                Some(text) => (
                    Notification::cease_with_text(cease::SHUTDOWN, text),
                    DownReason::ShutDown,
                ),
                None => (
                    Notification::new(Code::Cease, cease::CONFIGURATION),
                    DownReason::Reconfigured,
                ),
            };
            let told = self.cease(id, told);
            self.drop_all(now, id, &reason, Some(told));
            for family in crate::config::FAMILIES {
                self.forget_routes(id, family, |_| true);
            }
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.config = wanted;
        if reset {
            (peer.idle_until, peer.errors) = (None, 0);
            peer.retry_at = Some(now + self.random.within(self.config.connect_jitter));
            peer.note_state(now);
        } else {
            if let Some(source) = peer.source.as_mut().filter(|_| client) {
                let changed = Arc::make_mut(source);
                changed.client = peer.config.reflector_client && !changed.external;
            }
            match &*policy {
                _ if import || client => self.import_again(id),
                Difference::All => self.import_again(id),
                Difference::Within(changed) => self.import_within(id, changed),
            }
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.connections.is_empty()
            && peer.retry_at.is_none()
            && peer.idle_until.is_none()
        {
            // It may be active now.
            peer.retry_at = Some(now);
        }
        self.arm(id);
    }

    /// The last word of a session that ends forwarding, whatever was agreed on (RFC 8538).
    fn cease(&self, id: PeerId, told: Notification) -> Notification {
        let session = self.peers.get(&id).and_then(Peer::session);
        if session.is_some_and(|session| session.graceful.notification) {
            told.into_hard_reset()
        } else {
            told
        }
    }
}

/// Differences between policies. Peers share policies, and each pair is compared once.
#[derive(Default)]
struct Differences {
    /// By the addresses of both.
    known: BTreeMap<[*const Policy; 2], Arc<Difference>>,
    /// So that no other policy gets the address of one that was compared.
    compared: Vec<Arc<Policy>>,
}

impl Differences {
    fn between(
        &mut self,
        now: Option<&Arc<Policy>>,
        earlier: Option<&Arc<Policy>>,
    ) -> Arc<Difference> {
        let both = [now, earlier];
        let pointers = both.map(|policy| policy.map_or(std::ptr::null(), Arc::as_ptr));
        let known = self.known.entry(pointers).or_insert_with(|| {
            self.compared.extend(both.into_iter().flatten().cloned());
            Arc::new(Difference::between(now, earlier))
        });
        Arc::clone(known)
    }
}
