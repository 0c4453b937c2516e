//! Two nodes on one link, with pods, in namespaces that vanish with the test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use margay_datastore::{Config, Datastore};
use margay_model::{Cidr, Key, Kind};
use margay_store::{Batch, Store, Write as Put};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take that the agent does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Two nodes, n1 at 172.31.0.1 and n2 at 172.31.0.2, on one link; no default routes.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    namespaces: Vec<String>,
    prefix: String,
    runtime: Runtime,
}

impl Lab {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut lab = Self {
            dir: tempfile::tempdir().unwrap(),
            namespaces: Vec::new(),
            prefix: format!("margay-agent-{}-{number}", process::id()),
            runtime: Runtime::new().unwrap(),
        };
        let [one, two] = ["n1", "n2"].map(|node| lab.namespace(node));
        ip(&format!(
            "-n {one} link add eth0 type veth peer name eth0 netns {two}"
        ));
        for (namespace, last) in [(&one, 1), (&two, 2)] {
            ip(&format!(
                "-n {namespace} addr add 172.31.0.{last}/24 dev eth0"
            ));
            ip(&format!(
                "-n {namespace} addr add fd31::{last}/64 dev eth0 nodad"
            ));
            ip(&format!("-n {namespace} link set eth0 mtu 1400 up"));
        }
        lab
    }

    /// Makes a namespace; its name.
    pub(crate) fn namespace(&mut self, name: &str) -> String {
        let full = self.full(name);
        ip(&format!("netns add {full}"));
        self.namespaces.push(full.clone());
        ip(&format!("-n {full} link set lo up"));
        full
    }

    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Runs `ip` in a namespace; panics if it fails.
    pub(crate) fn ip(&self, name: &str, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.full(name)))
    }

    /// Everything of a node's routing, one line each.
    pub(crate) fn dump(&self, node: &str) -> String {
        ["route", "-6 route", "neigh show nud permanent"]
            .map(|what| self.ip(node, what))
            .join("--\n")
    }

    pub(crate) fn has_route(&self, node: &str, line: &str) -> bool {
        self.dump(node)
            .lines()
            .any(|found| found.trim_end().starts_with(line))
    }

    pub(crate) fn pings(&self, from: &str, address: &str) -> bool {
        inside(&self.full(from), "ping", &["-c1", "-W1", address])
            .status
            .success()
    }

    /// Runs a program in a namespace; what it writes.
    pub(crate) fn inside(&self, name: &str, program: &str, arguments: &[&str]) -> String {
        let output = inside(&self.full(name), program, arguments);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Reads `/proc/sys` in a namespace.
    pub(crate) fn sysctl(&self, name: &str, path: &str) -> String {
        self.inside(name, "cat", &[&format!("/proc/sys/{path}")])
            .trim()
            .to_owned()
    }

    /// A pod on a node as the network plugin makes it, but for the host's side, which is the agent's.
    pub(crate) fn pod(&mut self, node: &str, pod: &str, address: &str) {
        let namespace = self.namespace(pod);
        let host = self.full(node);
        ip(&format!(
            "-n {host} link add cali{pod} address ee:ee:ee:ee:ee:ee type veth peer name eth0 address 02:00:00:00:00:01 netns {namespace}"
        ));
        for command in [
            format!("addr add {address}/32 dev eth0"),
            "link set eth0 up".to_owned(),
            "route add 169.254.1.1 dev eth0 scope link".to_owned(),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
        ] {
            ip(&format!("-n {namespace} {command}"));
        }
        ip(&format!("-n {host} link set cali{pod} up"));
        self.put(
            endpoint_key(node, pod),
            &json!({"kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
                "metadata": {"name": format!("{node}-cni-{pod}-eth0"), "namespace": "default"},
                "spec": {"orchestrator": "cni", "node": node, "containerID": pod, "endpoint": "eth0",
                    "ipNetworks": [format!("{address}/32")], "interfaceName": format!("cali{pod}"),
                    "profiles": ["projectcalico-default-allow"],
                    "mac": "02:00:00:00:00:01"}}),
        );
    }

    /// A block of a node.
    pub(crate) fn block(&self, node: &str, cidr: &str) {
        let cidr: Cidr = cidr.parse().unwrap();
        let size = usize::try_from(cidr.size()).unwrap();
        let free: Vec<usize> = (0..size).collect();
        self.put(
            Key::Block(cidr),
            &json!({"cidr": cidr, "affinity": format!("host:{node}"),
                "allocations": vec![Value::Null; size], "unallocated": free, "attributes": []}),
        );
    }

    pub(crate) fn put(&self, key: Key, value: &Value) {
        self.commit(Put::put(key, value.to_string().into_bytes()));
    }

    /// Starts a program in a namespace, to be killed when dropped.
    pub(crate) fn spawn(&self, name: &str, program: &str, arguments: &[&str]) -> Background {
        let mut command = nsenter(&self.full(name), program);
        let quiet = command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Background(quiet.spawn().unwrap())
    }

    pub(crate) fn delete(&self, key: Key) {
        self.commit(Put::delete_any(key));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        let entry = self.runtime.block_on(self.store().get(key)).unwrap()?;
        Some(serde_json::from_slice(&entry.value).unwrap())
    }

    fn commit(&self, write: Put) {
        self.runtime
            .block_on(self.store().commit(&Batch::of([write])))
            .unwrap();
    }

    fn store(&self) -> Datastore {
        let path = self.store_path().display().to_string();
        let environment = move |name: &str| (name == "MARGAY_STORE_PATH").then(|| path.clone());
        Datastore::open(&Config::from_env(&environment).unwrap()).unwrap()
    }

    pub(crate) fn store_path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    /// What runs an agent on a node, with nothing of this process' environment.
    pub(crate) fn command(&self, node: &str) -> Command {
        let mut command = nsenter(&self.full(node), env!("CARGO_BIN_EXE_margay-agent"));
        command
            .env_clear()
            .env("MARGAY_STORE_PATH", self.store_path())
            .env("NODENAME", node)
            .env("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept")
            .env("MARGAY_MACHINE_ID", format!("machine-of-{node}"))
            .env("MARGAY_STATE_DIR", self.dir.path().join(node).join("state"))
            .env("MARGAY_RUN_DIR", self.dir.path().join(node).join("run"))
            .env(
                "MARGAY_RELEASES_DIR",
                self.dir.path().join(node).join("releases"),
            )
            .stdin(Stdio::null());
        command
    }

    /// Starts an agent and waits until it is ready.
    pub(crate) fn agent(&self, node: &str) -> Agent {
        let agent = self.start(self.command(node), node);
        agent.until("it is ready", || {
            agent.ask("/readiness").starts_with("HTTP/1.1 200")
        });
        agent
    }

    pub(crate) fn start(&self, mut command: Command, node: &str) -> Agent {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("{node}.{number}.log"));
        command.stderr(fs::File::create(&log).unwrap());
        Agent {
            child: command.spawn().unwrap(),
            socket: self.dir.path().join(node).join("run/agent.sock"),
            log,
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            let _ = program("ip").args(["netns", "del", namespace]).status();
        }
    }
}

/// A program in the background, killed when dropped.
pub(crate) struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running agent, killed when dropped.
pub(crate) struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// What the agent's socket answers, status line and all; empty where nobody does.
    pub(crate) fn ask(&self, path: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = UnixStream::connect(&self.socket) {
            let request =
                format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    pub(crate) fn status(&self) -> Value {
        let answer = self.ask("/status");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for something, and shows the log where it never comes.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        self.within(PATIENCE, what, condition);
    }

    #[track_caller]
    pub(crate) fn within(&self, time: Duration, what: &str, condition: impl Fn() -> bool) {
        let end = Instant::now() + time;
        while !condition() {
            assert!(
                Instant::now() < end,
                "not within {time:?}: {what}\n{}",
                self.log()
            );
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(
            program("kill")
                .args([name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Sends SIGTERM; the exit status.
    pub(crate) fn stop(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.end()
    }

    /// Waits for the end; the exit status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                Instant::now() < end,
                "the agent does not end\n{}",
                self.log()
            );
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn endpoint_key(node: &str, pod: &str) -> Key {
    Key::namespaced(
        Kind::WorkloadEndpoint,
        "default",
        format!("{node}-cni-{pod}-eth0"),
    )
}

fn inside(namespace: &str, name: &str, arguments: &[&str]) -> Output {
    nsenter(namespace, name).args(arguments).output().unwrap()
}

/// `nsenter` replaces itself by the program, so a signal to it reaches the program.
fn nsenter(namespace: &str, name: &str) -> Command {
    let mut command = program("nsenter");
    command
        .arg(format!(
            "--net={}",
            Path::new("/run/netns").join(namespace).display()
        ))
        .arg(name);
    command
}

fn ip(arguments: &str) -> String {
    let output = program("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn program(name: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the test drives real programs")]
    Command::new(name)
}
