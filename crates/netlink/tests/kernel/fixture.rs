//! Namespaces for tests: uniquely named, removed even when a test panics.

use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use margay_endpoint::{EndpointPlan, EndpointSpec, Mark};
use margay_netlink::{Namespace, Netlink};
use margay_route::Mac;
use netns_rs::NetNs;

/// A network namespace of its own, with `lo` up.
pub(crate) struct TestNamespace {
    made: Option<NetNs>,
    pub(crate) namespace: Namespace,
    path: PathBuf,
}

impl TestNamespace {
    pub(crate) fn new() -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let made = NetNs::new(format!("margay-test-{}-{number}", process::id())).unwrap();
        let path = made.path().to_owned();
        let namespace = Namespace::open(&path).unwrap();
        let new = Self {
            made: Some(made),
            namespace,
            path,
        };
        new.ip("link set lo up");
        new
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::open(&self.namespace).unwrap()
    }

    /// Runs a program inside; its output, and whether it succeeded. What a program that succeeds complains of is left
    /// out: `ip` looks for names of other tests' namespaces, which come and go.
    pub(crate) fn try_run(&self, command: &str) -> (bool, String) {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let arguments: Vec<&str> = words.collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "an independent judge of the kernel's state"
        )]
        let output = self
            .namespace
            .run(|| process::Command::new(program).args(arguments).output())
            .unwrap()
            .unwrap();
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            text.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        (output.status.success(), text)
    }

    /// Runs `ip` inside; panics if it fails.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let (ok, text) = self.try_run(&format!("ip {arguments}"));
        assert!(ok, "ip {arguments}: {text}");
        text
    }

    pub(crate) fn pings(&self, address: &str) -> bool {
        self.try_run(&format!("ping -c1 -W1 {address}")).0
    }

    pub(crate) fn sysctl(&self, path: &str) -> String {
        let path = format!("/proc/sys/{path}");
        self.namespace
            .run(|| std::fs::read_to_string(path).unwrap())
            .unwrap()
            .trim()
            .to_owned()
    }

    pub(crate) fn set_sysctl(&self, path: &str, value: &str) {
        let path = format!("/proc/sys/{path}");
        self.namespace
            .run(|| std::fs::write(path, value).unwrap())
            .unwrap();
    }

    /// Everything an endpoint could leave behind.
    pub(crate) fn snapshot(&self) -> String {
        [
            "-o link show",
            "-o addr show",
            "route show table all",
            "-6 route show table all",
            "neigh show nud permanent",
            "neigh show proxy",
            "rule show",
        ]
        .map(|arguments| self.ip(arguments))
        .join("--\n")
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if let Some(made) = self.made.take() {
            // A namespace that stays is a nuisance, not a verdict.
            let _ = made.remove();
        }
    }
}

/// A specification whose host end is `cali<number>`.
pub(crate) fn spec(number: u8, addresses: &[&str]) -> EndpointSpec {
    EndpointSpec {
        host_name: format!("cali{number}"),
        container_name: "eth0".to_owned(),
        container_mac: Mac::local([0, 0, 0, 0, 0, number]),
        mtu: Some(1450),
        queues: 1,
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        routes: Vec::new(),
        include_default_routes: false,
        allow_ip_forwarding: false,
        mark: Mark::new("test", &format!("container{number}"), "eth0"),
    }
}

pub(crate) fn plan(number: u8, addresses: &[&str]) -> EndpointPlan {
    EndpointPlan::new(&spec(number, addresses)).unwrap()
}
