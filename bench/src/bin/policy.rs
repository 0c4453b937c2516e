//! What policy costs in the kernel: first packets, and changes of a large table.
//!
//! usage: margay-bench-policy [ENDPOINTS POLICIES]
//!
//! Every figure is the smallest and the median of several samples, in a network namespace that ends
//! with the program; it needs root. Packets are compared with a table that only tracks connections,
//! taking turns.

use std::collections::BTreeMap;
use std::env;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use margay_model::Cidr;
use margay_netlink::Namespace;
use margay_nft::{Conntrack, Nft};
use margay_policy::{
    Action, Chains, Delta, EndpointId, Member, Policy, PolicyId, PolicyKind, PortRange, Rule, Set,
    SetChange, SetId, SetKind, Side, Tier, TierDefault, Workload,
};
use margay_ruleset::compile::Settings;
use margay_ruleset::{Compiler, Observed, plan, plan_changes};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};

fn main() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("an own namespace; run as root")?;
    let mut arguments = env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>());
    let mut next = |default| arguments.next().unwrap_or(Ok(default));
    let (endpoints, policies) = (next(1000)?, next(1000)?);
    changes(endpoints, policies, &Settings::default())?;
    packets()
}

/// What changes of a table cost.
fn changes(endpoints: usize, policies: usize, settings: &Settings) -> Result<()> {
    print(&format!("{endpoints} endpoints, {policies} policies"), &[]);
    let begin = Instant::now();
    let mut lab = Lab::new(settings)?;
    lab.compiler.update(cluster(endpoints, policies));
    print("compiling", &[begin.elapsed()]);
    let begin = Instant::now();
    let batch = plan(lab.compiler.table(), &Observed::default());
    print("planning from nothing", &[begin.elapsed()]);
    let operations = batch.operations.len();
    lab.compiler.take_changes();
    let mut starts = Vec::new();
    for _ in 0..3 {
        if !starts.is_empty() {
            let mut delete = batch.clone();
            delete.operations = vec![margay_ruleset::Operation::DeleteTable];
            lab.nft.apply(&delete)?;
        }
        let begin = Instant::now();
        lab.nft.apply(&batch)?;
        starts.push(begin.elapsed());
    }
    print(&format!("cold start, {operations} operations"), &starts);
    lab.observed.apply(&batch);
    let begin = Instant::now();
    let observed = lab.nft.observe(lab.compiler.table().name())?;
    print("reading all", &[begin.elapsed()]);
    ensure!(observed == lab.observed, "the kernel has other things");

    lab.repeat("one member of a set", 100, |number| {
        let member = Member::Net(Cidr::host(pod(60_000 + number)));
        members(0, member)
    })?;
    lab.repeat("a pod arrives", 100, |number| {
        let mut delta = members(
            number % policies.max(1),
            Member::Net(Cidr::host(pod(number))),
        );
        let (id, workload) = workload(endpoints + number, policies);
        delta.workloads.insert(id, workload);
        delta
    })?;
    lab.repeat("a policy of 100 rules changes", 30, |number| {
        let rules = (0..100).map(|rule| {
            let port = 1000 + u16::try_from(rule + number).unwrap_or_default();
            let mut rule = allow(rule, 0, port);
            rule.destination.not_ports = vec![PortRange { first: 1, last: 9 }];
            rule
        });
        let mut delta = Delta::default();
        delta.policies.insert(policy_id(0), policy(rules.collect()));
        delta
    })
}

struct Lab {
    compiler: Compiler,
    nft: Nft,
    observed: Observed,
}

impl Lab {
    fn new(settings: &Settings) -> Result<Self> {
        Ok(Self {
            compiler: Compiler::new(settings.clone()),
            nft: Nft::open(&Namespace::current()?)?,
            observed: Observed::default(),
        })
    }

    /// Applies changes one after the other; prints what each part of the work took.
    fn repeat(&mut self, what: &str, times: usize, change: impl Fn(usize) -> Delta) -> Result<()> {
        let (mut compiling, mut planning, mut applying) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..times {
            let delta = change(number);
            let begin = Instant::now();
            self.compiler.update(delta);
            compiling.push(begin.elapsed());
            let begin = Instant::now();
            let changes = self.compiler.take_changes();
            let batch = plan_changes(self.compiler.table(), &self.observed, &changes);
            planning.push(begin.elapsed());
            ensure!(!batch.is_empty(), "{what}: nothing has changed");
            let begin = Instant::now();
            self.nft.apply(&batch)?;
            applying.push(begin.elapsed());
            self.observed.apply(&batch);
        }
        print(&format!("{what}: compile"), &compiling);
        print(&format!("{what}: plan"), &planning);
        print(&format!("{what}: apply"), &applying);
        Ok(())
    }

    fn put_in_force(&mut self, delta: Delta) -> Result<()> {
        self.compiler.update(delta);
        self.observed = self.nft.synchronise(self.compiler.table())?;
        Ok(())
    }
}

/// What the first packet of a connection costs, from one workload to another.
fn packets() -> Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, FLOWS + 200, FLOWS + 200)?;
    for (number, address) in [(1, FROM), (2, TO)] {
        let name = format!("n{number}");
        ip(&format!("netns add {}", netns(&name)))?;
        let made = netns(&name);
        ip(&format!(
            "link add cali{number} type veth peer name eth0 netns {made}"
        ))?;
        ip(&format!(
            "link set cali{number} up address ee:ee:ee:ee:ee:ee"
        ))?;
        ip(&format!("route add {address} dev cali{number}"))?;
        ip(&format!(
            "neigh add {address} dev cali{number} lladdr 02:00:00:00:00:01"
        ))?;
        for command in [
            "link set eth0 up address 02:00:00:00:00:01".to_owned(),
            format!("address add {address}/32 dev eth0"),
            "route add 169.254.1.1 dev eth0".to_owned(),
            "route add default via 169.254.1.1 dev eth0".to_owned(),
            "neigh add 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee".to_owned(),
        ] {
            ip(&format!("-n {made} {command}"))?;
        }
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("forwarding")?;
    let outcome = measure_packets();
    for name in ["n1", "n2"] {
        ip(&format!("netns del {}", netns(name)))?;
    }
    outcome
}

fn measure_packets() -> Result<()> {
    let from = Namespace::open(format!("/run/netns/{}", netns("n1")))?;
    let to = Namespace::open(format!("/run/netns/{}", netns("n2")))?;
    let receiver = to.run(|| UdpSocket::bind((TO, 5000)))??;
    let mut conntrack = Conntrack::current()?;
    let mut baseline = Nft::current()?;
    let tracking = {
        let mut table = margay_ruleset::Table::new("margay-bench", "tracks connections only");
        let states =
            margay_ruleset::Statement::dispatch([margay_ruleset::Field::CtState], "states");
        let set = margay_ruleset::Set::verdicts([margay_ruleset::DataType::CtState]);
        table.put_set("states", set);
        let rule = margay_ruleset::Rule::new([states]);
        let base = margay_ruleset::Base::filter(margay_ruleset::Hook::Forward, -5);
        table.put_chain("forward", margay_ruleset::Chain::base(base, [rule]));
        table
    };
    let remove = |nft: &mut Nft, table: &str| {
        nft.apply(&margay_ruleset::Batch {
            table: table.to_owned(),
            operations: vec![margay_ruleset::Operation::DeleteTable],
        })
    };
    for count in [1, 10, 100] {
        let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for _ in 0..ROUNDS {
            for (name, lookup_above) in [
                ("tracking only", None),
                ("lookup", Some(0)),
                ("rules", Some(usize::MAX)),
            ] {
                let table = match lookup_above {
                    None => {
                        baseline.synchronise(&tracking)?;
                        tracking.name().to_owned()
                    }
                    Some(lookup_above) => {
                        let settings = Settings {
                            lookup_above,
                            ..Settings::default()
                        };
                        let mut lab = Lab::new(&settings)?;
                        lab.put_in_force(pair(count))?;
                        settings.table
                    }
                };
                conntrack.forget(&[FROM.into()])?;
                times
                    .entry(name)
                    .or_default()
                    .push(first_packets(&from, &receiver)?);
                remove(&mut baseline, &table)?;
            }
        }
        for (name, times) in &times {
            print(
                &format!("first packet, {count} policies of 6 rules: {name}"),
                times,
            );
        }
    }
    Ok(())
}

/// The time of one packet, each of a connection of its own.
fn first_packets(from: &Namespace, receiver: &UdpSocket) -> Result<Duration> {
    let count = u32::try_from(FLOWS)?;
    let bind = || -> std::io::Result<Vec<UdpSocket>> {
        (0..count)
            .map(|_| {
                let socket = UdpSocket::bind((FROM, 0))?;
                socket.connect((TO, 5000))?;
                Ok(socket)
            })
            .collect()
    };
    let sockets = from.run(bind)??;
    receiver.set_nonblocking(true)?;
    let mut taken = Duration::ZERO;
    let mut arrived = 0;
    for sockets in sockets.chunks(100) {
        let begin = Instant::now();
        for socket in sockets {
            socket.send(b"x")?;
        }
        taken += begin.elapsed();
        while receiver.recv(&mut [0; 8]).is_ok() {
            arrived += 1;
        }
    }
    while receiver.recv(&mut [0; 8]).is_ok() {
        arrived += 1;
    }
    ensure!(arrived == count, "{arrived} of {count} packets arrived");
    Ok(taken / count)
}

/// Two workloads; only the last rule of the last of `count` policies lets them speak.
fn pair(count: usize) -> Delta {
    let mut delta = Delta::default();
    for number in 0..count {
        delta
            .sets
            .insert(set_id(number), SetChange::New(peers(number, &[])));
        let rules = (0..6).map(|rule| allow(rule, number, 6000 + u16::try_from(rule).unwrap_or(0)));
        delta
            .policies
            .insert(policy_id(number), policy(rules.collect()));
    }
    let last = count - 1;
    let both = [FROM, TO].map(|address| Member::Net(Cidr::host(address.into())));
    delta
        .sets
        .insert(set_id(last), SetChange::New(peers(last, &both)));
    let mut rules: Vec<_> = (0..5).map(|rule| allow(rule, last, 6000)).collect();
    rules.push(allow(5, last, 5000));
    delta.policies.insert(policy_id(last), policy(rules));
    for (number, address) in [(1, FROM), (2, TO)] {
        let policies: Vec<_> = (0..count).map(policy_id).collect();
        let id = EndpointId {
            namespace: "bench".to_owned(),
            name: format!("w{number}"),
        };
        let workload = endpoint(format!("cali{number}"), address.into(), policies);
        delta.workloads.insert(id, workload);
    }
    delta
}

/// A node's share of a cluster: endpoints in 50 classes, each with 10 policies.
fn cluster(endpoints: usize, policies: usize) -> Delta {
    let mut delta = Delta::default();
    for number in 0..policies {
        delta
            .sets
            .insert(set_id(number), SetChange::New(peers(number, &[])));
        let rules = (0..6).map(|rule| {
            let mut rule = allow(rule, number, 1000 + u16::try_from(rule).unwrap_or(0));
            // Rules and not lookups: they cost more.
            rule.destination.not_ports = vec![PortRange { first: 1, last: 9 }];
            rule
        });
        delta
            .policies
            .insert(policy_id(number), policy(rules.collect()));
    }
    delta
        .workloads
        .extend((0..endpoints).map(|number| workload(number, policies)));
    delta
}

fn workload(number: usize, policies: usize) -> (EndpointId, Workload) {
    let first = number % CLASSES * (policies / CLASSES).max(1);
    let ids = (first..first + 10).map(|id| policy_id(id % policies.max(1)));
    let id = EndpointId {
        namespace: "bench".to_owned(),
        name: format!("w{number}"),
    };
    (
        id,
        endpoint(format!("cali{number}"), pod(number), ids.collect()),
    )
}

fn endpoint(interface: String, address: IpAddr, policies: Vec<PolicyId>) -> Workload {
    let tier = Tier {
        name: "default".to_owned(),
        policies,
        default: TierDefault::Deny,
    };
    Workload {
        interface,
        mac: Some("02:00:00:00:00:01".to_owned()),
        addresses: vec![address],
        spoofable: Vec::new(),
        chains: Chains {
            ingress: vec![tier.clone()],
            egress: vec![tier],
        },
        profiles: Vec::new(),
        qos: None,
        staged: None,
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    let egress = rules.iter().cloned().map(|mut rule| {
        rule.destination.sets = std::mem::take(&mut rule.source.sets);
        rule
    });
    Policy {
        tier: "default".to_owned(),
        egress: egress.collect(),
        ingress: rules,
    }
}

/// Allows the addresses of a set three ports of UDP.
fn allow(index: usize, set: usize, port: u16) -> Rule {
    let ports = [port, port + 100, port + 200];
    Rule {
        index,
        action: Action::Allow,
        family: None,
        protocol: Some(17),
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Side {
            sets: vec![set_id(set)],
            ..Side::default()
        },
        destination: Side {
            ports: ports.map(|first| PortRange { first, last: first }).to_vec(),
            ..Side::default()
        },
        annotations: BTreeMap::new(),
    }
}

fn peers(number: usize, more: &[Member]) -> Set {
    let members = (0..50).map(|member| Member::Net(Cidr::host(pod(number * 50 + member + 70_000))));
    Set {
        kind: SetKind::Nets,
        label: format!("app == 'a{number}'"),
        members: members.chain(more.iter().copied()).collect(),
    }
}

fn members(set: usize, added: Member) -> Delta {
    let change = SetChange::Members {
        added: [added].into(),
        removed: [].into(),
    };
    Delta {
        sets: BTreeMap::from([(set_id(set), change)]),
        ..Delta::default()
    }
}

fn set_id(number: usize) -> SetId {
    SetId::hash(&number.to_string())
}

fn policy_id(number: usize) -> PolicyId {
    PolicyId::new(PolicyKind::GlobalNetworkPolicy, None, format!("p{number}"))
}

fn pod(number: usize) -> IpAddr {
    Ipv4Addr::from(0x0a80_0000 + u32::try_from(number).unwrap_or_default()).into()
}

fn netns(name: &str) -> String {
    format!("margay-bench-policy-{}-{name}", std::process::id())
}

fn ip(arguments: &str) -> Result<()> {
    #[expect(
        clippy::disallowed_methods,
        reason = "links of a measurement, made as people do"
    )]
    let status = Command::new("ip")
        .args(arguments.split_whitespace())
        .status()?;
    ensure!(status.success(), "ip {arguments}");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a measurement is for")]
fn print(what: &str, times: &[Duration]) {
    let mut micros: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    micros.sort_by(f64::total_cmp);
    match (micros.first(), micros.get(micros.len() / 2)) {
        (Some(least), Some(median)) => println!("{what:<58} {least:>12.1} {median:>12.1} µs"),
        _ => println!("\n{what:<58} {:>12} {:>12}", "least", "median"),
    }
}

const FROM: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 1);
const TO: Ipv4Addr = Ipv4Addr::new(10, 65, 0, 2);
const CLASSES: usize = 50;
const FLOWS: u64 = 3000;
const ROUNDS: usize = 7;
