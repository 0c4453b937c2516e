//! The store's part of a DEL, which ends well whatever is down: what cannot be given back now is journalled for
//! the node's agent.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use margay_cni::error::{Error, code};
use margay_cni::{NetConf, Request};
use margay_datastore::{Backend, Config, Datastore};
use margay_ipam_core::{Allocator, Detach, Detached};
use margay_journal::{Filed, Journal, Quarantine, Release};
use margay_model::names::EndpointName;
use margay_model::{Key, Kind};
use margay_plugin::{Level, log, progress};

use crate::{Hints, NodeSettings, check, from_config, from_ipam, hints, now, quarantine};

/// What releasing needs of a configuration. Nothing else of it counts, so that a configuration that was broken
/// while the container ran stops no DEL.
#[derive(Debug)]
pub struct Releasing {
    /// How the node is named.
    pub node: NodeSettings,
    store: Result<Config, Error>,
    journal: Journal,
    quarantine: Quarantine,
    patience: Duration,
}

impl Releasing {
    /// Reads what is left of a configuration. `env` looks up environment variables.
    pub fn read(conf: &NetConf, env: &dyn Fn(&str) -> Option<String>) -> Self {
        if let Err(error) = check(conf) {
            log(
                Level::Warning,
                &format!("the configuration is broken; releasing by what is left of it: {error}"),
            );
        }
        let told = env(PATIENCE_VARIABLE).and_then(|text| text.parse().ok());
        Self {
            node: NodeSettings::read(conf.raw()),
            store: Config::from_cni(conf.raw(), env).map_err(|error| from_config(&error)),
            journal: Journal::below(Path::new(hints::state_dir(conf.raw()))),
            quarantine: quarantine(conf.raw()),
            patience: told.map_or(PATIENCE, Duration::from_millis),
        }
    }

    /// Gives back what an attachment holds, or journals that this is to be done. Returns the addresses
    /// that it has no more, also those that another IPAM plugin assigned.
    ///
    /// # Errors
    /// Code 5: it could be neither given back nor journalled.
    pub async fn release(&self, call: &Request, release: Release) -> Result<Vec<IpAddr>, Error> {
        // Half of what is left: the journal, and the answer, need time as well.
        let patience = self.patience.min(margay_plugin::remaining() / 2);
        let waiting = self.journal.waiting(&release.attachment);
        let why = match self.try_release(call, &release, patience).await {
            Ok(detached) if self.is_complete(&release, &detached) => {
                log(
                    Level::Debug,
                    &format!("{} gave back {:?}", release.handle, detached.addresses),
                );
                self.quarantine.admit(&detached.addresses);
                self.forget(waiting.as_ref())?;
                return Ok(detached.vacated);
            }
            Ok(_) => Error::new(code::AGENT_UNREACHABLE, NO_NAME),
            Err(error) => error,
        };
        self.journal(release, &why)?;
        Ok(Vec::new())
    }

    /// Finishes a release of the attachment that waits in the journal, before an ADD makes it anew: the agent
    /// could not tell what the ADD made from what was to be released. Returns the addresses
    /// that are nobody's now.
    ///
    /// # Errors
    /// The store failed; the release waits on.
    pub async fn finish(
        &self,
        call: &Request,
        store: &Datastore,
        release: &Release,
    ) -> Result<Vec<IpAddr>, Error> {
        let Some(waiting) = self.journal.waiting(&release.attachment) else {
            return Ok(Vec::new());
        };
        progress(format!("waiting for {}", store.describe()));
        let done = Allocator::new(store)
            .detach(&detachment(call, &self.node, release)?, &|| true)
            .await
            .map_err(|error| from_ipam(&error))?;
        self.quarantine.admit(&done.addresses);
        log(
            Level::Info,
            &format!(
                "{}: finished a release that waited in the journal; it gave back {:?}",
                release.handle, done.addresses
            ),
        );
        self.forget(Some(&waiting))?;
        Ok(done.vacated)
    }

    async fn try_release(
        &self,
        call: &Request,
        release: &Release,
        patience: Duration,
    ) -> Result<Detached, Error> {
        let mut config = self.store.clone()?;
        config.deadline = config.deadline.min(patience);
        // Opening would make an empty store, in which nothing is found.
        if let Backend::Sqlite { path } = &config.backend
            && !path.exists()
        {
            return Err(Error::new(
                code::DATASTORE_UNREACHABLE,
                format!("the embedded store {} does not exist", path.display()),
            ));
        }
        let store = Datastore::open(&config).map_err(|error| from_config(&error))?;
        progress(format!("waiting for {}", store.describe()));
        let detach = detachment(call, &self.node, release)?;
        let allocator = Allocator::new(&store);
        match tokio::time::timeout(patience, allocator.detach(&detach, &|| true)).await {
            Ok(done) => done.map_err(|error| from_ipam(&error)),
            Err(_) => Err(Error::new(
                code::DEADLINE,
                format!("{} did not answer within {patience:?}", store.describe()),
            )),
        }
    }

    /// Whether all that there was has been found: under a guessed node name an endpoint is not.
    fn is_complete(&self, release: &Release, detached: &Detached) -> bool {
        release.endpoint.is_none() || detached.endpoint || !self.node.is_guess()
    }

    /// The release is finished: it need not wait in the journal any more.
    fn forget(&self, waiting: Option<&Filed>) -> Result<(), Error> {
        let removed = waiting.map_or(Ok(()), |filed| self.journal.remove(filed));
        removed.map_err(|error| Error::new(code::IO, error.to_string()))
    }

    fn journal(&self, mut release: Release, why: &Error) -> Result<(), Error> {
        if self.node.is_guess() {
            release.node = None;
        }
        release.when = now().rfc3339();
        release.why = why.to_string();
        progress(format!(
            "writing the journal {}",
            self.journal.directory().display()
        ));
        match self.journal.write(&release) {
            Ok(path) => {
                log(
                    Level::Warning,
                    &format!(
                        "{}: to be released by margay-agent, journalled as {}: {why}",
                        release.handle,
                        path.display()
                    ),
                );
                Ok(())
            }
            Err(error) => Err(Error::new(
                code::IO,
                format!("the release cannot be journalled: {error}; check key \"state_dir\""),
            )
            .with_details(format!("{error}; it was to be journalled because: {why}"))),
        }
    }
}

fn detachment(call: &Request, node: &NodeSettings, release: &Release) -> Result<Detach, Error> {
    let node = node.name_or_guess();
    let attachment = &release.attachment;
    let endpoint = release.endpoint.as_ref().map(|parts| {
        let name = EndpointName {
            node: node.clone(),
            orchestrator: parts.orchestrator.clone(),
            workload: parts.workload.clone(),
            endpoint: attachment.ifname.clone(),
        };
        let name = name
            .encode()
            .map_err(|error| Error::new(code::INVALID_CONFIG, error.to_string()))?;
        Ok(Key::namespaced(
            Kind::WorkloadEndpoint,
            &*parts.namespace,
            &*name,
        ))
    });
    Ok(Detach {
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        handle: release.handle.clone(),
        legacy_handle: release.legacy_handle.clone(),
        endpoint: endpoint.transpose()?,
        endpoint_at: None,
        assigned_at: None,
        unless: None,
        hints: Hints::of(call.conf.raw(), &node).read(),
        now: now(),
        node,
    })
}

/// How long a DEL waits for the store before it journals, unless the variable says otherwise: a runtime that
/// tears down many containers at once is not to be held up by a store that is away.
const PATIENCE: Duration = Duration::from_millis(700);
/// Milliseconds in place of [`PATIENCE`].
const PATIENCE_VARIABLE: &str = "MARGAY_DEL_STORE_TIMEOUT_MS";
const NO_NAME: &str = "the node's name is not known, so its endpoint was not found";
