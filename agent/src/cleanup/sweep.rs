//! The task that gives back what dead containers left.

use std::time::Duration;

use margay_ipam_core::{Allocator, Detach, Detached, IpamError, handle};
use margay_journal::Quarantine;
use margay_model::Key;
use margay_model::time::Timestamp;
use margay_store::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::{Sighting, Suspect, Watchlist};
use crate::metrics::{Metrics, figure};
use crate::report::Status;

/// The task, with what it is given.
#[derive(Debug)]
pub struct Sweep<S> {
    /// The store.
    pub store: S,
    /// The node's name.
    pub node: String,
    /// How long an interface must be gone.
    pub grace: Duration,
    /// Where plugins look which addresses were given back lately.
    pub quarantine: Quarantine,
    /// Figures.
    pub metrics: Metrics,
    /// Where what is held back is shown.
    pub status: watch::Sender<Status>,
    /// When the machine started.
    pub booted: Option<Timestamp>,
    /// The clock.
    pub clock: fn() -> Timestamp,
}

impl<S: Store> Sweep<S> {
    /// Judges each look that comes, until none comes any more. A change of `accept` is an operator's word that
    /// what is held back may go.
    pub async fn run(
        self,
        mut sightings: mpsc::Receiver<Sighting>,
        mut accept: watch::Receiver<u64>,
    ) {
        let mut list = Watchlist::new(self.grace, self.booted);
        let mut held = None;
        accept.mark_unchanged();
        while let Some(sighting) = sightings.recv().await {
            let confirmed = held.is_some() && accept.has_changed().unwrap_or_default();
            accept.mark_unchanged();
            let verdict = list.judge(sighting, Instant::now(), (self.clock)(), confirmed);
            self.tell_held(held.as_deref(), verdict.held.as_deref());
            held = verdict.held;
            for (key, suspect) in verdict.release {
                self.release(&key, &suspect).await;
            }
        }
    }

    fn tell_held(&self, before: Option<&str>, now: Option<&str>) {
        self.metrics.cleanup_held.set(figure(now.iter().count()));
        if before == now {
            return;
        }
        if let Some(reason) = now {
            error!(
                "{reason}: suspiciously many; nothing is given back until they are fewer, or SIGUSR1 tells this \
                 process that they may go"
            );
        }
        let shown = now.map(str::to_owned);
        self.status
            .send_modify(|status| status.cleanup_held = shown);
    }

    async fn release(&self, key: &Key, suspect: &Suspect) {
        match self.try_release(key, suspect).await {
            Ok(done) if done == Detached::default() => {
                info!(%key, "{suspect}; but its record has changed, so it is left alone");
            }
            Ok(done) => {
                self.metrics.cleaned_up.inc();
                self.quarantine.admit(&done.addresses);
                info!(%key, gave_back = ?done.addresses, "{suspect}; it was given back");
            }
            Err(failed) => {
                self.metrics.cleanup_failures.inc();
                warn!(%key, error = %failed, "{suspect}; it cannot be given back yet");
            }
        }
    }

    async fn try_release(&self, key: &Key, suspect: &Suspect) -> Result<Detached, IpamError> {
        let allocator = Allocator::new(&self.store);
        let container = &suspect.attachment.container_id;
        // The handle names the network, which the record does not; another container's is none of ours.
        let own = format!(".{container}");
        let holders = allocator.holders(&suspect.addresses).await?;
        let held = holders
            .into_values()
            .filter_map(|attribute| attribute.handle_id)
            .find(|id| handle::id(id).ends_with(&own));
        let detach = Detach {
            node: self.node.clone(),
            container_id: container.clone(),
            ifname: suspect.attachment.ifname.clone(),
            handle: held.unwrap_or_else(|| format!("none{own}")),
            legacy_handle: None,
            endpoint: Some(key.clone()),
            endpoint_at: Some(suspect.attachment.revision),
            assigned_at: None,
            unless: None,
            hints: Vec::new(),
            now: (self.clock)(),
        };
        allocator.detach(&detach, &|| true).await
    }
}
