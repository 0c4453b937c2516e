//! What killed plugins and lost DELs leave is given back by the agent, and nothing else is (R2, R3, R9).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{bin_dir, eventually, program};
use margay_integration::{Agent, Etcd, Lab, Node, Plugin, Pod, StoreKind, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const GRACE: (&str, &str) = ("MARGAY_CLEANUP_GRACE", "1");
const PATIENCE: Duration = Duration::from_secs(30);

fn sqlite(lab: &Lab) -> StoreKind {
    StoreKind::Sqlite(lab.dir().join("store.db"))
}

fn endpoints(node: Node<'_>, store: &StoreKind) -> Vec<String> {
    let arguments = ["get", "wep", "-A", "-o", "name"];
    let told = store.ctl(Some(&node.namespace()), &arguments, "").ok();
    told.lines().map(str::to_owned).collect()
}

/// Nothing is assigned, nothing used, and nothing inconsistent.
fn is_clean(node: Node<'_>, store: &StoreKind) -> bool {
    let inside = node.namespace();
    let checked = store.ctl(Some(&inside), &["ipam", "check"], "").stdout;
    ["found no problems", "0 handles", "Found 0 allocated"]
        .iter()
        .all(|words| checked.contains(words))
        && endpoints(node, store).is_empty()
}

/// An ADD that is killed as it enters its `when`th call of `call`; whether it got that far.
fn killed_add(plugin: &Plugin<'_>, container: &str, pod: &Pod, call: &str, when: usize) -> bool {
    let mut command = plugin.node.command("strace");
    command
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=SIGKILL:when={when}"))
        .arg(bin_dir().join(plugin.program))
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", pod.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", bin_dir());
    let conf = Value::Object(plugin.conf.clone()).to_string();
    !run(&mut command, conf.as_bytes()).success()
}

/// ADD is killed at each of its calls of one kind, and nobody sends a DEL; the containers vanish.
fn an_add_killed_anywhere_leaves_nothing(lab: &Lab, store: &StoreKind, calls: &[&str]) {
    let node = lab.node(1);
    let agent = Agent::start(node, store, &[GRACE]);
    let plugin = Plugin::new(node, store);
    let (mut kills, mut left) = (0, 0);
    for call in calls {
        for when in 1..40 {
            let (id, pod) = (format!("{call}{when}"), lab.pod());
            let killed = killed_add(&plugin, &id, &pod, call, when);
            pod.delete();
            if !killed {
                break;
            }
            kills += 1;
            let recorded = endpoints(node, store);
            left += usize::from(recorded.iter().any(|name| name.contains(&id)));
        }
    }
    assert!(kills >= 10, "only {kills} points were found to kill at");
    assert!(left > 0, "no kill left anything");
    let mut confirmed = 0;
    eventually("all is given back", PATIENCE, || {
        // All containers of the node are dead, and that is held until somebody says that it is so.
        if agent.process.log().matches("suspiciously many").count() > confirmed {
            agent.process.signal(Signal::SIGUSR1);
            confirmed += 1;
        }
        is_clean(node, store)
    });
    let links = node.run("ip -br link").ok();
    assert!(!links.contains("cali"), "{links}");
}

#[test]
fn r3_an_add_killed_anywhere_on_sqlite() {
    let lab = Lab::new(1);
    let calls = ["pwrite64", "fsync", "fdatasync", "sendto", "sendmsg"];
    an_add_killed_anywhere_leaves_nothing(&lab, &sqlite(&lab), &calls);
}

#[test]
fn r3_an_add_killed_anywhere_on_etcd() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let calls = ["connect", "writev", "write", "sendto", "sendmsg"];
    an_add_killed_anywhere_leaves_nothing(&lab, &etcd.store(), &calls);
}

#[test]
fn u01_a_container_that_vanishes_without_del_gives_its_address_back() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = sqlite(&lab);
    let agent = Agent::start(node, &store, &[GRACE]);
    let plugin = Plugin::new(node, &store);
    let (stays, goes) = (lab.pod(), lab.pod());
    let result = plugin.add("stays", &stays);
    plugin.add("goes", &goes);
    goes.delete();
    eventually("its endpoint is gone", PATIENCE, || {
        endpoints(node, &store).len() == 1
    });
    eventually("it is told of", PATIENCE, || {
        let log = agent.process.log();
        log.contains("container goes") && log.contains("it was given back")
    });
    // Long enough for a living one to be suspected.
    std::thread::sleep(Duration::from_secs(3));
    let checked = plugin.call_after("CHECK", "stays", &stays.path(), &result);
    assert!(checked.success(), "{checked:?}");
    assert!(endpoints(node, &store)[0].contains("stays"));
    plugin.del("stays", &stays);
    assert!(is_clean(node, &store));
}

#[test]
fn r9_many_at_once_wait_for_an_operator() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = sqlite(&lab);
    let agent = Agent::start(node, &store, &[GRACE]);
    let plugin = Plugin::new(node, &store);
    let pods: Vec<Pod> = (0..6).map(|_| lab.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        plugin.add(&format!("c{n}"), pod);
    }
    // The interfaces alone: as an agent sees it that looks into the wrong namespace.
    for line in node.run("ip -br link").ok().lines() {
        let name = line.split(['@', ' ']).next().unwrap();
        if name.starts_with("cali") {
            assert!(node.run(&format!("ip link del {name}")).success());
        }
    }
    eventually("it is held", PATIENCE, || {
        agent
            .process
            .log()
            .contains("of 6 endpoints of this node are gone")
    });
    let socket = agent.run_dir.join("agent.sock");
    let status = ["node", "status", "--socket", socket.to_str().unwrap()];
    let told = store.ctl(None, &status, "").ok();
    assert!(told.contains("6 of 6 endpoints"), "{told}");
    let mut foretell = node.command(program("margay-agent"));
    foretell
        .args(["--dry-run", "--nodename", &node.name()])
        .envs(store.environment());
    let foretold = run(&mut foretell, b"").ok();
    assert!(foretold.contains("give back") && foretold.contains("container c0"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(endpoints(node, &store).len(), 6);
    agent.process.signal(Signal::SIGUSR1);
    eventually("all is given back", PATIENCE, || is_clean(node, &store));
}

#[test]
fn an_add_repeated_after_its_interfaces_vanished_keeps_its_record() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = sqlite(&lab);
    let mut agent = Agent::start(node, &store, &[GRACE]);
    let plugin = Plugin::new(node, &store);
    let pod = lab.pod();
    // Part of the answer is the MTU that the agent finds out.
    eventually("the MTU is told", Duration::from_secs(30), || {
        agent.state_dir.join("mtu").exists()
    });
    let result = plugin.add("c1", &pod);
    agent.process.signal(Signal::SIGSTOP);
    assert!(pod.run("ip link del eth0").success());
    assert_eq!(plugin.add("c1", &pod), result);
    agent.process.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_secs(4));
    assert!(agent.process.is_running());
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &result);
    assert!(checked.success(), "{checked:?}");
}

/// An IPAM plugin's ADD is killed at each of its calls of one kind; no DEL comes, and nothing in the kernel tells
/// of it.
#[test]
fn r3_an_add_of_addresses_alone_killed_anywhere() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = sqlite(&lab);
    let agent = Agent::start(node, &store, &[GRACE]);
    let mut plugin = Plugin::new(node, &store).with(json!({"type": "bridge"}));
    plugin.program = "margay-ipam";
    let pod = lab.pod();
    let files = || {
        let files = std::fs::read_dir(node.dir().join("hints/adding"));
        files.map_or_else(
            |_| BTreeSet::new(),
            |files| files.map(|file| file.unwrap().path()).collect(),
        )
    };
    let (mut kills, mut left, mut late) = (0, 0, 0);
    for call in ["openat", "write", "pwrite64", "fdatasync", "unlink"] {
        for when in (1..60).step_by(if call == "openat" { 4 } else { 1 }) {
            let id = format!("{call}{when}");
            let before = files();
            if !killed_add(&plugin, &id, &pod, call, when) {
                // It answered, so only a DEL may end it.
                plugin.del(&id, &pod);
                break;
            }
            kills += 1;
            let held = store.ctl(
                Some(&node.namespace()),
                &["ipam", "check", "--show-all-ips"],
                "",
            );
            let holds = held.stdout.contains(&format!("testnet.{id}"));
            left += usize::from(holds);
            // Killed when it was done, but for its answer: only a DEL knows that nobody heard of it.
            if holds && files().is_subset(&before) {
                late += 1;
                plugin.del(&id, &pod);
            }
        }
    }
    assert!(
        kills > 10 && left > late && late < 4,
        "{kills} kills, {left} left an address, {late} of those at the end"
    );
    eventually("all is given back", PATIENCE, || is_clean(node, &store));
    eventually("no file is left", PATIENCE, || files().is_empty());
    assert!(
        agent
            .process
            .log()
            .contains("killed before it could answer")
    );
}

#[test]
fn d11_the_connections_of_an_address_go_with_its_endpoint() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = sqlite(&lab);
    let accept = ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept");
    let agent = Agent::start(node, &store, &[accept]);
    let rules = "table inet t { chain c { type filter hook prerouting priority 0; ct state new accept\n }\n }\n";
    let loaded = run(node.command("nft").args(["-f", "-"]), rules.as_bytes());
    assert!(loaded.success(), "{loaded:?}");
    let plugin = Plugin::new(node, &store);
    let foreign = Plugin::new(node, &store).with(json!({"cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": lab.dir().join("host-local")}}));
    let (goes, stays, other) = (lab.pod(), lab.pod(), lab.pod());
    let address = |result: &Value| addresses(result)[0].clone();
    let gone = address(&plugin.add("goes", &goes));
    let kept = address(&plugin.add("stays", &stays));
    let others = address(&foreign.add("other", &other));
    let tracked = || node.run("cat /proc/net/nf_conntrack").ok();
    let of = |address: &str| {
        let entries = tracked();
        let place = format!("={address} ");
        entries.lines().filter(|line| line.contains(&place)).count()
    };
    // UDP, to nobody who listens, and ICMP.
    for pod in [&goes, &stays, &other] {
        let gateway = node.ipv4().to_string();
        assert!(pod.pings(&gateway, 1));
        let mut send = margay_integration::process::inside(&pod.namespace, "bash");
        let script = format!("echo x > /dev/udp/{gateway}/4000");
        assert!(run(send.args(["-c", &script]), b"").success());
    }
    let left = || [&gone, &kept, &others].map(|address| of(address));
    assert_eq!(left(), [2, 2, 2], "{}", tracked());
    // DEL clears by itself, whoever assigned the address: the agent sleeps.
    agent.process.signal(Signal::SIGSTOP);
    plugin.del("goes", &goes);
    foreign.del("other", &other);
    assert_eq!(left(), [0, 2, 0], "{}", tracked());
    agent.process.signal(Signal::SIGCONT);
    // The agent clears where no DEL comes.
    let inside = node.namespace();
    let ctl = |arguments: &[&str]| store.ctl(Some(&inside), arguments, "").ok();
    let names = ctl(&["get", "workloadendpoints", "-A", "-o", "name"]);
    let name = names
        .lines()
        .next()
        .and_then(|line| line.rsplit('/').next());
    let _ = ctl(&["delete", "workloadendpoint", name.unwrap(), "-n", "default"]);
    eventually("the agent clears connections", PATIENCE, || of(&kept) == 0);
    plugin.del("stays", &stays);
}

#[test]
fn u05_what_a_node_that_is_declared_gone_held_is_given_back() {
    let lab = Lab::new(2);
    let etcd = Etcd::start(&lab);
    let store = etcd.store();
    let (here, there) = (lab.node(1), lab.node(2));
    let agent = Agent::start(here, &store, &[]);
    let mut goes = Agent::start(there, &store, &[]);
    let pods = [lab.pod(), lab.pod(), lab.pod()];
    let stays = Plugin::new(here, &store).add("stays", &pods[0]);
    Plugin::new(there, &store).add("gone", &pods[1]);
    let mut addresses_only = Plugin::new(there, &store).with(json!({"type": "bridge"}));
    addresses_only.program = "margay-ipam";
    assert!(
        addresses_only
            .call("ADD", "alone", &pods[2].path())
            .success()
    );
    let inside = here.namespace();
    let ctl = |arguments: &[&str]| store.ctl(Some(&inside), arguments, "");
    let gone = ["node", "gone", &*there.name()];
    let refused = ctl(&gone);
    assert!(
        !refused.success() && refused.stderr.contains("runs"),
        "{refused:?}"
    );
    assert!(!ctl(&["node", "gone", "nobody"]).success());
    goes.process.stop();
    assert!(ctl(&gone).success());
    assert!(ctl(&["node", "gone", "--revoke", &there.name()]).success());
    assert!(ctl(&gone).success());
    let mut foretell = here.command(program("margay-agent"));
    foretell
        .args(["--dry-run", "--nodename", &here.name()])
        .envs(store.environment());
    let foretold = run(&mut foretell, b"").ok();
    assert!(
        foretold.contains(&format!("what node {} held", there.name())),
        "{foretold}"
    );
    let check = || ctl(&["ipam", "check", "--show-all-ips"]).stdout;
    assert!(check().contains("Found 3 allocated"), "{}", check());
    eventually("all of it is given back", Duration::from_secs(120), || {
        let held = check();
        held.contains("found no problems")
            && held.contains("Found 1 allocated")
            && held.contains("1 IPAM blocks")
    });
    eventually("its record goes at the end", PATIENCE, || {
        !ctl(&["get", "node", &there.name()]).success()
    });
    for words in ["is gone", "declared it gone", "what it held was given back"] {
        eventually(words, PATIENCE, || agent.process.log().contains(words));
    }
    let checked = Plugin::new(here, &store).call_after("CHECK", "stays", &pods[0].path(), &stays);
    assert!(checked.success(), "{checked:?}");
    // The machine comes back after all, as a new one without containers.
    pods[1].delete();
    std::fs::remove_file(goes.state_dir.join("nodename")).unwrap();
    std::fs::remove_file(goes.run_dir.join("agent.sock")).unwrap_or_default();
    let _again = Agent::start(there, &store, &[]);
    let pod = lab.pod();
    Plugin::new(there, &store).add("new", &pod);
    assert!(check().contains("found no problems"), "{}", check());
}
