//! The task that runs the speaker: carries out orders, passes on news, answers questions.
//!
//! There is a speaker, and a port that is listened on, only while there are peers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use margay_bgp::{Event, Stop};
use margay_model::Cidr;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use super::backend::{Backend, Speaker, Told};
use super::order::{News, Order};
use super::view::BgpStatus;
use crate::identity;
use crate::metrics::BgpMetrics;

/// What the task is given.
#[derive(Debug)]
pub struct Task {
    /// Which program speaks BGP.
    pub backend: Backend,
    /// Where programs that speak BGP have their files.
    pub directory: PathBuf,
    /// Why there is no speaker although there should be.
    pub refused: Option<String>,
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
    speaker: Speaker,
    order: Order,
}

impl Task {
    /// Works until `stop` changes. Peers keep our routes then, if they agreed to.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.backend.retire_others(&self.directory).await;
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
                told = hear(&mut running) => match told {
                    Some(told) => self.pass_on(told).await,
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
                    let answer = reply(running.as_mut(), &question.about).await;
                    // Whoever asked may have gone.
                    let _ = question.answer.send(answer);
                }
                _ = look.tick() => {
                    if let Some(running) = running.as_mut() {
                        running.speaker.retry().await;
                    }
                    self.show(running.as_mut()).await;
                }
            }
        }
        if let Some(mut running) = running {
            let farewell = running.speaker.stop(Stop::KeepForwarding);
            let _ = timeout(FAREWELL, farewell).await;
        }
    }

    /// Carries out an order.
    async fn obey(&mut self, running: Option<Running>, order: Order) -> Option<Running> {
        if order.speaker().is_none() {
            if let Some(mut running) = running {
                info!("there are no BGP peers any more; BGP stops");
                let farewell = Stop::Withdraw("no peer is configured any more".to_owned());
                let _ = timeout(WITHDRAWAL, running.speaker.stop(farewell)).await;
                self.void().await;
            }
            self.show(None).await;
            return None;
        }
        let mut running = match running {
            Some(running) => Running { order, ..running },
            None => match self.backend.start(&order).await {
                Ok(speaker) => Running { speaker, order },
                Err(reason) => {
                    error!("BGP cannot start: {reason}");
                    self.refused = Some(reason);
                    self.show(None).await;
                    return None;
                }
            },
        };
        self.refused = None;
        running.speaker.obey(&running.order).await;
        self.show(Some(&mut running)).await;
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

    async fn pass_on(&self, told: Told) {
        for event in &told.events {
            tell(event);
        }
        for warning in &told.warnings {
            warn!("{warning}");
        }
        let news = News {
            ways: told.ways,
            converged: told.converged,
            void: false,
        };
        if !news.ways.is_empty() || news.converged {
            let _ = self.news.send(news).await;
        }
    }

    /// Shows peers and figures.
    async fn show(&self, running: Option<&mut Running>) {
        let order = self.orders.borrow().clone();
        let mut status = BgpStatus::default();
        if let Some(order) = &order {
            status.problems = order.peering.problems.iter().cloned().collect();
        }
        if let Some(reason) = &self.refused {
            status.problems.push(margay_peering::Problem {
                object: "BGP speaker".to_owned(),
                reason: reason.clone(),
            });
        }
        if let Some(running) = running {
            let order = &running.order;
            if let Some(speaker) = &order.peering.speaker {
                status.as_number = Some(speaker.asn.0);
                status.router_id = Some(speaker.router_id.to_string());
            }
            status.listening = running.speaker.listening();
            status.announced = order.announced.keys().map(Cidr::to_string).collect();
            status.problems.extend(running.speaker.problems());
            if let Some(peers) = running.speaker.peers().await {
                let types = &order.peering.types;
                status.throttled = peers.throttled;
                status.describe(peers.peers, types, identity::now(), peers.now);
            }
        }
        self.metrics.show(&status);
        self.status.send_replace(status);
    }
}

/// What the speaker that runs tells; waits for ever where none does.
async fn hear(running: &mut Option<Running>) -> Option<Told> {
    match running {
        Some(running) => running.speaker.next().await,
        None => std::future::pending().await,
    }
}

async fn reply(running: Option<&mut Running>, about: &About) -> (u16, Value) {
    let refuse = |status: u16, reason: &str| (status, json!({ "error": reason }));
    let Some(running) = running else {
        return match about {
            About::Table => (200, json!([])),
            _ => refuse(404, "there are no BGP peers"),
        };
    };
    let routes = match about {
        About::Table => running.speaker.table().await,
        About::Received(peer) => {
            let peer = named(running, peer);
            running.speaker.received(&peer).await
        }
        About::Advertised(peer) => {
            let peer = named(running, peer);
            running.speaker.advertised(&peer).await
        }
    };
    match routes {
        Ok(routes) => (200, json!(routes)),
        Err((status, reason)) => refuse(status, &reason),
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
/// How long the speaker may take to withdraw everything and stop.
const WITHDRAWAL: Duration = Duration::from_secs(20);
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
