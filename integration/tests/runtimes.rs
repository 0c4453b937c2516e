//! Calls of real runtimes, replayed as they were recorded: their variables and stdin, with this lab's namespaces,
//! store and addresses in place of the recorded ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use margay_integration::cni::{addresses, cni_path};
use margay_integration::process::{bin_dir, inside};
use margay_integration::{Output, Pod, Scene, run};
use serde_json::{Map, Value, json};

/// One recorded call.
struct Call {
    env: BTreeMap<String, String>,
    stdin: Map<String, Value>,
}

fn recorded(text: &str) -> Vec<Call> {
    text.lines()
        .map(|line| {
            let call: Value = serde_json::from_str(line).unwrap();
            Call {
                env: serde_json::from_value(call["env"].clone()).unwrap(),
                stdin: call["stdin"].as_object().unwrap().clone(),
            }
        })
        .collect()
}

/// A process whose namespace is a pod's, as a container's first process is.
struct Container(Child);

impl Container {
    fn start(pod: &Pod) -> Self {
        let mut command = inside(&pod.namespace, "sleep");
        command.arg("60").stdin(Stdio::null());
        let container = Self(command.spawn().unwrap());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = container.path();
        margay_integration::process::eventually(
            "the process is in its namespace",
            std::time::Duration::from_secs(5),
            || std::fs::read_link(&path).is_ok_and(|link| link != own),
        );
        container
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What replaying leads from recorded values to the lab's.
struct Replay<'s> {
    scene: &'s Scene,
    /// Namespaces by the path that was recorded.
    namespaces: BTreeMap<String, (Pod, Option<Container>)>,
    /// Results by container.
    results: BTreeMap<String, Value>,
    /// A free address, asked for where one was.
    address: String,
}

impl<'s> Replay<'s> {
    fn new(scene: &'s Scene) -> Self {
        let pools = scene.ctl(&["get", "ippool", "-o", "json"], "").json();
        let cidr = pools["items"][0]["spec"]["cidr"].as_str().unwrap();
        Self {
            scene,
            namespaces: BTreeMap::new(),
            results: BTreeMap::new(),
            address: cidr.replace(".0.0/16", ".44.44"),
        }
    }

    /// The lab's namespace for a recorded one, of the same kind.
    fn namespace(&mut self, path: &str) -> String {
        if path.is_empty() || path == "dummy" {
            return path.to_owned();
        }
        let scene = self.scene;
        let (pod, container) = self.namespaces.entry(path.to_owned()).or_insert_with(|| {
            let pod = scene.lab.pod();
            let container = path.starts_with("/proc/").then(|| Container::start(&pod));
            (pod, container)
        });
        match container {
            Some(container) => container.path(),
            None if path.starts_with("/var/run/") => format!("/var{}", pod.path()),
            None => pod.path(),
        }
    }

    fn call(&mut self, call: &Call) -> Output {
        let verb = &*call.env["CNI_COMMAND"];
        let id = &*call.env["CNI_CONTAINERID"];
        let mut stdin = call.stdin.clone();
        if verb != "VERSION" {
            for key in ["etcd_endpoints", "nodename"] {
                stdin.remove(key);
            }
            let ours = self.scene.plugin().conf;
            for key in [
                "datastore_type",
                "store_path",
                "nodename_file",
                "state_dir",
                "endpoint_status_dir",
            ] {
                stdin.insert(key.to_owned(), ours[key].clone());
            }
        }
        if stdin.contains_key("prevResult") {
            stdin.insert("prevResult".to_owned(), self.results[id].clone());
        }
        let mut command = self.scene.node().command(bin_dir().join("margay"));
        for (name, value) in &call.env {
            let value = match name.as_str() {
                "CNI_NETNS" => self.namespace(value),
                "CNI_PATH" if value != "dummy" => cni_path(),
                "CNI_ARGS" => value.replace("10.88.77.79", &self.address),
                _ => value.clone(),
            };
            command.env(name, value);
        }
        let output = run(&mut command, Value::Object(stdin).to_string().as_bytes());
        assert!(output.success(), "{verb} {id}: {output:?}");
        match verb {
            "VERSION" => {
                let told = output.json();
                assert_eq!(told["cniVersion"], call.stdin["cniVersion"], "{told}");
                let versions = told["supportedVersions"].as_array().unwrap();
                for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
                    assert!(versions.contains(&version.into()), "{told}");
                }
            }
            "ADD" => {
                let result = output.json();
                let sandbox = self.namespace(&call.env["CNI_NETNS"]);
                // The form of 0.4.0, which all of them configured.
                assert_eq!(result["cniVersion"], "0.4.0", "{result}");
                assert_eq!(result["interfaces"][1]["name"], call.env["CNI_IFNAME"]);
                assert_eq!(result["interfaces"][1]["sandbox"], *sandbox, "{result}");
                assert!(result["interfaces"][1].get("mtu").is_none(), "{result}");
                assert_eq!(result["ips"][0]["version"], "4", "{result}");
                assert_eq!(result["ips"][0]["interface"], 1, "{result}");
                assert_eq!(result["dns"], json!({}), "{result}");
                if call.env["CNI_ARGS"].contains("IP=") {
                    assert_eq!(addresses(&result), [self.address.as_str()]);
                }
                let ping = format!("ping -n -c 1 -W 2 {}", addresses(&result)[0]);
                assert!(self.scene.node().run(&ping).success());
                self.results.insert(id.to_owned(), result);
            }
            _ => assert!(output.stdout.is_empty(), "{output:?}"),
        }
        output
    }

    fn endpoints(&self) -> String {
        self.scene
            .ctl(&["get", "wep", "-A", "-o", "json"], "")
            .stdout
    }
}

#[test]
fn podman() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut replay = Replay::new(&scene);
    for call in recorded(include_str!("recorded/podman-4.3.jsonl")) {
        replay.call(&call);
        if call.env["CNI_COMMAND"] == "ADD" {
            // It names a pod without a namespace, and means none.
            let endpoints = replay.endpoints();
            assert!(
                endpoints.contains(r#""orchestrator": "cni""#),
                "{endpoints}"
            );
        }
    }
    // The address that was asked for lies in a block of its own, which stays with the node.
    let after = scene.traces();
    assert_eq!((&after.links, &after.routes), (&rest.links, &rest.routes));
    assert!(after.holds_nothing(), "{}", after.held);
}

#[test]
fn containerds_ctr() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut replay = Replay::new(&scene);
    for call in recorded(include_str!("recorded/ctr-1.6.jsonl")) {
        replay.call(&call);
        // The process, and with it the namespace's path, is gone when DEL comes.
        for (_, container) in replay.namespaces.values_mut() {
            *container = None;
        }
    }
    assert_eq!(scene.traces(), rest);
}

#[test]
fn containerd_for_the_kubelet() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut replay = Replay::new(&scene);
    let calls = recorded(include_str!("recorded/cri-containerd-1.6.jsonl"));
    replay.call(&calls[0]);
    let endpoints = replay.endpoints();
    for part in [r#""name": "n1-k8s-nginx-eth0""#, r#""namespace": "prod""#] {
        assert!(endpoints.contains(part), "{endpoints}");
    }
    replay.call(&calls[1]);
    assert_eq!(scene.traces(), rest);
    // Once more, without a namespace and a result.
    for (pod, _) in replay.namespaces.values() {
        pod.delete();
    }
    replay.call(&calls[2]);
    assert_eq!(scene.traces(), rest);
}

/// Mesos gives these variables and no others, and the configuration it wrote down before the first call.
fn mesos(scene: &Scene, verb: &str, id: &str, conf: &Value, pod: Option<&Pod>) -> Output {
    let handle = scene.lab.dir().join("ns");
    std::fs::write(&handle, "").unwrap();
    // The namespace's handle is a bind mount, here in a mount namespace of the call's own.
    let script =
        "[ -z \"$HANDLE\" ] || mount --bind \"$HANDLE\" \"$CNI_NETNS\"; unset HANDLE; exec \"$0\"";
    let mut command = Command::new("unshare");
    command
        .env_clear()
        .args(["-m", "nsenter"])
        .arg(format!("--net=/run/netns/{}", scene.node().namespace()))
        .args(["sh", "-c", script])
        .arg(bin_dir().join("margay"))
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_PATH", cni_path())
        .env("CNI_IFNAME", "eth0")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(pod) = pod {
        command.env("HANDLE", pod.path()).env("CNI_NETNS", handle);
    }
    run(&mut command, conf.to_string().as_bytes())
}

#[test]
fn mesos_of_two_versions() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    for version in ["", "0.2.0"] {
        let mut conf = scene.plugin().conf;
        conf.remove("cniVersion");
        if !version.is_empty() {
            conf.insert("cniVersion".to_owned(), version.into());
        }
        let info = json!({"name": "testnet", "labels": {"labels": [
                {"key": "role", "value": "web"},
                {"key": "projectcalico.org/namespace", "value": "prod"},
                {"key": "we/ird", "value": "ü x"}]},
            "port_mappings": [{"host_port": 8080, "container_port": 80}]});
        conf.insert(
            "args".to_owned(),
            json!({"org.apache.mesos": {"network_info": info}}),
        );
        let conf = Value::Object(conf);
        let (pod, id) = (scene.lab.pod(), "39cc990c-3d33-4ba6-9fd6-d5b2b42e66e7");
        let added = mesos(&scene, "ADD", id, &conf, Some(&pod));
        assert!(added.success(), "{added:?}");
        let result = added.json();
        let address = result["ip4"]["ip"].as_str().unwrap();
        assert!(pod.run("ip addr show eth0").ok().contains(address));
        let endpoints = scene.ctl(&["get", "wep", "-A", "-o", "json"], "").json();
        let metadata = &endpoints["items"][0]["metadata"];
        assert_eq!(metadata["namespace"], "prod", "{endpoints}");
        assert_eq!(metadata["labels"]["role"], "web", "{endpoints}");
        assert_eq!(metadata["labels"]["we.ird"], "x", "{endpoints}");
        // The second after a reboot: the variable is left out.
        for pod in [Some(&pod), None] {
            let deleted = mesos(&scene, "DEL", id, &conf, pod);
            assert!(
                deleted.success() && deleted.stdout.is_empty(),
                "{deleted:?}"
            );
            assert_eq!(scene.traces(), rest);
        }
    }
}

#[test]
fn rkt() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut plugin = scene.plugin();
    plugin.conf.remove("cniVersion");
    let conf = Value::Object(plugin.conf.clone());
    let pod = scene.lab.pod();
    let path = format!("/etc/rkt/net.d:/usr/lib/rkt/plugins/net:{}", cni_path());
    let env = [
        ("CNI_VERSION", "0.1.0"),
        ("CNI_ARGS", ""),
        ("CNI_PATH", &*path),
    ];
    let id = "6733f1d2-5a51-4c39-b3d5-6a3a7a2b8d11";
    let added = plugin.call_with("ADD", id, &pod.path(), &env, &conf);
    assert!(added.success(), "{added:?}");
    assert!(added.json()["ip4"]["ip"].is_string(), "{added:?}");
    let deleted = plugin.call_with("DEL", id, &pod.path(), &env, &conf);
    assert!(deleted.success(), "{deleted:?}");
    assert_eq!(scene.traces(), rest);
}

/// Nomad's client by its library go-cni: the allocation is the container, and its arguments name no pod.
#[test]
fn nomad() {
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let mut plugin = scene.plugin().with(json!({
        "cniVersion": "1.0.0",
        "capabilities": {"portMappings": true},
        "runtimeConfig": {"portMappings": [
            {"hostPort": 24017, "containerPort": 8080, "protocol": "tcp", "hostIP": "172.31.0.2"}]},
    }));
    let id = "5b4d3a1e-72a5-2ba1-8a4d-6a9e0a6f6a52";
    let args = format!(
        "IgnoreUnknown=true;NOMAD_REGION=global;NOMAD_NAMESPACE=default;NOMAD_JOB_ID=web;\
         NOMAD_GROUP_NAME=front;NOMAD_ALLOC_ID={id}"
    );
    let env = [("CNI_ARGS", &*args)];
    let pod = scene.lab.pod();
    let call = |plugin: &margay_integration::Plugin<'_>, verb: &str| {
        let conf = Value::Object(plugin.conf.clone());
        plugin.call_with(verb, id, &pod.path(), &env, &conf)
    };
    let added = call(&plugin, "ADD");
    assert!(added.success(), "{added:?}");
    let endpoints = scene.ctl(&["get", "wep", "-A", "-o", "json"], "").json();
    let spec = &endpoints["items"][0]["spec"];
    assert_eq!(
        (&spec["orchestrator"], &spec["containerID"]),
        (&"cni".into(), &id.into())
    );
    // After a restart of the client it checks, and tears down with the result that it kept.
    plugin.conf.insert("prevResult".to_owned(), added.json());
    for verb in ["CHECK", "DEL", "DEL"] {
        let output = call(&plugin, verb);
        assert!(
            output.success() && output.stdout.is_empty(),
            "{verb}: {output:?}"
        );
    }
    assert_eq!(scene.traces(), rest);
}

/// Configurations that were written for Calico's plugins, taken by ours under Calico's names. Only places are
/// changed, to those of the lab.
#[test]
fn p19_calicos_own_configurations() {
    let scene = Scene::etcd();
    let bin = scene.lab.dir().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (ours, theirs) in [("margay", "calico"), ("margay-ipam", "calico-ipam")] {
        std::os::unix::fs::symlink(bin_dir().join(ours), bin.join(theirs)).unwrap();
    }
    let path = format!("{}:{}", bin.display(), cni_path());
    for (text, pool) in [
        (
            r#"{"cniVersion":"1.0.0","name":"calinet","type":"calico","datastore_type":"etcdv3",
            "etcd_endpoints":"http://10.200.0.1:2379","nodename":"n1","nodename_file_optional":true,
            "log_level":"info","log_file_path":"/var/log/calico/cni-h1.log","mtu":1450,
            "ipam_lock_file":"/var/log/calico/ipam-h1.lock","ipam":{"type":"calico-ipam"}}"#,
            "192.168.",
        ),
        (
            r#"{"cniVersion":"1.0.0","name":"calihl","type":"calico","datastore_type":"etcdv3",
            "etcd_endpoints":"http://10.200.0.1:2379","nodename":"n1","nodename_file_optional":true,
            "log_level":"info","log_file_path":"/var/log/calico/cni-h1.log","mtu":1450,
            "ipam_lock_file":"/var/log/calico/ipam-h1.lock",
            "ipam":{"type":"host-local","subnet":"10.77.0.0/16","dataDir":"/dev/shm/cp-hl-cal"}}"#,
            "10.77.",
        ),
    ] {
        let mut conf: Map<String, Value> = serde_json::from_str(text).unwrap();
        let lab = scene.plugin().conf;
        for key in ["etcd_endpoints", "nodename_file", "state_dir"] {
            conf.insert(key.to_owned(), lab[key].clone());
        }
        if conf["ipam"].get("dataDir").is_some() {
            let leases = scene.lab.dir().join("leases");
            conf["ipam"]["dataDir"] = leases.display().to_string().into();
        }
        let pod = scene.lab.pod();
        let call = |verb: &str, conf: &Map<String, Value>| {
            let mut command = scene.node().command(bin.join("calico"));
            command
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", "fxipt000")
                .env("CNI_NETNS", pod.path())
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", &path);
            run(
                &mut command,
                Value::Object(conf.clone()).to_string().as_bytes(),
            )
        };
        let added = call("ADD", &conf);
        assert!(added.success(), "{added:?}");
        let result = added.json();
        assert!(addresses(&result)[0].starts_with(pool), "{result}");
        assert!(pod.run("ip link show eth0").ok().contains("mtu 1450"));
        conf.insert("prevResult".to_owned(), result);
        for verb in ["CHECK", "DEL", "DEL"] {
            let output = call(verb, &conf);
            assert!(
                output.success() && output.stdout.is_empty(),
                "{verb}: {output:?}"
            );
        }
    }
    assert!(scene.traces().holds_nothing());
}
