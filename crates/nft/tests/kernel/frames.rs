//! Whatever frames a workload sends by a packet socket, nothing gets past the host with a foreign address, and the
//! host believes nothing of what they claim.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use margay_policy::Delta;
use margay_ruleset::compile::{EndpointToHost, Settings};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket};
use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

use crate::agreement::checksum;
use crate::chance::{random_of, variable};
use crate::fixture::TestNamespace;
use crate::lab::{A, A6, B, B6, HOST, Lab, NET, eventually};
use crate::spoofing::fuzzed;

/// `MARGAY_FUZZED_FRAMES` asks for more, `MARGAY_FUZZ_SEED` for others.
#[test]
fn fuzzed_frames_pass_with_the_workloads_addresses_only_and_convince_nobody() {
    let count = variable("MARGAY_FUZZED_FRAMES", 100_000);
    let seed = variable("MARGAY_FUZZ_SEED", u64::from(std::process::id()));
    eprintln!("MARGAY_FUZZ_SEED={seed} MARGAY_FUZZED_FRAMES={count}");
    let mut random = random_of(seed);
    let mut lab = Lab::with(Settings {
        endpoint_to_host: EndpointToHost::Accept,
        ..Settings::default()
    });
    for setting in ["ipv4/conf/cali1/proxy_arp", "ipv6/conf/cali1/proxy_ndp"] {
        lab.host.write(&format!("/proc/sys/net/{setting}"), "1");
    }
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    assert!(lab.a.reaches(A, &lab.net, NET, 5000));
    let uplink = mac_of(&lab.host, "eth0");
    judge_host(&lab.host);
    judge_receiver(&lab.b, GATEWAY_MAC, "ip saddr != { 10.65.0.1, 172.16.0.1 }");
    judge_receiver(&lab.net, &uplink, "ip saddr != { 10.65.0.1, 172.16.0.1 }");
    let tentative = || lab.host.run("ip -6 address show tentative");
    assert!(eventually(|| tentative().is_empty()), "{}", tentative());
    let before = beliefs(&lab.host);
    let wire = Wire::new(&lab.a);
    let mut sent = 0;
    for _ in 0..count {
        sent += u64::from(wire.send(&frame(&mut random)));
    }
    assert!(sent > count / 2, "{sent} of {count}");
    for (namespace, place) in [(&lab.host, "host"), (&lab.b, "b"), (&lab.net, "net")] {
        let seen = namespace.run("nft list ruleset");
        for name in ["foreign", "claims", "tagged"] {
            let found = counted(&seen, name);
            assert_eq!(found, 0, "{place}: {name}, seed {seed}: {seen}");
        }
        assert!(counted(&seen, "own") > 0, "{place}: {seen}");
    }
    for comment in ["spoofed source address", "spoofed MAC address"] {
        assert!(lab.counted(comment) > 0, "{comment}");
    }
    assert!(lab.counted("router advertisement from a workload") > 0);
    assert_eq!(beliefs(&lab.host), before, "seed {seed}");
    assert!(lab.a.reaches(A, &lab.b, B, 5001) && lab.a.reaches(A, &lab.net, NET, 5002));
    assert!(lab.b.reaches(B, &lab.a, A, 5003) && lab.net.reaches(NET, &lab.b, B, 5004));
}

/// Behind all of ours, another table counts what has passed.
fn judge_host(host: &TestNamespace) {
    // What goes back to the workload itself, as to an address of the link that nobody has, reaches nobody.
    let nd = "ip6 saddr { ::, fe80::/10 } icmpv6 type { 131, 132, 133, 135, 136, 143 } accept";
    let rules = format!(
        "iifname != \"cali1\" accept
         meta iiftype ether ether saddr != {OWN_MAC} counter name foreign
         ip saddr != {A} counter name foreign
         ip6 saddr != {A6} counter name foreign
         icmpv6 type {{ nd-router-advert, nd-redirect }} counter name claims
         counter name own"
    );
    host.nft(&format!(
        "table inet judge {{
         counter foreign {{ }}
         counter claims {{ }}
         counter tagged {{ }}
         counter own {{ }}
         chain out {{ type filter hook forward priority 300; policy accept;
         oifname cali1 accept
         {rules}
         }}
         chain in {{ type filter hook input priority 300; policy accept;
         meta iiftype ether iifname cali1 ether saddr != {OWN_MAC} counter name foreign
         {nd}
         {rules}
         }}
         }}\n"
    ));
}

/// What arrives from the host, frame by frame.
fn judge_receiver(namespace: &TestNamespace, host_mac: &str, foreign: &str) {
    namespace.nft(&format!(
        "table netdev judge {{
         counter foreign {{ }}
         counter claims {{ }}
         counter tagged {{ }}
         counter own {{ }}
         chain c {{ type filter hook ingress device eth0 priority 0; policy accept;
         ether saddr != {host_mac} counter name foreign
         ether type != {{ ip, ip6, arp }} counter name tagged
         {foreign} counter name foreign
         ip6 saddr != {{ {A6}, fe80::/10, :: }} counter name foreign
         arp saddr ip != {{ {HOST}, 169.254.1.1 }} counter name claims
         arp saddr ether != {host_mac} counter name claims
         icmpv6 type {{ nd-router-advert, nd-redirect }} counter name claims
         ip saddr {A} counter name own
         }}
         }}\n"
    ));
}

fn counted(ruleset: &str, name: &str) -> u64 {
    let words: Vec<&str> = ruleset.split_whitespace().collect();
    let at = words
        .windows(3)
        .position(|words| words == ["counter", name, "{"])
        .unwrap();
    words[at + 4].parse().unwrap()
}

/// What the host believes of its network: addresses, routes, and where neighbours are.
fn beliefs(host: &TestNamespace) -> Vec<String> {
    let mut all: Vec<String> = ["ip -o address", "ip route", "ip -6 route"]
        .iter()
        .map(|command| host.run(command))
        .collect();
    let permanent = host.run("ip neigh show nud permanent");
    let mut permanent: Vec<&str> = permanent.lines().collect();
    permanent.sort_unstable();
    all.push(permanent.join("\n"));
    let neighbours: BTreeMap<String, String> = host
        .run("ip neigh show")
        .lines()
        .filter(|line| !line.contains("dev cali1"))
        .filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            let (_, mac) = rest.split_once("lladdr ")?;
            let mac = mac.split_whitespace().next()?;
            // Namespaces' own link-local addresses come and go.
            (!address.starts_with("fe80")).then(|| (address.to_owned(), mac.to_owned()))
        })
        .collect();
    all.push(format!("{neighbours:?}"));
    all
}

fn mac_of(namespace: &TestNamespace, interface: &str) -> String {
    let text = namespace.run(&format!("ip -o link show {interface}"));
    let (_, mac) = text.split_once("link/ether ").unwrap();
    mac.split_whitespace().next().unwrap().to_owned()
}

/// The workload's interface, frame by frame.
struct Wire {
    socket: OwnedFd,
    interface: LinkAddr,
}

impl Wire {
    fn new(workload: &TestNamespace) -> Self {
        let open = || {
            let interface = getifaddrs()
                .unwrap()
                .filter(|found| found.interface_name == "eth0")
                .find_map(|found| found.address?.as_link_addr().copied());
            let raw = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK,
                None,
            );
            (raw.unwrap(), interface.unwrap())
        };
        let (socket, interface) = workload.namespace.run(open).unwrap();
        Self { socket, interface }
    }

    /// Whether the kernel of the workload has taken the frame.
    fn send(&self, frame: &[u8]) -> bool {
        let sent = sendto(
            self.socket.as_raw_fd(),
            frame,
            &self.interface,
            MsgFlags::empty(),
        );
        sent.is_ok()
    }
}

/// A frame with a source and a destination of somebody, and a protocol with or without sense.
fn frame(random: &mut TestRng) -> Vec<u8> {
    let source = match random.next_u32() % 4 {
        0 => mac(
            &[GATEWAY_MAC, "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"],
            random,
        ),
        1 => {
            let mut octets = [0; 6];
            random.fill_bytes(&mut octets);
            octets
        }
        _ => mac(&[OWN_MAC], random),
    };
    let destination = match random.next_u32() % 8 {
        0 => mac(
            &[
                "ff:ff:ff:ff:ff:ff",
                "33:33:00:00:00:01",
                "01:00:5e:00:00:01",
            ],
            random,
        ),
        1 => mac(&[OWN_MAC, "02:00:00:00:00:02"], random),
        _ => mac(&[GATEWAY_MAC], random),
    };
    let mut frame = [destination, source].concat();
    // Tags of VLANs, of either kind and nested.
    for _ in 0..[0, 0, 0, 0, 0, 0, 1, 2][random.next_u32() as usize % 8] {
        let kind: u16 = [0x8100, 0x88a8][random.next_u32() as usize % 2];
        frame.extend(kind.to_be_bytes());
        frame.extend([0, (random.next_u32() % 4) as u8]);
    }
    let pick = |of: &[&str], random: &mut TestRng| -> IpAddr {
        of[random.next_u32() as usize % of.len()].parse().unwrap()
    };
    let (kind, payload): (u16, _) = match random.next_u32() % 16 {
        0..=5 => (0x0800, {
            let to = pick(&[B, NET, HOST], random);
            with_checksum(fuzzed(random, to))
        }),
        6..=8 => (0x86dd, fuzzed(random, B6.parse().unwrap())),
        9 => (
            0x0800,
            echo(pick(&[A, A, B, NET], random), pick(&[B, NET, HOST], random)),
        ),
        10 | 11 => (0x86dd, discovery(random)),
        12 | 13 => (0x0806, arp(random)),
        _ => {
            let mut garbage = vec![0; (random.next_u32() % 200) as usize];
            random.fill_bytes(&mut garbage);
            let kinds = [
                0x0800, 0x86dd, 0x0806, 0x8035, 0x8847, 0x8863, 0x88cc, 0x0060,
            ];
            let any = (random.next_u32() & 0xffff) as u16;
            (
                *kinds.get(random.next_u32() as usize % 10).unwrap_or(&any),
                garbage,
            )
        }
    };
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn with_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A ping that nothing is wrong with, but perhaps its source.
fn echo(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else {
        panic!("{from} {to}");
    };
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend([from.octets(), to.octets()].concat());
    let mut packet = with_checksum(packet);
    let mut body = vec![8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    packet
}

/// ARP (RFC 826): who has, or claims to have, one of a few addresses. Few, so that the neighbour table that all
/// namespaces of the machine share does not overflow.
fn arp(random: &mut TestRng) -> Vec<u8> {
    let claims = [A, B, HOST, NET, "169.254.1.1", "10.65.0.9", "0.0.0.0"];
    let mut address = || -> [u8; 4] {
        let text = claims[random.next_u32() as usize % claims.len()];
        text.parse::<Ipv4Addr>().unwrap().octets()
    };
    let (sender, target) = (address(), address());
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1 + (random.next_u32() % 2) as u8];
    packet.extend(mac(&[OWN_MAC, OWN_MAC, "02:00:00:00:00:66"], random));
    packet.extend(sender);
    packet.extend(mac(&[GATEWAY_MAC, "00:00:00:00:00:00"], random));
    packet.extend(target);
    packet
}

/// Neighbour discovery (RFC 4861) with a valid checksum: solicitations, advertisements, what routers send.
fn discovery(random: &mut TestRng) -> Vec<u8> {
    let addresses = [A6, B6, "fe80::1", "fe80::ecee:eeff:feee:eeee", "fd00:65::9"];
    let mut address = || -> [u8; 16] {
        let text = addresses[random.next_u32() as usize % addresses.len()];
        text.parse::<Ipv6Addr>().unwrap().octets()
    };
    let (source, target) = (address(), address());
    let all_nodes: Ipv6Addr = "ff02::1".parse().unwrap();
    let gateway: Ipv6Addr = "fe80::ecee:eeff:feee:eeee".parse().unwrap();
    let destination = [all_nodes, gateway][random.next_u32() as usize % 2].octets();
    let kind = 133 + (random.next_u32() % 5) as u8;
    // Override and solicited, or a router's lifetime.
    let mut body = vec![kind, 0, 0, 0, 0x60, 0, 7, 8];
    if kind == 134 {
        body.extend([0; 8]);
        // A prefix (RFC 4861, 4.6.2) for everybody's address.
        body.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    body.extend(target);
    if kind == 137 {
        body.extend(source);
    }
    // The link-layer address of source or target.
    body.extend([if kind == 136 { 2 } else { 1 }, 1]);
    body.extend(mac(&[OWN_MAC, "02:00:00:00:00:66"], random));
    let length = u16::try_from(body.len()).unwrap();
    let mut pseudo = [source, destination].concat();
    pseudo.extend([0, 0]);
    pseudo.extend(length.to_be_bytes());
    pseudo.extend([0, 0, 0, 58]);
    let sum = checksum(&[pseudo.as_slice(), &body].concat());
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([58, 255]);
    packet.extend([source, destination].concat());
    packet.extend(body);
    packet
}

fn mac(of: &[&str], random: &mut TestRng) -> [u8; 6] {
    let text = of[random.next_u32() as usize % of.len()];
    let mut octets = [0; 6];
    for (octet, part) in octets.iter_mut().zip(text.split(':')) {
        *octet = u8::from_str_radix(part, 16).unwrap();
    }
    octets
}

const OWN_MAC: &str = "02:00:00:00:00:01";
const GATEWAY_MAC: &str = "ee:ee:ee:ee:ee:ee";
