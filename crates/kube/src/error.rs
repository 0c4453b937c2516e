//! What goes wrong on the way to an API server.

use std::time::Duration;

/// Why an object could not be had. `server` is the URL, `object` what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting, or a file that it names, cannot be used.
    #[error("{place}: {reason}")]
    Settings {
        /// The key or the file.
        place: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("the Kubernetes API server at {server} cannot be reached for {object}: {reason}")]
    Unreachable {
        /// Where.
        server: String,
        /// What for.
        object: String,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("the Kubernetes API server at {server} did not answer for {object} within {limit:?}")]
    Deadline {
        /// Where.
        server: String,
        /// What for.
        object: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// Status 401 or 403.
    #[error("the Kubernetes API server at {server} refused to show {object}: {reason}")]
    Denied {
        /// Where.
        server: String,
        /// What was asked for.
        object: String,
        /// The server's words.
        reason: String,
    },
    /// Status 404.
    #[error("{object} does not exist at the Kubernetes API server {server}")]
    Absent {
        /// Where.
        server: String,
        /// What was asked for.
        object: String,
    },
    /// Any other status, or an answer that is not what was asked for.
    #[error("the Kubernetes API server at {server} answered for {object}: {reason}")]
    Answer {
        /// Where.
        server: String,
        /// What was asked for.
        object: String,
        /// The status, or what is wrong with the answer.
        reason: String,
        /// Whether the server is only busy or starting.
        passing: bool,
    },
}

impl Error {
    pub(crate) fn settings(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Settings {
            place: place.into(),
            reason: reason.into(),
        }
    }
}
