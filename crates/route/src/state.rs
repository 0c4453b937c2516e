//! What should be, what is, and what of it is ours.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    FdbEntry, Mac, Neighbour, NeighbourKey, NeighbourKind, PROTOCOL, PROTOCOL_KERNEL, Route,
    RouteError, RouteKey,
};

/// The routes, neighbour and forwarding entries that should exist: one a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    pub(crate) routes: BTreeMap<RouteKey, Route>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, Neighbour>,
    pub(crate) fdb: BTreeMap<(String, Mac), FdbEntry>,
}

impl Desired {
    /// Wants a route, in canonical form; returns the one it displaces.
    ///
    /// # Errors
    /// [`RouteError`] if the kernel could not hold it.
    pub fn insert_route(&mut self, route: Route) -> Result<Option<Route>, RouteError> {
        let route = route.canonical();
        route.validate()?;
        Ok(self.routes.insert(route.key(), route))
    }

    /// Wants a neighbour entry; returns the one it displaces.
    pub fn insert_neighbour(&mut self, neighbour: Neighbour) -> Option<Neighbour> {
        self.neighbours.insert(neighbour.key(), neighbour)
    }

    /// Wants a forwarding entry; returns the one it displaces.
    pub fn insert_fdb(&mut self, entry: FdbEntry) -> Option<FdbEntry> {
        self.fdb.insert((entry.interface.clone(), entry.mac), entry)
    }

    /// The routes wanted, by key.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.values()
    }

    /// The neighbour entries wanted, by key.
    pub fn neighbours(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.values()
    }

    /// The forwarding entries wanted, by interface and MAC address.
    pub fn fdb(&self) -> impl Iterator<Item = &FdbEntry> {
        self.fdb.values()
    }
}

/// The routes and configured neighbour and forwarding entries that exist, in the kernel's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// Routes in canonical form.
    pub routes: Vec<Route>,
    /// Permanent and proxy entries.
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries of our tunnels.
    pub fdb: Vec<FdbEntry>,
}

/// What may be changed: routes with our protocol number, and whatever stands on our interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ownership {
    /// Our routes' protocol number.
    pub protocol: u8,
    /// Prefixes of the names of our interfaces.
    pub interface_prefixes: Vec<String>,
    /// Our interfaces that are too new to judge: a plugin may have set one up before its record
    /// reached us. Unwanted routes and neighbours on them stay.
    pub spared: BTreeSet<String>,
    /// Names of our tunnels' devices; neighbour and forwarding entries on them are ours.
    pub tunnels: BTreeSet<String>,
}

impl Default for Ownership {
    fn default() -> Self {
        Self {
            protocol: PROTOCOL,
            interface_prefixes: vec!["cali".to_owned()],
            spared: BTreeSet::new(),
            tunnels: BTreeSet::new(),
        }
    }
}

impl Ownership {
    /// Whether an interface is ours, by its name.
    #[must_use]
    pub fn owns_interface(&self, name: &str) -> bool {
        self.interface_prefixes
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()))
    }

    /// Whether a route may be replaced.
    ///
    /// The kernel's own routes (`proto kernel`) follow from addresses and are nobody's to change.
    #[must_use]
    pub fn owns_route(&self, route: &Route) -> bool {
        route.protocol == self.protocol
            || (route.protocol != PROTOCOL_KERNEL
                && route.interfaces().any(|name| self.owns_interface(name)))
    }

    /// Whether a neighbour entry may be replaced.
    #[must_use]
    pub fn owns_neighbour(&self, neighbour: &Neighbour) -> bool {
        let configured = matches!(
            neighbour.kind,
            NeighbourKind::Permanent(_) | NeighbourKind::Proxy
        );
        let interface = &neighbour.interface;
        configured && (self.owns_interface(interface) || self.tunnels.contains(interface))
    }

    /// Whether an unwanted route may be deleted.
    #[must_use]
    pub fn may_delete_route(&self, route: &Route) -> bool {
        self.owns_route(route) && !route.interfaces().any(|name| self.spared.contains(name))
    }

    /// Whether an unwanted neighbour entry may be deleted.
    #[must_use]
    pub fn may_delete_neighbour(&self, neighbour: &Neighbour) -> bool {
        self.owns_neighbour(neighbour) && !self.spared.contains(&neighbour.interface)
    }
}
