//! Whatever a workload's raw socket sends, nothing passes with a foreign address.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use margay_policy::Delta;
use margay_ruleset::compile::{EndpointToHost, Settings};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use proptest::prelude::Rng;
use proptest::test_runner::TestRng;

use crate::chance::{random_of, variable};
use crate::lab::{A, A6, B, B6, HOST, Lab, NET};

/// `MARGAY_FUZZED_PACKETS` asks for more, `MARGAY_FUZZ_SEED` for others.
#[test]
fn fuzzed_packets_leave_with_the_workloads_addresses_only() {
    let count = variable("MARGAY_FUZZED_PACKETS", 100_000);
    let seed = variable("MARGAY_FUZZ_SEED", u64::from(std::process::id()));
    eprintln!("MARGAY_FUZZ_SEED={seed} MARGAY_FUZZED_PACKETS={count}");
    let mut random = random_of(seed);
    let mut lab = Lab::with(Settings {
        endpoint_to_host: EndpointToHost::Accept,
        ..Settings::default()
    });
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    // Behind all of ours, another table counts what has passed.
    // The host itself may hear of neighbours from addresses of the link.
    let nd = "ip6 saddr { ::, fe80::/10 } icmpv6 type { 131, 132, 133, 135, 136, 143 } accept";
    let rules = format!(
        "iifname != \"cali1\" accept
         ip saddr != {A} counter name foreign
         ip6 saddr != {A6} counter name foreign
         icmpv6 type {{ nd-router-advert, nd-redirect }} counter name router\n"
    );
    lab.host.nft(&format!(
        "table inet judge {{
         counter foreign {{ }}
         counter router {{ }}
         counter tunnel {{ }}
         counter own {{ }}
         chain out {{ type filter hook forward priority 300; policy accept;
         {rules}
         ip protocol ipencap counter name tunnel
         udp dport 4789 counter name tunnel
         counter name own
         }}
         chain in {{ type filter hook input priority 300; policy accept;
         {nd}
         {rules}
         }}
         }}\n"
    ));
    let raw = |family| {
        let open = || {
            socket(
                family,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK,
                SockProtocol::Raw,
            )
        };
        lab.a.namespace.run(open).unwrap().unwrap()
    };
    let (v4, v6) = (raw(AddressFamily::Inet), raw(AddressFamily::Inet6));
    let mut sent = 0;
    for _ in 0..count {
        let is_v4 = random.next_u32().is_multiple_of(2);
        let to: IpAddr = match (is_v4, random.next_u32() % 3) {
            (true, 0) => B,
            (true, 1) => NET,
            (true, _) => HOST,
            (false, _) => B6,
        }
        .parse()
        .unwrap();
        let packet = fuzzed(&mut random, to);
        let socket = if is_v4 { &v4 } else { &v6 };
        let to: SockaddrStorage = SocketAddr::new(to, 0).into();
        // The kernel of the workload refuses some of them.
        let sending = sendto(socket.as_raw_fd(), &packet, &to, MsgFlags::empty());
        sent += u64::from(sending.is_ok());
    }
    assert!(sent > count / 2, "{sent} of {count}");
    let counted = |name: &str| {
        let text = lab.host.run(&format!("nft list counter inet judge {name}"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse::<u64>().unwrap()
    };
    for name in ["foreign", "router", "tunnel"] {
        let seen = lab.host.run("nft list table inet judge");
        assert_eq!(counted(name), 0, "{name}, seed {seed}: {seen}");
    }
    assert!(counted("own") > 0, "nothing has been decided");
    drop((v4, v6));
    assert!(lab.counted("spoofed source address") > 0);
}

/// A packet of random bytes, with a source that is more often than not somebody's.
pub(crate) fn fuzzed(random: &mut TestRng, to: IpAddr) -> Vec<u8> {
    let mut body = vec![0; 8 + (random.next_u32() % 64) as usize];
    random.fill_bytes(&mut body);
    let protocols = [1, 2, 4, 6, 17, 17, 41, 47, 58, 58, 132, body[0]];
    let protocol = protocols[random.next_u32() as usize % protocols.len()];
    match (protocol, random.next_u32() % 2) {
        (17, 0) => body[2..4].copy_from_slice(&4789_u16.to_be_bytes()),
        (58, 0) => body[0] = 133 + (random.next_u32() % 5) as u8,
        _ => {}
    }
    let length = u16::try_from(body.len()).unwrap();
    let mut packet = Vec::new();
    match to {
        IpAddr::V4(to) => {
            let mut source = [0; 4];
            random.fill_bytes(&mut source);
            let known = [A, A, B, HOST, NET, "169.254.1.1", "127.0.0.1"];
            if let Some(known) = known.get(random.next_u32() as usize % 10) {
                source = known.parse::<std::net::Ipv4Addr>().unwrap().octets();
            }
            let mut header = [0; 8];
            random.fill_bytes(&mut header);
            packet.extend([0x45, header[0]]);
            packet.extend((20 + length).to_be_bytes());
            packet.extend([header[1], header[2], header[3] & 0x7f, header[4]]);
            packet.extend([header[5] | 2, protocol, 0, 0]);
            packet.extend(source);
            packet.extend(to.octets());
        }
        IpAddr::V6(to) => {
            let mut source = [0; 16];
            random.fill_bytes(&mut source);
            let known = [
                A6,
                A6,
                B6,
                "::",
                "::1",
                "fe80::ecee:eeff:feee:eeee",
                "ff02::1",
            ];
            if let Some(known) = known.get(random.next_u32() as usize % 10) {
                source = known.parse::<std::net::Ipv6Addr>().unwrap().octets();
            }
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, 255]);
            packet.extend(source);
            packet.extend(to.octets());
        }
    }
    packet.extend(body);
    packet
}
