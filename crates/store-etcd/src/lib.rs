//! The etcd v3 backend of the store.
//!
//! Endpoints are tried in order, the last good one first. Every call has one deadline, of which each
//! endpoint gets a share, so that one which swallows packets does not use it up. A commit whose answer
//! is lost is found out about by reading back; [`readback`] has the argument.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, LeaseGrantOptions, SortOrder, SortTarget, Txn, TxnOp};
use margay_model::{Key, Prefix};
use margay_store::{
    Answer, Batch, LeaseId, MAX_OPS, Outcome, Page, Read, Revision, Snapshot, Store, StoreError,
    StoreId, Watch,
};

use crate::call::{Call, Cluster, Member};
use crate::fault::Fault;

mod call;
mod commit;
mod decode;
mod fault;
mod readback;
mod watch;

/// How to reach etcd.
#[derive(Clone)]
pub struct Options {
    /// URLs such as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Certificates, for `https` endpoints.
    pub tls: Tls,
    /// User name and password.
    pub user: Option<(String, String)>,
    /// How long any call may take.
    pub deadline: Duration,
}

/// Certificates in PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Whom to trust.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate chain and its private key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// A client of an etcd cluster; clones share its connections.
#[derive(Clone, Debug)]
pub struct Etcd {
    cluster: Arc<Cluster>,
}

impl Etcd {
    /// A client. Nothing is sent before the first call.
    pub fn new(options: Options) -> Self {
        Self {
            cluster: Arc::new(Cluster::new(options)),
        }
    }

    /// The endpoints, for messages.
    pub fn target(&self) -> &str {
        self.cluster.target()
    }

    fn call(&self, operation: &'static str) -> Call<'_> {
        self.cluster.call(operation)
    }
}

impl Store for Etcd {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        let call = self.call("read");
        if reads.len() > MAX_OPS {
            let reason = format!("{} reads in one call; at most {MAX_OPS}", reads.len());
            return Err(call.failed(reason));
        }
        let txn = Txn::new().and_then(reads.iter().map(read_op).collect::<Vec<_>>());
        let response = call
            .run(|member| {
                let txn = txn.clone();
                async move { member.kv().txn(txn).await.map_err(Fault::from) }
            })
            .await?;
        let (store, revision) = (
            decode::store(response.header()),
            decode::revision(response.header()),
        );
        let answers = decode::ranges(response.op_responses());
        let answers: Vec<_> = answers.map(|entries| Answer { entries }).collect();
        if answers.len() != reads.len() {
            return Err(call.failed("the answer is not of this question".to_owned()));
        }
        Ok(Snapshot {
            store,
            revision,
            answers,
        })
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        let call = self.call("list");
        let mut page = Page {
            store: StoreId::default(),
            revision: at.unwrap_or_default(),
            entries: Vec::new(),
            more: true,
        };
        let end = decode::range_end(prefix.path().into_bytes());
        let mut from = match after {
            Some(key) => decode::successor(key.path().into_bytes()),
            None => prefix.path().into_bytes(),
        };
        // What is no key does not count, so that a page may take several rounds.
        while page.more && page.entries.len() < limit {
            let missing = i64::try_from(limit - page.entries.len()).unwrap_or(0);
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(missing)
                .with_revision(page.revision.0)
                .with_sort(SortTarget::Key, SortOrder::Ascend);
            let (start, options) = (&from, &options);
            let answer = call
                .run(|member| {
                    let (start, options) = (start.clone(), options.clone());
                    async move {
                        member
                            .kv()
                            .get(start, Some(options))
                            .await
                            .map_err(Fault::from)
                    }
                })
                .await;
            let mut response = answer.map_err(|error| with_asked(error, page.revision))?;
            if page.revision == Revision(0) {
                page.revision = decode::revision(response.header());
            }
            page.store = decode::store(response.header());
            page.more = response.more();
            let found = response.take_kvs();
            match found.last() {
                Some(last) => from = decode::successor(last.key().to_vec()),
                None => page.more = false,
            }
            page.entries.extend(found.iter().filter_map(decode::entry));
        }
        Ok(page)
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        let call = self.call("commit");
        if let Some(problem) = batch.problem() {
            return Err(call.failed(problem));
        }
        commit::commit(&call, batch).await
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        watch::start(Arc::clone(&self.cluster), prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let granted = self
            .call("lease")
            .run(|member| async move {
                let options = LeaseGrantOptions::new();
                let granted = member.lease().grant(seconds, Some(options)).await;
                granted.map_err(Fault::from)
            })
            .await?;
        Ok(LeaseId(granted.id()))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let renew = |member: Member| async move {
            match member.lease().keep_alive(lease.0).await {
                Ok(_) => Ok(true),
                // etcd answers with no time left, which this client calls an error.
                Err(etcd_client::Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(Fault::from(error)),
            }
        };
        self.call("keep alive").run(renew).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoke = |member: Member| async move {
            let revoked = member.lease().revoke(lease.0).await;
            match revoked.map_err(Fault::from) {
                Ok(_) | Err(Fault::Missing(_)) => Ok(()),
                Err(fault) => Err(fault),
            }
        };
        self.call("revoke").run(revoke).await
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("deadline", &self.deadline)
            .finish()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authorities", &self.authorities.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

fn read_op(read: &Read) -> TxnOp {
    match read {
        Read::Get(key) => TxnOp::get(key.path(), None),
        Read::Exists(key) => TxnOp::get(key.path(), Some(GetOptions::new().with_keys_only())),
        Read::List(prefix) => TxnOp::get(prefix.path(), Some(whole(prefix))),
        Read::Keys(prefix) => TxnOp::get(prefix.path(), Some(whole(prefix).with_keys_only())),
    }
}

fn whole(prefix: &Prefix) -> GetOptions {
    GetOptions::new()
        .with_range(decode::range_end(prefix.path().into_bytes()))
        .with_sort(SortTarget::Key, SortOrder::Ascend)
}

/// Says which revision it was; etcd only says that it is gone.
fn with_asked(error: StoreError, asked: Revision) -> StoreError {
    match error {
        StoreError::Compacted { oldest, .. } => StoreError::Compacted { asked, oldest },
        other => other,
    }
}
