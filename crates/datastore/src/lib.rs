//! Which store to open, from a CNI configuration, the environment or a file, and the one face that programs
//! use.
//!
//! Where no etcd is configured, the embedded store is used: one SQLite file for one machine. Opening sends
//! nothing; the first call does.

mod config;
mod endpoint;
mod pem;

use std::time::Duration;

use margay_model::{Key, Prefix};
use margay_store::{
    Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, Store, StoreError, Watch,
};
use margay_store_etcd::Etcd;
use margay_store_sqlite::Sqlite;

pub use config::{Backend, Config, ConfigError, DEFAULT_STORE_PATH, EtcdConfig};

/// The store of a program, whichever it is.
#[derive(Clone, Debug)]
pub enum Datastore {
    /// An etcd cluster.
    Etcd(Etcd),
    /// One file.
    Sqlite(Sqlite),
}

impl Datastore {
    /// A client of the store that the configuration names. Nothing is sent before the first call.
    ///
    /// # Errors
    /// A certificate, key or address cannot be used.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        match &config.backend {
            Backend::Sqlite { path } => Ok(Self::Sqlite(Sqlite::new(path, config.deadline))),
            Backend::Etcd(etcd) => Ok(Self::Etcd(etcd.open(config.deadline)?)),
        }
    }

    /// What the store is, in a few words for messages: never with credentials.
    pub fn describe(&self) -> String {
        match self {
            Self::Etcd(store) => format!("etcd at {}", store.target()),
            Self::Sqlite(store) => format!("the embedded store {}", store.path().display()),
        }
    }
}

impl Store for Datastore {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        match self {
            Self::Etcd(store) => store.read_many(reads).await,
            Self::Sqlite(store) => store.read_many(reads).await,
        }
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        match self {
            Self::Etcd(store) => store.list_page(prefix, after, limit, at).await,
            Self::Sqlite(store) => store.list_page(prefix, after, limit, at).await,
        }
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        match self {
            Self::Etcd(store) => store.commit(batch).await,
            Self::Sqlite(store) => store.commit(batch).await,
        }
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        match self {
            Self::Etcd(store) => store.watch(prefix, after).await,
            Self::Sqlite(store) => store.watch(prefix, after).await,
        }
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        match self {
            Self::Etcd(store) => store.grant_lease(ttl).await,
            Self::Sqlite(store) => store.grant_lease(ttl).await,
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        match self {
            Self::Etcd(store) => store.keep_alive(lease).await,
            Self::Sqlite(store) => store.keep_alive(lease).await,
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self {
            Self::Etcd(store) => store.revoke_lease(lease).await,
            Self::Sqlite(store) => store.revoke_lease(lease).await,
        }
    }
}
