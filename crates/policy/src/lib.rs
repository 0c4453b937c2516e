//! From resources to each endpoint's ordered rules and sets, in increments.
//!
//! Values in, values out: nothing here does I/O, reads a clock or knows how rules are put in force. The
//! result is a [`Desired`] state of one node, told as a stream of [`Delta`]s.
//!
//! # What a packet meets
//!
//! A packet that leaves a workload is decided by the workload's [egress](Chains::egress), one that
//! reaches it by its [ingress](Chains::ingress); both have to accept it. A direction is decided so:
//!
//! 1. Its [`Tier`]s, in order. The policies of a tier are tried in order, and their [`Rule`]s in order.
//!    The first rule that matches decides: `Allow` accepts the packet for this direction and ends the
//!    evaluation of all tiers, `Deny` drops it, `Pass` goes on with the next tier, `Log` logs it and goes
//!    on with the next rule. Where no rule of a tier's policies matches, the tier's
//!    [`default`](Tier::default) decides: `Deny` drops, `Pass` goes on with the next tier.
//!    Only tiers that have a policy for the direction are listed.
//! 2. The rules of its [`profiles`](Workload::profiles), in order; `Pass` goes on with the next profile.
//! 3. Where nothing has decided, the packet is dropped.
//!
//! A rule matches if everything it says holds; what it does not say, it does not ask. Within a list one
//! has to hold, within a negated list none:
//!
//! - `family`, `protocol`, `not_protocol`: the packet's family and protocol number.
//! - `icmp`, `not_icmp`: the packet is ICMP of its family (1 in IPv4, 58 in IPv6), and has this type and
//!   code, or any other.
//! - `nets`, `not_nets`: prefixes, one of which, none of which, holds the address.
//! - `sets`, `not_sets`: every one of which, none of which, holds the address.
//! - `ports` and `named_ports` together: one of the ranges holds the port, or one of the sets holds
//!   (address, protocol, port) of the side.
//! - `not_ports` and `not_named_ports` together: none of them does.
//! - `services`: the set holds (address, protocol, port).
//!
//! [`Host`] says how a host endpoint's chains differ.
//!
//! # Sets
//!
//! A [`SetId`] is a hash of what the set stands for, so that equal selectors share one set. A set has
//! members of both families, and prefixes that may overlap each other.

mod calculator;
mod compile;
mod condition;
pub mod evaluator;
mod failsafe;
mod item;
mod judgement;
mod kubernetes;
pub mod output;
mod spec;

pub use calculator::{Calculator, ServicePort};
pub use condition::{Condition, Problem};
pub use failsafe::{Failsafe, FailsafeError, Failsafes};
pub use judgement::judge;
pub use output::{
    Action, Chains, Delta, Desired, EndpointId, Host, HostInterface, Icmp, Member, Policy,
    PolicyId, PolicyKind, PortRange, Profile, Rule, Set, SetChange, SetId, SetKind, Side, Tier,
    TierDefault, Workload,
};
