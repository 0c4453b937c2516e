//! Policy in force on nodes: who reaches whom, from the first packet on, whatever happens to agent and kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod hosts;
mod limits;
mod moments;
mod nat;
mod seen;
mod town;

use std::time::Duration;

use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Lab, Running, StoreKind};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::town::{Town, WAIT, policy};

#[test]
fn policies_decide_who_reaches_whom() {
    let town = Town::new();
    let (web, client, other) = (
        town.house(1, "web"),
        town.house(2, "client"),
        town.house(1, "other"),
    );
    // A network's profile lets its pods reach each other.
    client.reaches(&web, 80, true);
    other.reaches(&web, 80, true);
    assert!(client.pod.pings(&web.address, 1));

    let deny = policy(
        "deny",
        json!({"selector": "app == 'web'", "types": ["Ingress"]}),
    );
    town.apply(&deny);
    client.reaches(&web, 80, false);
    other.reaches(&web, 80, false);
    // What the pod itself begins is answered.
    web.reaches(&client, 80, true);

    town.apply(&policy(
        "allow",
        json!({
            "order": 10, "selector": "app == 'web'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP",
                "source": {"selector": "app == 'client'"}, "destination": {"ports": [80]}}],
        }),
    ));
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    other.reaches(&web, 80, false);

    // People are told the same: by the datastore, and by the kernel's counters.
    let why = |source: &str, port: &str| {
        let asked = ["why", source, &web.address, "tcp", port];
        town.store.ctl(None, &asked, "").ok()
    };
    let allowed = why("default/client", "80");
    assert!(allowed.contains("Verdict: Allow"), "{allowed}");
    assert!(
        allowed.contains("rule 0 of GlobalNetworkPolicy/allow: Allow"),
        "{allowed}"
    );
    for (source, port) in [("default/client", "81"), ("default/other", "80")] {
        let denied = why(source, port);
        assert!(denied.contains("Verdict: Deny"), "{denied}");
        assert!(denied.contains("end of tier: Deny"), "{denied}");
    }
    let namespace = town.lab.node(1).namespace();
    let asked = ["policy", "hits", "-o", "json"];
    let hits = town.store.ctl(Some(&namespace), &asked, "").ok();
    let hits: serde_json::Value = serde_json::from_str(&hits).unwrap();
    let packets = |policy: &str| -> u64 {
        let rules = hits["rules"].as_array().unwrap().iter();
        let of_policy = rules.filter(|rule| rule["policy"] == policy);
        of_policy.filter_map(|rule| rule["packets"].as_u64()).sum()
    };
    assert!(packets("GlobalNetworkPolicy/allow") > 0, "{hits:#}");
    assert!(packets("end of tier") > 0, "{hits:#}");
    for (policy, action) in [
        ("GlobalNetworkPolicy/allow", "Allow"),
        ("end of tier", "Deny"),
    ] {
        let mut rules = hits["rules"].as_array().unwrap().iter();
        assert!(
            rules.any(|rule| rule["policy"] == policy && rule["action"] == action),
            "{hits:#}"
        );
    }
    assert!(
        hits["drops"].as_array().unwrap().iter().any(|drop| {
            drop["reason"] == "end of tier default" && drop["packets"].as_u64() > Some(0)
        }),
        "{hits:#}"
    );

    // Another label, another class.
    let patch = json!({"metadata": {"labels": {"app": "x"}}}).to_string();
    let name = "n2-cni-client-eth0";
    let arguments = [
        "patch",
        "workloadendpoint",
        name,
        "-n",
        "default",
        "-p",
        &patch,
    ];
    let _ = town.store.ctl(None, &arguments, "").ok();
    client.reaches(&web, 80, false);
    town.label(2, "client");
    client.reaches(&web, 80, true);

    // And what a pod may begin.
    town.apply(&policy("quiet", json!({
        "selector": "app == 'client'", "types": ["Egress"],
        "egress": [{"action": "Deny", "destination": {"selector": "app == 'web'"}}, {"action": "Allow"}],
    })));
    client.reaches(&web, 80, false);
    client.reaches(&other, 81, true);
    for name in ["quiet", "allow", "deny"] {
        town.delete("globalnetworkpolicy", name);
    }
    client.reaches(&web, 81, true);
}

#[test]
fn agents_die_and_come_back_and_policy_stays_as_it_is() {
    let mut town = Town::new();
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    town.apply(&policy("some", json!({
        "selector": "app == 'web'", "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "ICMP"}, {"action": "Allow", "protocol": "ICMPv6"},
            {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}],
    })));
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    let before = town.lab.node(1).run("nft list table inet margay").ok();
    let mut ping = inside(&client.pod.namespace, "ping");
    ping.args(["-n", "-q", "-i", "0.01", "-W", "2", &web.address]);
    let log = town.lab.dir().join("ping.log");
    let mut ping = Running::start(&mut ping, &log);
    for _ in 0..3 {
        town.agents[0].process.kill();
        for _ in 0..3 {
            assert!(!client.connects(&web.address, 81));
            assert!(client.connects(&web.address, 80));
        }
        town.restart(1);
        assert!(!client.connects(&web.address, 81));
        assert!(client.connects(&web.address, 80));
    }
    ping.signal(Signal::SIGINT);
    ping.wait(Duration::from_secs(10));
    let lost = ping.log();
    assert!(lost.contains(" 0% packet loss"), "{lost}");
    let after = town.lab.node(1).run("nft list table inet margay").ok();
    assert_eq!(without_counters(&before), without_counters(&after));
}

#[test]
fn the_table_comes_back_when_somebody_removes_it_or_a_part_of_it() {
    let town = Town::new();
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    town.apply(&policy(
        "none",
        json!({"selector": "app == 'web'", "types": ["Ingress"],
        "ingress": [{"action": "Allow", "protocol": "ICMP"}]}),
    ));
    client.reaches(&web, 80, false);
    let node = town.lab.node(1);
    let list = || without_counters(&node.run("nft list ruleset").ok());
    let whole = list();
    assert!(whole.contains("fwd-to"));
    let mut ping = inside(&client.pod.namespace, "ping");
    ping.args(["-n", "-q", "-i", "0.01", "-W", "2", &web.address]);
    let mut ping = Running::start(&mut ping, &town.lab.dir().join("ping.log"));
    for command in [
        "nft flush ruleset",
        "nft delete table inet margay",
        "nft flush chain inet margay fwd-to",
        "nft flush chain inet margay sent",
        "nft add rule inet margay fwd-to accept",
        "nft add chain inet margay foreign",
        "nft add table inet margay { flags dormant; }",
    ] {
        let _ = node.run(command).ok();
        eventually(command, WAIT, || list() == whole);
        assert!(!client.connects(&web.address, 80), "{command}");
    }
    ping.signal(Signal::SIGINT);
    ping.wait(Duration::from_secs(10));
    assert!(ping.log().contains(" 0% packet loss"), "{}", ping.log());
    // Others' tables are others'.
    let _ = node.run("nft add table inet others").ok();
    eventually("the other table is there", WAIT, || {
        list().contains("others")
    });
}

#[test]
fn what_leaves_the_pools_and_what_goes_to_the_node() {
    let town = Town::new();
    let (one, two) = (town.house(1, "one"), town.house(2, "two"));
    // The fabric has no route back to pods: only translated sources get an answer.
    let outside = "172.31.255.254";
    eventually("the outside answers", WAIT, || one.pod.pings(outside, 1));
    town.patch(
        "ippool",
        "default-ipv4-ippool",
        &json!({"spec": {"natOutgoing": false}}),
    );
    eventually("nothing is translated", WAIT, || !one.pod.pings(outside, 1));
    one.reaches(&two, 80, true);
    town.patch(
        "ippool",
        "default-ipv4-ippool",
        &json!({"spec": {"natOutgoing": true}}),
    );
    eventually("the outside answers again", WAIT, || {
        one.pod.pings(outside, 1)
    });

    let node = town.lab.node(1);
    let mut server = node.command("busybox");
    server.args(["httpd", "-f", "-p", "[::]:8080", "-h", "/run"]);
    let _server = Running::start(&mut server, &town.lab.dir().join("host.log"));
    let host = node.ipv4().to_string();
    eventually("the node reaches its pod", WAIT, || {
        node.run(&format!("ping -c 1 -W 1 {}", one.address))
            .success()
    });
    assert!(!one.connects(&host, 8080), "dropped by default");
    let felix = |action: &str| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": {"defaultEndpointToHostAction": action}})
    };
    town.apply(&felix("Accept"));
    eventually("the node is reached", WAIT, || one.connects(&host, 8080));
    town.apply(&felix("Drop"));
    eventually("the node is not reached", WAIT, || {
        !one.connects(&host, 8080)
    });
}

/// The words of a table as nft prints it, without what packets have changed, and in no particular order: chains are
/// listed as they were made, and elements as they were hashed.
fn without_counters(table: &str) -> String {
    let words: Vec<&str> = table
        .split_whitespace()
        .map(|word| word.trim_matches(','))
        .collect();
    let mut kept = Vec::new();
    let mut skip = 0;
    for (index, word) in words.iter().enumerate() {
        if skip > 0 {
            skip -= 1;
        } else if *word == "counter" && words.get(index + 1) == Some(&"packets") {
            skip = 4;
        } else {
            kept.push(*word);
        }
    }
    kept.sort_unstable();
    kept.join(" ")
}

/// Other programs' rules that may drop what workloads send are named where people look.
#[test]
fn what_others_drop_is_told_with_the_remedy() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = StoreKind::Sqlite(lab.dir().join("store.db"));
    let dropping = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }\n\
        chain DOCKER-USER { }\n }\n";
    let loaded = margay_integration::process::run(
        node.command("nft").args(["-f", "-"]),
        dropping.as_bytes(),
    );
    assert!(loaded.success(), "{loaded:?}");
    let agent = Agent::start(node, &store, &[("FELIX_ROUTEREFRESHINTERVAL", "1")]);
    let socket = agent.run_dir.join("agent.sock").display().to_string();
    let told = || {
        let arguments = ["node", "status", "--socket", &socket];
        store.ctl(None, &arguments, "").stdout
    };
    let words = ["table ip filter: Docker drops", "iptables -I DOCKER-USER"];
    eventually("the status names it", WAIT, || {
        words.iter().all(|words| told().contains(words))
    });
    assert!(agent.process.log().contains("rules of another program"));
    let _ = node.run("nft delete table ip filter").ok();
    eventually("it is gone", WAIT, || !told().contains("Docker"));
}
