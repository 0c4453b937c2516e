//! Namespaces for tests: uniquely named, removed even when a test panics.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio, id};
use std::sync::atomic::{AtomicU32, Ordering};

use margay_netlink::Namespace;
use netns_rs::NetNs;

/// A network namespace of its own, with `lo` up.
pub(crate) struct TestNamespace {
    made: Option<NetNs>,
    path: PathBuf,
    pub(crate) namespace: Namespace,
}

/// A program that runs beside the test, until the test ends.
pub(crate) struct Program(RefCell<Child>);

impl TestNamespace {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let made = NetNs::new(format!("margay-nft-{}-{number}", id())).unwrap();
        let path = made.path().to_owned();
        let namespace = Namespace::open(&path).unwrap();
        let new = Self {
            made: Some(made),
            path,
            namespace,
        };
        new.run("ip link set lo up");
        new
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a program inside.
    pub(crate) fn spawn(&self, command: &str) -> Program {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let arguments: Vec<&str> = words.collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "an independent judge of the kernel's state"
        )]
        let start = || {
            Command::new(program)
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        Program(RefCell::new(self.namespace.run(start).unwrap()))
    }

    /// Runs a program inside; panics if it fails.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.start(command, "");
        assert!(output.status.success(), "{command}: {}", text(&output));
        text(&output)
    }

    /// Loads rules by `nft`, the independent judge.
    pub(crate) fn nft(&self, rules: &str) {
        let output = self.start("nft -f -", rules);
        assert!(output.status.success(), "{}\n{rules}", text(&output));
    }

    pub(crate) fn start(&self, command: &str, input: &str) -> Output {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let arguments: Vec<&str> = words.collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "an independent judge of the kernel's state"
        )]
        let start = || {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(input.as_bytes()).unwrap();
            drop(stdin);
            child.wait_with_output().unwrap()
        };
        self.namespace.run(start).unwrap()
    }
}

impl Program {
    pub(crate) fn has_ended(&self) -> bool {
        self.0.borrow_mut().try_wait().unwrap().is_some()
    }

    /// What it has printed, when it has ended.
    pub(crate) fn output(&self) -> String {
        let mut text = Vec::new();
        if self.has_ended() {
            let mut child = self.0.borrow_mut();
            child.stdout.take().unwrap().read_to_end(&mut text).unwrap();
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut child = self.0.borrow_mut();
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if let Some(made) = self.made.take() {
            // A namespace that stays is a nuisance, not a verdict.
            let _ = made.remove();
        }
    }
}
