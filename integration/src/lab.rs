//! A fabric, nodes and pods, out of network namespaces.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::{Output, inside, run};

/// Bridges with nodes on them.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    /// How many bridges there are, each a subnet.
    subnets: usize,
    dir: tempfile::TempDir,
    nodes: usize,
    pods: AtomicU32,
}

/// A node: a namespace with an address on the fabric.
#[derive(Debug, Clone, Copy)]
pub struct Node<'l> {
    /// The lab it is part of.
    pub lab: &'l Lab,
    /// Its number, from 1.
    pub number: usize,
}

/// A pod's namespace, empty until a plugin attaches it.
#[derive(Debug)]
pub struct Pod {
    /// The namespace's name.
    pub namespace: String,
}

impl Lab {
    /// Makes a lab of so many nodes in one subnet, without a router.
    pub fn new(nodes: usize) -> Self {
        Self::with_subnets(nodes, 1, false)
    }

    /// Makes a lab of so many nodes: those with odd numbers are in one subnet, those with even
    /// numbers in another, and the fabric is the router between them and every node's default.
    pub fn routed(nodes: usize) -> Self {
        Self::with_subnets(nodes, 2, true)
    }

    /// As [`Lab::routed`], but nothing leads from one subnet to the other: see [`crate::Routers`].
    pub fn racks(nodes: usize) -> Self {
        Self::with_subnets(nodes, 2, false)
    }

    fn with_subnets(nodes: usize, subnets: usize, routed: bool) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("mg{}-{count}", std::process::id());
        let lab = Self {
            prefix,
            subnets,
            dir: tempfile::tempdir().unwrap(),
            nodes,
            pods: AtomicU32::new(0),
        };
        let mut all = format!("netns add {}\n", lab.fabric());
        for node in lab.nodes() {
            all += &format!("netns add {}\n", node.namespace());
        }
        batch(None, &all);
        let mut fabric = String::from("link set lo up\n");
        for subnet in 0..subnets {
            fabric += &format!(
                "link add br{subnet} type bridge forward_delay 0 mcast_snooping 0\n\
                 link set br{subnet} up\n"
            );
            if routed || subnets == 1 {
                let (address, length) = (lab.router(subnet), lab.length());
                fabric += &format!("addr add {address}/{length} dev br{subnet}\n");
            }
            if routed {
                fabric += &format!(
                    "addr add {}/64 dev br{subnet} nodad\n",
                    lab.router_v6(subnet)
                );
            }
        }
        for node in lab.nodes() {
            let (number, namespace) = (node.number, node.namespace());
            fabric += &format!(
                "link add p{number} type veth peer name eth0 netns {namespace}\n\
                 link set p{number} master br{} up\n",
                node.subnet()
            );
        }
        batch(Some(&lab.fabric()), &fabric);
        if routed {
            for setting in ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"] {
                let _ = in_namespace(&lab.fabric(), &format!("sysctl -qw {setting}")).ok();
            }
        }
        for node in lab.nodes() {
            let mut lines = format!(
                "link set lo up\nlink set eth0 up\naddr add {}/{} dev eth0\n\
                 addr add {}/64 dev eth0 nodad\n",
                node.ipv4(),
                lab.length(),
                node.ipv6()
            );
            if routed {
                let subnet = node.subnet();
                lines += &format!(
                    "route add default via {}\nroute add default via {}\n",
                    lab.router(subnet),
                    lab.router_v6(subnet)
                );
            }
            batch(Some(&node.namespace()), &lines);
        }
        lab
    }

    /// The fabric's address in a subnet.
    fn router(&self, subnet: usize) -> IpAddr {
        let text = match self.subnets {
            1 => "172.31.255.254".to_owned(),
            _ => format!("172.31.{subnet}.254"),
        };
        text.parse().unwrap()
    }

    fn router_v6(&self, subnet: usize) -> IpAddr {
        format!("fd31:{subnet}::ffff").parse().unwrap()
    }

    /// The prefix length of a subnet.
    fn length(&self) -> u8 {
        if self.subnets == 1 { 16 } else { 24 }
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        (1..=self.nodes).map(|number| Node { lab: self, number })
    }

    /// One node, from 1.
    pub fn node(&self, number: usize) -> Node<'_> {
        assert!((1..=self.nodes).contains(&number));
        Node { lab: self, number }
    }

    /// The fabric's namespace.
    pub fn fabric(&self) -> String {
        format!("{}-fab", self.prefix)
    }

    /// A folder for everything that the lab's programs write.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A fresh pod.
    pub fn pod(&self) -> Pod {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let pod = Pod {
            namespace: format!("{}-p{number}", self.prefix),
        };
        batch(None, &format!("netns add {}\n", pod.namespace));
        pod
    }

    /// A word that no other lab has, for container ids.
    pub fn unique(&self) -> &str {
        &self.prefix
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Daemons that agents started live on without them.
        for node in self.nodes() {
            let Ok(files) = std::fs::read_dir(node.dir().join("run/bgp")) else {
                continue;
            };
            let files = files.flatten().map(|file| file.path());
            for file in files.filter(|file| file.extension().is_some_and(|end| end == "pid")) {
                let pid = std::fs::read_to_string(file).unwrap_or_default();
                if let Ok(pid) = pid.trim().parse() {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
        // Also what a failed test has not told us of.
        let Ok(entries) = std::fs::read_dir("/run/netns") else {
            return;
        };
        let ours = format!("{}-", self.prefix);
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&ours) {
                let _ = Command::new("ip").args(["netns", "del", &name]).output();
            }
        }
    }
}

impl Node<'_> {
    /// The node's name.
    pub fn name(&self) -> String {
        format!("n{}", self.number)
    }

    /// Its namespace.
    pub fn namespace(&self) -> String {
        format!("{}-n{}", self.lab.prefix, self.number)
    }

    /// The number of its subnet, from 0.
    pub fn subnet(&self) -> usize {
        (self.number + 1) % self.lab.subnets
    }

    /// Its address on the fabric.
    pub fn ipv4(&self) -> IpAddr {
        let (number, subnet) = (self.number, self.subnet());
        let text = match self.lab.subnets {
            1 => format!("172.31.{}.{}", number / 250, number % 250 + 1),
            _ => format!("172.31.{subnet}.{}", number + 1),
        };
        text.parse().unwrap()
    }

    /// Its IPv6 address on the fabric.
    pub fn ipv6(&self) -> IpAddr {
        let text = match self.lab.subnets {
            1 => format!("fd31::{:x}", self.number + 1),
            _ => format!("fd31:{}::{:x}", self.subnet(), self.number + 1),
        };
        text.parse().unwrap()
    }

    /// A folder of its own.
    pub fn dir(&self) -> PathBuf {
        let dir = self.lab.dir().join(self.name());
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A command in its namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        inside(&self.namespace(), program)
    }

    /// Runs a line of words in its namespace.
    pub fn run(&self, line: &str) -> Output {
        in_namespace(&self.namespace(), line)
    }
}

impl Pod {
    /// The path of its namespace.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.namespace)
    }

    /// Runs a line of words in it.
    pub fn run(&self, line: &str) -> Output {
        in_namespace(&self.namespace, line)
    }

    /// Whether so many pings of an address are all answered.
    pub fn pings(&self, address: &str, count: u32) -> bool {
        self.run(&format!("ping -n -q -i 0.05 -W 2 -c {count} {address}"))
            .success()
    }

    /// Deletes the namespace.
    pub fn delete(&self) {
        let _ = run(
            Command::new("ip").args(["netns", "del", &self.namespace]),
            b"",
        )
        .ok();
    }
}

pub(crate) fn in_namespace(namespace: &str, line: &str) -> Output {
    let mut words = line.split_whitespace();
    let mut command = inside(namespace, words.next().unwrap());
    run(command.args(words), b"")
}

#[track_caller]
pub(crate) fn batch(namespace: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let _ = run(command.args(["-batch", "-"]), lines.as_bytes()).ok();
}
