//! Finishes what plugins of this node could not: the releases that wait in the journal.
//!
//! A release is done by record, as the plugin would have done it, and only as long as its file waits: an ADD
//! of the same container takes the file away before it makes anything, so that what it made is never touched.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_ipam_core::{Allocator, Detach, Detached, IpamError};
use margay_journal::{Endpoint, Entry, Journal, Quarantine, Release};
use margay_model::names::EndpointName;
use margay_model::{Key, Kind};
use margay_store::Store;
use margay_telemetry::Reporter;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::identity;
use crate::metrics::{Metrics, figure};

/// The task that empties the journal.
#[derive(Debug)]
pub struct Drain<S> {
    store: S,
    journal: Journal,
    node: String,
    metrics: Metrics,
    /// What was said of each file already.
    told: BTreeMap<PathBuf, String>,
}

/// What a pass through the journal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pass {
    /// Each release was tried; so many are left.
    Complete(usize),
    /// The pass broke off: the store cannot be reached, or the journal not be read.
    BrokenOff(String),
}

/// Why a release could not be finished.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The store or an object in it.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// The release names an endpoint that there cannot be.
    #[error("its endpoint's name is invalid: {0}")]
    Name(String),
    /// The file of a finished release.
    #[error(transparent)]
    Journal(#[from] margay_journal::JournalError),
}

impl<S: Store> Drain<S> {
    /// The task, for the agent of `node`.
    pub fn new(store: S, journal: Journal, node: String, metrics: Metrics) -> Self {
        Self {
            store,
            journal,
            node,
            metrics,
            told: BTreeMap::new(),
        }
    }

    /// Empties the journal again and again, until `stop` changes. Ready once each release has been tried.
    pub async fn run(mut self, health: Reporter, mut stop: watch::Receiver<bool>) {
        let mut begun = false;
        loop {
            match self.pass().await {
                Pass::Complete(left) => {
                    begun = true;
                    health.ready(true, &format!("{left} releases wait in the journal"));
                }
                Pass::BrokenOff(reason) => health.ready(begun, &reason),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = stop.changed() => return,
            }
        }
    }

    /// Tries each release once.
    pub async fn pass(&mut self) -> Pass {
        let content = match self.journal.read() {
            Ok(content) => content,
            Err(error) => {
                self.metrics.release_failures.inc();
                let path = self.journal.directory().to_owned();
                return Pass::BrokenOff(self.complain(&path, error.to_string()));
            }
        };
        for (path, reason) in &content.damaged {
            warn!(file = %path.display(), %reason, "a journalled release makes no sense; it is set aside");
        }
        self.journal.tidy(&content);
        let damaged = self.journal.damaged();
        self.metrics.damaged_releases.set(figure(damaged));
        self.told.retain(|path, _| path.exists());
        let mut left = content.entries.len();
        self.metrics.releases.set(figure(left));
        for entry in &content.entries {
            match self.finish(entry).await {
                Ok(done) => {
                    left -= 1;
                    self.metrics.drained.inc();
                    Quarantine::beside(&self.journal).admit(&done.addresses);
                    self.metrics.releases.set(figure(left));
                    tell(&entry.release, &done);
                }
                Err(failed) => {
                    self.metrics.release_failures.inc();
                    let away = failed.is_transient();
                    let reason = self.complain(&entry.filed.path, failed.to_string());
                    if away {
                        return Pass::BrokenOff(reason);
                    }
                }
            }
        }
        Pass::Complete(left)
    }

    async fn finish(&self, entry: &Entry) -> Result<Detached, Failure> {
        let detach = self.detachment(&entry.release)?;
        let due = || entry.filed.still_waits();
        let done = Allocator::new(&self.store).detach(&detach, &due).await?;
        self.journal.remove(&entry.filed)?;
        Ok(done)
    }

    fn detachment(&self, release: &Release) -> Result<Detach, Failure> {
        let attachment = &release.attachment;
        let node = release.node.as_ref().unwrap_or(&self.node);
        let key = |parts: &Endpoint| {
            let name = EndpointName {
                node: node.clone(),
                orchestrator: parts.orchestrator.clone(),
                workload: parts.workload.clone(),
                endpoint: attachment.ifname.clone(),
            };
            let name = name
                .encode()
                .map_err(|error| Failure::Name(error.to_string()))?;
            let namespace = parts.namespace.as_str();
            Ok(Key::namespaced(Kind::WorkloadEndpoint, namespace, name))
        };
        let endpoint: Option<Result<Key, Failure>> = release.endpoint.as_ref().map(key);
        Ok(Detach {
            node: node.clone(),
            container_id: attachment.container_id.clone(),
            ifname: attachment.ifname.clone(),
            handle: release.handle.clone(),
            legacy_handle: release.legacy_handle.clone(),
            endpoint: endpoint.transpose()?,
            endpoint_at: None,
            assigned_at: None,
            unless: None,
            hints: Vec::new(),
            now: identity::now(),
        })
    }

    /// Says what is wrong with a file, once; the reason.
    fn complain(&mut self, path: &Path, reason: String) -> String {
        if self.told.get(path) != Some(&reason) {
            warn!(
                file = %path.display(),
                %reason,
                "a journalled release cannot be finished yet; it is tried again"
            );
            self.told.insert(path.to_owned(), reason.clone());
        }
        reason
    }
}

impl Failure {
    fn is_transient(&self) -> bool {
        match self {
            Self::Ipam(IpamError::Store(error)) => error.is_transient(),
            Self::Ipam(IpamError::Uninitialised) => true,
            _ => false,
        }
    }
}

/// The releases that wait, in words; changes nothing.
pub fn foretell(journal: &Journal) -> String {
    let mut text = String::new();
    match journal.read() {
        Ok(content) => {
            for Entry { release, .. } in content.entries {
                let (handle, when, why) = (&release.handle, &release.when, &release.why);
                let _ = writeln!(text, "release {handle}, journalled at {when}: {why}");
            }
            for (path, reason) in content.damaged {
                let _ = writeln!(text, "set aside {}: {reason}", path.display());
            }
        }
        Err(error) => {
            let _ = writeln!(text, "cannot {error}");
        }
    }
    text
}

fn tell(release: &Release, done: &Detached) {
    let attachment = &release.attachment;
    info!(
        network = attachment.network,
        container = attachment.container_id,
        interface = attachment.ifname,
        handle = release.handle,
        addresses = ?done.addresses,
        endpoint = done.endpoint,
        journalled = release.when,
        because = release.why,
        "finished a journalled release"
    );
}

/// Between two looks at the journal. A look at an empty one is one system call or two.
const PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use margay_journal::Attachment;
    use margay_model::resource::cluster::ClusterInformation;
    use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
    use margay_model::{Metadata, Prefix};
    use margay_store::memory::{Fault, Memory};
    use margay_telemetry::metrics::registry;

    use super::*;

    const NAME: &str = "n1-cni-c1-eth0";

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn release(container: &str, node: Option<&str>) -> Release {
        Release {
            attachment: Attachment {
                network: "net".to_owned(),
                container_id: container.to_owned(),
                ifname: "eth0".to_owned(),
            },
            node: node.map(str::to_owned),
            handle: format!("net.{container}"),
            legacy_handle: None,
            endpoint: Some(Endpoint {
                namespace: "default".to_owned(),
                orchestrator: "cni".to_owned(),
                workload: "c1".to_owned(),
            }),
            interfaces: Vec::new(),
            mark: None,
            when: "2026-11-23T00:26:06Z".to_owned(),
            why: "the datastore cannot be reached".to_owned(),
        }
    }

    fn endpoint(store: &Memory, container: &str) {
        let spec = WorkloadEndpointSpec {
            container_id: Some(container.to_owned()),
            ..WorkloadEndpointSpec::default()
        };
        let endpoint = WorkloadEndpoint::new(Metadata::namespaced("default", NAME), spec);
        store.put_raw(&endpoint.key().path(), &endpoint.encode().unwrap());
    }

    fn initialised() -> Memory {
        let store = Memory::new();
        let cluster = ClusterInformation::new(Metadata::named("default"), Default::default());
        store.put_raw(&cluster.key().path(), &cluster.encode().unwrap());
        store
    }

    async fn endpoints(store: &Memory) -> usize {
        let prefix = Prefix::Resources(Kind::WorkloadEndpoint);
        store.list(&prefix).await.unwrap().entries.len()
    }

    fn drain(store: &Memory, journal: &Journal) -> Drain<Memory> {
        let metrics = Metrics::register(&mut registry("0"));
        Drain::new(store.clone(), journal.clone(), "n1".to_owned(), metrics)
    }

    #[test]
    fn r2_what_waits_is_finished_also_where_the_plugin_did_not_know_the_node() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, journal) = (initialised(), Journal::new(dir.path()));
            let mut drain = drain(&store, &journal);
            for node in [Some("n1"), None] {
                endpoint(&store, "c1");
                journal.write(&release("c1", node)).unwrap();
                assert!(foretell(&journal).contains("release net.c1"));
                assert_eq!(drain.pass().await, Pass::Complete(0));
                assert_eq!(endpoints(&store).await, 0);
                assert_eq!(foretell(&journal), "");
            }
            assert_eq!(drain.metrics.drained.get(), 2);
            assert_eq!(drain.metrics.releases.get(), 0);
        });
    }

    #[test]
    fn d06_a_newer_container_keeps_its_endpoint() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, journal) = (initialised(), Journal::new(dir.path()));
            endpoint(&store, "c2");
            journal.write(&release("c1", Some("n1"))).unwrap();
            assert_eq!(drain(&store, &journal).pass().await, Pass::Complete(0));
            assert_eq!(endpoints(&store).await, 1);
        });
    }

    #[test]
    fn a_release_waits_until_the_store_is_back_and_damage_keeps_nothing_back() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, journal) = (initialised(), Journal::new(dir.path()));
            let mut drain = drain(&store, &journal);
            endpoint(&store, "c1");
            journal.write(&release("c1", Some("n1"))).unwrap();
            std::fs::write(dir.path().join("0.json"), "torn").unwrap();
            store.inject(Fault::Refuse);
            let broken = drain.pass().await;
            assert!(matches!(broken, Pass::BrokenOff(_)), "{broken:?}");
            assert_eq!(drain.metrics.releases.get(), 1);
            assert_eq!(drain.metrics.release_failures.get(), 1);
            assert_eq!(drain.pass().await, Pass::Complete(0));
            assert_eq!(drain.metrics.damaged_releases.get(), 1);
            assert_eq!(endpoints(&store).await, 0);
        });
    }

    #[test]
    fn r9_an_emptied_store_finishes_nothing() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let journal = Journal::new(dir.path());
            journal.write(&release("c1", Some("n1"))).unwrap();
            let broken = drain(&Memory::new(), &journal).pass().await;
            assert!(matches!(broken, Pass::BrokenOff(_)), "{broken:?}");
            assert!(foretell(&journal).contains("net.c1"));
        });
    }

    #[test]
    fn a_record_that_cannot_be_read_is_left_to_people_and_does_not_hinder_others() {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let (store, journal) = (initialised(), Journal::new(dir.path()));
            let key = Key::namespaced(Kind::WorkloadEndpoint, "default", NAME);
            store.put_raw(&key.path(), b"torn");
            journal.write(&release("c1", Some("n1"))).unwrap();
            let mut other = release("c9", Some("n1"));
            other.endpoint = None;
            journal.write(&other).unwrap();
            assert_eq!(drain(&store, &journal).pass().await, Pass::Complete(1));
            assert_eq!(endpoints(&store).await, 1);
            assert!(foretell(&journal).contains("net.c1"));
        });
    }
}
