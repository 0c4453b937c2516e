//! The part of calling another plugin that needs no process: where it may be, what it is given,
//! what its answer means.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::{Deserializer, Value};

use crate::error::{Error, code, presentable, quoted};
use crate::request::Command;
use crate::result::ResultDoc;
use crate::version::Version;

/// How a delegate ended and what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
    /// How it ended, for people, as `exit status: 1`.
    pub status: String,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// The beginning of what it wrote to stderr.
    pub stderr: Vec<u8>,
}

/// Checks that a plugin's `type` names a file and not a path (L01).
///
/// # Errors
/// Code 7.
pub fn check_type(plugin: &str) -> Result<(), Error> {
    if plugin.is_empty() || matches!(plugin, "." | "..") || plugin.contains(['/', '\0']) {
        return Err(Error::new(
            code::INVALID_CONFIG,
            format!(
                "type {} is no name of a plugin; give a file name without '/'",
                quoted(plugin)
            ),
        ));
    }
    Ok(())
}

/// The program for `plugin`: the first entry of `path` in which `is_program` holds.
///
/// # Errors
/// Code 7 when the name is none or no directory has it.
pub fn find(
    plugin: &str,
    path: &[PathBuf],
    is_program: impl Fn(&Path) -> bool,
) -> Result<PathBuf, Error> {
    check_type(plugin)?;
    path.iter()
        .map(|directory| directory.join(plugin))
        .find(|file| is_program(file))
        .ok_or_else(|| {
            let directories: Vec<_> = path.iter().map(|dir| dir.to_string_lossy()).collect();
            Error::new(
                code::INVALID_CONFIG,
                format!(
                    "plugin {} is in no directory of CNI_PATH; install it",
                    quoted(plugin)
                ),
            )
            .with_details(format!("CNI_PATH is {:?}", directories.join(":")))
        })
}

/// The environment of a delegate: our own with another `CNI_COMMAND`, and with other `CNI_ARGS`
/// when `args` is given (L02).
pub fn environment(
    own: impl IntoIterator<Item = (OsString, OsString)>,
    command: Command,
    args: Option<&str>,
) -> Vec<(OsString, OsString)> {
    let replaced = |name: &OsStr| name == "CNI_COMMAND" || (args.is_some() && name == "CNI_ARGS");
    let mut environment: Vec<_> = own
        .into_iter()
        .filter(|(name, _)| !replaced(name))
        .collect();
    environment.push(("CNI_COMMAND".into(), command.as_str().into()));
    environment.extend(args.map(|args| ("CNI_ARGS".into(), args.into())));
    environment
}

/// What a delegate's answer means. The result is empty for verbs other than ADD.
///
/// `version` is that of the configuration; a result that declares none has it (L06).
///
/// # Errors
/// The delegate's own error with its code; code 999 when it failed without saying why, 6 when its
/// answer cannot be read.
pub fn interpret(
    plugin: &str,
    command: Command,
    output: &Output,
    version: Version,
) -> Result<ResultDoc, Error> {
    let documents = documents(&output.stdout);
    // A plugin that fails late may have written a result before its error.
    let error = documents.iter().flatten().rev().find_map(Error::decode);
    if !output.success {
        return Err(match error {
            Some(error) => Error {
                msg: format!("{plugin}: {}", error.msg),
                ..error
            },
            None => silent_failure(plugin, command, output),
        });
    }
    if command != Command::Add {
        return Ok(ResultDoc::default());
    }
    let unreadable = |fault: &str| {
        Error::new(code::DECODE, format!("{plugin}: {fault}"))
            .with_details(format!("stdout was {}", shown(&output.stdout)))
    };
    match documents.as_deref() {
        None => Err(unreadable("the answer to ADD is no valid JSON")),
        Some([]) => Err(unreadable("the answer to ADD is empty")),
        Some([document]) => match error {
            Some(error) => Err(Error {
                msg: format!("{plugin}: {}", error.msg),
                ..error
            }),
            None => ResultDoc::decode(document, Some(version)).map_err(|error| Error {
                msg: format!("{plugin}: {}", error.msg),
                ..error
            }),
        },
        Some(_) => Err(unreadable(
            "the answer to ADD is more than one JSON document",
        )),
    }
}

/// Refuses the result of an IPAM plugin that assigned nothing.
///
/// # Errors
/// Code 6.
pub fn require_addresses(plugin: &str, result: ResultDoc) -> Result<ResultDoc, Error> {
    if result.ips.is_empty() {
        return Err(Error::new(
            code::DECODE,
            format!("{plugin}: the result has no addresses"),
        ));
    }
    Ok(result)
}

fn silent_failure(plugin: &str, command: Command, output: &Output) -> Error {
    let said = if output.stdout.iter().all(u8::is_ascii_whitespace) {
        &output.stderr
    } else {
        &output.stdout
    };
    Error::new(
        code::INTERNAL,
        format!(
            "{plugin}: {command} ended with {} and no error object",
            output.status
        ),
    )
    .with_details(shown(said))
}

/// All JSON documents in `stdout`; `None` when something in it is no JSON.
fn documents(stdout: &[u8]) -> Option<Vec<Value>> {
    Deserializer::from_slice(stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .ok()
}

fn shown(bytes: &[u8]) -> String {
    presentable(String::from_utf8_lossy(bytes).trim(), MAX_SHOWN)
}

/// Most bytes of a delegate's words in the details.
const MAX_SHOWN: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn output(success: bool, stdout: &str) -> Output {
        Output {
            success,
            status: "exit status: 1".into(),
            stdout: stdout.into(),
            stderr: b"panic: x\n".to_vec(),
        }
    }

    fn answer(command: Command, success: bool, stdout: &str) -> Result<ResultDoc, Error> {
        interpret("ipam", command, &output(success, stdout), Version::V1_0_0)
    }

    #[test]
    fn l01_type_must_be_a_file_name() {
        for bad in ["", ".", "..", "../x", "/bin/sh", "a/b", "a\0"] {
            let error = find(bad, &["/bin".into()], |_| true).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{bad}");
        }
    }

    #[test]
    fn l01_first_directory_with_the_program_wins() {
        let path: Vec<PathBuf> = ["/a", "/b", "/c"].map(PathBuf::from).into();
        let found = find("x", &path, |file| !file.starts_with("/a")).unwrap();
        assert_eq!(found, Path::new("/b/x"));
        let error = find("x", &path, |_| false).unwrap_err();
        assert!(error.msg.contains("\"x\"") && error.details.contains("/a:/b:/c"));
    }

    #[test]
    fn l02_only_the_command_changes() {
        let own = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_ARGS", "a=b"),
            ("TRACEPARENT", "t"),
        ];
        let own = own.map(|(k, v)| (OsString::from(k), OsString::from(v)));
        let mut expected = own.to_vec();
        expected.rotate_left(1);
        expected[2].1 = "DEL".into();
        assert_eq!(environment(own.clone(), Command::Del, None), expected);
        let with_args = environment(own, Command::Add, Some("IP=10.0.0.5"));
        assert!(with_args.contains(&("CNI_ARGS".into(), "IP=10.0.0.5".into())));
        assert_eq!(with_args.len(), 3);
    }

    #[test]
    fn l03_error_object_keeps_its_code() {
        let stdout = r#"{"cniVersion":"1.0.0","code":11,"msg":"busy","details":"d"}"#;
        let error = answer(Command::Add, false, stdout).unwrap_err();
        assert_eq!(error, Error::new(11, "ipam: busy").with_details("d"));
        let late = format!("{{\"ips\":[]}}\n{stdout}");
        assert_eq!(answer(Command::Add, false, &late).unwrap_err().code, 11);
    }

    #[test]
    fn l03_failure_without_object_shows_what_was_said() {
        let error = answer(Command::Del, false, "").unwrap_err();
        assert_eq!(
            (error.code, error.details.as_str()),
            (code::INTERNAL, "panic: x")
        );
        let error = answer(Command::Del, false, "no json").unwrap_err();
        assert_eq!(
            (error.code, error.details.as_str()),
            (code::INTERNAL, "no json")
        );
    }

    #[test]
    fn l06_result_without_version_has_the_configurations() {
        let result = answer(Command::Add, true, r#"{"ips":[{"address":"10.0.0.5/24"}]}"#).unwrap();
        assert_eq!(result.ips.len(), 1);
        let old = r#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/24"}}"#;
        assert_eq!(answer(Command::Add, true, old).unwrap().ips.len(), 1);
    }

    #[test]
    fn l06_null_result_has_no_addresses() {
        let result = answer(Command::Add, true, "null").unwrap();
        assert_eq!(
            require_addresses("ipam", result).unwrap_err().code,
            code::DECODE
        );
    }

    #[test]
    fn p10_success_of_add_is_exactly_one_result() {
        for stdout in ["", "{} {}", "{} x", r#"{"code":7,"msg":"x"}"#, "[]"] {
            assert!(answer(Command::Add, true, stdout).is_err(), "{stdout}");
        }
        assert!(answer(Command::Del, true, "anything").is_ok());
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(
            success: bool,
            stdout in prop::collection::vec(any::<u8>(), 0..200),
            stderr in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let output = Output { success, status: String::new(), stdout, stderr };
            let outcome = interpret("x", Command::Add, &output, Version::LATEST);
            prop_assert!(success || outcome.is_err());
        }
    }
}
