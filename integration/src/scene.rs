//! One node with an agent and a store, and what calls leave on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::Pod;
use crate::process::{eventually, inside, run};
use crate::{Agent, Etcd, Lab, Node, Plugin, StoreKind};

/// A lab of one node whose agent runs.
#[derive(Debug)]
pub struct Scene {
    /// The agent.
    pub agent: Agent,
    /// The etcd, where the store is one.
    pub etcd: Option<Etcd>,
    /// The store.
    pub store: StoreKind,
    /// The lab.
    pub lab: Lab,
}

/// What a node's kernel, store and folders hold for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Names of the node's interfaces.
    pub links: BTreeSet<String>,
    /// Routes to pods.
    pub routes: Vec<String>,
    /// What `margayctl ipam check` tells: addresses and their users, blocks, handles, and what is wrong.
    pub held: String,
    /// Files that plugins write.
    pub files: BTreeSet<PathBuf>,
}

impl Traces {
    /// Whether no address is assigned, none is used, and nothing disagrees.
    pub fn holds_nothing(&self) -> bool {
        [
            "Found 0 allocated addresses, 0 addresses in use",
            "found no problems",
            " 0 handles",
        ]
        .iter()
        .all(|part| self.held.contains(part))
    }
}

impl Scene {
    /// On a SQLite file.
    pub fn sqlite() -> Self {
        Self::sqlite_with(&[])
    }

    /// On a SQLite file, with more variables for the agent.
    pub fn sqlite_with(more: &[(&str, &str)]) -> Self {
        let lab = Lab::new(1);
        let store = StoreKind::Sqlite(lab.dir().join("store.db"));
        Self::start(lab, store, None, more)
    }

    /// On a SQLite file, with an IPv6 pool too.
    pub fn dual_stack() -> Self {
        let lab = Lab::new(1);
        let store = StoreKind::Sqlite(lab.dir().join("store.db"));
        let pools = [("CALICO_IPV6POOL_CIDR", "fd00:10::/64")];
        Self::start(lab, store, None, &pools)
    }

    /// On a real etcd.
    pub fn etcd() -> Self {
        Self::etcd_with(&[])
    }

    /// On a real etcd, with more variables for the agent.
    pub fn etcd_with(more: &[(&str, &str)]) -> Self {
        let lab = Lab::new(1);
        let etcd = Etcd::start(&lab);
        Self::start(lab, etcd.store(), Some(etcd), more)
    }

    fn start(lab: Lab, store: StoreKind, etcd: Option<Etcd>, more: &[(&str, &str)]) -> Self {
        let agent = Agent::start(lab.node(1), &store, more);
        // Answers name the MTU, and are compared.
        let mtu = agent.state_dir.join("mtu");
        eventually("the agent tells the MTU", Duration::from_secs(30), || {
            mtu.exists()
        });
        Self {
            agent,
            etcd,
            store,
            lab,
        }
    }

    /// The node.
    pub fn node(&self) -> Node<'_> {
        self.lab.node(1)
    }

    /// The network plugin.
    pub fn plugin(&self) -> Plugin<'_> {
        Plugin::new(self.node(), &self.store)
    }

    /// The IPAM plugin, as another network plugin calls it.
    pub fn ipam(&self) -> Plugin<'_> {
        let mut plugin = self
            .plugin()
            .with(serde_json::json!({"type": "bridge", "cniVersion": "1.1.0"}));
        plugin.program = "margay-ipam";
        plugin
    }

    /// Traces after one container came and went, so that there is a block and a profile.
    #[track_caller]
    pub fn at_rest(&self) -> Traces {
        let pod: Pod = self.lab.pod();
        let plugin = self.plugin();
        plugin.add("before-all-others", &pod);
        plugin.del("before-all-others", &pod);
        self.traces()
    }

    /// Makes all endpoints and addresses look years old, so that GC takes none for a newcomer.
    pub fn age(&self) {
        let aged = |value: &str| {
            (2024..2100).fold(value.to_owned(), |value, year| {
                value.replace(&format!("\"{year}-"), "\"2020-")
            })
        };
        if let StoreKind::Sqlite(_) = self.store {
            return self.store.rewrite(|key, value| {
                let of_pods = key.contains("/workloadendpoints/") || key.contains("/block/");
                of_pods.then(|| aged(value))
            });
        }
        let etcdctl = |words: &[&str], stdin: &str| {
            let mut command = inside(&self.lab.fabric(), "etcdctl");
            command
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &self.etcd.as_ref().unwrap().endpoint])
                .args(words);
            run(&mut command, stdin.as_bytes()).ok()
        };
        let keys = etcdctl(&["get", "/calico/", "--prefix", "--keys-only"], "");
        let of_pods = |key: &&str| key.contains("/workloadendpoints/") || key.contains("/block/");
        for key in keys.lines().filter(of_pods) {
            let value = etcdctl(&["get", key, "--print-value-only"], "");
            etcdctl(&["put", key], aged(value.trim_end()).as_str());
        }
    }

    /// Runs margayctl where the store is reached.
    pub fn ctl(&self, arguments: &[&str], stdin: &str) -> crate::Output {
        self.store
            .ctl(Some(&self.node().namespace()), arguments, stdin)
    }

    /// What is there now.
    #[track_caller]
    pub fn traces(&self) -> Traces {
        let node = self.node();
        let links = node.run("ip -o link").ok();
        let name = |line: &str| {
            let name = line.split_whitespace().nth(1).unwrap_or_default();
            name.trim_end_matches(':')
                .split('@')
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut routes: Vec<String> = Vec::new();
        for family in ["-4", "-6"] {
            let all = node.run(&format!("ip {family} route show")).ok();
            let pods = all.lines().filter(|line| line.contains("dev cali"));
            // Whether the other end is up comes and goes.
            routes.extend(pods.map(|line| line.trim().trim_end_matches(" linkdown").to_owned()));
        }
        let held = self.ctl(&["ipam", "check", "--show-all-ips"], "").stdout;
        Traces {
            links: links.lines().map(name).collect(),
            routes,
            held,
            files: files(&node.dir().join("hints")),
        }
    }
}

/// The files in a folder and those below it, but for those that stay: the lock by which calls take turns, and
/// when STATUS last succeeded.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let stays = |name: std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with("turn-") || name.starts_with("ready-")
    };
    let paths = entries
        .flatten()
        .filter(|entry| !stays(entry.file_name()))
        .map(|entry| entry.path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                BTreeSet::from([path])
            }
        })
        .collect()
}
