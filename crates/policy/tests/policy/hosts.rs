//! Host endpoints: which chains their policies are in, and which interfaces they have.

use crate::common::world::{World, global, namespaced, rules, tcp, tier};
use crate::common::{Change, resource};
use margay_model::Kind;
use margay_policy::Host;
use margay_policy::evaluator::{Direction, HostStage, Packet, Verdict};
use serde_json::{Value, json};

use Direction::{Egress, Ingress};
use HostStage::{Forward, Normal, PreDnat, Untracked};
use Verdict::{Allow, Deny, GoesOn};

fn host(name: &str, spec: Value) -> Change {
    let mut spec = spec;
    if spec["node"].is_null() {
        spec["node"] = json!("n1");
    }
    resource(
        Kind::HostEndpoint,
        None,
        name,
        json!({"role": "edge"}),
        spec,
    )
}

fn eth0() -> Change {
    host(
        "h",
        json!({"interfaceName": "eth0", "expectedIPs": ["192.0.2.1"]}),
    )
}

fn policy(action: &str, fields: Value) -> Value {
    let mut spec = rules(json!([{"action": action}]));
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

fn packet() -> Packet {
    tcp("198.51.100.1", "192.0.2.1")
}

#[test]
fn flags_say_which_chains_a_policy_is_in() {
    let denies = |fields: Value| {
        let world = World::new([eth0(), global("p", policy("Deny", fields))]);
        let stages = [Untracked, PreDnat, Forward, Normal].map(|stage| {
            [Ingress, Egress].map(|direction| world.at_host("h", stage, direction, &packet()))
        });
        stages.concat()
    };
    // Untracked, before translation, forwarded, normal: ingress and egress of each. Nothing that
    // applies means: goes on, goes on, accepted, dropped.
    let both = |verdict| [verdict, verdict];
    for (fields, expected) in [
        (
            json!({}),
            [both(GoesOn), both(GoesOn), both(Allow), both(Deny)],
        ),
        (
            json!({"applyOnForward": true}),
            [both(GoesOn), both(GoesOn), both(Deny), both(Deny)],
        ),
        (
            json!({"applyOnForward": true, "preDNAT": true}),
            [both(GoesOn), [Deny, GoesOn], both(Allow), both(Deny)],
        ),
        (
            json!({"applyOnForward": true, "doNotTrack": true}),
            [both(Deny), both(GoesOn), both(Allow), both(Deny)],
        ),
    ] {
        assert_eq!(denies(fields.clone()), expected.concat(), "{fields}");
    }
}

#[test]
fn what_comes_before_does_not_end_with_a_drop() {
    for flag in ["preDNAT", "doNotTrack"] {
        let mut spec = policy("Allow", json!({"applyOnForward": true, flag: true}));
        spec["ingress"][0]["protocol"] = json!("UDP");
        let world = World::new([
            tier("default", Some(1.0), "Deny"),
            eth0(),
            global("p", spec),
        ]);
        let stage = if flag == "preDNAT" {
            PreDnat
        } else {
            Untracked
        };
        assert_eq!(world.at_host("h", stage, Ingress, &packet()), GoesOn);
    }
}

#[test]
fn forwarded_traffic_passes_where_no_policy_is_for_it() {
    let spec = policy(
        "Allow",
        json!({"applyOnForward": true, "types": ["Ingress"]}),
    );
    let mut spec = spec;
    spec["ingress"][0]["protocol"] = json!("UDP");
    let world = World::new([eth0(), global("p", spec)]);
    assert_eq!(world.at_host("h", Forward, Ingress, &packet()), Deny);
    assert_eq!(world.at_host("h", Forward, Egress, &packet()), Allow);
}

#[test]
fn the_host_itself_is_closed_but_for_profiles_and_failsafe_ports() {
    let ssh = Packet {
        destination_port: 22,
        ..packet()
    };
    let mut world = World::new([eth0()]);
    assert_eq!(world.at_host("h", Normal, Ingress, &packet()), Deny);
    assert_eq!(world.at_host("h", Normal, Ingress, &ssh), Allow);
    assert_eq!(world.at_host("h", Normal, Egress, &ssh), Deny);
    // No policy closes them, except for forwarded traffic.
    let all = json!({"applyOnForward": true});
    world.take([global("p", policy("Deny", all))]);
    assert_eq!(world.at_host("h", Normal, Ingress, &ssh), Allow);
    assert_eq!(world.at_host("h", Forward, Ingress, &ssh), Deny);
    let open = host(
        "h",
        json!({"interfaceName": "*", "profiles": ["projectcalico-default-allow"]}),
    );
    let world = World::new([open]);
    assert_eq!(world.at_host("h", Normal, Ingress, &packet()), Allow);
}

#[test]
fn policies_of_namespaces_are_not_for_hosts() {
    let world = World::new([eth0(), namespaced("a", "p", policy("Allow", json!({})))]);
    assert_eq!(world.at_host("h", Normal, Ingress, &packet()), Deny);
    let elsewhere = host("far", json!({"node": "n2", "interfaceName": "eth0"}));
    assert!(World::new([elsewhere]).desired.hosts.is_empty());
}

#[test]
fn every_interface_has_no_untracked_policies() {
    let untracked = policy("Deny", json!({"applyOnForward": true, "doNotTrack": true}));
    let world = World::new([
        host("h", json!({"interfaceName": "*"})),
        global("p", untracked),
    ]);
    assert_eq!(world.at_host("h", Untracked, Ingress, &packet()), GoesOn);
    assert!(world.desired.policies.is_empty());
    assert_eq!(
        world.conditions("hostendpoints/h"),
        [
            "the policy GlobalNetworkPolicy/p has doNotTrack, which a host endpoint for every \
             interface cannot have; name an interface"
        ]
    );
}

#[test]
fn an_interface_has_the_first_endpoint_that_names_it_or_its_address() {
    let by_address = |name, ip: &str| host(name, json!({"expectedIPs": [ip]}));
    let mut world = World::new([
        host(
            "c-name",
            json!({"interfaceName": "eth0", "expectedIPs": ["192.0.2.2"]}),
        ),
        by_address("b-address", "192.0.2.1"),
        by_address("d-address", "192.0.2.2"),
        host("z-every", json!({"interfaceName": "*"})),
        host("y-every", json!({"interfaceName": "*"})),
    ]);
    let of = |world: &World, interface: &str, addresses: &[&str]| -> Option<String> {
        let addresses: Vec<_> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let host: Option<(&str, &Host)> = world.desired.host_of(interface, &addresses);
        host.map(|(name, _)| name.to_owned())
    };
    for (interface, addresses, expected) in [
        ("eth0", &["192.0.2.1"][..], "b-address"),
        ("eth0", &[], "c-name"),
        // A named interface is not found by its addresses.
        ("eth1", &["192.0.2.2"], "d-address"),
        ("eth2", &["192.0.2.3"], "y-every"),
    ] {
        assert_eq!(of(&world, interface, addresses).as_deref(), Some(expected));
    }
    world.take([
        Change::Delete(margay_model::Key::resource(Kind::HostEndpoint, "y-every")),
        Change::Delete(margay_model::Key::resource(Kind::HostEndpoint, "z-every")),
    ]);
    assert_eq!(of(&world, "eth2", &[]), None);
}
