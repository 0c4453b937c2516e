//! nfnetlink: applies the ruleset's batches, dumps our table, watches its generation; conntrack.
//!
//! It decides nothing. Requests are answered before a call returns, so that nothing here needs a
//! runtime: whoever must not wait calls from a thread that may.

mod connection;
pub mod conntrack;
mod decode;
mod encode;
mod error;
mod nft;
mod others;
mod protocol;
mod watch;
mod wire;

pub use conntrack::Conntrack;
pub use error::{Error, Result};
pub use nft::{ElementCounter, Nft, RuleCounter};
pub use others::ForeignChain;
pub use watch::{Event, Watch};
