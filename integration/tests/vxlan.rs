//! Pods across subnets: VXLAN where a pool asks for it, plain routes where it does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Lab, Node, Plugin, Pod, Running, StoreKind};
use nix::sys::signal::Signal;
use serde_json::json;

fn sqlite(lab: &Lab) -> StoreKind {
    StoreKind::Sqlite(lab.dir().join("store.db"))
}

fn dual<'l>(node: Node<'l>, store: &StoreKind) -> Plugin<'l> {
    let ipam =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    Plugin::new(node, store).with(ipam)
}

fn start(lab: &Lab, store: &StoreKind, mode: &str) -> Vec<Agent> {
    let more = [
        ("CALICO_IPV4POOL_VXLAN", mode),
        ("CALICO_IPV6POOL_VXLAN", mode),
        ("CALICO_IPV6POOL_CIDR", "fd00:10::/64"),
        ("IP6", "autodetect"),
    ];
    let agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, store, &more))
        .collect();
    for node in lab.nodes() {
        eventually(
            "the tunnels' devices are up",
            Duration::from_secs(20),
            || {
                ["vxlan.calico", "vxlan-v6.calico"].iter().all(|device| {
                    node.run(&format!("ip addr show {device}"))
                        .stdout
                        .contains("inet")
                })
            },
        );
    }
    agents
}

#[track_caller]
fn reaches(pod: &Pod, address: &str) {
    eventually(
        &format!("{} reaches {address}", pod.namespace),
        Duration::from_secs(15),
        || pod.pings(address, 1),
    );
}

/// What passes the router while pods ping across.
fn seen_by_router(lab: &Lab, pings: impl FnOnce()) -> String {
    let mut tcpdump = inside(&lab.fabric(), "tcpdump");
    tcpdump.args(["-nn", "-l", "-i", "any", "udp port 4789 or icmp or icmp6"]);
    let mut tcpdump = Running::start(&mut tcpdump, &lab.dir().join("router.log"));
    eventually("tcpdump listens", Duration::from_secs(10), || {
        tcpdump.log().contains("listening on")
    });
    pings();
    std::thread::sleep(Duration::from_millis(300));
    tcpdump.signal(Signal::SIGINT);
    tcpdump.wait(Duration::from_secs(5));
    tcpdump.log()
}

#[test]
fn pods_of_two_subnets_reach_each_other_through_a_router_that_knows_no_pod() {
    for mode in ["CrossSubnet", "Always"] {
        let lab = Lab::routed(3);
        let store = sqlite(&lab);
        let _agents = start(&lab, &store, mode);
        let pods: Vec<(Pod, Vec<String>)> = lab
            .nodes()
            .map(|node| {
                let pod = lab.pod();
                let container = format!("c{}", node.number);
                let result = dual(node, &store).add(&container, &pod);
                (pod, addresses(&result))
            })
            .collect();
        for (from, _) in &pods {
            for (_, to) in &pods {
                to.iter().for_each(|address| reaches(from, address));
            }
        }
        let seen = seen_by_router(&lab, || {
            for address in &pods[1].1 {
                assert!(pods[0].0.pings(address, 3), "{address}");
            }
        });
        assert!(seen.contains("4789: VXLAN"), "{mode}: {seen}");
        // Nodes 1 and 3 are of one subnet.
        let routes = lab.node(1).run("ip route").ok();
        let third = lab.node(3).ipv4();
        let plain = format!("via {third} dev eth0 proto 80");
        assert_eq!(
            routes.contains(&plain),
            mode == "CrossSubnet",
            "{mode}: {routes}"
        );
        // A node's own packets to pods beyond the router carry the tunnel's address, which the network's
        // profile does not admit by itself.
        let allow = r#"{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "allow"},
            "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}}"#;
        let _ = store.ctl(None, &["apply", "-f", "-"], allow).ok();
        let node = lab.node(1);
        let far = &pods[1].1[0];
        eventually(
            "the node reaches a pod beyond",
            Duration::from_secs(10),
            || node.run(&format!("ping -n -q -c 3 -W 2 {far}")).success(),
        );
        // The largest packet passes whole.
        let largest = format!("ping -n -q -c 1 -W 2 -M do -s {} {far}", 1430 - 28);
        assert!(pods[0].0.run(&largest).success(), "{mode}: {largest}");
    }
}

#[test]
fn ip_in_ip_is_told_and_routed_plainly_within_the_subnet() {
    let lab = Lab::routed(3);
    let store = sqlite(&lab);
    let agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[("CALICO_IPV4POOL_IPIP", "CrossSubnet")]))
        .collect();
    let pods: Vec<(Pod, String)> = lab
        .nodes()
        .map(|node| {
            let pod = lab.pod();
            let added = Plugin::new(node, &store).add(&format!("c{}", node.number), &pod);
            (pod, addresses(&added).remove(0))
        })
        .collect();
    reaches(&pods[0].0, &pods[2].1);
    let socket = agents[0].run_dir.join("agent.sock");
    eventually("the agent tells of node 2", Duration::from_secs(10), || {
        let mut curl = std::process::Command::new("curl");
        curl.args(["-s", "--unix-socket"])
            .arg(&socket)
            .arg("http://agent/status");
        let told = margay_integration::run(&mut curl, b"").stdout;
        told.contains("asks for IP-in-IP") && told.contains("\"n2\"")
    });
}

#[test]
fn a_pool_that_turns_to_vxlan_makes_devices_and_lowers_the_mtu_of_pods_that_run() {
    let lab = Lab::routed(2);
    let store = sqlite(&lab);
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[]))
        .collect();
    let mtu_file = lab.node(1).dir().join("state/mtu");
    eventually("the MTU is written", Duration::from_secs(10), || {
        std::fs::read_to_string(&mtu_file).is_ok_and(|mtu| mtu.trim() == "1500")
    });
    let (one, two) = (lab.pod(), lab.pod());
    Plugin::new(lab.node(1), &store).add("c1", &one);
    let there = addresses(&Plugin::new(lab.node(2), &store).add("c2", &two)).remove(0);
    assert!(one.run("ip link show eth0").stdout.contains("mtu 1500"));
    let turn = |mode: &str| {
        let patch = format!("{{\"spec\": {{\"vxlanMode\": \"{mode}\"}}}}");
        let _ = store
            .ctl(
                Some(&lab.fabric()),
                &["patch", "ippool", "default-ipv4-ippool", "-p", &patch],
                "",
            )
            .ok();
    };
    turn("CrossSubnet");
    reaches(&one, &there);
    for pod in [&one, &two] {
        eventually("the pod's MTU is lowered", Duration::from_secs(10), || {
            pod.run("ip link show eth0").stdout.contains("mtu 1450")
        });
    }
    assert!(
        lab.node(1)
            .run("ip -o link")
            .stdout
            .contains("vxlan.calico")
    );
    turn("Never");
    eventually(
        "device and MTU are as before",
        Duration::from_secs(20),
        || {
            !lab.node(1)
                .run("ip -o link")
                .stdout
                .contains("vxlan.calico")
                && one.run("ip link show eth0").stdout.contains("mtu 1500")
        },
    );
    let address = store
        .ctl(
            Some(&lab.fabric()),
            &["get", "node", "n1", "-o", "yaml"],
            "",
        )
        .ok();
    assert!(!address.contains("ipv4VXLANTunnelAddr"), "{address}");
}

#[test]
fn restarted_agents_leave_tunnels_as_they_are() {
    let lab = Lab::routed(2);
    let store = sqlite(&lab);
    let mut agents = start(&lab, &store, "Always");
    let (one, two) = (lab.pod(), lab.pod());
    Plugin::new(lab.node(1), &store).add("c1", &one);
    let address = addresses(&Plugin::new(lab.node(2), &store).add("c2", &two)).remove(0);
    reaches(&one, &address);
    let before = lab.node(1).run("ip -o link show vxlan.calico").ok();
    let mut ping = inside(&one.namespace, "ping");
    ping.args(["-n", "-q", "-i", "0.01", "-c", "400", "-W", "1", &address]);
    let mut ping = Running::start(&mut ping, &lab.dir().join("ping.log"));
    for number in [1, 2] {
        agents[number - 1].process.kill();
        std::thread::sleep(Duration::from_millis(300));
        agents[number - 1] = Agent::start(lab.node(number), &store, &[]);
    }
    assert_eq!(ping.wait(Duration::from_secs(30)), 0, "{}", ping.log());
    assert!(ping.log().contains("400 received"), "{}", ping.log());
    assert_eq!(before, lab.node(1).run("ip -o link show vxlan.calico").ok());
}
