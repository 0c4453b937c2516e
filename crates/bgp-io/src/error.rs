//! What can go wrong between a speaker and its sockets.

use std::io;
use std::net::SocketAddr;

use margay_model::Cidr;

/// A step that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listening socket could not be opened.
    #[error(
        "listening on {address}: {source}; is another BGP program running here, or the port below \
         1024 without the right to it?"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The listening socket did not take a password.
    #[error(
        "setting the password of {range}: {source}; if it is out of memory, raise \
         net.core.optmem_max"
    )]
    Password {
        /// Whose password.
        range: Cidr,
        /// The reason.
        source: margay_netlink::Error,
    },
    /// The speaker's task has ended.
    #[error("the BGP speaker has stopped")]
    Stopped,
}
