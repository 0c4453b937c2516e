use ipnetwork::IpNetwork;
use margay_model::Kind;
use margay_route::{
    Desired, Neighbour, NeighbourKind, Observed, Ownership, Plan, RouteKind, Step, plan,
};
use margay_store::{Entry, Revision};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::state::Touched;

fn entry(key: Key, value: &Value) -> Entry {
    Entry {
        key,
        value: value.to_string().into_bytes(),
        revision: Revision(1),
        lease: None,
    }
}

fn node(name: &str, v4: &str, v6: &str) -> Entry {
    let spec = json!({"bgp": {"ipv4Address": v4, "ipv6Address": v6}});
    entry(
        Key::resource(Kind::Node, name),
        &json!({"kind": "Node", "metadata": {"name": name}, "spec": spec}),
    )
}

fn endpoint(node: &str, id: &str, interface: &str, addresses: &[&str]) -> Entry {
    let key = Key::namespaced(
        Kind::WorkloadEndpoint,
        "default",
        format!("{node}-cni-{id}-eth0"),
    );
    let spec =
        json!({"interfaceName": interface, "mac": "02:00:00:00:00:01", "ipNetworks": addresses});
    entry(
        key,
        &json!({"kind": "WorkloadEndpoint", "metadata": {}, "spec": spec}),
    )
}

/// A block and the nodes that use its addresses, the first address first.
fn block(cidr: &str, owner: Option<&str>, users: &[&str]) -> Entry {
    let cidr: Cidr = cidr.parse().unwrap();
    let allocations: Vec<usize> = (0..users.len()).collect();
    let attributes: Vec<Value> = users
        .iter()
        .map(|user| json!({"secondary": {"node": user}}))
        .collect();
    let affinity = owner.map(|owner| format!("host:{owner}"));
    entry(
        Key::Block(cidr),
        &json!({"cidr": cidr, "affinity": affinity, "allocations": allocations,
            "unallocated": [], "attributes": attributes}),
    )
}

fn state(entries: &[Entry]) -> State {
    let mut state = State::new("n1");
    state.put(&node("n1", "10.0.0.1/24", ""));
    for entry in entries {
        state.put(entry);
    }
    assert!(state.bad().is_empty(), "{:?}", state.bad());
    state
}

fn local() -> Local {
    let uplink = InterfaceAddresses {
        name: "eth0".to_owned(),
        addresses: vec![
            "10.0.0.1/24".parse().unwrap(),
            "fd00::1/64".parse().unwrap(),
        ],
    };
    Local {
        addresses: uplink.addresses.iter().map(IpNetwork::ip).collect(),
        uplinks: vec![uplink],
        workloads: ["cali1", "cali2"].map(str::to_owned).into(),
        gateway_routed: true,
        carriers: vec![Carrier {
            name: "eth0".to_owned(),
            mtu: 1500,
            addresses: vec!["10.0.0.1/24".parse().unwrap()],
        }],
        foreign: vec![Route::via(
            "0.0.0.0/0".parse().unwrap(),
            "10.0.0.254".parse().unwrap(),
            "eth0",
            4,
        )],
    }
}

fn shown(picture: &Picture) -> Vec<String> {
    let text = |route: &Route| {
        let way = match &route.kind {
            RouteKind::Unicast { via } => match via[0].gateway {
                Some(gateway) => format!("via {gateway} dev {}", via[0].interface),
                None => format!("dev {}", via[0].interface),
            },
            other => format!("{other:?}").to_lowercase(),
        };
        format!(
            "{} {way} proto {}: {}",
            route.dst,
            route.protocol,
            picture.sources[&route.key()]
        )
    };
    picture.desired.routes().map(text).collect()
}

fn draw(entries: &[Entry]) -> Picture {
    calculate(
        &state(entries),
        &Settings::default(),
        &local(),
        &Learned::default(),
    )
}

#[test]
fn endpoints_blocks_and_borrowed_addresses_become_routes() {
    let picture = draw(&[
        node("n1", "10.0.0.1/24", "fd00::1/64"),
        node("n2", "10.0.0.2/24", "fd00::2/64"),
        node("n3", "10.0.0.3/24", ""),
        endpoint("n1", "a", "cali1", &["192.168.0.0/32", "fd65::/128"]),
        endpoint("n2", "b", "cali1", &["192.168.0.64/32"]),
        block("192.168.0.0/26", Some("n1"), &["n1", "n3"]),
        block("192.168.0.64/26", Some("n2"), &["n2", "n1", "n3"]),
        block("192.168.0.128/32", Some("n1"), &[]),
        block("fd65::/122", Some("n1"), &["n1"]),
        block("fd65::40/122", Some("n2"), &[]),
        block("192.168.1.0/26", None, &["n2", "n1"]),
    ]);
    assert_eq!(
        shown(&picture),
        [
            "192.168.0.0/26 blackhole proto 80: block of this node",
            "192.168.0.0/32 dev cali1 proto 3: endpoint cni/default/a/eth0",
            "192.168.0.1/32 via 10.0.0.3 dev eth0 proto 80: address of block 192.168.0.0/26 in use by node n3",
            "192.168.0.64/26 via 10.0.0.2 dev eth0 proto 80: block of node n2",
            "192.168.0.66/32 via 10.0.0.3 dev eth0 proto 80: address of block 192.168.0.64/26 in use by node n3",
            "192.168.1.0/32 via 10.0.0.2 dev eth0 proto 80: address of block 192.168.1.0/26 in use by node n2",
            "fd65::/122 blackhole proto 80: block of this node",
            "fd65::/128 dev cali1 proto 3: endpoint cni/default/a/eth0",
            "fd65::40/122 via fd00::2 dev eth0 proto 80: block of node n2",
        ]
    );
    let neighbours: Vec<&Neighbour> = picture.desired.neighbours().collect();
    assert_eq!(neighbours.len(), 2);
    assert!(
        neighbours
            .iter()
            .all(|neighbour| neighbour.interface == "cali1"
                && neighbour.kind
                    == NeighbourKind::Permanent("02:00:00:00:00:01".parse().unwrap()))
    );
    assert!(
        picture.settings["cali1"]
            .iter()
            .any(|s| s.path == "net/ipv4/conf/cali1/proxy_arp")
    );
    assert_eq!(picture.host_settings.len(), 2);
    assert!(picture.unreachable.is_empty() && picture.problems.is_empty());
}

#[test]
fn nodes_that_are_on_no_link_are_reported_and_not_routed() {
    let picture = draw(&[
        node("far", "10.9.0.2/24", ""),
        node("twin", "10.0.0.1/24", ""),
        block("192.168.0.0/26", Some("far"), &["far", "gone"]),
        block("192.168.0.64/26", Some("twin"), &[]),
        block("fd65::/122", Some("far"), &[]),
    ]);
    assert!(shown(&picture).is_empty());
    let reasons: Vec<String> = picture
        .unreachable
        .iter()
        .map(|dark| format!("{} {:?}: {}", dark.node, dark.destinations, dark.reason))
        .collect();
    assert_eq!(
        reasons,
        [
            "far [192.168.0.0/26, fd65::/122]: its address 10.9.0.2 is on none of this machine's links",
            "gone [192.168.0.1/32]: it has no record in the datastore",
            "twin [192.168.0.64/26]: its address 10.0.0.1 is this machine's own",
        ]
    );
}

#[test]
fn an_endpoint_without_usable_interface_gets_nothing() {
    let picture = draw(&[
        endpoint("n1", "a", "cali9", &["192.168.0.1/32"]),
        endpoint("n1", "b", "eth0", &["192.168.0.2/32"]),
        endpoint("n1", "c", "cali1", &[]),
        block("192.168.0.0/26", Some("n1"), &["n1", "n1"]),
    ]);
    assert_eq!(
        shown(&picture),
        ["192.168.0.0/26 blackhole proto 80: block of this node"]
    );
    assert_eq!(picture.desired.neighbours().count(), 0);
    let hindrances: Vec<String> = picture
        .endpoints
        .values()
        .map(|placed| placed.hindrance.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(
        hindrances,
        [
            "waiting for cali9 to come up",
            "eth0 is not the name of a workload's interface",
            "it has no address"
        ]
    );
    assert_eq!(picture.problems.len(), 1);
}

#[test]
fn who_claims_what_is_taken_is_told() {
    let picture = draw(&[
        endpoint("n1", "a", "cali1", &["192.168.0.1/32"]),
        endpoint("n1", "b", "cali2", &["192.168.0.1/32", "192.168.0.2/32"]),
        block("192.168.0.0/26", Some("n2"), &["n2", "n3"]),
    ]);
    assert_eq!(
        shown(&picture),
        [
            "192.168.0.1/32 dev cali1 proto 3: endpoint cni/default/a/eth0",
            "192.168.0.2/32 dev cali2 proto 3: endpoint cni/default/b/eth0",
        ]
    );
    let problems: Vec<String> = picture.problems.iter().map(Problem::to_string).collect();
    assert_eq!(problems.len(), 2);
    assert!(
        problems[0].starts_with(
            "endpoints cni/default/a/eth0 and cni/default/b/eth0 both have 192.168.0.1;"
        )
    );
    assert!(problems[1].contains("which its block gives to node n3"));
}

#[test]
fn a_node_without_record_or_with_anothers_address_is_told() {
    let own = node("n1", "10.7.7.7/24", "");
    let gone = Problem::AddressGone {
        address: "10.7.7.7".parse().unwrap(),
    };
    let mut state = state(std::slice::from_ref(&own));
    let problems = |state: &State| {
        calculate(state, &Settings::default(), &local(), &Learned::default()).problems
    };
    assert_eq!(problems(&state), BTreeSet::from([gone]));
    state.delete(&own.key);
    assert_eq!(problems(&state), BTreeSet::from([Problem::Unregistered]));
}

#[test]
fn the_gateway_is_routed_where_nothing_else_leads_there() {
    let entries = [endpoint("n1", "a", "cali1", &["192.168.0.1/32"])];
    let alone = Local {
        gateway_routed: false,
        ..local()
    };
    let picture = calculate(
        &state(&entries),
        &Settings::default(),
        &alone,
        &Learned::default(),
    );
    assert!(
        shown(&picture)
            .iter()
            .any(|line| line.starts_with("169.254.1.1/32 dev lo"))
    );
    let picture = calculate(
        &state(&[]),
        &Settings::default(),
        &alone,
        &Learned::default(),
    );
    assert!(shown(&picture).is_empty());
    assert_eq!(draw(&entries).desired.routes().count(), 1);
}

#[test]
fn ipv6_is_left_alone_where_it_is_switched_off() {
    let entries = [
        node("n2", "", "fd00::2/64"),
        endpoint("n1", "a", "cali1", &["fd65::/128", "192.168.0.1/32"]),
        block("fd65::/122", Some("n1"), &["n2"]),
        block("fd65::40/122", Some("n2"), &[]),
    ];
    let settings = Settings {
        ipv6: false,
        ..Settings::default()
    };
    let picture = calculate(&state(&entries), &settings, &local(), &Learned::default());
    assert_eq!(
        shown(&picture),
        ["192.168.0.1/32 dev cali1 proto 3: endpoint cni/default/a/eth0"]
    );
    assert_eq!(picture.host_settings.len(), 1);
}

fn pool(cidr: &str, vxlan: &str, ipip: &str) -> Entry {
    let spec = json!({"cidr": cidr, "vxlanMode": vxlan, "ipipMode": ipip});
    entry(
        Key::resource(Kind::IPPool, "pool"),
        &json!({"kind": "IPPool", "metadata": {"name": "pool"}, "spec": spec}),
    )
}

fn tunnelled(name: &str, v4: &str, tunnel: &str) -> Entry {
    let spec = json!({"bgp": {"ipv4Address": v4}, "ipv4VXLANTunnelAddr": tunnel});
    entry(
        Key::resource(Kind::Node, name),
        &json!({"kind": "Node", "metadata": {"name": name}, "spec": spec}),
    )
}

/// One node in the subnet, one beyond a router, each with a block.
fn near_and_far(vxlan: &str, ipip: &str) -> Vec<Entry> {
    vec![
        pool("192.168.0.0/16", vxlan, ipip),
        tunnelled("n1", "10.0.0.1/24", "192.168.0.0"),
        tunnelled("near", "10.0.0.2/24", "192.168.1.0"),
        tunnelled("far", "10.9.0.2/24", "192.168.2.0"),
        block("192.168.1.0/26", Some("near"), &["near"]),
        block("192.168.2.0/26", Some("far"), &["far"]),
    ]
}

#[test]
fn pools_decide_which_way_packets_go() {
    let near = "192.168.1.0/26 via 10.0.0.2 dev eth0 proto 80: block of node near";
    let far = "192.168.2.0/26 via 192.168.2.0 dev vxlan.calico proto 80: block of node far";
    let crossing = draw(&near_and_far("CrossSubnet", "Never"));
    assert_eq!(shown(&crossing), [near, far]);
    assert_eq!(crossing.mtu, Some(1450));
    let [device] = crossing.devices.as_slice() else {
        panic!("{:?}", crossing.devices);
    };
    assert_eq!((device.parent.as_str(), device.mtu), ("eth0", 1450));
    assert_eq!(device.mac, margay_route::vtep_mac("n1", true));
    let fdb: Vec<_> = crossing.desired.fdb().collect();
    assert_eq!(fdb[0].destination, "10.9.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(fdb[0].mac, margay_route::vtep_mac("far", true));
    assert_eq!(crossing.desired.neighbours().count(), 1);
    let far_key = crossing.desired.routes().nth(1).unwrap().key();
    assert_eq!(crossing.sources[&far_key].origin(), Origin::Vxlan);
    let always = draw(&near_and_far("Always", "Never"));
    assert_eq!(
        shown(&always),
        [
            "192.168.1.0/26 via 192.168.1.0 dev vxlan.calico proto 80: block of node near",
            far
        ]
    );
    assert_eq!(always.desired.fdb().count(), 2);
}

#[test]
fn ip_in_ip_is_told_where_it_would_be_needed() {
    let near = "192.168.1.0/26 via 10.0.0.2 dev eth0 proto 80: block of node near";
    let crossing = draw(&near_and_far("Never", "CrossSubnet"));
    assert_eq!(shown(&crossing), [near]);
    assert!(
        crossing.unreachable[0]
            .reason
            .starts_with("pool pool asks for IP-in-IP")
    );
    assert!(crossing.devices.is_empty());
    let always = draw(&near_and_far("Never", "Always"));
    assert_eq!((shown(&always).len(), always.unreachable.len()), (0, 2));
}

#[test]
fn tunnels_that_lack_something_say_what() {
    let reason = |entries: &[Entry], settings: &Settings| {
        let picture = calculate(&state(entries), settings, &local(), &Learned::default());
        assert!(picture.desired.fdb().next().is_none());
        picture.unreachable[0].reason.clone()
    };
    let mut entries = near_and_far("CrossSubnet", "Never");
    let mut off = Settings::default();
    off.vxlan.enabled = false;
    assert!(reason(&entries, &off).contains("vxlanEnabled"));
    entries.push(tunnelled("far", "10.9.0.2/24", ""));
    assert!(reason(&entries, &Settings::default()).contains("no address for vxlan.calico"));
    entries.push(tunnelled("n1", "10.0.0.1/24", ""));
    assert!(reason(&entries, &Settings::default()).contains("this node has no vxlan.calico"));
}

fn learned(routes: &[(&str, &[&str])]) -> Learned {
    let way = |(prefix, next_hops): &(&str, &[&str])| {
        let way = Way {
            next_hops: next_hops.iter().map(|hop| hop.parse().unwrap()).collect(),
            peer: "Global_10_0_0_254".to_owned(),
        };
        (prefix.parse().unwrap(), way)
    };
    Learned {
        routes: routes.iter().map(way).collect(),
        priorities: (1024, 1024),
        elsewhere: None,
        gateways: BTreeMap::new(),
        workloads: BTreeMap::new(),
    }
}

/// Routes of peers, each with all its hops.
fn by_bgp(entries: &[Entry], learned: &Learned) -> (Vec<String>, Picture) {
    let picture = calculate(&state(entries), &Settings::default(), &local(), learned);
    let wanted = picture
        .desired
        .routes()
        .filter(|route| picture.sources[&route.key()].origin() == Origin::Bgp);
    let text = |route: &Route| {
        let RouteKind::Unicast { via } = &route.kind else {
            panic!("{route:?}");
        };
        let hops: Vec<String> = via
            .iter()
            .map(|hop| hop.gateway.unwrap().to_string())
            .collect();
        format!(
            "{} via {} metric {}",
            route.dst,
            hops.join("+"),
            route.metric
        )
    };
    (wanted.map(text).collect(), picture)
}

#[test]
fn what_peers_announce_fills_what_nothing_better_knows() {
    let entries = [
        node("n2", "10.0.0.2/24", ""),
        node("far", "10.9.0.2/24", ""),
        endpoint("n1", "a", "cali1", &["192.168.0.1/32"]),
        block("192.168.0.0/26", Some("n1"), &["n1"]),
        block("192.168.1.0/26", Some("n2"), &[]),
        block("192.168.2.0/26", Some("far"), &[]),
        block("192.168.3.0/26", Some("far"), &[]),
    ];
    let learned = learned(&[
        // Own, known from the datastore, and of a node beyond.
        ("192.168.0.0/26", &["10.0.0.253"]),
        ("192.168.0.1/32", &["10.0.0.253"]),
        ("192.168.1.0/26", &["10.0.0.253"]),
        ("192.168.2.0/26", &["10.0.0.252", "10.0.0.253"]),
        ("198.51.100.0/24", &["10.0.0.253"]),
        ("fd99::/64", &["fd00::254"]),
    ]);
    let (routes, picture) = by_bgp(&entries, &learned);
    assert_eq!(
        routes,
        [
            "192.168.2.0/26 via 10.0.0.252+10.0.0.253 metric 1024",
            "198.51.100.0/24 via 10.0.0.253 metric 1024",
            "fd99::/64 via fd00::254 metric 1024",
        ]
    );
    // Only what BGP does not bring is in the dark.
    let [dark] = picture.unreachable.as_slice() else {
        panic!("{:?}", picture.unreachable);
    };
    assert_eq!(dark.destinations, ["192.168.3.0/26".parse().unwrap()]);
    assert!(picture.unresolved.is_empty());
}

#[test]
fn next_hops_are_tracked_through_other_routes() {
    let learned = learned(&[
        // A node's own address by two routers, and its block by that address.
        ("10.254.1.1/32", &["10.0.0.252", "10.0.0.253"]),
        ("192.168.2.0/26", &["10.254.1.1"]),
        // By the host's default route.
        ("192.168.3.0/26", &["203.0.113.7"]),
        // By itself, by each other, by this machine.
        ("192.168.4.0/26", &["192.168.4.1"]),
        ("192.168.5.0/26", &["192.168.6.1"]),
        ("192.168.6.0/26", &["192.168.5.1"]),
        ("192.168.7.0/26", &["10.0.0.1"]),
        ("fd99::/64", &["fd98::1"]),
    ]);
    let (routes, picture) = by_bgp(&[], &learned);
    assert_eq!(
        routes,
        [
            "10.254.1.1/32 via 10.0.0.252+10.0.0.253 metric 1024",
            "192.168.2.0/26 via 10.0.0.252+10.0.0.253 metric 1024",
            "192.168.3.0/26 via 10.0.0.254 metric 1024",
        ]
    );
    let lost: Vec<String> = picture.unresolved.keys().map(Cidr::to_string).collect();
    assert_eq!(
        lost,
        [
            "192.168.4.0/26",
            "192.168.5.0/26",
            "192.168.6.0/26",
            "192.168.7.0/26",
            "fd99::/64"
        ]
    );
}

#[test]
fn a_workload_with_a_session_is_a_next_hop() {
    let entries = [
        endpoint("n1", "a", "cali1", &["192.168.0.1/32", "fd65::1/128"]),
        endpoint("n1", "b", "cali2", &["fd65::2/128"]),
        block("192.168.0.0/26", Some("n1"), &["n1"]),
    ];
    let mut learned = learned(&[
        ("10.99.0.0/24", &["192.168.0.1"]),
        // Through what the workload announces, and within what it announces.
        ("10.98.0.0/24", &["10.99.0.7"]),
        ("192.168.0.0/31", &["192.168.0.1"]),
        ("fd99::/64", &["fd65::1"]),
        // It has no session, and nothing else leads there.
        ("fd97::/64", &["fd65::2"]),
    ]);
    let presented: IpAddr = "169.254.0.179".parse().unwrap();
    let six: IpAddr = "fe80::179".parse().unwrap();
    let gone = "192.168.0.9".parse().unwrap();
    learned.workloads = BTreeMap::from([
        ("192.168.0.1".parse().unwrap(), presented),
        ("fd65::1".parse().unwrap(), six),
        (gone, presented),
    ]);
    let (routes, picture) = by_bgp(&entries, &learned);
    assert_eq!(
        routes,
        [
            "10.98.0.0/24 via 192.168.0.1 metric 1024",
            "10.99.0.0/24 via 192.168.0.1 metric 1024",
            "192.168.0.0/31 via 192.168.0.1 metric 1024",
            "fd99::/64 via fd65::1 metric 1024",
        ]
    );
    let lost: Vec<String> = picture.unresolved.keys().map(Cidr::to_string).collect();
    assert_eq!(lost, ["fd97::/64"]);
    let wanted = BTreeMap::from([("cali1".to_owned(), BTreeSet::from([presented, six]))]);
    assert_eq!(picture.presented, wanted);
}

#[test]
fn a_peer_on_no_link_is_reached_by_its_gateway() {
    let mut learned = learned(&[]);
    let peer = "192.0.2.1".parse().unwrap();
    learned.gateways.insert(peer, "10.0.0.254".parse().unwrap());
    let picture = calculate(&state(&[]), &Settings::default(), &local(), &learned);
    assert_eq!(
        shown(&picture),
        ["192.0.2.1/32 via 10.0.0.254 dev eth0 proto 80: BGP peer, by the gateway in reachableBy"]
    );
}

/// What the kernel would hold after a plan.
fn after(observed: &Observed, plan: &Plan) -> Observed {
    let mut now = observed.clone();
    for step in &plan.steps {
        match step {
            Step::AddRoute(route) => now.routes.push(route.clone()),
            Step::ReplaceRoute { from, to } => {
                now.routes.retain(|route| route != from);
                now.routes.push(to.clone());
            }
            Step::DeleteRoute(route) => now.routes.retain(|other| other != route),
            Step::SetNeighbour(neighbour) => {
                now.neighbours
                    .retain(|other| other.key() != neighbour.key());
                now.neighbours.push(neighbour.clone());
            }
            Step::DeleteNeighbour(neighbour) => now.neighbours.retain(|other| other != neighbour),
            Step::SetFdb(entry) => {
                now.fdb.retain(|other| other.mac != entry.mac);
                now.fdb.push(entry.clone());
            }
            Step::DeleteFdb(entry) => now.fdb.retain(|other| other != entry),
        }
    }
    now
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let names = || prop::sample::select(vec!["n1", "n2", "n3"]);
    let nodes = prop::collection::vec((names(), 1..5u8), 0..4).prop_map(|nodes| {
        let each =
            |(name, last): &(&str, u8)| node(name, &format!("10.0.{}.{last}/24", last % 2), "");
        nodes.iter().map(each).collect::<Vec<_>>()
    });
    let users = prop::collection::vec(names(), 0..4);
    let blocks = prop::collection::vec((0..6u8, prop::option::of(names()), users), 0..5);
    let blocks = blocks.prop_map(|blocks| {
        let each = |(number, owner, users): &(u8, Option<&str>, Vec<&str>)| {
            block(&format!("192.168.0.{}/30", number * 4), *owner, users)
        };
        blocks.iter().map(each).collect::<Vec<_>>()
    });
    let endpoints = prop::collection::vec((names(), 0..4u8, 1..4u8, 0..24u8), 0..6);
    let endpoints = endpoints.prop_map(|endpoints| {
        let each = |(node, id, interface, last): &(&str, u8, u8, u8)| {
            let addresses = [
                format!("192.168.0.{last}/32"),
                format!("fd65::{last:x}/128"),
            ];
            endpoint(
                node,
                &format!("c{id}"),
                &format!("cali{interface}"),
                &addresses.each_ref().map(String::as_str),
            )
        };
        endpoints.iter().map(each).collect::<Vec<_>>()
    });
    (nodes, blocks, endpoints).prop_map(|(nodes, blocks, endpoints)| {
        // One value a key, so that any order of arrival means the same.
        let all = nodes.into_iter().chain(blocks).chain(endpoints);
        let unique: BTreeMap<Key, Entry> = all.map(|entry| (entry.key.clone(), entry)).collect();
        unique.into_values().collect()
    })
}

proptest! {
    #[test]
    fn the_order_of_arrival_changes_nothing(entries in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle()))) {
        let (sorted, shuffled) = entries;
        prop_assert_eq!(draw(&sorted), draw(&shuffled));
    }

    #[test]
    fn one_pass_makes_it_so_and_a_second_finds_nothing(first in entries(), second in entries()) {
        let ownership = Ownership::default();
        let mut kernel = Observed::default();
        for entries in [first, second] {
            let picture = draw(&entries);
            let made = plan(&picture.desired, &kernel, &ownership);
            prop_assert!(made.conflicts.is_empty());
            kernel = after(&kernel, &made);
            prop_assert!(plan(&picture.desired, &kernel, &ownership).is_empty());
            prop_assert_eq!(kernel.routes.len(), picture.desired.routes().count());
        }
    }

    #[test]
    fn deleting_everything_leaves_nothing(entries in entries()) {
        let mut state = state(&entries);
        for entry in &entries {
            let touched = state.delete(&entry.key);
            prop_assert!(touched <= Touched::Endpoint);
        }
        let picture = calculate(&state, &Settings::default(), &local(), &Learned::default());
        prop_assert_eq!(picture.desired, Desired::default());
        prop_assert!(picture.endpoints.is_empty() && picture.unreachable.is_empty());
    }
}
