//! What is to be in place.

use std::path::PathBuf;

use serde_json::Value;

use crate::error::InstallError;

/// Everything that an installation puts in place. Texts and contents are given whole; nothing here is read
/// from the folders themselves.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The file in which it is written down what was installed.
    pub record: PathBuf,
    /// Folders where runtimes look for plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// Programs for each of them.
    pub programs: Vec<Program>,
    /// Whether a program that is there already is replaced by another of its name.
    pub update_programs: bool,
    /// Files that the configuration names.
    pub secrets: Vec<SecretFile>,
    /// The folder where runtimes look for configurations.
    pub net_dir: PathBuf,
    /// The configuration; `None` installs programs and secrets only.
    pub configuration: Option<Configuration>,
    /// Name of a configuration that this one takes the place of, whoever wrote it.
    pub old_name: Option<String>,
}

/// A program to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The name that it gets.
    pub name: String,
    /// The file that it is copied from.
    pub source: PathBuf,
}

/// A file that only its owner may read.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// Where it is put.
    pub path: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
}

/// A CNI configuration that a runtime can read.
#[derive(Clone, PartialEq, Eq)]
pub struct Configuration {
    name: String,
    text: String,
    secret: bool,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Configuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Configuration")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Configuration {
    /// Checks name and text as a runtime reads them: `*.conflist` holds a list of plugins, `*.conf` and
    /// `*.json` a single one. A secret one is readable by its owner alone.
    ///
    /// # Errors
    /// [`InstallError::Configuration`] says what no runtime could use.
    pub fn new(name: &str, text: String, secret: bool) -> Result<Self, InstallError> {
        let wrong = |reason: String| InstallError::configuration(name, reason);
        let ending = ENDINGS.iter().find(|ending| name.ends_with(**ending));
        let Some(ending) = ending.filter(|_| !name.contains('/') && !name.starts_with('.')) else {
            return Err(wrong(
                "runtimes read files that end in .conflist, .conf or .json; give such a name, without a folder"
                    .to_owned(),
            ));
        };
        let read: Value = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("it is no JSON: {error}; correct the template")))?;
        if read["name"].as_str().is_none_or(str::is_empty) {
            return Err(wrong("\"name\" is missing; name the network".to_owned()));
        }
        let plugins = types(&read);
        if *ending == ".conflist" && read["plugins"].as_array().is_none_or(Vec::is_empty) {
            return Err(wrong(
                "\"plugins\" is missing or empty; give a list, or a name that ends in .conf"
                    .to_owned(),
            ));
        }
        if plugins.iter().any(Option::is_none) {
            return Err(wrong(
                "a plugin has no \"type\"; name its program".to_owned(),
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            text,
            secret,
        })
    }

    /// The name of its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Permissions of its file.
    pub(crate) fn mode(&self) -> u32 {
        if self.secret { 0o600 } else { 0o644 }
    }

    /// Whether a file says the same, however it is written.
    pub(crate) fn is_said_by(&self, content: &[u8]) -> bool {
        let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
        read(content).is_some_and(|found| Some(found) == read(self.text.as_bytes()))
    }

    /// The programs that it names: its plugins, and their IPAM plugins.
    pub(crate) fn programs(&self) -> Vec<String> {
        let read: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let mut programs: Vec<String> = types(&read).into_iter().flatten().collect();
        for plugin in plugins(&read) {
            let ipam = plugin["ipam"]["type"].as_str();
            programs.extend(ipam.map(str::to_owned));
        }
        programs.sort();
        programs.dedup();
        programs
    }
}

fn plugins(configuration: &Value) -> Vec<&Value> {
    match configuration["plugins"].as_array() {
        Some(list) => list.iter().collect(),
        None => vec![configuration],
    }
}

fn types(configuration: &Value) -> Vec<Option<String>> {
    let name = |plugin: &Value| {
        let name = plugin["type"].as_str().filter(|name| !name.is_empty());
        name.map(str::to_owned)
    };
    plugins(configuration).into_iter().map(name).collect()
}

/// Endings of the files that runtimes read as configurations (libcni's `ConfFiles`).
pub(crate) const ENDINGS: [&str; 3] = [".conflist", ".conf", ".json"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_runtime_could_use_is_refused() {
        let list = r#"{"name":"n","plugins":[{"type":"margay","ipam":{"type":"margay-ipam"}},{"type":"portmap"}]}"#;
        let single = r#"{"name":"n","type":"margay"}"#;
        for (name, text) in [
            ("10-x.conflist", list),
            ("x.conf", single),
            ("x.json", single),
        ] {
            let configuration = Configuration::new(name, text.to_owned(), false).unwrap();
            assert_eq!((configuration.name(), configuration.mode()), (name, 0o644));
        }
        for (name, text, word) in [
            ("10-x.cfg", list, ".conflist"),
            ("../x.conf", single, "folder"),
            (".x.conf", single, "such a name"),
            ("x.conflist", "{", "no JSON"),
            (
                "x.conflist",
                r#"{"plugins":[{"type":"a"}]}"#,
                "name the network",
            ),
            ("x.conflist", single, "plugins"),
            ("x.conflist", r#"{"name":"n","plugins":[{}]}"#, "type"),
            ("x.conf", r#"{"name":"n"}"#, "type"),
        ] {
            let refused = Configuration::new(name, text.to_owned(), false);
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn the_same_in_other_words_is_the_same() {
        let text = r#"{"name":"n","type":"margay","ipam":{"type":"margay-ipam"}}"#;
        let secret = Configuration::new("x.conf", text.to_owned(), true).unwrap();
        assert_eq!(secret.mode(), 0o600);
        let reordered =
            "{ \"ipam\": {\"type\": \"margay-ipam\"},\n \"type\": \"margay\", \"name\": \"n\" }";
        assert!(secret.is_said_by(reordered.as_bytes()));
        assert!(
            !secret.is_said_by(b"{\"name\":\"n\",\"type\":\"margay\"}") && !secret.is_said_by(b"")
        );
        assert_eq!(secret.programs(), ["margay", "margay-ipam"]);
        assert!(!format!("{secret:?}").contains("ipam"));
    }
}
