use std::time::Duration;

use margay_store::Revision;
use serde_json::{Value, json};

use super::*;

fn entry(path: &str, value: &Value) -> Entry {
    Entry {
        key: Key::parse(path).unwrap(),
        value: value.to_string().into_bytes(),
        revision: Revision(1),
        lease: None,
    }
}

fn resource(plural: &str, name: &str, kind: &str, spec: Value) -> Entry {
    let path = format!("/calico/resources/v3/projectcalico.org/{plural}/{name}");
    let metadata = json!({"name": name.rsplit('/').next()});
    entry(
        &path,
        &json!({"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": metadata, "spec": spec}),
    )
}

fn endpoint(node: &str, spec: Value) -> Entry {
    let name = format!("default/{node}-cni-c1-eth0");
    resource("workloadendpoints", &name, "WorkloadEndpoint", spec)
}

fn good() -> Value {
    json!({"orchestrator": "cni", "node": "n1", "containerID": "c1", "endpoint": "eth0",
        "ipNetworks": ["192.168.0.1/32", "fd00::1/128"], "interfaceName": "calic1", "mac": "02:00:00:00:00:01"})
}

#[test]
fn own_endpoints_are_kept_and_all_are_counted() {
    let mut state = State::new("n1");
    assert_eq!(state.put(&endpoint("n1", good())), Touched::Endpoint);
    assert_eq!(state.put(&endpoint("n1", good())), Touched::Nothing);
    assert_eq!(
        state.put(&endpoint("n2", json!({"node": "n2"}))),
        Touched::Nothing
    );
    assert_eq!((state.endpoints().len(), state.cluster_endpoints()), (1, 2));
    assert_eq!(
        state.delete(&endpoint("n2", Value::Null).key),
        Touched::Nothing
    );
    assert_eq!(
        state.delete(&endpoint("n1", Value::Null).key),
        Touched::Endpoint
    );
    assert_eq!((state.endpoints().len(), state.cluster_endpoints()), (0, 0));
}

#[test]
fn what_an_object_last_said_well_stays_until_it_is_well_again_or_gone() {
    for (field, value) in [
        ("mac", json!("02:00")),
        ("interfaceName", json!("a/b")),
        ("interfaceName", json!("")),
        ("ipNetworks", json!(["192.168.0.0/24"])),
        ("ipNetworks", json!(["224.0.0.1/32"])),
        ("ipNetworks", json!(["0.0.0.0/32"])),
        ("ipNetworks", json!("192.168.0.1/32")),
    ] {
        let mut state = State::new("n1");
        state.put(&endpoint("n1", good()));
        let before = state.endpoints().clone();
        let mut wrong = good();
        wrong[field] = value;
        assert_eq!(
            state.put(&endpoint("n1", wrong)),
            Touched::Cluster,
            "{field}"
        );
        assert_eq!(state.endpoints(), &before, "{field}");
        assert!(
            state
                .bad()
                .values()
                .all(|reason| reason.contains(field) || reason.contains("string"))
        );
        assert_eq!(state.bad().len(), 1, "{field}");
        assert_eq!(state.put(&endpoint("n1", good())), Touched::Cluster);
        assert!(state.bad().is_empty());
    }
    let mut state = State::new("n1");
    let broken = Entry {
        value: b"{".to_vec(),
        ..endpoint("n1", Value::Null)
    };
    state.put(&broken);
    assert_eq!(state.bad().len(), 1);
    state.delete(&broken.key);
    assert!(state.bad().is_empty());
}

#[test]
fn blocks_tell_whose_they_are_and_who_borrows() {
    let mut state = State::new("n1");
    let mut block = json!({
        "cidr": "192.168.0.0/30", "affinity": "host:n2",
        "allocations": [0, 1, 2, null], "unallocated": [3],
        "attributes": [
            {"handle_id": "a", "secondary": {"node": "n2"}},
            {"handle_id": "b", "secondary": {"node": "n3"}},
            {"handle_id": "c", "secondary": {"node": "n3"}, "releasedAt": "2026-11-23T00:25:00Z"}
        ],
        "sequenceNumber": 1, "deleted": false
    });
    let path = "/calico/ipam/v2/assignment/ipv4/block/192.168.0.0-30";
    assert_eq!(state.put(&entry(path, &block)), Touched::Cluster);
    let cidr: Cidr = "192.168.0.0/30".parse().unwrap();
    let kept = &state.blocks()[&cidr];
    assert_eq!((kept.node.as_deref(), kept.used), (Some("n2"), 2));
    assert_eq!(
        kept.borrowed,
        BTreeMap::from([("192.168.0.1".parse().unwrap(), "n3".to_owned())])
    );
    block["affinity"] = json!("virtual:load-balancer");
    state.put(&entry(path, &block));
    assert_eq!(state.blocks()[&cidr].node, None);
    block["cidr"] = json!("192.168.0.4/30");
    state.put(&entry(path, &block));
    assert_eq!(state.bad().len(), 1);
    assert_eq!(state.blocks().len(), 1);
}

#[test]
fn nodes_and_pools_are_read() {
    let mut state = State::new("n1");
    let node = |bgp| resource("nodes", "n2", "Node", json!({"bgp": bgp}));
    state.put(&node(
        json!({"ipv4Address": "10.0.0.2/24", "ipv6Address": "fd00::2/64"}),
    ));
    assert_eq!(
        state.nodes()["n2"].of(Family::V6),
        Some("fd00::2".parse().unwrap())
    );
    state.put(&node(json!({"ipv4Address": "fd00::2/64"})));
    assert_eq!(
        state.nodes()["n2"].of(Family::V4),
        Some("10.0.0.2".parse().unwrap())
    );
    assert_eq!(state.bad().len(), 1);
    state.put(&resource(
        "ippools",
        "p",
        "IPPool",
        json!({"cidr": "10.8.0.0/16", "vxlanMode": "Always"}),
    ));
    assert_eq!(state.pools()["p"].vxlan, EncapMode::Always);
    state.put(&resource(
        "ippools",
        "q",
        "IPPool",
        json!({"cidr": "10.8.0.0"}),
    ));
    state.put(&resource("ippools", "r", "IPPool", json!({"cidr": "none"})));
    assert_eq!(state.bad().len(), 2);
}

#[test]
fn nearer_settings_win_and_a_wrong_field_spoils_no_other() {
    let felix = |name, spec| resource("felixconfigurations", name, "FelixConfiguration", spec);
    let mut state = State::new("n1");
    let none = Tunables::default();
    assert_eq!(state.settings(&none), Settings::default());
    state.put(&felix("default", json!({"routeRefreshInterval": "10s", "removeExternalRoutes": false, "interfacePrefix": "cali,tap"})));
    state.put(&felix(
        "node.n1",
        json!({"routeRefreshInterval": "0s", "deviceRouteProtocol": 80, "ipv6Support": "perhaps"}),
    ));
    state.put(&felix("node.n2", json!({"deviceRouteProtocol": 99})));
    let settings = state.settings(&none);
    assert_eq!(settings.route_refresh, None);
    assert_eq!(settings.device_route_protocol, 80);
    assert!(!settings.remove_external_routes && settings.ipv6);
    assert_eq!(settings.interface_prefixes, ["cali", "tap"]);
    assert_eq!(state.bad().len(), 1);
    let local = Tunables {
        route_refresh: Some(Duration::from_secs(7)),
        ..none
    };
    assert_eq!(
        state.settings(&local).route_refresh,
        Some(Duration::from_secs(7))
    );
}

#[test]
fn vacated_addresses_are_those_that_no_endpoint_has() {
    let mut state = State::new("n1");
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    state.put(&endpoint("n1", good()));
    assert!(state.take_vacated().is_empty());
    let mut moved = good();
    moved["ipNetworks"] = json!(["192.168.0.1/32"]);
    state.put(&endpoint("n1", moved));
    assert_eq!(state.take_vacated(), [address("fd00::1")].into());
    assert!(state.take_vacated().is_empty());
    state.delete(&endpoint("n1", Value::Null).key);
    // The next pod has the address already.
    let other = resource(
        "workloadendpoints",
        "default/n1-cni-c2-eth0",
        "WorkloadEndpoint",
        good(),
    );
    state.put(&other);
    assert!(state.take_vacated().is_empty());
    state.delete(&other.key);
    assert_eq!(
        state.take_vacated(),
        [address("192.168.0.1"), address("fd00::1")].into()
    );
}

#[test]
fn what_does_not_decide_on_bgp_leaves_its_generation() {
    let mut state = State::new("n1");
    let block = |used: &[Option<usize>], node: &str| {
        let key = Key::Block("192.168.0.0/30".parse().unwrap());
        let allocations: Vec<Option<usize>> = used.to_vec();
        let attributes = json!([{"handle_id": "h", "secondary": {"node": node}}]);
        let value = json!({"cidr": "192.168.0.0/30", "affinity": "host:n1", "strictAffinity": false,
            "allocations": allocations, "unallocated": [], "attributes": attributes, "deleted": false});
        Entry {
            key,
            value: value.to_string().into_bytes(),
            revision: Revision(1),
            lease: None,
        }
    };
    let labelled = |label: &str| {
        let mut entry = endpoint("n1", good());
        let mut value: Value = serde_json::from_slice(&entry.value).unwrap();
        value["metadata"]["labels"] = json!({"role": label});
        entry.value = value.to_string().into_bytes();
        entry
    };
    let other_mac = |label: &str| {
        let mut entry = labelled(label);
        let mut value: Value = serde_json::from_slice(&entry.value).unwrap();
        value["spec"]["mac"] = json!("02:00:00:00:00:02");
        entry.value = value.to_string().into_bytes();
        entry
    };
    let free = [None; 4];
    let steps = [
        (block(&free, "n1"), true),
        // An address of the block's own node is taken.
        (block(&[Some(0), None, None, None], "n1"), false),
        // And by another node.
        (block(&[Some(0), None, None, None], "n2"), true),
        (endpoint("n1", good()), true),
        (labelled("router"), true),
        (other_mac("router"), false),
        (endpoint("n2", good()), false),
        (
            resource(
                "felixconfigurations",
                "default",
                "FelixConfiguration",
                json!({"logSeverityScreen": "Debug"}),
            ),
            false,
        ),
        (
            resource(
                "nodes",
                "n1",
                "Node",
                json!({"bgp": {"ipv4Address": "10.0.0.1/24"}}),
            ),
            true,
        ),
        (
            resource("ippools", "a", "IPPool", json!({"cidr": "192.168.0.0/16"})),
            true,
        ),
        (
            resource(
                "bgppeers",
                "a",
                "BGPPeer",
                json!({"peerIP": "10.0.0.9", "asNumber": 1}),
            ),
            true,
        ),
    ];
    for (entry, moves) in &steps {
        let before = state.bgp_generation();
        state.put(entry);
        assert_eq!(state.bgp_generation() != before, *moves, "{}", entry.key);
        let before = state.bgp_generation();
        state.put(entry);
        assert_eq!(state.bgp_generation(), before, "{} again", entry.key);
    }
    for (entry, _) in &steps {
        let felix = entry.key.to_string().contains("felix");
        let known = state.endpoints().contains_key(&entry.key)
            || !entry.key.to_string().contains("workloadendpoints");
        let before = state.bgp_generation();
        let touched = state.delete(&entry.key);
        let moves = touched != Touched::Nothing && !felix && known;
        assert_eq!(state.bgp_generation() != before, moves, "{}", entry.key);
    }
}
