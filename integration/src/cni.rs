//! Calling plugins: as a runtime does, and through cnitool.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::lab::{Node, Pod};
use crate::process::{Output, bin_dir, run};
use crate::store::StoreKind;

/// A network configuration for a node.
pub fn conf(node: Node<'_>, store: &StoreKind, more: Value) -> Map<String, Value> {
    let mut conf = json!({
        "cniVersion": "1.1.0",
        "name": "testnet",
        "type": "margay",
        "nodename_file": node.dir().join("state/nodename"),
        "endpoint_status_dir": node.dir().join("run/endpoint-status"),
        "state_dir": node.dir().join("hints"),
        "ipam": {"type": "margay-ipam"},
    });
    let object = conf.as_object_mut().unwrap();
    object.extend(store.conf());
    if let Value::Object(more) = more {
        object.extend(more);
    }
    object.clone()
}

/// A plugin called as a runtime calls it.
#[derive(Debug)]
pub struct Plugin<'n> {
    /// The node on which it is called.
    pub node: Node<'n>,
    /// The program's name.
    pub program: &'static str,
    /// The configuration.
    pub conf: Map<String, Value>,
}

impl<'n> Plugin<'n> {
    /// The network plugin with the usual configuration.
    pub fn new(node: Node<'n>, store: &StoreKind) -> Self {
        Self {
            node,
            program: "margay",
            conf: conf(node, store, Value::Null),
        }
    }

    /// The same with more keys.
    #[must_use]
    pub fn with(mut self, more: Value) -> Self {
        self.conf.extend(more.as_object().unwrap().clone());
        self
    }

    /// One call for a container's `eth0`.
    pub fn call(&self, verb: &str, container: &str, netns: &str) -> Output {
        self.call_with(
            verb,
            container,
            netns,
            &[],
            &Value::Object(self.conf.clone()),
        )
    }

    /// One call with more variables, and another configuration.
    pub fn call_with(
        &self,
        verb: &str,
        container: &str,
        netns: &str,
        env: &[(&str, &str)],
        conf: &Value,
    ) -> Output {
        let mut command = self.node.command(bin_dir().join(self.program));
        command.envs(variables(verb, container, netns));
        command.envs(env.iter().copied());
        run(&mut command, conf.to_string().as_bytes())
    }

    /// One call under strace with these options, which may tell it to inject faults.
    pub fn call_traced(
        &self,
        options: &[String],
        verb: &str,
        container: &str,
        netns: &str,
        conf: &Value,
    ) -> Output {
        let mut command = self.node.command("strace");
        command
            .args(["-f", "-qq"])
            .args(options)
            .arg(bin_dir().join(self.program))
            .envs(variables(verb, container, netns));
        run(&mut command, conf.to_string().as_bytes())
    }

    /// ADD, which must succeed; the result.
    #[track_caller]
    pub fn add(&self, container: &str, pod: &Pod) -> Value {
        let output = self.call("ADD", container, &pod.path());
        assert!(
            output.success(),
            "ADD {container}: {} {}",
            output.stdout,
            output.stderr
        );
        output.json()
    }

    /// DEL, which must succeed.
    #[track_caller]
    pub fn del(&self, container: &str, pod: &Pod) {
        let output = self.call("DEL", container, &pod.path());
        assert!(
            output.success(),
            "DEL {container}: {} {}",
            output.stdout,
            output.stderr
        );
    }

    /// A verb with a result as `prevResult`.
    pub fn call_after(&self, verb: &str, container: &str, netns: &str, result: &Value) -> Output {
        let mut conf = self.conf.clone();
        conf.insert("prevResult".to_owned(), result.clone());
        self.call_with(verb, container, netns, &[], &Value::Object(conf))
    }
}

fn variables(verb: &str, container: &str, netns: &str) -> [(&'static str, String); 5] {
    [
        ("CNI_COMMAND", verb.to_owned()),
        ("CNI_CONTAINERID", container.to_owned()),
        ("CNI_NETNS", netns.to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", cni_path()),
    ]
}

/// The addresses of a result, without prefix lengths.
pub fn addresses(result: &Value) -> Vec<String> {
    result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str())
        .map(|address| address.split('/').next().unwrap_or_default().to_owned())
        .collect()
}

/// `cnitool`, with a cache and a configuration folder of its own.
#[derive(Debug)]
pub struct Cnitool<'n> {
    node: Node<'n>,
    network: String,
    variables: Vec<(&'static str, String)>,
}

impl<'n> Cnitool<'n> {
    /// Writes a configuration list and uses it.
    pub fn new(node: Node<'n>, list: &Value) -> Self {
        let network = list["name"].as_str().unwrap().to_owned();
        let dir = node.dir().join("net.d");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(node.dir().join("cni-cache")).unwrap();
        std::fs::write(dir.join(format!("{network}.conflist")), list.to_string()).unwrap();
        Self {
            node,
            network,
            variables: Vec::new(),
        }
    }

    /// The same with more variables: `CAP_ARGS` for capabilities, `CNI_ARGS`, `CNI_IFNAME`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.variables.push((name, value));
        self
    }

    /// Runs a verb (`add`, `check`, `del`, `gc`, `status`) on a pod.
    pub fn call(&self, verb: &str, pod: &Pod) -> Output {
        // cnitool keeps results in /var/lib/cni: give it one of its own, in a mount namespace of its own.
        let script = "set -e; mount -t tmpfs none /var/lib; mkdir /var/lib/cni; \
                      mount --bind \"$CACHE\" /var/lib/cni; exec cnitool \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "nsenter"])
            .arg(format!("--net=/run/netns/{}", self.node.namespace()))
            .args(["sh", "-c", script, "sh", verb, &self.network, &pod.path()])
            .env("CACHE", self.node.dir().join("cni-cache"))
            .env("NETCONFPATH", self.node.dir().join("net.d"))
            .env("CNI_PATH", cni_path())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        run(&mut command, b"")
    }
}

/// Our programs, and the reference plugins of the system.
pub fn cni_path() -> String {
    let mut dirs: Vec<PathBuf> = vec![bin_dir()];
    dirs.push("/usr/lib/cni".into());
    dirs.push("/opt/cni/bin".into());
    let texts: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    texts.join(":")
}
