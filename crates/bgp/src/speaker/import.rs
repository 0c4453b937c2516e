//! Routes from peers: into the Adj-RIB-In, through import policy, into the table.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use super::Speaker;
use crate::attribute::{Attributes, Community, NextHop};
use crate::config::{FAMILIES, OverLimit, PeerConfig};
use crate::event::{DownReason, Event};
use crate::intern::Interner;
use crate::message::{Announcement, Code, ErrorAction, Finding, Nlri, Notification, Update, cease};
use crate::peer::{InRoute, Peer, PeerId, Rejection, Session};
use crate::policy::{Candidate, Outcome, RouteSource};
use crate::table::{Freshness, PathSource, PeerSource, Table};

/// What import depends on beside the route and the peer.
struct Import<'a> {
    own_as: AsNumber,
    router_id: std::net::Ipv4Addr,
    cluster: std::net::Ipv4Addr,
    interner: &'a mut Interner,
    table: &'a mut Table,
}

impl Speaker {
    pub(super) fn handle_update(&mut self, now: Duration, id: PeerId, update: Update) {
        self.note_findings(id, &update.findings);
        let Some((peer, mut import)) = self.import(id) else {
            return;
        };
        for nlri in update.withdrawn {
            import.withdraw(peer, nlri);
        }
        for announcement in update.announced {
            if let Some((family, limit)) = import.announce(peer, announcement) {
                return self.limit_reached(now, id, family, limit);
            }
        }
        self.note_near_limit(id);
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family);
        }
    }

    /// Weighs all routes of a peer anew, after a change of policy or of what it depends on.
    pub(super) fn import_again(&mut self, id: PeerId) {
        let Some((peer, mut import)) = self.import(id) else {
            return;
        };
        for family in FAMILIES {
            let keys: Vec<_> = peer.received.get(family).routes.keys().copied().collect();
            for key in keys {
                import.weigh(peer, key);
            }
        }
    }

    /// Weighs those routes of a peer anew whose prefixes lie within one of `changed`.
    pub(super) fn import_within(&mut self, id: PeerId, changed: &BTreeSet<Cidr>) {
        let Some((peer, mut import)) = self.import(id) else {
            return;
        };
        let mut keys = BTreeSet::new();
        for within in changed {
            // Prefixes are in the order of their addresses, the shorter first.
            let routes = &peer.received.get(within.family()).routes;
            let from = routes.range((*within, 0)..);
            let inside = from.take_while(|((prefix, _), _)| within.covers(prefix));
            keys.extend(inside.map(|(key, _)| *key));
        }
        for key in keys {
            import.weigh(peer, key);
        }
    }

    fn import(&mut self, id: PeerId) -> Option<(&mut Peer, Import<'_>)> {
        let config = &self.config;
        let peer = self.peers.get_mut(&id)?;
        let import = Import {
            own_as: peer.config.local_as.unwrap_or(config.asn),
            router_id: config.router_id,
            cluster: config.cluster(),
            interner: &mut self.interner,
            table: &mut self.table,
        };
        Some((peer, import))
    }

    /// Forgets routes of a peer's family.
    pub(super) fn forget_routes(
        &mut self,
        id: PeerId,
        family: Family,
        which: impl Fn(&InRoute) -> bool,
    ) {
        let Some((peer, mut import)) = self.import(id) else {
            return;
        };
        let routes = peer.received.get(family).routes.iter();
        let gone: Vec<_> = routes
            .filter(|(_, route)| which(route))
            .map(|((prefix, path_id), _)| Nlri {
                prefix: *prefix,
                path_id: *path_id,
            })
            .collect();
        for nlri in gone {
            import.withdraw(peer, nlri);
        }
    }

    /// Marks the routes of a peer's family, and weighs them as marked.
    pub(super) fn mark_routes(&mut self, id: PeerId, family: Family, stale: Freshness) {
        let Some((peer, mut import)) = self.import(id) else {
            return;
        };
        let keys: Vec<_> = peer.received.get(family).routes.keys().copied().collect();
        for key in keys {
            if let Some(route) = peer.received.get_mut(family).routes.get_mut(&key) {
                route.stale = stale;
            }
            import.weigh(peer, key);
        }
    }

    /// Forgets what the peer did not announce again during a refresh (RFC 7313 §4).
    pub(super) fn refresh_ended(&mut self, id: PeerId, family: Family) {
        let refreshing = self
            .peers
            .get_mut(&id)
            .map(|peer| std::mem::take(&mut peer.received.get_mut(family).refreshing));
        if refreshing == Some(true) {
            self.forget_routes(id, family, |route| route.before_refresh);
        }
    }

    fn limit_reached(&mut self, now: Duration, id: PeerId, family: Family, limit: u32) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (name, connection) = (Arc::clone(&peer.name), peer.established().map(|c| c.id));
        self.tell(Event::PrefixLimitReached {
            peer: name,
            family,
            limit,
        });
        // RFC 4486 §4: the family and the limit.
        let afi: u16 = if family == Family::V4 { 1 } else { 2 };
        let mut data = afi.to_be_bytes().to_vec();
        data.push(1);
        data.extend(limit.to_be_bytes());
        let mut told = Notification::with_data(Code::Cease, cease::MAX_PREFIXES, data);
        if peer_keeps_over_notification(self.peers.get(&id)) {
            told = told.into_hard_reset();
        }
        if let Some(connection) = connection {
            self.drop_connection(
                now,
                connection,
                DownReason::MaxPrefixes { family, limit },
                Some(told),
            );
        }
    }

    fn note_near_limit(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let mut events = Vec::new();
        for family in FAMILIES {
            let Some(limit) = *peer.config.max_prefixes.get(family) else {
                continue;
            };
            let received = peer.received.get_mut(family);
            let count = u32::try_from(received.routes.len()).unwrap_or(u32::MAX);
            let near = u64::from(count) * 4 > u64::from(limit.limit) * 3;
            if near && !received.near_limit {
                let peer = Arc::clone(&peer.name);
                events.push(Event::PrefixLimitNear {
                    peer,
                    family,
                    count,
                    limit: limit.limit,
                });
            }
            received.near_limit = near;
        }
        for event in events {
            self.tell(event);
        }
    }

    fn note_findings(&mut self, id: PeerId, findings: &[Finding]) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if findings.iter().any(Finding::withdraws) {
            peer.counters.treated_as_withdraw += 1;
        }
        let discarded = findings
            .iter()
            .filter(|f| f.action == ErrorAction::Discard)
            .count();
        peer.counters.attributes_discarded += u64::try_from(discarded).unwrap_or(0);
        let name = Arc::clone(&peer.name);
        for finding in findings {
            self.tell(Event::AttributeError {
                peer: Arc::clone(&name),
                detail: finding.to_string(),
            });
        }
    }
}

impl Import<'_> {
    /// Takes an announcement; returns the family and the limit if that ends the session.
    fn announce(&mut self, peer: &mut Peer, announcement: Announcement) -> Option<(Family, u32)> {
        let attributes = self.interner.intern(announcement.attributes);
        for nlri in announcement.nlri {
            let family = nlri.prefix.family();
            let limit = *peer.config.max_prefixes.get(family);
            let received = peer.received.get_mut(family);
            let key = (nlri.prefix, nlri.path_id);
            if let Some(limit) = limit {
                let full =
                    received.routes.len() >= usize::try_from(limit.limit).unwrap_or(usize::MAX);
                if full && !received.routes.contains_key(&key) {
                    match limit.over {
                        OverLimit::Stop { .. } => return Some((family, limit.limit)),
                        OverLimit::Discard => continue,
                    }
                }
            }
            let route = InRoute {
                attributes: Arc::clone(&attributes),
                rejection: None,
                stale: Freshness::Fresh,
                before_refresh: false,
            };
            if let Some(before) = received.routes.insert(key, route)
                && before.rejection.is_none()
            {
                received.accepted -= 1;
            }
            self.place(peer, key);
        }
        None
    }

    fn withdraw(&mut self, peer: &mut Peer, nlri: Nlri) {
        let received = peer.received.get_mut(nlri.prefix.family());
        if let Some(route) = received.routes.remove(&(nlri.prefix, nlri.path_id)) {
            if route.rejection.is_none() {
                received.accepted -= 1;
            }
            self.table.remove(&nlri.prefix, Some(peer.id), nlri.path_id);
        }
    }

    /// Weighs a route that is in the Adj-RIB-In already.
    fn weigh(&mut self, peer: &mut Peer, key: (Cidr, u32)) {
        let received = peer.received.get_mut(key.0.family());
        let Some(route) = received.routes.get(&key) else {
            return;
        };
        if route.rejection.is_none() {
            received.accepted -= 1;
        }
        self.place(peer, key);
    }

    /// Brings a route of the Adj-RIB-In, counted as rejected, through policy into the table.
    fn place(&mut self, peer: &mut Peer, key: (Cidr, u32)) {
        let (prefix, path_id) = key;
        let Some(source) = peer.source.clone() else {
            return;
        };
        let local_address = peer.known.as_ref().and_then(|known| known.local_address);
        let asn = peer.known.as_ref().map(|known| known.asn);
        let Some(route) = peer.received.get(prefix.family()).routes.get(&key) else {
            return;
        };
        let taken = self.judge(&peer.config, &source, prefix, route, local_address, asn);
        let stale = route.stale;
        match &taken {
            Ok(attributes) => {
                let source = PathSource::Peer(source);
                self.table.set(prefix, &source, path_id, attributes, stale);
            }
            Err(_) => self.table.remove(&prefix, Some(peer.id), path_id),
        }
        let received = peer.received.get_mut(prefix.family());
        received.accepted += u32::from(taken.is_ok());
        if let Some(route) = received.routes.get_mut(&key) {
            route.rejection = taken.err();
        }
    }

    fn judge(
        &mut self,
        config: &PeerConfig,
        source: &PeerSource,
        prefix: Cidr,
        route: &InRoute,
        local_address: Option<IpAddr>,
        asn: Option<AsNumber>,
    ) -> Result<Arc<Attributes>, Rejection> {
        let attributes = &route.attributes;
        self.loops(config, source, attributes)?;
        let first = attributes.as_path.first();
        if source.external && config.enforce_first_as && (first.is_none() || first != asn) {
            return Err(Rejection::FirstAs);
        }
        if !usable(attributes.next_hop) || Some(attributes.next_hop.address) == local_address {
            return Err(Rejection::NextHop);
        }
        if route.stale == Freshness::LongLived && attributes.has_community(Community::NO_LLGR) {
            return Err(Rejection::NotWantedStale);
        }
        let candidate = Candidate {
            prefix,
            attributes,
            source: RouteSource::Peer {
                address: source.address,
            },
            external: source.external,
        };
        let mut taken = match &config.import {
            Some(policy) => match policy.evaluate(&candidate) {
                Outcome::Accept { attributes, .. } => attributes,
                Outcome::Reject(rule) => return Err(Rejection::Policy(rule)),
            },
            // RFC 8212.
            None if source.external => return Err(Rejection::NoPolicy),
            None => std::borrow::Cow::Borrowed(&**attributes),
        };
        if route.stale == Freshness::LongLived {
            taken.to_mut().add_community(Community::LLGR_STALE);
        }
        // RFC 8326 §4: what is about to go is used last.
        if source.external && taken.has_community(Community::GRACEFUL_SHUTDOWN) {
            taken.to_mut().local_pref = Some(0);
        }
        Ok(match taken {
            std::borrow::Cow::Borrowed(_) => Arc::clone(attributes),
            std::borrow::Cow::Owned(changed) => self.interner.intern(changed),
        })
    }

    fn loops(
        &self,
        config: &PeerConfig,
        source: &PeerSource,
        attributes: &Attributes,
    ) -> Result<(), Rejection> {
        if attributes.as_path.count(self.own_as) > usize::from(config.allow_own_as) {
            return Err(Rejection::AsLoop);
        }
        if !source.external {
            if attributes.originator_id == Some(self.router_id) {
                return Err(Rejection::OriginatorLoop);
            }
            if attributes.cluster_list.contains(&self.cluster) {
                return Err(Rejection::ClusterLoop);
            }
        }
        Ok(())
    }
}

/// Whether packets can be sent to a next hop at all (RFC 4271 §6.3).
fn usable(next_hop: NextHop) -> bool {
    match next_hop.address {
        IpAddr::V4(address) => {
            !address.is_unspecified()
                && !address.is_multicast()
                && !address.is_broadcast()
                && !address.is_loopback()
        }
        IpAddr::V6(address) => {
            !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
        }
    }
}

fn peer_keeps_over_notification(peer: Option<&Peer>) -> bool {
    let session: Option<&Session> = peer.and_then(Peer::session);
    session.is_some_and(|session| session.graceful.notification)
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = match self.action {
            ErrorAction::Discard => "attribute passed over",
            ErrorAction::TreatAsWithdraw => "routes taken as withdrawn",
        };
        let mut hex = String::new();
        for octet in self.octets.iter().take(HEX_MAX) {
            let _ = write!(hex, "{octet:02x}");
        }
        let more = if self.octets.len() > HEX_MAX {
            "…"
        } else {
            ""
        };
        write!(
            f,
            "attribute {}: {}; {done}; octets {hex}{more}",
            self.code, self.what
        )
    }
}

/// The most octets of an attribute that people are shown.
const HEX_MAX: usize = 64;
