//! BIRD 2 as the speaker: a child with its own configuration and socket, which goes on while the agent is
//! away and is taken over by the next one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_bgp::{PeerConfig, PeerStatus, SpeakerConfig, Stop};
use margay_bgp_io::Peers;
use margay_bird::{Daemon, Entry, Reply, configuration, protocols, routes, view};
use margay_model::Family;
use margay_peering::Problem;
use tokio::process::Child;
use tokio::time::{Instant, Interval, sleep};
use tracing::{error, info, warn};

use super::control::Control;
use super::sessions::{self, Flaps};
use super::{Routes, Told, daemon, no_peer};
use crate::bgp::order::Order;
use crate::bgp::view::RouteView;

/// BIRD, and what it was told last.
#[derive(Debug)]
pub struct Bird {
    program: PathBuf,
    directory: PathBuf,
    /// `None` for one that an earlier agent started.
    child: Option<Child>,
    control: Option<Control>,
    order: Order,
    speaker: SpeakerConfig,
    /// The configuration that BIRD has taken.
    taken: String,
    problems: Vec<Problem>,
    peers: Vec<PeerStatus>,
    flaps: Flaps,
    since: Instant,
    converged: bool,
    /// Whether the kernel may have routes of an earlier run.
    restarting: bool,
    look: Interval,
}

impl Bird {
    /// Takes over the BIRD that runs in `directory`, or starts one, with the order's configuration.
    pub(super) async fn start(
        program: &Path,
        directory: &Path,
        order: &Order,
    ) -> Result<Self, String> {
        let speaker = order.speaker().ok_or("there is nothing to speak of")?;
        daemon::private(directory)?;
        let mut bird = Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            child: None,
            control: Control::open(&directory.join(SOCKET)).await.ok(),
            order: order.clone(),
            speaker,
            taken: String::new(),
            problems: Vec::new(),
            peers: Vec::new(),
            flaps: Flaps::default(),
            since: Instant::now(),
            converged: false,
            restarting: order.restarting,
            look: daemon::looks(),
        };
        match bird.control {
            Some(_) => info!("BIRD runs already and is taken over"),
            None => {
                let text = bird.text();
                bird.write(&text)?;
                bird.spawn()?;
                bird.taken = text;
            }
        }
        Ok(bird)
    }

    pub(super) async fn obey(&mut self, order: &Order) {
        self.order = order.clone();
        if let Some(speaker) = order.speaker() {
            self.speaker = speaker;
        }
        self.configure().await;
    }

    /// The configuration that is wanted; what cannot be put into it becomes a problem.
    fn text(&mut self) -> String {
        let listen = &self.order.peering.listen;
        let workloads = self.order.peering.workloads.keys().copied().collect();
        let wanted = configuration(&Daemon {
            speaker: &self.speaker,
            routes: &self.order.announced,
            port: listen.port,
            own_addresses_only: listen.own_addresses_only,
            priorities: self.order.peering.priorities,
            spared: &self.order.spared,
            workloads: &workloads,
            persist: true,
        });
        let before = std::mem::take(&mut self.problems);
        for (peer, reason) in wanted.left_out {
            let problem = Problem {
                object: format!("BGP peer {peer}"),
                reason,
            };
            if !before.contains(&problem) {
                warn!("{problem}");
            }
            self.problems.push(problem);
        }
        wanted.text
    }

    /// Has BIRD take the configuration that is wanted.
    async fn configure(&mut self) {
        let text = self.text();
        if text == self.taken {
            return;
        }
        if let Err(reason) = self.write(&text) {
            return self.complain(reason);
        }
        let path = self.directory.join(FILE);
        match self.ask(&format!("configure \"{}\"", path.display())).await {
            Ok(reply) if reply.configured() => self.taken = text,
            Ok(reply) => {
                let words = reply
                    .error()
                    .unwrap_or("an answer that is not known")
                    .to_owned();
                self.complain(format!(
                    "it does not take its configuration and keeps the one before: {words}; see {}",
                    path.display()
                ));
            }
            Err(failed) => self.complain(format!("it does not answer: {failed}")),
        }
    }

    fn complain(&mut self, reason: String) {
        error!("BIRD: {reason}");
        self.problems.push(Problem {
            object: "BIRD".to_owned(),
            reason,
        });
    }

    fn write(&self, text: &str) -> Result<(), String> {
        let path = self.directory.join(FILE);
        daemon::write(&path, text.as_bytes())
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn spawn(&mut self) -> Result<(), String> {
        let file = |name: &str| self.directory.join(name).into_os_string();
        let mut arguments = vec![
            "-f".into(),
            "-c".into(),
            file(FILE),
            "-s".into(),
            file(SOCKET),
        ];
        arguments.extend(["-P".into(), file(PID)]);
        // Routes of before stay until peers have told what they know.
        if self.restarting {
            arguments.push("-R".into());
        }
        self.child = Some(daemon::spawn(&self.program, &arguments, "bird2")?);
        info!(program = %self.program.display(), "BIRD starts");
        // The next one finds what this one has made.
        self.restarting = true;
        Ok(())
    }

    /// Asks BIRD, which may have started a moment ago.
    async fn ask(&mut self, words: &str) -> io::Result<Reply> {
        if self
            .control
            .as_ref()
            .is_some_and(|control| !control.is_free())
        {
            self.control = None;
        }
        let until = Instant::now() + PATIENCE;
        loop {
            if self.control.is_none() {
                match Control::open(&self.directory.join(SOCKET)).await {
                    Ok(control) => self.control = Some(control),
                    Err(failed) => {
                        let ended = daemon::ended(&mut self.child);
                        if let Some(how) = ended {
                            return Err(io::Error::other(format!("it has ended ({how})")));
                        }
                        if self.child.is_none() || Instant::now() > until {
                            return Err(failed);
                        }
                        sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            let Some(control) = self.control.as_mut() else {
                continue;
            };
            let answer = control.ask(words).await;
            if answer.is_err() {
                self.control = None;
            }
            return answer;
        }
    }

    /// Looks at BIRD from time to time; starts it anew where it has ended.
    pub(super) async fn next(&mut self) -> Option<Told> {
        loop {
            self.look.tick().await;
            let reply = match self.ask("show protocols all").await {
                Ok(reply) => reply,
                Err(failed) => {
                    error!(error = %failed, "BIRD is gone; it is started anew");
                    self.peers.clear();
                    if let Err(reason) = self.spawn() {
                        error!("BIRD cannot start: {reason}");
                    }
                    continue;
                }
            };
            self.take(view::peers(&self.speaker, &protocols(&reply)));
            if self.taken.is_empty() || self.has_failed() {
                self.configure().await;
            }
            let complete = !self.restarting
                || self.since.elapsed() > DEFERRAL
                || sessions::complete(&self.peers, self.speaker.peers.len());
            if !self.converged && complete {
                self.converged = true;
                return Some(Told {
                    converged: true,
                    ..Told::default()
                });
            }
        }
    }

    fn has_failed(&self) -> bool {
        self.problems.iter().any(|problem| problem.object == "BIRD")
    }

    /// Takes in the peers as they are now, and tells what is different. BIRD does not count.
    fn take(&mut self, mut peers: Vec<PeerStatus>) {
        self.flaps.note(&self.peers, &mut peers);
        self.peers = peers;
    }

    pub(super) fn listening(&self) -> Vec<String> {
        let listen = &self.order.peering.listen;
        vec![format!("port {} (BIRD)", listen.port)]
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        self.problems.clone()
    }

    pub(super) fn peers(&self) -> Option<Peers> {
        Some(sessions::shown(&self.peers))
    }

    pub(super) async fn table(&mut self) -> Routes {
        let mut entries = Vec::new();
        for family in self.families() {
            entries.extend(self.list(&format!("table {}", master(family))).await?);
        }
        let table = view::table(entries, &self.speaker);
        Ok(table.iter().flat_map(RouteView::table).collect())
    }

    pub(super) async fn received(&mut self, name: &str) -> Routes {
        let mut views = Vec::new();
        for family in self.peer(name)?.families.iter() {
            let announced = format!("import table {name}.{}", channel(family));
            let announced = self.list(&announced).await?;
            let taken = format!("table {} protocol {name}", master(family));
            let taken = self.list(&taken).await?;
            let routes = view::received(announced, &taken);
            views.extend(routes.iter().map(RouteView::received));
        }
        Ok(views)
    }

    pub(super) async fn advertised(&mut self, name: &str) -> Routes {
        let peer = self.peer(name)?;
        let mut views = Vec::new();
        for family in peer.families.iter() {
            let told = format!("export table {name}.{}", channel(family));
            let told = self.list(&told).await?;
            let routes = view::advertised(told, &self.speaker, &peer);
            views.extend(routes.iter().map(RouteView::advertised));
        }
        Ok(views)
    }

    /// A peer that BIRD has; its name is harmless in a command then.
    fn peer(&self, name: &str) -> Result<PeerConfig, (u16, String)> {
        let is_there = self.peers.iter().any(|peer| *peer.name == *name);
        let peer = self.speaker.peers.get(name).filter(|_| is_there);
        peer.cloned().ok_or_else(|| no_peer(name))
    }

    fn families(&self) -> Vec<Family> {
        let four = self.speaker.address_v4.map(|_| Family::V4);
        let six = self.speaker.address_v6.map(|_| Family::V6);
        four.into_iter().chain(six).collect()
    }

    async fn list(&mut self, what: &str) -> Result<Vec<Entry>, (u16, String)> {
        let reply = self.ask(&format!("show route {what} all")).await;
        let reply = reply.map_err(|failed| (503, format!("BIRD does not answer: {failed}")))?;
        match reply.error() {
            // There is no route.
            Some(_) if reply.code() == NO_ROUTE => Ok(Vec::new()),
            Some(words) => Err((503, format!("BIRD does not tell: {words}"))),
            None => Ok(routes(&reply)),
        }
    }

    pub(super) async fn stop(&mut self, how: &Stop) {
        if matches!(how, Stop::KeepForwarding) {
            info!("BIRD goes on without the agent");
            return;
        }
        // Without peers there is nothing to wait for.
        self.speaker.peers.clear();
        self.order.announced.clear();
        self.configure().await;
        retire(&self.directory).await;
        if let Some(child) = self.child.as_mut() {
            let _ = child.wait().await;
        }
    }
}

/// Ends the BIRD that runs in `directory`, if one does, with its routes in the kernel.
pub(super) async fn retire(directory: &Path) {
    let Ok(mut control) = Control::open(&directory.join(SOCKET)).await else {
        return;
    };
    info!("BIRD ends, and its routes go");
    let path = directory.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    if daemon::write(&path, text.replace(PERSIST, "").as_bytes()).is_ok() {
        let words = format!("configure \"{}\"", path.display());
        let _ = control.ask(&words).await;
    }
    // One that recovers does not know yet which routes in the kernel are its own.
    let until = Instant::now() + RECOVERY;
    while Instant::now() < until {
        match control.ask("show status").await {
            Ok(status) if status.recovers() => sleep(PAUSE).await,
            _ => break,
        }
    }
    if let Err(failed) = control.ask("down").await {
        warn!(error = %failed, "BIRD does not end; end it by hand");
    }
}

fn master(family: Family) -> &'static str {
    match family {
        Family::V4 => "master4",
        Family::V6 => "master6",
    }
}

fn channel(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

const FILE: &str = "bird.conf";
const SOCKET: &str = "bird.ctl";
const PID: &str = "bird.pid";
/// What keeps routes in the kernel, as `margay-bird` writes it.
const PERSIST: &str = "persist; ";
/// "Network not found".
const NO_ROUTE: u16 = 8001;
/// How long BIRD may take to open its socket.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long BIRD may recover.
const RECOVERY: Duration = Duration::from_secs(12);
const PAUSE: Duration = Duration::from_millis(20);
/// How long peers are waited for at a start.
const DEFERRAL: Duration = Duration::from_secs(10);
