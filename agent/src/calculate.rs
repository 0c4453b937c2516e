//! From what the store says and the machine has to what the kernel should hold; pure.
//!
//! Precedence where several sources name one destination: an endpoint of this node, then an address
//! that another node borrows, then blocks. Longest prefixes do the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use margay_endpoint::{EndpointPlan, EndpointSpec, Mark, Sysctl};
use margay_model::resource::pool::EncapMode;
use margay_model::{Cidr, Family, Key};
use margay_route::{
    Desired, InterfaceAddresses, Mac, PROTOCOL, Route, RouteKey, gateway_answer, on_link,
};

use crate::state::{Endpoint, Settings, State};

/// What of the machine decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Interfaces that are up, are no workload's and no loopback.
    pub uplinks: Vec<InterfaceAddresses>,
    /// Workloads' interfaces that are up.
    pub workloads: BTreeSet<String>,
    /// Every address the machine bears.
    pub addresses: BTreeSet<IpAddr>,
    /// Whether somebody else's route leads to the workloads' IPv4 gateway.
    pub gateway_routed: bool,
}

/// What should be, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// Routes and neighbours.
    pub desired: Desired,
    /// Why each route is wanted.
    pub sources: BTreeMap<RouteKey, Source>,
    /// Settings of workloads' interfaces, by interface.
    pub settings: BTreeMap<String, Vec<Sysctl>>,
    /// Settings of the machine.
    pub host_settings: Vec<Sysctl>,
    /// This node's endpoints.
    pub endpoints: BTreeMap<Key, Placed>,
    /// Nodes whose workloads cannot be reached from here.
    pub unreachable: Vec<Unreachable>,
    /// What people should look at.
    pub problems: BTreeSet<Problem>,
}

/// Why a route is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An endpoint of this node.
    Endpoint(String),
    /// A block of this node.
    OwnBlock,
    /// A block of another node.
    Block(String),
    /// An address in use by a node other than its block's.
    Borrowed {
        /// Who uses it.
        node: String,
        /// Where it comes from.
        block: Cidr,
    },
    /// So that the machine answers for the workloads' gateway.
    Gateway,
}

/// What becomes of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its routes; empty where there are none to be made.
    pub routes: Vec<RouteKey>,
    /// Why it has no routes, or not all.
    pub hindrance: Option<String>,
}

/// A node that cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Unreachable {
    /// Its name.
    pub node: String,
    /// What of it lies in the dark.
    pub destinations: Vec<Cidr>,
    /// Why.
    pub reason: String,
}

/// Something that people should look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// Two endpoints of this node claim one address.
    AddressTwice {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: String,
        /// Who does not get it.
        other: String,
    },
    /// An endpoint of this node has an address that its block gives to another node.
    AddressElsewhere {
        /// The address.
        address: IpAddr,
        /// The endpoint here.
        endpoint: String,
        /// The node there.
        node: String,
    },
    /// An endpoint's interface is none of ours.
    ForeignInterface {
        /// The endpoint.
        endpoint: String,
        /// Its interface.
        interface: String,
    },
    /// The node's recorded address is not the machine's.
    AddressGone {
        /// The address.
        address: IpAddr,
    },
    /// The node's record is gone.
    Unregistered,
    /// A pool asks for an encapsulation that is not done.
    Encapsulation {
        /// The pool.
        pool: String,
    },
}

/// What should be.
pub fn calculate(state: &State, settings: &Settings, local: &Local) -> Picture {
    let mut drawing = Drawing {
        settings,
        local,
        picture: Picture::default(),
        holders: BTreeMap::new(),
        dark: BTreeMap::new(),
    };
    for (key, endpoint) in state.endpoints() {
        drawing.endpoint(key, endpoint);
    }
    drawing.borrowed(state);
    drawing.blocks(state);
    drawing.gateway();
    drawing.host(state);
    drawing.pools(state);
    drawing.finish()
}

/// A picture in the making.
struct Drawing<'a> {
    settings: &'a Settings,
    local: &'a Local,
    picture: Picture,
    /// The endpoint that has each address.
    holders: BTreeMap<IpAddr, String>,
    /// Destinations and reason by unreachable node.
    dark: BTreeMap<String, (Vec<Cidr>, String)>,
}

impl Drawing<'_> {
    fn endpoint(&mut self, key: &Key, endpoint: &Endpoint) {
        let name = endpoint.to_string();
        let mut placed = Placed {
            routes: Vec::new(),
            hindrance: None,
        };
        let handled: Vec<IpAddr> = endpoint
            .addresses
            .iter()
            .copied()
            .filter(|address| self.handles(Family::of(*address)))
            .collect();
        if !self.is_ours(&endpoint.interface) {
            let interface = endpoint.interface.clone();
            placed.hindrance = Some(format!(
                "{interface} is not the name of a workload's interface"
            ));
            self.picture.problems.insert(Problem::ForeignInterface {
                endpoint: name,
                interface,
            });
        } else if !self.local.workloads.contains(&endpoint.interface) {
            placed.hindrance = Some(format!("waiting for {} to come up", endpoint.interface));
        } else if handled.is_empty() {
            placed.hindrance = Some("it has no address".to_owned());
        } else {
            self.place(endpoint, &name, handled, &mut placed);
        }
        self.picture.endpoints.insert(key.clone(), placed);
    }

    fn place(
        &mut self,
        endpoint: &Endpoint,
        name: &str,
        addresses: Vec<IpAddr>,
        placed: &mut Placed,
    ) {
        let mut free = Vec::new();
        for address in addresses {
            if let Some(holder) = self.holders.get(&address) {
                placed.hindrance = Some(format!("{holder} has {address} too"));
                self.picture.problems.insert(Problem::AddressTwice {
                    address,
                    holder: holder.clone(),
                    other: name.to_owned(),
                });
            } else {
                self.holders.insert(address, name.to_owned());
                free.push(address);
            }
        }
        let Some(host) = host_side(endpoint, free) else {
            placed.hindrance = Some("its record makes no endpoint".to_owned());
            return;
        };
        for mut route in host.routes {
            route.protocol = self.settings.device_route_protocol;
            placed
                .routes
                .extend(self.route(route, Source::Endpoint(name.to_owned())));
        }
        if endpoint.mac.is_some() {
            for neighbour in host.neighbours {
                self.picture.desired.insert_neighbour(neighbour);
            }
        }
        let settings = self
            .picture
            .settings
            .entry(endpoint.interface.clone())
            .or_default();
        for sysctl in host.sysctls {
            if !settings.contains(&sysctl) {
                settings.push(sysctl);
            }
        }
    }

    fn borrowed(&mut self, state: &State) {
        for (cidr, block) in state.blocks() {
            if !self.handles(cidr.family()) {
                continue;
            }
            for (address, node) in &block.borrowed {
                if node == state.node() {
                    continue;
                }
                if let Some(endpoint) = self.holders.get(address) {
                    self.picture.problems.insert(Problem::AddressElsewhere {
                        address: *address,
                        endpoint: endpoint.clone(),
                        node: node.clone(),
                    });
                    continue;
                }
                let source = Source::Borrowed {
                    node: node.clone(),
                    block: *cidr,
                };
                self.towards(state, node, Cidr::host(*address), source);
            }
        }
    }

    fn blocks(&mut self, state: &State) {
        for (cidr, block) in state.blocks() {
            let Some(node) = block.node.as_ref().filter(|_| self.handles(cidr.family())) else {
                continue;
            };
            if node != state.node() {
                self.towards(state, node, *cidr, Source::Block(node.clone()));
            } else if cidr.length() < cidr.family().width() {
                // A block of one address is that endpoint's route or nothing.
                self.route(Route::blackhole(cidr.network(), PROTOCOL), Source::OwnBlock);
            }
        }
    }

    /// A route to another node, where its address is on a link of ours.
    fn towards(&mut self, state: &State, node: &str, destination: Cidr, source: Source) {
        let address = state
            .nodes()
            .get(node)
            .map(|node| node.of(destination.family()));
        let reason = match address {
            None => "it has no record in the datastore".to_owned(),
            Some(None) => format!("its record has no {} address", destination.family()),
            Some(Some(address)) => {
                if let Some(uplink) = on_link(address, &self.local.uplinks) {
                    let network = destination.network();
                    let route = Route::via(network, address, &uplink.name, PROTOCOL);
                    self.route(route, source);
                    return;
                }
                if self.local.addresses.contains(&address) {
                    format!("its address {address} is this machine's own")
                } else {
                    format!("its address {address} is on none of this machine's links")
                }
            }
        };
        let (destinations, _) = self
            .dark
            .entry(node.to_owned())
            .or_insert((Vec::new(), reason));
        destinations.push(destination);
    }

    fn gateway(&mut self) {
        let needed = self.holders.keys().any(IpAddr::is_ipv4) && !self.local.gateway_routed;
        if needed {
            self.route(gateway_answer(PROTOCOL), Source::Gateway);
        }
    }

    fn host(&mut self, state: &State) {
        let mut forward = |path: &str| {
            self.picture.host_settings.push(Sysctl {
                path: path.to_owned(),
                value: "1".to_owned(),
                optional: false,
            });
        };
        forward("net/ipv4/ip_forward");
        // A machine that forwards IPv6 stops listening to router advertisements, so this is not
        // done before there is something to forward.
        let node = state.nodes().get(state.node());
        if node.is_none() {
            self.picture.problems.insert(Problem::Unregistered);
        }
        let families = [Family::V4, Family::V6].into_iter();
        for address in families.filter_map(|family| node?.of(family)) {
            if !self.local.addresses.contains(&address) {
                self.picture
                    .problems
                    .insert(Problem::AddressGone { address });
            }
        }
        let own = node.is_some_and(|node| node.v6.is_some());
        if self.settings.ipv6 && (own || self.holders.keys().any(IpAddr::is_ipv6)) {
            forward("net/ipv6/conf/all/forwarding");
        }
    }

    fn pools(&mut self, state: &State) {
        for (name, pool) in state.pools() {
            if pool.ipip == EncapMode::Always || pool.vxlan == EncapMode::Always {
                self.picture
                    .problems
                    .insert(Problem::Encapsulation { pool: name.clone() });
            }
        }
    }

    fn finish(mut self) -> Picture {
        let dark = self.dark.into_iter();
        self.picture.unreachable = dark
            .map(|(node, (destinations, reason))| Unreachable {
                node,
                destinations,
                reason,
            })
            .collect();
        self.picture
    }

    /// Wants a route unless its destination is taken.
    fn route(&mut self, route: Route, source: Source) -> Option<RouteKey> {
        let key = route.clone().canonical().key();
        if self.picture.sources.contains_key(&key) {
            return None;
        }
        // Gateways and destinations are of one family by construction.
        self.picture.desired.insert_route(route).ok()?;
        self.picture.sources.insert(key, source);
        Some(key)
    }

    fn handles(&self, family: Family) -> bool {
        family == Family::V4 || self.settings.ipv6
    }

    fn is_ours(&self, interface: &str) -> bool {
        let mut prefixes = self.settings.interface_prefixes.iter();
        prefixes.any(|prefix| interface.starts_with(prefix.as_str()))
    }
}

/// The host's side of an endpoint, as the network plugin sets it up.
fn host_side(endpoint: &Endpoint, addresses: Vec<IpAddr>) -> Option<margay_endpoint::Side> {
    // The host's side depends on nothing inside the container.
    let spec = EndpointSpec {
        host_name: endpoint.interface.clone(),
        container_name: "eth0".to_owned(),
        container_mac: endpoint.mac.unwrap_or_else(|| Mac::local([0; 6])),
        mtu: None,
        queues: 1,
        addresses,
        routes: Vec::new(),
        include_default_routes: false,
        allow_ip_forwarding: false,
        mark: Mark::new("", "", ""),
    };
    EndpointPlan::new(&spec).ok().map(|plan| plan.host)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        write!(
            f,
            "{}/{}/{}/{}",
            name.orchestrator, self.namespace, name.workload, name.endpoint
        )
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::OwnBlock => f.write_str("block of this node"),
            Self::Block(node) => write!(f, "block of node {node}"),
            Self::Borrowed { node, block } => {
                write!(f, "address of block {block} in use by node {node}")
            }
            Self::Gateway => f.write_str("gateway of the workloads, which no other route leads to"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressTwice {
                address,
                holder,
                other,
            } => write!(
                f,
                "endpoints {holder} and {other} both have {address}; only the first is routed. Delete one of them"
            ),
            Self::AddressElsewhere {
                address,
                endpoint,
                node,
            } => write!(
                f,
                "endpoint {endpoint} of this node has {address}, which its block gives to node {node}. \
                 Delete the endpoint that should not have it"
            ),
            Self::ForeignInterface {
                endpoint,
                interface,
            } => write!(
                f,
                "endpoint {endpoint} is on {interface}, whose name has none of the prefixes in \
                 FELIX_INTERFACEPREFIX; it is left alone"
            ),
            Self::AddressGone { address } => write!(
                f,
                "the node's recorded address {address} is on no interface of this machine, so other nodes \
                 do not reach its workloads; restart the agent to choose another"
            ),
            Self::Unregistered => f.write_str(
                "the record of this node is gone from the datastore, so other nodes do not reach its \
                 workloads; restart the agent to register it again, or stop it",
            ),
            Self::Encapsulation { pool } => write!(
                f,
                "pool {pool} asks for encapsulation always, which is not done yet: nodes on a common \
                 link reach each other without it, others not at all"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
