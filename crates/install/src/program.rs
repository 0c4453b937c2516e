//! Whether a program is a CNI plugin that runs on this machine.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::Value;

use crate::error::InstallError;

/// Asks a program for the versions that it supports, as a runtime does.
///
/// # Errors
/// It cannot be started, does not answer in time, or answers something else.
pub(crate) fn check(program: &Path) -> Result<(), InstallError> {
    ask(program).map_err(|reason| InstallError::Program {
        program: program.to_owned(),
        reason,
    })
}

fn ask(program: &Path) -> Result<(), String> {
    let mut child = start(program).map_err(|error| error.to_string())?;
    let asked = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(QUESTION));
    // One that does not read its input says the more on its output.
    drop(asked);
    let until = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => sleep(TICK),
            ended => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(match ended {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("it did not answer VERSION within {LIMIT:?}"),
                });
            }
        }
    };
    let mut answer = String::new();
    let read = child
        .stdout
        .take()
        .map(|out| out.take(MOST).read_to_string(&mut answer));
    let supported = serde_json::from_str::<Value>(&answer)
        .ok()
        .is_some_and(|answer| answer["supportedVersions"].is_array());
    match read {
        Some(Ok(_)) if status.success() && supported => Ok(()),
        _ => Err(format!("it answered VERSION with {status} and {answer:?}")),
    }
}

/// Starts it. Another thread that starts a program just now may hold the file open for writing for a moment.
fn start(program: &Path) -> io::Result<Child> {
    #[allow(
        clippy::disallowed_methods,
        reason = "whether a program runs is known by running it"
    )]
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut attempts = 0;
    loop {
        match command.spawn() {
            Err(error)
                if error.raw_os_error() == Some(Errno::ETXTBSY as i32) && attempts < ATTEMPTS =>
            {
                attempts += 1;
                sleep(TICK);
            }
            started => return started,
        }
    }
}

const QUESTION: &[u8] = br#"{"cniVersion":"1.0.0"}"#;
const LIMIT: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(5);
const ATTEMPTS: u32 = 200;
/// Bytes of an answer that are read.
const MOST: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn told(script: &str) -> Result<(), String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("plugin");
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        check(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plugin_tells_its_versions() {
        let good = "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && read -r q; echo '{\"supportedVersions\":[\"1.0.0\"]}'";
        told(good).unwrap();
    }

    #[test]
    fn everything_else_is_refused_with_what_it_said() {
        for (script, word) in [
            ("#!/bin/sh\necho hello", "hello"),
            (
                "#!/bin/sh\necho '{\"supportedVersions\":[]}'; exit 3",
                "exit status: 3",
            ),
            ("#!/nowhere/interpreter\n", "No such file"),
            ("\x7fELF no program", "format error"),
        ] {
            let error = told(script).unwrap_err();
            assert!(error.contains(word), "{error}");
            assert!(error.contains("stays"), "{error}");
        }
    }
}
