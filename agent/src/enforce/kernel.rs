//! The kernel's side of policy: the compiled table, and what of it is in force.

use std::collections::BTreeSet;

use margay_netlink::Namespace;
use margay_nft::{Event, Nft};
use margay_policy::{Delta, EndpointId};
use margay_ruleset::compile::{Node, Settings, is_enforced};
use margay_ruleset::{Changes, Compiler, Observed, plan, plan_changes};
use tracing::debug;

/// The compiled table and what is in force of it.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) compiler: Compiler,
    pub(super) nft: Nft,
    /// What is in the kernel; `None` where that has to be read.
    observed: Option<Observed>,
    /// Rules of the table.
    pub(super) rules: usize,
}

/// What is asked of the kernel's side beside what should be.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) repair: Option<Event>,
    /// Names of the interfaces that are there, while the store is not trusted.
    pub(super) present: Option<BTreeSet<String>>,
    /// Whether connections are cut.
    pub(super) cuts: bool,
}

/// What putting in force came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Changes of the kernel, in the language of nft.
    pub(super) operations: usize,
    pub(super) error: Option<margay_nft::Error>,
    /// Endpoints on which the change bears, except new ones.
    pub(super) concerned: BTreeSet<EndpointId>,
    /// So many interfaces would have lost their policy that nothing was changed.
    pub(super) held: Option<usize>,
}

impl Kernel {
    /// Nothing is known of what is in force.
    ///
    /// # Errors
    /// The kernel has no nftables.
    pub(super) fn open(namespace: &Namespace, settings: Settings) -> margay_nft::Result<Self> {
        Ok(Self {
            compiler: Compiler::new(settings),
            nft: Nft::open(namespace)?,
            observed: None,
            rules: 0,
        })
    }

    /// Brings table and kernel up to date.
    pub(super) fn put(
        &mut self,
        delta: Delta,
        node: Node,
        settings: Settings,
        asked: Asked,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let noted = asked.cuts.then(|| {
            let there = self.compiler.desired().workloads.keys();
            (there.cloned().collect::<BTreeSet<_>>(), delta.clone())
        });
        let (changes, whole) = self.compile(delta, node, settings);
        if let Some((there, delta)) = noted {
            let desired = self.compiler.desired();
            outcome.concerned = desired.concerned(&delta, |id| there.contains(id));
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
        let result = match (asked.repair, self.observed.take()) {
            (Some(Event::Deleted), _) => self.nft.restore(table, prefixes),
            (Some(_), _) | (None, None) => self.nft.synchronise(table),
            (None, Some(mut observed)) => {
                let batch = match whole {
                    true => plan(table, &observed),
                    false => plan_changes(table, &observed, &changes),
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

    /// Brings the table up to date; what has changed in it, and whether that is known by comparison only.
    fn compile(&mut self, delta: Delta, node: Node, settings: Settings) -> (Changes, bool) {
        self.compiler.update(delta);
        self.compiler.set_node(node);
        let mut changes = self.compiler.take_changes();
        let whole = self.compiler.settings() != &settings;
        if whole {
            let fresh = Compiler::new(settings.clone());
            let old = std::mem::replace(&mut self.compiler, fresh);
            self.compiler = old.with_settings(settings);
            changes = self.compiler.take_changes();
        }
        if whole || !changes.chains.is_empty() {
            let chains = self.compiler.table().chains().values();
            self.rules = chains.map(|chain| chain.rules.len()).sum();
        }
        (changes, whole)
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

/// So few may well have vanished from the datastore while the agent was away.
const SUSPICIOUS: usize = 5;
