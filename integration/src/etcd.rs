//! Real etcd, in the fabric's namespace of a lab or on the machine's loopback.

use std::time::Duration;

use crate::lab::Lab;
use crate::process::{Running, eventually, inside, run};
use crate::store::StoreKind;

/// One member.
#[derive(Debug)]
pub struct Etcd {
    /// The process.
    pub process: Running,
    /// Its client endpoint.
    pub endpoint: String,
}

/// Several members.
#[derive(Debug)]
pub struct Cluster {
    /// The members.
    pub members: Vec<Etcd>,
}

impl Etcd {
    /// A single member, reached from all nodes of the lab.
    pub fn start(lab: &Lab) -> Self {
        Cluster::start(lab, 1).members.remove(0)
    }

    /// How programs are led to it.
    pub fn store(&self) -> StoreKind {
        StoreKind::Etcd(self.endpoint.clone())
    }
}

impl Cluster {
    /// So many members on the fabric's address.
    pub fn start(lab: &Lab, members: usize) -> Self {
        let host = "172.31.255.254";
        let ports: Vec<(usize, usize)> = (0..members)
            .map(|n| (23790 + 10 * n, 23791 + 10 * n))
            .collect();
        let initial: Vec<String> = ports
            .iter()
            .enumerate()
            .map(|(n, (_, peer))| format!("m{n}=http://{host}:{peer}"))
            .collect();
        let initial = initial.join(",");
        let members: Vec<Etcd> = ports
            .iter()
            .enumerate()
            .map(|(n, (client, peer))| {
                let endpoint = format!("http://{host}:{client}");
                let mut command = inside(&lab.fabric(), "etcd");
                command
                    .args(["--name", &format!("m{n}")])
                    .arg("--data-dir")
                    .arg(lab.dir().join(format!("etcd{n}")))
                    .args([
                        "--listen-client-urls",
                        &endpoint,
                        "--advertise-client-urls",
                        &endpoint,
                    ])
                    .args(["--listen-peer-urls", &format!("http://{host}:{peer}")])
                    .args([
                        "--initial-advertise-peer-urls",
                        &format!("http://{host}:{peer}"),
                    ])
                    .args(["--initial-cluster", &initial, "--log-level", "error"]);
                let log = lab.dir().join(format!("etcd{n}.log"));
                Etcd {
                    process: Running::start(&mut command, &log),
                    endpoint,
                }
            })
            .collect();
        let cluster = Self { members };
        for member in &cluster.members {
            eventually("etcd answers", Duration::from_secs(20), || {
                let mut health = inside(&lab.fabric(), "etcdctl");
                health
                    .env("ETCDCTL_API", "3")
                    .args(["--endpoints", &member.endpoint]);
                run(health.args(["endpoint", "health"]), b"").success()
            });
        }
        cluster
    }

    /// How programs are led to it.
    pub fn store(&self) -> StoreKind {
        let endpoints: Vec<&str> = self
            .members
            .iter()
            .map(|member| member.endpoint.as_str())
            .collect();
        StoreKind::Etcd(endpoints.join(","))
    }
}

/// All keys and values, as `etcdctl get --prefix` shows them in JSON.
pub fn dump(lab: &Lab, endpoint: &str) -> serde_json::Value {
    let mut command = inside(&lab.fabric(), "etcdctl");
    command.env("ETCDCTL_API", "3").args([
        "--endpoints",
        endpoint,
        "get",
        "",
        "--prefix",
        "-w",
        "json",
    ]);
    run(&mut command, b"").json()
}
