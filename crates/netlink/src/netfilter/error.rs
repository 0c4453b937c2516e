//! What can go wrong between a request and the kernel's netfilter.

use std::io;

use nix::errno::Errno;

use crate::RequestError;

/// The result of anything that speaks to netfilter.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A request that did not succeed, its object and the kernel's reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] crate::Error),
    /// No netlink socket could be had.
    #[error("opening a netfilter socket: netfilter's netlink and CAP_NET_ADMIN are needed")]
    Socket {
        /// The reason.
        source: io::Error,
    },
    /// A request could not be sent.
    #[error("sending {what} ({bytes} bytes)")]
    Send {
        /// The request.
        what: String,
        /// Its length.
        bytes: usize,
        /// The reason.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("{what}")]
    Request {
        /// What was asked, with its object.
        what: String,
        /// The reason.
        source: RequestError,
    },
}

impl Error {
    /// The kernel's error number, if the kernel refused a request.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Request { source, .. } => source.errno(),
            Self::Send { source, .. } | Self::Socket { source } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            Self::Namespace(source) => source.errno(),
        }
    }
}
