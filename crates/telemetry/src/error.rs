//! What can go wrong while telemetry is set up.

use std::io;
use std::path::PathBuf;

/// A set-up that did not succeed. Nothing fails once telemetry runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process already has a logger; only the first one counts.
    #[error("the log is already started")]
    LogStarted,
    /// No listener could be opened at a TCP address.
    #[error("listen on {address}: {source}")]
    ListenTcp {
        /// The address as it was asked for, `host:port`.
        address: String,
        /// The kernel's or the resolver's reason.
        source: io::Error,
    },
    /// No listener could be opened at a unix socket's path.
    #[error("listen on unix socket {}: {source}", path.display())]
    ListenUnix {
        /// The path as it was asked for.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Another process answers on the unix socket.
    #[error(
        "unix socket {} is served by another process; stop it or choose another path",
        path.display()
    )]
    SocketInUse {
        /// The path as it was asked for.
        path: PathBuf,
    },
}
