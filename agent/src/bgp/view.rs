//! The speaker's peers as people see them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::{
    AdvertisedRoute, Attributes, Origin, PeerStatus, ReceivedRoute, Source, State, TableEntry,
    TablePath,
};
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family};
use margay_peering::PeerType;
use serde::Serialize;

/// What the agent tells of its BGP.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BgpStatus {
    /// Our AS number; `None` where there is no speaker.
    pub as_number: Option<u32>,
    /// Our BGP identifier.
    pub router_id: Option<String>,
    /// Where connections are awaited; empty while there are no peers.
    pub listening: Vec<String>,
    /// Whether all peers that were waited for after the start have told what they know.
    pub converged: bool,
    /// Connections that were refused because too many came from one source.
    pub throttled: u64,
    /// The peers by name.
    pub peers: Vec<PeerView>,
    /// Prefixes that we announce.
    pub announced: Vec<String>,
    /// Objects that make no sense, with the reason.
    pub problems: Vec<margay_peering::Problem>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerView {
    /// Its name, as Calico would name it.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// `node-to-node mesh`, `global`, `node specific` or `local workload`.
    #[serde(rename = "type")]
    pub kind: Option<PeerType>,
    /// The session's state.
    pub state: State,
    /// Since when.
    pub since: String,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// Its AS, once known.
    pub as_number: Option<u32>,
    /// Prefixes received, accepted and advertised, of both families together.
    pub received: u32,
    /// Prefixes accepted.
    pub accepted: u32,
    /// Prefixes advertised.
    pub advertised: u32,
    /// All that is known, for programs.
    pub detail: PeerStatus,
    /// Since when, as a time.
    #[serde(skip)]
    pub since_time: Timestamp,
    /// For how long.
    #[serde(skip)]
    pub age: Duration,
}

/// A route of BGP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteView {
    /// The prefix.
    pub prefix: Cidr,
    /// The next hop; our own routes have none.
    pub next_hop: String,
    /// From whom it is; empty where that is clear.
    pub from: String,
    /// The AS numbers of its path, the nearest first.
    pub as_path: String,
    /// ORIGIN.
    pub origin: Origin,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities, then large communities.
    pub communities: Vec<String>,
    /// Whether it is used, and why, or why not.
    pub note: String,
}

impl RouteView {
    fn of(prefix: Cidr, attributes: &Attributes) -> Self {
        let next_hop = attributes.next_hop.address;
        let communities = attributes.communities.iter().map(ToString::to_string);
        let large = attributes.large_communities.iter().map(ToString::to_string);
        Self {
            prefix,
            next_hop: if next_hop.is_unspecified() {
                String::new()
            } else {
                next_hop.to_string()
            },
            from: String::new(),
            as_path: attributes.as_path.to_string(),
            origin: attributes.origin,
            local_pref: attributes.local_pref,
            med: attributes.med,
            communities: communities.chain(large).collect(),
            note: String::new(),
        }
    }

    /// What a peer announced.
    pub fn received(route: &ReceivedRoute) -> Self {
        let mut view = Self::of(route.prefix, &route.attributes);
        view.note = match (&route.rejected, route.stale) {
            (Some(reason), _) => format!("rejected: {reason}"),
            (None, true) => "stale".to_owned(),
            (None, false) => String::new(),
        };
        view
    }

    /// What a peer is announced.
    pub fn advertised(route: &AdvertisedRoute) -> Self {
        let mut view = Self::of(route.prefix, &route.attributes);
        if route.queued {
            "queued".clone_into(&mut view.note);
        }
        view
    }

    /// All routes of a prefix, the best first.
    pub fn table(entry: &TableEntry) -> Vec<Self> {
        let view = |(number, path): (usize, &TablePath)| {
            let mut view = Self::of(entry.prefix, &path.attributes);
            view.from = match &path.source {
                Source::Local => "own".to_owned(),
                Source::Peer { name, .. } => name.to_string(),
            };
            let mut notes = Vec::new();
            match (number, entry.reason) {
                (0, Some(reason)) => notes.push(format!("best: {reason}")),
                _ if path.multipath => notes.push("as good as the best".to_owned()),
                _ => {}
            }
            if path.stale {
                notes.push("stale".to_owned());
            }
            if !path.reachable {
                notes.push("next hop cannot be reached".to_owned());
            }
            view.note = notes.join(", ");
            view
        };
        entry.paths.iter().enumerate().map(view).collect()
    }
}

impl BgpStatus {
    /// Takes over the speaker's peers. `now` is the time, `uptime` the same moment in the speaker's.
    pub fn describe(
        &mut self,
        peers: Vec<PeerStatus>,
        types: &BTreeMap<String, PeerType>,
        now: Timestamp,
        uptime: Duration,
    ) {
        let view = |peer: PeerStatus| {
            let age = uptime.saturating_sub(peer.since);
            let since_time = before(now, age);
            let total = |of: fn(&margay_bgp::status::PrefixCounters) -> u32| {
                of(&peer.prefixes.v4).saturating_add(of(&peer.prefixes.v6))
            };
            PeerView {
                name: peer.name.to_string(),
                address: peer.address,
                kind: types.get(&*peer.name).copied(),
                state: peer.state,
                since: since_time.rfc3339(),
                last_error: peer.last_error.clone(),
                as_number: peer.asn.map(|asn| asn.0),
                received: total(|counters| counters.received),
                accepted: total(|counters| counters.accepted),
                advertised: total(|counters| counters.advertised),
                since_time,
                age,
                detail: peer,
            }
        };
        self.peers = peers.into_iter().map(view).collect();
        self.peers.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// The peers of a family of addresses.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &PeerView> {
        let own = move |peer: &&PeerView| Family::of(peer.address) == family;
        self.peers.iter().filter(own)
    }
}

/// A moment so long before another.
fn before(now: Timestamp, ago: Duration) -> Timestamp {
    let since = Duration::new(now.seconds, now.nanos).saturating_sub(ago);
    Timestamp::from_epoch(Duration::from_secs(since.as_secs()))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use margay_bgp::config::PerFamily;
    use margay_bgp::status::{PeerCounters, PrefixCounters};
    use margay_bgp::{Families, RestartState};

    use super::*;

    /// 2026-11-23T08:30:00Z.
    pub(crate) const NOW: Timestamp = Timestamp {
        seconds: 1_795_422_600,
        nanos: 0,
    };

    fn status(name: &str, state: State) -> PeerStatus {
        PeerStatus {
            name: Arc::from(name),
            label: String::new(),
            address: "10.0.0.2".parse().unwrap(),
            local_address: None,
            dynamic: false,
            state,
            since: Duration::from_secs(100),
            last_error: None,
            asn: None,
            router_id: None,
            hold_time: Duration::ZERO,
            keepalive: Duration::ZERO,
            local_capabilities: Vec::new(),
            remote_capabilities: Vec::new(),
            families: Families::V4,
            restart: PerFamily::<RestartState>::default(),
            end_of_rib: Families::NONE,
            prefixes: PerFamily {
                v4: PrefixCounters {
                    received: 5,
                    accepted: 4,
                    advertised: 2,
                    ..PrefixCounters::default()
                },
                v6: PrefixCounters {
                    received: 1,
                    ..PrefixCounters::default()
                },
            },
            counters: PeerCounters::default(),
        }
    }

    /// A peer whose state is five minutes old.
    pub(crate) fn peer(name: &str, state: State) -> PeerView {
        let mut told = BgpStatus::default();
        let uptime = Duration::from_secs(400);
        let types = BTreeMap::from([(name.to_owned(), PeerType::Mesh)]);
        told.describe(vec![status(name, state)], &types, NOW, uptime);
        told.peers.remove(0)
    }

    #[test]
    fn times_are_of_the_calendar_and_numbers_of_both_families() {
        let peer = peer("Mesh_10_0_0_2", State::Established);
        assert_eq!(peer.since, "2026-11-23T08:25:00Z");
        assert_eq!((peer.received, peer.accepted, peer.advertised), (6, 4, 2));
        let shown = serde_json::to_value(&peer).unwrap();
        assert_eq!(shown["type"], "node-to-node mesh");
        assert_eq!(shown["state"], "Established");
    }
}
