//! Chains of plugins, and the capabilities that runtimes hand over, through cnitool.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use margay_integration::cni::{addresses, conf};
use margay_integration::{Cnitool, Pod, Scene};
use serde_json::{Value, json};

/// A list of our plugin with these keys, and plugins before and after it, in the version that Debian's
/// reference plugins understand.
fn list(scene: &Scene, before: &[Value], own: Value, after: &[Value]) -> Value {
    let mut plugin = conf(scene.node(), &scene.store, own);
    plugin.remove("cniVersion");
    let name = plugin.remove("name").unwrap();
    let plugins: Vec<Value> = before
        .iter()
        .cloned()
        .chain([Value::Object(plugin)])
        .chain(after.iter().cloned())
        .collect();
    json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
}

/// Rules that firewall and portmap made, and queues of bandwidth.
fn others(scene: &Scene) -> String {
    let node = scene.node();
    let rules = node.run("iptables-save").ok();
    let rules = rules.lines().filter(|line| line.starts_with("-A"));
    let queues = node.run("tc qdisc show").ok();
    let queues = queues.lines().filter(|line| line.contains("tbf"));
    rules.chain(queues).collect::<Vec<_>>().join("\n")
}

#[test]
fn k04_portmap_bandwidth_tuning_and_firewall_follow() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let list = list(
        &scene,
        &[],
        json!({"capabilities": {"mac": true, "ips": true}}),
        &[
            json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "mtu": 1400}),
            json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
            json!({"type": "firewall", "backend": "iptables"}),
            json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}),
        ],
    );
    let pool = scene.ctl(&["get", "ippool", "-o", "json"], "").json();
    let cidr = pool["items"][0]["spec"]["cidr"].as_str().unwrap();
    let address = cidr.replace(".0.0/16", ".9.9");
    let mac = "c2:11:22:33:44:55";
    let wanted = json!({"mac": mac, "ips": [address],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 8_000_000,
                      "egressRate": 8_000_000, "egressBurst": 8_000_000},
        "portMappings": [{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]});
    let cnitool = Cnitool::new(scene.node(), &list).with("CAP_ARGS", wanted.to_string());
    let pod = scene.lab.pod();
    let added = cnitool.call("add", &pod);
    assert!(added.success(), "{added:?}");
    let result = added.json();
    assert_eq!(addresses(&result), [address.as_str()], "{result}");
    assert_eq!(result["interfaces"][1]["mac"], mac, "{result}");
    let link = pod.run("ip link show eth0").ok();
    assert!(link.contains(mac) && link.contains("mtu 1400"), "{link}");
    let made = others(&scene);
    for part in ["18080", "tbf", &address] {
        assert!(made.contains(part), "{part} in {made}");
    }
    let ping = format!("ping -n -c 1 -W 2 {address}");
    assert!(scene.node().run(&ping).success());
    // What the later plugins changed is in the result that CHECK compares with. Without portmap: the reference's
    // CHECK looks for rules of a family that the container does not have.
    let mut shorter = list.clone();
    shorter["plugins"].as_array_mut().unwrap().pop();
    let checked = Cnitool::new(scene.node(), &shorter)
        .with("CAP_ARGS", wanted.to_string())
        .call("check", &pod);
    assert!(checked.success(), "{checked:?}");
    let cnitool = Cnitool::new(scene.node(), &list).with("CAP_ARGS", wanted.to_string());
    let deleted = cnitool.call("del", &pod);
    assert!(deleted.success(), "{deleted:?}");
    let left = others(&scene);
    assert!(!left.contains(&address), "{left}");
    let after = scene.traces();
    assert_eq!((&after.links, &after.routes), (&rest.links, &rest.routes));
    assert!(after.holds_nothing(), "{}", after.held);
}

#[test]
fn k01_what_an_earlier_plugin_answered_is_passed_through() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let list = list(&scene, &[json!({"type": "loopback"})], json!({}), &[]);
    let cnitool = Cnitool::new(scene.node(), &list);
    let pod = scene.lab.pod();
    let added = cnitool.call("add", &pod);
    assert!(added.success(), "{added:?}");
    let result = added.json();
    let names: Vec<&str> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|interface| interface["name"].as_str().unwrap())
        .collect();
    assert_eq!((names[0], names[2]), ("lo", "eth0"), "{result}");
    let ips = result["ips"].as_array().unwrap();
    assert_eq!(ips[0]["address"], "127.0.0.1/8", "{result}");
    assert_eq!(ips.last().unwrap()["interface"], 2, "{result}");
    let checked = cnitool.call("check", &pod);
    assert!(checked.success(), "{checked:?}");
    assert!(cnitool.call("del", &pod).success());
    assert_eq!(scene.traces(), rest);
}

#[test]
fn k02_i09_ip_ranges_choose_among_pools() {
    let scene = Scene::dual_stack();
    let pools = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: small}\n\
                 spec: {cidr: 10.77.0.0/24, blockSize: 26, nodeSelector: \"!all()\"}\n";
    let _ = scene.ctl(&["create", "-f", "-"], pools).ok();
    let list = list(
        &scene,
        &[],
        json!({"capabilities": {"ipRanges": true}}),
        &[],
    );
    let call = |ranges: Value, verb: &str, pod: &Pod| {
        Cnitool::new(scene.node(), &list)
            .with("CAP_ARGS", json!({"ipRanges": ranges}).to_string())
            .call(verb, pod)
    };
    let rest = scene.traces();
    for ranges in [
        json!([[{"subnet": "10.77.0.0/25"}]]),
        json!([[{"subnet": "10.77.0.0/24", "rangeStart": "10.77.0.10"}]]),
        json!([[{"subnet": "203.0.113.0/24"}]]),
    ] {
        let refused = call(ranges.clone(), "add", &scene.lab.pod());
        assert!(!refused.success(), "{ranges}: {refused:?}");
        assert_eq!(scene.traces(), rest, "{ranges}");
    }
    let both = json!([[{"subnet": "10.77.0.0/24"}], [{"subnet": "fd00:10::/64"}]]);
    let pod = scene.lab.pod();
    let added = call(both.clone(), "add", &pod);
    assert!(added.success(), "{added:?}");
    let given = addresses(&added.json());
    assert!(given[0].starts_with("10.77.0."), "{given:?}");
    assert!(given[1].starts_with("fd00:10:"), "{given:?}");
    assert!(call(both.clone(), "check", &pod).success());
    assert!(call(both, "del", &pod).success());
}

/// Another network plugin with our IPAM: two pods that reach each other, nothing left after them.
fn under(kind: &str, more: Value) {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut plugin = more;
    let mut ipam = conf(scene.node(), &scene.store, Value::Null);
    for key in ["cniVersion", "name", "type"] {
        ipam.remove(key);
    }
    // The IPAM plugin reads its store from the same configuration.
    plugin.as_object_mut().unwrap().extend(ipam);
    plugin["type"] = kind.into();
    let list = json!({"cniVersion": "1.0.0", "name": "othernet", "plugins": [plugin]});
    let cnitool = Cnitool::new(scene.node(), &list);
    let pods = [scene.lab.pod(), scene.lab.pod()];
    let results = pods.each_ref().map(|pod| {
        let added = cnitool.call("add", pod);
        assert!(added.success(), "{added:?}");
        // Before the next: another port may give the reference bridge another MAC address.
        let checked = cnitool.call("check", pod);
        assert!(checked.success(), "{checked:?}");
        added.json()
    });
    let [first, second] = results.each_ref().map(|result| addresses(result).remove(0));
    assert!(pods[0].pings(&second, 2), "{results:?}");
    assert!(pods[1].pings(&first, 2), "{results:?}");
    for pod in &pods {
        assert!(cnitool.call("del", pod).success());
    }
    let left = scene.traces();
    assert_eq!(left.held, rest.held);
    assert_eq!(left.routes, rest.routes);
}

#[test]
fn our_ipam_under_bridge() {
    under("bridge", json!({"bridge": "br-other", "isGateway": false}));
}

#[test]
fn our_ipam_under_ptp() {
    under("ptp", json!({"ipMasq": false}));
}
