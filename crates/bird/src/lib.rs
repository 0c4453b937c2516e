//! BIRD 2 in place of our speaker: its configuration from ours, and what it tells on its control socket.
//!
//! [`configuration`] makes the whole configuration of a `bird` that does what a
//! [`SpeakerConfig`](margay_bgp::SpeakerConfig) says: the same peers, policies and own routes. What
//! BIRD cannot do is told for the peer that asks for it, which is left out. [`Replies`] takes apart what
//! comes out of the control socket, [`protocols`] and [`routes`] read it, and [`view`] turns that into
//! what our speaker tells of itself. Nothing here reads a file, a socket or a clock.
//!
//! With this backend BIRD keeps learned routes in the kernel, under its own protocol number
//! ([`KERNEL_PROTOCOL`]); own routes are told to peers alone. Written for BIRD 2.0.12 and later of 2.x.

mod attributes;
mod config;
mod protocols;
mod reply;
mod routes;
pub mod view;

pub use config::{Configuration, Daemon, KERNEL_PROTOCOL, configuration};
pub use protocols::{Channel, Protocol, ProtocolState, Session, protocols};
pub use reply::{Replies, Reply, ReplyError};
pub use routes::{Entry, routes};
