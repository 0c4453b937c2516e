//! A routing daemon as a child of the agent that may outlive it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Interval, MissedTickBehavior, interval};

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

/// Makes the daemon's directory, which is for root alone: its files hold passwords.
///
/// # Errors
/// Why it cannot be made, in words.
pub(super) fn private(directory: &Path) -> Result<(), String> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))
}

/// When the daemon is looked at: once a second, and not faster where a look took long.
pub(super) fn looks() -> Interval {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks
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

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
