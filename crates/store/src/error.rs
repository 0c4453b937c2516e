//! What can go wrong between a program and its store.

use std::time::Duration;

use crate::types::Revision;

/// An error of the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No endpoint could be reached, or the file could not be opened.
    #[error("the datastore at {target} cannot be reached: {reason}")]
    Unavailable {
        /// Endpoints or file.
        target: String,
        /// What the transport said.
        reason: String,
    },
    /// No answer in time.
    #[error("the datastore at {target} did not answer {operation} within {after:?}")]
    Deadline {
        /// Endpoints or file.
        target: String,
        /// The verb, such as `commit`.
        operation: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The store knows us not, or allows us not.
    #[error("the datastore at {target} refused {operation}: {reason}")]
    Denied {
        /// Endpoints or file.
        target: String,
        /// The verb.
        operation: &'static str,
        /// What the store said.
        reason: String,
    },
    /// The revision asked for is gone; list again.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision kept, 0 when the store did not say.
        oldest: Revision,
    },
    /// A batch was sent, and neither an answer nor a read-back could be had.
    #[error("whether {operation} was applied by the datastore at {target} is unknown: {reason}")]
    Unknown {
        /// Endpoints or file.
        target: String,
        /// The verb.
        operation: &'static str,
        /// What the transport said.
        reason: String,
    },
    /// The store is full, damaged, or answered what it may not.
    #[error("the datastore at {target} failed at {operation}: {reason}")]
    Failed {
        /// Endpoints or file.
        target: String,
        /// The verb.
        operation: &'static str,
        /// What the store said.
        reason: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Deadline { .. } | Self::Unknown { .. }
        )
    }
}
