//! What a rule says, in the words of nftables, and how the kernel is told.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::{Cidr, Family};

use crate::expression::{Expression, Limit, Operator, Reject};
use crate::{DataType, Verdict};

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Packets of a family only: needed before any field of that family.
    Family(Family),
    /// Packets whose field is this value, or is not.
    Is {
        /// The field.
        field: Field,
        /// The value, in the field's byte order.
        value: Box<[u8]>,
        /// Whether it must be another.
        negated: bool,
    },
    /// Packets whose field lies between two values, both included.
    Between {
        /// The field, in network byte order.
        field: Field,
        /// The lowest.
        first: Box<[u8]>,
        /// The highest.
        last: Box<[u8]>,
    },
    /// Packets with an address of a prefix, or of none.
    Prefix {
        /// Whose address.
        side: Side,
        /// The prefix.
        prefix: Cidr,
        /// Whether it must lie outside.
        negated: bool,
    },
    /// Packets of interfaces whose name begins so.
    Interface {
        /// Which of the packet's interfaces.
        field: Field,
        /// The beginning.
        prefix: String,
        /// Whether it must not begin so.
        negated: bool,
    },
    /// Packets whose fields are in a set, or are not.
    In {
        /// The fields.
        fields: Vec<Field>,
        /// The set.
        set: String,
        /// Whether they must not be in it.
        negated: bool,
    },
    /// What a map to verdicts says of the fields.
    Dispatch {
        /// The fields.
        fields: Vec<Field>,
        /// The map.
        map: String,
    },
    /// Packets whose mark has this value in the bits of a mask.
    Marked {
        /// The mask.
        mask: u32,
        /// The value.
        value: u32,
    },
    /// Sets the bits of a mask in the packet's mark.
    SetMark {
        /// The mask.
        mask: u32,
        /// The value.
        value: u32,
    },
    /// Counts.
    Counter,
    /// Tells a listener.
    Log {
        /// The group of `nfnetlink_log`.
        group: u16,
        /// What stands before; at most 127 bytes.
        prefix: String,
    },
    /// A limit on packets.
    Limit(Limit),
    /// Packets beyond so many connections.
    ConnectionsOver(u32),
    /// No connection tracking.
    Notrack,
    /// Source translation to the interface's address.
    Masquerade {
        /// The lowest and highest port.
        ports: Option<(u16, u16)>,
    },
    /// Source translation to an address.
    SourceNat {
        /// The address.
        address: IpAddr,
        /// The lowest and highest port.
        ports: Option<(u16, u16)>,
    },
    /// Destination translation to an address and port; the protocol must have been matched.
    DestinationNat {
        /// The address.
        address: IpAddr,
        /// The port.
        port: u16,
    },
    /// Refusal with an answer.
    Reject(Reject),
    /// The end.
    Verdict(Verdict),
}

/// Something of a packet that can be compared or looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The interface by which it came.
    InInterface,
    /// The interface by which it leaves.
    OutInterface,
    /// The transport protocol.
    Protocol,
    /// An address.
    Address(Side, Family),
    /// A port of TCP, UDP, SCTP and their like.
    Port(Side),
    /// The type of ICMP or ICMPv6.
    IcmpType(Family),
    /// The code of ICMP or ICMPv6.
    IcmpCode(Family),
    /// The Ethernet address of the sender; needs [`Field::EthernetIn`] before it.
    SourceMac,
    /// The type of the interface by which it came (`ARPHRD_*`).
    EthernetIn,
    /// What connection tracking says of it.
    CtState,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where packets come from.
    Source,
    /// Where packets go to.
    Destination,
}

impl Statement {
    /// A packet's field is this value.
    #[must_use]
    pub fn is(field: Field, value: impl AsRef<[u8]>) -> Self {
        Self::Is {
            field,
            value: value.as_ref().into(),
            negated: false,
        }
    }

    /// The transport protocol is this.
    #[must_use]
    pub fn protocol(number: u8) -> Self {
        Self::is(Field::Protocol, [number])
    }

    /// The fields are in a set.
    #[must_use]
    pub fn within(fields: impl Into<Vec<Field>>, set: &str) -> Self {
        Self::In {
            fields: fields.into(),
            set: set.to_owned(),
            negated: false,
        }
    }

    /// The fields are not in a set.
    #[must_use]
    pub fn without(fields: impl Into<Vec<Field>>, set: &str) -> Self {
        Self::In {
            fields: fields.into(),
            set: set.to_owned(),
            negated: true,
        }
    }

    /// What a map says of the fields.
    #[must_use]
    pub fn dispatch(fields: impl Into<Vec<Field>>, map: &str) -> Self {
        Self::Dispatch {
            fields: fields.into(),
            map: map.to_owned(),
        }
    }

    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Verdict(verdict) => verdict.chain(),
            _ => None,
        }
    }

    /// The sets and maps that it reads.
    #[must_use]
    pub fn sets(&self) -> Vec<&str> {
        match self {
            Self::In { set, .. } => vec![set],
            Self::Dispatch { map, .. } => vec![map],
            _ => Vec::new(),
        }
    }

    /// Appends the instructions that say the same to the kernel.
    pub fn lower(&self, to: &mut Vec<Expression>) {
        match self {
            Self::Family(family) => {
                to.push(meta(META_NFPROTO, 0));
                to.push(equal(&[nfproto(*family)]));
            }
            Self::Is {
                field,
                value,
                negated,
            } => {
                field.load(0, to);
                to.push(compare(Operator::equality(*negated), value));
            }
            Self::Between { field, first, last } => {
                field.load(0, to);
                to.push(compare(Operator::AtLeast, first));
                to.push(compare(Operator::AtMost, last));
            }
            Self::Prefix {
                side,
                prefix,
                negated,
            } => {
                let (family, network, mask) = octets(*prefix);
                Field::Address(*side, family).load(0, to);
                if mask.iter().any(|byte| *byte != 0xff) {
                    to.push(bitwise(&mask, &vec![0; mask.len()]));
                }
                to.push(compare(Operator::equality(*negated), &network));
            }
            Self::Interface {
                field,
                prefix,
                negated,
            } => {
                field.load(0, to);
                to.push(compare(Operator::equality(*negated), prefix.as_bytes()));
            }
            Self::In {
                fields,
                set,
                negated,
            } => {
                load(fields, 0, to);
                to.push(Expression::Lookup {
                    register: 0,
                    set: set.clone(),
                    negated: *negated,
                });
            }
            Self::Dispatch { fields, map } => {
                load(fields, 0, to);
                to.push(look_up(map, None));
            }
            Self::Marked { mask, value } => {
                to.push(meta(META_MARK, 0));
                to.push(bitwise(&mask.to_ne_bytes(), &[0; 4]));
                to.push(equal(&value.to_ne_bytes()));
            }
            Self::SetMark { mask, value } => {
                to.push(meta(META_MARK, 0));
                to.push(bitwise(&(!mask).to_ne_bytes(), &value.to_ne_bytes()));
                to.push(Expression::SetMeta {
                    key: META_MARK,
                    register: 0,
                });
            }
            Self::Counter => to.push(Expression::Counter),
            Self::Log { group, prefix } => to.push(Expression::Log {
                group: *group,
                prefix: prefix.clone(),
            }),
            Self::Limit(limit) => to.push(Expression::Limit(*limit)),
            Self::ConnectionsOver(count) => to.push(Expression::ConnectionsOver(*count)),
            Self::Notrack => to.push(Expression::Notrack),
            Self::Masquerade { ports } => {
                let ports = ports.map(|ports| load_ports(ports, 0, to));
                to.push(Expression::Masquerade { ports });
            }
            Self::DestinationNat { address, port } => {
                to.push(load_address(*address, 0));
                let value = port.to_be_bytes().into();
                to.push(Expression::Immediate { register: 4, value });
                to.push(Expression::DestinationNat {
                    family: nfproto(Family::of(*address)).into(),
                    address: 0,
                    port: 4,
                });
            }
            Self::SourceNat { address, ports } => {
                to.push(load_address(*address, 0));
                let ports = ports.map(|ports| load_ports(ports, 4, to));
                to.push(Expression::SourceNat {
                    family: nfproto(Family::of(*address)).into(),
                    address: 0,
                    ports,
                });
            }
            Self::Reject(reject) => to.push(Expression::Reject(*reject)),
            Self::Verdict(verdict) => to.push(Expression::Verdict(verdict.clone())),
        }
    }
}

impl Field {
    /// What its bytes mean; `None` for what is only compared.
    #[must_use]
    pub fn data_type(self) -> Option<DataType> {
        Some(match self {
            Self::InInterface | Self::OutInterface => DataType::Interface,
            Self::Protocol => DataType::Protocol,
            Self::Address(_, family) => DataType::address(family),
            Self::Port(_) => DataType::Port,
            Self::IcmpType(Family::V4) => DataType::IcmpType,
            Self::IcmpType(Family::V6) => DataType::Icmpv6Type,
            Self::IcmpCode(Family::V4) => DataType::IcmpCode,
            Self::IcmpCode(Family::V6) => DataType::Icmpv6Code,
            Self::SourceMac => DataType::Mac,
            Self::CtState => DataType::CtState,
            Self::EthernetIn => return None,
        })
    }

    fn load(self, register: u32, to: &mut Vec<Expression>) {
        let payload = |base, offset, length| Expression::Payload {
            base,
            offset,
            length,
            register,
        };
        to.push(match self {
            Self::InInterface => meta(META_IIFNAME, register),
            Self::OutInterface => meta(META_OIFNAME, register),
            Self::EthernetIn => meta(META_IIFTYPE, register),
            Self::Protocol => meta(META_L4PROTO, register),
            Self::Address(Side::Source, Family::V4) => payload(NETWORK_HEADER, 12, 4),
            Self::Address(Side::Destination, Family::V4) => payload(NETWORK_HEADER, 16, 4),
            Self::Address(Side::Source, Family::V6) => payload(NETWORK_HEADER, 8, 16),
            Self::Address(Side::Destination, Family::V6) => payload(NETWORK_HEADER, 24, 16),
            Self::Port(Side::Source) => payload(TRANSPORT_HEADER, 0, 2),
            Self::Port(Side::Destination) => payload(TRANSPORT_HEADER, 2, 2),
            Self::IcmpType(_) => payload(TRANSPORT_HEADER, 0, 1),
            Self::IcmpCode(_) => payload(TRANSPORT_HEADER, 1, 1),
            Self::SourceMac => payload(LINK_HEADER, 6, 6),
            Self::CtState => Expression::Ct {
                key: CT_STATE,
                register,
            },
        });
    }
}

impl Operator {
    fn equality(negated: bool) -> Self {
        if negated { Self::NotEqual } else { Self::Equal }
    }
}

/// Loads fields into registers one behind the other.
fn load(fields: &[Field], mut register: u32, to: &mut Vec<Expression>) {
    for field in fields {
        field.load(register, to);
        let bytes = field.data_type().map_or(4, DataType::padded);
        register += u32::try_from(bytes / 4).unwrap_or_default();
    }
}

/// Loads the ends of a range of ports, each into a register that nft uses too.
fn load_address(address: IpAddr, register: u32) -> Expression {
    let value: Box<[u8]> = match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    };
    Expression::Immediate { register, value }
}

fn load_ports(ports: (u16, u16), register: u32, to: &mut Vec<Expression>) -> (u32, u32) {
    let (low, high) = (register, register + 4);
    for (register, port) in [(low, ports.0), (high, ports.1)] {
        let value = port.to_be_bytes().into();
        to.push(Expression::Immediate { register, value });
    }
    (low, high)
}

/// `NFPROTO_*`.
pub(crate) fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

fn octets(prefix: Cidr) -> (Family, Vec<u8>, Vec<u8>) {
    match prefix.network() {
        IpNetwork::V4(v4) => (
            Family::V4,
            v4.network().octets().into(),
            v4.mask().octets().into(),
        ),
        IpNetwork::V6(v6) => (
            Family::V6,
            v6.network().octets().into(),
            v6.mask().octets().into(),
        ),
    }
}

fn meta(key: u32, register: u32) -> Expression {
    Expression::Meta { key, register }
}

fn equal(value: &[u8]) -> Expression {
    compare(Operator::Equal, value)
}

fn compare(operator: Operator, value: &[u8]) -> Expression {
    Expression::Compare {
        register: 0,
        operator,
        value: value.into(),
    }
}

fn bitwise(mask: &[u8], xor: &[u8]) -> Expression {
    Expression::Bitwise {
        register: 0,
        mask: mask.into(),
        xor: xor.into(),
    }
}

fn look_up(map: &str, to: Option<u32>) -> Expression {
    Expression::Map {
        register: 0,
        set: map.to_owned(),
        to,
    }
}

// linux/netfilter/nf_tables.h
const META_MARK: u32 = 3;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_IIFTYPE: u32 = 8;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const LINK_HEADER: u32 = 0;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const CT_STATE: u32 = 0;
