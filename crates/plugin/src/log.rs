//! Log lines on stderr.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use margay_cni::NetConf;
use margay_cni::error::presentable;

use crate::answer::wait_writable;
use crate::call;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For finding faults.
    Debug,
    /// What happened.
    Info,
    /// What an operator should look at.
    Warning,
    /// What went wrong.
    Error,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    /// The level of a configuration's `log_level`, in any case; unknown ones mean info.
    fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "debug" | "trace" => Self::Debug,
            "warning" | "warn" => Self::Warning,
            "error" | "fatal" | "panic" => Self::Error,
            _ => Self::Info,
        }
    }
}

/// Writes one line to stderr, if the configuration's `log_level` admits it.
///
/// Control characters are escaped and long messages cut. A stderr that takes nothing loses the
/// line; a log must not hold up a pod.
pub fn log(level: Level, msg: &str) {
    if (level as u8) < LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let (plugin, verb, container) = call::identity();
    to_stderr(&line(level, plugin, verb, container, msg));
}

/// Writes text as it is to stderr.
pub(crate) fn to_stderr(text: &str) {
    forward(text.as_bytes());
}

/// Writes bytes as they are to stderr, or loses them.
pub(crate) fn forward(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    for piece in bytes.chunks(MAX_PIECE) {
        if wait_writable(io::stderr(), Instant::now() + PATIENCE).is_err()
            || stderr.write_all(piece).is_err()
        {
            return;
        }
    }
}

/// Takes the level from `log_level` in the configuration.
pub(crate) fn set_level_from(conf: &NetConf) {
    if let Some(text) = conf.raw().get("log_level").and_then(|level| level.as_str()) {
        LEVEL.store(Level::parse(text) as u8, Ordering::Relaxed);
    }
}

fn line(level: Level, plugin: &str, verb: &str, container: &str, msg: &str) -> String {
    let mut line = format!("level={}", level.as_str());
    for (key, value) in [
        ("plugin", plugin),
        ("command", verb),
        ("container", container),
    ] {
        if !value.is_empty() {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    let msg = presentable(msg, MAX_LINE).replace('"', "'");
    line.push_str(&format!(" msg=\"{msg}\"\n"));
    line
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// How long a full stderr is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longest message, in bytes.
const MAX_LINE: usize = 2048;
/// Most bytes that a pipe takes in one piece once it is writable.
const MAX_PIECE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_a_message_is_one_line() {
        assert_eq!(
            line(Level::Warning, "margay", "ADD", "c1", "a \"b\"\nc"),
            "level=warning plugin=margay command=ADD container=c1 msg=\"a 'b'\\nc\"\n"
        );
        assert_eq!(line(Level::Info, "", "", "", "x"), "level=info msg=\"x\"\n");
    }

    #[test]
    fn unknown_levels_mean_info() {
        assert_eq!(Level::parse("DEBUG"), Level::Debug);
        assert_eq!(Level::parse("warn"), Level::Warning);
        assert_eq!(Level::parse("loud"), Level::Info);
    }
}
