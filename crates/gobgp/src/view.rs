//! What GoBGP tells, as our speaker tells it of itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::config::PerFamily;
use margay_bgp::status::{MessageCounters, PeerCounters, PrefixCounters};
use margay_bgp::{
    AdvertisedRoute, Attributes, BestReason, Families, PeerConfig, PeerStatus, ReceivedRoute,
    RestartState, Source, SpeakerConfig, State, TableEntry, TablePath,
};
use margay_model::Cidr;
use prost_types::Timestamp;

use crate::api;
use crate::path::{attributes, prefix};

/// A peer as it is; `None` if it is none of those that are configured. Times are since 1970, `now` too.
#[must_use]
pub fn peer(speaker: &SpeakerConfig, told: &api::Peer, now: Duration) -> Option<PeerStatus> {
    let state = told.state.as_ref()?;
    let (name, config) = by_address(speaker, &state.neighbor_address)?;
    let times = told
        .timers
        .as_ref()
        .and_then(|timers| timers.state.as_ref());
    let is_up = state.session_state == ESTABLISHED;
    let since = times.and_then(|times| match is_up {
        true => times.uptime.as_ref(),
        false => times.downtime.as_ref(),
    });
    let mut prefixes = PerFamily::<PrefixCounters>::default();
    let mut families = Families::NONE;
    for numbers in told.afi_safis.iter().filter_map(|afi| afi.state.as_ref()) {
        let Some(family) = numbers.family.as_ref().and_then(api::Family::read) else {
            continue;
        };
        *families.get_mut(family) = is_up;
        *prefixes.get_mut(family) = PrefixCounters {
            received: count(numbers.received),
            accepted: count(numbers.accepted),
            rejected: count(numbers.received.saturating_sub(numbers.accepted)),
            best: 0,
            advertised: if is_up { count(numbers.advertised) } else { 0 },
        };
    }
    let restarts = told.graceful_restart.as_ref();
    let restarts = restarts.is_some_and(|restart| restart.peer_restarting);
    let messages = state.messages.as_ref();
    let sums = |one: Option<&api::Message>| {
        one.map_or_else(MessageCounters::default, |sums| MessageCounters {
            open: sums.open,
            update: sums.update,
            notification: sums.notification,
            keepalive: sums.keepalive,
            refresh: sums.refresh,
        })
    };
    Some(PeerStatus {
        name: Arc::from(name),
        label: config.label.clone(),
        address: config.address,
        local_address: config.source,
        dynamic: false,
        state: match state.session_state {
            2 => State::Connect,
            3 => State::Active,
            4 => State::OpenSent,
            5 => State::OpenConfirm,
            ESTABLISHED => State::Established,
            _ => State::Idle,
        },
        since: since.map_or(now, time),
        last_error: (state.admin_state == TOO_MANY)
            .then(|| "the peer announces more prefixes than it may".to_owned()),
        asn: is_up.then_some(margay_model::scalar::AsNumber(state.peer_asn)),
        router_id: state.router_id.parse().ok(),
        hold_time: Duration::from_secs(times.map_or(0, |times| times.negotiated_hold_time)),
        keepalive: Duration::from_secs(times.map_or(0, |times| times.keepalive_interval)),
        local_capabilities: Vec::new(),
        remote_capabilities: Vec::new(),
        families,
        restart: PerFamily::from_fn(|family| match restarts && config.families.has(family) {
            true => RestartState::Waiting,
            false => RestartState::None,
        }),
        end_of_rib: Families::NONE,
        prefixes,
        counters: PeerCounters {
            received: sums(messages.and_then(|messages| messages.received.as_ref())),
            sent: sums(messages.and_then(|messages| messages.sent.as_ref())),
            ..PeerCounters::default()
        },
    })
}

/// The next hops of a prefix's best routes, and the name of the peer whose is the best; `None` where there is
/// no route or it is our own.
#[must_use]
pub fn best(
    speaker: &SpeakerConfig,
    told: &api::Destination,
) -> Option<(BTreeSet<IpAddr>, String)> {
    let (first, others) = told.paths.split_first()?;
    let (name, _) = by_address(speaker, &first.neighbor_ip)?;
    let chosen = attributes(first);
    let mut next_hops = BTreeSet::from([chosen.next_hop.address]);
    for other in others {
        let attributes = attributes(other);
        if by_address(speaker, &other.neighbor_ip).is_some()
            && is_as_good((first, &chosen), (other, &attributes))
        {
            next_hops.insert(attributes.next_hop.address);
        }
    }
    Some((next_hops, name.to_owned()))
}

/// What a peer announced.
#[must_use]
pub fn received(told: &[api::Destination]) -> Vec<ReceivedRoute> {
    let paths = told.iter().flat_map(|destination| &destination.paths);
    let route = |path: &api::Path| {
        Some(ReceivedRoute {
            prefix: prefix(path)?,
            path_id: path.identifier,
            attributes: Arc::new(attributes(path)),
            rejected: path.filtered.then(|| "import policy, or a loop".to_owned()),
            stale: path.stale,
        })
    };
    paths.filter_map(route).collect()
}

/// What a peer is announced.
#[must_use]
pub fn advertised(told: &[api::Destination]) -> Vec<AdvertisedRoute> {
    let paths = told.iter().flat_map(|destination| &destination.paths);
    let route = |path: &api::Path| {
        Some(AdvertisedRoute {
            prefix: prefix(path)?,
            path_id: path.identifier,
            attributes: Arc::new(attributes(path)),
            queued: false,
        })
    };
    paths.filter_map(route).collect()
}

/// The table.
#[must_use]
pub fn table(speaker: &SpeakerConfig, told: &[api::Destination]) -> Vec<TableEntry> {
    let entry = |destination: &api::Destination| {
        let first = destination.paths.first()?;
        let chosen = attributes(first);
        let path = |path: &api::Path| {
            let attributes = attributes(path);
            let multipath = is_as_good((first, &chosen), (path, &attributes));
            TablePath {
                source: match by_address(speaker, &path.neighbor_ip) {
                    Some((name, config)) => Source::Peer {
                        name: Arc::from(name),
                        address: config.address,
                    },
                    None => Source::Local,
                },
                attributes: Arc::new(attributes),
                multipath,
                stale: path.stale,
                reachable: !path.is_nexthop_invalid,
            }
        };
        let paths: Vec<TablePath> = destination.paths.iter().map(path).collect();
        Some(TableEntry {
            prefix: prefix(first)?,
            reason: reason(&destination.paths, &paths),
            paths,
        })
    };
    told.iter().filter_map(entry).collect()
}

/// Why the first is before the second. GoBGP does not say, but the attributes do.
fn reason(told: &[api::Path], paths: &[TablePath]) -> Option<BestReason> {
    let best = paths.first()?;
    if best.source == Source::Local {
        return Some(BestReason::Local);
    }
    let ([first, second, ..], Some(next)) = (told, paths.get(1)) else {
        return Some(BestReason::OnlyPath);
    };
    let one = (&*best.attributes, first.is_from_external);
    let other = (&*next.attributes, second.is_from_external);
    Some(BestReason::by_attributes(one, other).unwrap_or(BestReason::RouterId))
}

/// Whether traffic is shared between both.
fn is_as_good(best: (&api::Path, &Attributes), other: (&api::Path, &Attributes)) -> bool {
    let [one, two] = [best, other].map(|(path, attributes)| (attributes, path.is_from_external));
    !other.0.is_nexthop_invalid && BestReason::by_attributes(one, two).is_none()
}

fn by_address<'s>(speaker: &'s SpeakerConfig, text: &str) -> Option<(&'s str, &'s PeerConfig)> {
    let address: IpAddr = text.parse().ok()?;
    let mut peers = speaker.peers.iter();
    peers
        .find(|(_, peer)| peer.address == address)
        .map(|(name, peer)| (name.as_str(), peer))
}

fn time(told: &Timestamp) -> Duration {
    Duration::from_secs(u64::try_from(told.seconds).unwrap_or(0))
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The prefix of what was asked for by its text; for events of GoBGP.
#[must_use]
pub fn changed(event: &api::TableEvent) -> BTreeSet<Cidr> {
    event.paths.iter().filter_map(prefix).collect()
}

const ESTABLISHED: i32 = 6;
/// The session ended because of too many prefixes.
const TOO_MANY: i32 = 2;
