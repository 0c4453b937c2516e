//! Routes that BGP peers announced: which of them are wanted, and by which hops.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::{Cidr, Family};
use margay_route::{NextHop, PROTOCOL, Route, on_link, resolve};

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
        let mut tracker = Tracker::new(self.local, learned);
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

/// Finds hops, each next hop once.
struct Tracker<'a> {
    local: &'a Local,
    learned: &'a Learned,
    known: BTreeMap<IpAddr, Vec<NextHop>>,
}

impl<'a> Tracker<'a> {
    fn new(local: &'a Local, learned: &'a Learned) -> Self {
        Self {
            local,
            learned,
            known: BTreeMap::new(),
        }
    }

    fn hops(&mut self, prefix: &Cidr, way: &Way) -> Vec<NextHop> {
        let mut hops = Vec::new();
        for address in &way.next_hops {
            // A next hop within its own prefix would lead to itself.
            if prefix.contains(*address) && on_link(*address, &self.local.uplinks).is_none() {
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

    /// By a link, a route of the host, or a learned route that is more specific than the host's.
    fn look_up(&mut self, address: IpAddr) -> Vec<NextHop> {
        if self.local.addresses.contains(&address) {
            return Vec::new();
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
