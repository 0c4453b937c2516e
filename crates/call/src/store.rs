//! The store of a call.

use margay_cni::error::{Error, code};
use margay_datastore::Datastore;
use margay_model::resource::cluster::ClusterInformation;
use margay_store::Entry;

use crate::{Settings, from_config};

/// Opens the store that the settings name. Nothing is sent before the first read. Each of its calls ends early
/// enough for this call still to clean up and answer.
///
/// # Errors
/// Code 110 when a setting cannot be used.
pub fn open(settings: &Settings) -> Result<Datastore, Error> {
    let mut config = settings.store.clone();
    config.deadline = config.deadline.min(margay_plugin::remaining() * 3 / 4);
    Datastore::open(&config).map_err(|error| from_config(&error))
}

/// Refuses while the store is locked or was never initialised; `entry` is the ClusterInformation.
///
/// # Errors
/// Code 11, for the runtime to try again later.
pub fn datastore_ready(entry: Option<&Entry>) -> Result<(), Error> {
    let Some(entry) = entry else {
        return Err(Error::new(
            code::TRY_AGAIN_LATER,
            "the datastore is not initialised (no ClusterInformation); start margay-agent on a node",
        ));
    };
    let cluster = ClusterInformation::decode(&entry.value)
        .map_err(|error| Error::new(code::IO, format!("{} is damaged: {error}", entry.key)))?;
    if cluster.spec.datastore_ready == Some(true) {
        return Ok(());
    }
    Err(Error::new(
        code::TRY_AGAIN_LATER,
        "the datastore is locked (datastoreReady is not true); a migration is going on, try again later",
    ))
}
