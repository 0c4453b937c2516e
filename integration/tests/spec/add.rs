//! A, R, K: what ADD makes, answers, and takes back.

use std::path::Path;

use margay_integration::cni::{addresses, cni_path};
use margay_integration::process::bin_dir;
use margay_integration::{Scene, run};
use serde_json::{Value, json};

use crate::{changed, refusal};

#[test]
fn r05_to_r07_both_ends_are_told_and_addresses_point_at_the_containers() {
    let scene = Scene::dual_stack();
    let both =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    let plugin = scene.plugin().with(both);
    let pod = scene.lab.pod();
    // A path that is no canonical one comes back as it was given.
    let path = format!("/run/../run/netns/{}", pod.namespace);
    let result = plugin.call("ADD", "c1", &path).json();
    let interfaces = result["interfaces"].as_array().unwrap();
    assert_eq!(interfaces.len(), 2, "{result}");
    let [host, container] = [&interfaces[0], &interfaces[1]];
    assert!(host.get("sandbox").is_none(), "{result}");
    assert_eq!(container["sandbox"], *path);
    assert_eq!(container["name"], "eth0");
    let links = scene.traces().links;
    assert!(links.contains(host["name"].as_str().unwrap()), "{links:?}");
    let mac = container["mac"].as_str().unwrap();
    assert!(pod.run("ip link show eth0").ok().contains(mac), "{result}");
    assert_eq!(result["ips"].as_array().unwrap().len(), 2, "{result}");
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 1, "{result}");
        let address = ip["address"].as_str().unwrap();
        assert!(pod.run("ip addr show eth0").ok().contains(address));
    }
}

#[test]
fn a02_a_repeated_add_repairs_and_answers_the_same() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let first = plugin.add("c1", &pod);
    let host = first["interfaces"][0]["name"].as_str().unwrap();
    for damage in [
        "ip link del eth0",
        "ip link set eth0 down",
        "ip addr flush dev eth0",
        "ip route flush table main",
    ] {
        assert!(pod.run(damage).success(), "{damage}");
        assert_eq!(plugin.add("c1", &pod), first, "{damage}");
        let checked = plugin.call_after("CHECK", "c1", &pod.path(), &first);
        assert!(checked.success(), "{damage}: {checked:?}");
    }
    let _ = scene.node().run(&format!("ip link del {host}")).ok();
    assert_eq!(plugin.add("c1", &pod), first);
}

#[test]
fn a02_a_repeated_add_with_another_ipam_plugin_is_complete_too() {
    let scene = Scene::sqlite();
    let data = scene.lab.dir().join("host-local");
    let ipam = json!({"cniVersion": "1.0.0", "ipam": {"type": "host-local", "subnet": "10.9.0.0/24",
        "dataDir": data, "routes": [{"dst": "10.0.0.0/8"}]}});
    let plugin = scene.plugin().with(ipam);
    let pod = scene.lab.pod();
    let first = plugin.add("c1", &pod);
    assert_eq!(first["routes"][0]["dst"], "10.0.0.0/8", "{first}");
    let again = plugin.add("c1", &pod);
    assert_eq!(again, first);
    assert!(pod.run("ip link del eth0").success());
    assert_eq!(plugin.add("c1", &pod), first);
    let checked = plugin.call_after("CHECK", "c1", &pod.path(), &first);
    assert!(checked.success(), "{checked:?}");
    plugin.del("c1", &pod);
}

#[test]
fn a03_a_failed_add_leaves_nothing() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    for (change, code) in [
        (
            json!({"prevResult": {"cniVersion": "1.1.0", "ips": "none"}}),
            6,
        ),
        (json!({"prevResult": {"cniVersion": "9.9.9"}}), 1),
        (json!({"dns": 3}), 7),
        (json!({"mtu": 20}), 7),
        (json!({"mtu": 4_000_000_000_u32}), 7),
        (json!({"runtimeConfig": {"mac": "nonsense"}}), 7),
        (json!({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}), 7),
    ] {
        let refused = plugin.call_with("ADD", "c1", &pod.path(), &[], &changed(&plugin, &change));
        assert_eq!(refusal(&refused), code, "{change}: {refused:?}");
        assert_eq!(scene.traces(), rest, "{change}");
        assert_eq!(pod.run("ip -br link").ok().lines().count(), 1, "{change}");
    }
}

#[test]
fn a05_what_is_no_namespace_is_code_8_and_leaves_nothing() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let file = scene.lab.dir().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [
        "/run/netns/nobody",
        file.to_str().unwrap(),
        "/proc/self/ns/mnt",
        "/run/netns",
        "/dev/null",
        "/proc/1073741824/ns/net",
    ] {
        let refused = plugin.call("ADD", "c1", path);
        assert_eq!(refusal(&refused), 8, "{path}: {refused:?}");
        assert!(refused.stdout.contains("namespace"), "{refused:?}");
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn a07_an_address_asked_for_is_given_or_refused() {
    let scene = Scene::sqlite();
    let plugin = scene.plugin();
    let pool = scene.ctl(&["get", "ippool", "-o", "json"], "").json();
    let cidr = pool["items"][0]["spec"]["cidr"].as_str().unwrap();
    let base = cidr
        .split('/')
        .next()
        .unwrap()
        .strip_suffix(".0.0")
        .unwrap();
    let [first, second, third] = [7, 8, 9].map(|n| format!("{base}.77.{n}"));
    let capability = json!({"runtimeConfig": {"ips": [format!("{first}/24")]},
        "args": {"cni": {"ips": [third]}}});
    let args = json!({"args": {"cni": {"ips": [second]}}});
    for (id, change, variable, wanted) in [
        ("c1", &capability, &*third, &first),
        ("c2", &args, &*third, &second),
        ("c3", &json!({}), &*third, &third),
    ] {
        let pod = scene.lab.pod();
        let env = format!("IP={variable}");
        let conf = changed(&plugin, change);
        let added = plugin.call_with("ADD", id, &pod.path(), &[("CNI_ARGS", &env)], &conf);
        assert!(added.success(), "{added:?}");
        assert_eq!(addresses(&added.json()), [wanted.as_str()]);
    }
    let rest = scene.traces();
    for (address, code) in [(&*first, 101), ("203.0.113.9", 7)] {
        let conf = changed(&plugin, &json!({"runtimeConfig": {"ips": [address]}}));
        for refused in [
            plugin.call_with("ADD", "c9", &scene.lab.pod().path(), &[], &conf),
            scene.ipam().call_with("ADD", "c9", "/none", &[], &conf),
        ] {
            assert_eq!(refusal(&refused), code, "{refused:?}");
            assert!(refused.stdout.contains(address), "{refused:?}");
        }
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn a08_containers_whose_ids_begin_alike_have_interfaces_of_their_own() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let pods = [scene.lab.pod(), scene.lab.pod()];
    let ids = ["0123456789abcdef-one", "0123456789abcdef-two"];
    let results = [plugin.add(ids[0], &pods[0]), plugin.add(ids[1], &pods[1])];
    let host = |result: &Value| result["interfaces"][0]["name"].clone();
    assert_ne!(host(&results[0]), host(&results[1]));
    plugin.del(ids[0], &pods[0]);
    let checked = plugin.call_after("CHECK", ids[1], &pods[1].path(), &results[1]);
    assert!(checked.success(), "{checked:?}");
    plugin.del(ids[1], &pods[1]);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn e04_a_locked_datastore_refuses_add_for_now_and_lets_del_through() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    plugin.add("c1", &pod);
    let lock = |ready: bool| {
        let information = scene.ctl(&["get", "clusterinformation", "default", "-o", "json"], "");
        let mut information = information.json();
        information["spec"]["datastoreReady"] = ready.into();
        let _ = scene
            .ctl(&["replace", "-f", "-"], &information.to_string())
            .ok();
    };
    lock(false);
    for caller in [scene.plugin(), scene.ipam()] {
        let refused = caller.call("ADD", "c2", &scene.lab.pod().path());
        assert_eq!(refusal(&refused), 11, "{refused:?}");
        assert_eq!(refusal(&caller.call("STATUS", "", "")), 50);
    }
    plugin.del("c1", &pod);
    lock(true);
    assert_eq!(scene.traces(), rest);
    plugin.add("c2", &pod);
}

#[test]
fn k05_the_configurations_dns_is_echoed_unless_ipam_has_its_own() {
    let scene = Scene::sqlite();
    let dns = json!({"nameservers": ["10.0.0.53"], "search": ["example.org"]});
    let own = scene.plugin().with(json!({"dns": dns}));
    assert_eq!(own.add("c1", &scene.lab.pod())["dns"], dns);
    let resolv = scene.lab.dir().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 10.0.0.54\n").unwrap();
    let ipam = json!({"type": "host-local", "subnet": "10.9.0.0/24", "resolvConf": resolv,
        "dataDir": scene.lab.dir().join("host-local")});
    let other = scene
        .plugin()
        .with(json!({"cniVersion": "1.0.0", "dns": dns, "ipam": ipam}));
    let result = other.add("c2", &scene.lab.pod());
    assert_eq!(
        result["dns"]["nameservers"],
        json!(["10.0.0.54"]),
        "{result}"
    );
}

#[test]
fn l07_our_ipam_in_the_process_and_as_a_program_behave_alike() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let dir = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&dir).unwrap();
    // Under a name that the network plugin does not know, it is called as any other is.
    std::os::unix::fs::symlink(bin_dir().join("margay-ipam"), dir.join("some-ipam")).unwrap();
    let own = scene.plugin();
    let other = scene.plugin().with(json!({"ipam": {"type": "some-ipam"}}));
    let path = format!("{}:{}", dir.display(), cni_path());
    let pods = [scene.lab.pod(), scene.lab.pod()];
    let shape = |result: &Value| {
        let mut result = result.clone();
        for place in [
            "/interfaces/0/name",
            "/interfaces/1/mac",
            "/interfaces/1/sandbox",
            "/ips/0/address",
        ] {
            *result.pointer_mut(place).unwrap() = Value::Null;
        }
        let network = result.pointer_mut("/routes/0/dst").unwrap();
        *network = network.as_str().unwrap().split('/').next_back().into();
        result
    };
    let first = own.add("one", &pods[0]);
    let conf = Value::Object(other.conf.clone());
    let call = |verb: &str, conf: &Value| {
        other.call_with(verb, "two", &pods[1].path(), &[("CNI_PATH", &path)], conf)
    };
    let added = call("ADD", &conf);
    assert!(added.success(), "{added:?}");
    let second = added.json();
    assert_eq!(shape(&first), shape(&second));
    let after = changed(&other, &json!({"prevResult": second}));
    assert!(call("CHECK", &after).success());
    assert!(call("STATUS", &conf).success());
    assert!(call("DEL", &after).success());
    own.del("one", &pods[0]);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p13_an_unwritable_folder_of_hints_stops_nobody() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin().with(json!({"state_dir": "/proc/nowhere"}));
    let pod = scene.lab.pod();
    plugin.add("c1", &pod);
    plugin.del("c1", &pod);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn p14_an_add_that_nobody_hears_of_is_taken_back() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    for program in ["margay", "margay-ipam"] {
        assert!(Path::new("/dev/full").exists());
        let script = "exec \"$0\" >/dev/full";
        let mut command = scene.node().command("/bin/sh");
        command
            .args(["-c", script])
            .arg(bin_dir().join(program))
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", cni_path());
        let conf = Value::Object(plugin.conf.clone()).to_string();
        let called = run(&mut command, conf.as_bytes());
        assert_eq!(called.code, 1, "{called:?}");
        assert_eq!(scene.traces(), rest, "{program}");
    }
}

#[test]
fn a01_and_d06_an_interface_that_is_somebody_elses_is_left_alone() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let made = pod.run("ip link add eth0 type veth peer name other");
    assert!(made.success(), "{made:?}");
    let before = pod.run("ip -o link").ok();
    let refused = plugin.call("ADD", "c1", &pod.path());
    assert_eq!(refusal(&refused), 105, "{refused:?}");
    assert_eq!(pod.run("ip -o link").ok(), before);
    // The runtime's DEL after the failure.
    plugin.del("c1", &pod);
    assert_eq!(pod.run("ip -o link").ok(), before);
    assert_eq!(scene.traces(), rest);
}

#[test]
fn a06_and_a09_traffic_flows_when_add_returns() {
    let scene = Scene::dual_stack();
    let both =
        json!({"ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"}});
    let plugin = scene.plugin().with(both);
    for n in 0..5 {
        let pod = scene.lab.pod();
        let result = plugin.add(&format!("c{n}"), &pod);
        for address in addresses(&result) {
            // The first packet, without a second chance.
            let ping = format!("ping -n -q -c 1 -W 1 {address}");
            let pinged = scene.node().run(&ping);
            assert!(pinged.success(), "{address}: {pinged:?}");
        }
        assert!(pod.pings("127.0.0.1", 1), "its loopback interface is up");
    }
}

#[test]
fn r08_and_k01_the_result_of_the_plugin_before_is_passed_through() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let previous = json!({"cniVersion": "1.1.0",
        "interfaces": [{"name": "dummy0", "mac": "02:00:00:00:00:09", "mtu": 1400, "sandbox": pod.path()}],
        "ips": [{"interface": 0, "address": "203.0.113.9/24", "gateway": "203.0.113.1"}],
        "routes": [{"dst": "203.0.113.0/24", "priority": 7, "table": 0}],
        "dns": {"nameservers": ["203.0.113.53"]}});
    let result = plugin.call_after("ADD", "c1", &pod.path(), &previous);
    assert!(result.success(), "{result:?}");
    let result = result.json();
    assert_eq!(
        result["interfaces"][0], previous["interfaces"][0],
        "{result}"
    );
    assert_eq!(result["ips"][0], previous["ips"][0], "{result}");
    assert_eq!(result["routes"][0], previous["routes"][0], "{result}");
    assert_eq!(result["dns"], previous["dns"], "{result}");
    assert_eq!(
        result["interfaces"].as_array().unwrap().len(),
        3,
        "{result}"
    );
    assert_eq!(result["ips"][1]["interface"], 2, "{result}");
}

#[test]
fn x05_arguments_are_labels_and_never_paths_or_rights() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let conf = changed(&plugin, &json!({}));
    let call = |verb: &str, args: &str| {
        plugin.call_with(verb, "c1", &pod.path(), &[("CNI_ARGS", args)], &conf)
    };
    for (namespace, name) in [
        ("../../etc", "passwd"),
        ("prod", "../../../tmp/x"),
        ("a/b", "c/d"),
        ("prod", "$(touch /tmp/margay-x05)"),
    ] {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
        let answered = call("ADD", &args);
        // Refused, or taken as the label that it is; in either case a DEL leaves nothing.
        if !answered.success() {
            refusal(&answered);
        }
        assert!(call("DEL", &args).success(), "{args}");
        assert_eq!(scene.traces(), rest, "{args}");
    }
    assert!(!Path::new("/tmp/margay-x05").exists());
    // An address that somebody else holds is not handed over because arguments ask for it.
    let other = scene.lab.pod();
    let address = addresses(&plugin.add("owner", &other)).remove(0);
    let refused = call("ADD", &format!("IgnoreUnknown=1;IP={address}"));
    assert_eq!(refusal(&refused), 101, "{refused:?}");
}

#[test]
fn x04_arguments_give_way_to_args_and_capabilities() {
    let scene = Scene::sqlite();
    let (plugin, pod) = (scene.plugin(), scene.lab.pod());
    let first = addresses(&plugin.add("c0", &scene.lab.pod())).remove(0);
    let (network, last) = first.rsplit_once('.').unwrap();
    let next = |n: u8| format!("{network}.{}", last.parse::<u8>().unwrap() / 64 * 64 + n);
    let conf = changed(
        &plugin,
        &json!({"args": {"cni": {"ips": [next(41)]}}, "runtimeConfig": {"ips": [format!("{}/32", next(42))]}}),
    );
    let env = [("CNI_ARGS", &*format!("IP={}", next(40)))];
    let added = plugin.call_with("ADD", "c1", &pod.path(), &env, &conf);
    assert!(added.success(), "{added:?}");
    assert_eq!(addresses(&added.json()), [next(42)]);
}
