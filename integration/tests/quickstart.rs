//! The quickstart, as a newcomer runs it, on both stores.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

use std::path::Path;
use std::process::Command;

use margay_integration::process::bin_dir;
use margay_integration::run;

fn quickstart(store: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let before = machine();
    let mut command = Command::new(root.join("scripts/quickstart"));
    command
        .args(["--store", store])
        .env("MARGAY_BIN_DIR", bin_dir());
    let output = run(command.current_dir(&root), b"");
    let said = format!("{}\n{}", output.stdout, output.stderr);
    assert_eq!(output.code, 0, "{said}");
    for expected in [
        "192.168.0.0/16",
        "/26 via 172.31.",
        "dev cali",
        "all 12 pairs reach each other",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    assert_eq!(machine(), before, "the machine is not as it was");
}

/// What the quickstart must leave alone.
fn machine() -> Vec<String> {
    [
        "ip -br link",
        "ip route",
        "ip -6 route",
        "ip rule",
        "nft list tables",
    ]
    .map(|line| margay_integration::process::words(line).stdout)
    .to_vec()
}

#[test]
fn on_the_embedded_store() {
    quickstart("embedded");
}

#[test]
fn on_etcd() {
    quickstart("etcd");
}
