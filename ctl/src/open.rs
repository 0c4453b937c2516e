//! Which datastore is meant.

use std::path::Path;

use anyhow::{Context, Result, bail};
use margay_datastore::{Config, Datastore};

use crate::yaml;

/// Opens the datastore that the file names, or the environment, or else the embedded one. Without a file
/// given, calicoctl's is read where it exists.
///
/// # Errors
/// The file cannot be read, or says what cannot be.
pub fn open(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Result<Datastore> {
    let config = match file {
        Some(path) => from_file(path, env)?,
        None if Path::new(DEFAULT_CONFIG).exists() => from_file(Path::new(DEFAULT_CONFIG), env)?,
        None => Config::from_env(env)?,
    };
    Ok(Datastore::open(&config)?)
}

fn from_file(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let name = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(name)?;
    let mut documents = yaml::parse(&text).with_context(name)?;
    if documents.len() != 1 {
        bail!(
            "{}: one document of kind CalicoAPIConfig is expected",
            name()
        );
    }
    Config::from_file(&documents.remove(0), env).with_context(name)
}

/// Where calicoctl looks for its configuration.
const DEFAULT_CONFIG: &str = "/etc/calico/calicoctl.cfg";

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn files_name_the_store() {
        let path = std::env::temp_dir().join(format!("margayctl-open-{}", std::process::id()));
        let text = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec:\n  etcdEndpoints: http://10.0.0.1:2379\n";
        std::fs::write(&path, text).unwrap();
        let opened = open(Some(&path), &nothing).unwrap();
        assert!(
            opened.describe().contains("10.0.0.1:2379"),
            "{}",
            opened.describe()
        );
        std::fs::write(&path, "kind: Pod\n").unwrap();
        let error = format!("{:#}", open(Some(&path), &nothing).unwrap_err());
        assert!(error.contains("CalicoAPIConfig"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", open(Some(&path), &nothing).unwrap_err());
        assert!(error.contains("margayctl-open"), "{error}");
    }
}
