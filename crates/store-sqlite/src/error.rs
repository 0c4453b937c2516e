//! From SQLite's errors to the store's, with the file and the remedy.

use std::path::Path;
use std::time::Duration;

use margay_store::StoreError;
use rusqlite::ErrorCode;

/// What went wrong inside a call, before the file's name is added.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The library's error.
    Sqlite(rusqlite::Error),
    /// The error as callers see it.
    Store(StoreError),
    /// The call's time is over; nothing was applied.
    Late,
    /// A directory or file could not be made.
    Io(&'static str, std::io::Error),
    /// The file is not what it must be.
    Foreign(String),
    /// A call that is improper in itself.
    Refused(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Fault {
    /// The store's error, of a call named `operation` that may take `deadline`.
    pub(crate) fn into_error(
        self,
        path: &Path,
        operation: &'static str,
        deadline: Duration,
    ) -> StoreError {
        let target = path.display().to_string();
        let late = |target| StoreError::Deadline {
            target,
            operation,
            after: deadline,
        };
        match self {
            Self::Store(error) => error,
            Self::Late => late(target),
            Self::Foreign(reason) | Self::Refused(reason) => StoreError::Failed {
                target,
                operation,
                reason,
            },
            Self::Io(what, error) => io_error(target, operation, what, &error),
            Self::Sqlite(error) => {
                let code = error.sqlite_error_code();
                let remedy = match code {
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                        return late(target);
                    }
                    Some(ErrorCode::CannotOpen) => {
                        return StoreError::Unavailable {
                            target,
                            reason: error.to_string(),
                        };
                    }
                    Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                        return StoreError::Denied {
                            target,
                            operation,
                            reason: format!(
                                "{error}; run as the owner of the file and its directory, or remount \
                                 the file system writable"
                            ),
                        };
                    }
                    Some(ErrorCode::DiskFull) => "free space on its file system",
                    Some(ErrorCode::NotADatabase) => {
                        "it is no SQLite file; move it away, or set another store_path"
                    }
                    Some(ErrorCode::DatabaseCorrupt) => {
                        "stop the programs that use it and restore it from a backup, or move it away \
                         with its -wal and -shm files to begin anew"
                    }
                    Some(ErrorCode::SystemIoFailure) => "check its disk and the kernel's log",
                    _ => "no remedy is known",
                };
                StoreError::Failed {
                    target,
                    operation,
                    reason: format!("{error}; {remedy}"),
                }
            }
        }
    }
}

fn io_error(
    target: String,
    operation: &'static str,
    what: &'static str,
    error: &std::io::Error,
) -> StoreError {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        PermissionDenied | ReadOnlyFilesystem => StoreError::Denied {
            target,
            operation,
            reason: format!(
                "{what}: {error}; run as root, or set store_path to a place that can be written"
            ),
        },
        StorageFull => StoreError::Failed {
            target,
            operation,
            reason: format!("{what}: {error}; free space on its file system"),
        },
        _ => StoreError::Unavailable {
            target,
            reason: format!("{what}: {error}"),
        },
    }
}
