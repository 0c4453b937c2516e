//! Gives back what ADDs of this node assigned that were killed before anybody was told of it.
//!
//! An ADD has a file while it is under way, and a lock on it as long as its process lives; nothing else is
//! evidence of its death. The file of `margay-ipam` says what it was about to assign, and by which timestamp
//! that is told from what others assigned. An ADD of the network plugin needs no more than its file removed:
//! its endpoint is judged by its interface.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use margay_ipam_core::{Allocator, Detach, IpamError};
use margay_journal::{Abandoned, Adding, Assignment, JournalError, Quarantine};
use margay_store::Store;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::identity;
use crate::metrics::Metrics;

/// The task, with what it is given.
#[derive(Debug)]
pub struct Sweep<S> {
    /// The store.
    pub store: S,
    /// The node's ADDs.
    pub adding: Adding,
    /// Where plugins look which addresses were given back lately.
    pub quarantine: Quarantine,
    /// How long the runtime has for a DEL or another ADD.
    pub grace: Duration,
    /// Figures.
    pub metrics: Metrics,
}

/// Since when each file has been seen abandoned; another inode is another file.
type Since = BTreeMap<PathBuf, (u64, Instant)>;

/// Why something could not be given back.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl<S: Store> Sweep<S> {
    /// Looks again and again, until `stop` changes.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut since = Since::new();
        let pause = (self.grace / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            if let Err(failed) = self.pass(&mut since, Instant::now()).await {
                self.metrics.cleanup_failures.inc();
                warn!(error = %failed, "what killed ADDs left cannot be given back yet");
            }
            tokio::select! {
                () = sleep(pause) => {}
                _ = stop.changed() => return,
            }
        }
    }

    async fn pass(&self, since: &mut Since, now: Instant) -> Result<(), Failure> {
        let mut before = std::mem::take(since);
        let mut due = Vec::new();
        for file in self.adding.abandoned()? {
            let seen = before.remove(file.path());
            let first = seen.filter(|(inode, _)| *inode == file.inode);
            let first = first.map_or(now, |(_, first)| first);
            since.insert(file.path().to_owned(), (file.inode, first));
            // Others stay unlocked meanwhile, so that a repeated ADD need not wait.
            if now.duration_since(first) >= self.grace {
                due.push(file);
            }
        }
        for file in due {
            self.give_back(file).await?;
        }
        Ok(())
    }

    async fn give_back(&self, file: Abandoned) -> Result<(), Failure> {
        for assignment in &file.assignments {
            let done = Allocator::new(&self.store)
                .detach(&detachment(assignment), &|| true)
                .await?;
            self.quarantine.admit(&done.addresses);
            let Assignment { attachment, .. } = assignment;
            info!(
                container = attachment.container_id,
                network = attachment.network,
                ifname = attachment.ifname,
                begun = assignment.timestamp,
                gave_back = ?done.addresses,
                "an ADD was killed before it could answer, and no DEL came"
            );
        }
        self.metrics.abandoned.inc();
        Ok(file.remove()?)
    }
}

fn detachment(assignment: &Assignment) -> Detach {
    Detach {
        node: assignment.node.clone(),
        container_id: assignment.attachment.container_id.clone(),
        ifname: assignment.attachment.ifname.clone(),
        handle: assignment.handle.clone(),
        legacy_handle: None,
        endpoint: None,
        endpoint_at: None,
        assigned_at: Some(assignment.timestamp.clone()),
        unless: None,
        hints: Vec::new(),
        now: identity::now(),
    }
}

const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use margay_ipam_core::{Assignment as Assigned, NoCompanion, Request, Want};
    use margay_journal::Attachment;
    use margay_model::resource::cluster::{ClusterInformation, Node};
    use margay_model::resource::pool::{AllowedUse, IPPool};
    use margay_model::{Family, Metadata, Prefix};
    use margay_store::memory::Memory;
    use margay_telemetry::metrics::registry;

    use super::*;

    fn store() -> Memory {
        let store = Memory::new();
        let cluster = ClusterInformation::new(Metadata::named("default"), Default::default());
        store.put_raw(&cluster.key().path(), &cluster.encode().unwrap());
        let node = Node::new(Metadata::named("n1"), Default::default());
        store.put_raw(&node.key().path(), &node.encode().unwrap());
        let mut pool = IPPool::new(Metadata::named("p"), Default::default());
        pool.spec.cidr = "10.0.0.0/24".to_owned();
        store.put_raw(&pool.key().path(), &pool.encode().unwrap());
        store
    }

    async fn assign(store: &Memory, second: u64) -> String {
        let request = Request {
            node: "n1".to_owned(),
            handle: "net.c1".to_owned(),
            interface: "eth0".to_owned(),
            owner: BTreeMap::new(),
            wants: vec![Want::Auto {
                family: Family::V4,
                pools: Vec::new(),
            }],
            purpose: AllowedUse::Workload,
            max_blocks: None,
            namespace_labels: None,
            hints: Vec::new(),
            quarantine: Default::default(),
            now: margay_model::time::Timestamp {
                seconds: second,
                nanos: 0,
            },
        };
        let made = Allocator::new(store)
            .assign(&request, &mut NoCompanion)
            .await
            .unwrap();
        assert!(matches!(made, Assigned::Made { .. }));
        request.timestamp()
    }

    fn assignment(timestamp: String) -> Assignment {
        Assignment {
            attachment: Attachment {
                network: "net".to_owned(),
                container_id: "c1".to_owned(),
                ifname: "eth0".to_owned(),
            },
            node: "n1".to_owned(),
            handle: "net.c1".to_owned(),
            timestamp,
        }
    }

    async fn handles(store: &Memory) -> usize {
        store.list(&Prefix::Handles).await.unwrap().entries.len()
    }

    #[tokio::test]
    async fn r2_what_a_killed_add_assigned_is_given_back_after_the_grace_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let adding = Adding::below(dir.path());
        let store = store();
        let sweep = Sweep {
            store: store.clone(),
            adding: adding.clone(),
            quarantine: Quarantine::below(dir.path()),
            grace: Duration::from_secs(60),
            metrics: Metrics::register(&mut registry("0")),
        };
        let at = assign(&store, 1_000).await;
        let mut fence = adding
            .begin(&assignment(at.clone()).attachment)
            .unwrap()
            .unwrap();
        fence.assigning(&assignment(at)).unwrap();
        let (mut since, start) = (Since::new(), Instant::now());
        let later = |seconds| start + Duration::from_secs(seconds);
        sweep.pass(&mut since, start).await.unwrap();
        assert!(since.is_empty(), "it lives");
        drop(fence);
        for seconds in [0, 59] {
            sweep.pass(&mut since, later(seconds)).await.unwrap();
            assert_eq!(handles(&store).await, 1);
        }
        sweep.pass(&mut since, later(60)).await.unwrap();
        assert_eq!(handles(&store).await, 0);
        assert_eq!(sweep.metrics.abandoned.get(), 1);
        // Answered well at another time; then a repetition was killed.
        assign(&store, 2_000).await;
        let mut fence = adding
            .begin(&assignment(String::new()).attachment)
            .unwrap()
            .unwrap();
        fence.assigning(&assignment("another".to_owned())).unwrap();
        drop(fence);
        sweep.pass(&mut since, later(100)).await.unwrap();
        sweep.pass(&mut since, later(160)).await.unwrap();
        assert_eq!(handles(&store).await, 1);
        assert!(adding.abandoned().unwrap().is_empty());
    }
}
