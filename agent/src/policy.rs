//! Policy in force: what the store says of policy, compiled and kept in the kernel.
//!
//! A task of its own, so that a change of policy waits for no comparison of routes. It reads what the
//! store's follower tells every listener, hears from the task that owns the state what the node is, and
//! tells it which endpoints are enforced. The work is done on a thread that may wait ([`Force`]).
//!
//! Nothing is put in force before the store has been read once and the node is known. Until then, and
//! while the store is away, what an earlier run has put in force stays as it is.

mod force;
mod order;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use margay_netlink::Netlink;
use margay_nft::Watch;
use margay_policy::{Condition, EndpointId};
use margay_store::follow::{Event, Update};
use margay_telemetry::Reporter;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

pub use force::{Done, Force, Outcome, Work};
pub use order::Order;

use crate::error::AgentError;
use crate::metrics::{PolicyMetrics, figure};
use crate::report::Status;

/// The task.
#[derive(Debug)]
pub struct Task {
    /// The node's name.
    pub node: String,
    /// The kernel.
    pub netlink: Netlink,
    /// What the node is and how it is to be enforced.
    pub orders: watch::Receiver<Option<Order>>,
    /// The endpoints whose policy is in force.
    pub enforced: watch::Sender<Enforced>,
    /// Where the state of the node is shown.
    pub status: watch::Sender<Status>,
    /// Whether policy is in force.
    pub health: Reporter,
    /// Figures.
    pub metrics: PolicyMetrics,
}

/// The endpoints of this node whose policy is in force, each with what it is in force for.
pub type Enforced = BTreeMap<EndpointId, Placed>;

/// What an endpoint's policy is in force for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The host end's interface.
    pub interface: String,
    /// The addresses, sorted.
    pub addresses: Vec<IpAddr>,
}

/// What the status tells of policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// Whether policy is in force, or why not.
    pub state: String,
    /// Endpoints whose policy is in force.
    pub endpoints: usize,
    /// Objects that make no sense, and what that means meanwhile.
    pub problems: Vec<String>,
}

/// The running task.
#[derive(Debug)]
struct Running {
    task: Task,
    /// `None` only while a thread works with it.
    force: Option<Force>,
    watch: Option<Watch>,
    /// What the next turn has to do.
    next: Work,
    /// When it is due, unless that is now.
    due: Option<Instant>,
    failures: u32,
    /// What was logged already.
    told: BTreeSet<Condition>,
    /// When objects' conditions are to be looked at.
    review: Option<Instant>,
    held: bool,
}

impl Task {
    /// Works until `stop` changes.
    ///
    /// # Errors
    /// The store's follower has ended.
    pub async fn run(
        self,
        mut events: mpsc::Receiver<Arc<Event>>,
        mut accept: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), AgentError> {
        let force = Force::new(&self.node, self.netlink.namespace().clone());
        let mut running = Running {
            task: self,
            force: Some(force),
            watch: None,
            next: Work::default(),
            due: None,
            failures: 0,
            told: BTreeSet::new(),
            review: None,
            held: false,
        };
        running.show("waiting for the datastore");
        loop {
            let due = running.due.unwrap_or_else(|| Instant::now() + FAR);
            let review = running.review.unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                biased;
                _ = stop.changed() => return Ok(()),
                () = sleep_until(due), if running.due.is_some() => running.turn().await?,
                edited = watched(&mut running.watch) => running.notice(edited),
                event = events.recv() => {
                    let Some(event) = event else {
                        return Err(AgentError::Ended { part: "follower of the datastore" });
                    };
                    running.hear(&event);
                    while let Ok(event) = events.try_recv() {
                        running.hear(&event);
                    }
                }
                changed = running.task.orders.changed() => {
                    if changed.is_err() {
                        return Err(AgentError::Ended { part: "comparison" });
                    }
                    running.next.order = running.task.orders.borrow_and_update().clone();
                    running.hasten(Duration::ZERO);
                }
                _ = accept.changed() => {
                    running.next.trusted = true;
                    running.hasten(Duration::ZERO);
                }
                () = sleep_until(review), if running.review.is_some() => running.look_over(),
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            running.task.health.live();
        }
    }
}

impl Running {
    /// Takes in what the store says. What is held back is not handed on, so nothing changes.
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Synced { updates, .. } => {
                self.next.synced = true;
                self.take(updates);
            }
            Event::Changed { updates, .. } => self.take(updates),
            Event::Lost(_)
            | Event::Regressed { .. }
            | Event::Replaced { .. }
            | Event::Shrunk { .. } => {}
        }
    }

    fn take(&mut self, updates: &[Update]) {
        let before = self.next.updates.len();
        let of_policy = updates.iter().filter(|update| order::concerns(update));
        self.next.updates.extend(of_policy.cloned());
        if self.next.synced || self.next.updates.len() > before {
            self.hasten(Duration::ZERO);
        }
    }

    /// Takes in what somebody else has done to our table.
    fn notice(&mut self, edited: Option<margay_nft::Result<margay_nft::Event>>) {
        let (kind, pause) = match edited {
            Some(Ok(margay_nft::Event::Deleted)) => {
                error!("somebody has deleted our table of nftables; it is put back, closed first");
                self.next.restore = true;
                ("deleted", Duration::ZERO)
            }
            Some(Ok(margay_nft::Event::Changed)) => {
                warn!("somebody has changed our table of nftables; it is put right");
                ("changed", SETTLE)
            }
            Some(Ok(margay_nft::Event::Resync)) => {
                warn!("notifications of nftables were lost; comparing the whole table");
                ("lost", SETTLE)
            }
            Some(Err(error)) => {
                warn!(%error, "the notifications of nftables broke off; subscribing again");
                self.watch = None;
                ("lost", SETTLE)
            }
            None => {
                self.watch = None;
                ("lost", SETTLE)
            }
        };
        self.task.metrics.resync(kind);
        self.next.whole = true;
        self.hasten(pause);
    }

    fn hasten(&mut self, pause: Duration) {
        let due = Instant::now() + pause;
        self.due = Some(self.due.map_or(due, |set| set.min(due)));
    }

    /// One turn of work, and what follows from it.
    ///
    /// # Errors
    /// The thread has panicked.
    async fn turn(&mut self) -> Result<(), AgentError> {
        const ENDED: AgentError = AgentError::Ended { part: "policy" };
        self.due = None;
        let mut force = self.force.take().ok_or(ENDED)?;
        if self.watch.is_none() {
            // Before the table is read, so that nothing is missed.
            match force.watch() {
                Ok(watch) => {
                    self.watch = Some(watch);
                    self.next.whole = true;
                }
                Err(error) => {
                    self.force = Some(force);
                    self.stumble(&crate::error::whole(&error));
                    return Ok(());
                }
            }
        }
        let mut work = std::mem::take(&mut self.next);
        if force.asks_for_interfaces() {
            work.interfaces = self.workload_interfaces().await;
        }
        let done = tokio::task::spawn_blocking(move || {
            let outcome = force.turn(work);
            (force, outcome)
        });
        // What a thread knew that has panicked is lost with it.
        let (force, outcome) = done.await.map_err(|_| ENDED)?;
        self.force = Some(force);
        self.conclude(outcome);
        Ok(())
    }

    /// Names of the interfaces that are there; `None` if they cannot be listed.
    async fn workload_interfaces(&self) -> Option<BTreeSet<String>> {
        match self.task.netlink.interfaces().await {
            Ok(interfaces) => Some(interfaces.iter().map(|link| link.name.clone()).collect()),
            Err(error) => {
                warn!(%error, "the interfaces cannot be listed");
                None
            }
        }
    }

    fn conclude(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Waiting => {}
            Outcome::Held { unknown } => {
                if !self.held {
                    error!(
                        "{unknown} interfaces of workloads have policy in the kernel and are unknown to the \
                         datastore, most of those that have; policy stays as it is until the datastore knows \
                         them again, or SIGUSR1 tells this process that they may go"
                    );
                }
                self.held = true;
                self.task.metrics.held.set(1);
                let reason =
                    format!("held: {unknown} interfaces with policy are unknown to the datastore");
                self.task.health.ready(true, &reason);
                self.show(&reason);
            }
            Outcome::Unchanged => {
                self.review.get_or_insert_with(|| Instant::now() + REVIEW);
            }
            Outcome::Done(done) => {
                if self.failures > 0 {
                    info!("policy is in force again");
                }
                self.failures = 0;
                self.held = false;
                self.task.metrics.done(&done);
                if !done.endpoints.is_empty() {
                    self.task.enforced.send_modify(|enforced| {
                        for (id, placed) in done.endpoints {
                            match placed {
                                Some(placed) => enforced.insert(id, placed),
                                None => enforced.remove(&id),
                            };
                        }
                    });
                }
                self.task.health.ready(true, "policy is in force");
                self.show("in force");
                self.review.get_or_insert_with(|| Instant::now() + REVIEW);
            }
            Outcome::Failed(reason) => self.stumble(&reason),
        }
    }

    /// Something was left undone: tries again, later each time.
    fn stumble(&mut self, reason: &str) {
        warn!(
            error = reason,
            "policy cannot be put in force; what was in force before stays"
        );
        self.task.metrics.failures.inc();
        let pause = RETRY.saturating_mul(1 << self.failures.min(4));
        self.failures = self.failures.saturating_add(1);
        self.next.whole = true;
        self.hasten(pause);
        self.task.health.ready(false, reason);
        self.show(&format!("not in force: {reason}"));
    }

    fn show(&self, state: &str) {
        let endpoints = self.task.enforced.borrow().len();
        self.task.status.send_if_modified(|status| {
            let policy = &mut status.policy;
            if policy.state == state && policy.endpoints == endpoints {
                return false;
            }
            state.clone_into(&mut policy.state);
            policy.endpoints = endpoints;
            true
        });
    }

    /// Says which objects make no sense, each once while that lasts.
    fn look_over(&mut self) {
        self.review = None;
        let Some(force) = &self.force else { return };
        let now: BTreeSet<Condition> = force.conditions().into_iter().collect();
        for condition in now.difference(&self.told) {
            warn!(key = %condition.key, "{}", condition.problem);
        }
        for condition in self.told.difference(&now) {
            info!(key = %condition.key, "no longer: {}", condition.problem);
        }
        self.task.metrics.problems.set(figure(now.len()));
        let words = |condition: &Condition| format!("{}: {}", condition.key, condition.problem);
        let problems: Vec<String> = now.iter().map(words).collect();
        self.told = now;
        self.task.status.send_if_modified(|status| {
            let differs = status.policy.problems != problems;
            status.policy.problems = problems;
            differs
        });
    }
}

/// The next thing that somebody else does to our table; never, while nothing is watched.
async fn watched(watch: &mut Option<Watch>) -> Option<margay_nft::Result<margay_nft::Event>> {
    match watch {
        Some(watch) => watch.next().await,
        None => std::future::pending().await,
    }
}

/// Edits come in flocks.
const SETTLE: Duration = Duration::from_millis(100);
/// The first pause after something was left undone.
const RETRY: Duration = Duration::from_secs(1);
/// Between a change and the look at what is wrong with objects.
const REVIEW: Duration = Duration::from_millis(500);
/// Between signs of life while nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// As good as never.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
