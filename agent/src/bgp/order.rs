//! What the engine orders of BGP, and what it hears back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_bgp::policy::PrefixSet;
use margay_bgp::{LocalRoute, SpeakerConfig};
use margay_model::Cidr;
use margay_peering::{Peering, TAG_SERVICE};
use margay_route::{PROTOCOL, Route, RouteKey};

use crate::calculate::{Picture, Source, Way};

/// All that the speaker is to do, whole at every change.
#[derive(Debug, Clone)]
pub struct Order {
    /// Sessions and the like; the same value as long as nothing changed.
    pub peering: Arc<Peering>,
    /// Routes of our own that may be announced now.
    pub announced: BTreeMap<Cidr, LocalRoute>,
    /// Whether the kernel forwards by routes of an earlier run.
    pub restarting: bool,
    /// Prefixes that the agent routes, or has nobody route; for a speaker that keeps routes in the kernel
    /// itself.
    pub spared: PrefixSet,
    /// Grows with every order.
    pub version: u64,
}

impl Order {
    /// Whether it asks for the same, whatever its version.
    pub fn is_like(&self, other: &Self) -> bool {
        let peering = Arc::ptr_eq(&self.peering, &other.peering) || self.peering == other.peering;
        peering
            && self.announced == other.announced
            && self.restarting == other.restarting
            && self.spared == other.spared
    }

    /// The speaker's configuration, with peers labelled by their type; `None` where there are none.
    pub fn speaker(&self) -> Option<SpeakerConfig> {
        let speaker = self.peering.speaker.clone();
        let mut speaker = speaker.filter(|speaker| !speaker.peers.is_empty())?;
        for (name, peer) in &mut speaker.peers {
            if let Some(kind) = self.peering.types.get(name) {
                peer.label = kind.to_string();
            }
        }
        Some(speaker)
    }
}

/// What changed in the speaker's table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// The ways to prefixes; `None` where there is none any more.
    pub ways: Vec<(Cidr, Option<Way>)>,
    /// Whether the table is complete for the first time since the start.
    pub converged: bool,
    /// Whether all that was told before is void: the speaker has stopped.
    pub void: bool,
}

/// Of the routes that the node would announce, those whose packets the kernel takes: blocks with their
/// blackhole, addresses with their route. Services' ranges are not the agent's to route.
pub fn announceable(
    peering: &Peering,
    picture: &Picture,
    missing: &BTreeSet<RouteKey>,
) -> BTreeMap<Cidr, LocalRoute> {
    let stands = |prefix: &Cidr| {
        let key = Route::blackhole(prefix.network(), PROTOCOL).key();
        picture.sources.contains_key(&key) && !missing.contains(&key)
    };
    let routes = peering.routes.iter();
    routes
        .filter(|(prefix, route)| route.tag == TAG_SERVICE || stands(prefix))
        .map(|(prefix, route)| (*prefix, route.clone()))
        .collect()
}

/// Prefixes that the agent routes by what it knows from the datastore, or that only encapsulation may lead
/// to; this node's blocks with all that is in them.
pub fn spared(picture: &Picture) -> PrefixSet {
    let mut spared = PrefixSet::exactly(picture.encapsulated.iter().copied());
    for (key, source) in &picture.sources {
        let Some(prefix) = Cidr::new(key.dst.ip(), key.dst.prefix()) else {
            continue;
        };
        match source {
            Source::OwnBlock => {
                spared.insert(prefix, prefix.length(), prefix.family().width());
            }
            Source::Block { .. } | Source::Borrowed { .. } | Source::PeerGateway => {
                spared.insert(prefix, prefix.length(), prefix.length());
            }
            Source::Endpoint(_) | Source::Gateway | Source::Bgp { .. } => {}
        }
    }
    spared
}

#[cfg(test)]
mod tests {
    use margay_peering::{Listen, TAG_BLOCK, TAG_HOST};

    use super::*;

    #[test]
    fn only_what_the_kernel_takes_is_announced() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let route = |text: &str, tag| {
            let route = LocalRoute {
                tag,
                ..LocalRoute::new(cidr(text))
            };
            (cidr(text), route)
        };
        let peering = Peering {
            speaker: None,
            listen: Listen {
                port: 179,
                own_addresses_only: false,
                to_workloads: BTreeSet::new(),
            },
            types: BTreeMap::new(),
            routes: BTreeMap::from([
                route("192.168.0.0/26", TAG_BLOCK),
                route("192.168.1.0/26", TAG_BLOCK),
                route("192.168.2.0/26", TAG_BLOCK),
                route("192.168.3.7/32", TAG_HOST),
                route("10.96.0.0/12", TAG_SERVICE),
            ]),
            gateways: BTreeMap::new(),
            workloads: BTreeMap::new(),
            priorities: (1024, 1024),
            problems: BTreeSet::new(),
        };
        let mut picture = Picture::default();
        let key = |text: &str| Route::blackhole(cidr(text).network(), PROTOCOL).key();
        for text in ["192.168.0.0/26", "192.168.1.0/26"] {
            picture.sources.insert(key(text), Source::OwnBlock);
        }
        let endpoint = Source::Endpoint("a".to_owned());
        picture.sources.insert(key("192.168.3.7/32"), endpoint);
        let missing = BTreeSet::from([key("192.168.1.0/26")]);
        let announced = announceable(&peering, &picture, &missing);
        let prefixes: Vec<String> = announced.keys().map(Cidr::to_string).collect();
        assert_eq!(
            prefixes,
            ["10.96.0.0/12", "192.168.0.0/26", "192.168.3.7/32"]
        );
    }

    #[test]
    fn what_the_agent_routes_is_spared() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let key = |text: &str| Route::blackhole(cidr(text).network(), PROTOCOL).key();
        let mut picture = Picture::default();
        picture.encapsulated.insert(cidr("192.168.9.0/26"));
        let tunnel = false;
        let node = "n2".to_owned();
        let block = cidr("192.168.1.0/26");
        for (prefix, source) in [
            ("192.168.0.0/26", Source::OwnBlock),
            ("192.168.1.0/26", Source::block("n2")),
            (
                "192.168.1.7/32",
                Source::Borrowed {
                    node,
                    block,
                    tunnel,
                },
            ),
            ("192.168.0.5/32", Source::Endpoint("a".to_owned())),
            (
                "10.0.0.0/8",
                Source::Bgp {
                    peer: "tor".to_owned(),
                },
            ),
        ] {
            picture.sources.insert(key(prefix), source);
        }
        let spared = spared(&picture);
        for (prefix, is) in [
            ("192.168.0.0/26", true),
            ("192.168.0.5/32", true),
            ("192.168.1.0/26", true),
            ("192.168.1.7/32", true),
            ("192.168.1.8/32", false),
            ("192.168.9.0/26", true),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(spared.contains(&cidr(prefix)), is, "{prefix}");
        }
    }
}
