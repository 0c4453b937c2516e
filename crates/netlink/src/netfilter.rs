//! Netlink of netfilter (`linux/netfilter/nfnetlink.h`): messages, a connection, connection tracking, and the log of packets.
//!
//! Requests are answered before a call returns, so that nothing here needs a runtime: whoever must not wait calls
//! from a thread that may.

mod connection;
pub mod conntrack;
mod error;
pub mod log;
pub mod wire;

pub use connection::{Connection, Verdict};
pub use conntrack::Conntrack;
pub use error::{Error, Result};
pub use log::PacketLog;
