//! Docker's remote network driver and IPAM driver.
//!
//! Docker calls over two unix sockets: one driver gives addresses, the other makes networks and endpoints. Networks and
//! endpoints are kept in the store, an endpoint and its addresses in one commit; the process itself can be ended at any
//! moment, and so can Docker and the machine. It changes only interfaces that bear its mark, and never a policy.

pub mod config;
pub mod docker;
pub mod driver;
pub mod error;
pub mod kernel;
pub mod labels;
pub mod metrics;
pub mod network;
pub mod pool_id;
pub mod ports;
pub mod protocol;
pub mod record;
pub mod reservations;
pub mod server;
pub mod stale;
