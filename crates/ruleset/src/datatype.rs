//! What the bytes of keys and values mean.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use margay_model::Family;

/// A type of nftables, as keys and fields have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DataType {
    /// An IPv4 address, 4 bytes.
    Ipv4,
    /// An IPv6 address, 16 bytes.
    Ipv6,
    /// An Ethernet address, 6 bytes.
    Mac,
    /// A transport protocol's number, 1 byte.
    Protocol,
    /// A port, 2 bytes, big-endian.
    Port,
    /// A number of ours, 4 bytes, in the machine's order; nftables calls it a mark.
    Mark,
    /// An interface's name, 16 bytes with NULs behind it.
    Interface,
    /// A state of connection tracking, one bit of 4 bytes in the machine's order.
    CtState,
    /// A type of ICMP, 1 byte.
    IcmpType,
    /// A code of ICMP, 1 byte.
    IcmpCode,
    /// A type of ICMPv6, 1 byte.
    Icmpv6Type,
    /// A code of ICMPv6, 1 byte.
    Icmpv6Code,
}

impl DataType {
    const ALL: [Self; 12] = [
        Self::Ipv4,
        Self::Ipv6,
        Self::Mac,
        Self::Protocol,
        Self::Port,
        Self::Mark,
        Self::Interface,
        Self::CtState,
        Self::IcmpType,
        Self::IcmpCode,
        Self::Icmpv6Type,
        Self::Icmpv6Code,
    ];

    /// The type of a [`DataType::number`].
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|data_type| data_type.number() == number)
    }

    /// An address of this family.
    #[must_use]
    pub fn address(family: Family) -> Self {
        match family {
            Family::V4 => Self::Ipv4,
            Family::V6 => Self::Ipv6,
        }
    }

    /// The number that programs use to print a set (`enum datatypes` of nftables). The kernel
    /// keeps it unread.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Mac => 9,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::IcmpType => 14,
            Self::Mark => 19,
            Self::CtState => 26,
            Self::Icmpv6Type => 29,
            Self::IcmpCode => 32,
            Self::Icmpv6Code => 33,
            Self::Interface => 41,
        }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Protocol
            | Self::IcmpType
            | Self::IcmpCode
            | Self::Icmpv6Type
            | Self::Icmpv6Code => 1,
            Self::Port => 2,
            Self::Ipv4 | Self::Mark | Self::CtState => 4,
            Self::Mac => 6,
            Self::Ipv6 | Self::Interface => 16,
        }
    }

    /// Its length in registers, which have 4 bytes each.
    #[must_use]
    pub fn padded(self) -> usize {
        self.length().next_multiple_of(4)
    }

    /// Whether its bytes are in the machine's order, not the network's.
    #[must_use]
    pub fn is_host_order(self) -> bool {
        matches!(self, Self::Mark | Self::CtState | Self::Interface)
    }

    /// Its name in nftables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_addr",
            Self::Ipv6 => "ipv6_addr",
            Self::Mac => "ether_addr",
            Self::Protocol => "inet_proto",
            Self::Port => "inet_service",
            Self::Mark => "mark",
            Self::Interface => "ifname",
            Self::CtState => "ct_state",
            Self::IcmpType => "icmp_type",
            Self::IcmpCode => "icmp_code",
            Self::Icmpv6Type => "icmpv6_type",
            Self::Icmpv6Code => "icmpv6_code",
        }
    }

    /// A value in nftables' words.
    #[must_use]
    pub fn render(self, value: &[u8]) -> String {
        match (self, value) {
            (Self::Ipv4, &[a, b, c, d]) => Ipv4Addr::new(a, b, c, d).to_string(),
            (Self::Ipv6, value) if value.len() == 16 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(value);
                Ipv6Addr::from(octets).to_string()
            }
            (Self::Mac, value) => {
                let octets: Vec<_> = value.iter().map(|octet| format!("{octet:02x}")).collect();
                octets.join(":")
            }
            (Self::Port, &[high, low]) => u16::from_be_bytes([high, low]).to_string(),
            (Self::Protocol, &[number]) => protocol_name(number),
            (Self::IcmpType | Self::IcmpCode | Self::Icmpv6Type | Self::Icmpv6Code, &[number]) => {
                number.to_string()
            }
            (Self::Mark, &[a, b, c, d]) => {
                format!("{:#010x}", u32::from_ne_bytes([a, b, c, d]))
            }
            (Self::CtState, &[a, b, c, d]) => match u32::from_ne_bytes([a, b, c, d]) {
                CT_INVALID => "invalid".to_owned(),
                CT_ESTABLISHED => "established".to_owned(),
                CT_RELATED => "related".to_owned(),
                CT_UNTRACKED => "untracked".to_owned(),
                other => format!("{other:#x}"),
            },
            (Self::Interface, value) => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                format!("\"{}\"", String::from_utf8_lossy(name))
            }
            (_, value) => value.iter().fold("0x".to_owned(), |mut text, byte| {
                // Writing to a string does not fail.
                let _ = write!(text, "{byte:02x}");
                text
            }),
        }
    }
}

/// An interface's name as keys hold it. Names have at most 15 bytes (`IFNAMSIZ`); what is longer
/// is cut and so names no interface.
#[must_use]
pub fn interface_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    bytes
}

fn protocol_name(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        136 => "udplite".to_owned(),
        other => other.to_string(),
    }
}

// include/net/netfilter/nf_conntrack_core.h and nf_conntrack_common.h: NF_CT_STATE_BIT.
pub(crate) const CT_INVALID: u32 = 1;
pub(crate) const CT_ESTABLISHED: u32 = 2;
pub(crate) const CT_RELATED: u32 = 4;
pub(crate) const CT_UNTRACKED: u32 = 64;
