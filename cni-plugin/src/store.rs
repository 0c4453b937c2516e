//! Opening the store of a call.

use margay_cni::error::Error;
use margay_datastore::Datastore;
use margay_settings::{Settings, from_config};

/// Opens the store that the settings name. Nothing is sent before the first read.
///
/// # Errors
/// Code 110 when a setting cannot be used.
pub(crate) fn open(settings: &Settings) -> Result<Datastore, Error> {
    Datastore::open(&settings.store).map_err(|error| from_config(&error))
}
