//! Policy put in force: from the store's updates to our table in the kernel.
//!
//! What should be is calculated in increments and compiled into the table as it should be; the kernel is
//! given the difference, as one transaction, on a thread that may wait. When somebody else has changed the
//! table, or the kernel refused, it is read and compared whole.

mod complaints;
mod cut;
mod host;
mod kernel;
pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use margay_model::{Key, Kind};
use margay_netlink::Namespace;
use margay_nft::{Event, Nft, Watch};
use margay_policy::{Calculator, EndpointId, Host};
use margay_ruleset::compile::{Node, Settings};
use margay_ruleset::others::ForeignChain;
use margay_ruleset::{Batch, Compiler, plan};
use margay_store::follow::Update;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use crate::error::AgentError;
use crate::metrics::{Metrics, figure};

use complaints::Complaints;
pub(crate) use host::node;
use kernel::{Asked, Kernel};

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
    /// Whether that is known of none, so that all are when the kernel takes the next change.
    unsure: bool,
    /// What was told of objects.
    complaints: Complaints,
    /// Whether the store has said something since then.
    heard: bool,
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
        let kernel = Kernel::open(namespace, settings.clone())?;
        Ok(Self {
            calculator: Calculator::new(node),
            settings,
            node: None,
            kernel: Some(kernel),
            due: true,
            repair: None,
            in_force: BTreeSet::new(),
            unsure: true,
            complaints: Complaints::default(),
            heard: true,
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
            self.heard = true;
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

    /// This node's host endpoints, by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        let kernel = self.kernel.iter();
        let hosts = kernel.flat_map(|kernel| &kernel.compiler.desired().hosts);
        hosts.map(|(name, host)| (name.as_str(), host))
    }

    /// Whether the kernel has taken what it was given last.
    pub fn is_settled(&self) -> bool {
        !self.unsure
    }

    /// Whose addresses are, as far as the store says.
    pub fn owners(&self, addresses: &BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Key> {
        self.calculator.owners(addresses)
    }

    /// What is wrong with the objects that policy is made of.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.complaints.words()
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
        self.due = false;
        let begun = Instant::now();
        let delta = self.calculator.flush();
        let touched: Vec<EndpointId> = delta.workloads.keys().cloned().collect();
        for id in touched.iter().chain(&delta.removed_workloads) {
            self.in_force.remove(id);
        }
        let own = own_addresses(&node);
        let settings = self.settings.clone();
        let asked = Asked {
            repair: self.repair,
            present: self.present.clone(),
            cuts: self.cutter.is_some(),
        };
        let work = move |kernel: &mut Kernel| kernel.put(delta, node, settings, asked);
        let outcome = self.ask(work).await?;
        self.concerned.extend(outcome.concerned);
        if let Some(unknown) = outcome.held {
            self.hold(unknown);
            return Ok(None);
        }
        self.note(begun.elapsed(), outcome.operations);
        let failed = outcome.error.map(|error| error.to_string());
        match &failed {
            None => self.succeeded(touched, own),
            Some(reason) => self.failed(reason),
        }
        self.show();
        Ok(failed)
    }

    /// The rules of other programs that see what workloads send.
    ///
    /// # Errors
    /// [`AgentError::Ended`], as [`Enforcer::apply`]; the inner one where the kernel refuses.
    pub async fn foreign_chains(
        &mut self,
    ) -> Result<margay_nft::Result<Vec<ForeignChain>>, AgentError> {
        self.ask(|kernel| kernel.nft.chains()).await
    }

    /// Has the kernel's side do something, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Kernel) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let broken = AgentError::Ended { part: "policy" };
        let Some(mut kernel) = self.kernel.take() else {
            return Err(broken);
        };
        let work = move || {
            let result = work(&mut kernel);
            (kernel, result)
        };
        let Ok((kernel, result)) = spawn_blocking(work).await else {
            return Err(broken);
        };
        self.kernel = Some(kernel);
        Ok(result)
    }

    /// Logs and counts that the kernel was asked for changes.
    fn note(&mut self, took: Duration, operations: usize) {
        self.metrics.policy_time.observe(took.as_secs_f64());
        let Some(event) = self.repair.take() else {
            debug!(?took, operations, "policy is put in force");
            return;
        };
        self.metrics.policy_repairs.inc();
        let done = match event {
            Event::Deleted => "deleted",
            Event::Changed | Event::Resync => "changed",
        };
        warn!(
            table = self.settings.table,
            ?took,
            "somebody else {done} our table of nftables; it is as it should be again",
        );
    }

    /// All that should be is in the kernel.
    fn succeeded(&mut self, touched: Vec<EndpointId>, own: BTreeSet<IpAddr>) {
        if std::mem::take(&mut self.held) > 0 {
            info!("policy follows the datastore again");
        }
        self.metrics.policy_held.set(0);
        self.present = None;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let applied = &self.metrics.policy_applied;
        applied.set(now.unwrap_or_default().as_secs_f64());
        let Some(kernel) = &self.kernel else {
            return;
        };
        let desired = kernel.compiler.desired();
        if let Some(cutter) = &self.cutter
            && !self.concerned.is_empty()
        {
            let excerpt = desired.excerpt(&std::mem::take(&mut self.concerned));
            // It ends with this alone.
            let _ = cutter.send(cut::Job { excerpt, own });
        }
        if std::mem::take(&mut self.unsure) {
            self.in_force = desired.workloads.keys().cloned().collect();
        } else {
            let there = touched.into_iter();
            self.in_force
                .extend(there.filter(|id| desired.workloads.contains_key(id)));
        }
    }

    /// The kernel has refused something, and what was in force stays.
    fn failed(&mut self, reason: &str) {
        self.metrics.policy_failures.inc();
        warn!(
            error = reason,
            "the kernel refuses the policy; what was in force stays"
        );
        self.due = true;
        // Which endpoints are as they should be is known only when all are.
        self.in_force.clear();
        self.unsure = true;
    }

    /// Shows in figures what is in force, and tells what is wrong with objects.
    fn show(&mut self) {
        let metrics = &self.metrics;
        metrics.policy_endpoints.set(figure(self.in_force.len()));
        if let Some(kernel) = &self.kernel {
            let desired = kernel.compiler.desired();
            metrics.policies.set(figure(desired.policies.len()));
            metrics.policy_sets.set(figure(desired.sets.len()));
            metrics.policy_rules.set(figure(kernel.rules));
        }
        if std::mem::take(&mut self.heard) {
            let count = self.complaints.tell(&self.calculator);
            metrics.policy_problems.set(figure(count));
        }
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
}

/// The node's own addresses.
fn own_addresses(node: &Node) -> BTreeSet<IpAddr> {
    let interfaces = node.interfaces.iter();
    interfaces.flat_map(|(_, own)| own).copied().collect()
}
