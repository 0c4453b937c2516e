//! The sockets and clocks of a BGP speaker: a thin shell around `margay-bgp` on tokio.
//!
//! [`start`] opens the listening sockets and starts one task that owns the speaker. A [`Handle`]
//! tells it what to do and asks it what is; [`News`] is what changed: best routes for the FIB and
//! events for people. News are not a queue of changes but what is different since they were last
//! taken, so that a slow taker costs no memory and misses nothing but what was undone meanwhile.
//!
//! It decides nothing about BGP.

mod admission;
mod connection;
mod error;
mod handle;
mod shell;
mod socket;

pub use error::Error;
pub use handle::{Handle, News, NewsReceiver, Peers};
pub use shell::{Settings, start};
