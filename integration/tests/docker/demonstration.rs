//! The demonstrations, as a newcomer runs them.

use std::path::Path;
use std::process::Command;

use margay_integration::process::{bin_dir, run, words};

use crate::machines::docker_runs;

fn demonstrate(script: &str, arguments: &[&str]) -> Option<String> {
    if !docker_runs() {
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let before = machine();
    let mut command = Command::new(root.join("scripts").join(script));
    command.args(arguments).env("MARGAY_BIN_DIR", bin_dir());
    let output = run(command.current_dir(&root), b"");
    let said = format!("{}\n{}", output.stdout, output.stderr);
    if output.code == 77 {
        eprintln!("skipped: {said}");
        return None;
    }
    assert_eq!(output.code, 0, "{said}");
    assert_eq!(machine(), before, "the machine is not as it was");
    Some(said)
}

/// What a demonstration must leave alone.
fn machine() -> Vec<String> {
    [
        "ip -br link",
        "ip route",
        "ip -6 route",
        "ip rule",
        "nft list tables",
    ]
    .map(|line| words(line).stdout)
    .to_vec()
}

#[test]
fn one_network_of_two_hosts() {
    let Some(said) = demonstrate("demo-docker", &["--scope", "global"]) else {
        return;
    };
    for expected in [
        "default-ipv4-ippool",
        "net1      margay    global",
        "PING workload-b (192.168.",
        "default via 169.254.",
        "nothing comes through",
        "Verdict: Deny",
        "nothing is left",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing:\n{said}");
    }
    assert_eq!(said.matches(" 0% packet loss").count(), 4, "{said}");
}

#[test]
fn a_network_on_each_of_two_hosts() {
    let Some(said) = demonstrate("demo-docker", &["--scope", "local"]) else {
        return;
    };
    assert!(said.contains("net1      margay    local"), "{said}");
    assert_eq!(said.matches(" 0% packet loss").count(), 3, "{said}");
}

#[test]
fn macvlan_costs_the_fabric_a_mac_address_a_container_and_margay_none() {
    let output = tempfile::tempdir().unwrap();
    let folder = output.path().to_str().unwrap();
    let arguments = ["--containers", "0 2", "--output", folder];
    if demonstrate("demo-macvlan", &arguments).is_none() {
        return;
    }
    let table = std::fs::read_to_string(output.path().join("table.md")).unwrap();
    let row = table.lines().last().unwrap();
    let cells: Vec<u32> = row
        .split('|')
        .filter_map(|cell| cell.trim().parse().ok())
        .collect();
    let [
        count,
        macs,
        our_macs,
        arps,
        our_arps,
        neighbours,
        our_neighbours,
    ] = cells[..]
    else {
        panic!("{table}");
    };
    assert_eq!((count, macs, our_macs), (2, 6, 2), "{table}");
    assert!(arps > our_arps && neighbours > our_neighbours, "{table}");
    let plot = std::fs::read_to_string(output.path().join("plot.svg")).unwrap();
    assert!(plot.starts_with("<svg") && plot.contains("polyline"));
    assert!(output.path().join("margay-2.pcap").exists());
}
