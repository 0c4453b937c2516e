//! Routes that BGP peers announced: which of them are wanted, and by which hops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::{Cidr, Family};
use margay_route::{NextHop, PROTOCOL, Route, RouteKind, on_link, resolve};

use super::picture::Source;
use super::{Drawing, Local};

/// What BGP says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Learned {
    /// The best ways of peers, by prefix.
    pub routes: BTreeMap<Cidr, Way>,
    /// Kernel priority of routes, IPv4 and IPv6.
    pub priorities: (u32, u32),
    /// Gateways to peers that are on no common link.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// Workloads with which the node has sessions, each with the address that the node presents to it.
    pub workloads: BTreeMap<IpAddr, IpAddr>,
    /// The protocol number of another program that keeps learned routes in the kernel, where one does.
    pub elsewhere: Option<u8>,
}

/// The way to a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The next hops that share the traffic; never empty.
    pub next_hops: BTreeSet<IpAddr>,
    /// The peer whose route is the best.
    pub peer: String,
}

impl Drawing<'_> {
    /// Routes to peers by their gateways, then those that peers announced and nothing better is known
    /// for. Several next hops make one route.
    pub(super) fn learned(&mut self, learned: &Learned) {
        for (peer, gateway) in &learned.gateways {
            let Some(uplink) = on_link(*gateway, &self.local.uplinks) else {
                continue;
            };
            let host = Cidr::host(*peer).network();
            let route = Route::via(host, *gateway, &uplink.name, PROTOCOL);
            self.route(route, Source::PeerGateway);
        }
        if let Some(protocol) = learned.elsewhere {
            let foreign = self.local.foreign.iter();
            for route in foreign.filter(|route| route.protocol == protocol) {
                self.picture.learned.insert(route.dst);
                self.picture.elsewhere.push(route.clone());
            }
        }
        let taken: BTreeSet<_> = self
            .picture
            .desired
            .routes()
            .map(|route| route.dst)
            .collect();
        let workloads = self.workloads(learned);
        for (address, interface) in &workloads {
            let presented = learned.workloads.get(address).copied();
            let interface = self.picture.presented.entry(interface.clone());
            interface.or_default().extend(presented);
        }
        let mut tracker = Tracker::new(self.local, learned, workloads);
        for (prefix, way) in &learned.routes {
            let family = prefix.family();
            // Routers between do not know what a pool wants to be encapsulated.
            let encapsulated = self.encapsulated.contains(prefix);
            if encapsulated || !self.handles(family) || taken.contains(&prefix.network()) {
                continue;
            }
            let hops = tracker.hops(prefix, way);
            if hops.is_empty() {
                let next_hops = way.next_hops.iter().copied().collect();
                self.picture.unresolved.insert(*prefix, next_hops);
                continue;
            }
            let metric = match family {
                Family::V4 => learned.priorities.0,
                Family::V6 => learned.priorities.1,
            };
            let route = Route {
                metric,
                ..Route::multipath(prefix.network(), hops, PROTOCOL)
            };
            let source = Source::Bgp {
                peer: way.peer.clone(),
            };
            if self.route(route, source).is_some() {
                self.picture.learned.insert(prefix.network());
            }
        }
    }
}

impl Drawing<'_> {
    /// The interfaces of workloads with which the node has sessions, by their addresses.
    fn workloads(&self, learned: &Learned) -> BTreeMap<IpAddr, String> {
        if learned.workloads.is_empty() {
            return BTreeMap::new();
        }
        let routes = self.picture.desired.routes();
        let hop = |route: &Route| match &route.kind {
            RouteKind::Unicast { via } => {
                let hop = via.iter().find(|hop| hop.gateway.is_none())?;
                let address = route.dst.ip();
                let known = learned.workloads.contains_key(&address);
                let single = Cidr::host(address).network() == route.dst;
                (known && single).then(|| (address, hop.interface.clone()))
            }
            _ => None,
        };
        routes.filter_map(hop).collect()
    }
}

/// Finds hops, each next hop once.
struct Tracker<'a> {
    local: &'a Local,
    learned: &'a Learned,
    /// Interfaces of workloads that may be next hops.
    workloads: BTreeMap<IpAddr, String>,
    known: BTreeMap<IpAddr, Vec<NextHop>>,
}

impl<'a> Tracker<'a> {
    fn new(local: &'a Local, learned: &'a Learned, workloads: BTreeMap<IpAddr, String>) -> Self {
        Self {
            local,
            learned,
            workloads,
            known: BTreeMap::new(),
        }
    }

    fn hops(&mut self, prefix: &Cidr, way: &Way) -> Vec<NextHop> {
        let mut hops = Vec::new();
        for address in &way.next_hops {
            // A next hop within its own prefix would lead to itself.
            let near = self.workloads.contains_key(address)
                || on_link(*address, &self.local.uplinks).is_some();
            if prefix.contains(*address) && !near {
                continue;
            }
            hops.extend(self.resolve(*address));
        }
        hops.sort();
        hops.dedup();
        hops
    }

    fn resolve(&mut self, address: IpAddr) -> Vec<NextHop> {
        if let Some(known) = self.known.get(&address) {
            return known.clone();
        }
        // Whoever comes back here goes round.
        self.known.insert(address, Vec::new());
        let found = self.look_up(address);
        self.known.insert(address, found.clone());
        found
    }

    /// By a workload's interface, a link, a route of the host, or a learned route that is more specific than the host's.
    fn look_up(&mut self, address: IpAddr) -> Vec<NextHop> {
        if self.local.addresses.contains(&address) {
            return Vec::new();
        }
        if let Some(interface) = self.workloads.get(&address) {
            return vec![NextHop {
                gateway: Some(address),
                interface: interface.clone(),
                onlink: false,
                weight: 1,
            }];
        }
        let foreign: Vec<&Route> = self.local.foreign.iter().collect();
        let covering = foreign
            .iter()
            .filter(|route| route.dst.contains(address))
            .map(|route| route.dst.prefix())
            .max();
        let near = on_link(address, &self.local.uplinks).is_some();
        let least = covering.map_or(0, |length| length + 1);
        let learned = (least..=Family::of(address).width())
            .rev()
            .find_map(|length| {
                let cidr = Cidr::new(address, length)?;
                self.learned.routes.get(&cidr)
            });
        match learned {
            Some(way) if !near => {
                let further = way.next_hops.iter();
                further.flat_map(|next| self.resolve(*next)).collect()
            }
            _ => resolve(address, &self.local.uplinks, &foreign).unwrap_or_default(),
        }
    }
}
