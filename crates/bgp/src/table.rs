//! The Loc-RIB: all routes that import policy took, and the best of each prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;

use margay_model::Cidr;

use crate::attribute::{Attributes, Community, NextHop};
use crate::decision::{Metrics, decide};
use crate::event::{BestReason, BestRoute, Source};
use crate::peer::PeerId;
use crate::policy::RouteSource;
use crate::route::LocalRoute;
use crate::status::{TableEntry, TablePath};

/// The Loc-RIB.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: BTreeMap<Cidr, Entry>,
    changed: BTreeSet<Cidr>,
    next_id: u32,
}

/// A prefix of the table.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// All routes; after a decision, the best first, then those as good, then the others.
    paths: Vec<Path>,
    /// The best routes; `None` if none can be used.
    best: Option<Arc<BestRoute>>,
}

/// A route of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Path {
    /// Whose it is.
    pub(crate) source: PathSource,
    /// The path identifier as received; 0 without add-path.
    pub(crate) path_id: u32,
    /// The path identifier as announced; unlike that of any other route.
    pub(crate) local_id: u32,
    /// The attributes after import policy.
    pub(crate) attributes: Arc<Attributes>,
    /// Whether it outlived its session.
    pub(crate) stale: Freshness,
}

/// Whether a route outlived its session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freshness {
    /// It did not.
    #[default]
    Fresh,
    /// It did (RFC 4724).
    Stale,
    /// It did, long ago (RFC 9494).
    LongLived,
}

/// Whose a route is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum PathSource {
    /// Our own.
    Local(Arc<LocalRoute>),
    /// A peer's.
    Peer(Arc<PeerSource>),
}

/// What the decision and export need to know of a route's peer; shared by its routes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PeerSource {
    pub(crate) id: PeerId,
    pub(crate) name: Arc<str>,
    pub(crate) address: IpAddr,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) external: bool,
    /// Whether it is a client of ours (RFC 4456).
    pub(crate) client: bool,
}

impl PathSource {
    /// The peer, if it is one's.
    pub(crate) fn peer(&self) -> Option<&PeerSource> {
        match self {
            Self::Local(_) => None,
            Self::Peer(peer) => Some(peer),
        }
    }

    /// The peer's identifier, if it is one's.
    pub(crate) fn id(&self) -> Option<PeerId> {
        self.peer().map(|peer| peer.id)
    }

    /// The source as policy sees it.
    pub(crate) fn for_policy(&self) -> RouteSource<'_> {
        match self {
            Self::Local(route) => RouteSource::Local {
                interface: route.interface.as_deref(),
                priority: route.priority,
                tag: route.tag,
            },
            Self::Peer(peer) => RouteSource::Peer {
                address: peer.address,
            },
        }
    }

    fn shown(&self) -> Source {
        match self {
            Self::Local(_) => Source::Local,
            Self::Peer(peer) => Source::Peer {
                name: Arc::clone(&peer.name),
                address: peer.address,
            },
        }
    }
}

impl Path {
    /// Whether the route is a last resort, here or since a speaker on its way (RFC 9494 §4.3).
    pub(crate) fn long_lived_stale(&self) -> bool {
        self.attributes.has_community(Community::LLGR_STALE)
    }
}

impl Entry {
    /// The usable routes, the best first.
    pub(crate) fn usable<'a>(&'a self, metrics: &'a Metrics) -> impl Iterator<Item = &'a Path> {
        let usable = self
            .paths
            .iter()
            .filter(|path| path.distance(metrics).is_some());
        usable.take(if self.best.is_some() { usize::MAX } else { 0 })
    }

    /// The best route.
    pub(crate) fn best(&self) -> Option<&Path> {
        self.best.as_ref().and_then(|_| self.paths.first())
    }
}

impl Table {
    /// Puts a route in the place of an earlier one from the same source.
    pub(crate) fn set(
        &mut self,
        prefix: Cidr,
        source: &PathSource,
        path_id: u32,
        attributes: &Arc<Attributes>,
        stale: Freshness,
    ) {
        let entry = self.entries.entry(prefix).or_default();
        let id = source.id();
        let before = entry
            .paths
            .iter_mut()
            .find(|p| p.source.id() == id && p.path_id == path_id);
        if let Some(path) = before {
            let same = Arc::ptr_eq(&path.attributes, attributes) && path.stale == stale;
            if same && path.source == *source {
                return;
            }
            path.source = source.clone();
            path.attributes = Arc::clone(attributes);
            path.stale = stale;
        } else {
            self.next_id = self.next_id.wrapping_add(1).max(1);
            entry.paths.push(Path {
                source: source.clone(),
                path_id,
                local_id: self.next_id,
                attributes: Arc::clone(attributes),
                stale,
            });
        }
        self.changed.insert(prefix);
    }

    /// Removes a source's route; does nothing if there is none.
    pub(crate) fn remove(&mut self, prefix: &Cidr, source: Option<PeerId>, path_id: u32) {
        let Some(entry) = self.entries.get_mut(prefix) else {
            return;
        };
        let before = entry.paths.len();
        entry
            .paths
            .retain(|path| path.source.id() != source || path.path_id != path_id);
        if entry.paths.len() != before {
            self.changed.insert(*prefix);
        }
    }

    /// Our own route of a prefix.
    pub(crate) fn local(&self, prefix: &Cidr) -> Option<&LocalRoute> {
        self.entries
            .get(prefix)?
            .paths
            .iter()
            .find_map(|path| match &path.source {
                PathSource::Local(route) => Some(&**route),
                PathSource::Peer(_) => None,
            })
    }

    /// Has all prefixes decided anew.
    pub(crate) fn touch_all(&mut self) {
        self.changed.extend(self.entries.keys());
    }

    /// Whether prefixes wait for a decision.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Decides on all prefixes that changed; returns them, with the new best routes where those
    /// are others now.
    pub(crate) fn decide(
        &mut self,
        metrics: &Metrics,
        multipath: NonZeroUsize,
    ) -> Vec<(Cidr, Option<Option<Arc<BestRoute>>>)> {
        let changed = std::mem::take(&mut self.changed);
        let mut decided = Vec::with_capacity(changed.len());
        for prefix in changed {
            let Some(entry) = self.entries.get_mut(&prefix) else {
                continue;
            };
            let best = entry.decide(metrics, multipath);
            let news = (best.as_deref() != entry.best.as_deref()).then(|| best.clone());
            entry.best = best;
            if entry.paths.is_empty() {
                self.entries.remove(&prefix);
            }
            decided.push((prefix, news));
        }
        decided
    }

    /// A prefix.
    pub(crate) fn get(&self, prefix: &Cidr) -> Option<&Entry> {
        self.entries.get(prefix)
    }

    /// All prefixes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Cidr, &Entry)> {
        self.entries.iter()
    }

    /// All prefixes, for people.
    pub(crate) fn show<'a>(
        &'a self,
        metrics: &'a Metrics,
    ) -> impl Iterator<Item = TableEntry> + 'a {
        self.entries.iter().map(|(prefix, entry)| TableEntry {
            prefix: *prefix,
            reason: entry.best.as_ref().map(|best| best.reason),
            paths: entry
                .paths
                .iter()
                .map(|path| entry.show(path, metrics))
                .collect(),
        })
    }
}

impl Entry {
    /// Decides and brings the routes into order.
    fn decide(&mut self, metrics: &Metrics, multipath: NonZeroUsize) -> Option<Arc<BestRoute>> {
        let decision = decide(&self.paths, metrics)?;
        let best = self.paths.get(decision.best)?;
        let mut next_hops: Vec<NextHop> = Vec::new();
        let mut ranks = vec![2_u8; self.paths.len()];
        if best.source.peer().is_some() {
            next_hops.push(best.attributes.next_hop);
            for place in &decision.equal {
                let Some(path) = self.paths.get(*place) else {
                    continue;
                };
                if let Some(rank) = ranks.get_mut(*place) {
                    *rank = 1;
                }
                let hop = path.attributes.next_hop;
                if next_hops.len() < multipath.get() && !next_hops.contains(&hop) {
                    next_hops.push(hop);
                }
            }
            next_hops.sort();
        }
        if let Some(rank) = ranks.get_mut(decision.best) {
            *rank = 0;
        }
        let route = BestRoute {
            source: best.source.shown(),
            attributes: Arc::clone(&best.attributes),
            next_hops,
            reason: if best.source.peer().is_none() {
                BestReason::Local
            } else {
                decision.reason
            },
            stale: best.stale != Freshness::Fresh,
        };
        if self.paths.len() > 1 {
            let mut ranked: Vec<_> = ranks.into_iter().zip(self.paths.drain(..)).collect();
            ranked.sort_by_key(|(rank, _)| *rank);
            self.paths.extend(ranked.into_iter().map(|(_, path)| path));
        }
        Some(Arc::new(route))
    }

    fn show(&self, path: &Path, metrics: &Metrics) -> TablePath {
        let hop = path.attributes.next_hop;
        TablePath {
            source: path.source.shown(),
            attributes: Arc::clone(&path.attributes),
            multipath: self
                .best
                .as_ref()
                .is_some_and(|best| best.next_hops.contains(&hop)),
            stale: path.stale != Freshness::Fresh,
            reachable: path.distance(metrics).is_some(),
        }
    }
}
