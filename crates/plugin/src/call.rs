//! What is known of the one call of this process, for any thread.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use margay_cni::{Command, Error, Version, code};

/// The call that this process serves.
#[derive(Debug)]
struct Call {
    plugin: String,
    command: Option<Command>,
    /// The real stdout.
    stdout: File,
    deadline: Instant,
    limit: Duration,
}

/// Begins the call: starts its clock, and takes stdout away from everybody else.
pub(crate) fn begin(plugin: &str, command: Option<Command>) -> Result<(), Error> {
    let fault = |source: io::Error| {
        Error::new(code::IO, "stdout cannot be set aside").with_details(source.to_string())
    };
    let limit = limit_from(env::var("MARGAY_DEADLINE_MS").ok().as_deref())
        .unwrap_or_else(|| limit_of(command));
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(fault)?;
    nix::unistd::dup2_stdout(io::stderr()).map_err(|errno| fault(errno.into()))?;
    let call = Call {
        plugin: plugin.to_owned(),
        command,
        stdout: stdout.into(),
        deadline: Instant::now() + limit,
        limit,
    };
    CALL.set(call)
        .map_err(|_| Error::new(code::INTERNAL, "a process serves one call only"))
}

/// When the call's time is over.
///
/// A plugin gives what it calls upon an earlier limit, so that it can still clean up and answer.
/// Outside of a call this is the limit of an ADD that begins now.
pub fn deadline() -> Instant {
    CALL.get()
        .map_or_else(|| Instant::now() + ADD_LIMIT, |call| call.deadline)
}

/// How much of the call's time is left; zero when it is over.
pub fn remaining() -> Duration {
    deadline().saturating_duration_since(Instant::now())
}

/// Notes what the call is about to wait for, as `waiting for etcd at 10.0.0.1:2379`. The error that
/// a missed deadline gives ends with it.
pub fn progress(what: impl Into<String>) {
    *PROGRESS.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// The error of a missed deadline.
pub(crate) fn deadline_error() -> Error {
    let limit = CALL.get().map_or(ADD_LIMIT, |call| call.limit).as_millis();
    let verb = CALL
        .get()
        .and_then(|call| call.command)
        .map_or("the call", Command::as_str);
    // A thread that holds the lock now must not keep the answer back.
    let progress = PROGRESS
        .try_lock()
        .map(|text| text.clone())
        .unwrap_or_default();
    let error = Error::new(
        code::DEADLINE,
        format!("{verb} is not done after {limit} ms"),
    );
    match progress.as_str() {
        "" => error,
        progress => Error {
            msg: format!("{}: {progress}", error.msg),
            ..error
        },
    }
}

/// The real stdout; `None` outside of a call.
pub(crate) fn stdout() -> Option<&'static File> {
    CALL.get().map(|call| &call.stdout)
}

/// Whether the call is a DEL.
pub(crate) fn is_del() -> bool {
    CALL.get()
        .is_some_and(|call| call.command == Some(Command::Del))
}

/// The plugin's name, the verb and the container, for log lines.
pub(crate) fn identity() -> (&'static str, &'static str, &'static str) {
    let (plugin, verb) = CALL.get().map_or(("", ""), |call| {
        (
            call.plugin.as_str(),
            call.command.map_or("", Command::as_str),
        )
    });
    (plugin, verb, CONTAINER.get().map_or("", String::as_str))
}

/// Notes the version in which the call is answered; the first word counts.
pub(crate) fn set_version(version: Version) {
    let _ = VERSION.set(version);
}

/// The version in which the call is answered.
pub(crate) fn version() -> Version {
    VERSION.get().copied().unwrap_or(Version::LATEST)
}

/// Notes the container that the call is about.
pub(crate) fn set_container(id: &str) {
    let _ = CONTAINER.set(id.to_owned());
}

/// The time for a verb. Runtimes give ADD two minutes or more and DEL one; some give STATUS none.
fn limit_of(command: Option<Command>) -> Duration {
    match command {
        Some(Command::Add) => ADD_LIMIT,
        Some(Command::Del) => Duration::from_secs(10),
        Some(Command::Check) => Duration::from_secs(5),
        Some(Command::Gc) => Duration::from_secs(25),
        Some(Command::Status | Command::Version) | None => Duration::from_secs(1),
    }
}

/// A limit in milliseconds; `None` when it is no number from 1 to an hour.
fn limit_from(text: Option<&str>) -> Option<Duration> {
    let limit = Duration::from_millis(text?.parse().ok()?);
    (limit > Duration::ZERO && limit <= LONGEST_LIMIT).then_some(limit)
}

static CALL: OnceLock<Call> = OnceLock::new();
static VERSION: OnceLock<Version> = OnceLock::new();
static CONTAINER: OnceLock<String> = OnceLock::new();
static PROGRESS: Mutex<String> = Mutex::new(String::new());

const ADD_LIMIT: Duration = Duration::from_secs(55);
const LONGEST_LIMIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_can_be_set_within_reason() {
        assert_eq!(limit_from(Some("250")), Some(Duration::from_millis(250)));
        for text in ["", "0", "-1", "1s", "99999999999", "3600001"] {
            assert_eq!(limit_from(Some(text)), None, "{text}");
        }
        assert_eq!(limit_from(None), None);
    }

    #[test]
    fn s04_status_has_one_second_and_del_ten() {
        assert_eq!(limit_of(Some(Command::Status)), Duration::from_secs(1));
        assert_eq!(limit_of(Some(Command::Del)), Duration::from_secs(10));
    }
}
