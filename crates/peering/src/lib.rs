//! From Calico's BGP resources to what a node's speaker is to do: sessions, policies, own routes.
//!
//! [`peering`] takes what the datastore says ([`Input`]) and gives the whole configuration of the
//! speaker of one node ([`Peering`]). Nothing here reads a store, a file or a clock. What makes no
//! sense is told as a [`Problem`] of the object, and the rest holds.
//!
//! The semantics are Calico's: the full mesh of nodes unless it is switched off, peers for all nodes,
//! for one, and by selectors, with the other half of a session made on the node that is chosen as a
//! peer; reflectors by the cluster id in a node's record; the direction of a session by the order of
//! both addresses as texts. One thing is stricter: of another node's routes only those are taken that
//! lie in a pool and come from the node to which the datastore gives them, or through a reflector.

mod configuration;
mod filter;
mod input;
mod policy;
mod routes;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroUsize;

use margay_bgp::{BGP_PORT, LocalRoute, SpeakerConfig};
use margay_model::Cidr;
use margay_model::scalar::AsNumber;
use serde::Serialize;

pub use input::{Endpoint, Input, Node, Pool};
pub use routes::{TAG_BLOCK, TAG_HOST, TAG_SERVICE};
pub use sessions::PeerType;

/// What a node's speaker is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Peering {
    /// The speaker's configuration; `None` where the node has no record or no address.
    pub speaker: Option<SpeakerConfig>,
    /// Where connections are awaited.
    pub listen: Listen,
    /// Of which type each peer is, by the name that the configuration gives it.
    pub types: BTreeMap<String, PeerType>,
    /// Own routes by prefix.
    pub routes: BTreeMap<Cidr, LocalRoute>,
    /// Gateways by which peers are reached that are on no common link.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// Addresses of this node's workloads with which it has sessions, each with the address that the node
    /// presents to it.
    pub workloads: BTreeMap<IpAddr, IpAddr>,
    /// Kernel priority of routes that peers announced, IPv4 and IPv6.
    pub priorities: (u32, u32),
    /// What makes no sense.
    pub problems: BTreeSet<Problem>,
}

/// Where connections are awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The TCP port.
    pub port: u16,
    /// Only on the node's own addresses; on all where it is false.
    pub own_addresses_only: bool,
    /// The addresses that workloads connect to, beside the node's own.
    pub to_workloads: BTreeSet<IpAddr>,
}

/// Something of an object that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The object: its kind and name.
    pub object: String,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.reason)
    }
}

/// The configuration of the speaker of `input.node`.
#[must_use]
pub fn peering(input: &Input<'_>) -> Peering {
    let mut problems = BTreeSet::new();
    let mut done = Peering {
        speaker: None,
        listen: configuration::listen(input),
        types: BTreeMap::new(),
        routes: BTreeMap::new(),
        gateways: BTreeMap::new(),
        workloads: BTreeMap::new(),
        priorities: configuration::priorities(input),
        problems: BTreeSet::new(),
    };
    let Some(own) = input.nodes.get(input.node) else {
        return done;
    };
    let Some(router_id) = router_id(own, input.node) else {
        return done;
    };
    let mut config = SpeakerConfig::new(input.as_number(own), router_id);
    config.cluster_id = own.cluster_id;
    config.address_v4 = own.v4;
    config.address_v6 = own.v6;
    config.multipath = MULTIPATH;
    configuration::problems(input, &mut problems);
    let policies = policy::Policies::new(input, &mut problems);
    for session in sessions::sessions(input, own, &policies, &mut problems) {
        done.types.insert(session.name.clone(), session.kind);
        if let Some(gateway) = session.gateway {
            done.gateways.insert(session.config.address, gateway);
        }
        if let (PeerType::Workload, Some(presented)) = (session.kind, session.config.source) {
            done.listen.to_workloads.insert(presented);
            done.workloads.insert(session.config.address, presented);
        }
        config.peers.insert(session.name, session.config);
    }
    done.routes = routes::routes(input, own);
    done.speaker = Some(config);
    done.problems = problems;
    done
}

/// The BGP identifier: the IPv4 address, or for a node without one a number that follows from its name.
fn router_id(own: &Node, name: &str) -> Option<Ipv4Addr> {
    if own.v4.is_some() {
        return own.v4;
    }
    own.v6?;
    // FNV-1a: any function would do that spreads names and stays the same.
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    Some(Ipv4Addr::from(hash.max(1)))
}

/// The cluster's AS number where nothing else is said.
pub const AS_NUMBER: AsNumber = AsNumber(64512);
/// The kernel priority of routes where nothing else is said.
pub const PRIORITY: u32 = 1024;
/// The most next hops that share a prefix's traffic.
const MULTIPATH: NonZeroUsize = NonZeroUsize::new(64).unwrap();
const DEFAULT_PORT: u16 = BGP_PORT;
