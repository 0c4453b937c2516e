//! What is calculated: plain values that can be compared, printed and serialised.

mod change;
mod id;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::resource::endpoint::QosControls;
use margay_model::{Cidr, Family};
use serde::{Deserialize, Serialize};

pub use change::{Delta, Desired, SetChange};
pub use id::{EndpointId, IdError, PolicyId, PolicyKind, SetId};

/// Addresses, or ports of addresses, that rules refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    /// What members look like.
    pub kind: SetKind,
    /// What the set stands for, for people: a selector, a port's name and a selector, or a service.
    pub label: String,
    /// Its members, of both families. Prefixes may overlap.
    pub members: BTreeSet<Member>,
}

/// What the members of a set look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SetKind {
    /// Prefixes, most of which hold one address.
    Nets,
    /// Ports of addresses.
    Ports,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Member {
    /// Of [`SetKind::Nets`]: the addresses of a prefix; one address is a prefix of /32 or /128.
    Net(Cidr),
    /// Of [`SetKind::Ports`]: a port of an address.
    Port {
        /// The address.
        address: IpAddr,
        /// The protocol number (IANA).
        protocol: u8,
        /// The port.
        port: u16,
    },
}

/// The rules of a policy that is in force on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The tier it belongs to.
    pub tier: String,
    /// Rules for traffic to the endpoint; empty also where the policy does not decide on it.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint; empty also where the policy does not decide on it.
    pub egress: Vec<Rule>,
}

/// The rules of a profile that endpoints of this node have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Rules for traffic to the endpoint.
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    pub egress: Vec<Rule>,
}

/// What to do with packets of a description; see the crate's page for what matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its place in the resource's list, from 0. Rules that can match nothing are left out, so that the
    /// places of a policy's rules may have gaps.
    pub index: usize,
    /// What to do.
    pub action: Action,
    /// Packets of this family only.
    pub family: Option<Family>,
    /// The protocol number (IANA).
    pub protocol: Option<u8>,
    /// Any protocol number but this.
    pub not_protocol: Option<u8>,
    /// ICMP of this type and code.
    pub icmp: Option<Icmp>,
    /// ICMP of any other type or code.
    pub not_icmp: Option<Icmp>,
    /// Where the packet comes from.
    pub source: Side,
    /// Where the packet goes to.
    pub destination: Side,
    /// Notes of the rule's author, by name.
    pub annotations: BTreeMap<String, String>,
}

/// What a rule does with a packet it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Accepts it, and ends the evaluation of all tiers.
    Allow,
    /// Drops it.
    Deny,
    /// Goes on with the next tier, or with the profiles.
    Pass,
    /// Logs it and goes on with the next rule.
    Log,
}

/// ICMP type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Icmp {
    /// The type.
    pub kind: u8,
    /// The code; any when `None`.
    pub code: Option<u8>,
}

/// One side of a connection, as rules describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Prefixes, one of which holds the address.
    pub nets: Vec<Cidr>,
    /// Prefixes, none of which holds the address.
    pub not_nets: Vec<Cidr>,
    /// Sets of [`SetKind::Nets`], every one of which holds the address.
    pub sets: Vec<SetId>,
    /// Sets of [`SetKind::Nets`], none of which holds the address.
    pub not_sets: Vec<SetId>,
    /// Ranges, one of which holds the port, unless a named port does.
    pub ports: Vec<PortRange>,
    /// Sets of [`SetKind::Ports`], one of which holds address, protocol and port, unless a range does.
    pub named_ports: Vec<SetId>,
    /// Ranges, none of which holds the port.
    pub not_ports: Vec<PortRange>,
    /// Sets of [`SetKind::Ports`], none of which holds address, protocol and port.
    pub not_named_ports: Vec<SetId>,
    /// A set of [`SetKind::Ports`] that holds address, protocol and port.
    pub service: Option<SetId>,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest, not below `first`.
    pub last: u16,
}

impl PortRange {
    /// Whether the port lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

/// A tier as it stands in one direction of one endpoint; it has at least one policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// The policies that decide on this direction of the endpoint, in order.
    pub policies: Vec<PolicyId>,
    /// What happens where no rule of the policies matches.
    pub default: TierDefault,
}

/// What happens at the end of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TierDefault {
    /// The packet is dropped.
    Deny,
    /// The next tier decides, or the profiles.
    Pass,
}

/// The tiers of both directions, seen from the endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chains {
    /// For traffic to the endpoint: to a workload, or from the network to a host.
    pub ingress: Vec<Tier>,
    /// For traffic from the endpoint: from a workload, or from a host to the network.
    pub egress: Vec<Tier>,
}

/// A workload endpoint of this node.
///
/// The v3 data model has no administrative state: an endpoint that is here is up, and an interface
/// without an endpoint is to be dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// The host end's interface; no two workloads here have the same.
    pub interface: String,
    /// The workload's MAC address, in lower case.
    pub mac: Option<String>,
    /// The workload's addresses, sorted.
    pub addresses: Vec<IpAddr>,
    /// Prefixes that the workload may use as source beside its addresses
    /// (`allowSpoofedSourcePrefixes`), sorted.
    pub spoofable: Vec<Cidr>,
    /// The tiers.
    pub chains: Chains,
    /// Its profiles, in order. Each has an entry in [`Desired::profiles`], also where it is not in the
    /// store: then its rules deny.
    pub profiles: Vec<String>,
    /// Limits on its traffic.
    pub qos: Option<QosControls>,
    /// The tiers as they would be if every staged policy were put in force, where that differs. Never
    /// to be enforced: the staged policies among them have no entry in [`Desired::policies`].
    pub staged: Option<Chains>,
}

/// A host endpoint of this node.
///
/// Several host endpoints can claim an interface; [`Host::governs`] and [`Desired::host_of`]
/// say which one has it. Established connections are accepted first, except by `untracked`.
///
/// | chains | packets | failsafe ports | profiles | where nothing has decided |
/// |---|---|---|---|---|
/// | `untracked` | all, before connection tracking; `Allow` accepts without tracking | come first | no | goes on |
/// | `pre_dnat` | from the network, before destination translation | come first | no | goes on |
/// | `forward` | forwarded | no | no | accepted |
/// | `normal` | to and from the host's own processes | come first | yes | dropped |
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Which interfaces it claims.
    pub interface: HostInterface,
    /// The addresses its author expects there, sorted.
    pub addresses: Vec<IpAddr>,
    /// Policies for the host's own traffic.
    pub normal: Chains,
    /// Policies with `applyOnForward`, for forwarded traffic.
    pub forward: Chains,
    /// Policies with `preDNAT`; they decide on ingress only.
    pub pre_dnat: Vec<Tier>,
    /// Policies with `doNotTrack`. Always empty for [`HostInterface::Every`].
    pub untracked: Chains,
    /// Its profiles, in order; see [`Workload::profiles`].
    pub profiles: Vec<String>,
    /// The normal tiers as they would be if every staged policy were put in force, where that differs.
    pub staged: Option<Chains>,
}

/// Which interfaces a host endpoint claims.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HostInterface {
    /// The interface of this name.
    Named(String),
    /// Interfaces that bear one of its addresses.
    Addressed,
    /// `*`: all that lead to no workload and that no other host endpoint claims.
    Every,
}
