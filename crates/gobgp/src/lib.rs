//! GoBGP in place of our speaker: what it is told over its API, and what it tells.
//!
//! [`peer`] and [`Policies`] turn what a [`SpeakerConfig`](margay_bgp::SpeakerConfig) says into messages
//! of GoBGP's gRPC API ([`api`]), [`own_path`] does so for own routes; [`view`] turns what GoBGP tells into
//! what our speaker tells of itself, and [`view::best`] into the best routes of a prefix. What GoBGP cannot
//! do is told for the peer that asks for it. Nothing here has a connection, a file or a clock.
//!
//! GoBGP keeps no routes in the kernel, so the agent does, as with its own speaker. Written for GoBGP 3.10.

pub mod api;
mod path;
mod peer;
mod policy;
pub mod view;

pub use path::{attributes, own_path, prefix};
pub use peer::peer;
pub use policy::{Policies, policies};
