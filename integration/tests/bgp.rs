//! Pods across racks by BGP: agents as speakers, BIRD as routers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Lab, Node, Plugin, Pod, Routers, Running, StoreKind};
use serde_json::json;

fn sqlite(lab: &Lab) -> StoreKind {
    StoreKind::Sqlite(lab.dir().join("store.db"))
}

fn ctl(lab: &Lab, store: &StoreKind, arguments: &[&str], document: &str) -> String {
    store.ctl(Some(&lab.fabric()), arguments, document).ok()
}

/// What a node's agent tells.
fn told(agent: &Agent, arguments: &[&str]) -> String {
    agent.told(arguments)
}

#[track_caller]
fn reaches(pod: &Pod, address: &str) {
    eventually(
        &format!("{} reaches {address}", pod.namespace),
        Duration::from_secs(30),
        || pod.pings(address, 1),
    );
}

/// What speaks BGP for the agents of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    Margay,
    Bird,
    Gobgp,
}

impl Backend {
    /// The setting of an agent, with more of them.
    fn with<'a>(self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let name = match self {
            Self::Margay => "margay",
            Self::Bird => "bird",
            Self::Gobgp => "gobgp",
        };
        let own = std::iter::once(("MARGAY_BGP_BACKEND", name));
        own.chain(more.iter().copied()).collect()
    }

    /// By whose number a node's learned routes are in the kernel.
    fn protocol(self) -> &'static str {
        match self {
            Self::Margay | Self::Gobgp => "80",
            Self::Bird => "bird",
        }
    }
}

/// The same tests for each backend.
macro_rules! with_each_backend {
    ($($test:ident),* $(,)?) => {
        mod by_the_agent_itself { $(#[test] fn $test() { super::$test(super::Backend::Margay); })* }
        mod by_bird { $(#[test] fn $test() { super::$test(super::Backend::Bird); })* }
        mod by_gobgp { $(#[test] fn $test() { super::$test(super::Backend::Gobgp); })* }
    };
}

with_each_backend!(
    pods_reach_pods_across_racks_with_an_as_per_rack,
    pods_reach_pods_across_racks_with_an_as_per_node,
    a_router_dies_and_traffic_moves,
    agents_killed_terminated_and_upgraded_lose_nothing,
    nodes_of_one_mesh_tell_each_other_and_birds_clients_are_answered,
    filters_change_what_is_taken_and_told_without_a_new_session,
    a_reflector_passes_on_what_its_clients_tell,
    a_mesh_of_both_families_keeps_a_password,
    a_workload_is_a_router,
);

/// Nodes in two racks, each with sessions to both routers of its rack; a pod on each.
struct Racks {
    pods: Vec<(Pod, String)>,
    agents: Vec<Agent>,
    routers: Routers,
    store: StoreKind,
    backend: Backend,
    lab: Lab,
}

impl Racks {
    /// Each node is of the AS that `as_number` says.
    fn start(backend: Backend, nodes: usize, as_number: impl Fn(Node<'_>) -> u32) -> Self {
        let lab = Lab::racks(nodes);
        let routers = Routers::start(&lab);
        let store = sqlite(&lab);
        let agents: Vec<Agent> = lab
            .nodes()
            .map(|node| {
                let as_number = as_number(node).to_string();
                Agent::start(node, &store, &backend.with(&[("AS", &as_number)]))
            })
            .collect();
        for node in lab.nodes() {
            let (name, label) = (node.name(), format!("rack=r{}", node.subnet()));
            ctl(&lab, &store, &["label", "node", &name, &label], "");
        }
        let mut documents = String::from(
            "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
             spec: {nodeToNodeMeshEnabled: false}\n",
        );
        for rack in 0..2 {
            for (number, address) in Routers::addresses(rack).iter().enumerate() {
                documents += &format!(
                    "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\n\
                     metadata: {{name: rack{rack}-tor{number}}}\n\
                     spec: {{nodeSelector: rack == 'r{rack}', peerIP: {address}, asNumber: {}}}\n",
                    65001 + rack
                );
            }
        }
        ctl(&lab, &store, &["apply", "-f", "-"], &documents);
        let pods = lab
            .nodes()
            .map(|node| {
                let pod = lab.pod();
                let added = Plugin::new(node, &store).add(&format!("c{}", node.number), &pod);
                (pod, addresses(&added).remove(0))
            })
            .collect();
        Self {
            pods,
            agents,
            routers,
            store,
            backend,
            lab,
        }
    }

    fn all_reach_all(&self) {
        for (from, _) in &self.pods {
            for (_, to) in &self.pods {
                reaches(from, to);
            }
        }
    }

    /// A route of a node's kernel to the block of a pod.
    fn route(&self, node: usize, pod: usize) -> String {
        let address = &self.pods[pod - 1].1;
        let protocol = self.backend.protocol();
        let line = format!("ip route show match {address} proto {protocol}");
        self.lab.node(node).run(&line).ok()
    }

    /// A ping a hundred times a second from the first pod to the last, counted.
    fn ping(&self, count: u32) -> Running {
        let (from, to) = (&self.pods[0].0, &self.pods.last().unwrap().1);
        let mut ping = inside(&from.namespace, "ping");
        let count = count.to_string();
        ping.args(["-n", "-q", "-i", "0.01", "-W", "1", "-c", &count, to]);
        Running::start(&mut ping, &self.lab.dir().join("ping.log"))
    }
}

/// How many of the pings that were sent were answered.
fn answered(mut ping: Running) -> u32 {
    ping.wait(Duration::from_secs(120));
    let log = ping.log();
    let before = log.split(" received").next().unwrap();
    before
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{log}"))
}

fn pods_reach_pods_across_racks_with_an_as_per_rack(backend: Backend) {
    let racks = Racks::start(backend, 4, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    // Node 2 is in the other rack: its block comes from both routers, as one route.
    let both = || {
        let route = racks.route(1, 2);
        let via = |router: &String| route.contains(&format!("nexthop via {router}"));
        Routers::addresses(0).iter().all(via)
    };
    eventually("both routers are used", Duration::from_secs(30), both);
    // Node 3 is in the same rack, and no router is between.
    let address = &racks.pods[2].1;
    let route = format!("ip route show match {address} proto 80");
    let route = racks.lab.node(1).run(&route).ok();
    let near = format!("via {} dev eth0", racks.lab.node(3).ipv4());
    assert!(route.contains(&near), "{route}");
    // People see it.
    let announced_by = match backend {
        Backend::Margay | Backend::Gobgp => "announced by Node_172_31_0_25",
        Backend::Bird => "announced by a BGP peer, kept by BIRD",
    };
    for word in ["node specific", "Established", "172.31.0.253", announced_by] {
        eventually(word, Duration::from_secs(30), || {
            told(&racks.agents[0], &["node", "status"]).contains(word)
        });
    }
    let received = told(
        &racks.agents[0],
        &["bgp", "routes", "--received", "172.31.0.253"],
    );
    assert!(received.contains("65001 65000 65002 65102"), "{received}");
    let advertised = told(
        &racks.agents[0],
        &["bgp", "routes", "--advertised", "172.31.0.253"],
    );
    assert!(advertised.contains("/26"), "{advertised}");
}

fn pods_reach_pods_across_racks_with_an_as_per_node(backend: Backend) {
    let racks = Racks::start(backend, 2, |node| {
        65200 + u32::try_from(node.number).unwrap()
    });
    racks.all_reach_all();
}

fn a_router_dies_and_traffic_moves(backend: Backend) {
    let mut racks = Racks::start(backend, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    let both = |racks: &Racks| racks.route(1, 2).matches("nexthop").count();
    eventually("both routers are used", Duration::from_secs(20), || {
        both(&racks) == 2
    });
    racks.routers.of_rack(0)[0].die();
    // The hold time is nine seconds.
    eventually("one router is used", Duration::from_secs(40), || {
        let route = racks.route(1, 2);
        route.contains("via 172.31.0.252") && !route.contains("via 172.31.0.253")
    });
    racks.all_reach_all();
    eventually("the status tells why", Duration::from_secs(10), || {
        told(&racks.agents[0], &["node", "status"]).contains("172.31.0.253: ")
    });
    // From then on nothing is lost.
    let ping = racks.ping(200);
    assert_eq!(answered(ping), 200);
}

fn agents_killed_terminated_and_upgraded_lose_nothing(backend: Backend) {
    let mut racks = Racks::start(backend, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    eventually("both routers are used", Duration::from_secs(20), || {
        racks.route(1, 2).matches("nexthop").count() == 2
    });
    let ping = racks.ping(1500);
    for number in [1, 2] {
        for kill in [true, false] {
            let agent = &mut racks.agents[number - 1];
            if kill {
                agent.process.kill();
            } else {
                agent.process.stop();
            }
            std::thread::sleep(Duration::from_secs(1));
            let node = racks.lab.node(number);
            racks.agents[number - 1] = Agent::start(node, &racks.store, &backend.with(&[]));
            let agent = &racks.agents[number - 1];
            eventually("the sessions are back", Duration::from_secs(30), || {
                told(agent, &["bgp", "peers"])
                    .matches("Established")
                    .count()
                    == 2
            });
        }
    }
    assert_eq!(answered(ping), 1500);
}

fn nodes_of_one_mesh_tell_each_other_and_birds_clients_are_answered(backend: Backend) {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &backend.with(&[])))
        .collect();
    let pods: Vec<(Pod, String)> = lab
        .nodes()
        .map(|node| {
            let pod = lab.pod();
            let added = Plugin::new(node, &store).add(&format!("c{}", node.number), &pod);
            (pod, addresses(&added).remove(0))
        })
        .collect();
    reaches(&pods[0].0, &pods[1].1);
    let name = format!("Mesh_{}", lab.node(2).ipv4().to_string().replace('.', "_"));
    eventually("the mesh is up", Duration::from_secs(30), || {
        let told = told(&agents[0], &["bgp", "peers"]);
        told.contains("node-to-node mesh") && told.contains("Established")
    });
    eventually(
        "each knows the other's block",
        Duration::from_secs(20),
        || told(&agents[0], &["bgp", "routes", "--received", &name]).contains("/26"),
    );
    // The datastore knows better, so nothing fights: the route stays the plain one.
    let routes = lab.node(1).run("ip route show proto 80").ok();
    assert!(!routes.contains("metric 1024"), "{routes}");
    let socket = agents[0].run_dir.join("bird.ctl");
    let mut client = lab.node(1).command("birdc");
    client.arg("-s").arg(&socket).args(["show", "protocols"]);
    let shown = margay_integration::run(&mut client, b"").stdout;
    assert!(
        shown.contains(&name) && shown.contains("Established"),
        "{shown}"
    );
    // Without peers nothing listens.
    let listens = || lab.node(1).run("ss -Hltn sport = :179").ok();
    assert!(listens().contains(":179"), "{}", listens());
    let off = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
               spec: {nodeToNodeMeshEnabled: false}\n";
    ctl(&lab, &store, &["apply", "-f", "-"], off);
    eventually("nothing listens", Duration::from_secs(10), || {
        listens().trim().is_empty()
    });
    assert!(pods[0].0.pings(&pods[1].1, 3));
}

fn filters_change_what_is_taken_and_told_without_a_new_session(backend: Backend) {
    let mut racks = Racks::start(backend, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    let peers = |filters: &str| {
        let mut documents = String::new();
        for (number, address) in Routers::addresses(0).iter().enumerate() {
            documents += &format!(
                "---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {{name: rack0-tor{number}}}\n\
                 spec: {{nodeSelector: rack == 'r0', peerIP: {address}, asNumber: 65001, filters: [{filters}]}}\n"
            );
        }
        documents
    };
    let filter = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: ours}\nspec:\n  \
        importV4:\n  - {action: Reject, matchOperator: In, cidr: 192.168.0.0/16, source: RemotePeers}\n  \
        exportV4:\n  - action: Accept\n    matchOperator: In\n    cidr: 192.168.0.0/16\n    \
        prefixLength: {min: 24, max: 26}\n    operations:\n    - addCommunity: {value: '65101:7'}\n    \
        - addCommunity: {value: '65101:1:2'}\n    - prependASPath: {prefix: [65101, 65101]}\n";
    let document = format!("{filter}{}", peers("ours"));
    ctl(&racks.lab, &racks.store, &["apply", "-f", "-"], &document);
    eventually("nothing is taken", Duration::from_secs(30), || {
        racks.route(1, 2).trim().is_empty()
    });
    let told_of = ["bgp", "routes", "--received", "172.31.0.253"];
    eventually("the rejection is told", Duration::from_secs(30), || {
        told(&racks.agents[0], &told_of).contains("rejected: ")
    });
    let far = racks.pods[0].1.clone();
    let router = racks.routers.of_rack(0).remove(0);
    let shown = || router.birdc(&format!("show route for {far} all"));
    eventually("the router is told more", Duration::from_secs(30), || {
        let shown = shown();
        ["65101 65101 65101", "(65101,7)", "(65101, 1, 2)"]
            .iter()
            .all(|part| shown.contains(part))
    });
    ctl(&racks.lab, &racks.store, &["apply", "-f", "-"], &peers(""));
    racks.all_reach_all();
    eventually("the router is told less", Duration::from_secs(30), || {
        let shown = racks
            .routers
            .of_rack(0)
            .remove(0)
            .birdc(&format!("show route for {far} all"));
        shown.contains("BGP.as_path: 65101\n") && !shown.contains("(65101,7)")
    });
    let peers = told(&racks.agents[0], &["bgp", "peers", "-o", "json"]);
    assert!(!peers.contains("\"flaps\": 1"), "{peers}");
    assert_eq!(peers.matches("\"flaps\": 0").count(), 2, "{peers}");
}

fn a_reflector_passes_on_what_its_clients_tell(backend: Backend) {
    let lab = Lab::new(3);
    let store = sqlite(&lab);
    let agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &backend.with(&[])))
        .collect();
    let added = lab.nodes().map(|node| {
        let pod = lab.pod();
        let added = Plugin::new(node, &store).add(&format!("c{}", node.number), &pod);
        (pod, addresses(&added).remove(0))
    });
    let pods: Vec<(Pod, String)> = added.collect();
    let patch = r#"{"spec": {"bgp": {"routeReflectorClusterID": "244.0.0.1"}}}"#;
    ctl(&lab, &store, &["patch", "node", "n1", "-p", patch], "");
    ctl(&lab, &store, &["label", "node", "n1", "reflector=yes"], "");
    let documents = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
        spec: {nodeToNodeMeshEnabled: false}\n---\napiVersion: projectcalico.org/v3\nkind: BGPPeer\n\
        metadata: {name: to-reflectors}\n\
        spec: {nodeSelector: \"!has(reflector)\", peerSelector: has(reflector)}\n";
    ctl(&lab, &store, &["apply", "-f", "-"], documents);
    // Node 2 hears of node 3's block through the reflector alone, with node 3 as the next hop.
    let next_hop = lab.node(3).ipv4().to_string();
    let block = pods[2].1.rsplit_once('.').unwrap().0.to_owned();
    let reflector = lab.node(1).ipv4().to_string();
    let received = || told(&agents[1], &["bgp", "routes", "--received", &reflector]);
    eventually("the block is reflected", Duration::from_secs(60), || {
        let received = received();
        let mut lines = received.lines();
        lines.any(|line| {
            line.starts_with(&block) && line.contains(&next_hop) && !line.contains("rejected")
        })
    });
    eventually("there is one session", Duration::from_secs(30), || {
        let peers = told(&agents[1], &["bgp", "peers"]);
        peers.matches("Established").count() == 1
    });
    assert!(pods[1].0.pings(&pods[2].1, 3));
}

fn a_mesh_of_both_families_keeps_a_password(backend: Backend) {
    let lab = Lab::new(2);
    let store = sqlite(&lab);
    let secrets = lab.dir().join("secrets");
    std::fs::create_dir_all(secrets.join("bgp")).unwrap();
    std::fs::write(secrets.join("bgp/mesh"), "secret of the mesh\n").unwrap();
    let settings = [
        ("IP6", "autodetect"),
        ("CALICO_IPV6POOL_CIDR", "fd00:10::/64"),
        ("MARGAY_BGP_SECRETS_DIR", secrets.to_str().unwrap()),
    ];
    let agents: Vec<Agent> = lab
        .nodes()
        .map(|node| Agent::start(node, &store, &backend.with(&settings)))
        .collect();
    let document = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
        spec: {nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}}\n";
    ctl(&lab, &store, &["apply", "-f", "-"], document);
    let pods: Vec<(Pod, Vec<String>)> = lab
        .nodes()
        .map(|node| {
            let pod = lab.pod();
            let both = json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
            let plugin = Plugin::new(node, &store).with(both);
            let added = plugin.add(&format!("c{}", node.number), &pod);
            (pod, addresses(&added))
        })
        .collect();
    for far in [lab.node(2).ipv4(), lab.node(2).ipv6()] {
        let what = format!("the block comes from {far}");
        let length = if far.is_ipv4() { "/26" } else { "/122" };
        eventually(&what, Duration::from_secs(60), || {
            let far = far.to_string();
            let received = told(&agents[0], &["bgp", "routes", "--received", &far]);
            let mut lines = received.lines();
            lines.any(|line| line.contains(length) && !line.contains("rejected"))
        });
    }
    for address in &pods[1].1 {
        reaches(&pods[0].0, address);
    }
    // Who does not know the password has no session any more.
    let mut agents = agents;
    agents[1].process.stop();
    let other = lab.dir().join("other");
    std::fs::create_dir_all(other.join("bgp")).unwrap();
    std::fs::write(other.join("bgp/mesh"), "another").unwrap();
    let mut settings = settings;
    settings[2].1 = other.to_str().unwrap();
    agents[1] = Agent::start(lab.node(2), &store, &backend.with(&settings));
    eventually("no session is left", Duration::from_secs(150), || {
        let peers = told(&agents[1], &["bgp", "peers"]);
        peers.contains("fd31::") && !peers.contains("Established")
    });
}

/// A pod runs BIRD, connects to the node's presented address and announces what lies behind it.
fn a_workload_is_a_router(backend: Backend) {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let settings = [("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept")];
    let agent = Agent::start(lab.node(1), &store, &backend.with(&settings));
    let (router, client) = (lab.pod(), lab.pod());
    let plugin = Plugin::new(lab.node(1), &store);
    let address = addresses(&plugin.add("router", &router)).remove(0);
    plugin.add("client", &client);
    // What lies behind a workload sends by it.
    let names = ctl(&lab, &store, &["get", "wep", "-A", "-o", "name"], "");
    let name = names.lines().find(|name| name.contains("router")).unwrap();
    let name = name.rsplit('/').next().unwrap();
    let patch = json!({"spec": {"allowSpoofedSourcePrefixes": ["10.99.0.0/24"]}}).to_string();
    ctl(&lab, &store, &["patch", "wep", name, "-p", &patch], "");
    let documents = "apiVersion: projectcalico.org/v3\nkind: BGPConfiguration\nmetadata: {name: default}\n\
         spec: {localWorkloadPeeringIPV4: 169.254.0.179}\n---\n\
         apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: routers}\n\
         spec: {localWorkloadSelector: projectcalico.org/orchestrator == 'cni', asNumber: 65401}\n";
    ctl(&lab, &store, &["apply", "-f", "-"], documents);
    let _ = router.run("ip address add 10.99.0.1/32 dev lo").ok();
    let dir = lab.dir().join("workload");
    std::fs::create_dir_all(&dir).unwrap();
    let configuration = format!(
        "log stderr all;\nrouter id {address};\nprotocol device {{ }}\n\
         protocol static {{ ipv4; route 10.99.0.0/24 blackhole; }}\n\
         protocol bgp node {{ local {address} as 65401; neighbor 169.254.0.179 as 64512; multihop 64;\n\
         connect retry time 1; connect delay time 1; error wait time 1, 2;\n\
         ipv4 {{ import all; export all; }}; }}\n"
    );
    let (file, control) = (dir.join("bird.conf"), dir.join("bird.ctl"));
    std::fs::write(&file, configuration).unwrap();
    let mut bird = inside(&router.namespace, "bird");
    bird.arg("-f").arg("-c").arg(&file).arg("-s").arg(&control);
    let _bird = Running::start(
        bird.arg("-P").arg(dir.join("bird.pid")),
        &dir.join("bird.log"),
    );
    let name = format!("Local_Workload_{}", address.replace('.', "_"));
    eventually("the session is up", Duration::from_secs(60), || {
        let peers = told(&agent, &["bgp", "peers"]);
        let mut lines = peers.lines();
        lines.any(|line| line.contains(&address) && line.contains("Established"))
    });
    let peers = told(&agent, &["bgp", "peers", "-o", "json"]);
    assert!(
        peers.contains(&name) && peers.contains("local workload"),
        "{peers}"
    );
    let protocol = backend.protocol();
    let route = format!("ip route show 10.99.0.0/24 proto {protocol}");
    eventually("the route is there", Duration::from_secs(30), || {
        let route = lab.node(1).run(&route).ok();
        route.contains(&format!("via {address} dev cali"))
    });
    reaches(&client, "10.99.0.1");
    // Where it is not chosen any more, the address is taken from its interface.
    ctl(&lab, &store, &["delete", "bgppeer", "routers"], "");
    eventually("nothing is presented", Duration::from_secs(30), || {
        let addresses = lab.node(1).run("ip -4 address show").ok();
        let route = lab.node(1).run("ip route show 10.99.0.0/24").ok();
        !addresses.contains("169.254.0.179") && route.trim().is_empty()
    });
}

#[test]
fn a_node_changes_from_one_backend_to_the_next() {
    let mut racks = Racks::start(Backend::Margay, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    for backend in [
        Backend::Bird,
        Backend::Gobgp,
        Backend::Margay,
        Backend::Gobgp,
        Backend::Bird,
        Backend::Margay,
    ] {
        racks.agents[0].process.stop();
        let node = racks.lab.node(1);
        racks.agents[0] = Agent::start(node, &racks.store, &backend.with(&[]));
        racks.backend = backend;
        eventually("both routers are used", Duration::from_secs(90), || {
            racks.route(1, 2).matches("nexthop").count() == 2
        });
        racks.all_reach_all();
        let other = match backend {
            Backend::Bird => "80",
            Backend::Margay | Backend::Gobgp => "bird",
        };
        let address = racks.pods[1].1.clone();
        eventually(
            "the other's routes are gone",
            Duration::from_secs(30),
            || {
                let line = format!("ip route show match {address} proto {other}");
                racks.lab.node(1).run(&line).ok().trim().is_empty()
            },
        );
    }
}

#[test]
fn bird_is_started_anew_when_it_ends_and_goes_with_the_last_peer() {
    let racks = Racks::start(Backend::Bird, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    let both = || racks.route(1, 2).matches("nexthop").count() == 2;
    eventually("both routers are used", Duration::from_secs(20), both);
    let file = racks.agents[0].run_dir.join("bgp/bird.pid");
    let pid = || std::fs::read_to_string(&file).unwrap_or_default();
    let first = pid();
    let number = nix::unistd::Pid::from_raw(first.trim().parse().unwrap());
    nix::sys::signal::kill(number, nix::sys::signal::Signal::SIGKILL).unwrap();
    eventually("another BIRD speaks", Duration::from_secs(30), || {
        let peers = told(&racks.agents[0], &["bgp", "peers"]);
        pid() != first && peers.matches("Established").count() == 2
    });
    eventually("both routers are used again", Duration::from_secs(30), both);
    // Without peers there is no BIRD, and no route of its.
    let peers = ["rack0-tor0", "rack0-tor1"];
    for peer in peers {
        ctl(&racks.lab, &racks.store, &["delete", "bgppeer", peer], "");
    }
    eventually("its routes are gone", Duration::from_secs(30), || {
        racks.route(1, 2).trim().is_empty()
    });
    let process = format!("/proc/{}", pid().trim());
    eventually("BIRD has ended", Duration::from_secs(30), || {
        pid().is_empty() || !std::path::Path::new(&process).join("exe").exists()
    });
}

#[test]
fn a_peer_that_bird_cannot_have_is_told_and_the_others_stay() {
    let racks = Racks::start(Backend::Bird, 2, |node| {
        65101 + u32::try_from(node.subnet()).unwrap()
    });
    racks.all_reach_all();
    let secrets = racks.lab.dir().join("secrets");
    std::fs::create_dir_all(secrets.join("bgp")).unwrap();
    std::fs::write(secrets.join("bgp/quoted"), "say \"friend\"").unwrap();
    let settings = [("MARGAY_BGP_SECRETS_DIR", secrets.to_str().unwrap())];
    let mut racks = racks;
    racks.agents[0].process.stop();
    let node = racks.lab.node(1);
    racks.agents[0] = Agent::start(node, &racks.store, &Backend::Bird.with(&settings));
    let document = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: rack0-tor0}\n\
        spec: {nodeSelector: rack == 'r0', peerIP: 172.31.0.253, asNumber: 65001, \
        password: {secretKeyRef: {name: bgp, key: quoted}}}\n";
    ctl(&racks.lab, &racks.store, &["apply", "-f", "-"], document);
    eventually(
        "the peer's condition is told",
        Duration::from_secs(30),
        || {
            let status = told(&racks.agents[0], &["node", "status"]);
            status.contains("quotation mark") && status.contains("172.31.0.252")
        },
    );
    racks.all_reach_all();
    let route = racks.route(1, 2);
    assert!(route.contains("172.31.0.252"), "{route}");
}
