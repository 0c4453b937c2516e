//! Pods on two nodes with agents.

use std::time::Duration;

use margay_integration::cni::addresses;
use margay_integration::process::{eventually, inside};
use margay_integration::{Agent, Lab, Node, Plugin, Pod, Running, StoreKind};
use serde_json::json;

/// Pods on two nodes with agents.
pub(crate) struct Town {
    pub(crate) store: StoreKind,
    pub(crate) agents: Vec<Agent>,
    pub(crate) lab: Lab,
    settings: Vec<(&'static str, &'static str)>,
}

/// A pod, its address, and the servers in it.
pub(crate) struct House {
    pub(crate) pod: Pod,
    pub(crate) address: String,
    pub(crate) v6: String,
    _servers: Vec<Running>,
}

impl Town {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// With more variables for the agents.
    pub(crate) fn with(more: &[(&'static str, &'static str)]) -> Self {
        let lab = Lab::new(2);
        let store = StoreKind::Sqlite(lab.dir().join("store.db"));
        let mut settings = vec![V6_POOL, ("IP6", "autodetect")];
        settings.extend(more);
        let agents = lab
            .nodes()
            .map(|node| Agent::start(node, &store, &settings))
            .collect();
        Self {
            store,
            agents,
            lab,
            settings,
        }
    }

    pub(crate) fn plugin(&self, node: usize) -> Plugin<'_> {
        plugin(self.lab.node(node), &self.store)
    }

    /// A pod with servers on ports 80 and 81; with a label `app`.
    pub(crate) fn house(&self, node: usize, app: &str) -> House {
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

    /// Starts the agent of a node anew.
    pub(crate) fn restart(&mut self, node: usize) {
        let _ = std::fs::remove_file(self.agents[node - 1].run_dir.join("agent.sock"));
        self.agents[node - 1] = Agent::start(self.lab.node(node), &self.store, &self.settings);
    }

    pub(crate) fn patch(&self, kind: &str, name: &str, patch: &serde_json::Value) {
        let patch = patch.to_string();
        let arguments = ["patch", kind, name, "-p", &patch];
        let _ = self.store.ctl(None, &arguments, "").ok();
    }

    /// Gives an endpoint a label.
    pub(crate) fn label(&self, node: usize, app: &str) {
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

    pub(crate) fn apply(&self, resource: &serde_json::Value) {
        let _ = self
            .store
            .ctl(None, &["apply", "-f", "-"], &resource.to_string())
            .ok();
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) {
        let _ = self.store.ctl(None, &["delete", kind, name], "").ok();
    }
}

impl House {
    pub(crate) fn connects(&self, address: &str, port: u16) -> bool {
        connects(&self.pod.namespace, address, port)
    }

    /// Waits until it reaches a port of another, by both families, or until it does not.
    #[track_caller]
    pub(crate) fn reaches(&self, other: &Self, port: u16, expected: bool) {
        for address in [&other.address, &other.v6] {
            eventually(
                &format!("{address}:{port} is reached: {expected}"),
                WAIT,
                || self.connects(address, port) == expected,
            );
        }
    }
}

pub(crate) fn plugin<'l>(node: Node<'l>, store: &StoreKind) -> Plugin<'l> {
    Plugin::new(node, store).with(json!({
        "ipam": {"type": "margay-ipam", "assign_ipv4": "true", "assign_ipv6": "true"},
    }))
}

pub(crate) fn policy(name: &str, spec: serde_json::Value) -> serde_json::Value {
    json!({
        "apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
        "metadata": {"name": name}, "spec": spec,
    })
}

/// Whether a program in a namespace gets a connection.
pub(crate) fn connects(namespace: &str, address: &str, port: u16) -> bool {
    let script = format!("</dev/tcp/{address}/{port}");
    let mut command = inside(namespace, "timeout");
    command.args(["1", "bash", "-c", &script]);
    margay_integration::process::run(&mut command, b"").success()
}

const V6_POOL: (&str, &str) = ("CALICO_IPV6POOL_CIDR", "fd00:10::/64");
pub(crate) const WAIT: Duration = Duration::from_secs(30);
