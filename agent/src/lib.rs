//! The resident of a node: registers it, keeps its routes and endpoints right, reports.
//!
//! Between the store and the kernel everything is pure: [`state`] holds what the store says,
//! [`calculate`] says what the kernel should hold, `margay-route` plans the difference. The kernel
//! is compared as a whole at start, when it reports a change, and at intervals, so that what
//! somebody deletes comes back.
//!
//! It must never change an interface, a route or a neighbour that is not this node's by protocol
//! number or by interface name, never remove anything before it has read the store once, and never
//! take anything with it when it ends.

pub mod abandoned;
pub mod apply;
pub mod autodetect;
pub mod bgp;
pub mod calculate;
pub mod cleanup;
pub mod config;
mod datastore;
pub mod enforce;
pub mod error;
pub mod files;
pub mod gone;
pub mod identity;
pub mod initialise;
pub mod install;
pub mod lease;
pub mod metrics;
pub mod mtu;
pub mod node_report;
pub mod packet_log;
pub mod plan;
pub mod register;
pub mod releases;
pub mod report;
pub mod run;
pub mod standing;
pub mod state;
pub mod status_files;
pub mod sync;
pub mod tunnel_address;
