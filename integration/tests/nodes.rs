//! Nodes and their pods: routed addresses across a fabric, allocation at scale, and what outages leave alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::eventually;
use margay_integration::{Agent, Cluster, Etcd, Lab, Node, Plugin, Pod, Running, StoreKind};
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

const V6_POOL: (&str, &str) = ("CALICO_IPV6POOL_CIDR", "fd00:10::/64");

/// Waits until a pod reaches an address.
#[track_caller]
fn reaches(pod: &Pod, address: &str) {
    eventually(
        &format!("{} reaches {address}", pod.namespace),
        Duration::from_secs(10),
        || pod.pings(address, 1),
    );
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_the_fabric_sees_node_macs_only() {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[V6_POOL, ("IP6", "autodetect")]))
        .collect();
    let (one, two) = (lab.pod(), lab.pod());
    let first = addresses(&dual(lab.node(1), &store).add("c1", &one));
    let second = addresses(&dual(lab.node(2), &store).add("c2", &two));
    for address in &second {
        reaches(&one, address);
    }
    let capture = lab.dir().join("fabric.pcap");
    let mut tcpdump = margay_integration::process::inside(&lab.fabric(), "tcpdump");
    tcpdump
        .args(["-i", "br0", "-U", "-s", "96", "-w"])
        .arg(&capture);
    let mut tcpdump = Running::start(&mut tcpdump, &lab.dir().join("tcpdump.log"));
    eventually("tcpdump listens", Duration::from_secs(10), || {
        tcpdump.log().contains("listening on")
    });
    for (from, to) in [(&one, &second), (&two, &first)] {
        for address in to {
            assert!(from.pings(address, 5), "{address}");
        }
    }
    let node_macs = macs_of(&lab);
    let read = format!("tcpdump -nn -e -r {}", capture.display());
    let mut shown = String::new();
    eventually(
        "all forty frames are captured",
        Duration::from_secs(10),
        || {
            shown = margay_integration::process::words(&read).stdout;
            shown.matches("echo re").count() >= 40
        },
    );
    tcpdump.signal(Signal::SIGINT);
    tcpdump.wait(Duration::from_secs(5));
    for line in shown.lines().filter(|line| line.contains("echo re")) {
        let source = line.split_whitespace().nth(1).unwrap();
        let target = line
            .split_whitespace()
            .nth(3)
            .unwrap()
            .trim_end_matches(',');
        assert!(
            node_macs.contains(source) && node_macs.contains(target),
            "{line}\n{node_macs:?}"
        );
        assert!(
            first
                .iter()
                .chain(&second)
                .any(|address| line.contains(address)),
            "translated: {line}"
        );
    }
    for (node, pod, container) in [(lab.node(1), &one, "c1"), (lab.node(2), &two, "c2")] {
        dual(node, &store).del(container, pod);
    }
}

/// `/sys` shows the machine's interfaces, whatever the namespace: ask `ip`.
fn macs_of(lab: &Lab) -> BTreeSet<String> {
    lab.nodes()
        .map(|node| node.run("ip -o link show eth0").ok())
        .filter_map(|line| {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word != "link/ether");
            words.nth(1).map(str::to_owned)
        })
        .collect()
}

#[test]
fn routes_are_as_the_quickstart_promises_and_come_back_when_deleted() {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[]))
        .collect();
    let (one, two) = (lab.pod(), lab.pod());
    let here = addresses(&Plugin::new(lab.node(1), &store).add("c1", &one)).remove(0);
    let there = addresses(&Plugin::new(lab.node(2), &store).add("c2", &two)).remove(0);
    reaches(&one, &there);
    let routes = || lab.node(1).run("ip route").ok();
    let table = routes();
    let via = format!("via {}", lab.node(2).ipv4());
    let remote = table
        .lines()
        .find(|line| line.contains(&via))
        .unwrap_or_else(|| panic!("{table}"));
    assert!(
        remote.contains("/26") && remote.starts_with("192.168."),
        "{remote}"
    );
    let local = table
        .lines()
        .find(|line| line.starts_with(&here))
        .unwrap_or_else(|| panic!("{table}"));
    assert!(
        local.contains("dev cali") && local.contains("scope link"),
        "{local}"
    );
    assert!(
        table
            .lines()
            .any(|line| line.starts_with("blackhole 192.168.")),
        "{table}"
    );
    for line in [remote, local] {
        let destination = line.split_whitespace().next().unwrap();
        assert!(
            lab.node(1)
                .run(&format!("ip route del {destination}"))
                .success()
        );
        eventually(
            &format!("{destination} is back"),
            Duration::from_secs(2),
            || routes().lines().any(|now| now.trim() == line.trim()),
        );
    }
    let neighbour = lab.node(1).run("ip neigh show nud permanent").ok();
    assert!(neighbour.contains(&here), "{neighbour}");
}

#[test]
fn pods_reach_the_gateway_without_a_default_route() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let accept = ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept");
    let _agent = Agent::start(lab.node(1), &store, &[accept]);
    assert!(!lab.node(1).run("ip route").ok().contains("default"));
    let pod = lab.pod();
    Plugin::new(lab.node(1), &store).add("c1", &pod);
    // A pod without the permanent entry, as other plugins make it, must resolve the gateway by ARP.
    assert!(pod.run("ip neigh flush all").success());
    assert!(pod.run("ip neigh del 169.254.1.1 dev eth0").code >= 0);
    eventually("the gateway answers ARP", Duration::from_secs(5), || {
        pod.pings(&lab.node(1).ipv4().to_string(), 1)
            && pod
                .run("ip neigh show 169.254.1.1")
                .stdout
                .contains("ee:ee:ee:ee:ee:ee")
    });
}

#[test]
fn the_first_packet_after_an_add_arrives() {
    let lab = Lab::new(3);
    let store = sqlite(&lab);
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[]))
        .collect();
    // Side by side, so that the kernel's workers have other things to do.
    std::thread::scope(|scope| {
        for node in lab.nodes() {
            let (lab, store) = (&lab, &store);
            scope.spawn(move || {
                let plugin = Plugin::new(node, store);
                for n in 0..20 {
                    let (pod, id) = (lab.pod(), format!("c{}-{n}", node.number));
                    let address = addresses(&plugin.add(&id, &pod)).remove(0);
                    let ping = node.run(&format!("ping -n -q -c 1 -W 1 {address}"));
                    assert!(ping.success(), "{id}: {}", ping.stdout);
                    plugin.del(&id, &pod);
                    pod.delete();
                }
            });
        }
    });
}

/// Eight nodes assign fifty addresses each, all at once; every address is different.
fn four_hundred_at_once(pools: &str, etcd: bool) {
    let lab = Lab::new(8);
    let cluster = etcd.then(|| Etcd::start(&lab));
    let store = cluster.as_ref().map_or_else(|| sqlite(&lab), Etcd::store);
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[("NO_DEFAULT_POOLS", "true")]))
        .collect();
    let _ = store
        .ctl(Some(&lab.fabric()), &["create", "-f", "-"], pools)
        .ok();
    let results: Vec<(String, String)> = std::thread::scope(|scope| {
        let workers: Vec<_> = lab
            .nodes()
            .flat_map(|node| (0..5).map(move |worker| (node, worker)))
            .map(|(node, worker)| {
                let store = &store;
                scope.spawn(move || {
                    let mut plugin = Plugin::new(node, store).with(json!({"type": "other"}));
                    plugin.program = "margay-ipam";
                    (0..10)
                        .map(|n| {
                            let id = format!("c{}-{worker}-{n}", node.number);
                            let output = plugin.call("ADD", &id, "/run/netns/none");
                            assert!(
                                output.success(),
                                "{id}: {} {}",
                                output.stdout,
                                output.stderr
                            );
                            let address = output.json()["ips"][0]["address"]
                                .as_str()
                                .unwrap()
                                .to_owned();
                            (id, address.split('/').next().unwrap().to_owned())
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    let different: BTreeSet<&String> = results.iter().map(|(_, address)| address).collect();
    assert_eq!((results.len(), different.len()), (400, 400));
    let checked = store.ctl(Some(&lab.fabric()), &["ipam", "show"], "").ok();
    assert!(checked.contains("400"), "{checked}");
    std::thread::scope(|scope| {
        for chunk in results.chunks(50) {
            let (lab, store) = (&lab, &store);
            scope.spawn(move || {
                for (id, _) in chunk {
                    let number: usize = id[1..2].parse().unwrap();
                    let mut plugin =
                        Plugin::new(lab.node(number), store).with(json!({"type": "other"}));
                    plugin.program = "margay-ipam";
                    assert!(plugin.call("DEL", id, "").success());
                }
            });
        }
    });
    let checked = store.ctl(Some(&lab.fabric()), &["ipam", "check"], "");
    assert!(
        checked.success() && !checked.stdout.contains("leak"),
        "{checked:?}"
    );
}

fn pool(cidr: &str, size: u8) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool}}\n\
         spec: {{cidr: {cidr}, blockSize: {size}}}\n"
    )
}

#[test]
fn eight_nodes_times_fifty_pods_on_sqlite() {
    four_hundred_at_once(&pool("10.40.0.0/16", 26), false);
}

#[test]
fn eight_nodes_times_fifty_pods_on_etcd() {
    four_hundred_at_once(&pool("10.40.0.0/16", 26), true);
}

#[test]
fn eight_nodes_times_fifty_pods_with_fewer_blocks_than_nodes() {
    // Four blocks of 128 addresses: half of the nodes can only borrow.
    four_hundred_at_once(&pool("10.40.0.0/23", 25), true);
}

#[test]
fn one_of_three_etcd_members_is_killed() {
    let lab = Lab::new(2);
    let mut cluster = Cluster::start(&lab, 3);
    let store = cluster.store();
    let _agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[]))
        .collect();
    let (before, after, there) = (lab.pod(), lab.pod(), lab.pod());
    let plugin = Plugin::new(lab.node(1), &store);
    plugin.add("before", &before);
    cluster.members[0].process.kill();
    let address = addresses(&plugin.add("after", &after)).remove(0);
    let remote = addresses(&Plugin::new(lab.node(2), &store).add("there", &there)).remove(0);
    reaches(&there, &address);
    reaches(&before, &remote);
    plugin.del("before", &before);
    plugin.del("after", &after);
    let endpoints = store
        .ctl(Some(&lab.fabric()), &["get", "wep", "-A", "-o", "name"], "")
        .ok();
    assert!(
        !endpoints.contains("before") && endpoints.contains("there"),
        "{endpoints}"
    );
}

#[test]
fn an_agent_killed_under_continuous_ping_loses_nothing() {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let mut agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &[]))
        .collect();
    let (one, two) = (lab.pod(), lab.pod());
    Plugin::new(lab.node(1), &store).add("c1", &one);
    let address = addresses(&Plugin::new(lab.node(2), &store).add("c2", &two)).remove(0);
    reaches(&one, &address);
    let mut ping = margay_integration::process::inside(&one.namespace, "ping");
    ping.args(["-n", "-q", "-i", "0.01", "-c", "600", "-W", "1", &address]);
    let log = lab.dir().join("ping.log");
    let mut ping = Running::start(&mut ping, &log);
    let mut monitor = lab.node(1).command("ip");
    monitor.args(["-o", "monitor", "route"]);
    let mut monitor = Running::start(&mut monitor, &lab.dir().join("monitor.log"));
    for round in 0..2 {
        for number in [1, 2] {
            agents[number - 1].process.kill();
            std::thread::sleep(Duration::from_millis(300));
            agents[number - 1] = Agent::start(lab.node(number), &store, &[]);
            assert!(round < 2);
        }
    }
    assert_eq!(ping.wait(Duration::from_secs(30)), 0, "{}", ping.log());
    assert!(ping.log().contains("600 received"), "{}", ping.log());
    std::thread::sleep(Duration::from_millis(500));
    monitor.kill();
    let changed: Vec<String> = monitor
        .log()
        .lines()
        .filter(|line| line.contains("192.168.") || line.contains("cali"))
        .map(str::to_owned)
        .collect();
    assert!(
        changed.is_empty(),
        "a restart changed routes that were right: {changed:#?}"
    );
}

#[test]
fn a_name_that_another_machine_holds_is_refused() {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let _first = Agent::start(lab.node(1), &store, &[("MARGAY_MACHINE_ID", "machine-one")]);
    let mut second = lab
        .node(2)
        .command(margay_integration::process::program("margay-agent"));
    second
        .args(["--nodename", "n1", "--state-dir"])
        .arg(lab.node(2).dir().join("state"))
        .arg("--run-dir")
        .arg(lab.node(2).dir().join("run"))
        .envs(store.environment())
        .env("MARGAY_MACHINE_ID", "machine-two");
    let mut second = Running::start(&mut second, &lab.dir().join("second.log"));
    assert_ne!(second.wait(Duration::from_secs(20)), 0);
    let log = second.log();
    assert!(
        log.contains("n1") && log.contains("another machine"),
        "{log}"
    );
}
