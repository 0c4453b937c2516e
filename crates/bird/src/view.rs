//! What BIRD tells, as our speaker tells it of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::config::PerFamily;
use margay_bgp::status::{PeerCounters, PrefixCounters};
use margay_bgp::{
    AdvertisedRoute, Attributes, BestReason, Families, NextHopMode, PeerConfig, PeerStatus,
    ReceivedRoute, RemoteAs, RestartState, Source, SpeakerConfig, State, TableEntry, TablePath,
};
use margay_model::Cidr;
use margay_model::scalar::AsNumber;
use margay_model::time::Timestamp;

use crate::protocols::{Protocol, ProtocolState, Session};
use crate::routes::Entry;

/// The peers that BIRD has of those that are configured. Times are since 1970.
#[must_use]
pub fn peers(speaker: &SpeakerConfig, protocols: &[Protocol]) -> Vec<PeerStatus> {
    let sessions = protocols.iter().filter_map(|protocol| {
        let config = speaker.peers.get(&protocol.name)?;
        let session = protocol.session.as_ref()?;
        Some(peer(config, protocol, session))
    });
    sessions.collect()
}

fn peer(config: &PeerConfig, protocol: &Protocol, session: &Session) -> PeerStatus {
    let established = session.state == Some(State::Established);
    let mut prefixes = PerFamily::<PrefixCounters>::default();
    let mut families = Families::NONE;
    for channel in &protocol.channels {
        *families.get_mut(channel.family) = established && channel.up;
        *prefixes.get_mut(channel.family) = PrefixCounters {
            received: channel.imported.saturating_add(channel.filtered),
            accepted: channel.imported,
            rejected: channel.filtered,
            best: channel.preferred,
            advertised: channel.exported,
        };
    }
    let restart = match session.restarting {
        true => RestartState::Waiting,
        false => RestartState::None,
    };
    PeerStatus {
        name: Arc::from(protocol.name.as_str()),
        label: config.label.clone(),
        address: config.address,
        local_address: session.source.or(config.source),
        dynamic: false,
        // BIRD's word for a session that is not tried is that the protocol is down.
        state: match (protocol.state, session.state) {
            (ProtocolState::Down, _) | (_, None) => State::Idle,
            (_, Some(state)) => state,
        },
        since: since(&protocol.since),
        last_error: session.last_error.clone().filter(|_| !established),
        asn: session.remote_as,
        router_id: session.router_id,
        hold_time: Duration::from_secs(session.hold),
        keepalive: Duration::from_secs(session.keepalive),
        local_capabilities: session.local.clone(),
        remote_capabilities: session.remote.clone(),
        families,
        restart: PerFamily::from_fn(|family| match config.families.has(family) {
            true => restart,
            false => RestartState::None,
        }),
        end_of_rib: Families::NONE,
        prefixes,
        counters: PeerCounters::default(),
    }
}

/// Since 1970; zero where it cannot be read.
fn since(text: &str) -> Duration {
    let time = Timestamp::parse_rfc3339(text);
    time.map_or(Duration::ZERO, |time| Duration::new(time.seconds, 0))
}

/// What a peer announced: the import table, with what of it was taken.
#[must_use]
pub fn received(announced: Vec<Entry>, taken: &[Entry]) -> Vec<ReceivedRoute> {
    let taken: BTreeSet<Cidr> = taken.iter().map(|entry| entry.prefix).collect();
    let route = |entry: Entry| ReceivedRoute {
        rejected: match taken.contains(&entry.prefix) {
            true => None,
            false => Some("import policy, or a loop".to_owned()),
        },
        prefix: entry.prefix,
        path_id: 0,
        stale: entry.stale,
        attributes: Arc::new(entry.attributes),
    };
    announced.into_iter().map(route).collect()
}

/// What a peer is announced: the export table, with what the session itself does to each route.
#[must_use]
pub fn advertised(
    entries: Vec<Entry>,
    speaker: &SpeakerConfig,
    peer: &PeerConfig,
) -> Vec<AdvertisedRoute> {
    let own_as = peer.local_as.unwrap_or(speaker.asn);
    let external = match peer.remote_as {
        RemoteAs::Is(asn) => asn != own_as,
        RemoteAs::External => true,
        RemoteAs::Any | RemoteAs::Internal => false,
    };
    let route = |entry: Entry| {
        let mut attributes = entry.attributes;
        if external {
            attributes.as_path.prepend(&[own_as]);
            attributes.local_pref = None;
        }
        let ours = match peer.next_hop {
            NextHopMode::Own => true,
            NextHopMode::Auto => external,
            NextHopMode::Keep => false,
        };
        if ours || attributes.next_hop.address.is_unspecified() {
            let own = match entry.prefix.family() {
                margay_model::Family::V4 => speaker.address_v4.map(IpAddr::V4),
                margay_model::Family::V6 => speaker.address_v6.map(IpAddr::V6),
            };
            let of_family =
                |address: &IpAddr| address.is_ipv4() == entry.prefix.network().is_ipv4();
            if let Some(address) = peer.source.filter(of_family).or(own) {
                attributes.next_hop = margay_bgp::NextHop::new(address);
            }
        }
        AdvertisedRoute {
            prefix: entry.prefix,
            path_id: 0,
            attributes: Arc::new(attributes),
            queued: false,
        }
    };
    entries.into_iter().map(route).collect()
}

/// The table: own routes and those of peers; the machine's others are left out.
#[must_use]
pub fn table(entries: Vec<Entry>, speaker: &SpeakerConfig) -> Vec<TableEntry> {
    let mut prefixes: BTreeMap<Cidr, Vec<(bool, TablePath)>> = BTreeMap::new();
    for entry in entries {
        let source = match speaker.peers.get(&entry.protocol) {
            Some(peer) => Source::Peer {
                name: Arc::from(entry.protocol.as_str()),
                address: peer.address,
            },
            None if entry.protocol.starts_with(OWN) => Source::Local,
            None => continue,
        };
        let path = TablePath {
            source,
            attributes: Arc::new(entry.attributes),
            multipath: entry.best,
            stale: entry.stale,
            reachable: !entry.unreachable,
        };
        prefixes
            .entry(entry.prefix)
            .or_default()
            .push((entry.best, path));
    }
    let mut table = Vec::new();
    for (prefix, mut paths) in prefixes {
        paths.sort_by_key(|(best, _)| !best);
        let usable = paths.first().is_some_and(|(best, _)| *best);
        let mut paths: Vec<TablePath> = paths.into_iter().map(|(_, path)| path).collect();
        let reason = reason(&paths, speaker).filter(|_| usable);
        if let [best, others @ ..] = paths.as_mut_slice() {
            for other in others {
                other.multipath = usable && other.reachable && as_good(best, other, speaker);
            }
        }
        table.push(TableEntry {
            prefix,
            reason,
            paths,
        });
    }
    table
}

/// Why the first is before the second. BIRD does not say, but the attributes do.
fn reason(paths: &[TablePath], speaker: &SpeakerConfig) -> Option<BestReason> {
    let best = paths.first()?;
    if best.source == Source::Local {
        return Some(BestReason::Local);
    }
    let Some(next) = paths.get(1) else {
        return Some(BestReason::OnlyPath);
    };
    let [one, other] = [best, next].map(|path| borne(path, speaker));
    Some(BestReason::by_attributes(one, other).unwrap_or(BestReason::RouterId))
}

/// Whether BIRD shares traffic between both.
fn as_good(best: &TablePath, other: &TablePath, speaker: &SpeakerConfig) -> bool {
    let peers = best.source != Source::Local && other.source != Source::Local;
    let [one, two] = [best, other].map(|path| borne(path, speaker));
    peers && BestReason::by_attributes(one, two).is_none()
}

/// What a route bears, and whether its session is external.
fn borne<'p>(path: &'p TablePath, speaker: &SpeakerConfig) -> (&'p Attributes, bool) {
    (&path.attributes, is_external(path, speaker))
}

fn is_external(path: &TablePath, speaker: &SpeakerConfig) -> bool {
    let Source::Peer { name, .. } = &path.source else {
        return false;
    };
    speaker.peers.get(&**name).is_some_and(|peer| {
        let own: AsNumber = peer.local_as.unwrap_or(speaker.asn);
        !peer.remote_as.holds(own, own)
    })
}

/// How the protocols of own routes are named.
const OWN: &str = "margay_own";
