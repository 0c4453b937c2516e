//! nfnetlink: applies the ruleset's batches, dumps our table, watches its generation.
//!
//! It decides nothing. Requests are answered before a call returns, so that nothing here needs a
//! runtime: whoever must not wait calls from a thread that may.

mod decode;
mod encode;
mod nft;
mod others;
mod protocol;
mod watch;

pub use margay_netlink::netfilter::{Conntrack, Error, Result, conntrack};
pub use nft::{ElementCounter, Nft, RuleCounter};
pub use watch::{Event, Watch};
