//! The agent's own speaker beside BIRD and FRR: reflection in both roles, TTL security, and what
//! `calicoctl node status` reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Frr, Lab, Plugin, Pod, Router, StoreKind, run};

/// A lab with a store, of which resources can be told.
struct Stage {
    store: StoreKind,
    lab: Lab,
}

impl Stage {
    fn new(lab: Lab) -> Self {
        Self {
            store: StoreKind::Sqlite(lab.dir().join("store.db")),
            lab,
        }
    }

    fn ctl(&self, arguments: &[&str], document: &str) {
        let told = self
            .store
            .ctl(Some(&self.lab.fabric()), arguments, document);
        let _ = told.ok();
    }

    /// No mesh, and peers of so many names and specifications.
    fn peers(&self, peers: &[(&str, &str)]) {
        let mut documents = String::from(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
             spec: {nodeToNodeMeshEnabled: false}\n",
        );
        for (name, spec) in peers {
            documents += &format!(
                "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\n\
                 metadata: {{name: {name}}}\nspec: {{{spec}}}\n"
            );
        }
        self.ctl(&["apply", "-f", "-"], &documents);
    }

    /// An agent on each node.
    fn agents(&self, settings: &[(&str, &str)]) -> Vec<Agent> {
        let nodes = self.lab.nodes();
        nodes
            .map(|node| Agent::start(node, &self.store, settings))
            .collect()
    }

    /// A pod on each node, and the block of each: the address without its last part.
    fn pods(&self) -> Vec<(Pod, String)> {
        let pods = self.lab.nodes().map(|node| {
            let pod = self.lab.pod();
            let plugin = Plugin::new(node, &self.store);
            let address = addresses(&plugin.add(&format!("c{}", node.number), &pod)).remove(0);
            (pod, address)
        });
        pods.collect()
    }
}

/// What begins every configuration of BIRD here.
fn bird(router_id: &str, protocols: &str) -> String {
    format!("router id {router_id};\nlog stderr all;\nprotocol device {{}}\n{protocols}")
}

/// Waits until all these words are in what is shown.
#[track_caller]
fn shows(what: &str, show: impl Fn() -> String, wanted: &[&str]) {
    let last = std::cell::RefCell::new(String::new());
    let all = || {
        let shown = show();
        let all = wanted.iter().all(|words| shown.contains(words));
        *last.borrow_mut() = shown;
        all
    };
    let until = std::time::Instant::now() + PATIENCE;
    while !all() {
        let last = last.borrow();
        assert!(
            std::time::Instant::now() < until,
            "{what}: not {wanted:?} in {last}"
        );
        drop(last);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn we_reflect_between_bird_and_frr() {
    let stage = Stage::new(Lab::new(1));
    let node = stage.lab.node(1).ipv4().to_string();
    let bird = Router::on(
        &stage.lab,
        0,
        "bird",
        &["172.31.200.1/16"],
        &bird(
            "172.31.200.1",
            &format!(
                "protocol static {{ ipv4; route 192.168.200.0/26 blackhole; }}
                 protocol bgp agent {{
                     local 172.31.200.1 as 64512; neighbor {node} as 64512; {TIMES}
                     ipv4 {{ import all; export all; }};
                 }}"
            ),
        ),
    );
    let mut frr = Frr::on(
        &stage.lab,
        0,
        "frr",
        &["172.31.200.2/16"],
        &format!(
            "router bgp 64512
              bgp router-id 172.31.200.2
              no bgp network import-check
              neighbor {node} remote-as 64512
              neighbor {node} timers 3 9
              neighbor {node} timers connect 1
              address-family ipv4 unicast
               network 192.168.201.0/26
              exit-address-family"
        ),
    );
    let agents = stage.agents(&[]);
    let pods = stage.pods();
    let cluster = r#"{"spec": {"bgp": {"routeReflectorClusterID": "244.0.0.1"}}}"#;
    stage.ctl(&["patch", "node", "n1", "-p", cluster], "");
    stage.peers(&[
        ("bird", "peerIP: 172.31.200.1, asNumber: 64512"),
        ("frr", "peerIP: 172.31.200.2, asNumber: 64512"),
    ]);
    // Each client has the other's route as its reflector passes it on, and the reflector's own.
    shows(
        "BIRD has FRR's route",
        || bird.birdc("show route 192.168.201.0/26 all"),
        &[
            "BGP.next_hop: 172.31.200.2",
            "BGP.originator_id: 172.31.200.2",
            "BGP.cluster_list: 244.0.0.1",
        ],
    );
    shows(
        "FRR has BIRD's route",
        || frr.vtysh("show bgp ipv4 unicast 192.168.200.0/26"),
        &[
            "172.31.200.1 ",
            "Originator: 172.31.200.1, Cluster list: 244.0.0.1",
        ],
    );
    let block = pods[0].1.clone();
    let via_node = format!("BGP.next_hop: {node}");
    shows(
        "BIRD has the node's block",
        || bird.birdc(&format!("show route for {block} all")),
        &["/26", &via_node],
    );
    shows(
        "the node has both routes",
        || stage.lab.node(1).run("ip route show proto 80").ok(),
        &[
            "192.168.200.0/26 via 172.31.200.1",
            "192.168.201.0/26 via 172.31.200.2",
        ],
    );
    // One client is killed, and does not speak graceful restart: its route goes.
    frr.process.kill();
    eventually("BIRD forgets FRR's route", PATIENCE, || {
        let shown = bird.birdc("show route 192.168.201.0/26");
        !shown.contains("172.31.200.2")
    });
    let told = agents[0].told(&["bgp", "peers"]);
    assert!(told.contains("Established"), "{told}");
}

#[test]
fn we_are_clients_of_birds_reflector() {
    let stage = Stage::new(Lab::new(2));
    let clients = [
        stage.lab.node(1).ipv4().to_string(),
        stage.lab.node(2).ipv4().to_string(),
        "172.31.200.2".to_owned(),
    ];
    let mut protocols = String::new();
    for (number, client) in clients.iter().enumerate() {
        protocols += &format!(
            "protocol bgp c{number} {{
                 local 172.31.200.1 as 64512; neighbor {client} as 64512; {TIMES}
                 rr client; rr cluster id 2.2.2.2;
                 ipv4 {{ import all; export all; }};
             }}\n"
        );
    }
    let reflector = Router::on(
        &stage.lab,
        0,
        "rr",
        &["172.31.200.1/16"],
        &bird("172.31.200.1", &protocols),
    );
    let frr = Frr::on(
        &stage.lab,
        0,
        "frr",
        &["172.31.200.2/16"],
        "router bgp 64512
          bgp router-id 172.31.200.2
          no bgp network import-check
          neighbor 172.31.200.1 remote-as 64512
          neighbor 172.31.200.1 timers connect 1
          address-family ipv4 unicast
           network 10.67.0.0/24
          exit-address-family",
    );
    let agents = stage.agents(&[]);
    let pods = stage.pods();
    stage.peers(&[("reflector", "peerIP: 172.31.200.1, asNumber: 64512")]);
    // What FRR tells reaches the nodes' kernels through the reflector, with FRR as the next hop.
    for node in stage.lab.nodes() {
        shows(
            "a route through the reflector",
            || node.run("ip route show proto 80").ok(),
            &["10.67.0.0/24 via 172.31.200.2"],
        );
    }
    // What a node tells reaches FRR and the other node.
    for (far, (_, address)) in pods.iter().enumerate() {
        let block = format!("{}/26", network(address));
        let question = format!("show bgp ipv4 unicast {block}");
        let origin = format!("Originator: {}, Cluster list: 2.2.2.2", clients[far]);
        shows("FRR has the block", || frr.vtysh(&question), &[&origin]);
        let near = &agents[1 - far];
        let received = || near.told(&["bgp", "routes", "--received", "172.31.200.1"]);
        eventually("the other node has the block", PATIENCE, || {
            received().lines().any(|line| {
                line.starts_with(&block)
                    && line.contains(&clients[far])
                    && !line.contains("rejected")
            })
        });
    }
    let told = reflector.birdc("show protocols");
    assert_eq!(told.matches("Established").count(), 3, "{told}");
    assert!(pods[0].0.pings(&pods[1].1, 3));
}

/// The /26 that an address is in.
fn network(address: &str) -> String {
    let (head, last) = address.rsplit_once('.').unwrap();
    let last: u8 = last.parse().unwrap();
    format!("{head}.{}", last & 0xc0)
}

#[test]
fn ttl_security_takes_the_right_distance_alone() {
    // Between the node and BIRD is one router: packets that leave with a TTL of 255 come with 254.
    let stage = Stage::new(Lab::routed(1));
    let node = stage.lab.node(1).ipv4().to_string();
    let session = |security: &str| {
        bird(
            "172.31.1.200",
            &format!(
                "protocol static {{ ipv4; route 10.66.0.0/24 blackhole; }}
                 protocol bgp agent {{
                     local 172.31.1.200 as 65001; neighbor {node} as 64512; {TIMES}
                     multihop 2; {security}
                     ipv4 {{ import all; export all; next hop self; }};
                 }}"
            ),
        )
    };
    let secured = session("ttl security on;");
    let router = Router::on(&stage.lab, 1, "far", &["172.31.1.200/24"], &secured);
    let mut route = inside(&router.namespace, "ip");
    route.args(["route", "add", "172.31.0.0/24", "via", "172.31.1.254"]);
    let _ = run(&mut route, b"").ok();
    let agents = stage.agents(&[]);
    let allow = |hops: u8| {
        let spec = format!("peerIP: 172.31.1.200, asNumber: 65001, ttlSecurity: {hops}");
        stage.peers(&[("far", &spec)]);
    };
    let status = || agents[0].told(&["node", "status"]);
    // Packets that come from too far are as if they had not come at all.
    let refused = |what: &str| {
        eventually(what, PATIENCE, || {
            let status = status();
            let heard_nothing = ["TCP: no answer", "hold timer expired"];
            let mut errors = heard_nothing
                .map(|error| format!("172.31.1.200: {error}"))
                .into_iter();
            !status.contains("Established") && errors.any(|error| status.contains(&error))
        });
        assert_eq!(router.established(), 0, "{what}");
    };
    allow(1);
    refused("one hop is allowed, and it is two away");
    allow(2);
    let established = ["172.31.1.200", "Established"];
    shows("two hops are allowed", status, &established);
    shows(
        "a route",
        || agents[0].told(&["bgp", "routes", "--received", "172.31.1.200"]),
        &["10.66.0.0/24"],
    );
    // A peer that does not send with 255 is as one that is far away.
    router.configure(&session("ttl security off;"));
    refused("the peer does not secure its TTL");
}

/// A row of `calicoctl node status`.
#[derive(Debug, PartialEq)]
struct Row {
    address: String,
    kind: &'static str,
    state: String,
    since: String,
    info: String,
}

/// Asks a socket of BIRD's for the peers, as calicoctl does, and reads the answer as it does
/// (`calicoctl/commands/node/status.go`): by lines, which begin with a code of four digits or, after
/// the first of several, with a space; rows have six words at least, of which the second is BGP and the
/// first a kind of peer and an address with `_` between its parts.
fn calicoctl(socket: &std::path::Path, separator: &str) -> Vec<Row> {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It waits for two seconds, which a loaded machine may need for itself.
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"show protocols\n").unwrap();
    let (mut rows, mut greeted, mut headed) = (Vec::new(), false, false);
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        let behind = line.get(5..).unwrap_or_default();
        match line.get(..4).unwrap_or(&line) {
            "0000" => {
                assert!(greeted && headed, "{line:?} before the rest");
                return rows;
            }
            "0001" => {
                assert!(behind.starts_with("BIRD ") && behind.ends_with(" ready."));
                greeted = true;
            }
            "2002" => {
                let words: Vec<_> = behind.split_whitespace().collect();
                assert_eq!(words, ["name", "proto", "table", "state", "since", "info"]);
                headed = true;
            }
            "1002" => rows.extend(row(behind, separator)),
            _ if line.starts_with(' ') => rows.extend(row(&line[1..], separator)),
            _ => panic!("unexpected output line from BIRD: {line:?}"),
        }
    }
    panic!("no end: {rows:?}");
}

fn row(line: &str, separator: &str) -> Option<Row> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, "BGP", _, state, since, info @ ..] = words.as_slice() else {
        return None;
    };
    if info.is_empty() {
        return None;
    }
    let (kind, address) = name.split_once('_')?;
    let kind = match kind {
        "Global" => "global",
        "Mesh" => "node-to-node mesh",
        "Node" => "node specific",
        _ => return None,
    };
    Some(Row {
        address: address.replace('_', separator),
        kind,
        state: (*state).to_owned(),
        since: (*since).to_owned(),
        info: info.join(" "),
    })
}

#[test]
fn calicoctl_reads_peers_of_every_kind_and_family() {
    let stage = Stage::new(Lab::new(2));
    let own = stage.lab.node(1);
    let protocol = |name: &str, local: &str, node: std::net::IpAddr, channel: &str| {
        format!(
            "protocol bgp {name} {{
                 local {local} as 65001; neighbor {node} as 64512; {TIMES}
                 {channel} {{ import all; export none; }};
             }}\n"
        )
    };
    let protocols = protocol("four", "172.31.200.1", own.ipv4(), "ipv4")
        + &protocol("six", "fd31::c8", own.ipv6(), "ipv6");
    let _router = Router::on(
        &stage.lab,
        0,
        "tor",
        &["172.31.200.1/16", "fd31::c8/64"],
        &bird("172.31.200.1", &protocols),
    );
    let agents = stage.agents(&[
        ("IP6", "autodetect"),
        ("CALICO_IPV6POOL_CIDR", "fd00:10::/64"),
    ]);
    stage.peers(&[
        (
            "tor4",
            "node: n1, peerIP: 172.31.200.1, asNumber: 65001, keepaliveTime: 3s",
        ),
        (
            "tor6",
            "peerIP: \"fd31::c8\", asNumber: 65001, keepaliveTime: 3s",
        ),
        // Nobody is there.
        ("nobody", "peerIP: 172.31.200.9, asNumber: 65009"),
    ]);
    let mesh = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\n\
                metadata: {name: default}\nspec: {nodeToNodeMeshEnabled: true}\n";
    stage.ctl(&["apply", "-f", "-"], mesh);
    let far = stage.lab.node(2);
    let asked = |name: &str, separator: &str| {
        let rows = calicoctl(&agents[0].run_dir.join(name), separator);
        let shown = |row: &Row| {
            // A time of day, or a date.
            let parts = row.since.split([':', '-']).count();
            assert_eq!(parts, 3, "{row:?}");
            let up = row.info == "Established";
            assert_eq!(row.state, if up { "up" } else { "start" }, "{row:?}");
            (row.address.clone(), row.kind, up)
        };
        let mut shown: Vec<_> = rows.iter().map(shown).collect();
        shown.sort();
        shown
    };
    let mut four = vec![
        ("172.31.200.1".to_owned(), "node specific", true),
        ("172.31.200.9".to_owned(), "global", false),
        (far.ipv4().to_string(), "node-to-node mesh", true),
    ];
    four.sort();
    let mut six = vec![
        ("fd31::c8".to_owned(), "global", true),
        (far.ipv6().to_string(), "node-to-node mesh", true),
    ];
    six.sort();
    for (name, separator, expected) in [("bird.ctl", ".", four), ("bird6.ctl", ":", six)] {
        shows(
            name,
            || format!("{:?}", asked(name, separator)),
            &[&format!("{expected:?}")],
        );
    }
    // Why there is no session is told behind its state.
    eventually("a reason", PATIENCE, || {
        let rows = calicoctl(&agents[0].run_dir.join("bird.ctl"), ".");
        let row = rows.iter().find(|row| row.address == "172.31.200.9");
        row.is_some_and(|row| row.info.contains("TCP: "))
    });
    // Without peers there is a heading and no row.
    for peer in ["tor4", "tor6", "nobody"] {
        stage.ctl(&["delete", "bgppeer", peer], "");
    }
    stage.peers(&[]);
    for (name, separator) in [("bird.ctl", "."), ("bird6.ctl", ":")] {
        eventually("no peers", PATIENCE, || {
            calicoctl(&agents[0].run_dir.join(name), separator).is_empty()
        });
    }
}

const TIMES: &str = "hold time 9; keepalive time 3; connect delay time 1; connect retry time 1; \
    error wait time 1, 2;";
/// Many times what any of these takes.
const PATIENCE: Duration = Duration::from_secs(120);
