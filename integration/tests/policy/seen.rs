//! What policy does is seen: in the agent's log, with names.

use std::time::Duration;

use margay_integration::process::eventually;
use serde_json::{Value, json};

use crate::town::{House, Town, WAIT, policy};

/// The lines of an agent's log that tell of packets.
fn told(town: &Town, node: usize) -> Vec<Value> {
    let log = town.agents[node - 1].process.log();
    let lines = log.lines();
    let objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    objects
        .filter(|line| line.get("verdict").is_some())
        .collect()
}

/// Whether a line has all of these fields.
fn has(line: &Value, fields: &Value) -> bool {
    let fields = fields.as_object().unwrap();
    fields
        .iter()
        .all(|(name, value)| line.get(name) == Some(value))
}

#[track_caller]
fn awaits(town: &Town, node: usize, fields: &Value, mut act: impl FnMut()) {
    eventually(&format!("a line has {fields}"), WAIT, || {
        act();
        told(town, node).iter().any(|line| has(line, fields))
    });
}

fn pings(from: &House, to: &str) {
    assert!(!from.pod.pings(to, 1));
}

#[test]
fn what_is_denied_is_told_with_names() {
    let settings = [("MARGAY_LOG_DENIED", "true"), ("MARGAY_LOG_FORMAT", "json")];
    let town = Town::with(&settings);
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    client.reaches(&web, 80, true);
    town.apply(&policy(
        "guard",
        json!({"selector": "app == 'web'", "types": ["Ingress"], "ingress": [
            {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}},
            {"action": "Log", "protocol": "TCP", "destination": {"ports": [81]}},
            {"action": "Deny", "protocol": "TCP", "destination": {"ports": [81]}}]}),
    ));
    client.reaches(&web, 81, false);
    client.reaches(&web, 80, true);
    for (address, from) in [(&web.address, &client.address), (&web.v6, &client.v6)] {
        let connection = json!({
            "direction": "ingress", "tier": "default", "policy": "GlobalNetworkPolicy/guard",
            "source": "default/client", "source_address": from,
            "destination": "default/web", "destination_address": address,
            "protocol": "TCP", "port": 81,
        });
        for (verdict, rule, message) in
            [("denied", "2", "denied"), ("logged", "1", "calico-packet")]
        {
            let mut expected = connection.clone();
            expected["verdict"] = json!(verdict);
            expected["reason"] = json!("rule");
            expected["rule"] = json!(rule);
            expected["message"] = json!(message);
            awaits(&town, 1, &expected, || {
                assert!(!client.connects(address, 81))
            });
        }
    }
    // The counters are where they are without the log.
    let namespace = town.lab.node(1).namespace();
    let asked = ["policy", "hits", "-o", "json"];
    let hits: Value =
        serde_json::from_str(&town.store.ctl(Some(&namespace), &asked, "").ok()).unwrap();
    let denied = json!({"policy": "GlobalNetworkPolicy/guard", "rule": "2", "action": "Deny"});
    let of_rule = |hit: &&Value| has(hit, &denied) && hit["packets"].as_u64() > Some(0);
    assert!(
        hits["rules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|hit| of_rule(&hit)),
        "{hits:#}"
    );
    let reason = |drop: &Value| drop["reason"] == "denied by a rule";
    assert!(
        hits["drops"].as_array().unwrap().iter().any(reason),
        "{hits:#}"
    );

    // What no rule decides is denied at the end of the tier; and who is nobody's pod has another name.
    let ping = json!({
        "verdict": "denied", "reason": "end of tier", "tier": "default", "direction": "ingress",
        "source": "default/client", "destination": "default/web", "protocol": "ICMP", "icmp_type": 8,
    });
    awaits(&town, 1, &ping, || pings(&client, &web.address));
    // The sender's own node tells what it denies.
    town.apply(&policy(
        "quiet",
        json!({"selector": "app == 'client'", "types": ["Egress"]}),
    ));
    client.reaches(&web, 80, false);
    let outside = "172.31.255.254";
    let egress = json!({
        "verdict": "denied", "reason": "end of tier", "direction": "egress", "source": "default/client",
        "destination_address": outside, "protocol": "ICMP",
    });
    awaits(&town, 2, &egress, || pings(&client, outside));
    let node = town.lab.node(1).ipv4().to_string();
    let egress = json!({
        "direction": "egress", "source": "default/client", "destination": "Node/n1",
        "destination_address": node,
    });
    awaits(&town, 2, &egress, || pings(&client, &node));
    // What is allowed is not told of.
    assert!(told(&town, 1).iter().all(|line| line["port"] != json!(80)));

    // A flood costs neither the line of another connection nor the agent.
    let flood = ["ping", "-n", "-q", "-i", "0.001", "-w", "5"];
    let mut ping = margay_integration::process::inside(&client.pod.namespace, flood[0]);
    ping.args(&flood[1..]).arg(&web.address);
    let mut ping = margay_integration::Running::start(&mut ping, &town.lab.dir().join("flood.log"));
    ping.wait(Duration::from_secs(60));
    let lines = told(&town, 2);
    let pings = lines
        .iter()
        .filter(|line| line["destination"] == "default/web")
        .count();
    assert!(pings < 100, "{pings} lines of 5000 packets");
    let packets: u64 = lines
        .iter()
        .filter_map(|line| line["packets"].as_u64())
        .sum();
    assert!(packets > 100, "{packets} packets are told of");
}

#[test]
fn without_the_setting_only_log_rules_are_told_of() {
    let town = Town::with(&[("MARGAY_LOG_FORMAT", "json")]);
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    town.apply(&policy(
        "guard",
        json!({"selector": "app == 'web'", "types": ["Ingress"], "ingress": [
            {"action": "Log", "protocol": "TCP", "destination": {"ports": [81]}}]}),
    ));
    client.reaches(&web, 80, false);
    client.reaches(&web, 81, false);
    let logged = json!({"verdict": "logged", "policy": "GlobalNetworkPolicy/guard", "port": 81,
        "source": "default/client", "destination": "default/web"});
    awaits(&town, 1, &logged, || {
        assert!(!client.connects(&web.address, 81))
    });
    assert!(
        told(&town, 1)
            .iter()
            .all(|line| line["verdict"] == "logged")
    );

    // The cluster's setting has the same effect while agents run, and its words.
    town.apply(
        &json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"dropActionOverride": "LogAndDrop", "logPrefix": "seen"}}),
    );
    let denied =
        json!({"verdict": "denied", "reason": "end of tier", "port": 80, "message": "denied"});
    awaits(&town, 1, &denied, || {
        assert!(!client.connects(&web.address, 80))
    });
    let logged = json!({"verdict": "logged", "port": 81, "message": "seen"});
    awaits(&town, 1, &logged, || {
        assert!(!client.connects(&web.address, 81))
    });
}
