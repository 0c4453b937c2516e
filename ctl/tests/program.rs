//! The program itself, on a datastore in a file.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::io::Write;
use std::path::{Path, PathBuf};

#[expect(clippy::disallowed_methods, reason = "the program is what is tested")]
fn margayctl(folder: &Path, arguments: &[&str], input: &str) -> (bool, String, String) {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_margayctl"))
        .args(arguments)
        .env_clear()
        .env("DATASTORE_TYPE", "sqlite")
        .env("MARGAY_STORE_PATH", folder.join("store.db"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_day_with_the_program() {
    let name = format!("margayctl-program-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).unwrap();
    let document = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: a\nspec:\n  cidr: 10.9.0.0/16\n";
    let run = |arguments: &[&str], input: &str| margayctl(&folder.0, arguments, input);
    let (ok, out, err) = run(&["create", "-f", "-"], document);
    assert!(ok, "{err}");
    assert_eq!(out, "Successfully created 1 'IPPool' resource(s)\n");
    let (ok, out, _) = run(&["get", "pools", "-o", "name"], "");
    assert_eq!((ok, out.as_str()), (true, "ippool/a\n"));
    let (ok, out, err) = run(&["create", "-f", "-"], document);
    assert_eq!((ok, out.as_str()), (false, ""));
    assert!(err.contains("resource already exists: IPPool(a)"), "{err}");
    let (ok, out, err) = run(&["delete", "pool", "a"], "");
    assert!(ok, "{err}");
    assert_eq!(out, "Successfully deleted 1 'IPPool' resource(s)\n");
    let (ok, _, err) = run(&["get", "ippol"], "");
    assert!(!ok);
    assert!(err.contains("is no kind of resource"), "{err}");
    let (ok, out, _) = run(&["--help"], "");
    assert!(ok && out.contains("Usage: margayctl"), "{out}");
}
