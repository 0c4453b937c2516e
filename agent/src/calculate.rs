//! From what the store says and the machine has to what the kernel should hold; pure.
//!
//! Precedence where several sources name one destination: an endpoint of this node, then an address
//! that another node borrows, then blocks, then what BGP peers announce. Longest prefixes do the rest.

mod learned;
mod picture;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_endpoint::{EndpointPlan, EndpointSpec, Mark, Sysctl};
use margay_model::{Cidr, Family, Key};
use margay_route::{
    InterfaceAddresses, Mac, Neighbour, PROTOCOL, Route, RouteKey, gateway_answer, on_link,
};

pub use learned::{Learned, Way};
pub use picture::{Hindrance, Origin, Picture, Placed, Problem, Source, Unreachable};

use crate::mtu::{Carrier, mtus};
use crate::state::{Endpoint, NodeAddresses, Settings, State};
use tunnels::Carriage;

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
    /// What may limit the workloads' MTU.
    pub carriers: Vec<Carrier>,
    /// Routes of others that may lead to next hops.
    pub foreign: Vec<Route>,
}

/// What should be.
pub fn calculate(state: &State, settings: &Settings, local: &Local, learned: &Learned) -> Picture {
    let mut drawing = Drawing {
        settings,
        local,
        picture: Picture::default(),
        holders: BTreeMap::new(),
        encapsulated: BTreeSet::new(),
        dark: BTreeMap::new(),
    };
    drawing.tunnels(state);
    for (key, endpoint) in state.endpoints() {
        drawing.endpoint(key, endpoint);
    }
    drawing.borrowed(state);
    drawing.blocks(state);
    drawing.gateway();
    drawing.learned(learned);
    drawing.host(state);
    drawing.finish()
}

/// A picture in the making.
struct Drawing<'a> {
    settings: &'a Settings,
    local: &'a Local,
    picture: Picture,
    /// The endpoint that has each address.
    holders: BTreeMap<IpAddr, String>,
    /// Destinations that are to be reached by encapsulation only.
    encapsulated: BTreeSet<Cidr>,
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
            placed.hindrance = Some(Hindrance::ForeignInterface(interface.clone()));
            self.picture.problems.insert(Problem::ForeignInterface {
                endpoint: name,
                interface,
            });
        } else if !self.local.workloads.contains(&endpoint.interface) {
            placed.hindrance = Some(Hindrance::InterfaceDown(endpoint.interface.clone()));
        } else if handled.is_empty() {
            placed.hindrance = Some(Hindrance::NoAddress);
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
                placed.hindrance = Some(Hindrance::AddressTaken {
                    address,
                    holder: holder.clone(),
                });
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
            placed.hindrance = Some(Hindrance::Impossible);
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
                    tunnel: false,
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
                self.towards(state, node, *cidr, Source::block(node));
            } else if cidr.length() < cidr.family().width() {
                // A block of one address is that endpoint's route or nothing.
                self.route(Route::blackhole(cidr.network(), PROTOCOL), Source::OwnBlock);
            }
        }
    }

    /// The tunnels' devices, and what fits into a packet.
    fn tunnels(&mut self, state: &State) {
        let node = state.nodes().get(state.node());
        let addresses: Vec<IpAddr> = [Family::V4, Family::V6]
            .into_iter()
            .filter_map(|family| node?.of(family))
            .collect();
        let names = &self.settings.mtu_interfaces.0;
        let vxlan = &self.settings.vxlan;
        let carriers = &self.local.carriers;
        let mtus = mtus(carriers, &addresses, names, vxlan, state.pools().values());
        // Without a record nothing is known that is worth telling.
        self.picture.mtu = node.and(mtus).map(|mtus| mtus.workload);
        self.picture.devices = tunnels::devices(state, self.settings, self.local, mtus);
    }

    /// A route to another node, by the way that the destination's pool asks for.
    fn towards(&mut self, state: &State, node: &str, destination: Cidr, source: Source) {
        let reason = match state.nodes().get(node) {
            None => "it has no record in the datastore".to_owned(),
            Some(far) => {
                let family = destination.family();
                let own = state.nodes().get(state.node());
                let own = own.and_then(|own| own.network(family));
                let carriage = tunnels::carriage(state, destination, own, far.network(family));
                if carriage != Carriage::Plain {
                    self.encapsulated.insert(destination);
                }
                let made = match carriage {
                    Carriage::Plain => self.plain(far, destination, &source),
                    Carriage::Vxlan => self.tunnelled(node, far, destination, &source),
                    Carriage::Ipip(pool) => Err(format!(
                        "pool {pool} asks for IP-in-IP between the two, which this agent does not do; \
                         set its ipipMode to Never and its vxlanMode to CrossSubnet or Always"
                    )),
                };
                match made {
                    Ok(()) => return,
                    Err(reason) => reason,
                }
            }
        };
        let (destinations, _) = self
            .dark
            .entry(node.to_owned())
            .or_insert((Vec::new(), reason));
        destinations.push(destination);
    }

    /// Where the node's address is on a link of ours.
    fn plain(
        &mut self,
        far: &NodeAddresses,
        destination: Cidr,
        source: &Source,
    ) -> Result<(), String> {
        let Some(address) = far.of(destination.family()) else {
            return Err(format!(
                "its record has no {} address",
                destination.family()
            ));
        };
        if let Some(uplink) = on_link(address, &self.local.uplinks) {
            let network = destination.network();
            let route = Route::via(network, address, &uplink.name, PROTOCOL);
            self.route(route, source.clone());
            Ok(())
        } else if self.local.addresses.contains(&address) {
            Err(format!("its address {address} is this machine's own"))
        } else {
            Err(format!(
                "its address {address} is on none of this machine's links"
            ))
        }
    }

    /// Through the VXLAN device, whatever lies between.
    fn tunnelled(
        &mut self,
        node: &str,
        far: &NodeAddresses,
        destination: Cidr,
        source: &Source,
    ) -> Result<(), String> {
        if !self.settings.vxlan.enabled {
            return Err(
                "its pool asks for VXLAN, which vxlanEnabled of the FelixConfiguration, or \
                 FELIX_VXLANENABLED, switches off"
                    .to_owned(),
            );
        }
        let devices = &self.picture.devices;
        let far = tunnels::towards(devices, node, far, destination.family())?;
        let gateway = far.hop.gateway;
        let route = Route::multipath(destination.network(), vec![far.hop], PROTOCOL);
        if let (Some(_), Some(gateway)) = (self.route(route, source.clone().tunnelled()), gateway) {
            let neighbour = Neighbour::permanent(gateway, far.entry.mac, &far.entry.interface);
            self.picture.desired.insert_neighbour(neighbour);
            self.picture.desired.insert_fdb(far.entry);
        }
        Ok(())
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

    fn finish(mut self) -> Picture {
        let by_bgp = |destination: &Cidr| self.picture.learned.contains(&destination.network());
        for (destinations, _) in self.dark.values_mut() {
            destinations.retain(|destination| !by_bgp(destination));
        }
        let dark = self.dark.into_iter();
        self.picture.encapsulated = self.encapsulated;
        self.picture.unreachable = dark
            .filter(|(_, (destinations, _))| !destinations.is_empty())
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

#[cfg(test)]
mod tests;
