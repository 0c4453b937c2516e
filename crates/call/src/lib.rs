//! One CNI call as both plugins see it: its settings, its store, its addresses, and failures as CNI errors.
//!
//! Keys are those that Calico's users know; `docs/configuration.md` lists them all. Everything is checked
//! before anything is done.

mod adding;
mod addresses;
mod failure;
mod gate;
mod held;
mod hints;
mod keys;
mod kubernetes;
mod node;
mod process;
mod random;
mod release;
mod steady;
mod store;
mod turn;

pub use adding::{Adding, adding, adding_addresses, attachment, overtaking};
pub use addresses::{AddressSettings, OWN_IPAM_TYPES, quarantine, request};
pub use failure::{from_config, from_ipam, from_store, not_available};
pub use gate::{Failure, Gate, could_assign, could_record};
pub use held::{attachment_of, check_addresses, give_back_leaks, is_old, recorded};
pub use hints::Hints;
pub use keys::{
    CONTAINER_KEYS, FEATURE_KEYS, IPAM_KEYS, KEYS, KUBERNETES_KEYS, POLICY_KEYS, check,
};
pub use kubernetes::{Kubernetes, from_kube};
pub use node::NodeSettings;
pub use process::{block_on, environment};
pub use random::{now, random};
pub use release::Releasing;
pub use steady::steady;
pub use store::{datastore_ready, open};
pub use turn::Turn;

use margay_cni::NetConf;
use margay_cni::error::Error;
use margay_datastore::Config;
use serde_json::{Map, Value};

/// Settings of a call that both plugins need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The network's name.
    pub network: String,
    /// Which store to open.
    pub store: Config,
    /// How the node is named.
    pub node: NodeSettings,
}

impl Settings {
    /// Reads and checks a configuration. `env` looks up environment variables.
    ///
    /// # Errors
    /// Code 7 or 110, naming the key, its value and the remedy.
    pub fn read(conf: &NetConf, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        check(conf)?;
        Ok(Self {
            network: conf.name().to_owned(),
            store: Config::from_cni(conf.raw(), env).map_err(|error| from_config(&error))?,
            node: NodeSettings::read(conf.raw()),
        })
    }
}

/// A string value; `None` when absent, `null` or empty. Types have been checked.
pub fn text<'a>(conf: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    conf.get(key)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// A boolean value; false when absent.
pub fn flag(conf: &Map<String, Value>, key: &str) -> bool {
    conf.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// A number; `None` when absent or too large for 32 bits.
pub fn number(conf: &Map<String, Value>, key: &str) -> Option<u32> {
    conf.get(key)
        .and_then(Value::as_u64)
        .and_then(|number| u32::try_from(number).ok())
}
