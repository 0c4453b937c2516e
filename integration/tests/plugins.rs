//! The plugins as runtimes and cnitool call them, on both stores.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use margay_integration::cni::{addresses, conf};
use margay_integration::{Agent, Cnitool, Etcd, Lab, Plugin, StoreKind};
use serde_json::{Value, json};

fn sqlite(lab: &Lab) -> StoreKind {
    StoreKind::Sqlite(lab.dir().join("store.db"))
}

fn list(node: margay_integration::Node<'_>, store: &StoreKind) -> Value {
    let mut plugin = conf(node, store, Value::Null);
    let version = plugin.remove("cniVersion").unwrap();
    let name = plugin.remove("name").unwrap();
    json!({"cniVersion": version, "name": name, "plugins": [plugin]})
}

/// Everything that a node's kernel and store hold, for "as before".
fn traces(lab: &Lab, store: &StoreKind) -> (Vec<String>, String, String) {
    let node = lab.node(1);
    let endpoints = store
        .ctl(
            Some(&node.namespace()),
            &["get", "wep", "-A", "-o", "name"],
            "",
        )
        .ok();
    let links = node.run("ip -br link").ok();
    let names = links
        .lines()
        .map(|line| line.split_whitespace().next().unwrap().to_owned());
    (names.collect(), node.run("ip route").ok(), endpoints)
}

#[track_caller]
fn as_before(
    before: &(Vec<String>, String, String),
    after: &(Vec<String>, String, String),
    address: &str,
) {
    assert_eq!(before.0, after.0, "interfaces");
    assert_eq!(before.2, after.2, "endpoints");
    let routed = |line: &str| line.split_whitespace().next() == Some(address);
    assert!(!after.1.lines().any(routed), "{}", after.1);
}

fn cnitool_drives_every_verb(lab: &Lab, store: &StoreKind) {
    let node = lab.node(1);
    let _agent = Agent::start(node, store, &[]);
    let cnitool = Cnitool::new(node, &list(node, store));
    let pod = lab.pod();
    let _ = cnitool.call("status", &pod).ok();
    let before = traces(lab, store);
    let added = cnitool.call("add", &pod);
    assert!(added.success(), "{added:?}");
    let address = addresses(&added.json()).remove(0);
    assert!(node.run(&format!("ping -n -c 1 -W 2 {address}")).success());
    let _ = cnitool.call("check", &pod).ok();
    let _ = cnitool.call("del", &pod).ok();
    let _ = cnitool.call("del", &pod).ok();
    as_before(&before, &traces(lab, store), &address);
    assert!(
        !cnitool.call("check", &pod).success(),
        "CHECK of what is gone must fail"
    );
    // cnitool has no list of what is valid, and sends a DEL for everything it remembers.
    let again = addresses(&cnitool.call("add", &pod).json()).remove(0);
    assert_ne!(
        again, address,
        "an address is not used again while others are free"
    );
    let _ = cnitool.call("gc", &pod).ok();
    as_before(&before, &traces(lab, store), &again);
}

#[test]
fn cnitool_on_sqlite() {
    let lab = Lab::new(1);
    cnitool_drives_every_verb(&lab, &sqlite(&lab));
}

#[test]
fn cnitool_on_etcd() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    cnitool_drives_every_verb(&lab, &etcd.store());
}

#[test]
fn every_version_gets_its_own_shape() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    for version in [
        "", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let plugin = Plugin::new(lab.node(1), &store).with(json!({"cniVersion": version}));
        let (pod, id) = (lab.pod(), format!("v{version}"));
        let result = plugin.add(&id, &pod);
        let told = result["cniVersion"].as_str().unwrap();
        assert_eq!(told, if version.is_empty() { "0.1.0" } else { version });
        if matches!(version, "" | "0.1.0" | "0.2.0") {
            assert!(
                result["ip4"]["ip"].as_str().unwrap().ends_with("/32"),
                "{result}"
            );
        } else {
            assert_eq!(result["interfaces"][1]["sandbox"], pod.path());
            assert_eq!(result["ips"][0]["interface"], 1);
        }
        plugin.del(&id, &pod);
    }
}

#[test]
fn dual_stack_is_fast_and_complete() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(
        lab.node(1),
        &store,
        &[("CALICO_IPV6POOL_CIDR", "fd00:10::/64")],
    );
    let ipam =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    let plugin = Plugin::new(lab.node(1), &store).with(ipam);
    let (one, two) = (lab.pod(), lab.pod());
    let first = plugin.add("one", &one);
    let second = plugin.add("two", &two);
    for address in addresses(&second) {
        assert!(one.pings(&address, 2), "{address}");
    }
    assert_eq!(addresses(&first).len(), 2);
    let checked = plugin.call_after("CHECK", "one", &one.path(), &first);
    assert!(checked.success(), "{checked:?}");
    let tentative = one.run("ip -6 addr show dev eth0 tentative").ok();
    assert!(
        !tentative.contains("fd00"),
        "no address waits for duplicate address detection: {tentative}"
    );
}

#[test]
fn any_ipam_plugin_can_be_delegated_to() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    let data = lab.dir().join("host-local");
    let ipam = json!({"ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": data},
        "cniVersion": "1.0.0"});
    let plugin = Plugin::new(lab.node(1), &store).with(ipam);
    let pod = lab.pod();
    let result = plugin.add("c1", &pod);
    let address = addresses(&result).remove(0);
    assert!(address.starts_with("10.9.0."), "{result}");
    assert!(
        lab.node(1)
            .run(&format!("ping -n -c 1 -W 2 {address}"))
            .success()
    );
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &result);
    assert!(checked.success(), "{checked:?}");
    assert!(data.join("testnet").join(&address).exists());
    plugin.del("c1", &pod);
    assert!(!data.join("testnet").join(&address).exists());
}

#[test]
fn our_ipam_serves_other_network_plugins() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    let mut plugin =
        Plugin::new(lab.node(1), &store).with(json!({"cniVersion": "1.0.0", "type": "bridge"}));
    plugin.program = "margay-ipam";
    let result = plugin.call("ADD", "c1", "/run/netns/none").json();
    assert!(result.get("interfaces").is_none(), "{result}");
    let address = result["ips"][0]["address"].as_str().unwrap().to_owned();
    assert!(address.ends_with("/26"), "{address}");
    let again = plugin.call("ADD", "c1", "/run/netns/none").json();
    assert_eq!(
        again["ips"], result["ips"],
        "a repeated call gets the same address"
    );
    assert!(
        plugin
            .call_after("CHECK", "c1", "/run/netns/none", &result)
            .success()
    );
    assert!(plugin.call("DEL", "c1", "").success());
    assert!(plugin.call("DEL", "c1", "").success());
    assert!(
        !plugin
            .call_after("CHECK", "c1", "/run/netns/none", &result)
            .success()
    );
}

#[test]
fn mesos_calls_get_the_old_shape_and_their_labels() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    let mut plugin = Plugin::new(lab.node(1), &store)
        .with(json!({"args": {"org.apache.mesos": {"network_info": {
        "name": "testnet", "labels": {"labels": [{"key": "app/tier", "value": "front end"}]}}}}}));
    plugin.conf.remove("cniVersion");
    let pod = lab.pod();
    let id = "8c5b1f5e-7d2a-4a0a-9d0e-2f5f8e7a1b11";
    let result = plugin.add(id, &pod);
    assert!(
        result["ip4"]["ip"].as_str().unwrap().ends_with("/32"),
        "{result}"
    );
    let endpoints = store
        .ctl(None, &["get", "wep", "-A", "-o", "json"], "")
        .json();
    let text = endpoints.to_string();
    assert!(text.contains(r#""app.tier":"front-end""#), "{text}");
    // After a reboot the namespace is gone, and Mesos leaves the variable out.
    let gone = plugin.call("DEL", id, "");
    assert!(gone.success(), "{gone:?}");
}

#[test]
fn a_repeated_add_answers_the_same_and_a_foreign_interface_stays() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    let plugin = Plugin::new(lab.node(1), &store);
    let pod = lab.pod();
    let first = plugin.add("c1", &pod);
    assert_eq!(plugin.add("c1", &pod), first);
    let busy = lab.pod();
    assert!(
        busy.run("ip link add eth0 type veth peer name other")
            .success()
    );
    let refused = plugin.call("ADD", "c2", &busy.path());
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()["code"], 105, "{refused:?}");
    plugin.del("c2", &busy);
    assert!(
        busy.run("ip link show eth0").success(),
        "a foreign eth0 was removed"
    );
    let endpoints = store
        .ctl(None, &["get", "wep", "-A", "-o", "name"], "")
        .ok();
    assert!(!endpoints.contains("c2"), "{endpoints}");
}

#[test]
fn gc_removes_what_is_not_listed_and_only_when_told() {
    let lab = Lab::new(1);
    let store = sqlite(&lab);
    let _agent = Agent::start(lab.node(1), &store, &[]);
    let plugin = Plugin::new(lab.node(1), &store);
    let (kept, newcomer) = (lab.pod(), lab.pod());
    let result = plugin.add("kept", &kept);
    plugin.add("newcomer", &newcomer);
    let all = Value::Object(plugin.conf.clone());
    assert!(plugin.call_with("GC", "", "", &[], &all).success());
    let mut listed = plugin.conf.clone();
    listed.insert(
        "cni.dev/valid-attachments".to_owned(),
        json!([{"containerID": "kept", "ifname": "eth0"}]),
    );
    assert!(
        plugin
            .call_with("GC", "", "", &[], &Value::Object(listed))
            .success()
    );
    // What was assigned a moment ago may belong to an ADD that the list does not know yet.
    let endpoints = store
        .ctl(None, &["get", "wep", "-A", "-o", "name"], "")
        .ok();
    assert!(
        endpoints.contains("kept") && endpoints.contains("newcomer"),
        "{endpoints}"
    );
    assert!(
        plugin
            .call_after("CHECK", "kept", &kept.path(), &result)
            .success()
    );
}

#[test]
fn what_is_written_to_etcd_is_what_calico_writes() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let store = etcd.store();
    let node = lab.node(1);
    let _agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    let plugin = plugin.with(json!({"name": "calinet", "cniVersion": "1.0.0", "mtu": 1450}));
    let pod = lab.pod();
    let result = plugin.add("cnitool-bad930507234c0c08a40", &pod);
    let recorded: Value = serde_json::from_str(ADD_RESULT).unwrap();
    assert_eq!(shape(&result), shape(&recorded));
    let stored = margay_integration::etcd::dump(&lab, &etcd.endpoint);
    let stored: BTreeMap<String, Value> = stored["kvs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (decoded(&entry["key"]), decoded(&entry["value"])))
        .filter_map(|(key, value)| Some((key, serde_json::from_str(&value).ok()?)))
        .collect();
    let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/default/\
               n1-cni-cnitool--bad930507234c0c08a40-eth0";
    let endpoint = &stored[key];
    let spec: Vec<&String> = endpoint["spec"].as_object().unwrap().keys().collect();
    assert_eq!(
        spec,
        [
            "orchestrator",
            "node",
            "containerID",
            "endpoint",
            "ipNetworks",
            "profiles",
            "interfaceName",
            "mac"
        ]
    );
    assert_eq!(
        endpoint["metadata"]["labels"]["projectcalico.org/orchestrator"],
        "cni"
    );
    assert_eq!(endpoint["spec"]["interfaceName"], "calicnitool-bad");
    let profile = &stored["/calico/resources/v3/projectcalico.org/profiles/calinet"];
    assert_eq!(
        profile["spec"],
        json!({"ingress": [{"action": "Allow", "source": {"selector": "has(calinet)"}}],
               "egress": [{"action": "Allow"}], "labelsToApply": {"calinet": ""}})
    );
    assert!(
        stored
            .keys()
            .all(|key| key.starts_with("/calico/") || key.starts_with("/margay/"))
    );
}

/// A result with everything that differs from host to host made equal.
fn shape(result: &Value) -> Value {
    let mut result = result.clone();
    result["interfaces"][1]["mac"] = "MAC".into();
    result["interfaces"][1]["sandbox"] = "NETNS".into();
    result["ips"][0]["address"] = "ADDRESS".into();
    result["routes"][0]["dst"] = result["routes"][0]["dst"]
        .as_str()
        .unwrap()
        .split('/')
        .next_back()
        .into();
    result
}

/// etcdctl shows keys and values in base64 (RFC 4648).
fn decoded(value: &Value) -> String {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for byte in value.as_str().unwrap_or_default().bytes() {
        let Some(digit) = alphabet.iter().position(|letter| *letter == byte) else {
            break;
        };
        bits = (bits << 6) | u32::try_from(digit).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).unwrap());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What real Calico answered to the same call.
const ADD_RESULT: &str = r#"{"cniVersion":"1.0.0",
 "interfaces":[{"name":"calicnitool-bad"},
  {"mac":"8e:c1:d5:ba:0c:4b","mtu":1450,"name":"eth0","sandbox":"/var/run/netns/cp-p1"}],
 "ips":[{"address":"192.168.224.192/32","interface":1}],
 "routes":[{"dst":"192.168.224.192/26"}]}"#;
