//! How the node is named, and what its agent left for the plugins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use margay_cni::error::{Error, code};
use serde_json::{Map, Value};

use crate::{flag, text};

/// Where the node's name comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    name: Option<String>,
    file: PathBuf,
    file_optional: bool,
    fallback: Option<String>,
}

impl NodeSettings {
    pub(crate) fn read(conf: &Map<String, Value>) -> Self {
        Self {
            name: text(conf, "nodename").map(str::to_owned),
            file: text(conf, "nodename_file").map_or_else(|| DEFAULT_FILE.into(), PathBuf::from),
            file_optional: flag(conf, "nodename_file_optional"),
            fallback: text(conf, "hostname").map(str::to_owned),
        }
    }

    /// The node's name for ADD: `nodename`, else the file's content, else `hostname`, else the machine's
    /// host name in lower case. Unless it is declared optional, the file must exist: the agent writes it
    /// once the node is registered.
    ///
    /// # Errors
    /// Code 104 when the file does not exist, 5 when it cannot be read.
    pub fn name(&self) -> Result<String, Error> {
        let written = match fs::read_to_string(&self.file) {
            Ok(content) => Some(content.trim().to_owned()).filter(|name| !name.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.file_optional => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(
                    code::AGENT_UNREACHABLE,
                    format!(
                        "key \"nodename_file\": {} does not exist; start margay-agent on this node, or set \
                         \"nodename_file_optional\": true",
                        self.file.display()
                    ),
                ));
            }
            Err(error) => {
                return Err(Error::new(
                    code::IO,
                    format!(
                        "key \"nodename_file\": reading {}: {error}",
                        self.file.display()
                    ),
                ));
            }
        };
        Ok(self
            .name
            .clone()
            .or(written)
            .unwrap_or_else(|| self.last_resort()))
    }

    /// The node's name for verbs that must not fail: as [`NodeSettings::name`], a missing file passed over.
    pub fn name_or_guess(&self) -> String {
        self.name
            .clone()
            .or_else(|| self.written())
            .unwrap_or_else(|| self.last_resort())
    }

    /// Whether [`NodeSettings::name_or_guess`] only guesses: ADD would have refused to go on.
    pub fn is_guess(&self) -> bool {
        !self.file_optional && self.name.is_none() && self.written().is_none()
    }

    fn written(&self) -> Option<String> {
        let content = fs::read_to_string(&self.file).ok()?;
        Some(content.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// The MTU that the agent wrote beside the node's name, in bytes.
    ///
    /// # Errors
    /// The file is there, but holds no number (code 5).
    pub fn mtu(&self) -> Result<Option<u32>, Error> {
        let file = self
            .file
            .parent()
            .unwrap_or_else(|| Path::new("/"))
            .join("mtu");
        let content = match fs::read_to_string(&file) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::new(
                    code::IO,
                    format!("reading {}: {error}", file.display()),
                ));
            }
        };
        match content.trim().parse() {
            Ok(mtu) => Ok(Some(mtu)),
            Err(_) => Err(Error::new(
                code::IO,
                format!(
                    "{} holds no number; restart margay-agent, which writes it",
                    file.display()
                ),
            )),
        }
    }

    fn last_resort(&self) -> String {
        self.fallback.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().to_lowercase())
                .unwrap_or_default()
        })
    }
}

const DEFAULT_FILE: &str = "/var/lib/calico/nodename";
