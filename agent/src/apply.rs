//! The task that owns the state and the kernel's side: compares, changes, tells.

mod bgp;
mod devices;
mod effects;
mod policy;
pub(crate) mod shaping;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use margay_endpoint::Sysctl;
use margay_netlink::monitor::{self, Monitor};
use margay_netlink::{Interfaces, Netlink, table};
use margay_route::{Observed, Ownership, PROTOCOL, RouteKey, Step, TABLE_MAIN};
use margay_ruleset::others::Finding;
use margay_store::follow;
use margay_telemetry::{Log, Reporter};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::bgp::order::{News, Order};
use crate::bgp::secrets::Secrets;
use crate::calculate::{Learned, Problem, calculate};
use crate::cleanup::Sighting;
use crate::config::Config;
use crate::enforce::{self, Enforcer};
use crate::error::AgentError;
use crate::metrics::{Metrics, figure};
use crate::packet_log;
use crate::plan;
use crate::report::Status;
use crate::standing::Standing;
use crate::state::{Settings, State, Touched};
use crate::status_files::StatusFiles;
use crate::sync;
use crate::tunnel_address::Wish;

/// What the task is given.
#[derive(Debug)]
pub struct Parts {
    /// What the agent was told.
    pub config: Arc<Config>,
    /// The node's name.
    pub node: String,
    /// The kernel.
    pub netlink: Netlink,
    /// The running log.
    pub log: Log,
    /// Figures.
    pub metrics: Metrics,
    /// Whether the kernel is as it should be.
    pub kernel: Reporter,
    /// Whether policy is in force.
    pub policy: Reporter,
    /// Whether the store is followed.
    pub store: Reporter,
    /// Where the state of the node is shown.
    pub status: watch::Sender<Status>,
    /// Where endpoints without an interface are told of; `None` tells nobody.
    pub sightings: Option<mpsc::Sender<Sighting>>,
    /// Where it is told of which pools the addresses of tunnels' devices are to be.
    pub tunnel_wish: watch::Sender<Wish>,
    /// Where it is told what BGP is to do.
    pub orders: watch::Sender<Option<Order>>,
    /// The version of the last order that was carried out.
    pub obeyed: watch::Receiver<u64>,
    /// What BGP tells of its table.
    pub news: mpsc::Receiver<News>,
    /// Where it is told what is to be written to the store of endpoints and of the agent.
    pub standing: watch::Sender<Option<Standing>>,
    /// Where it is asked whose addresses are.
    pub whose: mpsc::Receiver<packet_log::Question>,
}

/// The task.
#[derive(Debug)]
pub struct Engine {
    parts: Parts,
    state: State,
    enforcer: Enforcer,
    settings: Settings,
    files: Option<StatusFiles>,
    /// When each interface was first seen, by index.
    seen: BTreeMap<u32, Instant>,
    /// The settings written to each interface, by index.
    configured: BTreeMap<u32, Vec<Sysctl>>,
    /// Indices of workloads' interfaces.
    workloads: BTreeSet<u32>,
    /// What BGP peers announced.
    learned: Learned,
    /// Whether BGP has nothing more to tell of what was before the start.
    converged: bool,
    /// Whether the kernel had routes of an earlier run at the start; `None` before it was looked at.
    restarting: Option<bool>,
    /// What BGP is to do, and from what that follows.
    peering: Option<(bgp::Basis, Arc<margay_peering::Peering>)>,
    /// Passwords of BGP sessions.
    secrets: Secrets,
    /// Problems with BGP's objects that were logged already.
    told_bgp: BTreeSet<margay_peering::Problem>,
    /// Addresses that were presented to workloads.
    presented: BTreeSet<IpAddr>,
    /// MTUs that workloads were to have before.
    former_mtus: BTreeSet<u32>,
    /// Whether the store has been read once.
    synced: bool,
    /// Whether what is known of the store is its word as it is now.
    followed: bool,
    /// Whether deletions are made however many they are.
    trusted: bool,
    /// When the next comparison is due.
    due: Option<Instant>,
    /// When the connections of vacated addresses are to be forgotten.
    forget_at: Option<Instant>,
    /// Whether the next comparison writes all settings anew.
    thorough: bool,
    /// Whether there may be bandwidth limits in the kernel.
    shaped: bool,
    /// When policy is to be put in force, if it is due.
    enforce_at: Instant,
    /// Attempts at it in a row that failed.
    refusals: u32,
    /// Whether endpoints were without it at the last comparison.
    awaiting: bool,
    /// How long the last comparison took.
    took: Duration,
    /// Comparisons in a row that left something undone.
    failures: u32,
    /// What was logged already.
    told: Told,
}

/// What was logged already, so that it is not logged at every comparison.
#[derive(Debug, Default)]
struct Told {
    problems: BTreeSet<Problem>,
    unreachable: BTreeSet<String>,
    conflicts: BTreeSet<RouteKey>,
    withheld: usize,
    others: BTreeSet<Finding>,
}

impl Engine {
    /// The task, before it has read anything.
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub fn new(parts: Parts) -> Result<Self, AgentError> {
        let state = State::new(parts.node.clone());
        let settings = state.settings(&parts.config.local);
        let enforcer = Enforcer::new(
            &parts.node,
            parts.netlink.namespace(),
            settings.of_policy(),
            parts.config.cut_connections,
            parts.metrics.clone(),
        )?;
        let files = parts.config.status_dir().map(StatusFiles::new);
        let secrets = Secrets::new(&parts.config.bgp_secrets);
        Ok(Self {
            parts,
            state,
            enforcer,
            settings,
            files,
            seen: BTreeMap::new(),
            configured: BTreeMap::new(),
            workloads: BTreeSet::new(),
            learned: Learned::default(),
            converged: false,
            restarting: None,
            peering: None,
            secrets,
            told_bgp: BTreeSet::new(),
            presented: BTreeSet::new(),
            former_mtus: BTreeSet::new(),
            synced: false,
            followed: false,
            trusted: false,
            due: None,
            forget_at: None,
            thorough: true,
            shaped: true,
            enforce_at: Instant::now(),
            refusals: 0,
            awaiting: false,
            took: Duration::ZERO,
            failures: 0,
            told: Told::default(),
        })
    }

    /// Works until `stop` changes.
    ///
    /// # Errors
    /// The kernel cannot be watched, or the store's follower has ended.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<follow::Event>,
        mut accept: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), AgentError> {
        let mut monitor = Monitor::open(self.parts.netlink.namespace())?;
        let mut nft = self.enforcer.watch(self.parts.netlink.namespace())?;
        self.parts.metrics.resync_state.set(1);
        self.look_at_others().await?;
        let mut refresh = Instant::now() + self.settings.route_refresh.unwrap_or(FAR);
        let mut look = Instant::now() + self.look_pause();
        loop {
            let due = self.due.filter(|_| self.synced);
            tokio::select! {
                biased;
                _ = stop.changed() => return Ok(()),
                () = sleep_until(self.enforce_at), if self.synced && self.enforcer.is_due() => {
                    self.enforce().await?;
                }
                () = sleep_until(self.forget_at.unwrap_or_else(|| Instant::now() + FAR)),
                    if self.forget_at.is_some() && due.is_none() =>
                {
                    self.forget_connections().await;
                }
                () = sleep_until(due.unwrap_or_else(|| Instant::now() + FAR)), if due.is_some() => {
                    let late = due.map(|due| due.elapsed()).unwrap_or_default();
                    self.parts.metrics.lag.set(late.as_secs_f64());
                    self.compare().await?;
                }
                event = events.recv() => match event {
                    Some(event) => {
                        self.hear(event);
                        self.hear_more(&mut events);
                    }
                    None => return Err(AgentError::Ended { part: "follower of the datastore" }),
                },
                event = nft.next() => match event {
                    Some(Ok(event)) => self.disturbed(event),
                    Some(Err(error)) => {
                        warn!(%error, "nftables' notifications broke off; subscribing again");
                        self.parts.metrics.overruns.inc();
                        tokio::time::sleep(RETRY).await;
                        nft = self.enforcer.watch(self.parts.netlink.namespace())?;
                        self.disturbed(margay_nft::Event::Resync);
                    }
                    None => return Err(AgentError::Ended { part: "subscription to nftables" }),
                },
                event = monitor.next() => match event {
                    Some(Ok(event)) => self.notice(&event),
                    Some(Err(error)) => {
                        warn!(%error, "the kernel's notifications broke off; subscribing again");
                        self.parts.metrics.overruns.inc();
                        tokio::time::sleep(RETRY).await;
                        monitor = Monitor::open(self.parts.netlink.namespace())?;
                        self.hasten(SETTLE);
                    }
                    None => return Err(AgentError::Ended { part: "subscription to the kernel" }),
                },
                Some(news) = self.parts.news.recv() => self.hear_bgp(news),
                Some(question) = self.parts.whose.recv() => self.name(question),
                _ = accept.changed() => {
                    self.trusted = true;
                    self.enforcer.trust();
                    self.hasten(Duration::ZERO);
                }
                () = sleep_until(refresh) => {
                    self.thorough = true;
                    self.look_at_others().await?;
                    self.hasten(Duration::ZERO);
                    refresh = Instant::now() + self.settings.route_refresh.unwrap_or(FAR);
                }
                () = sleep_until(look), if self.parts.sightings.is_some() => {
                    self.look().await;
                    look = Instant::now() + self.look_pause();
                }
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            self.parts.kernel.live();
            self.parts.store.live();
            self.parts.policy.live();
        }
    }

    /// Looks for endpoints without an interface, while what the store says is known.
    async fn look(&mut self) {
        let Some(sightings) = self.parts.sightings.as_ref().filter(|_| self.followed) else {
            return;
        };
        match self.parts.netlink.interfaces().await {
            // While the last look is still being acted on there is no hurry for another.
            Ok(interfaces) => {
                let _ = sightings.try_send(Sighting::of(&self.state, &interfaces));
            }
            Err(failed) => warn!(error = %failed, "the interfaces cannot be listed"),
        }
    }

    /// Between two looks: several within the grace.
    fn look_pause(&self) -> Duration {
        let grace = self.parts.config.cleanup_grace.unwrap_or(FAR);
        (grace / 4).clamp(SHORTEST_LOOK, LONGEST_LOOK)
    }

    /// Takes in what the store says.
    fn hear(&mut self, event: follow::Event) {
        let metrics = &self.parts.metrics;
        if let Some(reason) = sync::held(&event) {
            self.followed = false;
            metrics.store_held.set(1);
            self.parts
                .status
                .send_modify(|status| status.datastore.clone_from(&reason));
            self.parts.store.ready(self.synced, &reason);
            return;
        }
        let updates = match event {
            follow::Event::Synced { updates, .. } => {
                self.followed = true;
                metrics.store_held.set(0);
                metrics.resync_state.set(3);
                self.parts
                    .status
                    .send_modify(|status| "in sync".clone_into(&mut status.datastore));
                self.parts.store.ready(true, "in sync");
                if !self.synced {
                    self.synced = true;
                    self.hasten(Duration::ZERO);
                }
                updates
            }
            follow::Event::Changed { updates, .. } => updates,
            follow::Event::Lost(error) => {
                self.followed = false;
                metrics.store_losses.inc();
                metrics.resync_state.set(1);
                let reason = format!("lost, its last word stays in force: {error}");
                self.parts.store.ready(self.synced, &reason);
                self.parts
                    .status
                    .send_modify(|status| status.datastore = reason);
                return;
            }
            follow::Event::Regressed { .. }
            | follow::Event::Replaced { .. }
            | follow::Event::Shrunk { .. } => return,
        };
        let mut touched = Touched::Nothing;
        for update in &updates {
            touched = touched.max(self.state.update(update));
            self.enforcer.update(update);
        }
        match touched {
            Touched::Endpoint => self.hasten(Duration::ZERO),
            Touched::Cluster => self.hasten(SETTLE),
            Touched::Nothing => {}
        }
        let metrics = &self.parts.metrics;
        metrics
            .workload_endpoints
            .set(figure(self.state.cluster_endpoints()));
        metrics.bad_objects.set(figure(self.state.bad().len()));
    }

    /// Takes in what the kernel says.
    fn notice(&mut self, event: &monitor::Event) {
        // Whoever else changes routes all the time must not keep the agent comparing all the time.
        let pause = (self.took * 4).clamp(SETTLE, LONGEST_SETTLE);
        match event {
            monitor::Event::RouteChanged {
                table: TABLE_MAIN, ..
            }
            | monitor::Event::LinkChanged { .. }
            | monitor::Event::LinkRemoved { .. }
            | monitor::Event::AddressChanged { .. } => self.hasten(pause),
            monitor::Event::NeighbourChanged { index } if self.workloads.contains(index) => {
                self.hasten(pause);
            }
            monitor::Event::RouteChanged { .. } | monitor::Event::NeighbourChanged { .. } => {}
            monitor::Event::Resync => {
                warn!("notifications of the kernel were lost; comparing everything");
                self.parts.metrics.overruns.inc();
                self.thorough = true;
                self.hasten(pause);
            }
        }
    }

    fn hasten(&mut self, pause: Duration) {
        let due = Instant::now() + pause;
        self.due = Some(self.due.map_or(due, |set| set.min(due)));
    }

    /// Compares once, and sees to the next time.
    async fn compare(&mut self) -> Result<(), AgentError> {
        self.due = None;
        let begun = Instant::now();
        let result = match self.pass().await {
            Err(PassError::Over(ended)) => return Err(ended),
            Err(PassError::Kernel(failed)) => Err(failed),
            Ok(undone) => Ok(undone),
        };
        self.took = begun.elapsed();
        self.parts
            .metrics
            .apply_time
            .observe(self.took.as_secs_f64());
        match result {
            Ok(None) => self.failures = 0,
            Ok(Some(reason)) => self.stumble(reason, true),
            Err(failed) => {
                warn!(error = %failed, "the comparison with the kernel broke off");
                self.parts.metrics.failures.inc();
                self.stumble(failed.to_string(), false);
            }
        }
        let soonest = self
            .seen
            .values()
            .map(|seen| *seen + SPARED)
            .filter(|end| *end > begun)
            .min();
        if let Some(end) = soonest {
            self.hasten(end.saturating_duration_since(Instant::now()) + SETTLE);
        }
        Ok(())
    }

    /// Something was left undone: tries again, later each time.
    fn stumble(&mut self, reason: String, ready: bool) {
        let pause = RETRY.saturating_mul(1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        self.hasten(pause);
        if !ready {
            self.parts.kernel.ready(false, &reason);
        }
        self.parts.status.send_modify(|status| {
            status.ready &= ready;
            status.last_error = Some(reason);
        });
    }

    /// One comparison; what it left undone.
    async fn pass(&mut self) -> Result<Option<String>, PassError> {
        self.heed_settings();
        let mut interfaces = self.parts.netlink.interfaces().await?;
        let host = enforce::node(&self.state, &self.settings, &interfaces);
        self.enforcer.set_node(host);
        self.enforcer
            .set_present(interfaces.iter().map(|link| link.name.as_str()));
        self.enforce().await?;
        let mut observed = self.observe(&interfaces).await?;
        let ownership = self.ownership(&interfaces);
        let local = plan::local(&interfaces, &observed, &ownership);
        let peering = self.heed_bgp(&observed);
        let picture = calculate(&self.state, &self.settings, &local, &self.learned);
        self.wish_for_tunnels();
        let (changed, undone_devices) = self.make_devices(&picture, &interfaces).await;
        if changed {
            interfaces = self.parts.netlink.interfaces().await?;
            observed = self.observe(&interfaces).await?;
        }
        let mut planned = margay_route::plan(&picture.desired, &observed, &ownership);
        let withheld = plan::restrain(
            &mut planned,
            &observed,
            &ownership,
            &self.settings,
            self.trusted,
            self.converged,
        );
        if withheld == 0 && !self.trusted {
            self.trusted = true;
            // For devices that nothing wants.
            self.hasten(SETTLE);
        }
        self.tell(&picture, &planned, withheld);

        self.withdraw(&peering, &picture).await;
        let mut undone = self.configure(&picture, &interfaces).or(undone_devices);
        undone = self.shape(&interfaces).await?.or(undone);
        let outcome = table::apply(&self.parts.netlink, &planned, &interfaces).await;
        for step in &planned.steps {
            self.parts
                .metrics
                .steps
                .get_or_create(&[("step", kind(step))])
                .inc();
        }
        for failure in &outcome.failures {
            warn!(error = %failure, "the kernel refused a step");
            self.parts.metrics.failures.inc();
            undone = Some(failure.to_string());
        }
        let mut missing: BTreeSet<RouteKey> = planned
            .conflicts
            .iter()
            .map(|conflict| conflict.desired.key())
            .collect();
        if !outcome.failures.is_empty() {
            let now = self.observe(&interfaces).await?;
            let rest = margay_route::plan(&picture.desired, &now, &ownership);
            missing.extend(rest.steps.iter().filter_map(|step| match step {
                Step::AddRoute(route) | Step::ReplaceRoute { to: route, .. } => Some(route.key()),
                _ => None,
            }));
        }
        // After their routes, so that nothing makes them anew.
        if self.state.has_vacated() {
            self.forget_at
                .get_or_insert_with(|| Instant::now() + FORGET_PAUSE);
        }
        if let Some(reason) = self.present(&picture, &interfaces).await {
            undone = Some(reason);
        }
        self.announce(peering, &picture, &missing);
        if let Some(reason) = self.write_status_files(&picture, &missing) {
            undone = Some(reason);
        }
        if let Some(reason) = self.write_mtu(&picture) {
            undone = Some(reason);
        }
        if let Some(reason) = self.push_mtu(&picture, &interfaces).await {
            undone = Some(reason);
        }
        self.show(&picture, &missing, &interfaces, undone.as_deref());
        Ok(undone)
    }

    async fn observe(&self, interfaces: &Interfaces) -> Result<Observed, margay_netlink::Error> {
        let all = table::observe(&self.parts.netlink, Some(TABLE_MAIN), interfaces).await?;
        Ok(plan::handled(all, &self.settings))
    }

    fn heed_settings(&mut self) {
        let settings = self.state.settings(&self.parts.config.local);
        if settings == self.settings {
            return;
        }
        info!(?settings, "the settings changed");
        if settings.log_severity != self.settings.log_severity {
            self.parts
                .log
                .set_severity(&settings.log_severity.to_string());
        }
        self.settings = settings;
        self.enforcer.set_settings(self.settings.of_policy());
        self.thorough = true;
    }

    fn ownership(&mut self, interfaces: &Interfaces) -> Ownership {
        let mut ownership = Ownership {
            protocol: PROTOCOL,
            interface_prefixes: self.settings.interface_prefixes.clone(),
            spared: BTreeSet::new(),
            tunnels: plan::tunnels(),
        };
        let now = Instant::now();
        let workloads: BTreeMap<u32, &str> = interfaces
            .iter()
            .filter(|link| ownership.owns_interface(&link.name))
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        self.seen.retain(|index, _| workloads.contains_key(index));
        self.configured
            .retain(|index, _| workloads.contains_key(index));
        for (index, name) in &workloads {
            let seen = self.seen.entry(*index).or_insert(now);
            if now.duration_since(*seen) < SPARED {
                ownership.spared.insert((*name).to_owned());
            }
        }
        self.workloads = workloads.into_keys().collect();
        ownership
    }
}

/// Why a comparison broke off.
enum PassError {
    /// The kernel; the next may fare better.
    Kernel(margay_netlink::Error),
    /// For good.
    Over(AgentError),
}

impl From<margay_netlink::Error> for PassError {
    fn from(failed: margay_netlink::Error) -> Self {
        Self::Kernel(failed)
    }
}

impl From<AgentError> for PassError {
    fn from(ended: AgentError) -> Self {
        Self::Over(ended)
    }
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::AddRoute(_) => "add_route",
        Step::ReplaceRoute { .. } => "replace_route",
        Step::DeleteRoute(_) => "delete_route",
        Step::SetNeighbour(_) => "set_neighbour",
        Step::DeleteNeighbour(_) => "delete_neighbour",
        Step::SetFdb(_) => "set_fdb",
        Step::DeleteFdb(_) => "delete_fdb",
    }
}

/// For so long nothing unwanted is deleted from a new interface: a plugin may have set it up before
/// its record got here.
const SPARED: Duration = Duration::from_secs(10);
/// Notifications come in flocks; a comparison waits for the flock to end.
const SETTLE: Duration = Duration::from_millis(50);
/// The longest such wait: what somebody deletes is to be back within a second.
const LONGEST_SETTLE: Duration = Duration::from_millis(500);
/// The first pause after something was left undone.
const RETRY: Duration = Duration::from_secs(1);
/// So long what the store says is gathered before it is acted on.
const GATHER: Duration = Duration::from_millis(10);
/// So long vacated addresses are gathered: the kernel walks its whole table of connections for one as for many, and the
/// plugins' DEL has mostly done it before.
const FORGET_PAUSE: Duration = Duration::from_secs(1);
/// Between signs of life while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Bounds of the pause between two looks for endpoints without an interface.
const SHORTEST_LOOK: Duration = Duration::from_millis(200);
const LONGEST_LOOK: Duration = Duration::from_secs(15);
/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
