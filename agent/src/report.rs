//! What the agent tells of itself on its socket, as `margayctl node status` reads it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::Cidr;
use margay_route::{RouteKey, RouteKind};
use serde::Serialize;

use crate::calculate::{Picture, Unreachable};
use crate::state::State;

/// The state of the node as its agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// What tells the machine from others.
    pub machine: String,
    /// Whether the kernel is as it should be and the node's name is held.
    pub ready: bool,
    /// Whether the store is being followed, or why not.
    pub datastore: String,
    /// The cluster's blocks.
    pub blocks: Vec<BlockStatus>,
    /// Routes that the agent keeps.
    pub routes: Vec<RouteStatus>,
    /// The node's endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Nodes that cannot be reached from here.
    pub unreachable: Vec<Unreachable>,
    /// What people should look at.
    pub problems: Vec<String>,
    /// Objects in the store that cannot be used.
    pub bad_objects: Vec<BadObject>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
}

/// A block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BlockStatus {
    /// Its prefix.
    pub cidr: Cidr,
    /// The node it belongs to.
    pub owner: Option<String>,
    /// Whether that is this node.
    pub local: bool,
    /// Number of its addresses that other nodes use.
    pub borrowed: usize,
    /// Number of its addresses in use.
    pub used: usize,
}

/// A route that the agent keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    /// Its destination.
    pub destination: IpNetwork,
    /// The gateway, if it has one.
    pub via: Option<IpAddr>,
    /// The interface; none for a blackhole.
    pub interface: Option<String>,
    /// The protocol number.
    pub protocol: u8,
    /// Why it is wanted.
    pub source: String,
    /// Whether it is in the kernel.
    pub installed: bool,
}

/// An endpoint of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    /// `<orchestrator>/<namespace>/<workload>/<endpoint>`.
    pub name: String,
    /// The host end's interface.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// `up`, or what is in the way.
    pub state: String,
}

/// An object in the store that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadObject {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

impl Status {
    /// Takes over what store and calculation say; `missing` are the routes that are not in the kernel.
    pub fn describe(&mut self, state: &State, picture: &Picture, missing: &BTreeSet<RouteKey>) {
        state.node().clone_into(&mut self.node);
        let blocks = state.blocks().iter();
        self.blocks = blocks
            .map(|(cidr, block)| BlockStatus {
                cidr: *cidr,
                owner: block.node.clone(),
                local: block.node.as_deref() == Some(state.node()),
                borrowed: block.borrowed.len(),
                used: block.used,
            })
            .collect();
        let routes = picture.desired.routes();
        self.routes = routes
            .map(|route| {
                let hop = match &route.kind {
                    RouteKind::Unicast { via } => via.first(),
                    _ => None,
                };
                let key = route.key();
                let source = picture.sources.get(&key);
                RouteStatus {
                    destination: route.dst,
                    via: hop.and_then(|hop| hop.gateway),
                    interface: hop.map(|hop| hop.interface.clone()),
                    protocol: route.protocol,
                    source: source.map(ToString::to_string).unwrap_or_default(),
                    installed: !missing.contains(&key),
                }
            })
            .collect();
        self.endpoints = state
            .endpoints()
            .iter()
            .map(|(key, endpoint)| {
                let placed = picture.endpoints.get(key);
                let state = match placed {
                    Some(placed) => match &placed.hindrance {
                        Some(hindrance) => hindrance.clone(),
                        None if placed.routes.iter().any(|route| missing.contains(route)) => {
                            "its route is not in the kernel".to_owned()
                        }
                        None => "up".to_owned(),
                    },
                    None => "new".to_owned(),
                };
                EndpointStatus {
                    name: endpoint.to_string(),
                    interface: endpoint.interface.clone(),
                    addresses: endpoint.addresses.iter().copied().collect(),
                    state,
                }
            })
            .collect();
        self.unreachable.clone_from(&picture.unreachable);
        self.problems = picture.problems.iter().map(ToString::to_string).collect();
        let bad = state.bad().iter();
        self.bad_objects = bad
            .map(|(key, reason)| BadObject {
                key: key.to_string(),
                reason: reason.clone(),
            })
            .collect();
    }
}
