//! A host with two workloads and a neighbour in the network, and the policy that it enforces.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use margay_model::{Cidr, Family};
use margay_nft::Nft;
use margay_policy::{
    Action, Chains, Delta, EndpointId, Host, HostInterface, Member, Policy, PolicyId, PolicyKind,
    PortRange, Profile, Rule, Set, SetChange, SetId, SetKind, Side, Tier, TierDefault, Workload,
};
use margay_ruleset::compile::{Node, Settings};
use margay_ruleset::{Compiler, Observed, plan_changes};

use crate::fixture::TestNamespace;

/// `cali1` and `cali2` lead to the workloads, `eth0` to the neighbour.
pub(crate) struct Lab {
    pub(crate) host: TestNamespace,
    pub(crate) a: TestNamespace,
    pub(crate) b: TestNamespace,
    pub(crate) net: TestNamespace,
    pub(crate) compiler: Compiler,
    pub(crate) nft: Nft,
    observed: Observed,
    workloads: BTreeMap<EndpointId, Workload>,
}

pub(crate) const A: &str = "10.65.0.1";
pub(crate) const B: &str = "10.65.0.2";
pub(crate) const A6: &str = "fd00:65::1";
pub(crate) const B6: &str = "fd00:65::2";
pub(crate) const HOST: &str = "172.16.0.1";
pub(crate) const NET: &str = "172.16.0.2";

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let [host, a, b, net] = std::array::from_fn(|_| TestNamespace::new());
        for (namespace, interface, v4, v6) in [(&a, "cali1", A, A6), (&b, "cali2", B, B6)] {
            host.link(interface, namespace, "eth0");
            host.run(&format!(
                "ip link set {interface} up address ee:ee:ee:ee:ee:ee"
            ));
            namespace.run("ip link set eth0 address 02:00:00:00:00:01");
            namespace.run("ip link set eth0 up");
            namespace.run(&format!("ip address add {v4}/32 dev eth0"));
            namespace.run(&format!("ip address add {v6}/128 dev eth0 nodad"));
            namespace.run("ip route add 169.254.1.1 dev eth0");
            namespace.run("ip route add default via 169.254.1.1 dev eth0");
            namespace.run("ip neigh add 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee");
            namespace.run("ip -6 route add default via fe80::ecee:eeff:feee:eeee dev eth0");
            namespace
                .run("ip neigh add fe80::ecee:eeff:feee:eeee dev eth0 lladdr ee:ee:ee:ee:ee:ee");
            host.run(&format!("ip route add {v4} dev {interface}"));
            host.run(&format!("ip -6 route add {v6} dev {interface}"));
            for address in [v4, v6] {
                host.run(&format!(
                    "ip neigh add {address} dev {interface} lladdr 02:00:00:00:00:01"
                ));
            }
        }
        host.link("eth0", &net, "eth0");
        for (namespace, address) in [(&host, HOST), (&net, NET)] {
            namespace.run("ip link set eth0 up");
            namespace.run(&format!("ip address add {address}/24 dev eth0"));
        }
        net.run(&format!("ip route add 10.65.0.0/16 via {HOST}"));
        host.write("/proc/sys/net/ipv4/ip_forward", "1");
        host.write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        let mut lab = Self {
            nft: Nft::open(&host.namespace).unwrap(),
            host,
            a,
            b,
            net,
            compiler: Compiler::new(settings),
            observed: Observed::default(),
            workloads: BTreeMap::new(),
        };
        let interfaces = vec![("eth0".to_owned(), vec![HOST.parse().unwrap()])];
        lab.node(Node {
            interfaces,
            ..Node::default()
        });
        lab
    }

    /// Puts in force what has changed; the mirror must be what the kernel has.
    pub(crate) fn put_in_force(&mut self) {
        let changes = self.compiler.take_changes();
        let batch = plan_changes(self.compiler.table(), &self.observed, &changes);
        self.nft
            .apply(&batch)
            .unwrap_or_else(|error| panic!("{error:?}\n{batch}"));
        self.observed.apply(&batch);
        let found = self.nft.observe(self.compiler.table().name()).unwrap();
        assert!(
            found == self.observed,
            "the kernel has other things than the mirror"
        );
    }

    pub(crate) fn node(&mut self, node: Node) {
        self.compiler.set_node(node);
        self.put_in_force();
    }

    pub(crate) fn update(&mut self, delta: Delta) {
        self.workloads.extend(delta.workloads.clone());
        self.compiler.update(delta);
        self.put_in_force();
    }

    /// Both workloads, open to everything except for what `policies` say.
    pub(crate) fn workloads(&mut self, ingress: Vec<Tier>, egress: Vec<Tier>, more: Delta) {
        let mut delta = more;
        delta.profiles.insert("open".to_owned(), open());
        for (name, interface, addresses) in [("a", "cali1", [A, A6]), ("b", "cali2", [B, B6])] {
            let chains = if name == "b" {
                Chains {
                    ingress: ingress.clone(),
                    egress: Vec::new(),
                }
            } else {
                Chains {
                    ingress: Vec::new(),
                    egress: egress.clone(),
                }
            };
            let workload = Workload {
                interface: interface.to_owned(),
                mac: Some("02:00:00:00:00:01".to_owned()),
                addresses: addresses
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect(),
                spoofable: Vec::new(),
                chains,
                profiles: vec!["open".to_owned()],
                qos: None,
                staged: None,
            };
            delta.workloads.insert(endpoint(name), workload);
        }
        self.update(delta);
    }

    /// A workload as it was last put.
    pub(crate) fn workload(&self, name: &str) -> Workload {
        self.workloads[&endpoint(name)].clone()
    }

    /// What rules with this in their comment have counted.
    pub(crate) fn counted(&mut self, comment: &str) -> u64 {
        let counters = self.nft.counters(self.compiler.table().name()).unwrap();
        let counters = counters.iter().filter(|counter| {
            counter
                .comment
                .as_deref()
                .is_some_and(|found| found.contains(comment))
        });
        counters.map(|counter| counter.packets).sum()
    }
}

impl TestNamespace {
    fn link(&self, name: &str, peer: &Self, peer_name: &str) {
        let netns = peer.path().display();
        self.run(&format!(
            "ip link add {name} type veth peer name {peer_name} netns {netns}"
        ));
    }

    pub(crate) fn write(&self, path: &str, value: &str) {
        self.namespace
            .run(|| std::fs::write(path, value))
            .unwrap()
            .unwrap();
    }

    pub(crate) fn udp(&self, address: &str, port: u16) -> UdpSocket {
        let at = SocketAddr::new(address.parse().unwrap(), port);
        let socket = self.namespace.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket
    }

    /// Whether UDP from an address here reaches a port there. A packet that is lost while a
    /// neighbour is resolved is sent again.
    pub(crate) fn reaches(&self, from: &str, there: &Self, to: &str, port: u16) -> bool {
        let receiver = there.udp(to, port);
        let sender = self.udp(from, 0);
        let to = SocketAddr::new(to.parse().unwrap(), port);
        // Refused by our own rules, or lost on the way: both are no.
        (0..3).any(|_| sender.send_to(b"x", to).is_ok() && receiver.recv(&mut [0; 8]).is_ok())
    }

    /// A TCP connection to a listener there, both ends.
    pub(crate) fn connect(
        &self,
        there: &Self,
        to: &str,
        port: u16,
    ) -> Option<(TcpStream, TcpStream)> {
        let at = SocketAddr::new(to.parse().unwrap(), port);
        let listener = there
            .namespace
            .run(|| TcpListener::bind(at))
            .unwrap()
            .unwrap();
        let connect = || TcpStream::connect_timeout(&at, SHORT * 3);
        let near = self.namespace.run(connect).unwrap().ok()?;
        let (far, _) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(SHORT * 3)).unwrap();
        }
        Some((near, far))
    }
}

/// Whether a byte gets from one end of a connection to the other.
pub(crate) fn flows(connection: &mut (TcpStream, TcpStream)) -> bool {
    connection.0.write_all(b"x").is_ok() && connection.1.read_exact(&mut [0]).is_ok()
}

/// Waits for something that takes a moment.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

pub(crate) fn endpoint(name: &str) -> EndpointId {
    format!("test/{name}").parse().unwrap()
}

pub(crate) fn policy_id(name: &str) -> PolicyId {
    PolicyId::new(PolicyKind::GlobalNetworkPolicy, None, name)
}

pub(crate) fn tier(name: &str, policies: &[&str]) -> Tier {
    Tier {
        name: name.to_owned(),
        policies: policies.iter().map(|policy| policy_id(policy)).collect(),
        default: TierDefault::Deny,
    }
}

pub(crate) fn rule(action: Action) -> Rule {
    Rule {
        index: 0,
        action,
        family: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side::default(),
        destination: Side::default(),
        annotations: BTreeMap::new(),
    }
}

/// A rule for UDP to a port.
pub(crate) fn udp(action: Action, first: u16, last: u16) -> Rule {
    let mut rule = rule(action);
    rule.protocol = Some(17);
    rule.destination.ports.push(PortRange { first, last });
    rule
}

pub(crate) fn open() -> Profile {
    Profile {
        ingress: vec![rule(Action::Allow)],
        egress: vec![rule(Action::Allow)],
    }
}

/// Policies of these names, each with rules for both directions.
pub(crate) fn policies(policies: &[(&str, &[Rule])]) -> Delta {
    let mut delta = Delta::default();
    for (name, rules) in policies {
        let rules: Vec<Rule> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| Rule {
                index,
                ..rule.clone()
            })
            .collect();
        let policy = Policy {
            tier: "default".to_owned(),
            ingress: rules.clone(),
            egress: rules,
        };
        delta.policies.insert(policy_id(name), policy);
    }
    delta
}

pub(crate) fn nets(nets: &[&str]) -> Set {
    let cidr = |net: &&str| {
        let address = net.parse().map(Cidr::host);
        Member::Net(address.unwrap_or_else(|_| net.parse().unwrap()))
    };
    Set {
        kind: SetKind::Nets,
        label: "role == 'test'".to_owned(),
        members: nets.iter().map(cidr).collect(),
    }
}

pub(crate) fn port_member(address: &str, protocol: u8, port: u16) -> Member {
    Member::Port {
        address: address.parse().unwrap(),
        protocol,
        port,
    }
}

pub(crate) fn set_id(name: &str) -> SetId {
    SetId::hash(name)
}

pub(crate) fn with_set(mut delta: Delta, name: &str, set: Set) -> Delta {
    delta.sets.insert(set_id(name), SetChange::New(set));
    delta
}

pub(crate) fn members(name: &str, added: &[Member], removed: &[Member]) -> Delta {
    let change = SetChange::Members {
        added: added.iter().copied().collect(),
        removed: removed.iter().copied().collect(),
    };
    Delta {
        sets: BTreeMap::from([(set_id(name), change)]),
        ..Delta::default()
    }
}

pub(crate) fn host_endpoint(interface: HostInterface) -> Host {
    Host {
        interface,
        addresses: Vec::new(),
        normal: Chains::default(),
        forward: Chains::default(),
        pre_dnat: Vec::new(),
        untracked: Chains::default(),
        profiles: Vec::new(),
        staged: None,
    }
}

pub(crate) fn v4_only(mut rule: Rule) -> Rule {
    rule.family = Some(Family::V4);
    rule
}

/// Long enough for a packet through two veth pairs on a busy machine.
const SHORT: Duration = Duration::from_millis(400);
