//! GoBGP as the speaker: a child that is told everything over its gRPC API, and goes on while the agent is
//! away. It keeps no routes in the kernel; its best routes come to the agent, as its own speaker's do.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_bgp::{LocalRoute, PeerStatus, SpeakerConfig, State, Stop};
use margay_bgp_io::Peers;
use margay_gobgp::{Policies, api, own_path, peer, policies, prefix, view};
use margay_model::{Cidr, Family};
use margay_peering::Problem;
use prost::Message as _;
use tokio::process::Child;
use tokio::time::{Instant, Interval, sleep};
use tracing::{error, info, warn};

use super::sessions::{self, Flaps};
use super::{Routes, Told, daemon, no_peer};
use crate::bgp::order::Order;
use crate::bgp::view::RouteView;
use crate::calculate::Way;
use client::{Client, Events};

/// GoBGP, and what it was told last.
#[derive(Debug)]
pub struct Gobgp {
    program: PathBuf,
    directory: PathBuf,
    /// `None` for one that an earlier agent started.
    child: Option<Child>,
    client: Client,
    order: Order,
    speaker: SpeakerConfig,
    applied: api::Applied,
    policies: Option<api::SetPoliciesRequest>,
    /// When routes were last weighed again.
    weighed: Option<Instant>,
    /// Own routes that GoBGP has; `None` where it is not known.
    routes: Option<BTreeMap<Cidr, LocalRoute>>,
    events: Option<Events>,
    /// Prefixes whose best routes are to be asked for.
    changed: BTreeSet<Cidr>,
    /// When the whole table is to be asked for.
    all: Instant,
    ways: BTreeMap<Cidr, Way>,
    problems: Vec<Problem>,
    /// Why the last order was not carried out.
    failed: Option<String>,
    peers: Vec<PeerStatus>,
    flaps: Flaps,
    since: Instant,
    converged: bool,
    restarting: bool,
    look: Interval,
}

impl Gobgp {
    /// Takes over the GoBGP that runs in `directory`, or starts one.
    pub(super) async fn start(
        program: &Path,
        directory: &Path,
        order: &Order,
    ) -> Result<Self, String> {
        let speaker = order.speaker().ok_or("there is nothing to speak of")?;
        daemon::private(directory)?;
        let client = Client::new(&directory.join(SOCKET))?;
        let mut gobgp = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            child: None,
            client,
            order: order.clone(),
            speaker,
            applied: api::Applied::default(),
            policies: None,
            weighed: None,
            routes: None,
            events: None,
            changed: BTreeSet::new(),
            all: Instant::now(),
            ways: BTreeMap::new(),
            problems: Vec::new(),
            failed: None,
            peers: Vec::new(),
            flaps: Flaps::default(),
            since: Instant::now(),
            converged: false,
            restarting: order.restarting,
            look: daemon::looks(),
        };
        match gobgp.client.global().await {
            Ok(_) => {
                info!("GoBGP runs already and is taken over");
                let kept = std::fs::read(directory.join(APPLIED)).unwrap_or_default();
                gobgp.applied = api::Applied::decode(kept.as_slice()).unwrap_or_default();
            }
            Err(_) => gobgp.spawn()?,
        }
        Ok(gobgp)
    }

    fn spawn(&mut self) -> Result<(), String> {
        let socket = self.directory.join(SOCKET);
        // Nobody answers there, and GoBGP does not listen on a file that is there.
        let _ = std::fs::remove_file(&socket);
        let arguments = vec![
            format!("--api-hosts=unix://{}", socket.display()).into(),
            "--pprof-disable".into(),
            "--log-level=warn".into(),
            "--log-plain".into(),
        ];
        let child = daemon::spawn(&self.program, &arguments, "gobgpd")?;
        info!(program = %self.program.display(), "GoBGP starts");
        if let Some(id) = child.id() {
            let _ = std::fs::write(self.directory.join(PID), id.to_string());
        }
        self.child = Some(child);
        self.applied = api::Applied::default();
        self.policies = None;
        self.routes = None;
        self.events = None;
        Ok(())
    }

    pub(super) async fn obey(&mut self, order: &Order) {
        self.order = order.clone();
        if let Some(speaker) = order.speaker() {
            self.speaker = speaker;
        }
        self.tell().await;
    }

    /// Tells GoBGP what it does not know yet.
    async fn tell(&mut self) {
        let told = self.try_to_tell().await;
        if let Err(reason) = &told
            && self.failed.as_ref() != Some(reason)
        {
            error!("GoBGP: {reason}");
        }
        self.failed = told.err();
        let kept = self.applied.encode_to_vec();
        if let Err(error) = daemon::write(&self.directory.join(APPLIED), &kept) {
            warn!(%error, "what GoBGP was told is not kept; sessions may start anew with the agent");
        }
    }

    async fn try_to_tell(&mut self) -> Result<(), String> {
        self.wait().await?;
        let global = self.global();
        if self.applied.global.as_ref() != Some(&global) {
            if self
                .client
                .global()
                .await?
                .is_some_and(|told| told.asn != 0)
            {
                self.client.stop().await?;
            }
            self.client.begin(global.clone()).await?;
            self.applied = api::Applied {
                global: Some(global),
                peers: Vec::new(),
            };
            self.policies = None;
            self.routes = Some(BTreeMap::new());
            self.events = None;
        }
        let Policies {
            request,
            mut left_out,
        } = policies(&self.speaker, &self.order.announced);
        if self.policies.as_ref() != Some(&request) {
            let weigh_again = !self.applied.peers.is_empty();
            self.client.set_policies(request.clone()).await?;
            if weigh_again {
                self.client.weigh_again().await?;
                self.weighed = Some(Instant::now());
            }
            self.policies = Some(request);
        }
        let mut wanted = BTreeMap::new();
        for (name, config) in &self.speaker.peers {
            if left_out.contains_key(name) {
                continue;
            }
            match peer(&self.speaker, config) {
                Ok(peer) => {
                    wanted.insert(config.address.to_string(), peer);
                }
                Err(reason) => {
                    left_out.insert(name.clone(), reason);
                }
            }
        }
        for name in self.speaker.ranges.keys() {
            let reason =
                "ranges of dynamic peers are not made with GoBGP; name the peers".to_owned();
            left_out.insert(name.clone(), reason);
        }
        self.tell_of_peers(&wanted).await?;
        self.tell_of_routes().await?;
        let problems = left_out.into_iter().map(|(peer, reason)| Problem {
            object: format!("BGP peer {peer}"),
            reason,
        });
        let problems: Vec<Problem> = problems.collect();
        for problem in &problems {
            if !self.problems.contains(problem) {
                warn!("{problem}");
            }
        }
        self.problems = problems;
        Ok(())
    }

    async fn tell_of_peers(&mut self, wanted: &BTreeMap<String, api::Peer>) -> Result<(), String> {
        for known in self.applied.peers.clone() {
            let address = address(&known);
            if wanted.get(address) != Some(&known) {
                self.client.delete_peer(address).await?;
                self.applied.peers.retain(|other| *other != known);
            }
        }
        for (address, peer) in wanted {
            if self.applied.peers.contains(peer) {
                continue;
            }
            let mut told = peer.clone();
            if let Some(restart) = told.graceful_restart.as_mut() {
                restart.local_restarting = self.restarting && !self.converged;
            }
            // One that an earlier agent added and did not note is in the way.
            let _ = self.client.delete_peer(address).await;
            self.client.add_peer(told).await?;
            self.applied.peers.push(peer.clone());
        }
        Ok(())
    }

    async fn tell_of_routes(&mut self) -> Result<(), String> {
        let wanted = self.order.announced.clone();
        let mut known = match self.routes.take() {
            Some(known) => known,
            None => {
                let mut known = BTreeMap::new();
                for destination in self.table_of(api::TABLE_GLOBAL, "").await? {
                    let own = destination
                        .paths
                        .iter()
                        .filter(|path| path.neighbor_ip.parse::<std::net::IpAddr>().is_err());
                    // What is said of each is told anew below.
                    known.extend(own.filter_map(prefix).map(|prefix| {
                        let route = LocalRoute {
                            tag: u32::MAX,
                            ..LocalRoute::new(prefix)
                        };
                        (prefix, route)
                    }));
                }
                known
            }
        };
        let gone: Vec<Cidr> = known
            .keys()
            .filter(|prefix| !wanted.contains_key(prefix))
            .copied()
            .collect();
        for prefix in gone {
            self.client
                .withdraw(own_path(&LocalRoute::new(prefix)))
                .await?;
            known.remove(&prefix);
        }
        for (prefix, route) in &wanted {
            if known.get(prefix) != Some(route) {
                self.client.announce(own_path(route)).await?;
            }
        }
        self.routes = Some(wanted);
        Ok(())
    }

    fn global(&self) -> api::Global {
        let listen = &self.order.peering.listen;
        let v4 = self.speaker.address_v4.map(|address| address.to_string());
        let v6 = self.speaker.address_v6.map(|address| address.to_string());
        let presented = listen.to_workloads.iter();
        let presented = presented.map(ToString::to_string);
        api::Global {
            asn: self.speaker.asn.0,
            router_id: self.speaker.router_id.to_string(),
            listen_port: i32::from(listen.port),
            listen_addresses: match listen.own_addresses_only {
                true => v4.into_iter().chain(v6).chain(presented).collect(),
                false => Vec::new(),
            },
            use_multiple_paths: true,
            graceful_restart: None,
        }
    }

    /// Waits until GoBGP, which may have started a moment ago, answers.
    async fn wait(&mut self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let Err(failed) = self.client.global().await else {
                return Ok(());
            };
            if let Some(how) = daemon::ended(&mut self.child) {
                return Err(format!("it has ended ({how})"));
            }
            if self.child.is_none() || Instant::now() > until {
                return Err(failed);
            }
            sleep(PAUSE).await;
        }
    }

    /// Hears of changes, and looks at GoBGP from time to time; starts it anew where it has ended.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            let tick = tokio::select! {
                event = hear(&mut self.events) => {
                    match event {
                        Some(event) => self.changed.extend(view::changed(&event)),
                        None => self.events = None,
                    }
                    false
                }
                _ = self.look.tick() => {
                    if self.events.is_none() {
                        self.events = Some(self.client.events());
                        self.all = Instant::now();
                    }
                    true
                }
            };
            let mut told = Told::default();
            if tick && !self.look().await {
                continue;
            }
            if let Err(failed) = self.hear_of_routes(&mut told).await {
                warn!(error = %failed, "GoBGP does not tell its routes");
                self.events = None;
            }
            let complete = !self.restarting
                || self.since.elapsed() > DEFERRAL
                || sessions::complete(&self.peers, self.speaker.peers.len());
            if tick && !self.converged && complete {
                self.converged = true;
                told.converged = true;
            }
            if !told.ways.is_empty() || told.converged {
                return Some(told);
            }
        }
    }

    /// Looks at the peers; whether GoBGP answers.
    async fn look(&mut self) -> bool {
        match self.client.peers().await {
            Ok(peers) => {
                let now = sessions::now();
                let peers = peers.iter();
                let mut peers: Vec<PeerStatus> = peers
                    .filter_map(|told| view::peer(&self.speaker, told, now))
                    .map(|mut peer| {
                        // GoBGP knows no moment of a session that never was.
                        let before = self.peers.iter().find(|other| other.name == peer.name);
                        if let Some(before) =
                            before.filter(|before| peer.since == now && before.state == peer.state)
                        {
                            peer.since = before.since;
                        }
                        peer
                    })
                    .collect();
                self.flaps.note(&self.peers, &mut peers);
                for peer in &mut peers {
                    if peer.state != State::Established && peer.counters.flaps > 0 {
                        let reason = || "the session ended, and GoBGP does not say why".to_owned();
                        peer.last_error.get_or_insert_with(reason);
                    }
                }
                self.peers = peers;
                if self.failed.is_some() {
                    self.tell().await;
                }
                true
            }
            Err(failed) => {
                let running = self.child.is_some() && daemon::ended(&mut self.child).is_none();
                if running && self.failed.is_none() {
                    warn!(error = %failed, "GoBGP does not answer");
                }
                if !running {
                    error!(error = %failed, "GoBGP is gone; it is started anew");
                    self.peers.clear();
                    self.restarting = true;
                    self.since = Instant::now();
                    self.converged = false;
                    match self.spawn() {
                        Ok(()) => self.tell().await,
                        Err(reason) => error!("GoBGP cannot start: {reason}"),
                    }
                }
                false
            }
        }
    }

    /// Asks for the routes that may be others now, and puts into `told` what is different. After a restart
    /// routes are kept until peers have told theirs.
    async fn hear_of_routes(&mut self, told: &mut Told) -> Result<(), String> {
        let mut found: BTreeMap<Cidr, Option<Way>> = BTreeMap::new();
        if Instant::now() >= self.all {
            let table = self.table_of(api::TABLE_GLOBAL, "").await?;
            if self.converged {
                found.extend(self.ways.keys().map(|prefix| (*prefix, None)));
            }
            for destination in &table {
                if let Some(prefix) = destination.paths.first().and_then(prefix) {
                    found.insert(prefix, self.way(destination));
                }
            }
            self.all = Instant::now() + ALL;
        } else {
            for prefix in self.changed.clone() {
                let told = self.client.prefix(prefix).await?;
                found.insert(prefix, told.first().and_then(|told| self.way(told)));
            }
        }
        self.changed.clear();
        for (prefix, way) in found {
            if self.ways.get(&prefix) == way.as_ref() {
                continue;
            }
            match &way {
                Some(way) => self.ways.insert(prefix, way.clone()),
                None => self.ways.remove(&prefix),
            };
            told.ways.push((prefix, way));
        }
        Ok(())
    }

    fn way(&self, destination: &api::Destination) -> Option<Way> {
        let (next_hops, peer) = view::best(&self.speaker, destination)?;
        Some(Way { next_hops, peer })
    }

    async fn table_of(&self, table: i32, name: &str) -> Result<Vec<api::Destination>, String> {
        let mut all = self.client.paths(table, name, Family::V4).await?;
        if self.speaker.address_v6.is_some() {
            all.extend(self.client.paths(table, name, Family::V6).await?);
        }
        Ok(all)
    }

    pub(super) fn listening(&self) -> Vec<String> {
        vec![format!("port {} (GoBGP)", self.order.peering.listen.port)]
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        let failed = self.failed.iter().map(|reason| Problem {
            object: "GoBGP".to_owned(),
            reason: reason.clone(),
        });
        self.problems.iter().cloned().chain(failed).collect()
    }

    pub(super) fn peers(&self) -> Option<Peers> {
        Some(sessions::shown(&self.peers))
    }

    pub(super) async fn table(&self) -> Routes {
        let told = self.table_of(api::TABLE_GLOBAL, "").await.map_err(silent)?;
        let table = view::table(&self.speaker, &told);
        Ok(table.iter().flat_map(RouteView::table).collect())
    }

    pub(super) async fn received(&self, name: &str) -> Routes {
        let until = self.weighed.map(|weighed| weighed + WEIGHING);
        let routes = loop {
            let told = self.of_peer(api::TABLE_ADJ_IN, name).await?;
            let routes = view::received(&told);
            // While routes are weighed again GoBGP does not list them all.
            let whole = routes.len() >= self.announced_by(name);
            if whole || until.is_none_or(|until| Instant::now() >= until) {
                break routes;
            }
            sleep(PAUSE).await;
        };
        Ok(routes.iter().map(RouteView::received).collect())
    }

    /// How many routes a peer announced, when GoBGP was last looked at.
    fn announced_by(&self, name: &str) -> usize {
        let peer = self.peers.iter().find(|peer| *peer.name == *name);
        peer.map_or(0, |peer| {
            let (v4, v6) = (&peer.prefixes.v4, &peer.prefixes.v6);
            usize::try_from(v4.received.saturating_add(v6.received)).unwrap_or(usize::MAX)
        })
    }

    pub(super) async fn advertised(&self, name: &str) -> Routes {
        let told = self.of_peer(api::TABLE_ADJ_OUT, name).await?;
        let routes = view::advertised(&told);
        Ok(routes.iter().map(RouteView::advertised).collect())
    }

    /// A table of a peer; empty while there is no session.
    async fn of_peer(
        &self,
        table: i32,
        name: &str,
    ) -> Result<Vec<api::Destination>, (u16, String)> {
        let is_there = self.peers.iter().any(|peer| *peer.name == *name);
        let peer = self.speaker.peers.get(name).filter(|_| is_there);
        let peer = peer.ok_or_else(|| no_peer(name))?;
        let mut all = Vec::new();
        for family in peer.families.iter() {
            let address = peer.address.to_string();
            let told = self.client.paths(table, &address, family).await;
            all.extend(told.map_err(silent)?);
        }
        Ok(all)
    }

    pub(super) async fn stop(&mut self, how: &Stop) {
        if matches!(how, Stop::KeepForwarding) {
            info!("GoBGP goes on without the agent");
            return;
        }
        retire(&self.directory).await;
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill().await;
        }
    }
}

/// Has the GoBGP that runs in `directory`, if one does, end all sessions.
pub(super) async fn retire(directory: &Path) {
    let socket = directory.join(SOCKET);
    if !socket.exists() {
        return;
    }
    if let Ok(client) = Client::new(&socket)
        && client.global().await.is_ok()
    {
        info!("GoBGP ends its sessions");
        if let Err(failed) = client.stop().await {
            warn!(error = %failed, "GoBGP does not end its sessions; end it by hand");
        }
        let _ = std::fs::remove_file(directory.join(APPLIED));
    }
}

/// An event; waits for ever where none can come.
async fn hear(events: &mut Option<Events>) -> Option<api::TableEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

fn address(peer: &api::Peer) -> &str {
    peer.conf
        .as_ref()
        .map_or("", |conf| conf.neighbor_address.as_str())
}

fn silent(reason: String) -> (u16, String) {
    (503, format!("GoBGP does not tell: {reason}"))
}

const SOCKET: &str = "gobgpd.sock";
const PID: &str = "gobgpd.pid";
/// What was told, for the next agent.
const APPLIED: &str = "gobgpd.state";
/// Between two looks at its whole table: an event may not tell of routes that are merely as good as the best.
const ALL: Duration = Duration::from_secs(5);
/// How long GoBGP may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
/// So long after a changed policy what peers announced may not be listed whole.
const WEIGHING: Duration = Duration::from_secs(2);
/// How long peers are waited for at a start.
const DEFERRAL: Duration = Duration::from_secs(10);
