//! What people can see.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Speaker;
use crate::config::{Families, PerFamily};
use crate::peer::{GroupId, Peer, PeerId};
use crate::status::{AdvertisedRoute, PeerStatus, PrefixCounters, ReceivedRoute, TableEntry};
use crate::table::Freshness;

type Counts = BTreeMap<GroupId, (u32, BTreeMap<PeerId, u32>)>;

impl Speaker {
    /// All peers.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let mut best: BTreeMap<PeerId, PerFamily<u32>> = BTreeMap::new();
        for (prefix, entry) in self.table.iter() {
            if let Some(source) = entry.best().and_then(|path| path.source.id()) {
                *best.entry(source).or_default().get_mut(prefix.family()) += 1;
            }
        }
        let advertised: Counts = self
            .groups
            .iter()
            .map(|(id, group)| (*id, group.count()))
            .collect();
        self.peers
            .values()
            .map(|peer| show(peer, &best, &advertised))
            .collect()
    }

    /// The routes of a peer as it announced them; `None` if there is no such peer.
    #[must_use]
    pub fn received_routes(&self, name: &str) -> Option<Vec<ReceivedRoute>> {
        let peer = self.peers.get(self.names.get(name)?)?;
        let both = [&peer.received.v4, &peer.received.v6];
        let routes = both.into_iter().flat_map(|received| &received.routes);
        Some(
            routes
                .map(|((prefix, path_id), route)| ReceivedRoute {
                    prefix: *prefix,
                    path_id: *path_id,
                    attributes: route.attributes.clone(),
                    rejected: route.rejection.as_ref().map(ToString::to_string),
                    stale: route.stale != Freshness::Fresh,
                })
                .collect(),
        )
    }

    /// The routes that a peer is announced; `None` if there is no such peer.
    #[must_use]
    pub fn advertised_routes(&self, name: &str) -> Option<Vec<AdvertisedRoute>> {
        let peer = self.peers.get(self.names.get(name)?)?;
        let groups = [peer.groups.v4, peer.groups.v6].into_iter().flatten();
        let groups = groups.filter_map(|group| self.groups.get(&group));
        Some(groups.flat_map(|group| group.advertised(peer.id)).collect())
    }

    /// The whole table, by prefix.
    pub fn table(&self) -> impl Iterator<Item = TableEntry> + '_ {
        self.table.show(&self.metrics)
    }
}

fn show(peer: &Peer, best: &BTreeMap<PeerId, PerFamily<u32>>, advertised: &Counts) -> PeerStatus {
    let known = peer.known.as_ref();
    let farthest = peer
        .connections
        .iter()
        .max_by_key(|connection| connection.phase);
    let session = farthest.and_then(|connection| connection.session.as_ref());
    PeerStatus {
        name: peer.name.clone(),
        label: peer.config.label.clone(),
        address: peer.config.address,
        local_address: farthest.and_then(|connection| connection.local),
        dynamic: peer.range.is_some(),
        state: peer.current_state(),
        since: peer.since,
        last_error: peer.last_error.as_ref().map(ToString::to_string),
        asn: known.map(|known| known.asn),
        router_id: known.map(|known| known.router_id),
        hold_time: session.map_or(Duration::ZERO, |session| session.hold),
        keepalive: session.map_or(Duration::ZERO, |session| session.keepalive),
        local_capabilities: known
            .map(|k| k.local_capabilities.clone())
            .unwrap_or_default(),
        remote_capabilities: known.map(|k| k.capabilities.clone()).unwrap_or_default(),
        families: peer.families(),
        restart: PerFamily::from_fn(|family| peer.received.get(family).restart.shown()),
        end_of_rib: Families::from_fn(|family| peer.received.get(family).ended),
        prefixes: PerFamily::from_fn(|family| {
            let received = peer.received.get(family);
            let count = u32::try_from(received.routes.len()).unwrap_or(u32::MAX);
            let told = peer
                .groups
                .get(family)
                .and_then(|group| advertised.get(&group));
            PrefixCounters {
                received: count,
                accepted: received.accepted,
                rejected: count.saturating_sub(received.accepted),
                best: best.get(&peer.id).map_or(0, |best| *best.get(family)),
                advertised: told.map_or(0, |(all, of)| {
                    all.saturating_sub(of.get(&peer.id).copied().unwrap_or(0))
                }),
            }
        }),
        counters: peer.counters,
    }
}
