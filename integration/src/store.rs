//! The store of a lab.

use std::path::PathBuf;
use std::process::Command;

use margay_datastore::{Config, Datastore};
use margay_model::{Kind, Prefix};
use margay_store::{Batch, Store, Write};
use serde_json::{Map, Value, json};

use crate::process::{Output, program, run};

/// Which store a lab's programs use, and how they are told.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// One file.
    Sqlite(PathBuf),
    /// These endpoints.
    Etcd(String),
}

impl StoreKind {
    /// The environment that leads programs to it.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Sqlite(path) => vec![
                ("DATASTORE_TYPE", "sqlite".to_owned()),
                ("MARGAY_STORE_PATH", path.display().to_string()),
            ],
            Self::Etcd(endpoints) => vec![
                ("DATASTORE_TYPE", "etcdv3".to_owned()),
                ("ETCD_ENDPOINTS", endpoints.clone()),
            ],
        }
    }

    /// The keys of a CNI configuration that lead to it.
    pub fn conf(&self) -> Map<String, Value> {
        let object = match self {
            Self::Sqlite(path) => json!({"datastore_type": "sqlite", "store_path": path}),
            Self::Etcd(endpoints) => {
                json!({"datastore_type": "etcdv3", "etcd_endpoints": endpoints})
            }
        };
        object.as_object().unwrap().clone()
    }

    /// Rewrites values of an embedded store below `/calico/`: those for which `change` gives another.
    pub fn rewrite(&self, change: impl Fn(&str, &str) -> Option<String>) {
        let prefixes = [Prefix::Ipam, Prefix::Resources(Kind::WorkloadEndpoint)];
        self.put(&prefixes, |path, value| {
            let text = std::str::from_utf8(value).unwrap();
            change(path, text).map(String::into_bytes)
        });
    }

    /// Gives everything below these prefixes of an embedded store the same value, whatever sense it makes.
    pub fn overwrite(&self, prefixes: &[Prefix], value: &[u8]) {
        self.put(prefixes, |_, _| Some(value.to_vec()));
    }

    /// Puts what `change` gives for a key's path and value, where it gives something.
    fn put(&self, prefixes: &[Prefix], change: impl Fn(&str, &[u8]) -> Option<Vec<u8>>) {
        let config = Config::from_cni(&self.conf(), &|_| None).unwrap();
        let store = Datastore::open(&config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for prefix in prefixes {
                for entry in store.list(prefix).await.unwrap().entries {
                    if let Some(changed) = change(&entry.key.path(), &entry.value) {
                        let write = Write::put(entry.key, changed);
                        let _ = store.commit(&Batch::of([write])).await.unwrap();
                    }
                }
            }
        });
    }

    /// Runs margayctl on it, in a namespace where one is given.
    pub fn ctl(&self, namespace: Option<&str>, arguments: &[&str], stdin: &str) -> Output {
        let mut command = match namespace {
            None => Command::new(program("margayctl")),
            Some(namespace) => crate::process::inside(namespace, program("margayctl")),
        };
        command.args(arguments).envs(self.environment());
        run(&mut command, stdin.as_bytes())
    }
}
