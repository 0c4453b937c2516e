//! Messages of `nfnetlink_log` (`linux/netfilter/nfnetlink_log.h`), and the headers of the packets in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netfilter::wire::{Encoder, Header, Message, NLM_F_ACK, NLM_F_REQUEST};

/// A packet that a rule has logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// What the rule puts before it; at most 127 bytes.
    pub prefix: String,
    /// The index of the interface by which it came.
    pub in_interface: Option<u32>,
    /// The index of the interface by which it leaves.
    pub out_interface: Option<u32>,
    /// The sender.
    pub source: IpAddr,
    /// The receiver.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// What of the transport protocol's header is known.
    pub transport: Transport,
}

/// What of a transport protocol's header is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// The protocol has ports.
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// ICMP or ICMPv6.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// Another protocol, a later fragment, or a packet that is cut short.
    Unknown,
}

/// A message that is told of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The number of the packet among those of the group.
    pub number: Option<u32>,
    /// The packet; `None` where it is not one of IP.
    pub packet: Option<Packet>,
}

/// Asks for the packets of a group: their first bytes, gathered for a moment, and numbered.
pub fn bind(to: &mut Encoder, sequence: u32, group: u16) {
    let header = Header {
        kind: NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG,
        flags: NLM_F_REQUEST | NLM_F_ACK,
        sequence,
        family: 0,
        resource: group,
    };
    to.message(header, |message| {
        message.u8(NFULA_CFG_CMD, NFULNL_CFG_CMD_BIND);
        let [a, b, c, d] = COPIED.to_be_bytes();
        message.put(NFULA_CFG_MODE, &[a, b, c, d, NFULNL_COPY_PACKET, 0]);
        message.be32(NFULA_CFG_NLBUFSIZ, GATHERED_BYTES);
        message.be32(NFULA_CFG_TIMEOUT, GATHERED_FOR);
        message.be32(NFULA_CFG_QTHRESH, GATHERED);
        message.be16(NFULA_CFG_FLAGS, NFULNL_CFG_F_SEQ);
    });
}

/// Reads a message; `None` if it is not about a packet.
pub fn decode(message: Message<'_>) -> Option<Found> {
    if message.kind != NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET {
        return None;
    }
    let attributes = message.attributes();
    let packet = attributes.find(NFULA_PAYLOAD).and_then(headers);
    Some(Found {
        number: attributes.be32(NFULA_SEQ),
        packet: packet.map(|headers| Packet {
            prefix: attributes.text(NFULA_PREFIX).unwrap_or_default(),
            in_interface: attributes.be32(NFULA_IFINDEX_INDEV),
            out_interface: attributes.be32(NFULA_IFINDEX_OUTDEV),
            ..headers
        }),
    })
}

/// A packet's headers, without what only the message says.
fn headers(bytes: &[u8]) -> Option<Packet> {
    match bytes.first()? >> 4 {
        4 => v4(bytes),
        6 => v6(bytes),
        _ => None,
    }
}

/// RFC 791, section 3.1.
fn v4(bytes: &[u8]) -> Option<Packet> {
    let header = bytes.get(..20)?;
    let length = usize::from(header[0] & 0xf) * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    let protocol = header[9];
    let behind = bytes.get(length.max(20)..).filter(|_| offset == 0);
    let address = |at: usize| {
        Some(Ipv4Addr::from(
            <[u8; 4]>::try_from(&header[at..at + 4]).ok()?,
        ))
    };
    Some(packet(address(12)?, address(16)?, protocol, behind))
}

/// RFC 8200, sections 3 and 4; RFC 4302, section 2.2.
fn v6(bytes: &[u8]) -> Option<Packet> {
    let header = bytes.get(..40)?;
    let address = |at: usize| {
        Some(Ipv6Addr::from(
            <[u8; 16]>::try_from(&header[at..at + 16]).ok()?,
        ))
    };
    let (source, destination) = (address(8)?, address(24)?);
    let (mut next, mut rest) = (header[6], bytes.get(40..));
    while let Some([following, length, ..]) = rest {
        let (length, later) = match next {
            HOP_BY_HOP | ROUTING | OPTIONS => (usize::from(*length) * 8 + 8, false),
            AUTHENTICATION => (usize::from(*length) * 4 + 8, false),
            FRAGMENT => {
                let offset = rest.and_then(|rest| rest.get(2..4));
                (
                    8,
                    offset.is_none_or(|offset| offset[0] != 0 || offset[1] & 0xf8 != 0),
                )
            }
            _ => break,
        };
        next = *following;
        rest = rest.and_then(|rest| rest.get(length..)).filter(|_| !later);
    }
    Some(packet(source, destination, next, rest))
}

fn packet(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    behind: Option<&[u8]>,
) -> Packet {
    let transport = match (protocol, behind) {
        (TCP | UDP | DCCP | SCTP | UDP_LITE, Some([a, b, c, d, ..])) => Transport::Ports {
            source: u16::from_be_bytes([*a, *b]),
            destination: u16::from_be_bytes([*c, *d]),
        },
        (ICMP | ICMPV6, Some([kind, code, ..])) => Transport::Icmp {
            kind: *kind,
            code: *code,
        },
        _ => Transport::Unknown,
    };
    Packet {
        prefix: String::new(),
        in_interface: None,
        out_interface: None,
        source: source.into(),
        destination: destination.into(),
        protocol,
        transport,
    }
}

// linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_log.h
const NFNL_SUBSYS_ULOG: u16 = 4;
const NFULNL_MSG_PACKET: u16 = 0;
const NFULNL_MSG_CONFIG: u16 = 1;
const NFULA_IFINDEX_INDEV: u16 = 4;
const NFULA_IFINDEX_OUTDEV: u16 = 5;
const NFULA_PAYLOAD: u16 = 9;
const NFULA_PREFIX: u16 = 10;
const NFULA_SEQ: u16 = 12;
const NFULA_CFG_CMD: u16 = 1;
const NFULA_CFG_MODE: u16 = 2;
const NFULA_CFG_NLBUFSIZ: u16 = 3;
const NFULA_CFG_TIMEOUT: u16 = 4;
const NFULA_CFG_QTHRESH: u16 = 5;
const NFULA_CFG_FLAGS: u16 = 6;
const NFULNL_CFG_CMD_BIND: u8 = 1;
const NFULNL_COPY_PACKET: u8 = 2;
const NFULNL_CFG_F_SEQ: u16 = 1;
/// Bytes of each packet: an IPv6 header, some behind it, and the transport's first.
const COPIED: u32 = 128;
/// The most bytes, packets and hundredths of a second for which packets are gathered.
const GATHERED_BYTES: u32 = 32 << 10;
const GATHERED: u32 = 64;
const GATHERED_FOR: u32 = 10;
// IANA, Protocol Numbers.
const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const OPTIONS: u8 = 60;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;
    use crate::netfilter::wire;

    /// A message as the kernel sends it: the headers, the interfaces, the prefix, a number, and a payload.
    fn message(payload: &str) -> Vec<u8> {
        let payload = bytes(payload);
        let mut attributes = bytes(
            "0800 0100 0800 0200              # NFULA_PACKET_HDR: IPv4, NF_INET_FORWARD
             0800 0a00 44697c00               # NFULA_PREFIX Di|
             0800 0400 00000007               # NFULA_IFINDEX_INDEV
             0800 0500 00000009               # NFULA_IFINDEX_OUTDEV
             0800 0c00 00000102               # NFULA_SEQ",
        );
        let length = u16::try_from(4 + payload.len()).unwrap();
        attributes.extend(length.to_le_bytes());
        attributes.extend([9, 0]);
        attributes.extend(&payload);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
        let total = u32::try_from(20 + attributes.len()).unwrap();
        let mut whole = total.to_le_bytes().to_vec();
        whole.extend(bytes("0004 0000 00000000 00000000  02 00 0001"));
        whole.extend(attributes);
        whole
    }

    fn bytes(text: &str) -> Vec<u8> {
        let fields = text.lines().filter_map(|line| line.split('#').next());
        let digits: Vec<char> = fields
            .flat_map(str::chars)
            .filter(|digit| !digit.is_whitespace())
            .collect();
        let pairs = digits.chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    fn read(payload: &str) -> Option<Packet> {
        let message = message(payload);
        let mut found = wire::messages(&message).map(decode);
        let found = found.next().unwrap().unwrap();
        assert_eq!(found.number, Some(0x102));
        found.packet
    }

    const TCP4: &str = "45 00 003c 1234 4000 40 06 0000 0a410002 0a410103
        d431 0050 00000000 00000000 a002 fa50 0000 0000";

    #[test]
    fn a_binding_asks_byte_by_byte() {
        let mut encoder = Encoder::default();
        bind(&mut encoder, 1, 1);
        let expected = bytes(
            "48000000 0104 0500 01000000 00000000  # 72 bytes, NFULNL_MSG_CONFIG, request with acknowledgement
             00 00 0001                            # group 1
             0500 0100 01 000000                   # NFULA_CFG_CMD: bind
             0a00 0200 00000080 02 00 0000         # NFULA_CFG_MODE: 128 bytes of packets
             0800 0300 00008000                    # NFULA_CFG_NLBUFSIZ
             0800 0400 0000000a                    # NFULA_CFG_TIMEOUT
             0800 0500 00000040                    # NFULA_CFG_QTHRESH
             0600 0600 0001 0000                   # NFULA_CFG_FLAGS: numbered",
        );
        assert_eq!(encoder.as_bytes(), expected);
    }

    #[test]
    fn packets_are_read() {
        let packet = read(TCP4).unwrap();
        assert_eq!(packet.prefix, "Di|");
        assert_eq!(
            (packet.in_interface, packet.out_interface),
            (Some(7), Some(9))
        );
        assert_eq!(packet.source.to_string(), "10.65.0.2");
        assert_eq!(packet.destination.to_string(), "10.65.1.3");
        assert_eq!(packet.protocol, 6);
        let ports = |source, destination| Transport::Ports {
            source,
            destination,
        };
        assert_eq!(packet.transport, ports(0xd431, 80));
        let v6 = |next: &str, behind: &str| {
            let addresses = "fd000010000000000000000000000001 fd000010000000000000000000000002";
            read(&format!("6000 0000 0040 {next} 40 {addresses} {behind}")).unwrap()
        };
        for (next, behind, protocol, transport) in [
            ("11", "0035 d431 0000 0000", 17, ports(53, 0xd431)),
            (
                "3a",
                "80 00 0000",
                58,
                Transport::Icmp { kind: 128, code: 0 },
            ),
            // Hop-by-hop options, then a first fragment, then TCP.
            (
                "00",
                "2c00 0000 00000000 0600 0001 00000001 0001 0002",
                6,
                ports(1, 2),
            ),
            // A later fragment.
            ("2c", "0600 0010 00000001 0001 0002", 6, Transport::Unknown),
            // Cut short.
            ("2c", "06", 44, Transport::Unknown),
            ("3b", "", 59, Transport::Unknown),
        ] {
            let packet = v6(next, behind);
            assert_eq!(
                (packet.protocol, packet.transport),
                (protocol, transport),
                "{next} {behind}"
            );
            assert_eq!(packet.destination.to_string(), "fd00:10::2");
        }
        // A later fragment, another protocol, and an option before the transport.
        let later = TCP4.replace("4000", "0001");
        assert_eq!(read(&later).unwrap().transport, Transport::Unknown);
        let gre = TCP4.replace("40 06", "40 2f");
        assert_eq!(read(&gre).unwrap().transport, Transport::Unknown);
        let options = TCP4
            .replace("45 00", "46 00")
            .replace("d431", "01010101 d431");
        assert_eq!(read(&options).unwrap().transport, ports(0xd431, 80));
    }

    #[test]
    fn what_is_no_packet_of_ip_is_passed_over() {
        assert_eq!(read("0001 0800 0604 0001"), None);
        assert_eq!(read(""), None);
        assert_eq!(read("45 00 003c"), None);
        let whole = message(TCP4);
        // Whatever a byte is changed to, what is read is read to its end.
        for at in 0..whole.len() {
            for value in 0..=u8::MAX {
                let mut changed = whole.clone();
                changed[at] = value;
                let found = wire::messages(&changed).filter_map(decode).count();
                assert!(found <= 1, "{at} {value}");
            }
        }
        for length in 0..whole.len() {
            // Nothing is made of a message that is cut short.
            assert_eq!(
                wire::messages(&whole[..length]).filter_map(decode).count(),
                0
            );
        }
    }
}
