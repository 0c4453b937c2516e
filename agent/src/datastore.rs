//! Where the datastore is: what a file says, with the environment behind it.

use std::path::Path;

use margay_datastore::Config;

use crate::error::AgentError;

/// The settings of the datastore.
///
/// # Errors
/// The file cannot be read, or a setting cannot be used.
pub(crate) fn config(file: Option<&Path>) -> Result<Config, AgentError> {
    let environment = |name: &str| std::env::var(name).ok();
    let Some(path) = file else {
        return Ok(Config::from_env(&environment)?);
    };
    let wrong = |reason: String| AgentError::ConfigFile {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let document: serde_json::Value =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(Config::from_file(&document, &environment)?)
}
