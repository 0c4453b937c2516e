//! A routing daemon as a child of the agent that may outlive it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

/// Starts a daemon in a process group of its own, so that what ends the agent does not end it. What it says
/// goes where the agent's log goes.
///
/// # Errors
/// Why it cannot be started, in words.
pub(super) fn spawn(
    program: &Path,
    arguments: &[OsString],
    package: &str,
) -> Result<Child, String> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        // Times it tells are read without knowing of a time zone.
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(false);
    command.spawn().map_err(|error| {
        let program = program.display();
        format!("{program}: {error}; install {package}, or say where it is")
    })
}

/// How a child ended, if it has; one that was never started has not.
pub(super) fn ended(child: &mut Option<Child>) -> Option<String> {
    let ended = match child.as_mut()?.try_wait() {
        Ok(None) => return None,
        Ok(Some(status)) => status.to_string(),
        Err(error) => error.to_string(),
    };
    *child = None;
    Some(ended)
}

/// Writes a file that nobody else may read, whole or not at all.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(content)?;
    std::fs::rename(&fresh, path)
}
