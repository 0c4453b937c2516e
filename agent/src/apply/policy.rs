//! The comparison's part that puts policy in force: before routes and status files, and without them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::names::EndpointName;
use margay_model::{Key, Kind};
use margay_nft::Event;
use margay_ruleset::others::{Finding, findings};
use margay_store::follow;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};
use tracing::warn;

use super::{Engine, GATHER, RETRY, SETTLE};
use crate::error::AgentError;
use crate::metrics::figure;
use crate::packet_log::{Answer, Question};

impl Engine {
    /// Looks for rules of other programs that can drop workloads' packets, and tells what helps.
    pub(super) async fn look_at_others(&mut self) -> Result<(), AgentError> {
        let chains = match self.enforcer.foreign_chains().await? {
            Ok(chains) => chains,
            Err(failed) => {
                warn!(error = %failed, "other programs' rules cannot be listed");
                return Ok(());
            }
        };
        let found: BTreeSet<Finding> = findings(&chains).into_iter().collect();
        for finding in found.difference(&self.told.others) {
            warn!("rules of another program may drop workloads' packets: {finding}");
        }
        self.parts.metrics.other_rules.set(figure(found.len()));
        let words: Vec<String> = found.iter().map(ToString::to_string).collect();
        self.parts.status.send_if_modified(|status| {
            let differs = status.other_rules != words;
            status.other_rules = words;
            differs
        });
        self.told.others = found;
        Ok(())
    }

    /// Puts in force what policy has changed to, unless it was refused a moment ago.
    pub(super) async fn enforce(&mut self) -> Result<(), AgentError> {
        if !self.synced || !self.enforcer.is_due() || Instant::now() < self.enforce_at {
            return Ok(());
        }
        let refused = self.enforcer.apply().await?;
        let held = match self.enforcer.held() {
            0 => None,
            unknown => Some(format!(
                "the datastore does not know {unknown} interfaces that have policy"
            )),
        };
        let words = match (&refused, &held) {
            (Some(refused), _) => refused.clone(),
            (None, Some(held)) => format!("policy stays as it was: {held}"),
            (None, None) => "policy is in force".to_owned(),
        };
        self.parts.policy.ready(refused.is_none(), &words);
        let problems = self.enforcer.problems().collect();
        match &refused {
            None => {
                if std::mem::take(&mut self.refusals) > 0 || self.awaiting {
                    // Endpoints' files and states waited for it.
                    self.hasten(Duration::ZERO);
                }
            }
            Some(_) => {
                if self.refusals == 0 {
                    // Endpoints that wait for it are not up.
                    self.hasten(SETTLE);
                }
                self.enforce_at = Instant::now() + RETRY.saturating_mul(1 << self.refusals.min(4));
                self.refusals = self.refusals.saturating_add(1);
            }
        }
        self.parts.status.send_if_modified(|status| {
            let differs = status.policy_problems != problems
                || status.policy_refused != refused
                || status.policy_held != held;
            (status.policy_problems, status.policy_refused) = (problems, refused);
            status.policy_held = held;
            differs
        });
        Ok(())
    }

    /// Tells whose addresses are, as far as the store says.
    pub(super) fn name(&self, question: Question) {
        let owners = self.enforcer.owners(&question.addresses);
        let mut names: BTreeMap<IpAddr, String> = owners
            .iter()
            .filter_map(|(address, key)| Some((*address, name(key)?)))
            .collect();
        for (node, known) in self.state.nodes() {
            let own = [known.v4, known.v6].into_iter().flatten();
            for address in own.map(|network| network.ip()) {
                let endpoint = owners.get(&address).is_some_and(is_endpoint);
                if question.addresses.contains(&address) && !endpoint {
                    names.insert(address, format!("Node/{node}"));
                }
            }
        }
        let prefix = self.settings.policy.log_prefix.clone();
        // Who has asked may have gone.
        let _ = question.answer.send(Answer { names, prefix });
    }

    /// Somebody else has changed our table.
    pub(super) fn disturbed(&mut self, event: Event) {
        self.enforcer.disturbed(event);
        self.enforce_at = match event {
            // Nothing is protected.
            Event::Deleted => Instant::now(),
            Event::Changed | Event::Resync => self.enforce_at.max(Instant::now() + GATHER),
        };
    }

    /// Takes in what else the store has said already, so that it is acted on at once.
    pub(super) fn hear_more(&mut self, events: &mut mpsc::Receiver<follow::Event>) {
        let until = Instant::now() + GATHER;
        while Instant::now() < until
            && let Ok(event) = events.try_recv()
        {
            self.hear(event);
        }
    }
}

fn is_endpoint(key: &Key) -> bool {
    let endpoint = [Kind::WorkloadEndpoint, Kind::HostEndpoint];
    matches!(key, Key::Resource { kind, .. } if endpoint.contains(kind))
}

/// `<namespace>/<workload>`, or `<kind>/<name>` of what is no workload.
fn name(key: &Key) -> Option<String> {
    let Key::Resource {
        kind,
        namespace,
        name,
    } = key
    else {
        return None;
    };
    Some(match (kind, namespace) {
        (Kind::WorkloadEndpoint, Some(namespace)) => {
            format!("{namespace}/{}", EndpointName::parse(name)?.workload)
        }
        (kind, Some(namespace)) => format!("{kind}/{namespace}/{name}"),
        (kind, None) => format!("{kind}/{name}"),
    })
}
