//! What the kernel runs: the instructions of a rule (`linux/netfilter/nf_tables.h`).

use crate::Verdict;

/// An instruction. Registers have 4 bytes each and are counted from 0; a long value takes several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// Loads what is known of the packet (`NFT_META_*`).
    Meta {
        /// What.
        key: u32,
        /// Where to.
        register: u32,
    },
    /// Sets what is known of the packet.
    SetMeta {
        /// What.
        key: u32,
        /// Where from.
        register: u32,
    },
    /// Loads bytes of the packet.
    Payload {
        /// The header (`NFT_PAYLOAD_*_HEADER`).
        base: u32,
        /// Where in it.
        offset: u32,
        /// How many.
        length: u32,
        /// Where to.
        register: u32,
    },
    /// Loads what connection tracking knows (`NFT_CT_*`).
    Ct {
        /// What.
        key: u32,
        /// Where to.
        register: u32,
    },
    /// Goes on only if a register compares so.
    Compare {
        /// Where from.
        register: u32,
        /// How.
        operator: Operator,
        /// With what.
        value: Box<[u8]>,
    },
    /// `register = register & mask ^ xor`.
    Bitwise {
        /// From where and where to.
        register: u32,
        /// The bits that stay.
        mask: Box<[u8]>,
        /// The bits that turn.
        xor: Box<[u8]>,
    },
    /// Goes on only if a key is in a set, or not in it.
    Lookup {
        /// Where the key is.
        register: u32,
        /// The set.
        set: String,
        /// Whether the key must not be in it.
        negated: bool,
    },
    /// Goes on with what a map says; with the next rule if it says nothing.
    Map {
        /// Where the key is.
        register: u32,
        /// The map.
        set: String,
        /// Where its value goes; `None` for a verdict.
        to: Option<u32>,
    },
    /// Loads a constant.
    Immediate {
        /// Where to.
        register: u32,
        /// The constant.
        value: Box<[u8]>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Counts packets and bytes. What it has counted is no part of it.
    Counter,
    /// Tells a listener of `nfnetlink_log`.
    Log {
        /// The group.
        group: u16,
        /// What stands before; at most 127 bytes.
        prefix: String,
    },
    /// Goes on for so many packets in a second or minute.
    Limit(Limit),
    /// Goes on if more connections than this have come here.
    ConnectionsOver(u32),
    /// Keeps the packet from connection tracking.
    Notrack,
    /// Gives the packet the address of the interface by which it leaves.
    Masquerade {
        /// The lowest and highest port, in registers.
        ports: Option<(u32, u32)>,
    },
    /// Gives the packet another source.
    SourceNat {
        /// `NFPROTO_*`.
        family: u32,
        /// The register of the address.
        address: u32,
        /// The registers of the lowest and highest port.
        ports: Option<(u32, u32)>,
    },
    /// Gives the packet another destination.
    DestinationNat {
        /// `NFPROTO_*`.
        family: u32,
        /// The register of the address.
        address: u32,
        /// The register of the port.
        port: u32,
    },
    /// Answers and drops.
    Reject(Reject),
    /// An instruction that is none of ours.
    Foreign(String),
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// It is the same.
    Equal,
    /// It is another one.
    NotEqual,
    /// It is not above.
    AtMost,
    /// It is not below.
    AtLeast,
}

/// A limit on packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Packets in the time.
    pub rate: u64,
    /// The time in seconds.
    pub seconds: u64,
    /// Packets at once.
    pub burst: u32,
    /// Whether the rule is for the packets beyond the limit.
    pub over: bool,
}

/// How a packet is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// ICMP of the packet's family, administratively prohibited.
    Prohibited,
    /// A TCP reset.
    TcpReset,
}
