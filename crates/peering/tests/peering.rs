//! From resources to sessions, policies and routes.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::{Condition, NextHopMode, Operation, Password, PeerConfig, RemoteAs, TtlMode};
use margay_model::Cidr;
use margay_model::resource::bgp::{BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, SecretKeyRef};
use margay_model::scalar::AsNumber;
use margay_peering::{
    Endpoint, Input, Node, PeerType, Peering, Pool, TAG_BLOCK, TAG_HOST, TAG_SERVICE, peering,
};
use serde_json::{Value, json};

/// A cluster as it is stored.
#[derive(Default)]
struct Cluster {
    nodes: BTreeMap<String, Node>,
    configurations: BTreeMap<String, BGPConfigurationSpec>,
    peers: BTreeMap<String, BGPPeerSpec>,
    filters: BTreeMap<String, BGPFilterSpec>,
    pools: Vec<Pool>,
    blocks: BTreeMap<Cidr, String>,
    borrowed: BTreeMap<IpAddr, String>,
    endpoints: BTreeMap<String, Endpoint>,
}

impl Cluster {
    /// Nodes n1 to n3 at 10.0.0.9 to 10.0.0.11; n3 has an IPv6 address too.
    fn new() -> Self {
        let mut cluster = Self::default();
        for (number, last) in [(1, 9), (2, 10), (3, 11)] {
            let node = Node {
                v4: Some([10, 0, 0, last].into()),
                labels: BTreeMap::from([("rack".to_owned(), format!("r{}", number % 2))]),
                ..Node::default()
            };
            cluster.nodes.insert(format!("n{number}"), node);
        }
        cluster.pools.push(Pool {
            cidr: "192.168.0.0/16".parse().unwrap(),
            export: true,
        });
        cluster
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.get_mut(name).unwrap()
    }

    fn configure(&mut self, name: &str, spec: Value) {
        let spec = serde_json::from_value(spec).unwrap();
        self.configurations.insert(name.to_owned(), spec);
    }

    fn peer(&mut self, name: &str, spec: Value) {
        let spec = serde_json::from_value(spec).unwrap();
        self.peers.insert(name.to_owned(), spec);
    }

    fn filter(&mut self, name: &str, spec: Value) {
        let spec = serde_json::from_value(spec).unwrap();
        self.filters.insert(name.to_owned(), spec);
    }

    /// An endpoint of whatever node is asked for, named by its address.
    fn endpoint(&mut self, address: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter();
        let endpoint = Endpoint {
            addresses: BTreeSet::from([address.parse().unwrap()]),
            interface: "cali1".to_owned(),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        };
        self.endpoints.insert(address.to_owned(), endpoint);
    }

    fn of(&self, node: &str) -> Peering {
        let passwords = |reference: &SecretKeyRef| match reference.name.as_str() {
            "bgp" => {
                Password::new(&format!("secret of {}", reference.key)).map_err(|e| e.to_string())
            }
            other => Err(format!("there is no secret {other}")),
        };
        peering(&Input {
            node,
            nodes: &self.nodes,
            configurations: &self.configurations,
            peers: &self.peers,
            filters: &self.filters,
            pools: &self.pools,
            blocks: &self.blocks,
            borrowed: &self.borrowed,
            endpoints: &self.endpoints,
            passwords: &passwords,
        })
    }

    /// The names of a node's peers.
    fn names(&self, node: &str) -> Vec<String> {
        self.of(node).types.into_keys().collect()
    }

    fn session(&self, node: &str, name: &str) -> PeerConfig {
        let done = self.of(node);
        assert_eq!(done.problems, BTreeSet::new());
        done.speaker
            .unwrap()
            .peers
            .remove(name)
            .unwrap_or_else(|| panic!("{:?}", done.types))
    }

    /// The reasons why something of an object does not hold.
    fn complaints(&self, node: &str) -> Vec<String> {
        self.of(node)
            .problems
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

#[test]
fn nodes_mesh_and_the_later_address_connects() {
    let mut cluster = Cluster::new();
    cluster.node("n3").v6 = Some("fd00::3".parse().unwrap());
    assert_eq!(cluster.names("n1"), ["Mesh_10_0_0_10", "Mesh_10_0_0_11"]);
    assert!(cluster.complaints("n1").is_empty());
    // As texts 10.0.0.9 comes after 10.0.0.10.
    assert!(!cluster.session("n1", "Mesh_10_0_0_10").passive);
    assert!(cluster.session("n2", "Mesh_10_0_0_9").passive);
    let session = cluster.session("n1", "Mesh_10_0_0_10");
    assert_eq!(session.remote_as, RemoteAs::Is(AsNumber(64512)));
    assert_eq!(session.source, Some("10.0.0.9".parse().unwrap()));
    assert_eq!(session.ttl, TtlMode::Multihop(64));
    assert!(!session.reflector_client && session.port == 179);
    let own = cluster.of("n1").speaker.unwrap();
    assert_eq!(
        (own.asn, own.router_id.to_string().as_str()),
        (AsNumber(64512), "10.0.0.9")
    );
    // A family that only one has makes no session.
    cluster.node("n2").v6 = Some("fd00::2".parse().unwrap());
    assert_eq!(cluster.names("n2").len(), 3);
    assert_eq!(cluster.of("n2").types["Mesh_fd00__3"], PeerType::Mesh);
    assert_eq!(cluster.of("gone").speaker, None);
}

#[test]
fn the_mesh_follows_its_settings() {
    let mut cluster = Cluster::new();
    cluster.configure(
        "default",
        json!({"asNumber": 65000, "listenPort": 1790, "nodeMeshMaxRestartTime": "5m",
            "nodeMeshPassword": {"secretKeyRef": {"name": "bgp", "key": "mesh"}}}),
    );
    cluster.configure("node.n2", json!({"listenPort": 1791}));
    cluster.node("n3").as_number = Some(AsNumber(65003));
    let session = cluster.session("n1", "Mesh_10_0_0_10_port_1791");
    assert_eq!(session.password.unwrap().as_bytes(), b"secret of mesh");
    assert_eq!(
        session.graceful_restart.restart_time,
        Duration::from_secs(300)
    );
    let external = cluster.session("n1", "Mesh_10_0_0_11_port_1790");
    assert_eq!(external.remote_as, RemoteAs::Is(AsNumber(65003)));
    assert_eq!(cluster.of("n2").listen.port, 1791);
    cluster.configure(
        "default",
        json!({"nodeMeshPassword": {"secretKeyRef": {"name": "lost", "key": "mesh"}}}),
    );
    assert_eq!(
        cluster.complaints("n1"),
        ["BGPConfiguration default: nodeMeshPassword: there is no secret lost"]
    );
    cluster.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    assert!(cluster.names("n1").is_empty());
}

#[test]
fn reflectors_stand_outside_of_the_mesh_and_serve_who_peers_with_them() {
    let mut cluster = Cluster::new();
    cluster.node("n3").cluster_id = Some([1, 0, 0, 1].into());
    assert_eq!(cluster.names("n1"), ["Mesh_10_0_0_10"]);
    assert!(cluster.names("n3").is_empty());
    cluster
        .node("n3")
        .labels
        .insert("reflector".to_owned(), "yes".to_owned());
    cluster.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    cluster.peer(
        "rr",
        json!({"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)"}),
    );
    assert_eq!(cluster.names("n1"), ["Node_10_0_0_11"]);
    // The other halves are made of themselves.
    assert_eq!(cluster.names("n3"), ["Node_10_0_0_10", "Node_10_0_0_9"]);
    assert!(cluster.session("n3", "Node_10_0_0_9").reflector_client);
    assert!(!cluster.session("n1", "Node_10_0_0_11").reflector_client);
    // Reflectors of one cluster are no clients of each other.
    cluster.node("n2").cluster_id = Some([1, 0, 0, 1].into());
    assert!(!cluster.session("n3", "Node_10_0_0_10").reflector_client);
    cluster.node("n2").cluster_id = Some([1, 0, 0, 2].into());
    assert!(cluster.session("n3", "Node_10_0_0_10").reflector_client);
    assert_eq!(
        cluster.of("n3").speaker.unwrap().cluster_id,
        Some([1, 0, 0, 1].into())
    );
    cluster.peer(
        "rr",
        json!({"nodeSelector": "!has(reflector)", "peerSelector": "has(reflector)", "reversePeering": "Manual"}),
    );
    assert!(cluster.names("n3").is_empty());
    assert_eq!(cluster.names("n1"), ["Node_10_0_0_11"]);
}

#[test]
fn peers_are_for_all_nodes_for_one_and_by_selector() {
    let mut cluster = Cluster::new();
    cluster.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    cluster.peer("spine", json!({"peerIP": "192.0.2.1", "asNumber": 65100}));
    cluster.peer(
        "tor",
        json!({"nodeSelector": "rack == 'r1'", "peerIP": "192.0.2.2:1790", "asNumber": 65101}),
    );
    cluster.peer(
        "one",
        json!({"node": "n2", "peerIP": "192.0.2.3", "asNumber": "1.10"}),
    );
    assert_eq!(
        cluster.names("n1"),
        ["Global_192_0_2_1", "Node_192_0_2_2_port_1790"]
    );
    assert_eq!(cluster.names("n2"), ["Global_192_0_2_1", "Node_192_0_2_3"]);
    let session = cluster.session("n1", "Node_192_0_2_2_port_1790");
    assert_eq!((session.port, session.passive), (1790, false));
    let dotted = cluster.session("n2", "Node_192_0_2_3");
    assert_eq!(dotted.remote_as, RemoteAs::Is(AsNumber(65546)));
}

#[test]
fn a_node_given_by_address_peers_back() {
    let mut cluster = Cluster::new();
    cluster.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    cluster.peer(
        "rr",
        json!({"nodeSelector": "rack == 'r1'", "peerIP": "10.0.0.10"}),
    );
    assert_eq!(cluster.names("n1"), ["Node_10_0_0_10"]);
    assert_eq!(cluster.names("n2"), ["Node_10_0_0_11", "Node_10_0_0_9"]);
    // A peer of all nodes is none of itself.
    cluster.peer("rr", json!({"peerIP": "10.0.0.10"}));
    assert_eq!(cluster.names("n2"), ["Global_10_0_0_11", "Global_10_0_0_9"]);
}

#[test]
fn every_setting_of_a_peer_arrives() {
    let mut cluster = Cluster::new();
    cluster.configure("default", json!({"nodeToNodeMeshEnabled": false}));
    cluster.filter("none", json!({"exportV4": [{"action": "Reject"}]}));
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 65001, "localASNumber": 65009, "keepaliveTime": "40s",
            "maxRestartTime": "2h", "numAllowedLocalASNumbers": 2, "ttlSecurity": 1, "reachableBy": "10.0.0.254",
            "sourceAddress": "None", "nextHopMode": "Self", "filters": ["none"],
            "password": {"secretKeyRef": {"name": "bgp", "key": "tor"}}}),
    );
    let session = cluster.session("n1", "Global_192_0_2_1");
    assert_eq!(session.local_as, Some(AsNumber(65009)));
    assert_eq!(session.timers.keepalive, Some(Duration::from_secs(40)));
    assert_eq!(session.timers.hold, Duration::from_secs(120));
    assert_eq!(
        session.graceful_restart.restart_time,
        Duration::from_secs(4095)
    );
    assert_eq!(
        (session.allow_own_as, session.ttl),
        (2, TtlMode::Security(1))
    );
    assert_eq!((session.source, session.next_hop), (None, NextHopMode::Own));
    assert_eq!(session.password.unwrap().as_bytes(), b"secret of tor");
    assert_eq!(session.export.unwrap().name, "export by none");
    let gateways = cluster.of("n1").gateways;
    assert_eq!(
        gateways[&"192.0.2.1".parse().unwrap()],
        "10.0.0.254".parse::<IpAddr>().unwrap()
    );
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 65001, "keepOriginalNextHop": true}),
    );
    assert_eq!(
        cluster.session("n1", "Global_192_0_2_1").next_hop,
        NextHopMode::Keep
    );
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 64512, "keepOriginalNextHop": true}),
    );
    assert_eq!(
        cluster.session("n1", "Global_192_0_2_1").next_hop,
        NextHopMode::Auto
    );
}

#[test]
fn what_makes_no_sense_is_told_and_harms_nobody_else() {
    for (spec, reason) in [
        (json!({"peerIP": "192.0.2.9"}), "asNumber is missing"),
        (json!({"peerIP": "192.0.2.9", "asNumber": 0}), "asNumber 0"),
        (
            json!({"peerIP": "10.0.0.10", "asNumber": 65001}),
            "node n2 at 10.0.0.10 is of AS 64512",
        ),
        (
            json!({"peerIP": "tor.example", "asNumber": 1}),
            "is no address",
        ),
        (json!({"asNumber": 1}), "give peerIP or peerSelector"),
        (
            json!({"node": "n9", "peerIP": "192.0.2.9", "asNumber": 1}),
            "node n9 does not exist",
        ),
        (
            json!({"nodeSelector": "rack ==", "peerIP": "192.0.2.9", "asNumber": 1}),
            "nodeSelector",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "filters": ["lost"]}),
            "filter lost does not exist",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "reachableBy": "fd00::1"}),
            "reachableBy",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "nextHopMode": "Other"}),
            "nextHopMode",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "numAllowedLocalASNumbers": 256}),
            "numAllowedLocalASNumbers",
        ),
        (
            json!({"localWorkloadSelector": "all()"}),
            "asNumber is missing",
        ),
        (
            json!({"localWorkloadSelector": "all()", "asNumber": 1, "peerIP": "192.0.2.9"}),
            "exclude each other",
        ),
        (
            json!({"localWorkloadSelector": "app ==", "asNumber": 1}),
            "localWorkloadSelector",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "keepaliveTime": "0s"}),
            "keepaliveTime",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "maxRestartTime": "-1s"}),
            "maxRestartTime",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "reversePeering": "Never"}),
            "reversePeering",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "sourceAddress": "Other"}),
            "sourceAddress",
        ),
        (
            json!({"peerIP": "192.0.2.9", "asNumber": 1, "password": {"secretKeyRef": {"name": "lost", "key": "k"}}}),
            "there is no secret lost",
        ),
        (
            json!({"peerIP": "192.0.2.1", "asNumber": 1}),
            "BGPPeer a-good has a session with 192.0.2.1 already",
        ),
    ] {
        let mut cluster = Cluster::new();
        cluster.peer("a-good", json!({"peerIP": "192.0.2.1", "asNumber": 65001}));
        cluster.peer("bad", spec.clone());
        let complaints = cluster.complaints("n1");
        assert_eq!(complaints.len(), 1, "{spec}: {complaints:?}");
        assert!(
            complaints[0].starts_with("BGPPeer bad: ") && complaints[0].contains(reason),
            "{complaints:?}"
        );
        let names = cluster.names("n1");
        assert_eq!(
            names,
            ["Global_192_0_2_1", "Mesh_10_0_0_10", "Mesh_10_0_0_11"],
            "{spec}"
        );
    }
}

#[test]
fn what_is_configured_comes_before_the_mesh() {
    let mut cluster = Cluster::new();
    cluster.peer(
        "n2",
        json!({"node": "n1", "peerIP": "10.0.0.10", "keepaliveTime": "5s"}),
    );
    assert_eq!(cluster.names("n1"), ["Mesh_10_0_0_11", "Node_10_0_0_10"]);
    assert_eq!(cluster.names("n2"), ["Mesh_10_0_0_11", "Node_10_0_0_9"]);
    assert!(cluster.complaints("n1").is_empty());
}

#[test]
fn own_routes_are_blocks_addresses_of_others_blocks_and_services() {
    let mut cluster = Cluster::new();
    for (cidr, node) in [
        ("192.168.0.0/26", "n1"),
        ("192.168.1.0/26", "n2"),
        ("192.168.2.7/32", "n1"),
        ("fd65::/122", "n1"),
    ] {
        cluster
            .blocks
            .insert(cidr.parse().unwrap(), node.to_owned());
    }
    for address in ["192.168.0.5", "192.168.1.6", "192.168.2.7"] {
        cluster.endpoint(address, &[]);
    }
    cluster.configure(
        "default",
        json!({"serviceClusterIPs": [{"cidr": "10.96.0.0/12"}], "serviceExternalIPs": [{"cidr": "203.0.113.0/24"}],
            "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}]}),
    );
    let tags = |cluster: &Cluster| {
        let routes = cluster.of("n1").routes;
        routes
            .iter()
            .map(|(prefix, route)| (prefix.to_string(), route.tag))
            .collect::<Vec<_>>()
    };
    let own = |text: &str, tag: u32| (text.to_owned(), tag);
    assert_eq!(
        tags(&cluster),
        [
            own("10.96.0.0/12", TAG_SERVICE),
            own("192.168.0.0/26", TAG_BLOCK),
            own("192.168.1.6/32", TAG_HOST),
            own("192.168.2.7/32", TAG_HOST),
            own("198.51.100.0/24", TAG_SERVICE),
            own("203.0.113.0/24", TAG_SERVICE),
        ]
    );
    // What a filter may ask of an endpoint's address.
    let routes = cluster.of("n1").routes;
    let single = &routes[&"192.168.1.6/32".parse().unwrap()];
    assert_eq!(
        (single.interface.as_deref(), single.priority),
        (Some("cali1"), Some(1024))
    );
    let block = &routes[&"192.168.0.0/26".parse().unwrap()];
    assert_eq!((block.interface.as_deref(), block.priority), (None, None));
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    cluster
        .node("n1")
        .labels
        .insert(label.to_owned(), String::new());
    assert_eq!(tags(&cluster).len(), 4);
}

#[test]
fn single_addresses_of_load_balancers_are_announced_where_ranges_are_not() {
    let mut cluster = Cluster::new();
    cluster.node("n1").v6 = Some("fd00::1".parse().unwrap());
    for (aggregation, wanted, complaints) in [
        (
            "Enabled",
            &[
                "198.51.100.0/24",
                "198.51.100.7/32",
                "203.0.113.0/24",
                "fd98::7/128",
            ][..],
            0,
        ),
        (
            "Disabled",
            &["198.51.100.7/32", "203.0.113.0/24", "fd98::7/128"],
            1,
        ),
    ] {
        cluster.configure(
            "default",
            json!({"serviceExternalIPs": [{"cidr": "203.0.113.0/24"}, {"cidr": ""}],
                "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}, {"cidr": "198.51.100.7/32"},
                    {"cidr": "fd98::7/128"}],
                "serviceLoadBalancerAggregation": aggregation}),
        );
        let routes = cluster.of("n1").routes;
        let routes: Vec<String> = routes.keys().map(ToString::to_string).collect();
        assert_eq!(routes, wanted, "{aggregation}");
        let told = cluster.complaints("n1");
        assert_eq!(told.len(), complaints, "{told:?}");
        let names = |told: &String| {
            told.contains("serviceLoadBalancerAggregation") && told.contains("198.51.100.0/24")
        };
        assert!(told.iter().all(names), "{told:?}");
    }
}

#[test]
fn what_of_a_configuration_does_not_hold_is_told() {
    for (name, spec, reason) in [
        ("default", json!({"bindMode": "Some"}), "bindMode"),
        (
            "default",
            json!({"programClusterRoutes": "Some"}),
            "programClusterRoutes",
        ),
        ("default", json!({"listenPort": 0}), "179 is used"),
        (
            "default",
            json!({"ipv4NormalRoutePriority": 0}),
            "ipv4NormalRoutePriority 0",
        ),
        (
            "default",
            json!({"nodeMeshMaxRestartTime": "-2s"}),
            "nodeMeshMaxRestartTime",
        ),
        (
            "default",
            json!({"serviceLoadBalancerAggregation": "Some"}),
            "serviceLoadBalancerAggregation",
        ),
        (
            "default",
            json!({"serviceClusterIPs": [{"cidr": "10.96"}]}),
            "serviceClusterIPs",
        ),
        (
            "default",
            json!({"novelty": true}),
            "field novelty is not known",
        ),
        ("elsewhere", json!({"asNumber": 1}), "it is for nobody"),
        (
            "node.n1",
            json!({"asNumber": 1, "bindMode": "NodeIP"}),
            "asNumber, bindMode of one node",
        ),
        (
            "node.n1",
            json!({"novelty": true}),
            "field novelty is not known",
        ),
    ] {
        let mut cluster = Cluster::new();
        cluster.configure(name, spec.clone());
        let complaints = cluster.complaints("n1");
        assert_eq!(complaints.len(), 1, "{spec}: {complaints:?}");
        let object = format!("BGPConfiguration {name}: ");
        assert!(
            complaints[0].starts_with(&object) && complaints[0].contains(reason),
            "{complaints:?}"
        );
        assert_eq!(cluster.names("n1").len(), 2, "{spec}");
        let done = cluster.of("n1");
        assert_eq!(
            (done.listen.port, done.priorities),
            (179, (1024, 1024)),
            "{spec}"
        );
    }
    let mut cluster = Cluster::new();
    // What calicoctl writes by itself, and another node's own, are nobody's fault.
    cluster.configure(
        "default",
        json!({"logSeverityScreen": "Info", "serviceLoadBalancerAggregation": "Enabled"}),
    );
    cluster.configure("node.n2", json!({"asNumber": 1}));
    assert_eq!(cluster.complaints("n1"), [""; 0]);
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 1, "novelty": 1}),
    );
    assert!(cluster.complaints("n1")[0].contains("field novelty is not known"));
    assert_eq!(cluster.names("n1").len(), 3);
}

#[test]
fn workloads_of_the_node_have_sessions_by_their_labels() {
    let mut cluster = Cluster::new();
    cluster.endpoint("192.168.0.5", &[("role", "router")]);
    cluster.endpoint("192.168.0.6", &[("role", "client")]);
    cluster.endpoint("fd65::5", &[("role", "router")]);
    let spec = json!({"localWorkloadSelector": "role == 'router'", "asNumber": 65401, "nodeSelector": "rack == 'r1'"});
    cluster.peer("routers", spec);
    // Without an address of the node's there is nothing to connect to.
    let complaints = cluster.complaints("n1");
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(
        complaints[0].starts_with("BGPPeer routers: localWorkloadPeeringIPV4"),
        "{complaints:?}"
    );
    cluster.configure(
        "default",
        json!({"localWorkloadPeeringIPV4": "169.254.0.179"}),
    );
    let name = "Local_Workload_192_168_0_5";
    assert_eq!(
        cluster.names("n1"),
        [name, "Mesh_10_0_0_10", "Mesh_10_0_0_11"]
    );
    assert_eq!(cluster.names("n2").len(), 2);
    assert!(cluster.complaints("n2").is_empty());
    let done = cluster.of("n1");
    assert_eq!(done.types[name], PeerType::Workload);
    let (address, presented): (IpAddr, IpAddr) = (
        "192.168.0.5".parse().unwrap(),
        "169.254.0.179".parse().unwrap(),
    );
    assert_eq!(done.workloads, BTreeMap::from([(address, presented)]));
    assert_eq!(done.listen.to_workloads, BTreeSet::from([presented]));
    let session = cluster.session("n1", name);
    assert!(session.passive);
    assert_eq!(session.source, Some(presented));
    assert_eq!(session.remote_as, RemoteAs::Is(AsNumber(65401)));
    // What a workload announces is taken as from a router, not as from a node.
    assert_eq!(session.import.unwrap().rules, []);
    // The other family, where the node has it.
    cluster.node("n1").v6 = Some("fd00::1".parse().unwrap());
    assert!(cluster.complaints("n1")[0].contains("localWorkloadPeeringIPV6"));
    cluster.configure(
        "default",
        json!({"localWorkloadPeeringIPV4": "169.254.0.179", "localWorkloadPeeringIPV6": "fe80::179"}),
    );
    assert_eq!(cluster.of("n1").workloads.len(), 2);
    cluster.configure("default", json!({"localWorkloadPeeringIPV4": "fe80::179"}));
    assert!(
        cluster
            .complaints("n1")
            .iter()
            .any(|told| told.contains("no IPv4 address"))
    );
}

#[test]
fn a_bound_of_no_hops_is_none() {
    let mut cluster = Cluster::new();
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 1, "ttlSecurity": 0}),
    );
    assert_eq!(
        cluster.session("n1", "Global_192_0_2_1").ttl,
        TtlMode::Multihop(64)
    );
}

#[test]
fn communities_go_by_name_or_value() {
    let mut cluster = Cluster::new();
    cluster.configure(
        "default",
        json!({"communities": [{"name": "dc", "value": "64513:100"}],
            "prefixAdvertisements": [{"cidr": "192.168.0.0/16", "communities": ["dc", "64513:7", "1:2:3"]}]}),
    );
    let rules = cluster
        .session("n1", "Mesh_10_0_0_10")
        .export
        .unwrap()
        .rules
        .clone();
    let rule = rules.iter().find(|rule| rule.verdict.is_none()).unwrap();
    assert_eq!(
        rule.operations,
        [
            Operation::AddCommunity("64513:100".parse().unwrap()),
            Operation::AddCommunity("64513:7".parse().unwrap()),
            Operation::AddLargeCommunity("1:2:3".parse().unwrap()),
        ]
    );
    // A node's own list counts instead, and may use the cluster's names.
    cluster.configure(
        "node.n1",
        json!({"prefixAdvertisements": [{"cidr": "192.168.0.0/16", "communities": ["dc", "nonsense"]}]}),
    );
    assert!(
        cluster.complaints("n1")[0].starts_with("BGPConfiguration node.n1: prefixAdvertisements")
    );
    let policy = cluster.of("n1").speaker.unwrap().peers["Mesh_10_0_0_10"]
        .export
        .clone()
        .unwrap();
    let rule = policy
        .rules
        .iter()
        .find(|rule| rule.verdict.is_none())
        .unwrap();
    assert_eq!(rule.operations.len(), 1);
}

#[test]
fn filters_keep_every_match_and_operation() {
    let mut cluster = Cluster::new();
    cluster.peer(
        "tor",
        json!({"peerIP": "192.0.2.1", "asNumber": 65001, "filters": ["all"]}),
    );
    let rule = json!({"cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"min": 16, "max": 24},
        "source": "RemotePeers", "interface": "eth*", "peerType": "eBGP", "communities": {"values": ["1:2"]},
        "asPathPrefix": [65001, "1.1"], "priority": 100, "action": "Accept",
        "operations": [{"addCommunity": {"value": "1:2:3"}}, {"prependASPath": {"prefix": [65001]}},
            {"setPriority": {"value": 512}}]});
    cluster.filter(
        "all",
        json!({"importV4": [rule], "exportV6": [{"action": "Reject", "peerType": "iBGP"}]}),
    );
    let session = cluster.session("n1", "Global_192_0_2_1");
    let import = session.import.unwrap();
    let [rule] = import.rules.as_slice() else {
        panic!("{import:?}")
    };
    assert_eq!(rule.conditions.len(), 8);
    assert_eq!(
        rule.operations,
        [
            Operation::AddLargeCommunity("1:2:3".parse().unwrap()),
            Operation::PrependAs(vec![AsNumber(65001)]),
            Operation::SetPriority(512),
        ]
    );
    let first = &session.export.unwrap().rules[0];
    assert!(first.conditions.contains(&Condition::Internal));
    // Of a node more is asked than the filter asks.
    let mesh = cluster.session("n1", "Mesh_10_0_0_10").import.unwrap();
    assert!(mesh.rules[0].name.contains("owner"));
    for (spec, reason) in [
        (
            json!({"importV4": [{"cidr": "fd00::/8", "matchOperator": "In", "action": "Accept"}]}),
            "no IPv4 prefix",
        ),
        (
            json!({"importV4": [{"cidr": "10.0.0.0/8", "action": "Accept"}]}),
            "matchOperator",
        ),
        (json!({"importV4": [{"action": "Allow"}]}), "Allow"),
        (
            json!({"exportV4": [{"action": "Accept", "operations": [{}]}]}),
            "exactly one",
        ),
        (
            json!({"exportV4": [{"action": "Accept", "communities": {"values": ["x"]}}]}),
            "no community",
        ),
    ] {
        cluster.filter("all", spec);
        let complaints = cluster.complaints("n1");
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(
            complaints[0].starts_with("BGPFilter all: ") && complaints[0].contains(reason),
            "{complaints:?}"
        );
        assert!(!cluster.names("n1").contains(&"Global_192_0_2_1".to_owned()));
    }
}

mod policies {
    //! What the policies say of routes, asked of their conditions.

    use margay_bgp::policy::{Candidate, RouteSource};
    use margay_bgp::{Attributes, Policy};

    use super::*;

    fn takes(policy: &Policy, prefix: &str, next_hop: &str, source: RouteSource<'_>) -> bool {
        let attributes = Attributes::local(next_hop.parse().unwrap());
        policy.takes(&Candidate {
            prefix: prefix.parse().unwrap(),
            attributes: &attributes,
            source,
            external: false,
        })
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        for (cidr, node) in [
            ("192.168.0.0/26", "n1"),
            ("192.168.1.0/26", "n2"),
            ("192.168.2.0/26", "n3"),
        ] {
            cluster
                .blocks
                .insert(cidr.parse().unwrap(), node.to_owned());
        }
        cluster
            .borrowed
            .insert("192.168.1.9".parse().unwrap(), "n3".to_owned());
        cluster
    }

    #[test]
    fn nodes_announce_what_is_theirs_and_reflectors_what_is_others() {
        let mut cluster = cluster();
        let from = |last: u8| RouteSource::Peer {
            address: [10, 0, 0, last].into(),
        };
        let import = cluster.session("n1", "Mesh_10_0_0_10").import.unwrap();
        assert!(takes(&import, "192.168.1.0/26", "10.0.0.10", from(10)));
        assert!(takes(&import, "192.168.1.7/32", "10.0.0.10", from(10)));
        // Another's block, an address that another uses, a block of nobody, and the whole world.
        assert!(!takes(&import, "192.168.2.0/26", "10.0.0.10", from(10)));
        assert!(!takes(&import, "192.168.1.9/32", "10.0.0.10", from(10)));
        assert!(!takes(&import, "192.168.7.0/26", "10.0.0.10", from(10)));
        assert!(!takes(&import, "0.0.0.0/0", "10.0.0.10", from(10)));
        assert!(!takes(&import, "192.168.1.0/26", "10.0.0.99", from(10)));
        cluster.node("n3").cluster_id = Some([1, 0, 0, 1].into());
        cluster.peer(
            "rr",
            json!({"peerSelector": "rack == 'r1'", "nodeSelector": "all()"}),
        );
        let import = cluster.session("n1", "Node_10_0_0_11").import.unwrap();
        assert!(takes(&import, "192.168.1.0/26", "10.0.0.10", from(11)));
        assert!(!takes(&import, "192.168.1.0/26", "10.0.0.11", from(11)));
    }

    #[test]
    fn blocks_are_announced_unless_their_pool_says_otherwise() {
        let mut cluster = cluster();
        let own = |tag| RouteSource::Local {
            interface: None,
            priority: None,
            tag,
        };
        let export = cluster.session("n1", "Mesh_10_0_0_10").export.unwrap();
        assert!(takes(&export, "192.168.0.0/26", "10.0.0.9", own(TAG_BLOCK)));
        assert!(takes(&export, "192.168.1.6/32", "10.0.0.9", own(TAG_HOST)));
        assert!(!takes(&export, "10.7.7.7/32", "10.0.0.9", own(TAG_HOST)));
        assert!(takes(&export, "10.96.0.0/12", "10.0.0.9", own(TAG_SERVICE)));
        let peer = RouteSource::Peer {
            address: [10, 0, 0, 10].into(),
        };
        assert!(takes(&export, "192.168.1.0/26", "10.0.0.10", peer));
        assert!(!takes(&export, "0.0.0.0/0", "10.0.0.10", peer));
        cluster.pools[0].export = false;
        let export = cluster.session("n1", "Mesh_10_0_0_10").export.unwrap();
        assert!(!takes(
            &export,
            "192.168.0.0/26",
            "10.0.0.9",
            own(TAG_BLOCK)
        ));
        assert!(takes(&export, "10.96.0.0/12", "10.0.0.9", own(TAG_SERVICE)));
    }
}
