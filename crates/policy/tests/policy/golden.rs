//! Everything recorded from real Calico is calculated without a condition that it does not deserve.

use std::path::Path;

use margay_model::Key;
use margay_policy::evaluator::{Direction, Packet, Place, Verdict, decide};
use margay_policy::{Calculator, Desired, HostInterface};
use serde::Deserialize;
use serde_json::Value;

use crate::common::interpret;
use crate::common::world::tcp;
use crate::common::{Change, Store, take};

#[derive(Deserialize)]
struct Recording {
    kvs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    raw: String,
}

/// A dump of etcd.
fn recorded(name: &str) -> Store {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../model/tests/golden")
        .join(name);
    let recording: Recording = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut store = Store::default();
    for entry in recording.kvs {
        let key = Key::parse(&entry.key).unwrap();
        let value: Value = serde_json::from_str(&entry.raw).unwrap();
        store.take(&Change::Put(key, value));
    }
    store
}

fn calculated(store: &Store, node: &str) -> (Desired, Calculator) {
    let mut calculator = Calculator::new(node);
    for change in store.changes() {
        take(&mut calculator, &change);
    }
    let mut desired = Desired::default();
    desired.apply(calculator.flush());
    (desired, calculator)
}

#[test]
fn objects_of_all_kinds() {
    let store = recorded("07-all-kinds.json");
    let (pod, _) = calculated(&store, "node-hostname");
    let (id, workload) = pod.workloads.first_key_value().unwrap();
    assert_eq!(id.to_string(), "default/node--hostname-k8s-my--pod--1-eth0");
    assert_eq!(workload.interface, "cali0ef24ba");
    assert_eq!(workload.mac.as_deref(), Some("ca:fe:1d:52:bb:e9"));
    assert_eq!(workload.spoofable, ["10.9.0.0/16".parse().unwrap()]);
    // Its policies select other labels; two staged ones would apply to everything.
    assert!(workload.chains.ingress.is_empty() && workload.chains.egress.is_empty());
    let staged = &workload.staged.as_ref().unwrap().ingress;
    let names: Vec<String> = staged[0].policies.iter().map(|id| id.to_string()).collect();
    assert_eq!(
        names,
        [
            "StagedGlobalNetworkPolicy/sgnp1",
            "StagedNetworkPolicy/default/snp1"
        ]
    );
    // Its profiles are Kubernetes', and nobody has recorded them.
    assert_eq!(workload.profiles, ["kns.default", "ksa.default.default"]);
    assert!(
        pod.profiles
            .values()
            .all(|profile| profile.ingress.len() == 1)
    );

    let (host, calculator) = calculated(&store, "cp-h1");
    let (name, endpoint) = host.hosts.first_key_value().unwrap();
    assert_eq!(name, "cp-h1-eth0");
    assert_eq!(endpoint.interface, HostInterface::Named("eth0".to_owned()));
    assert_eq!(endpoint.profiles, ["prof1"]);
    assert_eq!(host.profiles["prof1"].ingress.len(), 2);
    let set = host.sets.values().next().unwrap();
    assert_eq!(set.label, "profile == \"prof1\"");
    // The profile's labels are the endpoint's, so its expected address is in the set.
    assert_eq!(set.members.len(), 1);
    assert_eq!(calculator.conditions(), []);
}

#[test]
fn a_pod_and_its_policies_as_both_see_them() {
    let mut store = recorded("07-all-kinds.json");
    // The pod gets labels that the recorded policies select, and its namespace's profile.
    let pod = "default/node--hostname-k8s-my--pod--1-eth0";
    let key = store
        .values
        .keys()
        .find(|key| key.path().ends_with(pod))
        .unwrap()
        .clone();
    let endpoint = store.values.get_mut(&key).unwrap();
    endpoint["metadata"]["labels"]["app"] = "web".into();
    endpoint["metadata"]["labels"]["role"] = "db".into();
    let profile = serde_json::json!({
        "kind": "Profile", "metadata": {"name": "kns.default"}, "spec": {
            "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}],
            "labelsToApply": {"pcns.env": "prod", "pcns.projectcalico.org/name": "default"},
        },
    });
    let profiles = "/calico/resources/v3/projectcalico.org/profiles/kns.default";
    store.take(&Change::Put(Key::parse(profiles).unwrap(), profile));
    let (desired, calculator) = calculated(&store, "node-hostname");
    let (id, workload) = desired.workloads.first_key_value().unwrap();
    let tiers: Vec<&str> = workload
        .chains
        .ingress
        .iter()
        .map(|tier| tier.name.as_str())
        .collect();
    assert_eq!(tiers, ["security", "default"]);
    assert!(
        desired
            .policies
            .contains_key(&"GlobalNetworkPolicy/security.gnp1".parse().unwrap())
    );
    assert!(
        desired
            .policies
            .contains_key(&"NetworkPolicy/default/allow-tcp".parse().unwrap())
    );
    let state = store.state();
    let place = Place::Workload(id.clone());
    let ping = Packet {
        protocol: 1,
        icmp: Some((8, 0)),
        ..tcp("198.51.100.1", "192.168.0.5")
    };
    for (direction, packet, expected) in [
        (Direction::Ingress, ping, Verdict::Deny),
        (
            Direction::Ingress,
            tcp("198.51.100.1", "192.168.0.5"),
            Verdict::Deny,
        ),
        (
            Direction::Egress,
            tcp("192.168.0.5", "10.2.0.1"),
            Verdict::Allow,
        ),
        // Not the prefix left out, hence passed on to the profiles.
        (
            Direction::Egress,
            tcp("192.168.0.5", "10.1.0.1"),
            Verdict::Allow,
        ),
    ] {
        let decision = decide(&state, &place, direction, &packet).unwrap();
        assert_eq!(decision.verdict, expected, "{:?}", decision.steps);
        assert_eq!(
            interpret(&desired, &place, direction, &packet),
            Some(expected)
        );
    }
    let left: Vec<String> = calculator
        .conditions()
        .iter()
        .map(|c| c.problem.to_string())
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].contains("ksa.default.default"));
}
