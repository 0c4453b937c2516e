//! What a speaker is to do: its own identity, its peers, its ranges of dynamic peers.

mod family;
mod keys;
mod peer;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::time::Duration;

use margay_model::Cidr;
use margay_model::scalar::AsNumber;

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
}

/// The longest wait for peers' End-of-RIB after a restart.
pub(crate) const DEFERRAL_MAX: Duration = Duration::from_secs(10);
