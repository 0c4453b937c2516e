//! Netlink of netfilter (`linux/netfilter/nfnetlink.h`): messages, a connection, and connection tracking.
//!
//! Requests are answered before a call returns, so that nothing here needs a runtime: whoever must not wait calls
//! from a thread that may.

mod connection;
pub mod conntrack;
mod error;
pub mod wire;

pub use connection::{Connection, Verdict};
pub use conntrack::Conntrack;
pub use error::{Error, Result};
