//! D: DEL ends well with whatever is missing, and touches only what is its own.

use margay_integration::cni::addresses;
use margay_integration::{Pod, Scene};
use serde_json::{Value, json};

use crate::changed;

#[test]
fn d01_any_number_of_dels_succeeds_in_silence() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let rest = scene.at_rest();
    plugin.add("c1", &pod);
    for caller in [&plugin, &scene.ipam()] {
        for id in ["c1", "c1", "c1", "nobody"] {
            let deleted = caller.call("DEL", id, &pod.path());
            assert!(
                deleted.success() && deleted.stdout.is_empty(),
                "{deleted:?}"
            );
        }
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn d02_no_namespace_is_needed() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let gone = |pod: &Pod| pod.delete();
    let there = |_: &Pod| {};
    type Case = (&'static str, fn(&Pod), fn(&Pod) -> String);
    let cases: [Case; 4] = [
        ("empty", there, |_| String::new()),
        ("never was", there, |_| "/run/netns/never".to_owned()),
        ("vanished", gone, Pod::path),
        ("no namespace", there, |_| "/dev/null".to_owned()),
    ];
    for (case, prepare, path) in cases {
        let pod = scene.lab.pod();
        plugin.add("c1", &pod);
        prepare(&pod);
        let deleted = plugin.call("DEL", "c1", &path(&pod));
        assert!(deleted.success(), "{case}: {deleted:?}");
        assert_eq!(scene.traces(), rest, "{case}");
    }
}

#[test]
fn d03_no_usable_prev_result_is_needed() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    for previous in [
        Value::Null,
        json!({}),
        json!([1]),
        json!("damaged"),
        json!({"cniVersion": "9.9.9", "ips": 3}),
        json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}],
               "ips": [{"address": "10.250.250.250/32", "interface": 7}]}),
    ] {
        plugin.add("c1", &pod);
        let deleted = plugin.call_after("DEL", "c1", &pod.path(), &previous);
        assert!(deleted.success(), "{previous}: {deleted:?}");
        assert_eq!(scene.traces(), rest, "{previous}");
        let deleted = scene.ipam().call_after("DEL", "c1", "", &previous);
        assert!(deleted.success(), "{previous}: {deleted:?}");
    }
}

#[test]
fn d04_a_pool_that_is_gone_or_arguments_that_are_wrong_do_not_matter() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let rest = scene.at_rest();
    let conf = Value::Object(plugin.conf.clone());
    plugin.add("c1", &pod);
    let args = [("CNI_ARGS", "nonsense;IP=none;X=Y")];
    let deleted = plugin.call_with("DEL", "c1", &pod.path(), &args, &conf);
    assert!(deleted.success(), "{deleted:?}");
    assert_eq!(scene.traces(), rest);
    plugin.add("c1", &pod);
    let pools = scene.ctl(&["get", "ippool", "-o", "json"], "").json();
    let name = pools["items"][0]["metadata"]["name"].as_str().unwrap();
    let _ = scene.ctl(&["delete", "ippool", name], "").ok();
    plugin.del("c1", &pod);
    let after = scene.traces();
    assert_eq!(after.links, rest.links);
    assert!(after.held.contains("Found 0 allocated"), "{}", after.held);
}

#[test]
fn d06_a_late_del_leaves_the_newer_container_alone() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let conf = Value::Object(plugin.conf.clone());
    let env = [(
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0",
    )];
    let call = |verb: &str, id: &str, pod: &Pod, conf: &Value| {
        let output = plugin.call_with(verb, id, &pod.path(), &env, conf);
        assert!(output.success(), "{verb} {id}: {output:?}");
        output
    };
    let (old, new) = (scene.lab.pod(), scene.lab.pod());
    call("ADD", "sandbox-1", &old, &conf);
    let result = call("ADD", "sandbox-2", &new, &conf).json();
    let after = changed(&plugin, &json!({"prevResult": result}));
    call("CHECK", "sandbox-2", &new, &after);
    call("DEL", "sandbox-1", &old, &conf);
    call("DEL", "sandbox-1", &new, &conf);
    call("CHECK", "sandbox-2", &new, &after);
    let address = addresses(&result).remove(0);
    let ping = format!("ping -n -c 1 -W 2 {address}");
    assert!(scene.node().run(&ping).success());
    call("DEL", "sandbox-2", &new, &conf);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn d06_nothing_foreign_is_removed() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    // The name that the container's interface would have on the host, and the one inside.
    assert!(scene.node().run("ip link add calic1 type bridge").success());
    assert!(pod.run("ip link add eth0 type bridge").success());
    let before = scene.traces();
    for id in ["c1", "c1"] {
        plugin.del(id, &pod);
    }
    assert_eq!(scene.traces(), before);
    assert!(pod.run("ip link show eth0").success());
}

#[test]
fn d09_a_delegate_that_is_gone_does_not_keep_our_own_part() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let data = scene.lab.dir().join("host-local");
    let ipam = json!({"cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": data}});
    let plugin = scene.plugin().with(ipam);
    let pod = scene.lab.pod();
    plugin.add("c1", &pod);
    let gone = changed(&plugin, &json!({"ipam": {"type": "no-such-ipam"}}));
    let deleted = plugin.call_with("DEL", "c1", &pod.path(), &[], &gone);
    assert_eq!(crate::refusal(&deleted), 7, "{deleted:?}");
    assert!(deleted.stdout.contains("no-such-ipam"), "{deleted:?}");
    assert_eq!(scene.traces(), rest);
    plugin.del("c1", &pod);
    assert!(!data.join("testnet").join("10.9.0.2").exists());
}

#[test]
fn d08_an_address_is_free_only_after_its_interface_is_gone() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let result = plugin.add("c1", &pod);
    let host = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    // The store takes nothing any more: the interface has gone before that is known.
    let record = scene.node().dir().join("strace");
    let options = [
        "-o",
        record.to_str().unwrap(),
        "-e",
        "trace=sendto,sendmsg,pwrite64",
    ]
    .map(str::to_owned);
    let conf = changed(&plugin, &json!({"prevResult": result}));
    let deleted = plugin.call_traced(&options, "DEL", "c1", &pod.path(), &conf);
    assert!(deleted.success(), "{deleted:?}");
    let calls = std::fs::read_to_string(record).unwrap();
    let deletion = calls.find("RTM_DELLINK");
    let last_write = calls.rfind("pwrite64");
    assert!(deletion.is_some() && deletion < last_write, "{calls}");
    assert!(!scene.traces().links.contains(&host));
}

#[test]
fn d10_a_del_without_the_store_takes_about_a_second() {
    let mut scene = Scene::etcd();
    let pods: Vec<Pod> = (0..10).map(|_| scene.lab.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        scene.plugin().add(&format!("c{n}"), pod);
    }
    let etcd = scene.etcd.as_mut().unwrap();
    etcd.process.signal(nix::sys::signal::Signal::SIGSTOP);
    let mut took = Vec::new();
    for (n, pod) in pods.iter().enumerate() {
        let deleted = scene.plugin().call("DEL", &format!("c{n}"), &pod.path());
        assert!(deleted.success(), "{deleted:?}");
        took.push(deleted.took);
    }
    let etcd = scene.etcd.as_mut().unwrap();
    etcd.process.signal(nix::sys::signal::Signal::SIGCONT);
    // The patience is 0.7 s; the machine may be busy, but not so busy for all of them.
    took.sort();
    assert!(took[0] < std::time::Duration::from_secs(2), "{took:?}");
}
