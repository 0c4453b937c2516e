//! The same against a real API server: it starts once, and one test goes through everything on it.

use std::path::Path;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside, program};
use margay_integration::{Agent, Etcd, Lab, Plugin, Pod, run};
use serde_json::{Value, json};

use crate::apiserver::Authority;
use crate::real::{self, RealApiServer};
use crate::{normalised, recorded_endpoint};

/// A lab with a real API server, an agent, and the network plugin as an administrator sets it up.
struct Site<'l> {
    lab: &'l Lab,
    etcd: &'l Etcd,
    api: &'l RealApiServer<'l>,
}

#[test]
fn pods_of_a_real_api_server() {
    let Some(program) = real::program() else {
        return;
    };
    let lab = Lab::new(1);
    let etcd = Etcd::start(&lab);
    let api = RealApiServer::start(&lab, &etcd, &program);
    let _agent = Agent::start(lab.node(1), &etcd.store(), &[]);
    let site = Site {
        lab: &lab,
        etcd: &etcd,
        api: &api,
    };
    site.prepare();
    site.a_pod_is_recorded_as_calico_records_it();
    site.nobody_is_asked_unless_the_configuration_says_so();
    site.annotations_count();
    site.an_earlier_pod_of_the_same_name_is_refused();
    site.credentials_are_checked_by_the_server();
    site.host_local_takes_the_node_s_prefixes();
    site.the_installer_renews_a_token();
}

impl<'l> Site<'l> {
    /// Objects that an administrator makes: the rights of the plugins, and a namespace.
    fn prepare(&self) {
        let api = self.api;
        let named = |name: &str| json!({"metadata": {"name": name}});
        let with = |mut object: Value, more: Value| {
            object
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            object
        };
        api.create(
            "/api/v1/namespaces",
            json!({"metadata": {"name": "prod", "labels": {"team": "front"}}}),
        );
        for (namespace, account) in [
            ("prod", "sa1"),
            ("prod", "stranger"),
            ("kube-system", "margay-cni"),
            ("kube-system", "margay-agent"),
        ] {
            // The namespace is made by the server itself, a moment after it is ready.
            eventually(
                "the namespace is there",
                std::time::Duration::from_secs(30),
                || {
                    api.get("/api/v1/namespaces")["items"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|item| item["metadata"]["name"] == namespace)
                },
            );
            api.create(
                &format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
                named(account),
            );
        }
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        for (role, rules, account) in [
            (
                "margay-cni",
                json!([{"apiGroups": [""], "resources": ["pods", "namespaces", "nodes"], "verbs": ["get"]}]),
                "margay-cni",
            ),
            (
                "margay-agent",
                json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}]),
                "margay-agent",
            ),
        ] {
            api.create(
                &format!("{rbac}/clusterroles"),
                with(named(role), json!({"rules": rules})),
            );
            let binding = json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": account}],
            });
            api.create(
                &format!("{rbac}/clusterrolebindings"),
                with(named(role), binding),
            );
        }
        let user = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "margay-cni"},
            "subjects": [{"kind": "User", "name": "margay", "apiGroup": "rbac.authorization.k8s.io"}],
        });
        api.create(
            &format!("{rbac}/clusterrolebindings"),
            with(named("margay-user"), user),
        );
        for (name, spec) in [
            ("n1", json!({})),
            (
                "kube-n1",
                json!({"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24", "fd44:7::/64"]}),
            ),
        ] {
            api.create("/api/v1/nodes", with(named(name), json!({"spec": spec})));
        }
    }

    /// The network plugin with a token of its service account.
    fn plugin(&self) -> Plugin<'l> {
        let user = format!("token: {}", self.api.token("kube-system", "margay-cni"));
        self.plugin_as("usual", &user)
    }

    fn plugin_as(&self, name: &str, user: &str) -> Plugin<'l> {
        Plugin::new(self.lab.node(1), &self.etcd.store()).with(json!({
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": self.api.kubeconfig(name, user)},
        }))
    }

    fn etcdctl(&self, arguments: &[&str]) -> String {
        let mut command = inside(&self.lab.fabric(), "etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &self.etcd.endpoint]);
        run(command.args(arguments), b"").ok()
    }

    /// The stored endpoint of a pod, as it stands in etcd; empty where there is none.
    fn endpoint(&self, escaped: &str) -> String {
        let key = format!(
            "/calico/resources/v3/projectcalico.org/workloadendpoints/prod/n1-k8s-{escaped}-eth0"
        );
        self.etcdctl(&["get", &key, "--print-value-only"])
            .trim()
            .to_owned()
    }

    fn ctl(&self, arguments: &[&str], stdin: &str) -> margay_integration::Output {
        self.etcd
            .store()
            .ctl(Some(&self.lab.node(1).namespace()), arguments, stdin)
    }

    /// A pod as the golden record has it, then its end.
    fn a_pod_is_recorded_as_calico_records_it(&self) {
        let name = "web-7d4b9c-x2x9z";
        let image = "registry.k8s.io/pause:3.10";
        let uid = self.api.pod(
            name,
            json!({"generateName": "web-7d4b9c-", "labels": {"app": "web", "tier": "front"}}),
            json!({"containers": [{"name": "c", "image": image, "ports": [
                {"name": "http", "containerPort": 8080, "protocol": "TCP"},
                {"containerPort": 9090, "protocol": "TCP"},
            ]}], "initContainers": [{"name": "i", "image": image, "ports": [
                {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}),
        );
        let plugin = self
            .plugin()
            .with(json!({"name": "k8s-pod-network", "cniVersion": "1.0.0", "mtu": 1450}));
        let netns = self.lab.pod();
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let added = call(&plugin, "ADD", id, &netns.path(), name, &uid);
        assert!(added.success(), "{added:?}");
        let result = added.json();
        let escaped = "web--7d4b9c--x2x9z";
        assert_eq!(
            normalised(&self.endpoint(escaped)),
            normalised(&recorded_endpoint())
        );
        assert_eq!(result["interfaces"][0]["name"], "cali35645a45788");
        let address = &addresses(&result)[0];
        let held = self
            .ctl(&["ipam", "show", &format!("--ip={address}")], "")
            .ok();
        assert!(held.contains(name) && held.contains("prod"), "{held}");

        // What golden 11 shows of the end: the endpoint and its handle are gone, the block stays and is free.
        for netns in [&*netns.path(), ""] {
            let deleted = call(&plugin, "DEL", id, netns, name, &uid);
            assert!(
                deleted.success() && deleted.stdout.is_empty(),
                "{deleted:?}"
            );
        }
        assert_eq!(self.endpoint(escaped), "");
        let keys = self.etcdctl(&["get", "/calico/ipam/v2/", "--prefix", "--keys-only"]);
        assert!(
            !keys.contains("/handle/") && keys.contains("/assignment/ipv4/block/"),
            "{keys}"
        );
        let kinds = |keys: &str| -> Vec<String> {
            let mut kinds: Vec<String> = keys
                .lines()
                .filter_map(|key| key.strip_prefix("/calico/ipam/v2/"))
                .map(|key| key.split('/').next().unwrap().to_owned())
                .collect();
            kinds.sort();
            kinds.dedup();
            kinds
        };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../crates/model/tests/golden/11-k8s-pod-del.json");
        let golden: Value =
            serde_json::from_str(&std::fs::read_to_string(golden).unwrap()).unwrap();
        let recorded: Vec<&str> = golden["kvs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["key"].as_str())
            // Other containers were running then, and somebody had set the IPAM's configuration.
            .filter(|key| !key.contains("/handle/") || key.contains(id))
            .filter(|key| !key.ends_with("/config"))
            .collect();
        assert_eq!(kinds(&keys), kinds(&recorded.join("\n")));
        self.api
            .delete(&format!("/api/v1/namespaces/prod/pods/{name}"));
        let gone = call(&plugin, "ADD", "late", &self.lab.pod().path(), name, &uid);
        let error = gone.json();
        assert_eq!(error["code"], 11, "{error}");
        assert!(
            error
                .to_string()
                .contains("prod/web-7d4b9c-x2x9z does not exist"),
            "{error}"
        );
    }

    /// Without `policy.type` the server is not asked: its absence is no hindrance.
    fn nobody_is_asked_unless_the_configuration_says_so(&self) {
        let nowhere = self.lab.dir().join("nowhere");
        let plugin = Plugin::new(self.lab.node(1), &self.etcd.store())
            .with(json!({"kubernetes": {"kubeconfig": nowhere}}));
        let netns = self.lab.pod();
        for verb in ["ADD", "DEL"] {
            let output = call(&plugin, verb, "unheard", &netns.path(), "unheard-of", "u");
            assert!(output.success(), "{output:?}");
        }
    }

    fn annotations_count(&self) {
        for (name, cidr) in [("one", "10.91.0.0/24"), ("two", "10.92.0.0/24")] {
            let pool = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": name},
                "spec": {"cidr": cidr, "natOutgoing": false, "nodeSelector": "!all()"}});
            let _ = self.ctl(&["apply", "-f", "-"], &pool.to_string()).ok();
        }
        let plugin = self
            .plugin()
            .with(json!({"feature_control": {"ip_addrs_no_ipam": true, "floating_ips": true}}));
        let annotated = |pairs: &[(&str, &str)]| {
            let annotations: serde_json::Map<String, Value> = pairs
                .iter()
                .map(|(key, value)| (format!("cni.projectcalico.org/{key}"), (*value).into()))
                .collect();
            json!({ "annotations": annotations })
        };
        let add = |name: &str, annotations: &[(&str, &str)]| {
            let uid = self.api.pod(name, annotated(annotations), json!({}));
            let netns = self.lab.pod();
            let added = call(&plugin, "ADD", name, &netns.path(), name, &uid);
            assert!(added.success(), "{name}: {added:?}");
            let endpoint: Value =
                serde_json::from_str(&self.endpoint(&name.replace('-', "--"))).unwrap();
            let deleted = call(&plugin, "DEL", name, &netns.path(), name, &uid);
            assert!(deleted.success(), "{name}: {deleted:?}");
            (added.json(), endpoint)
        };
        let (result, endpoint) = add(
            "pooled",
            &[
                ("ipv4pools", "[\"two\"]"),
                ("hwAddr", "02:11:22:33:44:55"),
                ("allowedSourcePrefixes", "[\"10.200.0.0/16\"]"),
                ("floatingIPs", "[\"203.0.113.9\"]"),
            ],
        );
        let address = addresses(&result).remove(0);
        assert!(address.starts_with("10.92."), "{result}");
        assert_eq!(result["interfaces"][1]["mac"], "02:11:22:33:44:55");
        let spec = &endpoint["spec"];
        assert_eq!(spec["allowSpoofedSourcePrefixes"], json!(["10.200.0.0/16"]));
        assert_eq!(
            spec["ipNATs"],
            json!([{"internalIP": address, "externalIP": "203.0.113.9"}])
        );
        assert_eq!(spec["serviceAccountName"], "sa1");
        assert_eq!(spec["profiles"], json!(["kns.prod", "ksa.prod.sa1"]));
        let (result, _) = add("fixed", &[("ipAddrs", "[\"10.91.0.77\"]")]);
        assert_eq!(addresses(&result), ["10.91.0.77"]);
        let (result, _) = add("past-ipam", &[("ipAddrsNoIpam", "[\"10.99.0.9\"]")]);
        assert_eq!(addresses(&result), ["10.99.0.9"]);
        let uid = self.api.pod(
            "both",
            annotated(&[
                ("ipAddrs", "[\"10.91.0.7\"]"),
                ("ipAddrsNoIpam", "[\"10.9.0.9\"]"),
            ]),
            json!({}),
        );
        let refused = call(&plugin, "ADD", "both", &self.lab.pod().path(), "both", &uid);
        assert_eq!(refused.json()["code"], 7, "{refused:?}");
    }

    /// A pod that is created anew under its name is another one: a call for the earlier one comes too late.
    fn an_earlier_pod_of_the_same_name_is_refused(&self) {
        let plugin = self.plugin();
        let path = "/api/v1/namespaces/prod/pods/db-0";
        let earlier = self.api.pod("db-0", json!({}), json!({}));
        self.api.delete(path);
        let now = self.api.pod("db-0", json!({}), json!({}));
        assert_ne!(earlier, now);
        let netns = self.lab.pod();
        let added = call(&plugin, "ADD", "new", &netns.path(), "db-0", &now);
        assert!(added.success(), "{added:?}");
        let before = self.endpoint("db--0");
        let late = self.lab.pod();
        let refused = call(&plugin, "ADD", "old", &late.path(), "db-0", &earlier);
        let error = refused.json();
        assert_eq!(error["code"], 11, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&earlier) && text.contains(&now) && text.contains("created anew"),
            "{text}"
        );
        // Its DEL leaves what is the new one's.
        let deleted = call(&plugin, "DEL", "old", &late.path(), "db-0", &earlier);
        assert!(deleted.success(), "{deleted:?}");
        assert_eq!(self.endpoint("db--0"), before);
        let address = &addresses(&added.json())[0];
        assert!(
            self.lab
                .node(1)
                .run(&format!("ping -n -c 1 -W 2 {address}"))
                .success()
        );
        // The kubelet's own pod has another UID than its mirror, which says so.
        let annotations =
            json!({"kubernetes.io/config.hash": "0a1b2c", "kubernetes.io/config.mirror": "0a1b2c"});
        // A mirror has no service account.
        let mirror = self.api.pod(
            "static-n1",
            json!({"annotations": annotations}),
            json!({"serviceAccountName": null}),
        );
        let netns = [self.lab.pod(), self.lab.pod()];
        for (container, netns, uid) in [("s1", &netns[0], "0a1b2c"), ("s2", &netns[1], &*mirror)] {
            let added = call(&plugin, "ADD", container, &netns.path(), "static-n1", uid);
            assert!(added.success(), "{added:?}");
        }
        for (container, netns, pod) in [
            ("s1", &netns[0], "static-n1"),
            ("s2", &netns[1], "static-n1"),
            ("new", &late, "db-0"),
        ] {
            let deleted = call(&plugin, "DEL", container, &netns.path(), pod, "");
            assert!(deleted.success(), "{deleted:?}");
        }
        assert_eq!(self.endpoint("db--0"), "");
    }

    fn credentials_are_checked_by_the_server(&self) {
        let uid = self.api.pod("web-0", json!({}), json!({}));
        let netns = self.lab.pod();
        let add = |plugin: &Plugin<'_>| call(plugin, "ADD", "c1", &netns.path(), "web-0", &uid);
        // A client certificate proves as much as a token.
        let (chain, key) = self.api.authority.issue("margay");
        for (name, text) in [("client.crt", &chain), ("client.key", &key)] {
            std::fs::write(self.lab.dir().join(name), text).unwrap();
        }
        let files = "client-certificate: client.crt\n    client-key: client.key";
        let plugin = self.plugin_as("certificate", files);
        for verb in ["STATUS", "ADD", "DEL"] {
            let output = call(&plugin, verb, "c1", &netns.path(), "web-0", &uid);
            assert!(output.success(), "{verb}: {output:?}");
        }
        let (chain, key) = Authority::new().issue("margay");
        std::fs::write(self.lab.dir().join("client.crt"), &chain).unwrap();
        std::fs::write(self.lab.dir().join("client.key"), &key).unwrap();
        for (name, user, codes, word) in [
            ("forged", files.to_owned(), [102, 103], "namespace prod"),
            ("unknown", "token: a.b.c".to_owned(), [103, 103], "401"),
            (
                "no-rights",
                format!("token: {}", self.api.token("prod", "stranger")),
                [103, 103],
                "403",
            ),
        ] {
            let refused = add(&self.plugin_as(name, &user));
            let error = refused.json();
            assert!(
                codes.iter().any(|code| error["code"] == *code),
                "{name}: {error}"
            );
            assert!(error.to_string().contains(word), "{name}: {error}");
        }
        assert_eq!(self.endpoint("web--0"), "");
    }

    fn host_local_takes_the_node_s_prefixes(&self) {
        let uid = self.api.pod("local-0", json!({}), json!({}));
        let mut plugin = self.plugin();
        plugin.conf["kubernetes"]["node_name"] = "kube-n1".into();
        let plugin = plugin.with(json!({
            "cniVersion": "1.0.0",
            "ipam": {"type": "host-local", "dataDir": self.lab.dir().join("leases"),
                "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]]},
        }));
        let netns: Pod = self.lab.pod();
        let added = call(&plugin, "ADD", "c1", &netns.path(), "local-0", &uid);
        assert!(added.success(), "{added:?}");
        let given = addresses(&added.json());
        assert!(
            given[0].starts_with("10.244.7.") && given[1].starts_with("fd44:7::"),
            "{given:?}"
        );
        let deleted = call(&plugin, "DEL", "c1", &netns.path(), "local-0", &uid);
        assert!(deleted.success(), "{deleted:?}");
    }

    /// As a pod with a service account: the plugins get a kubeconfig with tokens of theirs.
    fn the_installer_renews_a_token(&self) {
        let dir = self.lab.dir().join("installed");
        let account = dir.join("account");
        std::fs::create_dir_all(&account).unwrap();
        let put = |name: &str, text: &str| std::fs::write(account.join(name), text).unwrap();
        put("token", &self.api.token("kube-system", "margay-agent"));
        put("ca.crt", &self.api.authority.pem);
        put("namespace", "kube-system");
        let install = || {
            let mut command = self.lab.node(1).command(program("margay-agent"));
            command
                .args(["install", "--wait", "0"])
                .envs(self.etcd.store().environment())
                .env("MARGAY_HOST_PREFIX", dir.join("no-mounts"))
                .env("CNI_NET_DIR", dir.join("net.d"))
                .env("CNI_BIN_DIR", dir.join("bin"))
                .env("MARGAY_INSTALL_RECORD", dir.join("install.json"))
                .env("MARGAY_SERVICE_ACCOUNT_DIR", &account)
                .env("CALICO_CNI_SERVICE_ACCOUNT", "margay-cni")
                .env("KUBERNETES_SERVICE_HOST", crate::apiserver::HOST)
                .env("KUBERNETES_SERVICE_PORT", "6444");
            run(&mut command, b"")
        };
        let installed = install();
        assert!(installed.success(), "{installed:?}");
        let kubeconfig = dir.join("net.d/margay-kubeconfig");
        let first = std::fs::read_to_string(&kubeconfig).unwrap();
        let list = std::fs::read_to_string(dir.join("net.d/10-margay.conflist")).unwrap();
        let list: Value = serde_json::from_str(&list).unwrap();
        let mut plugin = Plugin::new(self.lab.node(1), &self.etcd.store());
        for key in ["policy", "kubernetes"] {
            plugin
                .conf
                .insert(key.to_owned(), list["plugins"][0][key].clone());
        }
        let uid = self.api.pod("installed-0", json!({}), json!({}));
        let netns = self.lab.pod();
        for verb in ["ADD", "DEL"] {
            let output = call(&plugin, verb, "c1", &netns.path(), "installed-0", &uid);
            assert!(output.success(), "{verb}: {output:?}");
        }
        // Where no new one can be had, the old one stays.
        put("token", "expired");
        let installed = install();
        assert!(
            installed.success() && installed.stderr.contains("stays as it is"),
            "{installed:?}"
        );
        assert_eq!(std::fs::read_to_string(&kubeconfig).unwrap(), first);
    }
}

/// A call as a kubelet's runtime makes it for a pod of namespace `prod`.
fn call(
    plugin: &Plugin<'_>,
    verb: &str,
    container: &str,
    netns: &str,
    pod: &str,
    uid: &str,
) -> margay_integration::Output {
    let args = format!(
        "K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={uid};IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;\
         K8S_POD_NAME={pod}"
    );
    let conf = Value::Object(plugin.conf.clone());
    plugin.call_with(verb, container, netns, &[("CNI_ARGS", &args)], &conf)
}
