//! One machine a node name: the name is held by a key under a lease, which ends when the agent does.

use std::time::Duration;

use margay_model::Key;
use margay_store::{Batch, Condition, Entry, LeaseId, Op, Outcome, Store, StoreError, Write};

use crate::error::AgentError;
use crate::identity::Holder;
use crate::register::join;

/// How long a name stays held without a sign of life.
pub const TTL: Duration = Duration::from_secs(30);

/// Time between signs of life.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// A held name.
#[derive(Debug)]
pub struct Hold<S> {
    store: S,
    node: String,
    me: Holder,
    lease: LeaseId,
}

/// What a sign of life found.
#[derive(Debug, Clone, PartialEq)]
pub enum Pulse {
    /// The name is held.
    Held,
    /// The lease had ended; nobody else was there, and the name is held again.
    Regained,
    /// Somebody else holds the name.
    Lost(Box<Holder>),
}

/// What the key says to a process that wants the name.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// It may be written under this condition.
    Free(Condition),
    /// Another machine is alive there.
    Taken(Box<Holder>),
}

impl<S: Store> Hold<S> {
    /// Takes a name that is free, or that an earlier process of this machine holds.
    ///
    /// # Errors
    /// [`AgentError::NameTaken`] when another machine holds it, or the store failed.
    pub async fn take(store: S, node: &str, me: Holder) -> Result<Self, AgentError> {
        let lease = store.grant_lease(TTL).await?;
        let mut hold = Self {
            store,
            node: node.to_owned(),
            me,
            lease,
        };
        match hold
            .claim(|found, me| found.machine_id == me.machine_id)
            .await
        {
            Ok(None) => Ok(hold),
            Ok(Some(holder)) => {
                hold.release().await?;
                Err(AgentError::NameTaken {
                    node: hold.node,
                    holder,
                    ttl: TTL.as_secs(),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a sign of life, and takes the name again where the lease has ended meanwhile.
    ///
    /// # Errors
    /// The store failed; the name may still be held.
    pub async fn renew(&mut self) -> Result<Pulse, AgentError> {
        if self.store.keep_alive(self.lease).await? {
            // The lease outlives the key where another process of this machine took the key over.
            return Ok(match self.found().await? {
                Some((_, Some(found))) if found == self.me => Pulse::Held,
                Some((_, Some(found))) => Pulse::Lost(Box::new(found)),
                _ => self.regain().await?,
            });
        }
        self.lease = self.store.grant_lease(TTL).await?;
        self.regain().await
    }

    /// The name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Notes that this machine runs the node.
    ///
    /// # Errors
    /// As [`join`].
    pub async fn join(&self) -> Result<(), AgentError> {
        join(&self.store, &self.node, &self.me.machine_id).await
    }

    /// Gives the name back.
    ///
    /// # Errors
    /// The store failed; the lease will end by itself.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        self.store.revoke_lease(self.lease).await
    }

    async fn regain(&mut self) -> Result<Pulse, AgentError> {
        // Only its own earlier claim is taken over now: a newer process of this machine has the right.
        match self.claim(|found, me| found == me).await? {
            None => Ok(Pulse::Regained),
            Some(holder) => Ok(Pulse::Lost(holder)),
        }
    }

    /// Writes the key unless somebody is there whom `mine` does not know; who that is.
    async fn claim(
        &mut self,
        mine: impl Fn(&Holder, &Holder) -> bool,
    ) -> Result<Option<Box<Holder>>, AgentError> {
        let key = self.key();
        let value = serde_json::to_vec(&self.me).map_err(|error| AgentError::Object {
            key: key.to_string(),
            reason: error.to_string(),
        })?;
        for _ in 0..ATTEMPTS {
            let found = self.found().await?;
            let condition = match judge(found.as_ref(), |found| mine(found, &self.me)) {
                Verdict::Taken(holder) => return Ok(Some(holder)),
                Verdict::Free(condition) => condition,
            };
            let op = Op::Put(value.clone(), Some(self.lease));
            let batch = Batch::of([Write {
                key: key.clone(),
                condition,
                op,
            }]);
            if let Outcome::Committed(_) = self.store.commit(&batch).await? {
                return Ok(None);
            }
        }
        Err(AgentError::Contended {
            key: key.to_string(),
        })
    }

    /// The key's entry, and the holder it names; `None` for a value that names nobody.
    async fn found(&self) -> Result<Option<(Entry, Option<Holder>)>, StoreError> {
        let entry = self.store.get(&self.key()).await?;
        Ok(entry.map(|entry| {
            let holder = serde_json::from_slice(&entry.value).ok();
            (entry, holder)
        }))
    }

    fn key(&self) -> Key {
        Key::NodeLease(self.node.clone())
    }
}

/// Who may write. A value that names nobody protects nobody.
fn judge(found: Option<&(Entry, Option<Holder>)>, mine: impl Fn(&Holder) -> bool) -> Verdict {
    match found {
        None => Verdict::Free(Condition::Absent),
        Some((_, Some(holder))) if !mine(holder) => Verdict::Taken(Box::new(holder.clone())),
        Some((entry, _)) => Verdict::Free(Condition::At(entry.revision)),
    }
}

const ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use margay_store::memory::Memory;
    use serde_json::Map;

    use super::*;

    fn holder(machine: &str, pid: u32) -> Holder {
        Holder {
            machine_id: machine.to_owned(),
            boot_id: "boot".to_owned(),
            pid,
            started: "2026-11-23T00:25:00Z".to_owned(),
            extra: Map::new(),
        }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn another_machine_is_refused_until_the_hold_ends() {
        run(async {
            let store = Memory::new();
            let mut first = Hold::take(store.client(), "n1", holder("a", 1))
                .await
                .unwrap();
            let refused = Hold::take(store.client(), "n1", holder("b", 2))
                .await
                .unwrap_err();
            let text = refused.to_string();
            assert!(
                text.contains("n1") && text.contains("machine id a, process 1"),
                "{text}"
            );
            Hold::take(store.client(), "n2", holder("b", 2))
                .await
                .unwrap();
            first.release().await.unwrap();
            Hold::take(store.client(), "n1", holder("b", 2))
                .await
                .unwrap();
        });
    }

    #[test]
    fn a_hold_ends_by_itself_and_is_kept_by_signs_of_life() {
        run(async {
            let store = Memory::new();
            let mut first = Hold::take(store.client(), "n1", holder("a", 1))
                .await
                .unwrap();
            for _ in 0..5 {
                store.advance(RENEWAL);
                assert_eq!(first.renew().await.unwrap(), Pulse::Held);
            }
            store.advance(TTL + RENEWAL);
            Hold::take(store.client(), "n1", holder("b", 2))
                .await
                .unwrap();
            assert_eq!(
                first.renew().await.unwrap(),
                Pulse::Lost(Box::new(holder("b", 2)))
            );
        });
    }

    #[test]
    fn a_lost_lease_is_regained_where_nobody_took_the_name() {
        run(async {
            let store = Memory::new();
            let mut first = Hold::take(store.client(), "n1", holder("a", 1))
                .await
                .unwrap();
            store.advance(TTL + RENEWAL);
            assert_eq!(first.renew().await.unwrap(), Pulse::Regained);
            store.advance(RENEWAL);
            assert_eq!(first.renew().await.unwrap(), Pulse::Held);
            assert!(
                Hold::take(store.client(), "n1", holder("b", 2))
                    .await
                    .is_err()
            );
        });
    }

    #[test]
    fn a_new_process_of_the_machine_takes_over_and_the_old_one_sees_it() {
        run(async {
            let store = Memory::new();
            let mut old = Hold::take(store.client(), "n1", holder("a", 1))
                .await
                .unwrap();
            let mut new = Hold::take(store.client(), "n1", holder("a", 2))
                .await
                .unwrap();
            assert_eq!(
                old.renew().await.unwrap(),
                Pulse::Lost(Box::new(holder("a", 2)))
            );
            assert_eq!(new.renew().await.unwrap(), Pulse::Held);
            // The old one's end takes nothing from the new one.
            old.release().await.unwrap();
            assert_eq!(new.renew().await.unwrap(), Pulse::Held);
        });
    }

    #[test]
    fn a_value_that_names_nobody_protects_nobody() {
        run(async {
            let store = Memory::new();
            store.put_raw("/margay/v1/node-leases/n1", b"?");
            Hold::take(store.client(), "n1", holder("a", 1))
                .await
                .unwrap();
        });
    }
}
