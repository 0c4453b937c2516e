//! Calls of a kubelet: what the plugins ask an API server, and what they make of its answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

mod apiserver;
mod cluster;
mod real;

use std::path::Path;

use apiserver::{ApiServer, Authority, Mood};
use margay_integration::cni::{addresses, cni_path};
use margay_integration::process::{Output, bin_dir, inside};
use margay_integration::{Agent, Etcd, Lab, Plugin, Pod, StoreKind, run};
use serde_json::{Value, json};

/// A lab with an API server, and an agent on its only node.
struct Cluster<'l> {
    lab: &'l Lab,
    api: ApiServer,
    store: StoreKind,
    _agent: Agent,
}

impl<'l> Cluster<'l> {
    fn start(lab: &'l Lab) -> Self {
        Self::with(lab, StoreKind::Sqlite(lab.dir().join("store.db")))
    }

    fn with(lab: &'l Lab, store: StoreKind) -> Self {
        let api = ApiServer::start(lab);
        api.namespace("prod", json!({"labels": {"team": "front"}}));
        let _agent = Agent::start(lab.node(1), &store, &[]);
        Self {
            lab,
            api,
            store,
            _agent,
        }
    }

    /// The network plugin, told to ask the API server.
    fn plugin(&self) -> Plugin<'l> {
        Plugin::new(self.lab.node(1), &self.store).with(json!({
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": self.api.usual()},
        }))
    }

    /// The stored endpoint of a pod.
    #[track_caller]
    fn endpoint(&self, pod: &str) -> Option<Value> {
        let listed = self.ctl(&["get", "wep", "-A", "-o", "json"], "").json();
        let items = listed["items"].as_array().unwrap().clone();
        items.into_iter().find(|item| item["spec"]["pod"] == pod)
    }

    fn ctl(&self, arguments: &[&str], stdin: &str) -> Output {
        let node = self.lab.node(1).namespace();
        self.store.ctl(Some(&node), arguments, stdin)
    }

    /// Makes a pool.
    fn pool(&self, name: &str, cidr: &str, more: Value) {
        let mut pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
            "metadata": {"name": name}, "spec": {"cidr": cidr, "natOutgoing": false}});
        let spec = pool["spec"].as_object_mut().unwrap();
        spec.extend(more.as_object().unwrap().clone());
        let _ = self.ctl(&["apply", "-f", "-"], &pool.to_string()).ok();
    }
}

/// A call as the CRI makes it for a pod of namespace `prod`.
fn call(plugin: &Plugin<'_>, verb: &str, container: &str, netns: &str, pod: &str) -> Output {
    let args = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME={pod};K8S_POD_INFRA_CONTAINER_ID={container};\
         K8S_POD_UID=6f2c"
    );
    let conf = Value::Object(plugin.conf.clone());
    plugin.call_with(verb, container, netns, &[("CNI_ARGS", &args)], &conf)
}

#[track_caller]
fn add(plugin: &Plugin<'_>, container: &str, netns: &Pod, pod: &str) -> Value {
    let output = call(plugin, "ADD", container, &netns.path(), pod);
    assert!(output.success(), "{output:?}");
    output.json()
}

#[track_caller]
fn del(plugin: &Plugin<'_>, container: &str, netns: &str, pod: &str) {
    let output = call(plugin, "DEL", container, netns, pod);
    assert!(output.success(), "{output:?}");
}

/// An ADD that must fail with this code; the error.
#[track_caller]
fn refused(plugin: &Plugin<'_>, netns: &Pod, pod: &str, code: u32) -> String {
    let output = call(plugin, "ADD", "refused", &netns.path(), pod);
    assert!(!output.success(), "{output:?}");
    let error = output.json();
    assert_eq!(error["code"], code, "{error}");
    format!("{} {}", error["msg"], error["details"])
}

/// A value that another program recorded, from the tests of the model.
fn recorded_endpoint() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/model/tests/golden/10-k8s-pod-add.json");
    let dump: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let entries = dump["kvs"].as_array().unwrap();
    let of_pod = |entry: &&Value| {
        entry["key"]
            .as_str()
            .unwrap()
            .contains("/prod/cp--h2-k8s-web--7d4b9c")
    };
    let raw = entries.iter().find(of_pod).unwrap()["raw"]
        .as_str()
        .unwrap();
    raw.replace("cp--h2", "n1").replace("cp-h2", "n1")
}

/// The same text with everything that differs from call to call replaced.
fn normalised(text: &str) -> String {
    let mut endpoint: Value = serde_json::from_str(text).unwrap();
    endpoint["metadata"]["uid"] = "UID".into();
    endpoint["metadata"]["creationTimestamp"] = "TIME".into();
    endpoint["spec"]["ipNetworks"] = json!(["ADDRESS"]);
    endpoint["spec"]["mac"] = "MAC".into();
    endpoint.to_string()
}

#[test]
fn a_pod_is_recorded_as_calico_records_it() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::with(&lab, etcd.store());
    let name = "web-7d4b9c-x2x9z";
    cluster.api.pod(
        "prod",
        name,
        json!({"generateName": "web-7d4b9c-", "labels": {"app": "web", "tier": "front"}}),
        json!({"serviceAccountName": "sa1", "containers": [{"name": "c", "ports": [
            {"name": "http", "containerPort": 8080, "protocol": "TCP"},
            {"containerPort": 9090, "protocol": "TCP"},
        ]}], "initContainers": [{"name": "i", "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}),
    );
    let plugin = cluster
        .plugin()
        .with(json!({"name": "k8s-pod-network", "cniVersion": "1.0.0", "mtu": 1450}));
    let netns = lab.pod();
    let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    let result = add(&plugin, id, &netns, name);

    let wanted = recorded_endpoint();
    let key = "/calico/resources/v3/projectcalico.org/workloadendpoints/prod/n1-k8s-web--7d4b9c--x2x9z-eth0";
    let mut get = inside(&lab.fabric(), "etcdctl");
    get.env("ETCDCTL_API", "3").args([
        "--endpoints",
        &etcd.endpoint,
        "get",
        key,
        "--print-value-only",
    ]);
    let stored = run(&mut get, b"").ok();
    assert_eq!(normalised(&stored), normalised(&wanted));
    let uid = serde_json::from_str::<Value>(&stored).unwrap()["metadata"]["uid"].clone();
    assert_eq!(uid.as_str().map(str::len), Some(36), "{stored}");

    let address = addresses(&result).remove(0);
    let block = result["routes"][0]["dst"].clone();
    assert_eq!(
        result,
        json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                {"name": "cali35645a45788"},
                {"mac": result["interfaces"][1]["mac"], "mtu": 1450, "name": "eth0", "sandbox": netns.path()},
            ],
            "ips": [{"address": format!("{address}/32"), "interface": 1}],
            "routes": [{"dst": block}],
        }),
    );
    assert!(block.as_str().unwrap().ends_with("/26"), "{block}");
    assert_eq!(
        cluster.api.asked(),
        [
            "/api/v1/namespaces/prod",
            &format!("/api/v1/namespaces/prod/pods/{name}")
        ]
    );

    // The same call again changes nothing, and CHECK asks nobody but the store.
    let again = add(&plugin, id, &netns, name);
    assert_eq!(addresses(&again), addresses(&result));
    cluster.api.asked();
    let mut checking = cluster.plugin().with(Value::Object(plugin.conf.clone()));
    checking.conf.insert("prevResult".to_owned(), result);
    let checked = call(&checking, "CHECK", id, &netns.path(), name);
    assert!(checked.success(), "{checked:?}");

    // The CRI's DEL comes twice, the second time without a namespace.
    del(&plugin, id, &netns.path(), name);
    del(&plugin, id, "", name);
    assert!(
        cluster.api.asked().is_empty(),
        "CHECK and DEL ask no API server"
    );
    assert!(cluster.endpoint(name).is_none());
    assert!(cluster.ctl(&["ipam", "check"], "").success());
}

#[test]
fn a_new_container_takes_the_place_of_the_old() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    cluster.api.pod("prod", "web-0", json!({}), json!({}));
    let (plugin, node) = (cluster.plugin(), lab.node(1));
    let (old, new) = (lab.pod(), lab.pod());
    let first = add(&plugin, "old", &old, "web-0");
    cluster.api.pod(
        "prod",
        "web-0",
        json!({"labels": {"version": "2"}}),
        json!({}),
    );
    let second = add(&plugin, "new", &new, "web-0");
    let (from, to) = (addresses(&first).remove(0), addresses(&second).remove(0));
    assert_ne!(from, to, "what was given back goes to the end of the row");
    // The old container's DEL may never come: the new one's ADD has given back what it held.
    let held = cluster.ctl(&["ipam", "show", &format!("--ip={from}")], "");
    assert!(held.stdout.contains("not assigned"), "{held:?}");
    assert_eq!(
        first["interfaces"][0]["name"],
        second["interfaces"][0]["name"]
    );
    assert!(
        !old.run("ip link show eth0").success(),
        "the old interface is gone"
    );
    let after = cluster.endpoint("web-0").unwrap();
    assert_eq!(after["spec"]["containerID"], "new");
    assert_eq!(after["metadata"]["labels"]["version"], "2");

    // The late DEL of the old container leaves the new one alone.
    del(&plugin, "old", &old.path(), "web-0");
    assert!(node.run(&format!("ping -n -c 1 -W 2 {to}")).success());
    assert_eq!(
        cluster.endpoint("web-0").unwrap()["spec"]["containerID"],
        "new"
    );

    // A call that was killed after it had rewritten the record, and before it could replace the interface, is
    // repaired by its repetition.
    let host = second["interfaces"][0]["name"].as_str().unwrap();
    for line in [
        format!("ip link del {host}"),
        format!("ip link add {host} type veth peer name leftover"),
        format!("ip link set {host} alias margay:testnet/old/eth0"),
    ] {
        let _ = node.run(&line).ok();
    }
    assert_eq!(
        addresses(&add(&plugin, "new", &new, "web-0")),
        [to.as_str()]
    );
    assert!(node.run(&format!("ping -n -c 1 -W 2 {to}")).success());
    del(&plugin, "new", &new.path(), "web-0");
    assert!(cluster.endpoint("web-0").is_none());
    assert!(!node.run("ip -br link").ok().contains("cali"));
}

#[test]
fn gc_knows_the_pods_of_its_network() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::with(&lab, etcd.store());
    let ours = cluster.plugin();
    let others = cluster.plugin().with(json!({"name": "othernet"}));
    let etcdctl = |arguments: &[&str], stdin: &str| {
        let mut command = inside(&lab.fabric(), "etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &etcd.endpoint]);
        run(command.args(arguments), stdin.as_bytes()).ok()
    };
    for (plugin, pod) in [(&ours, "gone"), (&ours, "alive"), (&others, "foreign")] {
        cluster.api.pod("prod", pod, json!({}), json!({}));
        add(plugin, pod, &lab.pod(), pod);
        // As if it had been made long ago: a newcomer is left alone in any case.
        let key = format!(
            "/calico/resources/v3/projectcalico.org/workloadendpoints/prod/n1-k8s-{pod}-eth0"
        );
        let mut endpoint: Value =
            serde_json::from_str(&etcdctl(&["get", &key, "--print-value-only"], "")).unwrap();
        endpoint["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
        etcdctl(&["put", &key], &endpoint.to_string());
    }
    cluster.api.asked();
    let mut listed = ours.conf.clone();
    let alive = json!([{"containerID": "alive", "ifname": "eth0"}]);
    listed.insert("cni.dev/valid-attachments".to_owned(), alive);
    let output = ours.call_with("GC", "", "", &[], &Value::Object(listed));
    assert!(output.success(), "{output:?}");
    assert!(cluster.endpoint("gone").is_none());
    assert!(cluster.endpoint("alive").is_some() && cluster.endpoint("foreign").is_some());
    assert!(cluster.api.asked().is_empty());
    assert!(cluster.ctl(&["ipam", "check"], "").success());
}

#[test]
fn annotations_choose_pools_and_addresses() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    for (name, cidr) in [("one", "10.91.0.0/24"), ("two", "10.92.0.0/24")] {
        cluster.pool(name, cidr, json!({"nodeSelector": "!all()"}));
    }
    let (api, plugin) = (&cluster.api, cluster.plugin());
    let annotated = |annotations: Value| json!({"annotations": annotations});
    api.namespace(
        "prod",
        annotated(json!({"cni.projectcalico.org/ipv4pools": "[\"one\"]"})),
    );
    api.pod("prod", "inherits", json!({}), json!({}));
    let own = json!({
        "cni.projectcalico.org/ipv4pools": "[\"10.92.0.0/24\"]",
        "cni.projectcalico.org/hwAddr": "02:11:22:33:44:55",
        "cni.projectcalico.org/allowedSourcePrefixes": "[\"10.200.0.0/16\"]",
    });
    api.pod("prod", "overrides", annotated(own), json!({}));
    let netns = [lab.pod(), lab.pod()];
    let inherits = add(&plugin, "inherits", &netns[0], "inherits");
    assert!(addresses(&inherits)[0].starts_with("10.91."), "{inherits}");
    let overrides = add(&plugin, "overrides", &netns[1], "overrides");
    assert!(
        addresses(&overrides)[0].starts_with("10.92."),
        "{overrides}"
    );
    assert_eq!(overrides["interfaces"][1]["mac"], "02:11:22:33:44:55");
    let spec = &cluster.endpoint("overrides").unwrap()["spec"];
    assert_eq!(spec["allowSpoofedSourcePrefixes"], json!(["10.200.0.0/16"]));

    // A certain address goes from container to container of the pod, though the old one's DEL is late.
    let wanted = annotated(json!({"cni.projectcalico.org/ipAddrs": "[\"10.91.0.77\"]"}));
    api.pod("prod", "db-0", wanted, json!({}));
    let (old, new) = (lab.pod(), lab.pod());
    for (container, netns) in [("db-old", &old), ("db-new", &new)] {
        let result = add(&plugin, container, netns, "db-0");
        assert_eq!(addresses(&result), ["10.91.0.77"]);
    }
    del(&plugin, "db-old", &old.path(), "db-0");
    let held = cluster.ctl(&["ipam", "show", "--ip=10.91.0.77"], "").ok();
    assert!(!held.contains("not assigned"), "{held}");
    let text = refused(&plugin, &lab.pod(), "absent", 11);
    assert!(text.contains("pod prod/absent"), "{text}");
    api.pod(
        "prod",
        "wrong",
        annotated(json!({"cni.projectcalico.org/ipv4pools": "one"})),
        json!({}),
    );
    let text = refused(&plugin, &lab.pod(), "wrong", 7);
    assert!(text.contains("cni.projectcalico.org/ipv4pools"), "{text}");
}

#[test]
fn pools_are_selected_by_namespace() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    let _ = cluster
        .ctl(&["delete", "ippool", "default-ipv4-ippool"], "")
        .ok();
    cluster.pool(
        "back",
        "10.93.0.0/24",
        json!({"namespaceSelector": "team == 'back'", "allowedUses": ["Workload"]}),
    );
    cluster.pool(
        "front",
        "10.94.0.0/24",
        json!({"namespaceSelector": "team == 'front'", "allowedUses": ["Workload"]}),
    );
    cluster.api.pod("prod", "web-0", json!({}), json!({}));
    let result = add(&cluster.plugin(), "c1", &lab.pod(), "web-0");
    assert!(addresses(&result)[0].starts_with("10.94."), "{result}");
}

#[test]
fn features_are_gated() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    let (api, plugin) = (&cluster.api, cluster.plugin());
    let annotations = json!({"annotations": {
        "cni.projectcalico.org/ipAddrsNoIpam": "[\"10.99.0.9\"]",
        "cni.projectcalico.org/floatingIPs": "[\"203.0.113.9\"]",
    }});
    api.pod("prod", "router", annotations, json!({}));
    let netns = lab.pod();
    let text = refused(&plugin, &netns, "router", 7);
    assert!(text.contains("feature_control.ip_addrs_no_ipam"), "{text}");
    assert!(cluster.endpoint("router").is_none());
    let on = json!({"feature_control": {"ip_addrs_no_ipam": true, "floating_ips": true}});
    let plugin = plugin.with(on);
    let result = add(&plugin, "c1", &netns, "router");
    assert_eq!(addresses(&result), ["10.99.0.9"]);
    assert!(lab.node(1).run("ping -n -c 1 -W 2 10.99.0.9").success());
    let spec = cluster.endpoint("router").unwrap()["spec"].clone();
    let nats = json!([{"internalIP": "10.99.0.9", "externalIP": "203.0.113.9"}]);
    assert_eq!(spec["ipNATs"], nats);
    let mut checking = cluster.plugin().with(Value::Object(plugin.conf.clone()));
    checking.conf.insert("prevResult".to_owned(), result);
    let checked = call(&checking, "CHECK", "c1", &netns.path(), "router");
    assert!(checked.success(), "{checked:?}");
    del(&plugin, "c1", &netns.path(), "router");
    assert!(cluster.endpoint("router").is_none());
}

#[test]
fn nobody_is_asked_unless_the_configuration_says_so() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    let kubeconfig = json!({"kubernetes": {"kubeconfig": cluster.api.usual()}});
    let silent = Plugin::new(lab.node(1), &cluster.store).with(kubeconfig);
    let netns = lab.pod();
    let _ = add(&silent, "c1", &netns, "unheard-of");
    let endpoint = cluster.endpoint("unheard-of").unwrap();
    assert_eq!(endpoint["spec"]["profiles"], json!(["testnet"]));

    // Podman names a pod, and no namespace: that is no Kubernetes.
    let plugin = cluster.plugin();
    let conf = Value::Object(plugin.conf.clone());
    let args = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web-0")];
    let netns = lab.pod();
    let output = plugin.call_with("ADD", "podman1", &netns.path(), &args, &conf);
    assert!(output.success(), "{output:?}");
    let listed = cluster.ctl(&["get", "wep", "-A", "-o", "json"], "").json();
    let items = listed["items"].as_array().unwrap();
    let endpoint = items
        .iter()
        .find(|item| item["spec"]["containerID"] == "podman1")
        .unwrap();
    assert_eq!(endpoint["spec"]["orchestrator"], "cni");
    assert_eq!(endpoint["spec"]["profiles"], json!(["testnet"]));
    assert!(cluster.api.asked().is_empty());
}

#[test]
fn what_goes_wrong_is_told_and_leaves_nothing() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    let (api, netns) = (&cluster.api, lab.pod());
    api.pod("prod", "web-0", json!({}), json!({}));
    let with = |name: &str, cluster_field: &str, user: &str| {
        let file = api.kubeconfig(name, cluster_field, user);
        cluster
            .plugin()
            .with(json!({"kubernetes": {"kubeconfig": file}}))
    };
    let token = format!("token: {}", apiserver::TOKEN);
    let stranger = Authority::new();
    std::fs::write(lab.dir().join("stranger.crt"), &stranger.pem).unwrap();
    let text = refused(
        &with("denied", &api.trusted(), "token: secret-other"),
        &netns,
        "web-0",
        103,
    );
    assert!(
        text.contains("namespace prod") && text.contains("401"),
        "{text}"
    );
    assert!(!text.contains("secret-other"), "{text}");
    let text = refused(
        &with("stranger", "certificate-authority: stranger.crt", &token),
        &netns,
        "web-0",
        102,
    );
    assert!(text.contains("TLS") && text.contains(&api.url), "{text}");
    let misnamed = format!("{}\n    tls-server-name: kubernetes", api.trusted());
    let text = refused(&with("misnamed", &misnamed, &token), &netns, "web-0", 102);
    assert!(text.contains("certificate not valid for name"), "{text}");
    let text = refused(
        &with("exec", &api.trusted(), "exec: {command: aws}"),
        &netns,
        "web-0",
        110,
    );
    assert!(
        text.contains("exec") && text.contains("kubeconfig"),
        "{text}"
    );
    let plugin = cluster.plugin().with(json!({"kubernetes": {}}));
    assert!(refused(&plugin, &netns, "web-0", 7).contains("kubernetes.kubeconfig"));
    let down = json!({"kubernetes": {"kubeconfig": api.usual(), "k8s_api_root": "https://172.31.255.254:9/api/v1/"}});
    let down = cluster.plugin().with(down);
    let text = refused(&down, &netns, "web-0", 102);
    assert!(text.contains("https://172.31.255.254:9 "), "{text}");
    let status = down.call("STATUS", "", "");
    assert_eq!(status.json()["code"], 50, "{status:?}");

    let plugin = cluster.plugin();
    api.be(Mood::Busy);
    assert!(refused(&plugin, &netns, "web-0", 11).contains("etcd leader changed"));
    api.be(Mood::Silent);
    let text = refused(&plugin, &netns, "web-0", 108);
    assert!(
        text.contains("namespace prod") && text.contains("5s"),
        "{text}"
    );
    api.be(Mood::Good);
    assert!(cluster.endpoint("web-0").is_none());
    assert!(!lab.node(1).run("ip -br link").ok().contains("cali"));
    let status = plugin.call("STATUS", "", "");
    assert!(status.success(), "{status:?}");

    // A client certificate proves as much as a token; without a check of the server's, any will do.
    let (chain, key) = api.authority.issue("margay");
    std::fs::write(lab.dir().join("client.crt"), chain).unwrap();
    std::fs::write(lab.dir().join("client.key"), key).unwrap();
    let files = "client-certificate: client.crt\n    client-key: client.key";
    let plugin = with("certificate", "insecure-skip-tls-verify: true", files);
    add(&plugin, "c1", &netns, "web-0");
    del(&plugin, "c1", &netns.path(), "web-0");
}

#[test]
fn host_local_takes_the_node_s_prefixes() {
    let lab = Lab::new(1);
    let cluster = Cluster::start(&lab);
    let (api, netns) = (&cluster.api, lab.pod());
    api.pod("prod", "web-0", json!({}), json!({}));
    api.node(
        "kube-n1",
        json!({"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24", "fd44:7::/64"]}),
    );
    let leases = lab.dir().join("leases");
    let plugin = cluster.plugin().with(json!({
        "kubernetes": {"kubeconfig": api.usual(), "node_name": "kube-n1"},
        "cniVersion": "1.0.0",
        "ipam": {"type": "host-local", "dataDir": leases,
            "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]]},
    }));
    let result = add(&plugin, "c1", &netns, "web-0");
    let given = addresses(&result);
    assert!(
        given[0].starts_with("10.244.7.") && given[1].starts_with("fd44:7::"),
        "{given:?}"
    );
    assert_eq!(
        api.asked(),
        [
            "/api/v1/nodes/kube-n1",
            "/api/v1/namespaces/prod",
            "/api/v1/namespaces/prod/pods/web-0"
        ]
    );
    let lease = leases.join("testnet").join(&given[0]);
    assert!(lease.exists());
    api.be(Mood::Silent);
    let mut checking = cluster.plugin().with(Value::Object(plugin.conf.clone()));
    checking.conf.insert("prevResult".to_owned(), result);
    let checked = call(&checking, "CHECK", "c1", &netns.path(), "web-0");
    assert!(checked.success(), "{checked:?}");
    del(&plugin, "c1", &netns.path(), "web-0");
    assert!(
        !lease.exists(),
        "DEL gives the lease back without the API server"
    );
    api.be(Mood::Good);
    let plugin = plugin.with(json!({"kubernetes": {"kubeconfig": api.usual()}}));
    assert!(refused(&plugin, &netns, "web-0", 11).contains("node n1"));
    api.node("n1", json!({}));
    assert!(refused(&plugin, &netns, "web-0", 7).contains("usePodCidr"));
}

#[test]
fn programs_of_calico_s_names_take_calico_s_configuration() {
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let cluster = Cluster::with(&lab, etcd.store());
    let bin = lab.dir().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (ours, theirs) in [("margay", "calico"), ("margay-ipam", "calico-ipam")] {
        std::os::unix::fs::symlink(bin_dir().join(ours), bin.join(theirs)).unwrap();
    }
    cluster.api.pod(
        "prod",
        "web-0",
        json!({"labels": {"app": "web"}}),
        json!({}),
    );
    // As Calico's installer writes it for etcd, with the places that a test has of its own.
    let conf = json!({
        "name": "k8s-pod-network",
        "cniVersion": "0.3.1",
        "type": "calico",
        "log_level": "info",
        "log_file_path": lab.dir().join("cni.log"),
        "etcd_endpoints": etcd.endpoint,
        "etcd_key_file": "",
        "etcd_cert_file": "",
        "etcd_ca_cert_file": "",
        "mtu": 0,
        "nodename_file": lab.node(1).dir().join("state/nodename"),
        "ipam": {"type": "calico-ipam"},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": cluster.api.usual()},
        "state_dir": lab.dir().join("hints"),
    });
    let plugin = cluster.plugin();
    let call = |program: &str, verb: &str, container: &str, netns: &str, conf: &Value| {
        let mut command = plugin.node.command(bin.join(program));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", format!("{}:{}", bin.display(), cni_path()))
            .env(
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web-0",
            );
        run(&mut command, conf.to_string().as_bytes())
    };
    let netns = lab.pod();
    let added = call("calico", "ADD", "c1", &netns.path(), &conf);
    assert!(added.success(), "{added:?}");
    assert_eq!(
        cluster.endpoint("web-0").unwrap()["metadata"]["labels"]["app"],
        "web"
    );
    let _ = call("calico", "DEL", "c1", &netns.path(), &conf).ok();
    assert!(cluster.endpoint("web-0").is_none());

    let ptp = json!({"name": "ptp", "cniVersion": "0.3.1", "type": "ptp", "etcd_endpoints": etcd.endpoint,
        "nodename_file": conf["nodename_file"], "state_dir": conf["state_dir"], "ipam": {"type": "calico-ipam"}});
    let added = call("calico-ipam", "ADD", "c2", &netns.path(), &ptp);
    assert!(added.success(), "{added:?}");
    let _ = call("calico-ipam", "DEL", "c2", &netns.path(), &ptp).ok();
    assert!(cluster.ctl(&["ipam", "check"], "").success());
}
