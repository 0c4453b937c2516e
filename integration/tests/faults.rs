//! A wrong configuration gets one JSON error that names the key, the value and the remedy, within its deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use margay_integration::{Lab, Plugin, Pod, StoreKind};
use serde_json::{Value, json};

/// Calls ADD with a changed configuration; the error.
#[track_caller]
fn refused(plugin: &Plugin<'_>, pod: &Pod, change: Value) -> (u64, String) {
    let mut conf = plugin.conf.clone();
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            conf.remove(key);
        } else {
            conf.insert(key.clone(), value.clone());
        }
    }
    let output = plugin.call_with(
        "ADD",
        "c1",
        &pod.path(),
        &[
            ("MARGAY_DEADLINE_MS", "4000"),
            ("MARGAY_STORE_TIMEOUT_MS", "2000"),
        ],
        &Value::Object(conf),
    );
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.took < Duration::from_secs(6),
        "{:?} for {change}",
        output.took
    );
    let error = output.json();
    assert!(error["cniVersion"].is_string(), "{error}");
    assert!(
        pod.run("ip -br link").stdout.lines().count() == 1,
        "something was made"
    );
    (
        error["code"].as_u64().unwrap(),
        error["msg"].as_str().unwrap().to_owned(),
    )
}

#[test]
fn every_fault_is_told() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = StoreKind::Sqlite(lab.dir().join("store.db"));
    let plugin = Plugin::new(node, &store);
    std::fs::create_dir_all(node.dir().join("state")).unwrap();
    std::fs::write(node.dir().join("state/nodename"), "n1\n").unwrap();
    let no_pem = lab.dir().join("no.pem");
    std::fs::write(&no_pem, "this is no certificate").unwrap();
    let pod = lab.pod();
    let etcd = |more: Value| {
        let mut object = json!({"datastore_type": "etcdv3", "store_path": null});
        object
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        object
    };
    for (change, code, words) in [
        (json!({"name": null}), 7, &["name", "missing"][..]),
        (json!({"name": "no/slash"}), 7, &["name", "no/slash"]),
        (json!({"ipam": null}), 7, &["ipam", "missing"]),
        (json!({"ipam": {}}), 7, &["ipam.type", "missing"]),
        (json!({"ipam": 3}), 7, &["ipam", "3"]),
        (
            json!({"ipam": {"type": "margay-ipam", "asign_ipv4": "true"}}),
            7,
            &["ipam.asign_ipv4", "assign_ipv4"],
        ),
        (
            json!({"ipam": {"type": "margay-ipam", "subnet": "10.0.0.0/8"}}),
            7,
            &["ipam.subnet", "ipv4_pools"],
        ),
        (
            json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "perhaps"}}),
            7,
            &["ipam.assign_ipv4", "perhaps"],
        ),
        (
            json!({"ipam": {"type": "nosuch"}}),
            7,
            &["nosuch", "CNI_PATH"],
        ),
        (json!({"ipam": {"type": "../reboot"}}), 7, &["../reboot"]),
        (json!({"mtu": "1450"}), 7, &["mtu", "1450"]),
        (json!({"mtu": -1}), 7, &["mtu", "-1"]),
        (json!({"nodename": 7}), 7, &["nodename", "7"]),
        (json!({"node_name": "n1"}), 7, &["node_name", "nodename"]),
        (
            json!({"etcd_endpoint": "http://a"}),
            7,
            &["etcd_endpoint", "etcd_endpoints"],
        ),
        (
            json!({"nodename_file": "/nonexistent/nodename"}),
            104,
            &["nodename_file", "/nonexistent", "margay-agent"],
        ),
        (
            json!({"datastore_type": "etcdv2"}),
            110,
            &["datastore_type", "etcdv2", "sqlite"],
        ),
        (
            json!({"datastore_type": "kubernetes"}),
            110,
            &["datastore_type", "kubernetes"],
        ),
        (etcd(json!({})), 110, &["etcd_endpoints", "missing"]),
        (
            etcd(json!({"etcd_endpoints": "172.31.255.254:2379"})),
            110,
            &["etcd_endpoints", "172.31.255.254:2379", "scheme"],
        ),
        (
            etcd(json!({"etcd_endpoints": "ftp://a:1"})),
            110,
            &["etcd_endpoints", "ftp://a:1"],
        ),
        (
            etcd(json!({"etcd_endpoints": ["http://a:1"]})),
            7,
            &["etcd_endpoints"],
        ),
        (
            etcd(json!({"etcd_endpoints": "http://172.31.255.254:1"})),
            102,
            &["etcd_endpoints", "172.31.255.254:1"],
        ),
        (
            etcd(json!({"etcd_endpoints": "https://a:1", "etcd_ca_cert_file": "/nonexistent/ca"})),
            110,
            &["etcd_ca_cert_file", "/nonexistent/ca"],
        ),
        (
            etcd(json!({"etcd_endpoints": "https://a:1", "etcd_ca_cert_file": no_pem})),
            110,
            &["etcd_ca_cert_file", "no.pem"],
        ),
        (
            etcd(json!({"etcd_endpoints": "https://a:1", "etcd_cert_file": "/x"})),
            110,
            &["etcd_key_file", "etcd_cert_file"],
        ),
        (
            json!({"store_path": "/proc/nowhere/store.db"}),
            102,
            &["store_path", "/proc/nowhere"],
        ),
        (
            json!({"device_type": "netkit"}),
            2,
            &["device_type", "netkit", "veth"],
        ),
        (json!({"policy": {"typo": "x"}}), 7, &["policy.typo"]),
    ] {
        let (told, message) = refused(&plugin, &pod, change.clone());
        assert_eq!(told, code, "{change}: {message}");
        for word in words {
            assert!(
                message.contains(word),
                "{change}: {word:?} is missing in {message:?}"
            );
        }
    }
}

#[test]
fn an_address_that_swallows_packets_is_told_within_the_deadline() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    // An address on the link that nobody has: packets go nowhere, and nothing comes back.
    let store = StoreKind::Etcd("http://172.31.200.200:2379".to_owned());
    std::fs::create_dir_all(node.dir().join("state")).unwrap();
    std::fs::write(node.dir().join("state/nodename"), "n1\n").unwrap();
    let plugin = Plugin::new(node, &store);
    let pod = lab.pod();
    let (code, message) = refused(&plugin, &pod, json!({}));
    assert!(matches!(code, 102 | 108), "{code} {message}");
    assert!(
        message.contains("etcd_endpoints") || message.contains("172.31.200.200"),
        "{message}"
    );
}

#[test]
fn an_exhausted_pool_says_for_each_pool_why() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let store = StoreKind::Sqlite(lab.dir().join("store.db"));
    let _agent = margay_integration::Agent::start(node, &store, &[("NO_DEFAULT_POOLS", "true")]);
    let pools = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
                 spec: {cidr: 10.50.0.0/29, blockSize: 29}\n---\n\
                 apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: shut}\n\
                 spec: {cidr: 10.60.0.0/24, disabled: true}\n";
    let _ = store.ctl(None, &["create", "-f", "-"], pools).ok();
    let plugin = Plugin::new(node, &store);
    let pods: Vec<Pod> = (0..9).map(|_| lab.pod()).collect();
    for (n, pod) in pods[..8].iter().enumerate() {
        plugin.add(&format!("c{n}"), pod);
    }
    let refused = plugin.call("ADD", "c8", &pods[8].path());
    let error = refused.json();
    assert_eq!(error["code"], 100, "{error}");
    for word in ["tiny", "full", "shut", "disabled"] {
        assert!(error["msg"].as_str().unwrap().contains(word), "{error}");
    }
    plugin.del("c3", &pods[3]);
    plugin.add("c8", &pods[8]);
}
