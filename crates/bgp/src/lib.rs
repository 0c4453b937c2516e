//! A BGP-4 speaker without I/O: codec, sessions, RIBs, decision, policy and export.
//!
//! Values in, values out: no socket, no clock, no thread. A shell (`margay-bgp-io`) owns the
//! sockets; it tells the speaker what happens and does what the speaker says. Time is a
//! [`std::time::Duration`] since a moment of the caller's choosing that never goes backwards;
//! randomness comes from a seed. The same code serves a node of a mesh and a route reflector.
//!
//! - [`SpeakerConfig`] is all that a speaker is to do: its identity, its peers ([`PeerConfig`]) and
//!   ranges of dynamic peers ([`RangeConfig`]). It is always given whole; the speaker finds the
//!   difference and resets only sessions that must be.
//! - [`Policy`] decides on routes from and to peers.
//! - [`LocalRoute`] is a route of our own.
//! - [`Output`] is what the shell is to do, and what changed: connections to make, the best routes
//!   of prefixes for the FIB, [`Event`]s for people.
//! - [`PeerStatus`], [`TableEntry`] and the like are what people can see.
//!
//! A [`Speaker`] is driven so: `new(config, now, seed, restarting)`, then `configure(now, config)`
//! at every change, `announce(route)` and `withdraw(prefix)` for own routes; for sockets `accept`,
//! `connected`, `received`, `closed` and `transmit`; `tick(now)` at `deadline()`; and after any of
//! these `poll(now)`, whose [`Output`]s the shell carries out.
//!
//! IPv4 and IPv6 unicast: RFC 4271, 4760; capabilities (5492), four-octet AS numbers (6793), route
//! refresh (2918, 7313), reflection (4456), error handling (7606), graceful restart (4724, 8538,
//! 9494), IPv4 routes with IPv6 next hops (8950), several paths (7911), communities (1997, 4360,
//! 8092), texts at shutdown (9003), send hold timer (9687), no routes without policy (8212).

pub mod attribute;
pub mod config;
mod decision;
pub mod event;
mod group;
mod intern;
pub mod message;
mod peer;
pub mod policy;
mod random;
mod route;
mod speaker;
pub mod status;
mod table;

pub use attribute::{
    AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
};
pub use config::{
    AddPath, BGP_PORT, Families, GracefulRestart, MaxPrefixes, NextHopMode, OverLimit, Password,
    PeerConfig, PerFamily, RangeConfig, RemoteAs, SpeakerConfig, TimersConfig, TtlMode,
};
pub use event::{
    BestReason, BestRoute, ConnectionId, DownReason, Event, Output, Refusal, SocketOptions, Source,
    Target,
};
pub use message::{Capability, Code, Notification};
pub use policy::{Condition, Operation, Policy, Rule, Verdict};
pub use route::LocalRoute;
pub use speaker::{Speaker, Stop};
pub use status::{
    AdvertisedRoute, PeerStatus, ReceivedRoute, RestartState, State, TableEntry, TablePath,
};
