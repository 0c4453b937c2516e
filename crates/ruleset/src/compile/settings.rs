//! What the compilation has to know beside policy.

use std::net::IpAddr;

use margay_model::Cidr;
use margay_policy::Failsafes;

/// Choices of the cluster's operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The table's name.
    pub table: String,
    /// Beginnings of the names of interfaces that lead to workloads (`interfacePrefix`).
    pub workload_prefixes: Vec<String>,
    /// What becomes of packets from a workload to its host that policy allows
    /// (`defaultEndpointToHostAction`).
    pub endpoint_to_host: EndpointToHost,
    /// How packets are denied (`nftablesFilterDenyAction`).
    pub deny: Deny,
    /// Whether packets that belong to no connection and begin none are dropped
    /// (`disableConntrackInvalidCheck` is the opposite).
    pub drop_invalid: bool,
    /// Two bits of the packet's mark that nobody else uses (`nftablesMarkMask`).
    pub marks: Marks,
    /// How `Log` is done.
    pub log: Log,
    /// Whether workloads may send IP in IP (`allowIPIPPacketsFromWorkloads`).
    pub allow_ipip: bool,
    /// Whether workloads may send VXLAN (`allowVXLANPacketsFromWorkloads`).
    pub allow_vxlan: bool,
    /// The port of VXLAN (`vxlanPort`).
    pub vxlan_port: u16,
    /// The address that workloads have as IPv4 gateway, and nobody bears.
    pub gateway: Option<std::net::Ipv4Addr>,
    /// Ports that no policy can close on host endpoints.
    pub failsafes: Failsafes,
    /// A tier whose policies only allow, by selectors and ports, becomes a lookup when they have
    /// more rules than this together.
    pub lookup_above: usize,
}

/// What becomes of packets from a workload to its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointToHost {
    /// They are dropped.
    Drop,
    /// They are accepted, as far as we decide.
    Accept,
}

/// How packets are denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    /// In silence.
    Drop,
    /// With an answer.
    Reject,
}

/// Bits of the packet's mark, each one bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// A rule has passed the packet to the next tier.
    pub pass: u32,
    /// Policy before destination translation has accepted the packet.
    pub accepted: u32,
}

/// How `Log` is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The group of `nfnetlink_log` that the agent listens to.
    pub group: u16,
    /// Logs a minute for each rule, and at once (`logActionRateLimit`, `logActionRateLimitBurst`).
    pub limit: Option<(u64, u32)>,
    /// Whether every denial is logged too, within the same limit, or else one of our own.
    pub denials: bool,
}

/// What the node is at this moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its interfaces that lead to no workload, without `lo`, and their addresses.
    pub interfaces: Vec<(String, Vec<IpAddr>)>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// How sources are translated where pools ask for it.
    pub nat: Nat,
    /// The other nodes, to and from which VXLAN passes whatever policy host endpoints have.
    pub tunnel_peers: Vec<IpAddr>,
}

/// A pool of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Its addresses.
    pub cidr: Cidr,
    /// Whether sources from it are translated on their way out of all pools (`natOutgoing`).
    pub nat_outgoing: bool,
}

/// How sources are translated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nat {
    /// The lowest and highest port (`natPortRange`).
    pub ports: Option<(u16, u16)>,
    /// The address per family in place of the interface's (`natOutgoingAddress`).
    pub addresses: Vec<IpAddr>,
    /// Destinations beside the pools for which nothing is translated
    /// (`natOutgoingExclusions: IPPoolsAndHostIPs`).
    pub excluded: Vec<Cidr>,
}

/// Seen from the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To it.
    Ingress,
    /// From it.
    Egress,
}

impl Direction {
    pub(super) fn letter(self) -> char {
        match self {
            Self::Ingress => 'i',
            Self::Egress => 'o',
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: "margay".to_owned(),
            workload_prefixes: vec!["cali".to_owned()],
            endpoint_to_host: EndpointToHost::Drop,
            deny: Deny::Drop,
            drop_invalid: true,
            marks: Marks {
                pass: 0x0002_0000,
                accepted: 0x0001_0000,
            },
            log: Log {
                group: 1,
                limit: None,
                denials: false,
            },
            allow_ipip: false,
            allow_vxlan: false,
            vxlan_port: 4789,
            gateway: Some(std::net::Ipv4Addr::new(169, 254, 1, 1)),
            failsafes: Failsafes::default(),
            lookup_above: 16,
        }
    }
}

pub(super) const ICMP: u8 = 1;
pub(super) const IPIP: u8 = 4;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMPV6: u8 = 58;
pub(super) const SCTP: u8 = 132;
