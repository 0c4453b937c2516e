//! What killed plugins and lost DELs leave is given back by the agent, and nothing else is (R2, R3, R9).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use margay_integration::process::{bin_dir, eventually, program};
use margay_integration::{Agent, Etcd, Lab, Node, Plugin, Pod, StoreKind, run};
use nix::sys::signal::Signal;
use serde_json::Value;

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
