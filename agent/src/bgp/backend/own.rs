//! The agent's own speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use margay_bgp::{BestRoute, LocalRoute, Source, SpeakerConfig, Stop};
use margay_bgp_io::{Handle, NewsReceiver, Peers, Settings};
use margay_model::Cidr;
use margay_peering::Problem;
use tracing::{info, warn};

use super::{Routes, Told, no_peer};
use crate::bgp::order::Order;
use crate::bgp::view::RouteView;
use crate::calculate::Way;
use crate::identity;

/// The speaker, and what it was told last.
#[derive(Debug)]
pub struct Own {
    handle: Handle,
    news: NewsReceiver,
    speaker: SpeakerConfig,
    /// Own routes that it was told of.
    announced: BTreeMap<Cidr, LocalRoute>,
    wanted: Vec<SocketAddr>,
    listening: Vec<SocketAddr>,
    /// Why addresses cannot be listened on.
    refused: Option<String>,
}

impl Own {
    /// Starts it, without carrying out more of the order than its configuration.
    pub(super) fn start(order: &Order) -> Result<Self, String> {
        let speaker = order.speaker().ok_or("there is nothing to speak of")?;
        info!(
            as_number = %speaker.asn,
            router_id = %speaker.router_id,
            peers = speaker.peers.len(),
            "BGP starts"
        );
        let seed = identity::random()[..8].try_into().unwrap_or_default();
        let settings = Settings {
            listen: Vec::new(),
            speaker: speaker.clone(),
            seed: u64::from_be_bytes(seed),
            restarting: order.restarting,
        };
        let (handle, news) = margay_bgp_io::start(settings).map_err(|failed| failed.to_string())?;
        Ok(Self {
            handle,
            news,
            speaker,
            announced: BTreeMap::new(),
            wanted: Vec::new(),
            listening: Vec::new(),
            refused: None,
        })
    }

    pub(super) async fn obey(&mut self, order: &Order) {
        if let Some(speaker) = order.speaker().filter(|speaker| *speaker != self.speaker) {
            let _ = self.handle.configure(speaker.clone()).await;
            self.speaker = speaker;
        }
        let (gone, changed) = differences(&self.announced, &order.announced);
        if !gone.is_empty() {
            let _ = self.handle.withdraw(gone).await;
        }
        if !changed.is_empty() {
            let _ = self.handle.announce(changed).await;
        }
        self.announced.clone_from(&order.announced);
        self.wanted = addresses(order);
        if self.listening != self.wanted {
            self.listen().await;
        }
    }

    pub(super) async fn next(&mut self) -> Option<Told> {
        let news = self.news.next().await?;
        let mut warnings = Vec::new();
        if news.events_lost > 0 {
            let count = news.events_lost;
            warnings.push(format!(
                "{count} events of BGP were left out: too many came"
            ));
        }
        let refused = news.password_errors.iter();
        warnings.extend(
            refused.map(|error| format!("a listening socket does not take a password: {error}")),
        );
        let ways = news.best.iter();
        Some(Told {
            ways: ways
                .map(|(prefix, best)| (*prefix, best.as_deref().and_then(way)))
                .collect(),
            converged: news.converged,
            events: news.events,
            warnings,
        })
    }

    pub(super) async fn retry(&mut self) {
        if self.refused.is_some() {
            self.listen().await;
        }
    }

    /// Listens where it is wanted; remembers what cannot be had.
    async fn listen(&mut self) {
        let before = self.refused.take();
        if let Err(failed) = self.handle.listen(self.wanted.clone()).await {
            let reason = format!("{failed}; peers cannot connect to this node there");
            if before.as_ref() != Some(&reason) {
                warn!("{reason}");
            }
            self.refused = Some(reason);
        }
        self.listening.clone_from(&self.wanted);
    }

    pub(super) fn listening(&self) -> Vec<String> {
        self.listening.iter().map(ToString::to_string).collect()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let refused = self.refused.iter();
        refused
            .map(|reason| Problem {
                object: "BGP port".to_owned(),
                reason: reason.clone(),
            })
            .collect()
    }

    pub(super) async fn peers(&self) -> Option<Peers> {
        self.handle.peers().await.ok()
    }

    pub(super) async fn table(&self) -> Routes {
        let table = self.handle.table().await.map_err(|_| stopped())?;
        Ok(table.iter().flat_map(RouteView::table).collect())
    }

    pub(super) async fn received(&self, peer: &str) -> Routes {
        let routes = self.handle.received_routes(peer).await;
        let routes = routes
            .map_err(|_| stopped())?
            .ok_or_else(|| no_peer(peer))?;
        Ok(routes.iter().map(RouteView::received).collect())
    }

    pub(super) async fn advertised(&self, peer: &str) -> Routes {
        let routes = self.handle.advertised_routes(peer).await;
        let routes = routes
            .map_err(|_| stopped())?
            .ok_or_else(|| no_peer(peer))?;
        Ok(routes.iter().map(RouteView::advertised).collect())
    }

    pub(super) async fn stop(&self, how: Stop) {
        let _ = self.handle.stop(how).await;
    }
}

/// The prefixes that are announced no more, and the routes that are new or others.
fn differences(
    before: &BTreeMap<Cidr, LocalRoute>,
    now: &BTreeMap<Cidr, LocalRoute>,
) -> (Vec<Cidr>, Vec<LocalRoute>) {
    let gone = before.keys().filter(|prefix| !now.contains_key(prefix));
    let changed = now
        .iter()
        .filter(|(prefix, route)| before.get(prefix) != Some(route));
    (
        gone.copied().collect(),
        changed.map(|(_, route)| route.clone()).collect(),
    )
}

fn stopped() -> (u16, String) {
    (503, "the BGP speaker has stopped".to_owned())
}

/// Where connections are to be awaited: of both families, or on the node's own addresses.
fn addresses(order: &Order) -> Vec<SocketAddr> {
    let listen = &order.peering.listen;
    let speaker = order.peering.speaker.as_ref();
    let own = |speaker: &SpeakerConfig| {
        let v4 = speaker.address_v4.map(IpAddr::V4);
        v4.into_iter()
            .chain(speaker.address_v6.map(IpAddr::V6))
            .chain(listen.to_workloads.iter().copied())
            .collect()
    };
    let addresses: Vec<IpAddr> = if listen.own_addresses_only {
        speaker.map(own).unwrap_or_default()
    } else {
        let six = speaker.is_some_and(|speaker| speaker.address_v6.is_some());
        let any = six.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        [IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
            .into_iter()
            .chain(any)
            .collect()
    };
    let at_port = |address| SocketAddr::new(address, listen.port);
    addresses.into_iter().map(at_port).collect()
}

/// The way of a best route; none for our own.
fn way(best: &BestRoute) -> Option<Way> {
    let Source::Peer { name, .. } = &best.source else {
        return None;
    };
    Some(Way {
        next_hops: best.next_hops.iter().map(|hop| hop.address).collect(),
        peer: name.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_different_is_told() {
        let routes = |all: &[(&str, u32)]| -> BTreeMap<Cidr, LocalRoute> {
            let one = |(prefix, tag): &(&str, u32)| {
                let prefix = prefix.parse().unwrap();
                let route = LocalRoute {
                    tag: *tag,
                    ..LocalRoute::new(prefix)
                };
                (prefix, route)
            };
            all.iter().map(one).collect()
        };
        let before = routes(&[
            ("10.65.0.0/26", 1),
            ("10.65.1.0/26", 1),
            ("10.65.2.0/26", 1),
        ]);
        let now = routes(&[
            ("10.65.1.0/26", 1),
            ("10.65.2.0/26", 2),
            ("10.65.3.0/26", 1),
        ]);
        let (gone, changed) = differences(&before, &now);
        let texts =
            |prefixes: Vec<Cidr>| -> Vec<String> { prefixes.iter().map(Cidr::to_string).collect() };
        assert_eq!(texts(gone), ["10.65.0.0/26"]);
        let changed = changed.iter().map(|route| route.prefix).collect();
        assert_eq!(texts(changed), ["10.65.2.0/26", "10.65.3.0/26"]);
        assert_eq!(differences(&now, &now.clone()), (Vec::new(), Vec::new()));
    }
}
