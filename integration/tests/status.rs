//! How endpoints and agents stand, as OpenStack's plugin and others read it out of etcd: keys and values byte by byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use margay_integration::etcd::Etcd;
use margay_integration::process::{eventually, inside, run};
use margay_integration::{Agent, Lab, Plugin, StoreKind};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(60);
const REPORTING: [(&str, &str); 3] = [
    ("FELIX_ENDPOINTREPORTINGENABLED", "true"),
    ("FELIX_REPORTINGINTERVALSECS", "1"),
    ("FELIX_REPORTINGTTLSECS", "5"),
];

/// All keys and values below `/calico/felix/`, as any client of etcd sees them.
fn told(lab: &Lab, etcd: &Etcd) -> BTreeMap<String, String> {
    let mut command = inside(&lab.fabric(), "etcdctl");
    command.env("ETCDCTL_API", "3").args([
        "--endpoints",
        &etcd.endpoint,
        "get",
        "--prefix",
        "/calico/felix/",
    ]);
    let text = run(&mut command, b"").ok();
    let lines: Vec<&str> = text.lines().collect();
    let pairs = lines
        .chunks(2)
        .filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn put(lab: &Lab, etcd: &Etcd, key: &str, value: &str) {
    let mut command = inside(&lab.fabric(), "etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.endpoint, "put", key, value]);
    let _ = run(&mut command, b"").ok();
}

fn apply(lab: &Lab, store: &StoreKind, resource: &Value) {
    let _ = store
        .ctl(
            Some(&lab.fabric()),
            &["apply", "-f", "-"],
            &resource.to_string(),
        )
        .ok();
}

fn workload(name: &str) -> String {
    format!("/calico/felix/v2/no-region/host/n1/workload/cni/default%2f{name}/endpoint/eth0")
}

#[test]
fn endpoints_and_agents_are_told_of_in_felixs_form() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let (store, node) = (etcd.store(), lab.node(1));
    // What an earlier agent left, and what another node's tells.
    let other = workload("theirs").replace("/n1/", "/n2/");
    for key in [&workload("gone"), &other] {
        put(&lab, &etcd, key, r#"{"status":"up"}"#);
    }
    let agent = Agent::start(node, &store, &REPORTING);
    let has = |key: &str, value: Option<&str>| {
        eventually(&format!("{key} is {value:?}"), WAIT, || {
            told(&lab, &etcd).get(key).map(String::as_str) == value
        });
    };
    has(&workload("gone"), None);
    let pod = lab.pod();
    let plugin = Plugin::new(node, &store).with(json!({"ipam": {"type": "margay-ipam"}}));
    let _ = plugin.add("one", &pod);
    has(&workload("one"), Some(r#"{"status":"up"}"#));
    // A host endpoint of an interface that is there, and of one that is not.
    for (name, interface) in [("uplink", "eth0"), ("nothing", "eth77")] {
        apply(
            &lab,
            &store,
            &json!({"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": {"name": name},
                "spec": {"node": "n1", "interfaceName": interface,
                    "profiles": ["projectcalico-default-allow"]}}),
        );
    }
    let host = |name: &str| format!("/calico/felix/v1/host/n1/endpoint/{name}");
    has(&host("uplink"), Some(r#"{"status":"up"}"#));
    has(&host("nothing"), Some(r#"{"status":"error"}"#));

    // The agent itself: one key that lapses with it, and one that stays.
    let (active, last) = (
        "/calico/felix/v2/no-region/host/n1/status",
        "/calico/felix/v2/no-region/host/n1/last_reported_status",
    );
    let report = |key: &str| -> Option<Value> {
        let found = told(&lab, &etcd);
        Some(serde_json::from_str(found.get(key)?).unwrap())
    };
    eventually("a later report is there", WAIT, || {
        report(active).is_some_and(|report| report["first_update"] == false)
    });
    let told_last = report(last).unwrap();
    let fields: Vec<&String> = told_last.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["time", "uptime", "first_update"]);
    let time = told_last["time"].as_str().unwrap();
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert!(told_last["uptime"].as_f64().unwrap() > 0.0);

    // An interface that is down is told of, and up again.
    let status = plugin_interface(&lab, &store);
    let _ = node.run(&format!("ip link set {status} down")).ok();
    has(&workload("one"), Some(r#"{"status":"down"}"#));
    let _ = node.run(&format!("ip link set {status} up")).ok();
    has(&workload("one"), Some(r#"{"status":"up"}"#));
    plugin.del("one", &pod);
    has(&workload("one"), None);
    assert_eq!(
        told(&lab, &etcd)[&other],
        r#"{"status":"up"}"#,
        "others' stay"
    );

    agent.process.signal(Signal::SIGKILL);
    has(active, None);
    assert!(report(last).is_some());
    drop(agent);
}

/// The host's end of the only endpoint.
fn plugin_interface(lab: &Lab, store: &StoreKind) -> String {
    let arguments = ["get", "workloadendpoints", "-A", "-o", "json"];
    let list: Value =
        serde_json::from_str(&store.ctl(Some(&lab.fabric()), &arguments, "").ok()).unwrap();
    list["items"][0]["spec"]["interfaceName"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn nobody_is_told_where_nobody_asks_and_the_cluster_may_ask() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let (store, node) = (etcd.store(), lab.node(1));
    let _agent = Agent::start(node, &store, &[]);
    let pod = lab.pod();
    let plugin = Plugin::new(node, &store).with(json!({"ipam": {"type": "margay-ipam"}}));
    let _ = plugin.add("one", &pod);
    assert_eq!(told(&lab, &etcd), BTreeMap::new());
    let felix = |enabled: bool| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"},
            "spec": {"endpointReportingEnabled": enabled, "openstackRegion": "east"}})
    };
    apply(&lab, &store, &felix(true));
    let key = workload("one").replace("no-region", "region-east");
    eventually("the endpoint is told of", WAIT, || {
        told(&lab, &etcd).contains_key(&key)
    });
    eventually("the agent is told of", WAIT, || {
        told(&lab, &etcd).contains_key("/calico/felix/v2/region-east/host/n1/status")
    });
    apply(&lab, &store, &felix(false));
    eventually("it is taken back", WAIT, || {
        !told(&lab, &etcd).contains_key(&key)
    });
}
