//! The moments in which policy could have a gap: a pod's first packet, a change under traffic, a store gone wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Running, StoreKind};
use margay_model::{Kind, Prefix};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::town::{Town, WAIT, policy};

/// How often a pod is added under fire; `MARGAY_ADDS` asks for more.
const ADDS: usize = 24;

#[test]
fn the_first_packet_of_a_pod_is_judged_and_so_is_the_first_to_it() {
    let town = Town::new();
    let client = town.house(1, "client");
    // Nobody may send anything to new pods, and they may begin nothing but with port 80 of others.
    town.apply(&policy(
        "closed",
        json!({"selector": "app != 'client'", "types": ["Ingress", "Egress"], "egress": [
            {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}]}),
    ));
    // The first pod says in which block all are.
    let first = town.lab.pod();
    let held = addresses(&town.plugin(1).add("first", &first)).remove(0);
    eventually("the policy is in force", WAIT, || {
        !first.pings(&client.address, 1)
    });
    let (network, _) = held.rsplit_once('.').unwrap();
    let flood = format!(
        "while :; do for i in {{0..63}}; do echo x > /dev/udp/{network}.$i/9; done; done 2>/dev/null"
    );
    let mut command = inside(&client.pod.namespace, "bash");
    command.args(["-c", &flood]);
    let mut flood = Running::start(&mut command, &town.lab.dir().join("flood.log"));
    let node = town.lab.node(1);
    // The flood is there: it is denied at the first pod's door.
    let denied = || {
        let table = node.run("nft list table inet margay").ok();
        table
            .lines()
            .any(|line| line.contains("end of tier|default") && !line.contains("packets 0 "))
    };
    eventually("the flood arrives", WAIT, denied);
    let adds = std::env::var("MARGAY_ADDS").map_or(ADDS, |text| text.parse().unwrap());
    eprintln!("MARGAY_ADDS={adds}");
    for number in 0..adds {
        let pod = town.lab.pod();
        let container = format!("new{number}");
        let result = town.plugin(1).add(&container, &pod);
        // At once: nothing is waited for.
        let connects = |port| crate::town::connects(&pod.namespace, &client.address, port);
        assert!(!connects(81), "{container}");
        assert!(connects(80), "{container}");
        let address = addresses(&result).remove(0);
        assert!(address.starts_with(network), "{address}: outside the flood");
        let counted = udp_received(&pod.namespace);
        assert_eq!(counted, 0, "{container}: packets of the flood have arrived");
        town.plugin(1).del(&container, &pod);
        pod.delete();
    }
    flood.kill();
}

/// How many datagrams a namespace has received, whether anybody listened or not.
fn udp_received(namespace: &str) -> u64 {
    let mut command = inside(namespace, "cat");
    command.arg("/proc/net/snmp");
    let text = margay_integration::process::run(&mut command, b"").ok();
    let line = text
        .lines()
        .rfind(|line| line.starts_with("Udp: "))
        .unwrap();
    let mut figures = line.split_whitespace().skip(1);
    let figure = |text: Option<&str>| text.unwrap().parse::<u64>().unwrap();
    figure(figures.next()) + figure(figures.next())
}

#[test]
fn connections_are_cut_where_that_is_wanted_and_only_those_that_are_denied() {
    let mut town = Town::new();
    // Node 1 cuts.
    town.agents[0].process.stop();
    let _ = std::fs::remove_file(town.agents[0].run_dir.join("agent.sock"));
    let settings = [
        ("CALICO_IPV6POOL_CIDR", "fd00:10::/64"),
        ("MARGAY_CUT_CONNECTIONS", "true"),
    ];
    town.agents[0] = Agent::start(town.lab.node(1), &town.store, &settings);
    let (near, other, far) = (
        town.house(1, "near"),
        town.house(1, "other"),
        town.house(2, "far"),
    );
    let client = town.house(2, "client");
    let pings = [&near, &other, &far].map(|house| {
        eventually("the pod answers", WAIT, || {
            client.pod.pings(&house.address, 1)
        });
        let mut ping = inside(&client.pod.namespace, "ping");
        ping.args(["-n", "-i", "0.02", &house.address]);
        let log = town.lab.dir().join(format!("ping-{}.log", house.address));
        Running::start(&mut ping, &log)
    });
    let answers = |index: usize| pings[index].log().matches("bytes from").count();
    for index in 0..3 {
        eventually("pings are answered", WAIT, || answers(index) > 5);
    }
    town.apply(&policy(
        "deny",
        json!({"selector": "app in {'near', 'far'}", "types": ["Ingress"]}),
    ));
    eventually("the connection is cut", WAIT, || {
        let before = answers(0);
        std::thread::sleep(Duration::from_millis(500));
        answers(0) == before
    });
    // Where it is not wanted what is established goes on, and so does what is allowed, without a loss.
    for index in [1, 2] {
        let before = answers(index);
        eventually("the connection goes on", WAIT, || {
            answers(index) > before + 5
        });
    }
    assert!(!client.pod.pings(&far.address, 1));
    town.delete("globalnetworkpolicy", "deny");
    let before = answers(0);
    eventually("it is allowed again", WAIT, || answers(0) > before + 5);
}

#[test]
fn a_store_emptied_while_the_agent_was_away_opens_and_cuts_nothing() {
    let mut town = Town::new();
    let (web, client) = (town.house(1, "web"), town.house(1, "client"));
    for number in 0..4 {
        let pod = town.lab.pod();
        let _ = town.plugin(1).add(&format!("more{number}"), &pod);
    }
    town.apply(&policy(
        "some",
        json!({"selector": "app == 'web'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}]}),
    ));
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    for agent in &mut town.agents {
        agent.process.stop();
    }
    let StoreKind::Sqlite(path) = town.store.clone() else {
        unreachable!("the town's store is a file");
    };
    let folder = path.parent().unwrap();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("store.db") {
            std::fs::rename(entry.path(), folder.join(format!("kept-{name}"))).unwrap();
        }
    }
    town.restart(1);
    eventually("the agent holds back", WAIT, || {
        town.agents[0]
            .process
            .log()
            .contains("policy stays as it is until the datastore knows them")
    });
    let socket = town.agents[0].run_dir.join("agent.sock");
    let asked = ["node", "status", "--socket", &socket.display().to_string()];
    eventually("people are told", WAIT, || {
        let told = town.store.ctl(None, &asked, "").stdout;
        told.contains("Policy stays as it was: the datastore does not know")
    });
    for address in [&web.address, &web.v6] {
        assert!(client.connects(address, 80), "{address}");
        assert!(!client.connects(address, 81), "{address}");
    }
    // Restored as it was, it is followed again.
    town.agents[0].process.stop();
    let files: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    for name in files.iter().filter(|name| name.starts_with("store.db")) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    for kept in files.iter().filter_map(|name| name.strip_prefix("kept-")) {
        std::fs::rename(folder.join(format!("kept-{kept}")), folder.join(kept)).unwrap();
    }
    town.restart(1);
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    town.apply(&policy(
        "more",
        json!({"selector": "app == 'web'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [81]}}]}),
    ));
    client.reaches(&web, 81, true);
    town.agents[0].process.signal(Signal::SIGTERM);
}

/// A store that goes back in time, fills with what nobody understands, and comes back, while connections go on.
#[test]
fn a_store_rolled_back_or_filled_with_garbage_opens_and_cuts_nothing() {
    let town = Town::new();
    let (web, client) = (town.house(1, "web"), town.house(1, "client"));
    let allow = |name: &str, port: u16| {
        policy(
            name,
            json!({"selector": "app == 'web'", "types": ["Ingress"], "ingress": [
                {"action": "Allow", "protocol": "ICMP"},
                {"action": "Allow", "protocol": "TCP", "destination": {"ports": [port]}}]}),
        )
    };
    town.apply(&allow("some", 80));
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    let StoreKind::Sqlite(path) = town.store.clone() else {
        unreachable!("the town's store is a file");
    };
    let kept = town.lab.dir().join("kept.db");
    quietly(&town, || {
        std::fs::copy(&path, &kept).unwrap();
        std::fs::copy(beside(&path, "-wal"), beside(&kept, "-wal")).unwrap();
    });
    town.apply(&allow("later", 81));
    client.reaches(&web, 81, true);

    let mut ping = inside(&client.pod.namespace, "ping");
    ping.args(["-n", "-q", "-i", "0.01", "-W", "2", &web.address]);
    let mut ping = Running::start(&mut ping, &town.lab.dir().join("rolled.log"));
    let stays = |moment: &str, later: bool| {
        for _ in 0..5 {
            for address in [&web.address, &web.v6] {
                assert!(client.connects(address, 80), "{moment}: {address}");
                assert_eq!(client.connects(address, 81), later, "{moment}: {address}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let logged = |words: &str| town.agents[0].process.log().contains(words);
    // Back to before: what the store said last stays in force until an operator says that it is right.
    quietly(&town, || {
        std::fs::remove_file(beside(&path, "-shm")).unwrap();
        std::fs::rename(beside(&kept, "-wal"), beside(&path, "-wal")).unwrap();
        std::fs::rename(&kept, &path).unwrap();
    });
    eventually("the agent notices", WAIT, || {
        logged("stays in force until it is right again")
    });
    stays("rolled back", true);
    town.agents[0].process.signal(Signal::SIGUSR1);
    client.reaches(&web, 81, false);
    stays("trusted", false);

    // What policy is made of becomes what nobody understands.
    let kinds = [Kind::GlobalNetworkPolicy, Kind::Profile];
    town.store
        .overwrite(&kinds.map(Prefix::Resources), b"{\xff\"");
    eventually("the garbage is noticed", WAIT, || {
        logged("globalnetworkpolicies/some: it is passed over")
    });
    // What cannot be read counts as absent: nothing new is allowed by it, and nothing that is established ends.
    for _ in 0..5 {
        for port in [80, 81] {
            assert!(!client.connects(&web.address, port), "garbage: {port}");
        }
    }
    ping.signal(Signal::SIGINT);
    ping.wait(Duration::from_secs(10));
    let lost = ping.log();
    assert!(lost.contains(" 0% packet loss"), "{lost}");
    town.agents[0].process.signal(Signal::SIGTERM);
}

/// Does something while no agent writes.
fn quietly(town: &Town, act: impl FnOnce()) {
    for agent in &town.agents {
        agent.process.signal(Signal::SIGSTOP);
    }
    act();
    for agent in &town.agents {
        agent.process.signal(Signal::SIGCONT);
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
