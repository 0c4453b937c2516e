//! The work itself, on a thread that may wait: calculation, compilation, and the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use margay_netlink::Namespace;
use margay_nft::{Nft, Watch};
use margay_policy::{Calculator, Condition, Delta, EndpointId};
use margay_ruleset::compile::is_enforced;
use margay_ruleset::{Compiler, Observed, plan_changes};
use margay_store::follow::Update;

use super::{Order, Placed};

/// Policy of this node: as the store says, as it is compiled, and as the kernel has it.
#[derive(Debug)]
pub struct Force {
    namespace: Namespace,
    calculator: Calculator,
    /// `None` before the node is known.
    compiler: Option<Compiler>,
    nft: Option<Nft>,
    /// What the kernel has; `None` before it was read, and when that is in doubt.
    observed: Option<Observed>,
    /// Whether the store has been read once.
    synced: bool,
    /// Whether the table is put in force however many interfaces lose their policy by that.
    trusted: bool,
    /// Whether all that follows from the table has to be compared.
    whole: bool,
    /// Whether our table has been deleted.
    restore: bool,
    /// Endpoints whose policy is compiled and not in force yet; `None` for those that are gone.
    endpoints: BTreeMap<EndpointId, Option<Placed>>,
}

/// What a turn has to do.
#[derive(Debug, Default)]
pub struct Work {
    /// What the store says, in order.
    pub updates: Vec<Update>,
    /// Whether the store has been read with these.
    pub synced: bool,
    /// What the node now is, where that has changed.
    pub order: Option<Order>,
    /// Whether the kernel's table is to be compared as a whole.
    pub whole: bool,
    /// Whether it has been deleted.
    pub restore: bool,
    /// The operator's word that the store is right as it is.
    pub trusted: bool,
    /// Names of the interfaces that are there, for the first comparison.
    pub interfaces: Option<BTreeSet<String>>,
}

/// What has become of a turn.
#[derive(Debug)]
pub enum Outcome {
    /// The store has not been read yet, or the node is not known.
    Waiting,
    /// Too many interfaces would lose their policy; nothing was changed.
    Held {
        /// How many.
        unknown: usize,
    },
    /// Nothing was to be done.
    Unchanged,
    /// The table is as it should be.
    Done(Done),
    /// The kernel refused; it has what it had.
    Failed(String),
}

/// What is in force.
#[derive(Debug)]
pub struct Done {
    /// Endpoints whose policy has come into force, differs, or is gone.
    pub endpoints: BTreeMap<EndpointId, Option<Placed>>,
    /// Whether a change was refused and the whole table compared in its place.
    pub refused: bool,
    /// How long it took, from the store's word to the kernel's.
    pub took: Duration,
    /// Workload endpoints.
    pub workloads: usize,
    /// Host endpoints.
    pub hosts: usize,
    /// Policies that endpoints here have.
    pub policies: usize,
    /// Rules in the table.
    pub rules: usize,
    /// Sets and maps in the table.
    pub sets: usize,
}

impl Force {
    /// Policy of a node, before anything is known.
    pub fn new(node: &str, namespace: Namespace) -> Self {
        Self {
            namespace,
            calculator: Calculator::new(node),
            compiler: None,
            nft: None,
            observed: None,
            synced: false,
            trusted: false,
            whole: true,
            restore: false,
            endpoints: BTreeMap::new(),
        }
    }

    /// Subscribes to what others do to our table.
    ///
    /// # Errors
    /// The kernel has no nftables, or permissions are missing.
    pub fn watch(&mut self) -> margay_nft::Result<Watch> {
        let port = self.nft()?.port();
        Watch::open(&self.namespace, TABLE, &[port])
    }

    /// Whether the next turn wants to know which interfaces there are.
    pub fn asks_for_interfaces(&self) -> bool {
        !self.trusted
    }

    /// What is wrong with objects.
    pub fn conditions(&self) -> Vec<Condition> {
        self.calculator.conditions()
    }

    /// Takes in what there is to know, and puts in force what follows from it.
    pub fn turn(&mut self, work: Work) -> Outcome {
        let begun = Instant::now();
        self.synced |= work.synced;
        self.trusted |= work.trusted;
        self.whole |= work.whole;
        self.restore |= work.restore;
        for update in &work.updates {
            match update {
                Update::Put(entry) => {
                    let value = Some(&entry.value[..]);
                    self.calculator.update_bytes(&entry.key, value);
                }
                Update::Delete(key) => self.calculator.update_bytes(key, None),
            }
        }
        if let Some(order) = work.order {
            self.obey(order);
        }
        if !self.synced || self.compiler.is_none() {
            return Outcome::Waiting;
        }
        self.compile();
        match self.put(work.interfaces.as_ref()) {
            Ok(Put::Nothing) if self.endpoints.is_empty() => Outcome::Unchanged,
            Ok(Put::Held(unknown)) => Outcome::Held { unknown },
            Ok(put) => self.done(begun, put == Put::Refused),
            Err(error) => Outcome::Failed(crate::error::whole(&error)),
        }
    }

    fn obey(&mut self, order: Order) {
        match &mut self.compiler {
            Some(compiler) => {
                self.whole |= compiler.set_settings(order.settings);
                compiler.set_node(order.node);
            }
            None => {
                let mut compiler = Compiler::new(order.settings);
                compiler.set_node(order.node);
                self.compiler = Some(compiler);
            }
        }
    }

    fn compile(&mut self) {
        let delta = self.calculator.flush();
        if let Some(compiler) = &mut self.compiler
            && !delta.is_empty()
        {
            note(&delta, &mut self.endpoints);
            compiler.update(delta);
        }
    }

    /// Makes the kernel's table what it should be.
    fn put(&mut self, interfaces: Option<&BTreeSet<String>>) -> margay_nft::Result<Put> {
        self.nft()?;
        let (Some(nft), Some(compiler)) = (&mut self.nft, &mut self.compiler) else {
            return Ok(Put::Nothing);
        };
        if !self.trusted {
            let observed = nft.observe(TABLE)?;
            if let Some(unknown) = suspicious(&observed, compiler, interfaces) {
                return Ok(Put::Held(unknown));
            }
            self.trusted = true;
        }
        let changes = compiler.take_changes();
        if let (Some(observed), false) = (&mut self.observed, self.whole) {
            let batch = plan_changes(compiler.table(), observed, &changes);
            if batch.is_empty() {
                return Ok(Put::Nothing);
            }
            match nft.apply(&batch) {
                Ok(()) => {
                    observed.apply(&batch);
                    return Ok(Put::Changes);
                }
                // Somebody may have changed the table; what there is to hear of it comes later.
                Err(error) => tracing::debug!(%error, "a change was refused"),
            }
        }
        let refused = !self.whole;
        self.whole = true;
        self.observed = None;
        let prefixes = &compiler.settings().workload_prefixes;
        let observed = match self.restore {
            true => nft.restore(compiler.table(), prefixes)?,
            false => nft.synchronise(compiler.table())?,
        };
        self.observed = Some(observed);
        self.whole = false;
        self.restore = false;
        Ok(match refused {
            true => Put::Refused,
            false => Put::Whole,
        })
    }

    fn done(&mut self, begun: Instant, refused: bool) -> Outcome {
        let Some(compiler) = &self.compiler else {
            return Outcome::Waiting;
        };
        let (desired, table) = (compiler.desired(), compiler.table());
        Outcome::Done(Done {
            endpoints: std::mem::take(&mut self.endpoints),
            refused,
            took: begun.elapsed(),
            workloads: desired.workloads.len(),
            hosts: desired.hosts.len(),
            policies: desired.policies.len(),
            rules: table.chains().values().map(|chain| chain.rules.len()).sum(),
            sets: table.sets().len(),
        })
    }

    fn nft(&mut self) -> margay_nft::Result<&mut Nft> {
        if self.nft.is_none() {
            self.nft = Some(Nft::open(&self.namespace)?);
        }
        match &mut self.nft {
            Some(nft) => Ok(nft),
            // invariant: it was opened above.
            None => unreachable!("a connection that was just opened"),
        }
    }
}

/// What was put into the kernel.
#[derive(Debug, PartialEq, Eq)]
enum Put {
    Nothing,
    /// Too many interfaces of workloads would have lost their policy.
    Held(usize),
    Changes,
    Whole,
    /// The whole, because changes were refused.
    Refused,
}

/// Notes which endpoints come and go.
fn note(delta: &Delta, endpoints: &mut BTreeMap<EndpointId, Option<Placed>>) {
    for (id, workload) in &delta.workloads {
        let placed = Placed {
            interface: workload.interface.clone(),
            addresses: workload.addresses.clone(),
        };
        endpoints.insert(id.clone(), Some(placed));
    }
    for id in &delta.removed_workloads {
        endpoints.insert(id.clone(), None);
    }
}

/// How many interfaces that are there would lose the policy that an earlier run has given them, where
/// that is more than half of them: it points to a store that was emptied or is another one.
fn suspicious(
    observed: &Observed,
    compiler: &Compiler,
    interfaces: Option<&BTreeSet<String>>,
) -> Option<usize> {
    let table = observed.table.as_ref()?;
    let enforced: Vec<&String> = interfaces?
        .iter()
        .filter(|name| is_enforced(table, name))
        .collect();
    let unknown = enforced.iter();
    let unknown = unknown
        .filter(|name| !compiler.knows_interface(name))
        .count();
    (unknown >= SUSPICIOUS && unknown * 2 > enforced.len()).then_some(unknown)
}

/// The table's name.
pub(crate) const TABLE: &str = "margay";
/// So few interfaces may well have vanished from the store while the agent was away.
const SUSPICIOUS: usize = 5;
