//! C, S: CHECK sees what is wrong, and only that; STATUS tells whether an ADD would succeed.

use margay_integration::cni::addresses;
use margay_integration::{Agent, Lab, Plugin, Scene, StoreKind};
use serde_json::{Value, json};

use crate::{changed, refusal};

#[test]
fn c02_and_c03_and_c06_whatever_is_missing_is_told() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let result = plugin.add("c1", &pod);
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    let address = addresses(&result).remove(0);
    let check = || plugin.call_after("CHECK", "c1", &pod.path(), &result);
    for (damage, told) in [
        (format!("ip addr del {address}/32 dev eth0"), &*address),
        ("ip route del default".to_owned(), "route"),
        ("ip link set eth0 down".to_owned(), "eth0"),
        (
            "ip link set eth0 address 02:00:00:00:00:07".to_owned(),
            "02:00:00:00:00:07",
        ),
        ("ip link set eth0 name eth9".to_owned(), "eth0"),
        ("ip link del eth9".to_owned(), "eth0"),
    ] {
        assert!(
            check().success() || damage.contains("eth9"),
            "before {damage}"
        );
        assert!(pod.run(&damage).success(), "{damage}");
        let before = scene.traces();
        let checked = check();
        assert_eq!(refusal(&checked), 111, "{damage}: {checked:?}");
        assert!(checked.stdout.contains(told), "{damage}: {checked:?}");
        // It reads only.
        assert_eq!(scene.traces(), before, "{damage}");
        if !damage.contains("name") {
            plugin.add("c1", &pod);
        }
    }
    assert!(check().success());
    let route = format!("ip route del {address} dev {host}");
    assert!(scene.node().run(&route).success());
    // The agent puts its node's routes back, and may have been faster.
    let checked = check();
    if checked.success() {
        let routes = scene.traces().routes;
        assert!(
            routes.iter().any(|route| route.starts_with(&address)),
            "{routes:?}"
        );
    } else {
        assert_eq!(refusal(&checked), 111, "{checked:?}");
    }
    plugin.add("c1", &pod);
    let _ = scene
        .ctl(
            &["ipam", "release", "--force", &format!("--ip={address}")],
            "",
        )
        .ok();
    let checked = check();
    assert_eq!(refusal(&checked), 111, "{checked:?}");
}

#[test]
fn c01_the_result_of_another_attachment_does_not_pass() {
    let scene = Scene::sqlite();
    let plugin = scene.plugin();
    let pods = [scene.lab.pod(), scene.lab.pod()];
    let results = [plugin.add("c1", &pods[0]), plugin.add("c2", &pods[1])];
    assert_eq!(refusal(&plugin.call("CHECK", "c1", &pods[0].path())), 7);
    for (id, pod, result) in [("c1", 0, 1), ("c2", 0, 0), ("c1", 1, 0), ("c3", 0, 0)] {
        let checked = plugin.call_after("CHECK", id, &pods[pod].path(), &results[result]);
        assert_eq!(refusal(&checked), 111, "{id}: {checked:?}");
    }
    for path in ["/run/netns/none", "/dev/null"] {
        let checked = plugin.call_after("CHECK", "c1", path, &results[0]);
        assert_eq!(refusal(&checked), 8, "{path}: {checked:?}");
    }
}

#[test]
fn c05_check_passes_right_after_add_and_c07_without_a_path() {
    let scene = Scene::dual_stack();
    let both =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    let plugin = scene.plugin().with(both);
    for n in 0..10 {
        let (pod, id) = (scene.lab.pod(), format!("c{n}"));
        let result = plugin.add(&id, &pod);
        let conf = changed(&plugin, &json!({"prevResult": result}));
        let checked = plugin.call_with("CHECK", &id, &pod.path(), &[("CNI_PATH", "")], &conf);
        assert!(
            checked.success() && checked.stdout.is_empty(),
            "{checked:?}"
        );
    }
}

#[test]
fn s01_status_fails_when_an_add_would() {
    let lab = Lab::new(1);
    let store = StoreKind::Sqlite(lab.dir().join("store.db"));
    let plugin = Plugin::new(lab.node(1), &store);
    let mut ipam = Plugin::new(lab.node(1), &store);
    ipam.program = "margay-ipam";
    let status = |plugin: &Plugin<'_>| plugin.call("STATUS", "", "");
    for plugin in [&plugin, &ipam] {
        assert_eq!(refusal(&status(plugin)), 50, "no agent");
    }
    let _agent = Agent::start(lab.node(1), &store, &[("NO_DEFAULT_POOLS", "true")]);
    for plugin in [&plugin, &ipam] {
        let told = status(plugin);
        assert_eq!(refusal(&told), 50, "no pool: {told:?}");
    }
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\n\
                spec: {cidr: 10.50.0.0/30, blockSize: 30}\n";
    let _ = store.ctl(None, &["create", "-f", "-"], pool).ok();
    let pods: Vec<_> = (0..4).map(|_| lab.pod()).collect();
    for (n, pod) in pods.iter().enumerate() {
        for plugin in [&plugin, &ipam] {
            let told = status(plugin);
            assert!(told.success() && told.stdout.is_empty(), "{n}: {told:?}");
        }
        plugin.add(&format!("c{n}"), pod);
    }
    for plugin in [&plugin, &ipam] {
        let told = status(plugin);
        assert_eq!(refusal(&told), 50, "{told:?}");
        assert!(told.stdout.contains("tiny"), "{told:?}");
    }
    // S06: what is there is checked and removed all the same.
    plugin.del("c0", &pods[0]);
    assert!(status(&plugin).success());
}

#[test]
fn s03_a_delegates_status_is_asked_and_forwarded() {
    let scene = Scene::sqlite();
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let script = "#!/bin/sh\necho '{\"cniVersion\":\"1.1.0\",\"code\":51,\"msg\":\"out of order\"}'\nexit 1\n";
    let file = dir.join("broken-ipam");
    std::fs::write(&file, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    let plugin = scene
        .plugin()
        .with(json!({"ipam": {"type": "broken-ipam"}}));
    let conf = Value::Object(plugin.conf.clone());
    let path = dir.display().to_string();
    let told = plugin.call_with("STATUS", "", "", &[("CNI_PATH", &path)], &conf);
    assert_eq!(refusal(&told), 51, "{told:?}");
    assert!(told.stdout.contains("out of order"), "{told:?}");
}

/// A program that answers as an IPAM plugin would, in a folder of its own.
fn fake_ipam(scene: &Scene, name: &str, script: &str) -> String {
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join(name);
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&file, mode).unwrap();
    format!("{}:/bin", dir.display())
}

#[test]
fn c04_and_l04_a_delegates_check_is_asked_and_its_error_passed_up() {
    let scene = Scene::sqlite();
    let answer = r#"cat >/dev/null
case $CNI_COMMAND in
ADD) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.9.9/24"}]}' ;;
CHECK) echo '{"cniVersion":"1.1.0","code":123,"msg":"the lease is gone"}'; exit 1 ;;
esac"#;
    let path = fake_ipam(&scene, "lease-ipam", answer);
    let plugin = scene.plugin().with(json!({"ipam": {"type": "lease-ipam"}}));
    let (pod, env) = (scene.lab.pod(), [("CNI_PATH", path.as_str())]);
    let conf = changed(&plugin, &json!({}));
    let added = plugin.call_with("ADD", "c1", &pod.path(), &env, &conf);
    assert!(added.success(), "{added:?}");
    let conf = changed(&plugin, &json!({"prevResult": added.json()}));
    let checked = plugin.call_with("CHECK", "c1", &pod.path(), &env, &conf);
    assert_eq!(refusal(&checked), 123, "{checked:?}");
    assert!(checked.stdout.contains("the lease is gone"), "{checked:?}");
    let deleted = plugin.call_with("DEL", "c1", &pod.path(), &env, &conf);
    assert!(deleted.success(), "{deleted:?}");
}

#[test]
fn s02_s04_s05_and_i07_status_says_50_within_its_second_whatever_is_away() {
    let mut scene = Scene::etcd();
    for plugin in [scene.plugin(), scene.ipam()] {
        assert!(plugin.call("STATUS", "", "").success());
    }
    let etcd = scene.etcd.as_mut().unwrap();
    // It takes connections and answers nothing.
    etcd.process.signal(nix::sys::signal::Signal::SIGSTOP);
    for plugin in [scene.plugin(), scene.ipam()] {
        let file = scene.node().dir().join("hints");
        let file = file.join(format!("ready-{}-testnet", plugin.program));
        let noted = std::fs::File::options().append(true).open(file).unwrap();
        // It was ready a moment ago (a machine may be too busy for its second).
        noted.set_modified(std::time::SystemTime::now()).unwrap();
        let told = plugin.call("STATUS", "", "");
        assert!(told.success() || refusal(&told) == 108, "{told:?}");
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(11);
        noted.set_modified(long_ago).unwrap();
        let told = plugin.call("STATUS", "", "");
        let code = refusal(&told);
        assert!(code == 50 || code == 108, "{told:?}");
        // A second for the verb, and as much for a busy machine to start and end it.
        assert!(told.took < std::time::Duration::from_secs(2), "{told:?}");
    }
    let etcd = scene.etcd.as_mut().unwrap();
    etcd.process.signal(nix::sys::signal::Signal::SIGCONT);
    for plugin in [scene.plugin(), scene.ipam()] {
        let told = plugin.call("STATUS", "", "");
        assert!(told.success(), "{told:?}");
    }
}

#[test]
fn s06_attachments_come_and_go_while_status_fails() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let result = plugin.add("c1", &pod);
    // Nobody can be attached without a pool; who is attached is served as before.
    let pools = scene.ctl(&["get", "ippool", "-o", "json"], "").json();
    let name = pools["items"][0]["metadata"]["name"].as_str().unwrap();
    let disable = format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\n\
         spec: {{cidr: {}, disabled: true}}\n",
        pools["items"][0]["spec"]["cidr"].as_str().unwrap()
    );
    let _ = scene.ctl(&["apply", "-f", "-"], &disable).ok();
    assert_eq!(refusal(&plugin.call("STATUS", "", "")), 50);
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &result);
    assert!(checked.success(), "{checked:?}");
    plugin.del("c1", &pod);
    assert!(scene.traces().holds_nothing());
}
