//! Policy in force on nodes: who reaches whom, from the first packet on, whatever happens to agent and kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Lab, Node, Plugin, Pod, Running, StoreKind};
use serde_json::json;

/// Pods on two nodes with agents.
struct Town {
    store: StoreKind,
    agents: Vec<Agent>,
    lab: Lab,
}

/// A pod, its address, and the servers in it.
struct House {
    pod: Pod,
    address: String,
    v6: String,
    _servers: Vec<Running>,
}

impl Town {
    fn new(more: &[(&str, &str)]) -> Self {
        let lab = Lab::new(2);
        let store = StoreKind::Sqlite(lab.dir().join("store.db"));
        let mut settings = vec![V6_POOL, ("IP6", "autodetect")];
        settings.extend(more);
        let agents = lab
            .nodes()
            .map(|node| Agent::start(node, &store, &settings))
            .collect();
        Self { store, agents, lab }
    }

    fn plugin(&self, node: usize) -> Plugin<'_> {
        plugin(self.lab.node(node), &self.store)
    }

    /// A pod with servers on ports 80 and 81; with a label `app`.
    fn house(&self, node: usize, app: &str) -> House {
        let pod = self.lab.pod();
        let _ = pod.run("ip link set lo up").ok();
        let result = self.plugin(node).add(app, &pod);
        let all = addresses(&result);
        let servers = [80, 81].map(|port| {
            let mut command = inside(&pod.namespace, "busybox");
            command.args(["httpd", "-f", "-p", &format!("[::]:{port}"), "-h", "/run"]);
            Running::start(
                &mut command,
                &self.lab.dir().join(format!("{app}-{port}.log")),
            )
        });
        self.label(node, app);
        let house = House {
            address: all[0].clone(),
            v6: all[1].clone(),
            pod,
            _servers: servers.into(),
        };
        // The servers listen; asked from inside, where no policy is.
        for port in [80, 81] {
            eventually("a server listens", WAIT, || house.connects("::1", port));
        }
        house
    }

    /// Gives an endpoint a label.
    fn label(&self, node: usize, app: &str) {
        let name = format!("n{node}-cni-{app}-eth0");
        let patch = json!({"metadata": {"labels": {"app": app}}}).to_string();
        let arguments = [
            "patch",
            "workloadendpoint",
            &name,
            "-n",
            "default",
            "-p",
            &patch,
        ];
        let _ = self.store.ctl(None, &arguments, "").ok();
    }

    fn apply(&self, resource: &serde_json::Value) {
        let _ = self
            .store
            .ctl(None, &["apply", "-f", "-"], &resource.to_string())
            .ok();
    }

    fn delete(&self, kind: &str, name: &str) {
        let _ = self.store.ctl(None, &["delete", kind, name], "").ok();
    }
}

impl House {
    fn connects(&self, address: &str, port: u16) -> bool {
        let script = format!("</dev/tcp/{address}/{port}");
        let line = ["timeout", "1", "bash", "-c", &script];
        let mut command = inside(&self.pod.namespace, line[0]);
        command.args(&line[1..]);
        margay_integration::process::run(&mut command, b"").success()
    }

    /// Waits until it reaches a port of another, by both families, or until it does not.
    #[track_caller]
    fn reaches(&self, other: &House, port: u16, expected: bool) {
        for address in [&other.address, &other.v6] {
            eventually(
                &format!("{address}:{port} is reached: {expected}"),
                WAIT,
                || self.connects(address, port) == expected,
            );
        }
    }
}

fn plugin<'l>(node: Node<'l>, store: &StoreKind) -> Plugin<'l> {
    Plugin::new(node, store).with(json!({
        "policy_setup_timeout_seconds": 20,
        "ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
    }))
}

fn policy(name: &str, spec: serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

#[test]
fn policies_decide_who_reaches_whom() {
    let town = Town::new(&[]);
    let (web, client, other) = (
        town.house(1, "web"),
        town.house(2, "client"),
        town.house(1, "other"),
    );
    // A network's profile lets its pods reach each other.
    client.reaches(&web, 80, true);
    other.reaches(&web, 80, true);
    assert!(client.pod.pings(&web.address, 1));

    let deny = policy(
        "deny",
        json!({"selector": "app == 'web'", "types": ["Ingress"]}),
    );
    town.apply(&deny);
    client.reaches(&web, 80, false);
    other.reaches(&web, 80, false);
    // What the pod itself begins is answered.
    web.reaches(&client, 80, true);

    town.apply(&policy(
        "allow",
        json!({
            "order": 10, "selector": "app == 'web'", "types": ["Ingress"],
            "ingress": [{"action": "Allow", "protocol": "TCP",
                "source": {"selector": "app == 'client'"}, "destination": {"ports": [80]}}],
        }),
    ));
    client.reaches(&web, 80, true);
    client.reaches(&web, 81, false);
    other.reaches(&web, 80, false);

    // Another label, another class.
    let patch = json!({"metadata": {"labels": {"app": "x"}}}).to_string();
    let name = "n2-cni-client-eth0";
    let arguments = [
        "patch",
        "workloadendpoint",
        name,
        "-n",
        "default",
        "-p",
        &patch,
    ];
    let _ = town.store.ctl(None, &arguments, "").ok();
    client.reaches(&web, 80, false);
    town.label(2, "client");
    client.reaches(&web, 80, true);

    // And what a pod may begin.
    town.apply(&policy("quiet", json!({
        "selector": "app == 'client'", "types": ["Egress"],
        "egress": [{"action": "Deny", "destination": {"selector": "app == 'web'"}}, {"action": "Allow"}],
    })));
    client.reaches(&web, 80, false);
    client.reaches(&other, 81, true);
    for name in ["quiet", "allow", "deny"] {
        town.delete("globalnetworkpolicy", name);
    }
    client.reaches(&web, 81, true);
}

const V6_POOL: (&str, &str) = ("CALICO_IPV6POOL_CIDR", "fd00:10::/64");
const WAIT: Duration = Duration::from_secs(30);
