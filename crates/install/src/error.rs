//! What goes wrong with the files of an installation.

use std::io;
use std::path::PathBuf;

/// Why a file is not in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The file system refused.
    #[error("{action} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder in which everybody may put files.
    #[error("{path}: everybody may write to this folder, and so replace what is put there; take the right away \
             with chmod o-w", path = path.display())]
    Open {
        /// The folder.
        path: PathBuf,
    },
    /// Something that is no file has the name of one.
    #[error("{path} is no regular file; move it away", path = path.display())]
    NotFile {
        /// The path.
        path: PathBuf,
    },
    /// A program does not do here what every CNI plugin does.
    #[error("{program} does not run on this machine: {reason}. What was installed before stays",
            program = program.display())]
    Program {
        /// The program as it was to be installed.
        program: PathBuf,
        /// What it said, or did not say.
        reason: String,
    },
    /// A configuration that no runtime could use.
    #[error("the CNI configuration {name}: {reason}")]
    Configuration {
        /// The name of its file.
        name: String,
        /// What is wrong, with the remedy.
        reason: String,
    },
    /// The record of what was installed makes no sense.
    #[error("the record {path} cannot be read: {reason}. Remove what was installed by hand, then the record",
            path = path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process keeps the files in place.
    #[error("{path}: another process keeps the installed files in place; stop margay-agent on this node first",
            path = path.display())]
    Kept {
        /// The lock that it holds.
        path: PathBuf,
    },
}

impl InstallError {
    /// Of the file system, about a file or folder.
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            action,
            path,
            source,
        }
    }

    /// Of a configuration.
    pub(crate) fn configuration(name: &str, reason: impl Into<String>) -> Self {
        Self::Configuration {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}
