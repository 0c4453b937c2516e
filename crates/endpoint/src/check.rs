//! What CHECK verifies of an endpoint's kernel state, as a comparison of values.

use std::fmt;

use ipnetwork::IpNetwork;
use margay_route::{Mac, Neighbour, NeighbourKind, Route, RouteKind};
use serde::Serialize;

use crate::{EndpointPlan, Side};

/// What should be true of an endpoint.
///
/// Later plugins of a chain may add addresses, routes and neighbours, and change the MTU; none of
/// that is a problem. What they may replace is taken from the final `prevResult`
/// ([`Expected::with_final_mac`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// The host's end.
    pub host: ExpectedEnd,
    /// The container's end.
    pub container: ExpectedEnd,
}

/// What should be true of one end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExpectedEnd {
    /// The interface's name.
    pub name: String,
    /// Its MAC.
    pub mac: Mac,
    /// Addresses it bears, possibly among others.
    pub addresses: Vec<IpNetwork>,
    /// Routes that exist, compared by destination, gateway and interface.
    pub routes: Vec<Route>,
    /// Neighbour entries that exist.
    pub neighbours: Vec<Neighbour>,
}

impl Expected {
    pub(crate) fn of(plan: &EndpointPlan) -> Self {
        let end = |name: &str, mac: Mac, side: &Side| ExpectedEnd {
            name: name.to_owned(),
            mac,
            addresses: side
                .addresses
                .iter()
                .map(|address| address.network)
                .collect(),
            routes: side.routes.clone(),
            neighbours: side.neighbours.clone(),
        };
        let veth = &plan.veth;
        Self {
            host: end(&veth.host_name, veth.host_mac, &plan.host),
            container: end(&veth.container_name, veth.container_mac, &plan.container),
        }
    }

    /// Expects the container's MAC that the final `prevResult` names: a plugin such as `tuning`
    /// may have changed it. The host's neighbour entries must name the same MAC, or nothing
    /// reaches the container.
    #[must_use]
    pub fn with_final_mac(mut self, mac: Mac) -> Self {
        for neighbour in &mut self.host.neighbours {
            if neighbour.kind == NeighbourKind::Permanent(self.container.mac) {
                neighbour.kind = NeighbourKind::Permanent(mac);
            }
        }
        self.container.mac = mac;
        self
    }
}

/// What is true of an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The host's interface of the expected name, if there is one.
    pub host: Option<Interface>,
    /// The container's interface of the expected name, if there is one.
    pub container: Option<Interface>,
    /// Routes of the host, at least those over its end.
    pub host_routes: Vec<Route>,
    /// Routes of the container.
    pub container_routes: Vec<Route>,
    /// Configured neighbour entries of the host, at least those on its end.
    pub host_neighbours: Vec<Neighbour>,
    /// Configured neighbour entries of the container.
    pub container_neighbours: Vec<Neighbour>,
}

/// An interface as observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// The index of the other end of a pair, in the other end's namespace.
    pub peer_index: Option<u32>,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<IpNetwork>,
}

/// Which end of the pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum End {
    /// The host's.
    Host,
    /// The container's.
    Container,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Container => "container",
        })
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Problem {
    /// No interface of the name.
    #[error("{end} interface {name} is missing")]
    InterfaceMissing {
        /// Where.
        end: End,
        /// The interface.
        name: String,
    },
    /// The interfaces of these names are not two ends of one pair.
    #[error("host interface {host} and container interface {container} are not a pair")]
    NotAPair {
        /// The host's interface.
        host: String,
        /// The container's interface.
        container: String,
    },
    /// The interface is down.
    #[error("{end} interface {name} is down")]
    Down {
        /// Where.
        end: End,
        /// The interface.
        name: String,
    },
    /// Another MAC.
    #[error("{end} interface {name} has MAC {}, not {expected}", show(*found))]
    Mac {
        /// Where.
        end: End,
        /// The interface.
        name: String,
        /// The MAC that it should have.
        expected: Mac,
        /// The MAC that it has.
        found: Option<Mac>,
    },
    /// An address is missing.
    #[error("{end} interface {name} lacks address {address}")]
    AddressMissing {
        /// Where.
        end: End,
        /// The interface.
        name: String,
        /// The address.
        address: IpNetwork,
    },
    /// A route is missing or leads elsewhere.
    #[error("{end} has no route to {dst} over {name}")]
    RouteMissing {
        /// Where.
        end: End,
        /// The interface.
        name: String,
        /// The destination.
        dst: IpNetwork,
    },
    /// A neighbour entry is missing or names another MAC.
    #[error("{end} has no permanent neighbour entry for {address} on {name} with the expected MAC")]
    NeighbourMissing {
        /// Where.
        end: End,
        /// The interface.
        name: String,
        /// The neighbour's address.
        address: std::net::IpAddr,
    },
}

/// Every difference that matters between what is expected and what is observed; empty if all is
/// well.
#[must_use]
pub fn verify(expected: &Expected, observed: &Observed) -> Vec<Problem> {
    let mut problems = Vec::new();
    let container = (End::Container, &expected.container, &observed.container);
    let host = (End::Host, &expected.host, &observed.host);
    for (end, wanted, found) in [container, host] {
        match found {
            Some(interface) => verify_interface(end, wanted, interface, &mut problems),
            None => problems.push(Problem::InterfaceMissing {
                end,
                name: wanted.name.clone(),
            }),
        }
    }
    if let (Some(host), Some(container)) = (&observed.host, &observed.container)
        && (host.peer_index != Some(container.index) || container.peer_index != Some(host.index))
    {
        problems.push(Problem::NotAPair {
            host: expected.host.name.clone(),
            container: expected.container.name.clone(),
        });
    }
    let container = (&observed.container_routes, &observed.container_neighbours);
    if observed.container.is_some() {
        verify_tables(
            End::Container,
            &expected.container,
            container,
            &mut problems,
        );
    }
    if observed.host.is_some() {
        let host = (&observed.host_routes, &observed.host_neighbours);
        verify_tables(End::Host, &expected.host, host, &mut problems);
    }
    problems
}

fn verify_interface(
    end: End,
    wanted: &ExpectedEnd,
    found: &Interface,
    problems: &mut Vec<Problem>,
) {
    let name = || wanted.name.clone();
    if !found.up {
        problems.push(Problem::Down { end, name: name() });
    }
    if found.mac != Some(wanted.mac) {
        let (expected, found) = (wanted.mac, found.mac);
        problems.push(Problem::Mac {
            end,
            name: name(),
            expected,
            found,
        });
    }
    for address in &wanted.addresses {
        if !found.addresses.contains(address) {
            problems.push(Problem::AddressMissing {
                end,
                name: name(),
                address: *address,
            });
        }
    }
}

fn verify_tables(
    end: End,
    wanted: &ExpectedEnd,
    (routes, neighbours): (&Vec<Route>, &Vec<Neighbour>),
    problems: &mut Vec<Problem>,
) {
    let name = || wanted.name.clone();
    for route in &wanted.routes {
        if !routes.iter().any(|found| leads_alike(route, found)) {
            problems.push(Problem::RouteMissing {
                end,
                name: name(),
                dst: route.dst,
            });
        }
    }
    for neighbour in &wanted.neighbours {
        if !neighbours.contains(neighbour) {
            let address = neighbour.address;
            problems.push(Problem::NeighbourMissing {
                end,
                name: name(),
                address,
            });
        }
    }
}

/// Whether two routes take a packet the same way; protocol and metric are the agent's and others'
/// to change.
fn leads_alike(wanted: &Route, found: &Route) -> bool {
    let hops = |route: &Route| match &route.kind {
        RouteKind::Unicast { via } => Some(
            via.iter()
                .map(|hop| (hop.gateway, hop.interface.clone()))
                .collect::<Vec<_>>(),
        ),
        _ => None,
    };
    wanted.dst == found.dst && wanted.table == found.table && hops(wanted) == hops(found)
}

fn show(mac: Option<Mac>) -> String {
    mac.map_or_else(|| "none".to_owned(), |mac| mac.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EndpointSpec, Mark};
    use margay_route::PROTOCOL;

    fn expected() -> Expected {
        let spec = EndpointSpec {
            host_name: "cali1".to_owned(),
            container_name: "eth0".to_owned(),
            container_mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: None,
            queues: 1,
            addresses: vec!["10.65.0.2".parse().unwrap(), "2001:db8::2".parse().unwrap()],
            routes: Vec::new(),
            include_default_routes: false,
            allow_ip_forwarding: false,
            mark: Mark::new("calinet", "0123", "eth0"),
        };
        EndpointPlan::new(&spec).unwrap().expected()
    }

    fn healthy(expected: &Expected) -> Observed {
        let interface = |end: &ExpectedEnd, index, peer| Interface {
            index,
            peer_index: Some(peer),
            mac: Some(end.mac),
            up: true,
            addresses: end.addresses.clone(),
        };
        Observed {
            host: Some(interface(&expected.host, 7, 2)),
            container: Some(interface(&expected.container, 2, 7)),
            host_routes: expected.host.routes.clone(),
            container_routes: expected.container.routes.clone(),
            host_neighbours: expected.host.neighbours.clone(),
            container_neighbours: expected.container.neighbours.clone(),
        }
    }

    #[test]
    fn a_fresh_endpoint_has_no_problem() {
        let expected = expected();
        assert_eq!(verify(&expected, &healthy(&expected)), Vec::new());
    }

    #[test]
    fn the_agents_protocol_number_and_others_additions_are_no_problem() {
        let expected = expected();
        let mut observed = healthy(&expected);
        for route in &mut observed.host_routes {
            route.protocol = PROTOCOL;
        }
        let extra = Route::on_link("10.9.0.0/16".parse().unwrap(), "eth0", 4);
        observed.container_routes.push(extra);
        assert_eq!(verify(&expected, &observed), Vec::new());
    }

    #[test]
    fn every_missing_piece_is_named() {
        let expected = expected();
        let mut observed = healthy(&expected);
        let container = observed.container.as_mut().unwrap();
        container.addresses.remove(0);
        container.mac = Some(Mac([2, 0, 0, 0, 0, 9]));
        container.up = false;
        container.peer_index = Some(8);
        observed.container_routes.remove(1);
        observed.host_routes.remove(0);
        observed.host_neighbours.clear();
        let messages: Vec<String> = verify(&expected, &observed)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            messages,
            [
                "container interface eth0 is down",
                "container interface eth0 has MAC 02:00:00:00:00:09, not 02:00:00:00:00:01",
                "container interface eth0 lacks address 10.65.0.2/32",
                "host interface cali1 and container interface eth0 are not a pair",
                "container has no route to 0.0.0.0/0 over eth0",
                "host has no route to 10.65.0.2/32 over cali1",
                "host has no permanent neighbour entry for 10.65.0.2 on cali1 with the expected MAC",
                "host has no permanent neighbour entry for 2001:db8::2 on cali1 with the expected MAC",
            ]
        );
    }

    #[test]
    fn a_missing_interface_is_one_problem() {
        let expected = expected();
        let mut observed = healthy(&expected);
        observed.container = None;
        observed.container_routes.clear();
        assert_eq!(
            verify(&expected, &observed),
            vec![Problem::InterfaceMissing {
                end: End::Container,
                name: "eth0".to_owned()
            }]
        );
    }

    #[test]
    fn a_later_plugins_mac_is_accepted_if_the_host_knows_it() {
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let expected = expected().with_final_mac(mac);
        let mut observed = healthy(&expected);
        assert_eq!(verify(&expected, &observed), Vec::new());
        observed.host_neighbours[0].kind = NeighbourKind::Permanent(Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(verify(&expected, &observed).len(), 1);
    }
}
