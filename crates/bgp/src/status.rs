//! What people can see of a speaker.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use margay_model::Cidr;
use margay_model::scalar::AsNumber;
use serde::Serialize;

use crate::attribute::Attributes;
use crate::config::{Families, PerFamily};
use crate::event::{BestReason, Source};
use crate::message::Capability;

/// The state of a session (RFC 4271 §8.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum State {
    /// Nothing is tried: shut down, or waiting after an error.
    Idle,
    /// A connection is being made.
    Connect,
    /// A connection is awaited, or will be tried again.
    Active,
    /// OPEN was sent.
    OpenSent,
    /// OPEN was received too.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

/// A peer as it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PeerStatus {
    /// The peer's name.
    pub name: Arc<str>,
    /// What kind of peer it is, from its configuration.
    pub label: String,
    /// The peer's address.
    pub address: IpAddr,
    /// Our address on the session.
    pub local_address: Option<IpAddr>,
    /// Whether the peer came from a range.
    pub dynamic: bool,
    /// The state.
    pub state: State,
    /// Since when, in the caller's time.
    pub since: Duration,
    /// Why the last session or attempt ended, in words.
    pub last_error: Option<String>,
    /// The peer's AS, once known.
    pub asn: Option<AsNumber>,
    /// The peer's BGP identifier, once known.
    pub router_id: Option<Ipv4Addr>,
    /// The hold time in force; 0 for none.
    pub hold_time: Duration,
    /// The interval of keepalives in force; 0 for none.
    pub keepalive: Duration,
    /// What we announced.
    pub local_capabilities: Vec<Capability>,
    /// What the peer announced.
    pub remote_capabilities: Vec<Capability>,
    /// The families in use.
    pub families: Families,
    /// The state of graceful restart by family.
    pub restart: PerFamily<RestartState>,
    /// Whether the peer's End-of-RIB came.
    pub end_of_rib: Families,
    /// Numbers by family.
    pub prefixes: PerFamily<PrefixCounters>,
    /// Numbers of the peer over all its sessions.
    pub counters: PeerCounters,
}

/// What is done about a peer's routes while it restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartState {
    /// Nothing.
    #[default]
    None,
    /// Routes are kept until the peer is back.
    Waiting,
    /// The peer is back, and routes it does not announce again will go.
    Syncing,
    /// Routes are kept as a last resort (RFC 9494).
    LongLived,
}

/// Numbers of prefixes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PrefixCounters {
    /// Received, before import policy.
    pub received: u32,
    /// Accepted by import policy.
    pub accepted: u32,
    /// Rejected by policy or as loops.
    pub rejected: u32,
    /// Best in our table.
    pub best: u32,
    /// Announced to the peer.
    pub advertised: u32,
}

/// Numbers of messages and mishaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PeerCounters {
    /// Messages received.
    pub received: MessageCounters,
    /// Messages sent.
    pub sent: MessageCounters,
    /// How often an established session went down.
    pub flaps: u64,
    /// UPDATEs whose routes were taken as withdrawn (RFC 7606).
    pub treated_as_withdraw: u64,
    /// Attributes that were passed over (RFC 7606).
    pub attributes_discarded: u64,
}

/// Numbers of messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounters {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub refresh: u64,
}

/// A route as a peer announced it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReceivedRoute {
    /// The prefix.
    pub prefix: Cidr,
    /// The path identifier; 0 without add-path.
    pub path_id: u32,
    /// The attributes before import policy.
    pub attributes: Arc<Attributes>,
    /// Why the route is not taken; `None` if it is.
    pub rejected: Option<String>,
    /// Whether it outlived its session.
    pub stale: bool,
}

/// A route as it is announced to a peer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdvertisedRoute {
    /// The prefix.
    pub prefix: Cidr,
    /// The path identifier; 0 without add-path.
    pub path_id: u32,
    /// The attributes after export policy.
    pub attributes: Arc<Attributes>,
    /// Whether it awaits the socket.
    pub queued: bool,
}

/// A prefix of the table with all its routes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableEntry {
    /// The prefix.
    pub prefix: Cidr,
    /// Why the first route is the best; `None` if none can be used.
    pub reason: Option<BestReason>,
    /// The routes, the best first.
    pub paths: Vec<TablePath>,
}

/// A route of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TablePath {
    /// Whose it is.
    pub source: Source,
    /// Its attributes after import policy.
    pub attributes: Arc<Attributes>,
    /// Whether it is the best, or as good.
    pub multipath: bool,
    /// Whether it outlived its session.
    pub stale: bool,
    /// Whether its next hop can be reached.
    pub reachable: bool,
}
