//! What a speaker is to do: its own identity, its peers, its ranges of dynamic peers.

mod family;
mod keys;
mod peer;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use margay_model::Cidr;
use margay_model::scalar::AsNumber;

use crate::policy::Policy;

pub(crate) use family::FAMILIES;
pub use family::{Families, PerFamily};
pub use peer::{
    AddPath, BGP_PORT, GracefulRestart, MaxPrefixes, NextHopMode, OverLimit, Password,
    PasswordError, PeerConfig, RemoteAs, TimersConfig, TtlMode,
};

/// What a speaker is to do. It is always given whole; the speaker finds the difference.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakerConfig {
    /// Our AS number.
    pub asn: AsNumber,
    /// Our BGP identifier: unique within the AS, not 0.
    pub router_id: Ipv4Addr,
    /// The cluster of our reflector clients; the BGP identifier when absent (RFC 4456 §7).
    pub cluster_id: Option<Ipv4Addr>,
    /// Our IPv4 address as next hop, where the session itself has none to offer.
    pub address_v4: Option<Ipv4Addr>,
    /// Our IPv6 address as next hop, where the session itself has none to offer.
    pub address_v6: Option<Ipv6Addr>,
    /// The most next hops of a prefix that share its traffic.
    pub multipath: NonZeroUsize,
    /// How long the start of a speaker that restarts gracefully waits for its peers' End-of-RIB
    /// before it takes its table as complete; at most ten seconds count.
    pub deferral: Duration,
    /// Outgoing connections start after a random part of this.
    pub connect_jitter: Duration,
    /// The peers by name. The name is for people and identifies the peer across changes.
    pub peers: BTreeMap<String, PeerConfig>,
    /// Where peers may come from that have no configuration of their own, by name.
    pub ranges: BTreeMap<String, RangeConfig>,
}

/// A range of addresses whose connections become peers.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeConfig {
    /// The range; the longest that holds an address counts.
    pub cidr: Cidr,
    /// The most peers at a time.
    pub limit: usize,
    /// The configuration of each such peer; its address is that of the connection, and it is
    /// passive.
    pub template: PeerConfig,
}

impl SpeakerConfig {
    /// A speaker without peers.
    #[must_use]
    pub fn new(asn: AsNumber, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            cluster_id: None,
            address_v4: None,
            address_v6: None,
            multipath: NonZeroUsize::MIN,
            deferral: DEFERRAL_MAX,
            connect_jitter: Duration::from_millis(250),
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
        }
    }

    /// The cluster of our reflector clients.
    #[must_use]
    pub fn cluster(&self) -> Ipv4Addr {
        self.cluster_id.unwrap_or(self.router_id)
    }

    /// Takes the policies of an earlier configuration where they equal the peers' own.
    ///
    /// Peers share policies, which may be large. What is shared is compared once here, and by its
    /// address from then on.
    pub fn share_policies(&mut self, earlier: &Self) {
        let mut compared: BTreeMap<(*const Policy, *const Policy), bool> = BTreeMap::new();
        let mut share = |own: &mut Option<Arc<Policy>>, earlier: &Option<Arc<Policy>>| {
            if let (Some(own), Some(earlier)) = (own, earlier) {
                let pair = (Arc::as_ptr(own), Arc::as_ptr(earlier));
                if *compared.entry(pair).or_insert_with(|| own == earlier) {
                    own.clone_from(earlier);
                }
            }
        };
        for (name, peer) in &mut self.peers {
            if let Some(earlier) = earlier.peers.get(name) {
                share(&mut peer.import, &earlier.import);
                share(&mut peer.export, &earlier.export);
            }
        }
    }
}

/// The longest wait for peers' End-of-RIB after a restart.
pub(crate) const DEFERRAL_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Condition, Owners, Rule, Verdict};

    /// A configuration of two peers that share a policy on `owners`.
    fn config(owners: &[&str]) -> SpeakerConfig {
        let mut config = SpeakerConfig::new(AsNumber(64512), Ipv4Addr::new(10, 0, 0, 1));
        let by_prefix = owners.iter().map(|cidr| (cidr.parse().unwrap(), [].into()));
        let owners = Arc::new(Owners {
            by_prefix: by_prefix.collect(),
            ..Owners::default()
        });
        let rule = Rule::new("owner", vec![Condition::Owner(owners)], Verdict::Accept);
        let policy = Arc::new(Policy {
            name: "import".to_owned(),
            rules: vec![rule],
            otherwise: Verdict::Reject,
        });
        for number in 2..4 {
            let address = Ipv4Addr::new(10, 0, 0, number);
            let mut peer = PeerConfig::new(address.into(), RemoteAs::Internal);
            peer.import = Some(Arc::clone(&policy));
            peer.export = Some(Policy::accept_all());
            config.peers.insert(format!("n{number}"), peer);
        }
        config
    }

    #[test]
    fn equal_policies_are_shared_and_others_are_not() {
        let is_shared = |a: &SpeakerConfig, b: &SpeakerConfig| {
            let pairs = a.peers.iter().map(|(name, peer)| (peer, &b.peers[name]));
            let same = |a: &Option<_>, b: &Option<_>| match (a, b) {
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            };
            pairs
                .map(|(a, b)| [same(&a.import, &b.import), same(&a.export, &b.export)])
                .collect::<Vec<_>>()
        };
        let earlier = config(&["10.65.0.0/26"]);
        let mut equal = config(&["10.65.0.0/26"]);
        equal.share_policies(&earlier);
        assert_eq!(is_shared(&equal, &earlier), [[true, true]; 2]);
        let wanted = config(&["10.65.0.0/26", "10.65.1.0/26"]);
        let mut changed = wanted.clone();
        changed.share_policies(&earlier);
        assert_eq!(is_shared(&changed, &earlier), [[false, true]; 2]);
        assert_eq!(changed, wanted);
        // A peer that was not there before keeps its own.
        let mut fresh = config(&["10.65.0.0/26"]);
        let nobody = SpeakerConfig::new(AsNumber(64512), Ipv4Addr::new(10, 0, 0, 1));
        fresh.share_policies(&nobody);
        assert_eq!(is_shared(&fresh, &earlier), [[false, false]; 2]);
    }
}
