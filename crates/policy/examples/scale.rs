//! How long changes take to calculate, and how much memory a large cluster takes.
//!
//! usage: cargo run --release -p margay-policy --example scale
//!
//! Prints one line a measurement: the median of the times, and resident memory.

#![allow(clippy::print_stdout, reason = "the output is what it is for")]
#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::time::Instant;

use margay_model::{AnyResource, Key, Kind};
use margay_policy::{Calculator, Delta};
use serde_json::{Value, json};

fn main() {
    large_cluster();
    many_policies();
}

/// 100,000 endpoints on 500 nodes, 200 of them here; 1,000 namespaces with two policies each.
fn large_cluster() {
    println!("100,000 endpoints in 1,000 namespaces, 200 of them here, 2,000 policies");
    let before = resident();
    let mut calculator = Calculator::new("node-0");
    let start = Instant::now();
    (0..1_000).for_each(|namespace| put(&mut calculator, &profile(namespace)));
    println!("  1,000 profiles:      {:>7} KiB", resident() - before);
    let profiles = resident();
    for namespace in 0..1_000 {
        for part in ["web", "db"] {
            put(&mut calculator, &policy(namespace, part, 5432));
        }
    }
    println!("  2,000 policies:      {:>7} KiB", resident() - profiles);
    let policies = resident();
    for number in 0..100_000 {
        let node = (number + number / 1_000) % 500;
        let bytes = serde_json::to_vec(&endpoint(number, node)).unwrap();
        let key = endpoint_key(number, node);
        calculator.update_bytes(&key, Some(&bytes));
    }
    println!("  100,000 endpoints:   {:>7} KiB", resident() - policies);
    println!("  read in:             {:>10.1?}", start.elapsed());
    let start = Instant::now();
    let delta = calculator.flush();
    println!(
        "  first flush:         {:>10.1?} ({})",
        start.elapsed(),
        describe(&delta)
    );
    // The policies in force here are those of local endpoints' namespaces.
    let active = delta.policies.keys().next().unwrap().clone();
    let namespace = active.namespace.unwrap_or_default();
    let namespace: usize = namespace.rsplit('-').next().unwrap().parse().unwrap();
    drop(delta);
    println!(
        "  resident memory:     {:>7} KiB more than before",
        resident() - before
    );
    let mut next = 100_000;
    measure("remote endpoint comes", 200, || {
        next += 1;
        update_endpoint(&mut calculator, next, 7);
        calculator.flush()
    });
    measure("local endpoint comes ", 200, || {
        next += 1;
        update_endpoint(&mut calculator, next, 0);
        calculator.flush()
    });
    let mut port = 1;
    measure("policy's port changes", 200, || {
        port += 1;
        put(&mut calculator, &policy(namespace, &active.name, port));
        calculator.flush()
    });
    let mut turn = false;
    measure("namespace is relabelled", 100, || {
        turn = !turn;
        let mut profile = profile(namespace);
        if turn {
            profile["spec"]["labelsToApply"]["pcns.turn"] = json!("yes");
        }
        put(&mut calculator, &profile);
        calculator.flush()
    });
}

/// 1,000 endpoints here and 1,000 policies, of which each endpoint has 10.
fn many_policies() {
    println!("1,000 endpoints here, 1,000 policies, 10 an endpoint");
    let mut calculator = Calculator::new("node-0");
    for group in 0..100 {
        for number in 0..10 {
            put(&mut calculator, &grouped_policy(group, number, 80));
        }
    }
    let update = |calculator: &mut Calculator, number: usize| {
        let mut endpoint = endpoint(number, 0);
        endpoint["metadata"]["labels"]["group"] = json!(format!("g{}", number % 100));
        endpoint["metadata"]["labels"]["pod"] = json!(format!("p{number}"));
        let endpoint = AnyResource::from_value(endpoint).unwrap();
        calculator.update(&endpoint_key(number, 0), Some(&endpoint));
    };
    (0..1_000).for_each(|number| update(&mut calculator, number));
    let start = Instant::now();
    let delta = calculator.flush();
    println!(
        "  first flush:         {:>10.1?} ({})",
        start.elapsed(),
        describe(&delta)
    );
    let mut next = 1_000;
    measure("endpoint comes       ", 200, || {
        next += 1;
        update(&mut calculator, next);
        calculator.flush()
    });
    let mut port = 1;
    measure("policy's port changes", 200, || {
        port += 1;
        put(&mut calculator, &grouped_policy(3, 3, port));
        calculator.flush()
    });
    measure("policy's order changes", 200, || {
        port += 1;
        let mut policy = grouped_policy(3, 3, 80);
        policy["spec"]["order"] = json!(if port.is_multiple_of(2) { 0.5 } else { 99.0 });
        put(&mut calculator, &policy);
        calculator.flush()
    });
}

fn measure(what: &str, times: usize, mut step: impl FnMut() -> Delta) {
    let mut taken: Vec<_> = (0..times)
        .map(|_| {
            let start = Instant::now();
            let delta = step();
            let taken = start.elapsed();
            assert!(!delta.is_empty() || what.starts_with("namespace"));
            taken
        })
        .collect();
    taken.sort_unstable();
    println!("  {what}: {:>8.1?} (median)", taken[times / 2]);
}

fn update_endpoint(calculator: &mut Calculator, number: usize, node: usize) {
    let endpoint = AnyResource::from_value(endpoint(number, node)).unwrap();
    calculator.update(&endpoint_key(number, node), Some(&endpoint));
}

fn put(calculator: &mut Calculator, value: &Value) {
    let resource = AnyResource::from_value(value.clone()).unwrap();
    calculator.update(&resource.key(), Some(&resource));
}

fn endpoint_name(number: usize, node: usize) -> String {
    format!("node--{node}-k8s-web--{number}--6d4b75cb6d--x2x7q-eth0")
}

fn endpoint_key(number: usize, node: usize) -> Key {
    let namespace = format!("namespace-{}", number % 1_000);
    Key::namespaced(
        Kind::WorkloadEndpoint,
        namespace,
        endpoint_name(number, node),
    )
}

/// Every hundredth endpoint has labels that no other has, as the pods of StatefulSets and Jobs do.
fn endpoint(number: usize, node: usize) -> Value {
    let namespace = format!("namespace-{}", number % 1_000);
    let app = if (number / 1_000).is_multiple_of(2) {
        "web"
    } else {
        "db"
    };
    let mut labels = json!({
        "app": app,
        "pod-template-hash": format!("6d4b75cb{app}{}", number % 1_000),
        "app.kubernetes.io/managed-by": "Helm",
        "projectcalico.org/namespace": namespace,
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "default",
    });
    if number.is_multiple_of(100) {
        labels["statefulset.kubernetes.io/pod-name"] = json!(format!("web-{number}"));
    }
    json!({
        "kind": "WorkloadEndpoint",
        "metadata": {"name": endpoint_name(number, node), "namespace": namespace, "labels": labels},
        "spec": {
            "orchestrator": "k8s", "node": format!("node-{node}"), "endpoint": "eth0",
            "containerID": format!("{number:064x}"), "pod": format!("web-{number}"),
            "interfaceName": format!("cali{number:011x}"), "serviceAccountName": "default",
            "ipNetworks": [format!("10.{}.{}.{}/32", number >> 16, number >> 8 & 255, number & 255)],
            "profiles": [format!("kns.{namespace}"), format!("ksa.{namespace}.default")],
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        }
    })
}

fn profile(namespace: usize) -> Value {
    json!({
        "kind": "Profile",
        "metadata": {"name": format!("kns.namespace-{namespace}")},
        "spec": {
            "ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}],
            "labelsToApply": {
                "pcns.projectcalico.org/name": format!("namespace-{namespace}"),
                "pcns.kubernetes.io/metadata.name": format!("namespace-{namespace}"),
                "pcns.team": format!("team-{}", namespace % 20),
            }
        }
    })
}

/// Half of a namespace may be reached by the other half, and by its team's namespaces.
fn policy(namespace: usize, part: &str, port: usize) -> Value {
    let other = if part == "web" { "db" } else { "web" };
    json!({
        "kind": "NetworkPolicy",
        "metadata": {"name": part, "namespace": format!("namespace-{namespace}")},
        "spec": {
            "selector": format!("app == '{part}'"), "types": ["Ingress"], "order": 100,
            "ingress": [
                {"action": "Allow", "protocol": "TCP",
                    "source": {"selector": format!("app == '{other}'")},
                    "destination": {"ports": [port, "http"]}},
                {"action": "Allow", "protocol": "TCP",
                    "source": {"namespaceSelector": format!("team == 'team-{}'", namespace % 20)},
                    "destination": {"ports": [80, "8000:9000"]}},
            ]
        }
    })
}

fn grouped_policy(group: usize, number: usize, port: usize) -> Value {
    let rule = |port: usize| {
        json!({"action": "Allow", "protocol": "TCP",
            "source": {"selector": format!("group == 'g{}'", (group + port) % 100)},
            "destination": {"ports": [port]}})
    };
    json!({
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": format!("p{group}-{number}")},
        "spec": {
            "selector": format!("group == 'g{group}'"), "types": ["Ingress", "Egress"],
            "order": number,
            "ingress": [rule(port), rule(port + 1), rule(port + 2)],
            "egress": [rule(port + 3), rule(port + 4), rule(port + 5)],
        }
    })
}

fn describe(delta: &Delta) -> String {
    format!(
        "{} endpoints, {} policies, {} sets",
        delta.workloads.len(),
        delta.policies.len(),
        delta.sets.len()
    )
}

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
