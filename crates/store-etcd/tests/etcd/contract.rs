//! The contract.

use std::time::Duration;

use margay_store::Revision;
use margay_store::contract::Harness;
use margay_store_etcd::Etcd;

use crate::server::Cluster;

impl Harness for Cluster {
    type Store = Etcd;

    fn client(&self) -> Etcd {
        Self::client(self)
    }

    async fn put_raw(&self, path: &str, value: &[u8]) {
        self.raw().await.put(path, value, None).await.unwrap();
    }

    async fn compact(&self, revision: Revision) {
        self.raw().await.compact(revision.0, None).await.unwrap();
    }

    async fn elapse(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

async fn fresh() -> Cluster {
    Cluster::start(1).await
}

margay_store::contract_tests!(fresh);
