//! Policy as described, the compiled table as a model reads it, and the kernel decide alike.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use margay_model::Family;
use margay_nft::Nft;
use margay_policy::Desired;
use margay_ruleset::compile::{Log, Settings};
use margay_ruleset::{Compiler, Observed, plan, plan_changes};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    socket,
};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};

use crate::chance::{random_of, variable};
use crate::fixture::TestNamespace;
use crate::packet::{self, Outcome, Packet};
use crate::random;
use crate::reference;

/// Cases of random policy; each is put in force over the one before, and every packet sent.
/// `MARGAY_POLICY_CASES` asks for more, `MARGAY_POLICY_SEED` for others.
#[test]
fn policy_model_and_kernel_decide_alike() {
    decide_alike(false);
}

/// What tells of denials decides nothing.
#[test]
fn they_decide_alike_where_denials_are_logged() {
    decide_alike(true);
}

fn decide_alike(denials: bool) {
    let cases = variable("MARGAY_POLICY_CASES", 150);
    let seed = variable("MARGAY_POLICY_SEED", u64::from(std::process::id()));
    eprintln!("MARGAY_POLICY_SEED={seed} MARGAY_POLICY_CASES={cases}");
    let random = random_of(seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let default = Settings::default();
    let settings = Settings {
        lookup_above: 2,
        log: Log {
            denials,
            ..default.log
        },
        ..default
    };
    let mut wire = Wire::new();
    let mut nft = Nft::open(&wire.host.namespace).unwrap();
    let (mut compiler, mut observed) = (Compiler::new(settings), Observed::default());
    let mut before = Desired::default();
    let (mut sent, mut accepted) = (0, 0);
    for case in 0..cases {
        let now = random::desired().new_tree(&mut runner).unwrap().current();
        compiler.update(random::delta(&before, &now));
        let changes = compiler.take_changes();
        let batch = plan_changes(compiler.table(), &observed, &changes);
        nft.apply(&batch)
            .unwrap_or_else(|error| panic!("seed {seed}, case {case}: {error:?}\n{batch}"));
        observed.apply(&batch);
        let workload = &now.workloads[&random::endpoint()];
        let mut packets = packets();
        let mut expected = BTreeSet::new();
        for (number, packet) in (0..).zip(&mut packets) {
            let frame = frame(packet, tag(case, number));
            packet.read_ports(&frame);
            let described = reference::decide(&now, workload, packet);
            let modelled = packet::decide(compiler.table(), "fwd-to", INTERFACE, packet);
            assert_eq!(described, modelled, "seed {seed}, case {case}: {packet:?}");
            if described == Outcome::Accept {
                expected.insert(tag(case, number));
            }
            wire.send(packet, &frame);
        }
        let arrived = wire.receive(&expected);
        if let Some(found) = arrived.symmetric_difference(&expected).next() {
            let number = usize::try_from(found % 1000).unwrap();
            let packet = &packets[number];
            let table = compiler.table();
            let wanted = expected.contains(found);
            panic!("seed {seed}, case {case}, tag {found}, expected {wanted}: {packet:?}\n{table}");
        }
        sent += packets.len();
        accepted += expected.len();
        before = now;
    }
    // What the kernel tells of the table is what it was given: a new agent has nothing to change.
    let there = nft.observe(compiler.table().name()).unwrap();
    let rest = plan(compiler.table(), &there);
    assert!(rest.is_empty(), "{rest}");
    eprintln!("{sent} packets, {accepted} of them accepted");
    assert!(0 < accepted && accepted < sent, "nothing has been decided");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(wire.receive(&BTreeSet::new()), BTreeSet::new(), "too late");
}

fn tag(case: u64, number: u64) -> u64 {
    case * 1000 + number
}

/// The network, the host and a workload that has every address and answers nobody.
struct Wire {
    host: TestNamespace,
    _net: TestNamespace,
    _pod: TestNamespace,
    senders: [OwnedFd; 2],
    receivers: Vec<OwnedFd>,
}

impl Wire {
    fn new() -> Self {
        let [host, net, pod] = std::array::from_fn(|_| TestNamespace::new());
        for (name, peer) in [(INTERFACE, &pod), ("eth0", &net)] {
            let netns = peer.path().display();
            host.run(&format!(
                "ip link add {name} type veth peer name eth0 netns {netns}"
            ));
            host.run(&format!("ip link set {name} up"));
            peer.run("ip link set eth0 address 02:00:00:00:00:01");
            peer.run("ip link set eth0 up");
            for conf in ["all", name] {
                host.write(&format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0");
            }
        }
        for conf in ["all", "eth0"] {
            pod.write(&format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0");
        }
        host.write("/proc/sys/net/ipv4/ip_forward", "1");
        host.write("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        host.run("ip link set eth0 address 02:00:00:00:00:02");
        for address in ADDRESSES {
            let length = if address.contains(':') { 128 } else { 32 };
            let nodad = if address.contains(':') { "nodad" } else { "" };
            pod.run(&format!(
                "ip address add {address}/{length} dev eth0 {nodad}"
            ));
            host.run(&format!("ip route add {address} dev {INTERFACE}"));
            host.run(&format!(
                "ip neigh add {address} dev {INTERFACE} lladdr 02:00:00:00:00:01"
            ));
        }
        // Others send from the workload's own addresses, too.
        for conf in ["all", "eth0"] {
            pod.write(&format!("/proc/sys/net/ipv4/conf/{conf}/accept_local"), "1");
        }
        // Sources need a way back, or else the host and the workload take their packets for lies.
        for (from, way) in [(&host, "dev eth0"), (&pod, "dev eth0")] {
            from.run(&format!("ip route add default {way}"));
            from.run(&format!("ip -6 route add default {way}"));
        }
        // The workload answers nobody.
        pod.nft(
            "table inet silent { chain output { type filter hook output priority 0; policy drop; }\n}",
        );
        net.run("ip address add 172.16.0.2/24 dev eth0");
        net.run("ip route add default dev eth0");
        net.run("ip -6 route add default dev eth0");
        for address in ADDRESSES {
            net.run(&format!(
                "ip neigh add {address} dev eth0 lladdr 02:00:00:00:00:02"
            ));
        }
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        let raw = |family, protocol| {
            socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK, protocol).unwrap()
        };
        let senders = net
            .namespace
            .run(|| families.map(|family| raw(family, SockProtocol::Raw)))
            .unwrap();
        let receivers = pod.namespace.run(|| {
            let mut receivers = Vec::new();
            for family in families {
                let icmp = match family {
                    AddressFamily::Inet => SockProtocol::Icmp,
                    _ => SockProtocol::IcmpV6,
                };
                for protocol in [SockProtocol::Tcp, SockProtocol::Udp, icmp] {
                    receivers.push(raw(family, protocol));
                }
            }
            receivers
        });
        Self {
            host,
            _net: net,
            _pod: pod,
            senders,
            receivers: receivers.unwrap(),
        }
    }

    fn send(&self, packet: &Packet, frame: &[u8]) {
        let to: SockaddrStorage = std::net::SocketAddr::new(packet.destination, 0).into();
        let sender = match packet.family() {
            Family::V4 => &self.senders[0],
            Family::V6 => &self.senders[1],
        };
        let sent = sendto(sender.as_raw_fd(), frame, &to, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "{packet:?}");
    }

    /// The tags of what has arrived: all that is expected, and what there is beside.
    fn receive(&mut self, expected: &BTreeSet<u64>) -> BTreeSet<u64> {
        let begin = Instant::now();
        let mut arrived = BTreeSet::new();
        loop {
            let mut buffer = [0; 200];
            for receiver in &self.receivers {
                while let Ok(length) = recv(receiver.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    // Neighbour discovery has none.
                    if let Some((rest, tag)) = buffer[..length].split_last_chunk::<8>()
                        && rest.ends_with(MAGIC)
                    {
                        arrived.insert(u64::from_be_bytes(*tag));
                    }
                }
            }
            if arrived.is_superset(expected) || begin.elapsed() > Duration::from_secs(10) {
                return arrived;
            }
            std::thread::yield_now();
        }
    }
}

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for source in [
        "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.9.9", "fd00::1", "fd00::2", "fd00::99",
    ] {
        let source: IpAddr = source.parse().unwrap();
        for destination in ADDRESSES {
            let destination: IpAddr = destination.parse().unwrap();
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let packet = |protocol, (source_port, destination_port), icmp| Packet {
                source,
                destination,
                protocol,
                source_port,
                destination_port,
                icmp,
            };
            for protocol in [6, 17] {
                for ports in [(3, 1), (1, 2), (6, 4), (2, 6), (9, 99)] {
                    packets.push(packet(protocol, ports, (0, 0)));
                }
            }
            let (protocol, kind) = if source.is_ipv4() { (1, 8) } else { (58, 128) };
            for code in [0, 1] {
                packets.push(packet(protocol, (0, 0), (kind, code)));
            }
        }
    }
    packets
}

/// The packet with its header, as a raw socket takes it.
fn frame(packet: &Packet, tag: u64) -> Vec<u8> {
    let mut body = Vec::new();
    match packet.protocol {
        6 => {
            body.extend(packet.source_port.to_be_bytes());
            body.extend(packet.destination_port.to_be_bytes());
            // Sequence 1; five words of header; SYN; a window.
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 16, 0, 0, 0, 0, 0]);
        }
        17 => {
            body.extend(packet.source_port.to_be_bytes());
            body.extend(packet.destination_port.to_be_bytes());
            body.extend([0, 8 + 12, 0, 0]);
        }
        _ => body.extend([packet.icmp.0, packet.icmp.1, 0, 0, 0, 7, 0, 1]),
    }
    body.extend(MAGIC);
    body.extend(tag.to_be_bytes());
    let length = u16::try_from(body.len()).unwrap();
    let addresses: Vec<u8> = match (packet.source, packet.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => panic!("{packet:?}"),
    };
    let pseudo = match packet.protocol {
        1 => Vec::new(),
        protocol => {
            let mut pseudo = addresses.clone();
            pseudo.extend(length.to_be_bytes());
            pseudo.extend([0, protocol]);
            pseudo
        }
    };
    let sum = checksum(&[pseudo.as_slice(), &body].concat());
    let at = match packet.protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    };
    body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut frame = Vec::new();
    if packet.source.is_ipv4() {
        frame.extend([0x45, 0]);
        frame.extend((20 + length).to_be_bytes());
        // The kernel fills in the checksum.
        frame.extend([0, 0, 0, 0, 64, packet.protocol, 0, 0]);
    } else {
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([packet.protocol, 64]);
    }
    frame.extend(addresses);
    frame.extend(body);
    frame
}

impl Packet {
    /// Takes what stands where ports do: the kernel reads it in other protocols, too.
    fn read_ports(&mut self, frame: &[u8]) {
        let at = if self.source.is_ipv4() { 20 } else { 40 };
        self.source_port = u16::from_be_bytes([frame[at], frame[at + 1]]);
        self.destination_port = u16::from_be_bytes([frame[at + 2], frame[at + 3]]);
    }
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

const INTERFACE: &str = "cali1";
/// The workload's.
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::7"];
const MAGIC: &[u8] = b"MRGY";
