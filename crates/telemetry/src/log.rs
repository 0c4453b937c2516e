//! Logging to standard error, as text or as JSON, at a severity that can change while running.

use std::fmt;
use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::Error;

/// The least grave message that is still written.
///
/// The words are those of `logSeverityScreen` in a FelixConfiguration or BGPConfiguration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Every step.
    Trace,
    /// What a developer needs.
    Debug,
    /// What changed and why.
    #[default]
    Info,
    /// What an operator should look at.
    Warning,
    /// What did not succeed.
    Error,
    /// What ends the process. Errors are shown too: the process writes nothing graver.
    Fatal,
}

impl Severity {
    /// Reads a severity word in any case; `None` when the word is unknown.
    pub fn from_word(word: &str) -> Option<Self> {
        let known = WORDS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(word.trim()));
        known.map(|(_, severity)| *severity)
    }

    /// Our own targets at this severity; other crates' at it too, but never below `Info`.
    fn targets(self) -> Targets {
        let own = LevelFilter::from(self);
        Targets::new()
            .with_default(own.min(LevelFilter::INFO))
            .with_target(OWN_TARGETS, own)
    }
}

impl From<Severity> for LevelFilter {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Trace => Self::TRACE,
            Severity::Debug => Self::DEBUG,
            Severity::Info => Self::INFO,
            Severity::Warning => Self::WARN,
            Severity::Error | Severity::Fatal => Self::ERROR,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One line for people: time, severity, target, message, `key=value` fields.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The running log of this process.
#[derive(Clone, Debug)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts logging to standard error; every `tracing` message of the process goes there.
    ///
    /// `word` is a severity such as `Info` or `debug`. An unknown word means `Info`, and says so.
    ///
    /// # Errors
    /// [`Error::LogStarted`] when the process has a logger already.
    pub fn start(word: &str, format: Format) -> Result<Self, Error> {
        let (filter, handle) = reload::Layer::new(Severity::default().targets());
        tracing_subscriber::registry()
            .with(filter)
            .with(writer(format, io::stderr().is_terminal(), io::stderr))
            .try_init()
            .map_err(|_| Error::LogStarted)?;
        let log = Self { filter: handle };
        log.set_severity(word);
        Ok(log)
    }

    /// Changes the severity from now on; an unknown word means `Info`, and says so.
    pub fn set_severity(&self, word: &str) {
        let severity = Severity::from_word(word);
        // The handle outlives the subscriber only while the process ends; nothing is lost then.
        let _ = self.filter.reload(severity.unwrap_or_default().targets());
        if severity.is_none() {
            warn!(
                severity = word,
                "unknown log severity, using Info; known: Trace, Debug, Info, Warning, Error, Fatal"
            );
        }
    }
}

/// The layer that writes messages in `format` to `to`.
fn writer<S, W>(format: Format, colour: bool, to: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(to);
    match format {
        Format::Text => layer.with_ansi(colour).boxed(),
        Format::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// All our crates' and programs' targets start so.
const OWN_TARGETS: &str = "margay";

const WORDS: [(&str, Severity); 8] = [
    ("Trace", Severity::Trace),
    ("Debug", Severity::Debug),
    ("Info", Severity::Info),
    ("Warning", Severity::Warning),
    ("Warn", Severity::Warning),
    ("Error", Severity::Error),
    ("Fatal", Severity::Fatal),
    ("Critical", Severity::Fatal),
];

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Runs `act` under a log that writes on the returned paper.
    fn logged(word: &str, format: Format, act: impl FnOnce(&Log)) -> String {
        let paper = Paper::default();
        let to = paper.clone();
        let (filter, handle) = reload::Layer::new(Severity::default().targets());
        let subscriber =
            tracing_subscriber::registry()
                .with(filter)
                .with(writer(format, false, move || to.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let log = Log { filter: handle };
            log.set_severity(word);
            act(&log);
        });
        paper.text()
    }

    #[test]
    fn severity_words_are_read_in_any_case() {
        for (word, severity) in [
            ("DEBUG", Severity::Debug),
            ("info", Severity::Info),
            (" Warning ", Severity::Warning),
            ("warn", Severity::Warning),
            ("ERROR", Severity::Error),
            ("fatal", Severity::Fatal),
            ("Critical", Severity::Fatal),
            ("trace", Severity::Trace),
        ] {
            assert_eq!(Severity::from_word(word), Some(severity), "{word}");
        }
        for word in ["", "loud", "infos"] {
            assert_eq!(Severity::from_word(word), None, "{word}");
        }
    }

    #[test]
    fn an_unknown_word_means_info_and_warns_with_the_word() {
        let text = logged("loud", Format::Text, |_| {
            info!("kept");
            debug!("dropped");
        });
        assert!(text.contains("WARN") && text.contains("loud"), "{text}");
        assert!(text.contains("kept") && !text.contains("dropped"), "{text}");
    }

    #[test]
    fn a_severity_hides_what_is_less_grave() {
        let text = logged("Error", Format::Text, |_| {
            info!("dropped");
            error!(pool = "10.0.0.0/8", "kept");
        });
        assert!(!text.contains("dropped"), "{text}");
        assert!(
            text.contains("kept") && text.contains("10.0.0.0/8"),
            "{text}"
        );
    }

    #[test]
    fn the_severity_can_change_while_running() {
        let text = logged("Info", Format::Text, |log| {
            debug!("before");
            log.set_severity("Debug");
            debug!("after");
        });
        assert!(!text.contains("before") && text.contains("after"), "{text}");
    }

    #[test]
    fn debug_does_not_open_other_crates() {
        let text = logged("Debug", Format::Text, |_| {
            debug!(target: "h2::codec", "noise");
            info!(target: "h2::codec", "news");
        });
        assert!(!text.contains("noise") && text.contains("news"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line_with_flat_fields() {
        let text = logged("Info", Format::Json, |_| {
            info!(node = "n1", "ready");
            info!("again");
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["message"], "ready");
        assert_eq!(lines[0]["node"], "n1");
        assert_eq!(lines[0]["level"], "INFO");
    }
}
