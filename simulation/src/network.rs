//! The way to the store and back: requests and answers are delayed, lost, and late.
//!
//! A request on its way arrives whatever becomes of its sender: what a killed plugin has sent may still be
//! applied.

use std::sync::Arc;
use std::time::Duration;

use margay_model::{Key, Prefix};
use margay_store::{
    Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, Store, StoreError, Watch,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::world::World;

/// One client of the store.
#[derive(Clone, Debug)]
pub struct Client {
    world: Arc<World>,
    /// The node it runs on; none for an operator's.
    node: Option<usize>,
    /// How long a call waits for its answer.
    deadline: Duration,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug)]
struct Way {
    refused: bool,
    lost: bool,
    unanswered: bool,
    there: Duration,
    back: Duration,
}

impl Client {
    /// A client on a node of ours.
    pub fn on(world: &Arc<World>, node: usize, deadline: Duration) -> Self {
        Self {
            world: Arc::clone(world),
            node: Some(node),
            deadline,
        }
    }

    /// A client elsewhere.
    pub fn elsewhere(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            node: None,
            deadline: Duration::from_secs(10),
        }
    }

    fn way(&self) -> Way {
        let world = &self.world;
        let calm = world.is_calm();
        let cut_off = !calm
            && (world.has_outage() || self.node.is_some_and(|node| world.nodes[node].is_cut_off()));
        let mut rng = world.rng();
        let mut delay = |late: u32| {
            let roll = rng.u32(..1000);
            let time = if roll < late / 10 {
                rng.u64(1_000..40_000)
            } else if roll < late {
                rng.u64(50..2_000)
            } else {
                rng.u64(..4)
            };
            Duration::from_millis(time)
        };
        let late = if calm { 0 } else { world.shape.late };
        let (there, back) = (delay(late), delay(late));
        let loss = if calm { 0 } else { world.shape.loss };
        let mut happens = |of_thousand: u32| rng.u32(..1000) < of_thousand;
        Way {
            refused: if cut_off {
                happens(500)
            } else {
                happens(loss / 3)
            },
            lost: cut_off || happens(loss / 3),
            unanswered: happens(loss / 3),
            there,
            back,
        }
    }

    /// Sends a request, whose effect is `act`, and waits for the answer.
    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let way = self.way();
        let until = Instant::now() + self.deadline;
        if way.refused {
            sleep(way.there).await;
            return Err(StoreError::Unavailable {
                target: TARGET.to_owned(),
                reason: "connection refused".to_owned(),
            });
        }
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            sleep(way.there).await;
            if way.lost {
                return;
            }
            let result = act.await;
            sleep(way.back).await;
            if !way.unanswered {
                // Whoever asked may be gone.
                let _ = answer.send(result);
            }
        });
        if let Ok(Ok(result)) = timeout_at(until, answered).await {
            return result;
        }
        sleep_until(until).await;
        Err(self.silence(operation))
    }

    fn silence(&self, operation: &'static str) -> StoreError {
        let target = TARGET.to_owned();
        if operation == COMMIT {
            let reason = "no answer".to_owned();
            return StoreError::Unknown {
                target,
                operation,
                reason,
            };
        }
        StoreError::Deadline {
            target,
            operation,
            after: self.deadline,
        }
    }
}

impl Store for Client {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        let (memory, reads) = (self.world.memory.clone(), reads.to_vec());
        self.call("read", async move { memory.read_many(&reads).await })
            .await
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let (memory, prefix, after) = (self.world.memory.clone(), prefix.clone(), after.cloned());
        self.call("list", async move {
            memory.list_page(&prefix, after.as_ref(), limit, at).await
        })
        .await
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        let (world, batch) = (Arc::clone(&self.world), batch.clone());
        self.call(COMMIT, async move {
            let outcome = world.memory.commit(&batch).await?;
            if let Outcome::Committed(revision) = outcome {
                world.note(|| {
                    let keys: Vec<String> = batch.writes.iter().map(describe).collect();
                    format!("revision {revision}: {}", keys.join(", "))
                });
                let verdict = world.auditor().committed(&batch);
                world.judge(verdict);
                if revision.0 % COMPACT_EVERY == 0 {
                    world
                        .memory
                        .compact(Revision(revision.0 - COMPACT_EVERY / 2));
                }
            }
            Ok(outcome)
        })
        .await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        let (memory, prefix) = (self.world.memory.clone(), prefix.clone());
        self.call("watch", async move { memory.watch(&prefix, after).await })
            .await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let memory = self.world.memory.clone();
        self.call("lease", async move { memory.grant_lease(ttl).await })
            .await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let memory = self.world.memory.clone();
        self.call("keep alive", async move { memory.keep_alive(lease).await })
            .await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let memory = self.world.memory.clone();
        self.call("revoke", async move { memory.revoke_lease(lease).await })
            .await
    }
}

fn describe(write: &margay_store::Write) -> String {
    let verb = match write.op {
        margay_store::Op::Put(..) => "put",
        margay_store::Op::Delete => "delete",
        margay_store::Op::Check => "check",
    };
    format!("{verb} {}", write.key)
}

const TARGET: &str = "the simulated store";
const COMMIT: &str = "commit";
/// Revisions between two compactions; half of them stay.
const COMPACT_EVERY: i64 = 2_000;
