//! Translation of sources, as pools and the FelixConfiguration ask for it.

use margay_integration::process::{eventually, inside, run};
use serde_json::{Value, json};

use crate::town::{Town, WAIT};

/// The fabric, which has no route back to pods.
const OUTSIDE: &str = "172.31.255.254";

#[test]
fn sources_are_translated_as_the_cluster_says() {
    let town = Town::new();
    let pod = town.house(1, "pod");
    let node = town.lab.node(1);
    let other = town.lab.node(2).ipv4().to_string();
    let felix = |spec: Value| {
        town.apply(
            &json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"}, "spec": spec}),
        );
    };
    // The answers' destinations of connections to a port of an address.
    let answered = |address: &str, port: u16| -> Vec<(String, u16)> {
        // Nobody listens: a refused connection of TCP would be forgotten at once, UDP's stays.
        let script = format!("echo x >/dev/udp/{address}/{port}");
        let mut send = inside(&pod.pod.namespace, "bash");
        let _ = run(send.args(["-c", &script]), b"");
        let table = node.run("cat /proc/net/nf_conntrack").ok();
        let ours = format!("src={} dst={address} ", pod.address);
        let lines = table
            .lines()
            .filter(|line| line.contains(&ours) && line.contains(&format!("dport={port} ")));
        lines
            .filter_map(|line| {
                let (_, reply) = line.split_once("dport=")?;
                let word = |name: &str| {
                    let (_, rest) = reply.split_once(name)?;
                    rest.split_whitespace().next().map(str::to_owned)
                };
                Some((word("dst=")?, word("dport=")?.parse().ok()?))
            })
            .collect()
    };
    let own = node.ipv4().to_string();
    let mut ports = 2000..;
    // A port of its own for each attempt, so that no earlier connection is found.
    let mut translated = |what: &str, address: &str, holds: &dyn Fn(&str, u16) -> bool| {
        eventually(what, WAIT, || {
            let found = answered(address, ports.next().unwrap());
            !found.is_empty() && found.iter().all(|(to, port)| holds(to, *port))
        });
    };
    translated("the interface's address", OUTSIDE, &|to, _| to == own);
    translated("also towards nodes", &other, &|to, _| to == own);

    let _ = node.run("ip addr add 172.31.9.9/16 dev eth0").ok();
    felix(
        json!({"natOutgoingAddress": "172.31.9.9", "natPortRange": "61000:61009",
        "natOutgoingExclusions": "IPPoolsAndHostIPs"}),
    );
    translated("the address and the ports", OUTSIDE, &|to, port| {
        to == "172.31.9.9" && (61000..=61009).contains(&port)
    });
    translated("nothing towards nodes", &other, &|to, _| to == pod.address);
    felix(json!({}));
    translated("as before", OUTSIDE, &|to, _| to == own);
    translated("also towards nodes again", &other, &|to, _| to == own);
}
