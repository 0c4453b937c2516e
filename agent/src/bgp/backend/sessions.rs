//! What is different between two looks at the sessions of a program that does not tell by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use margay_bgp::{PeerStatus, State};
use margay_bgp_io::Peers;
use tracing::{info, warn};

use crate::identity;

/// How often each session went down, for programs that do not count or do not tell.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    by_peer: BTreeMap<String, u64>,
}

impl Flaps {
    /// Logs which sessions came up or went down, and counts the latter.
    pub(super) fn note(&mut self, before: &[PeerStatus], after: &mut [PeerStatus]) {
        for name in tell(before, after) {
            *self.by_peer.entry(name).or_default() += 1;
        }
        for peer in after {
            peer.counters.flaps = self.by_peer.get(&*peer.name).copied().unwrap_or_default();
        }
    }
}

/// Logs which sessions came up or went down; the names of the latter.
fn tell(before: &[PeerStatus], after: &[PeerStatus]) -> Vec<String> {
    let mut down = Vec::new();
    for peer in after {
        let earlier = before.iter().find(|other| other.name == peer.name);
        let was_up = earlier.is_some_and(|earlier| earlier.state == State::Established);
        match (was_up, peer.state == State::Established) {
            (false, true) => info!(peer = %peer.name, address = %peer.address, "BGP session up"),
            (true, false) => {
                let reason = peer.last_error.as_deref();
                let reason = reason.unwrap_or("the program that speaks BGP does not say why");
                warn!(peer = %peer.name, address = %peer.address, "BGP session down: {reason}");
                down.push(peer.name.to_string());
            }
            _ => {}
        }
    }
    down
}

/// Whether all that are wanted are up.
pub(super) fn complete(peers: &[PeerStatus], wanted: usize) -> bool {
    let up = |peer: &PeerStatus| peer.state == State::Established;
    peers.len() == wanted && peers.iter().all(up)
}

/// Peers whose times are since 1970.
pub(super) fn shown(peers: &[PeerStatus]) -> Peers {
    Peers {
        now: now(),
        peers: peers.to_vec(),
        throttled: 0,
    }
}

/// Since 1970.
pub(super) fn now() -> Duration {
    let now = identity::now();
    Duration::new(now.seconds, now.nanos)
}
