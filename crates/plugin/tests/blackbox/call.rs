//! One call of the probe, and what came of it.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{self, Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Deserializer, Value};

/// A call to make, with a directory of its own that serves as `CNI_PATH` too.
pub(crate) struct Call {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stdin: String,
    directory: PathBuf,
    probe: PathBuf,
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Call {
    /// A valid call of `verb`.
    pub(crate) fn new(verb: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("margay-plugin-{}-{count}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.to_str().unwrap().to_owned();
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_NETNS", "/nonexistent/netns"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", &path),
        ];
        let env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let mut call = Self {
            env,
            stdin: String::new(),
            directory,
            probe: probe(),
        };
        call.stdin = call.conf("ok");
        call
    }

    /// The same call, with the probe told to behave so.
    pub(crate) fn told(mut self, behaviour: &str) -> Self {
        self.stdin = self.conf(behaviour);
        self
    }

    /// The same call of another build of the probe.
    pub(crate) fn of(mut self, probe: PathBuf) -> Self {
        self.probe = probe;
        self
    }

    /// A configuration that makes the probe behave so.
    pub(crate) fn conf(&self, behaviour: &str) -> String {
        serde_json::json!({
            "cniVersion": "1.1.0", "name": "n", "type": "probe", "probe": behaviour,
            "marks": self.marks(), "ipam": {"type": "stub"},
        })
        .to_string()
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// The directory in which the probe leaves its marks.
    pub(crate) fn marks(&self) -> String {
        self.directory.to_str().unwrap().to_owned()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn has_mark(&self, name: &str) -> bool {
        self.file(name).exists()
    }

    /// Installs a shell script as a plugin.
    pub(crate) fn install(&self, name: &str, script: &str) {
        let file = self.file(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn run(&self) -> Ended {
        let (child, stdin) = self.spawn(Stdio::piped(), Stdio::piped());
        self.feed(stdin);
        child.wait_with_output().unwrap().into()
    }

    /// Runs with stdin that is never written nor closed; returns it to keep it so.
    pub(crate) fn run_with_open_stdin(&self) -> (Ended, ChildStdin) {
        let (child, stdin) = self.spawn(Stdio::piped(), Stdio::piped());
        (child.wait_with_output().unwrap().into(), stdin)
    }

    /// Runs with this stdout.
    pub(crate) fn run_into(&self, stdout: Stdio) -> Ended {
        let (child, stdin) = self.spawn(stdout, Stdio::piped());
        self.feed(stdin);
        child.wait_with_output().unwrap().into()
    }

    /// Runs without looking at stderr.
    pub(crate) fn run_with_stderr_dropped(&self) -> Ended {
        let (child, stdin) = self.spawn(Stdio::piped(), Stdio::null());
        self.feed(stdin);
        child.wait_with_output().unwrap().into()
    }

    fn spawn(&self, stdout: Stdio, stderr: Stdio) -> (Child, ChildStdin) {
        let mut child = Command::new(&self.probe)
            .env_clear()
            .envs(
                self.env
                    .iter()
                    .filter(|(_, value)| !value.is_empty())
                    .cloned(),
            )
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    fn feed(&self, mut stdin: ChildStdin) {
        // A call that is refused early ends without reading.
        let _ = stdin.write_all(self.stdin.as_bytes());
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Ended {
    /// The one document on stdout.
    pub(crate) fn document(&self) -> Value {
        let mut documents = documents(&self.stdout);
        assert_eq!(
            documents.len(),
            1,
            "stdout {:?}, stderr {:?}",
            self.stdout,
            self.stderr
        );
        documents.remove(0)
    }

    /// The code of the error object, after a failure.
    pub(crate) fn error_code(&self) -> u64 {
        assert_eq!(
            self.code,
            Some(1),
            "stdout {:?}, stderr {:?}",
            self.stdout,
            self.stderr
        );
        let document = self.document();
        assert!(document["cniVersion"].is_string(), "{document}");
        document["code"].as_u64().unwrap()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// All JSON documents in a text that holds nothing else.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// The example program as the plugins are built for users: a panic aborts.
pub(crate) fn aborting_probe() -> PathBuf {
    // Beside the target folder of the tests, so that neither build waits for the other.
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("abort");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--profile", "abort"])
        .args(["--package", env!("CARGO_PKG_NAME"), "--example", "probe"])
        .arg("--target-dir")
        .arg(&folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.unwrap().success());
    folder.join("abort/examples/probe")
}

/// The example program, which Cargo builds beside the tests unless only one target was asked for.
fn probe() -> PathBuf {
    let tests = env::current_exe().unwrap();
    let probe = tests
        .parent()
        .and_then(|deps| deps.parent())
        .unwrap()
        .join("examples/probe");
    assert!(
        probe.exists(),
        "build it with cargo build -p margay-plugin --example probe"
    );
    probe
}
