//! STATUS without flapping: what lasts a moment only is not told (S05).
//!
//! A runtime takes a node out of service as long as STATUS fails. So a failure that may pass by itself is told
//! only once nothing has succeeded for [`PATIENCE`]; one that needs somebody's hand, and any failure of a plugin
//! that was never ready, is told at once. What is remembered is the time of the last success: that of the
//! modification of an empty file in `state_dir`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use margay_cni::error::{Error, code};
use margay_cni::{NetConf, Request};
use margay_plugin::{Level, log};

use crate::hints::state_dir;

/// What STATUS answers, after `outcome` was found by the plugin of this name.
///
/// # Errors
/// The outcome's error, unless it may pass by itself and the last success is recent.
pub fn steady(plugin: &str, call: &Request, outcome: Result<(), Error>) -> Result<(), Error> {
    let file = file(plugin, &call.conf);
    match outcome {
        Ok(()) => {
            note(&file);
            Ok(())
        }
        Err(error) if may_pass(&error) && is_recent(&file, SystemTime::now()) => {
            let text = format!("not ready, for a moment perhaps: {error}");
            log(Level::Warning, &text);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn file(plugin: &str, conf: &NetConf) -> PathBuf {
    let network = conf.name().replace('/', "_");
    Path::new(state_dir(conf.raw())).join(format!("ready-{plugin}-{network}"))
}

/// Notes a success. Whatever goes wrong only makes the next failure told at once.
fn note(file: &Path) {
    if let Some(directory) = file.parent() {
        let _ = fs::create_dir_all(directory);
    }
    let opened = File::options().create(true).append(true).open(file);
    if let Ok(file) = opened {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Whether the code that an ADD would answer with, with which the details begin, is one that passes.
fn may_pass(error: &Error) -> bool {
    let told = error.details.strip_prefix("code ");
    let told = told.and_then(|details| details.split(':').next()?.parse::<u32>().ok());
    let of_add = told.filter(|_| error.code == code::NOT_AVAILABLE);
    Error::new(of_add.unwrap_or(error.code), "").is_retryable()
}

fn is_recent(file: &Path, now: SystemTime) -> bool {
    let noted = fs::metadata(file).and_then(|metadata| metadata.modified());
    // A time in the future is that of a clock that was set back.
    noted.is_ok_and(|noted| {
        let since = now.duration_since(noted);
        since.is_ok_and(|since| since < PATIENCE)
    })
}

/// How long failures that may pass are not told.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::not_available;

    #[test]
    fn only_what_may_pass_is_waited_for() {
        let of = |code| not_available(Error::new(code, "because").with_details("more"));
        for code in [code::DATASTORE_UNREACHABLE, code::DEADLINE] {
            assert!(may_pass(&of(code)), "{code}");
            assert!(may_pass(&not_available(Error::new(code, "because"))));
        }
        assert!(may_pass(&Error::new(code::DEADLINE, "the time is over")));
        for code in [code::POOL_EXHAUSTED, code::INVALID_CONFIG] {
            assert!(!may_pass(&of(code)), "{code}");
        }
    }

    #[test]
    fn a_success_counts_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some/ready");
        let now = SystemTime::now();
        assert!(!is_recent(&file, now), "never ready");
        note(&file);
        let noted = fs::metadata(&file).unwrap().modified().unwrap();
        assert!(is_recent(&file, noted + Duration::from_secs(9)));
        assert!(!is_recent(&file, noted + PATIENCE));
        assert!(!is_recent(&file, noted - Duration::from_secs(1)));
    }
}
