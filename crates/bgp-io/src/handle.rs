//! What others hold of a running speaker.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{
    AdvertisedRoute, BestRoute, Event, LocalRoute, PeerStatus, ReceivedRoute, SpeakerConfig, Stop,
    TableEntry,
};
use margay_model::Cidr;
use tokio::sync::{mpsc, oneshot};

use crate::error::Error;

/// A running speaker; clones are the same speaker, which stops when the last is gone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
}

/// All peers at a moment.
#[derive(Debug, Clone)]
pub struct Peers {
    /// The moment, in the speaker's time: what [`PeerStatus::since`] is to be taken from.
    pub now: Duration,
    /// The peers.
    pub peers: Vec<PeerStatus>,
    /// Connections that were refused since the start because too many came from one source.
    pub throttled: u64,
}

/// What is different since news were last taken.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// The prefixes whose best routes are others, with those; `None` where there are none.
    pub best: BTreeMap<Cidr, Option<Arc<BestRoute>>>,
    /// Whether the table became complete after the start: what it does not have is gone.
    pub converged: bool,
    /// What happened, the oldest first.
    pub events: Vec<Event>,
    /// How many events were left out because too many came.
    pub events_lost: u64,
    /// Passwords that the listening sockets did not take.
    pub password_errors: Vec<String>,
}

/// Where news come from.
#[derive(Debug)]
pub struct NewsReceiver {
    pub(crate) news: mpsc::Receiver<News>,
}

/// What a speaker is told or asked.
#[derive(Debug)]
pub(crate) enum Command {
    Configure(Box<SpeakerConfig>),
    Listen(Vec<SocketAddr>, oneshot::Sender<Result<(), Error>>),
    Announce(Vec<LocalRoute>),
    Withdraw(Vec<Cidr>),
    SetLocalRoutes(Vec<LocalRoute>),
    SetNextHops(BTreeMap<IpAddr, Option<u32>>),
    Reset(String, oneshot::Sender<bool>),
    RefreshIn(String, oneshot::Sender<bool>),
    RefreshOut(String, oneshot::Sender<bool>),
    Peers(oneshot::Sender<Peers>),
    Received(String, oneshot::Sender<Option<Vec<ReceivedRoute>>>),
    Advertised(String, oneshot::Sender<Option<Vec<AdvertisedRoute>>>),
    Table(oneshot::Sender<Vec<TableEntry>>),
    Stop(Stop, oneshot::Sender<()>),
}

impl NewsReceiver {
    /// Waits for news; `None` when the speaker has stopped.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

impl Handle {
    /// Has the speaker do what `config` says from now on, and nothing else.
    ///
    /// # Errors
    /// [`Error::Stopped`], as for every other call.
    pub async fn configure(&self, config: SpeakerConfig) -> Result<(), Error> {
        self.tell(Command::Configure(Box::new(config))).await
    }

    /// Listens on these addresses and on no others. Sessions that are up stay.
    ///
    /// # Errors
    /// [`Error::Listen`] for the first that cannot be had; the others are listened on.
    pub async fn listen(&self, addresses: Vec<SocketAddr>) -> Result<(), Error> {
        self.ask(|answer| Command::Listen(addresses, answer))
            .await?
    }

    /// Announces routes of our own, each in the place of an earlier one of the same prefix.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn announce(&self, routes: Vec<LocalRoute>) -> Result<(), Error> {
        self.tell(Command::Announce(routes)).await
    }

    /// Withdraws routes of our own.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn withdraw(&self, prefixes: Vec<Cidr>) -> Result<(), Error> {
        self.tell(Command::Withdraw(prefixes)).await
    }

    /// Has these routes, and no others, as our own.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn set_local_routes(&self, routes: Vec<LocalRoute>) -> Result<(), Error> {
        self.tell(Command::SetLocalRoutes(routes)).await
    }

    /// Says how far next hops are; `None` for one that cannot be reached.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn set_next_hops(&self, metrics: BTreeMap<IpAddr, Option<u32>>) -> Result<(), Error> {
        self.tell(Command::SetNextHops(metrics)).await
    }

    /// Ends the session with a peer and starts it anew; whether there is such a peer.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn reset(&self, peer: &str) -> Result<bool, Error> {
        self.ask(|answer| Command::Reset(peer.to_owned(), answer))
            .await
    }

    /// Asks a peer for all its routes again; whether it can be asked.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn refresh_in(&self, peer: &str) -> Result<bool, Error> {
        self.ask(|answer| Command::RefreshIn(peer.to_owned(), answer))
            .await
    }

    /// Tells a peer all its routes again; whether there is a session.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn refresh_out(&self, peer: &str) -> Result<bool, Error> {
        self.ask(|answer| Command::RefreshOut(peer.to_owned(), answer))
            .await
    }

    /// All peers as they are.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn peers(&self) -> Result<Peers, Error> {
        self.ask(Command::Peers).await
    }

    /// The routes of a peer as it announced them; `None` if there is no such peer.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn received_routes(&self, peer: &str) -> Result<Option<Vec<ReceivedRoute>>, Error> {
        self.ask(|answer| Command::Received(peer.to_owned(), answer))
            .await
    }

    /// The routes a peer is announced; `None` if there is no such peer.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn advertised_routes(
        &self,
        peer: &str,
    ) -> Result<Option<Vec<AdvertisedRoute>>, Error> {
        self.ask(|answer| Command::Advertised(peer.to_owned(), answer))
            .await
    }

    /// The whole table.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn table(&self) -> Result<Vec<TableEntry>, Error> {
        self.ask(Command::Table).await
    }

    /// Stops the speaker; returns when peers have been told what they are to be told.
    ///
    /// # Errors
    /// See [`Handle::configure`].
    pub async fn stop(&self, how: Stop) -> Result<(), Error> {
        self.ask(|answer| Command::Stop(how, answer)).await
    }

    async fn tell(&self, command: Command) -> Result<(), Error> {
        self.commands
            .send(command)
            .await
            .map_err(|_| Error::Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.tell(command(answer)).await?;
        answered.await.map_err(|_| Error::Stopped)
    }
}
