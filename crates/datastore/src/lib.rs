//! Which store to open, from a CNI configuration, the environment or a file, and the one face that
//! programs use.
//!
//! | setting | CNI key | environment | file, below `spec` |
//! |---|---|---|---|
//! | backend: `etcdv3`, `sqlite` | `datastore_type` | `DATASTORE_TYPE` | `datastoreType` |
//! | etcd's URLs, by commas | `etcd_endpoints` | `ETCD_ENDPOINTS` | `etcdEndpoints` |
//! | etcd's host and port (old) | `etcd_authority` | `ETCD_AUTHORITY` | |
//! | its scheme (old) | `etcd_scheme` | `ETCD_SCHEME` | |
//! | etcd by DNS (not supported) | `etcd_discovery_srv` | `ETCD_DISCOVERY_SRV` | `etcdDiscoverySrv` |
//! | user | `etcd_username` | `ETCD_USERNAME` | `etcdUsername` |
//! | password | `etcd_password` | `ETCD_PASSWORD` | `etcdPassword` |
//! | client key file | `etcd_key_file` | `ETCD_KEY_FILE` | `etcdKeyFile` |
//! | client certificate file | `etcd_cert_file` | `ETCD_CERT_FILE` | `etcdCertFile` |
//! | authorities file | `etcd_ca_cert_file` | `ETCD_CA_CERT_FILE` | `etcdCACertFile` |
//! | the same as PEM text | | | `etcdKey`, `etcdCert`, `etcdCACert` |
//! | SQLite file | `store_path` | `MARGAY_STORE_PATH` | `storePath` |
//! | most time of a call, in ms | `store_timeout_ms` | `MARGAY_STORE_TIMEOUT_MS` | `storeTimeoutMs` |
//!
//! What a CNI configuration or a file says goes before the environment. That holds for settings that
//! belong together as a whole: where one of the places (URLs, authority, SRV), of the client's identity
//! (key, certificate), of the authorities, or of user and password is said, the environment's others are
//! not looked at. In the environment each name also works with `CALICO_` before it, after the plain one.
//! An empty text is as good as none.
//!
//! Without a backend named it is etcd where a place is said, and else SQLite. Certificates are used by
//! `https` endpoints only; the system's own authorities are not used.

use std::time::Duration;

use margay_model::{Key, Prefix};
use margay_store::{
    Batch, LeaseId, Outcome, Page, Read, Revision, Snapshot, Store, StoreError, Watch,
};
use margay_store_etcd::{Etcd, Options};
use margay_store_sqlite::Sqlite;

pub mod config;

pub use config::{Backend, Config, ConfigError};

/// The store that a configuration names; clones share its connections.
#[derive(Clone, Debug)]
pub enum Datastore {
    /// An etcd cluster.
    Etcd(Etcd),
    /// A file of this machine.
    Sqlite(Sqlite),
    /// This process's memory.
    #[cfg(feature = "memory")]
    Memory(margay_store::Memory),
}

impl Datastore {
    /// Makes the client. Certificate files are read; nothing is sent, and no database is opened, before
    /// the first call.
    ///
    /// # Errors
    /// A certificate or key cannot be read or used.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        Ok(match &config.backend {
            Backend::Sqlite { path } => Self::Sqlite(Sqlite::new(path, config.deadline)),
            Backend::Etcd(etcd) => Self::Etcd(Etcd::new(Options {
                endpoints: etcd.endpoints.clone(),
                tls: etcd.tls()?,
                user: etcd.user.clone(),
                deadline: config.deadline,
            })),
        })
    }

    /// What it is and where, for logs.
    pub fn describe(&self) -> String {
        match self {
            Self::Etcd(store) => format!("etcd at {}", store.target()),
            Self::Sqlite(store) => format!("the SQLite file {}", store.path().display()),
            #[cfg(feature = "memory")]
            Self::Memory(_) => "memory".to_owned(),
        }
    }
}

/// Passes a call on to the backend.
macro_rules! each {
    ($datastore:expr, $store:ident => $call:expr) => {
        match $datastore {
            Self::Etcd($store) => $call.await,
            Self::Sqlite($store) => $call.await,
            #[cfg(feature = "memory")]
            Self::Memory($store) => $call.await,
        }
    };
}

impl Store for Datastore {
    async fn read_many(&self, reads: &[Read]) -> Result<Snapshot, StoreError> {
        each!(self, store => store.read_many(reads))
    }

    async fn list_page(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, StoreError> {
        each!(self, store => store.list_page(prefix, after, limit, at))
    }

    async fn commit(&self, batch: &Batch) -> Result<Outcome, StoreError> {
        each!(self, store => store.commit(batch))
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<Watch, StoreError> {
        each!(self, store => store.watch(prefix, after))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        each!(self, store => store.grant_lease(ttl))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        each!(self, store => store.keep_alive(lease))
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        each!(self, store => store.revoke_lease(lease))
    }
}
