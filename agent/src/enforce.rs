//! Policy put in force: from the store's updates to our table in the kernel.
//!
//! What should be is calculated in increments and compiled into the table as it should be; the kernel is
//! given the difference, as one transaction, on a thread that may wait. When somebody else has changed the
//! table, or the kernel refused, it is read and compared whole.

mod cut;
mod host;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use margay_model::{Key, Kind};
use margay_netlink::Namespace;
use margay_nft::{Event, Nft, Watch};
use margay_policy::{Calculator, Condition, EndpointId};
use margay_ruleset::compile::{Node, Settings, is_enforced};
use margay_ruleset::{Batch, Compiler, Observed, plan, plan_changes};
use margay_store::follow::Update;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use crate::error::AgentError;
use crate::metrics::{Metrics, figure};

pub(crate) use host::node;

/// Keeps policy in force on one node.
#[derive(Debug)]
pub struct Enforcer {
    calculator: Calculator,
    settings: Settings,
    /// What the node is; `None` before the first look at it.
    node: Option<Node>,
    /// `None` while a thread has it.
    kernel: Option<Kernel>,
    /// Whether there is something to put in force, or to repair.
    due: bool,
    repair: Option<Event>,
    /// Endpoints whose policy is in the kernel as it should be.
    in_force: BTreeSet<EndpointId>,
    told: BTreeSet<Condition>,
    /// Names of the interfaces that are there, until the store is trusted: see [`suspicious`].
    present: Option<BTreeSet<String>>,
    /// Interfaces that would lose their policy, while that is held back.
    held: usize,
    /// Who cuts connections that policy no longer allows, where that is wanted.
    cutter: Option<mpsc::UnboundedSender<cut::Job>>,
    /// Endpoints whose connections are to be judged when what has changed is in force.
    concerned: BTreeSet<EndpointId>,
    metrics: Metrics,
}

/// The compiled table and the kernel's side of it.
#[derive(Debug)]
struct Kernel {
    compiler: Compiler,
    nft: Nft,
    /// What is in the kernel; `None` where that has to be read.
    observed: Option<Observed>,
}

/// What is asked of the kernel's side beside what should be.
#[derive(Debug)]
struct Asked {
    repair: Option<Event>,
    /// Names of the interfaces that are there, while the store is not trusted.
    present: Option<BTreeSet<String>>,
    /// Whether connections are cut.
    cuts: bool,
}

/// What putting in force came to.
#[derive(Debug, Default)]
struct Outcome {
    /// Changes of the kernel, in the language of nft.
    operations: usize,
    error: Option<margay_nft::Error>,
    /// Endpoints on which the change bears, except new ones.
    concerned: BTreeSet<EndpointId>,
    /// So many interfaces would have lost their policy that nothing was changed.
    held: Option<usize>,
}

impl Enforcer {
    /// For a node, with nothing in force yet: what an earlier run left stays until the first
    /// [`Enforcer::apply`].
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub fn new(
        node: &str,
        namespace: &Namespace,
        settings: Settings,
        cut_connections: bool,
        metrics: Metrics,
    ) -> Result<Self, AgentError> {
        let kernel = Kernel {
            compiler: Compiler::new(settings.clone()),
            nft: Nft::open(namespace)?,
            observed: None,
        };
        Ok(Self {
            calculator: Calculator::new(node),
            settings,
            node: None,
            kernel: Some(kernel),
            due: true,
            repair: None,
            in_force: BTreeSet::new(),
            told: BTreeSet::new(),
            present: Some(BTreeSet::new()),
            held: 0,
            cutter: cut_connections.then(|| cut::start(namespace.clone(), metrics.clone())),
            concerned: BTreeSet::new(),
            metrics,
        })
    }

    /// Tells of what others do to our table.
    ///
    /// # Errors
    /// The kernel cannot be watched.
    pub fn watch(&self, namespace: &Namespace) -> Result<Watch, AgentError> {
        let own: Vec<u32> = self.kernel.iter().map(|kernel| kernel.nft.port()).collect();
        Ok(Watch::open(namespace, &self.settings.table, &own)?)
    }

    /// Kinds of resources that matter.
    pub fn kinds() -> impl Iterator<Item = Kind> {
        Calculator::kinds().into_iter()
    }

    /// Takes in what the store says.
    pub fn update(&mut self, update: &Update) {
        let (key, value) = match update {
            Update::Put(entry) => (&entry.key, Some(&*entry.value)),
            Update::Delete(key) => (key, None),
        };
        if let Key::Resource { kind, .. } = key
            && Calculator::kinds().contains(kind)
        {
            self.calculator.update_bytes(key, value);
            self.due = true;
        }
    }

    /// Takes in what somebody else did to our table.
    pub fn disturbed(&mut self, event: Event) {
        self.repair = Some(match (self.repair, event) {
            (Some(Event::Deleted), _) => Event::Deleted,
            (_, event) => event,
        });
        self.due = true;
    }

    /// Takes in what the node is.
    pub fn set_node(&mut self, node: Node) {
        if self.node.as_ref() != Some(&node) {
            self.node = Some(node);
            self.due = true;
        }
    }

    /// Takes in which interfaces there are, as long as that matters.
    pub fn set_present<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        if let Some(present) = &mut self.present {
            *present = names.map(str::to_owned).collect();
        }
    }

    /// Takes in the operator's word that the store is right as it is.
    pub fn trust(&mut self) {
        self.present = None;
        self.due = true;
    }

    /// How many interfaces would lose their policy, where that is held back because they are suspiciously many.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes in what the operators chose.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.settings = settings;
            self.due = true;
        }
    }

    /// Whether [`Enforcer::apply`] has something to do, and what it needs to know for it.
    pub fn is_due(&self) -> bool {
        self.due && self.node.is_some()
    }

    /// Whether an endpoint's policy is in the kernel as the store has it.
    pub fn is_in_force(&self, key: &Key) -> bool {
        match key {
            Key::Resource {
                namespace: Some(namespace),
                name,
                ..
            } => self.in_force.contains(&EndpointId {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            _ => false,
        }
    }

    /// Whose addresses are, as far as the store says.
    pub fn owners(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Key> {
        self.calculator.owners(addresses)
    }

    /// What is wrong with the objects that policy is made of.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.told.iter().map(words)
    }

    /// Puts in force what has changed since it was last called.
    ///
    /// Returns why something could not be; it is tried again at the next call.
    ///
    /// # Errors
    /// [`AgentError::Ended`]: the compilation broke off, and what it knew is lost.
    pub async fn apply(&mut self) -> Result<Option<String>, AgentError> {
        let Some(node) = self.node.clone() else {
            return Ok(None);
        };
        let broken = AgentError::Ended { part: "policy" };
        let Some(mut kernel) = self.kernel.take() else {
            return Err(broken);
        };
        self.due = false;
        let begun = Instant::now();
        let delta = self.calculator.flush();
        let touched: Vec<EndpointId> = delta.workloads.keys().cloned().collect();
        for id in touched.iter().chain(&delta.removed_workloads) {
            self.in_force.remove(id);
        }
        let repair = self.repair.take();
        let settings = self.settings.clone();
        let cuts = self.cutter.is_some();
        let own: BTreeSet<IpAddr> = match cuts {
            true => node
                .interfaces
                .iter()
                .flat_map(|(_, own)| own)
                .copied()
                .collect(),
            false => BTreeSet::new(),
        };
        let present = self.present.clone();
        let work = move || {
            let asked = Asked {
                repair,
                present,
                cuts,
            };
            let outcome = kernel.put(delta, node, settings, asked);
            (kernel, outcome)
        };
        let Ok((kernel, outcome)) = spawn_blocking(work).await else {
            return Err(broken);
        };
        let took = begun.elapsed();
        self.concerned.extend(outcome.concerned);
        if let Some(unknown) = outcome.held {
            self.hold(unknown);
            self.kernel = Some(kernel);
            self.repair = repair;
            return Ok(None);
        }
        let metrics = &self.metrics;
        metrics.policy_time.observe(took.as_secs_f64());
        match repair {
            Some(event) => {
                metrics.policy_repairs.inc();
                warn!(
                    table = self.settings.table,
                    ?took,
                    "somebody else {} our table of nftables; it is as it should be again",
                    if event == Event::Deleted {
                        "deleted"
                    } else {
                        "changed"
                    },
                );
            }
            None => debug!(
                ?took,
                operations = outcome.operations,
                "policy is put in force"
            ),
        }
        let desired = kernel.compiler.desired();
        let failed = outcome.error.map(|error| error.to_string());
        match &failed {
            None => {
                if std::mem::take(&mut self.held) > 0 {
                    info!("policy follows the datastore again");
                }
                metrics.policy_held.set(0);
                self.present = None;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                metrics
                    .policy_applied
                    .set(now.unwrap_or_default().as_secs_f64());
                if let Some(cutter) = &self.cutter
                    && !self.concerned.is_empty()
                {
                    let excerpt = desired.excerpt(&std::mem::take(&mut self.concerned));
                    // It ends with this alone.
                    let _ = cutter.send(cut::Job { excerpt, own });
                }
                let all = self.in_force.is_empty();
                if all {
                    self.in_force = desired.workloads.keys().cloned().collect();
                } else {
                    let there = touched.into_iter();
                    self.in_force
                        .extend(there.filter(|id| desired.workloads.contains_key(id)));
                }
            }
            Some(reason) => {
                metrics.policy_failures.inc();
                warn!(
                    error = reason,
                    "the kernel refuses the policy; what was in force stays"
                );
                self.due = true;
                // Which of the endpoints before them are as they should be is known only when all are.
                if kernel.observed.is_none() {
                    self.in_force.clear();
                }
            }
        }
        metrics.policy_endpoints.set(figure(self.in_force.len()));
        metrics.policies.set(figure(desired.policies.len()));
        metrics.policy_sets.set(figure(desired.sets.len()));
        let chains = kernel.compiler.table().chains().values();
        metrics
            .policy_rules
            .set(figure(chains.map(|chain| chain.rules.len()).sum()));
        self.kernel = Some(kernel);
        self.tell();
        Ok(failed)
    }

    /// What would be changed in the kernel, as a transaction in the language of nft.
    ///
    /// # Errors
    /// The kernel cannot be read.
    pub(crate) fn foretell(
        node: &str,
        namespace: &Namespace,
        settings: Settings,
        host: Node,
        updates: &[Update],
    ) -> Result<Batch, AgentError> {
        let mut calculator = Calculator::new(node);
        for update in updates {
            if let Update::Put(entry) = update {
                calculator.update_bytes(&entry.key, Some(&entry.value));
            }
        }
        let mut compiler = Compiler::new(settings);
        compiler.update(calculator.flush());
        compiler.set_node(host);
        let observed = Nft::open(namespace)?.observe(compiler.table().name())?;
        Ok(plan(compiler.table(), &observed))
    }

    /// Notes that nothing was changed because too much would have been.
    fn hold(&mut self, unknown: usize) {
        if self.held == 0 {
            error!(
                "{unknown} interfaces of workloads have policy in the kernel and are unknown to the datastore, most \
                 of those that have; policy stays as it is until the datastore knows them again, or SIGUSR1 tells \
                 this process that they may go"
            );
        }
        self.held = unknown;
        self.metrics.policy_held.set(1);
    }

    /// Logs what is wrong with objects, each once while it lasts.
    fn tell(&mut self) {
        let conditions: BTreeSet<Condition> = self.calculator.conditions().into_iter().collect();
        for condition in conditions.difference(&self.told) {
            warn!("{}", words(condition));
        }
        for condition in self.told.difference(&conditions) {
            info!(key = %condition.key, "is well again");
        }
        self.metrics.policy_problems.set(figure(conditions.len()));
        self.told = conditions;
    }
}

impl Kernel {
    /// Brings table and kernel up to date.
    fn put(
        &mut self,
        delta: margay_policy::Delta,
        node: Node,
        settings: Settings,
        asked: Asked,
    ) -> Outcome {
        let repair = asked.repair;
        let mut outcome = Outcome::default();
        let noted = asked.cuts.then(|| {
            let there = self.compiler.desired().workloads.keys();
            (there.cloned().collect::<BTreeSet<_>>(), delta.clone())
        });
        self.compiler.update(delta);
        if let Some((there, delta)) = noted {
            let desired = self.compiler.desired();
            outcome.concerned = desired.concerned(&delta, |id| there.contains(id));
        }
        self.compiler.set_node(node);
        let mut changes = self.compiler.take_changes();
        let mut whole = false;
        if self.compiler.settings() != &settings {
            let fresh = Compiler::new(settings.clone());
            let old = std::mem::replace(&mut self.compiler, fresh);
            self.compiler = old.with_settings(settings);
            changes = self.compiler.take_changes();
            whole = true;
        }
        if let Some(present) = asked.present {
            match self.nft.observe(self.compiler.table().name()) {
                Ok(observed) => outcome.held = suspicious(&observed, &self.compiler, &present),
                Err(error) => outcome.error = Some(error),
            }
            if outcome.held.is_some() || outcome.error.is_some() {
                self.observed = None;
                return outcome;
            }
        }
        let table = self.compiler.table();
        let prefixes = &self.compiler.settings().workload_prefixes;
        let result = match (repair, self.observed.take()) {
            (Some(Event::Deleted), _) => self.nft.restore(table, prefixes),
            (Some(_), _) | (None, None) => self.nft.synchronise(table),
            (None, Some(mut observed)) => {
                let batch = if whole {
                    plan(table, &observed)
                } else {
                    plan_changes(table, &observed, &changes)
                };
                outcome.operations = batch.operations.len();
                match self.nft.apply(&batch) {
                    Ok(()) => {
                        observed.apply(&batch);
                        Ok(observed)
                    }
                    Err(error) => {
                        debug!(%error, "the kernel refused a difference; comparing everything");
                        self.nft.synchronise(table)
                    }
                }
            }
        };
        match result {
            Ok(observed) => self.observed = Some(observed),
            Err(error) => outcome.error = Some(error),
        }
        outcome
    }
}

/// How many of the interfaces that are there would lose the policy that an earlier run has given them, where that is
/// most of them: it points to a datastore that was emptied or is another one.
fn suspicious(
    observed: &Observed,
    compiler: &Compiler,
    present: &BTreeSet<String>,
) -> Option<usize> {
    let table = observed.table.as_ref()?;
    let enforced = present.iter().filter(|name| is_enforced(table, name));
    let (known, unknown): (Vec<_>, Vec<_>) =
        enforced.partition(|name| compiler.knows_interface(name));
    (unknown.len() >= SUSPICIOUS && unknown.len() > known.len()).then_some(unknown.len())
}

fn words(condition: &Condition) -> String {
    format!("{}: {}", condition.key, condition.problem)
}

/// So few may well have vanished from the datastore while the agent was away.
const SUSPICIOUS: usize = 5;
