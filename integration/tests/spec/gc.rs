//! G: GC removes what no attachment on the list needs, of this node and network, and nothing else.

use margay_integration::cni::addresses;
use margay_integration::{Output, Plugin, Scene};
use serde_json::{Value, json};

use crate::refusal;

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
    scene.age();
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
    scene.age();
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
    scene.age();
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

#[test]
fn g04_gc_goes_on_after_a_failure_and_reports_all_at_the_end() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let script = "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = GC ] || exec \"$REAL\"\n\
                  echo '{\"cniVersion\":\"1.1.0\",\"code\":99,\"msg\":\"no sweep today\"}'\nexit 1\n";
    let file = dir.join("tired-ipam");
    std::fs::write(&file, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let pods = [scene.lab.pod(), scene.lab.pod()];
    for (n, pod) in pods.iter().enumerate() {
        scene.plugin().add(&format!("c{n}"), pod);
    }
    scene.age();
    // Another IPAM plugin fails; our own endpoints go all the same, with their addresses.
    let plugin = scene.plugin().with(json!({"ipam": {"type": "tired-ipam"}}));
    let mut conf = plugin.conf.clone();
    conf.insert("cni.dev/valid-attachments".to_owned(), json!([]));
    let path = format!("{}:/bin", dir.display());
    let env = [("CNI_PATH", path.as_str()), ("REAL", "/bin/true")];
    let done = plugin.call_with("GC", "", "", &env, &Value::Object(conf));
    assert_eq!(refusal(&done), 5, "{done:?}");
    assert!(done.stdout.contains("no sweep today"), "{done:?}");
    assert_eq!(scene.traces(), rest);
}

#[test]
fn g07_g08_and_g09_many_stale_attachments_without_namespaces_go_in_time_and_dels_may_storm() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let many = 100;
    for n in 0..many {
        let pod = scene.lab.pod();
        plugin.add(&format!("c{n}"), &pod);
        pod.delete();
    }
    scene.age();
    // What libcni does first: a DEL for each that it knows, many at once, in any order.
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let plugin = &plugin;
            scope.spawn(move || {
                for n in (worker..many / 2).step_by(4) {
                    let deleted = plugin.call("DEL", &format!("c{n}"), "");
                    assert!(deleted.success(), "{deleted:?}");
                }
            });
        }
    });
    let done = gc(&plugin, &json!({"cni.dev/valid-attachments": []}));
    assert!(done.success() && done.stdout.is_empty(), "{done:?}");
    assert!(done.took < std::time::Duration::from_secs(25), "{done:?}");
    let left = scene.traces();
    assert_eq!((left.links, left.routes), (rest.links, rest.routes));
    assert!(left.held.contains("Found 0 allocated"), "{}", left.held);
}

#[test]
fn g03_an_address_that_a_record_still_names_waits_for_the_record() {
    let scene = Scene::sqlite();
    let (plugin, ipam) = (scene.plugin(), scene.ipam());
    let rest = scene.at_rest();
    plugin.add("c1", &scene.lab.pod());
    assert!(ipam.call("ADD", "c2", "/none").success());
    scene.age();
    // Its record cannot be read, so it cannot be removed; its address must not go before it.
    scene.store.rewrite(|key, value| {
        let is_record = key.contains("/workloadendpoints/") && value.contains("\"c1\"");
        is_record.then(|| {
            value.replace(
                "\"creationTimestamp\":\"2020",
                "\"creationTimestamp\":\"2999",
            )
        })
    });
    assert!(gc(&plugin, &json!({"cni.dev/valid-attachments": []})).success());
    let held = scene.traces().held;
    assert!(held.contains("testnet.c1") || held.contains("c1"), "{held}");
    assert!(held.contains("found no problems"), "{held}");
    assert!(
        held.contains("Found 1 allocated addresses, 1 addresses in use"),
        "{held}"
    );
    plugin.call("DEL", "c1", "");
    assert_eq!(scene.traces().held, rest.held);
}
