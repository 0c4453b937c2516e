//! Many nodes in one process under virtual time, with faults, and an auditor of the rules after every commit.
//!
//! The code under test is the real one: the allocator and its releases, the journal, the agent's drain,
//! follower, sighting, watchlist and sweep, GC's search for leaks. Around it stand small models: a network
//! that delays and loses requests and answers ([`network`]), each node's kernel ([`kernel`]), the order in
//! which the plugins use both ([`plugin`]), runtimes that kill, repeat and forget calls ([`runtime`]), a
//! writer that works as Calico does, step by step ([`calico`]), and a chaos that cuts nodes off, restarts
//! them and changes pools ([`chaos`]).
//!
//! Everything is decided by one seed: one thread, one clock that only timers move, one source of chance. The
//! same seed gives the same history, so a seed is a complete report of a fault.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a simulation fails by panicking"
)]

pub mod agent;
pub mod auditor;
pub mod calico;
pub mod chaos;
pub mod kernel;
pub mod network;
pub mod node;
pub mod plugin;
pub mod runtime;
pub mod shape;
pub mod world;

pub use shape::Shape;
pub use world::{Report, run};
