//! G: GC removes what no attachment on the list needs, of this node and network, and nothing else.

use margay_integration::cni::addresses;
use margay_integration::process::inside;
use margay_integration::{Output, Plugin, Scene, run};
use serde_json::{Value, json};

use crate::refusal;

fn etcdctl(scene: &Scene, words: &[&str], stdin: &str) -> String {
    let mut command = inside(&scene.lab.fabric(), "etcdctl");
    command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &scene.etcd.as_ref().unwrap().endpoint])
        .args(words);
    run(&mut command, stdin.as_bytes()).ok()
}

/// Makes all endpoints and addresses look years old.
fn age(scene: &Scene) {
    let keys = etcdctl(scene, &["get", "/calico/", "--prefix", "--keys-only"], "");
    let of_pods = |key: &&str| key.contains("/workloadendpoints/") || key.contains("/block/");
    for key in keys.lines().filter(of_pods) {
        let value = etcdctl(scene, &["get", key, "--print-value-only"], "");
        let aged = (2024..2100).fold(value, |value, year| {
            value.replace(&format!("\"{year}-"), "\"2020-")
        });
        etcdctl(scene, &["put", key], aged.trim_end());
    }
}

/// GC with more keys, of which `null` is one value.
fn gc(plugin: &Plugin<'_>, more: &Value) -> Output {
    let mut conf = plugin.conf.clone();
    conf.extend(more.as_object().unwrap().clone());
    plugin.call_with("GC", "", "", &[], &Value::Object(conf))
}

#[test]
fn g01_to_g03_only_old_unlisted_attachments_of_the_network_go() {
    let scene = Scene::etcd();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let other = scene.plugin().with(json!({"name": "othernet"}));
    let pods: Vec<_> = (0..5).map(|_| scene.lab.pod()).collect();
    let kept = plugin.add("kept", &pods[0]);
    let conf = Value::Object(plugin.conf.clone());
    let second = [("CNI_IFNAME", "net1")];
    let added = plugin.call_with("ADD", "kept", &pods[4].path(), &second, &conf);
    assert!(added.success(), "{added:?}");
    plugin.add("stale", &pods[1]);
    let foreign = other.add("elsewhere", &pods[2]);
    let ipam_only = scene.ipam().call("ADD", "half", "/none");
    assert!(ipam_only.success(), "{ipam_only:?}");
    age(&scene);
    plugin.add("newcomer", &pods[3]);
    let all = scene.traces();
    assert!(gc(&plugin, &json!({})).success());
    let refused = gc(
        &plugin,
        &json!({"cni.dev/valid-attachments": {"kept": "eth0"}}),
    );
    assert_eq!(refusal(&refused), 7);
    let refused = gc(
        &plugin,
        &json!({"cni.dev/valid-attachments": [{"containerID": "kept"}]}),
    );
    assert_eq!(refusal(&refused), 7);
    assert_eq!(scene.traces(), all, "without a list nothing may go");
    // The network plugin's GC covers what our IPAM holds for the network too.
    pods[1].delete();
    let list = json!({"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}],
        "cni.dev/attachments": null});
    let done = gc(&plugin, &list);
    assert!(done.success() && done.stdout.is_empty(), "{done:?}");
    let left = scene.traces();
    for (id, is_left) in [
        ("kept", true),
        ("elsewhere", true),
        ("newcomer", true),
        ("stale", false),
        ("half", false),
        ("net1", false),
    ] {
        assert_eq!(left.held.contains(id), is_left, "{id}: {}", left.held);
    }
    assert!(left.held.contains("found no problems"), "{}", left.held);
    assert_eq!(left.links.len(), rest.links.len() + 3, "{:?}", left.links);
    for (plugin, id, pod, result) in [
        (&plugin, "kept", 0, &kept),
        (&other, "elsewhere", 2, &foreign),
    ] {
        let checked = plugin.call_after("CHECK", id, &pods[pod].path(), result);
        assert!(checked.success(), "{id}: {checked:?}");
    }
    // Both null and the empty list say that nothing is valid.
    age(&scene);
    assert!(gc(&plugin, &json!({"cni.dev/valid-attachments": null})).success());
    assert!(gc(&other, &json!({"cni.dev/attachments": []})).success());
    assert_eq!(scene.traces(), rest);
}

#[test]
fn g03_addresses_of_other_nodes_and_networks_stay_with_the_ipam_plugin_alone() {
    let scene = Scene::etcd();
    let rest = scene.at_rest();
    let ipam = scene.ipam();
    let first = ipam.call("ADD", "c1", "/none");
    let listed = ipam.call("ADD", "c2", "/none");
    age(&scene);
    let elsewhere = scene.ipam().with(json!({"name": "othernet"}));
    let none = json!({"cni.dev/valid-attachments": []});
    assert!(gc(&elsewhere, &none).success());
    let held = scene.traces().held;
    for address in addresses(&first.json())
        .iter()
        .chain(&addresses(&listed.json()))
    {
        assert!(held.contains(address.as_str()), "{held}");
    }
    let list = json!({"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]});
    assert!(gc(&ipam, &list).success());
    let held = scene.traces().held;
    assert!(
        !held.contains(&format!("  {} ", addresses(&first.json())[0])),
        "{held}"
    );
    assert!(held.contains(&addresses(&listed.json())[0]), "{held}");
    assert!(gc(&ipam, &none).success());
    assert_eq!(scene.traces(), rest);
}

#[test]
fn g05_a_delegates_gc_is_asked_even_without_a_list() {
    let scene = Scene::sqlite();
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let seen = dir.join("seen");
    let script = format!(
        "#!/bin/sh\ncat >{}\necho $CNI_COMMAND >>{0}\n",
        seen.display()
    );
    let file = dir.join("some-ipam");
    std::fs::write(&file, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let plugin = scene
        .plugin()
        .with(json!({"ipam": {"type": "some-ipam", "x": 1.50}}));
    let conf = Value::Object(plugin.conf.clone());
    let path = format!("{}:/bin", dir.display());
    let done = plugin.call_with("GC", "", "", &[("CNI_PATH", &path)], &conf);
    assert!(done.success(), "{done:?}");
    assert_eq!(
        std::fs::read_to_string(seen).unwrap(),
        format!("{conf}GC\n")
    );
}
