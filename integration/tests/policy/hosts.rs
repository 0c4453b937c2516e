//! Host endpoints: what reaches a node, and what passes through it.

use margay_integration::process::eventually;
use margay_integration::{Node, Running};
use serde_json::{Value, json};

use crate::town::{Town, WAIT, connects, policy};

fn endpoint(interface: &str) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
        "metadata": {"name": "node-one", "labels": {"is": "host"}},
        "spec": {"node": "n1", "interfaceName": interface},
    })
}

/// Servers on a node.
fn serve(node: Node<'_>, ports: &[u16]) -> Vec<Running> {
    let serve = |port: &u16| {
        let mut server = node.command("busybox");
        server.args(["httpd", "-f", "-p", &format!("[::]:{port}"), "-h", "/run"]);
        Running::start(&mut server, &node.dir().join(format!("server-{port}.log")))
    };
    let servers = ports.iter().map(serve).collect();
    for port in ports {
        eventually("a server listens", WAIT, || {
            connects(&node.namespace(), "127.0.0.1", *port)
        });
    }
    servers
}

#[track_caller]
fn reached(from: Node<'_>, to: Node<'_>, port: u16, expected: bool) {
    for address in [to.ipv4(), to.ipv6()] {
        eventually(
            &format!("{address}:{port} is reached: {expected}"),
            WAIT,
            || connects(&from.namespace(), &address.to_string(), port) == expected,
        );
    }
}

#[test]
fn a_host_endpoint_for_every_interface_leaves_failsafe_ports_bgp_and_tunnels() {
    let town = Town::with(&[("CALICO_IPV4POOL_VXLAN", "Always")]);
    let (one, two) = (town.lab.node(1), town.lab.node(2));
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    let _servers = serve(one, &[22, 8080]);
    reached(two, one, 8080, true);
    eventually("the tunnel works", WAIT, || {
        client.connects(&web.address, 80)
    });

    town.apply(&endpoint("*"));
    reached(two, one, 8080, false);
    // Failsafe ports, the first of which is SSH's, and BGP's.
    reached(two, one, 22, true);
    eventually("BGP is reached", WAIT, || {
        connects(&two.namespace(), &one.ipv4().to_string(), 179)
    });
    // What the tunnels carry is not the host's, also when the kernel has never heard of it.
    for node in [one, two] {
        let _ = node.run("conntrack -F");
    }
    for _ in 0..3 {
        assert!(client.connects(&web.address, 80));
        assert!(web.connects(&client.address, 81));
    }
    assert!(!connects(&one.namespace(), &two.ipv4().to_string(), 8081));
    // The host speaks to itself and to its pods.
    assert!(connects(&one.namespace(), "127.0.0.1", 8080));
    assert!(connects(&one.namespace(), &web.address, 80));

    town.apply(&policy(
        "open",
        json!({"selector": "is == 'host'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [8080]}}]}),
    ));
    reached(two, one, 8080, true);
    town.delete("hostendpoint", "node-one");
    town.delete("globalnetworkpolicy", "open");
}

#[test]
fn a_named_host_endpoint_decides_at_every_stage() {
    let town = Town::new();
    let (one, two) = (town.lab.node(1), town.lab.node(2));
    let (web, client) = (town.house(1, "web"), town.house(2, "client"));
    let _servers = serve(one, &[8080, 8081, 8082]);
    client.reaches(&web, 80, true);
    town.apply(&endpoint("eth0"));
    reached(two, one, 8080, false);
    // Forwarded packets are asked about only by policies that apply to them.
    client.reaches(&web, 80, true);

    let rule = |action: &str, port: u16| json!([{"action": action, "protocol": "TCP", "destination": {"ports": [port]}}]);
    let hosts = "is == 'host'";
    town.apply(&policy(
        "normal",
        json!({"selector": hosts, "types": ["Ingress"], "ingress": rule("Allow", 8080)}),
    ));
    reached(two, one, 8080, true);
    reached(two, one, 8081, false);

    let forward = json!({"selector": hosts, "types": ["Ingress"], "applyOnForward": true, "order": 1,
        "ingress": [{"action": "Deny", "protocol": "TCP", "destination": {"ports": [80]}},
            {"action": "Allow"}]});
    town.apply(&policy("forward", forward));
    client.reaches(&web, 80, false);
    client.reaches(&web, 81, true);
    // It is for the host's own packets too, and comes first.
    reached(two, one, 8081, true);
    town.delete("globalnetworkpolicy", "forward");
    client.reaches(&web, 80, true);
    reached(two, one, 8081, false);

    // Before translation a denial holds against what allows later, and an allowance closes nothing.
    let early = |action: &str| {
        policy(
            "early",
            json!({"selector": hosts, "types": ["Ingress"], "preDNAT": true, "applyOnForward": true,
                "ingress": rule(action, 8080)}),
        )
    };
    town.apply(&early("Deny"));
    reached(two, one, 8080, false);
    client.reaches(&web, 80, true);
    town.apply(&early("Allow"));
    reached(two, one, 8080, true);
    town.delete("globalnetworkpolicy", "early");

    // Without tracking both directions have to be allowed.
    let untracked = json!({"selector": hosts, "doNotTrack": true, "applyOnForward": true,
        "ingress": rule("Allow", 8082),
        "egress": [{"action": "Allow", "protocol": "TCP", "source": {"ports": [8082]}}]});
    town.apply(&policy("untracked", untracked));
    reached(two, one, 8082, true);
    reached(two, one, 8081, false);
    let tracked = one.run("conntrack -L -p tcp --dport 8082 --src 172.31.0.3");
    assert!(!tracked.stdout.contains("dport=8082"), "{}", tracked.stdout);
    town.delete("globalnetworkpolicy", "untracked");
    reached(two, one, 8082, false);
    town.delete("hostendpoint", "node-one");
    reached(two, one, 8082, true);
}
