//! The task that runs the speaker: carries out orders, passes on news, answers questions.
//!
//! There is a speaker, and a port that is listened on, only while there are peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use margay_bgp::{BestRoute, Event, Source, Stop};
use margay_bgp_io::{Handle, News as IoNews, NewsReceiver, Settings};
use margay_model::Cidr;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::order::{News, Order};
use super::view::{BgpStatus, RouteView};
use crate::calculate::Way;
use crate::identity;
use crate::metrics::BgpMetrics;

/// What the task is given.
#[derive(Debug)]
pub struct Task {
    /// What is to be done.
    pub orders: watch::Receiver<Option<Order>>,
    /// Where it is told which version of the orders has been carried out.
    pub obeyed: watch::Sender<u64>,
    /// Where it is told what changed in the table.
    pub news: mpsc::Sender<News>,
    /// Where the state is shown.
    pub status: watch::Sender<BgpStatus>,
    /// Questions of people.
    pub questions: mpsc::Receiver<Question>,
    /// Figures.
    pub metrics: BgpMetrics,
}

/// What people ask, and where they are answered.
#[derive(Debug)]
pub struct Question {
    /// What.
    pub about: About,
    /// HTTP's status and the document.
    pub answer: oneshot::Sender<(u16, Value)>,
}

/// What people ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// The whole table.
    Table,
    /// What a peer, by name or address, announced.
    Received(String),
    /// What a peer, by name or address, is announced.
    Advertised(String),
}

impl About {
    /// From the path of a request; `None` if it asks for none of this.
    pub fn from_path(path: &str) -> Option<Self> {
        if path == "/bgp/routes" {
            return Some(Self::Table);
        }
        let peer = |prefix: &str| path.strip_prefix(prefix).map(str::to_owned);
        peer("/bgp/routes/received/")
            .map(Self::Received)
            .or_else(|| peer("/bgp/routes/advertised/").map(Self::Advertised))
    }
}

/// The speaker while it runs, and what it was told last.
struct Running {
    handle: Handle,
    news: NewsReceiver,
    order: Order,
    listening: Vec<SocketAddr>,
    /// Addresses that could not be listened on.
    refused: Option<String>,
}

impl Task {
    /// Works until `stop` changes. Peers keep our routes then, if they agreed to.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut running: Option<Running> = None;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                changed = self.orders.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let order = self.orders.borrow_and_update().clone();
                    if let Some(order) = order {
                        let version = order.version;
                        running = self.obey(running, order).await;
                        self.obeyed.send_replace(version);
                    }
                }
                news = hear(&mut running) => match news {
                    Some(news) => self.pass_on(news).await,
                    None => {
                        error!("the BGP speaker ended; it is started anew");
                        let order = running.take().map(|running| running.order);
                        self.void().await;
                        if let Some(order) = order {
                            running = self.obey(None, order).await;
                        }
                    }
                },
                Some(question) = self.questions.recv() => {
                    let answer = reply(running.as_ref(), &question.about).await;
                    // Whoever asked may have gone.
                    let _ = question.answer.send(answer);
                }
                _ = look.tick() => {
                    if let Some(running) = running.as_mut().filter(|r| r.refused.is_some()) {
                        listen(running).await;
                    }
                    self.show(running.as_ref()).await;
                }
            }
        }
        if let Some(running) = running {
            let farewell = running.handle.stop(Stop::KeepForwarding);
            let _ = timeout(FAREWELL, farewell).await;
        }
    }

    /// Carries out an order.
    async fn obey(&mut self, running: Option<Running>, order: Order) -> Option<Running> {
        let speaker = order.peering.speaker.clone();
        let speaker = speaker.filter(|speaker| !speaker.peers.is_empty());
        let Some(mut speaker) = speaker else {
            if let Some(running) = running {
                info!("there are no BGP peers any more; BGP stops");
                let farewell = Stop::Withdraw("no peer is configured any more".to_owned());
                let _ = timeout(FAREWELL, running.handle.stop(farewell)).await;
                self.void().await;
            }
            self.show(None).await;
            return None;
        };
        for (name, peer) in &mut speaker.peers {
            if let Some(kind) = order.peering.types.get(name) {
                peer.label = kind.to_string();
            }
        }
        let routes: Vec<_> = order.announced.values().cloned().collect();
        let mut running = match running {
            Some(mut running) => {
                if running.order.peering.speaker != order.peering.speaker {
                    let _ = running.handle.configure(speaker).await;
                }
                running.order = order;
                running
            }
            None => {
                info!(
                    as_number = %speaker.asn,
                    router_id = %speaker.router_id,
                    peers = speaker.peers.len(),
                    "BGP starts"
                );
                let seed = identity::random()[..8].try_into().unwrap_or_default();
                let settings = Settings {
                    listen: Vec::new(),
                    speaker,
                    seed: u64::from_be_bytes(seed),
                    restarting: order.restarting,
                };
                match margay_bgp_io::start(settings) {
                    Ok((handle, news)) => Running {
                        handle,
                        news,
                        order,
                        listening: Vec::new(),
                        refused: None,
                    },
                    Err(failed) => {
                        error!(error = %failed, "BGP cannot start");
                        return None;
                    }
                }
            }
        };
        let _ = running.handle.set_local_routes(routes).await;
        if running.listening != addresses(&running.order) {
            listen(&mut running).await;
        }
        self.show(Some(&running)).await;
        Some(running)
    }

    /// Tells that what the speaker told is gone with it.
    async fn void(&self) {
        let news = News {
            void: true,
            converged: true,
            ..News::default()
        };
        let _ = self.news.send(news).await;
    }

    async fn pass_on(&self, news: IoNews) {
        for event in &news.events {
            tell(event);
        }
        if news.events_lost > 0 {
            warn!(
                count = news.events_lost,
                "events of BGP were left out: too many came"
            );
        }
        for error in &news.password_errors {
            warn!(%error, "a listening socket does not take a password");
        }
        let ways = news.best.iter();
        let ways: Vec<_> = ways
            .map(|(prefix, best)| (*prefix, best.as_deref().and_then(way)))
            .collect();
        let news = News {
            ways,
            converged: news.converged,
            void: false,
        };
        if !news.ways.is_empty() || news.converged {
            let _ = self.news.send(news).await;
        }
    }

    /// Shows peers and figures.
    async fn show(&self, running: Option<&Running>) {
        let order = self.orders.borrow().clone();
        let mut status = BgpStatus::default();
        if let Some(order) = &order {
            status.problems = order.peering.problems.iter().cloned().collect();
        }
        if let Some(running) = running {
            let order = &running.order;
            if let Some(speaker) = &order.peering.speaker {
                status.as_number = Some(speaker.asn.0);
                status.router_id = Some(speaker.router_id.to_string());
            }
            status.listening = running.listening.iter().map(ToString::to_string).collect();
            status.announced = order.announced.keys().map(Cidr::to_string).collect();
            if let Some(reason) = &running.refused {
                status.problems.push(margay_peering::Problem {
                    object: "BGP port".to_owned(),
                    reason: reason.clone(),
                });
            }
            if let Ok(peers) = running.handle.peers().await {
                let types = &order.peering.types;
                status.describe(peers.peers, types, identity::now(), peers.now);
            }
        }
        self.metrics.show(&status);
        self.status.send_replace(status);
    }
}

/// News of the speaker that runs; waits for ever where none does.
async fn hear(running: &mut Option<Running>) -> Option<IoNews> {
    match running {
        Some(running) => running.news.next().await,
        None => std::future::pending().await,
    }
}

/// Listens where the order says; remembers what cannot be had.
async fn listen(running: &mut Running) {
    let wanted = addresses(&running.order);
    let before = running.refused.take();
    if let Err(failed) = running.handle.listen(wanted.clone()).await {
        let reason = format!("{failed}; peers cannot connect to this node there");
        if before.as_ref() != Some(&reason) {
            warn!("{reason}");
        }
        running.refused = Some(reason);
    }
    running.listening = wanted;
}

/// Where connections are to be awaited: of both families, or on the node's own addresses.
fn addresses(order: &Order) -> Vec<SocketAddr> {
    let listen = &order.peering.listen;
    let speaker = order.peering.speaker.as_ref();
    let own = |speaker: &margay_bgp::SpeakerConfig| {
        let v4 = speaker.address_v4.map(IpAddr::V4);
        v4.into_iter()
            .chain(speaker.address_v6.map(IpAddr::V6))
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

async fn reply(running: Option<&Running>, about: &About) -> (u16, Value) {
    let refuse = |status: u16, reason: &str| (status, json!({ "error": reason }));
    let Some(running) = running else {
        return match about {
            About::Table => (200, json!([])),
            _ => refuse(404, "there are no BGP peers"),
        };
    };
    let stopped = || refuse(503, "the BGP speaker has stopped");
    let handle = &running.handle;
    match about {
        About::Table => match handle.table().await {
            Ok(table) => {
                let routes: Vec<_> = table.iter().flat_map(RouteView::table).collect();
                (200, json!(routes))
            }
            Err(_) => stopped(),
        },
        About::Received(peer) => match handle.received_routes(&named(running, peer)).await {
            Ok(Some(routes)) => {
                let routes: Vec<_> = routes.iter().map(RouteView::received).collect();
                (200, json!(routes))
            }
            Ok(None) => refuse(404, &format!("there is no BGP peer {peer}")),
            Err(_) => stopped(),
        },
        About::Advertised(peer) => match handle.advertised_routes(&named(running, peer)).await {
            Ok(Some(routes)) => {
                let routes: Vec<_> = routes.iter().map(RouteView::advertised).collect();
                (200, json!(routes))
            }
            Ok(None) => refuse(404, &format!("there is no BGP peer {peer}")),
            Err(_) => stopped(),
        },
    }
}

/// The name of a peer that was asked for by name or address.
fn named(running: &Running, asked: &str) -> String {
    let by_address = || {
        let address: IpAddr = asked.parse().ok()?;
        let speaker = running.order.peering.speaker.as_ref()?;
        let mut peers = speaker.peers.iter();
        peers
            .find(|(_, peer)| peer.address == address)
            .map(|(name, _)| name.clone())
    };
    by_address().unwrap_or_else(|| asked.to_owned())
}

/// An event in the log.
fn tell(event: &Event) {
    match event {
        Event::PeerUp {
            peer, address, asn, ..
        } => info!(%peer, %address, as_number = %asn, "BGP session up"),
        Event::PeerDown {
            peer,
            address,
            reason,
            kept,
        } => warn!(%peer, %address, routes_kept = kept, "BGP session down: {reason}"),
        Event::PeerFailed {
            peer,
            address,
            reason,
        } => info!(%peer, %address, "BGP session does not come up: {reason}"),
        Event::PrefixLimitNear {
            peer,
            family,
            count,
            limit,
        } => warn!(%peer, "BGP peer announces {count} {family} prefixes of at most {limit}"),
        Event::PrefixLimitReached {
            peer,
            family,
            limit,
        } => error!(%peer, "BGP peer announces more than {limit} {family} prefixes"),
        Event::AttributeError { peer, detail } => {
            warn!(%peer, "BGP peer sent an UPDATE with an error: {detail}");
        }
        Event::ConnectionRefused { address, reason } => {
            info!(%address, "BGP connection refused: {reason}");
        }
    }
}

/// Between two looks at the peers.
const LOOK: Duration = Duration::from_secs(1);
/// How long the speaker may take to stop.
const FAREWELL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_questions() {
        assert_eq!(About::from_path("/bgp/routes"), Some(About::Table));
        assert_eq!(
            About::from_path("/bgp/routes/received/10.0.0.2"),
            Some(About::Received("10.0.0.2".to_owned()))
        );
        assert_eq!(
            About::from_path("/bgp/routes/advertised/Mesh_10_0_0_2"),
            Some(About::Advertised("Mesh_10_0_0_2".to_owned()))
        );
        assert_eq!(About::from_path("/bgp/peers"), None);
    }
}
