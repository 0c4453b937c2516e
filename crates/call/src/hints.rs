//! Which blocks a node used last: a guess that saves a round trip, never relied on.

use std::fs;
use std::path::PathBuf;

use margay_model::Cidr;
use serde_json::{Map, Value};

use crate::text;

/// The file of hints of one node.
#[derive(Clone, Debug)]
pub struct Hints {
    file: PathBuf,
}

impl Hints {
    /// Hints of this node; `state_dir` of the configuration says where (default `/var/lib/margay`).
    pub fn of(conf: &Map<String, Value>, node: &str) -> Self {
        Self {
            file: PathBuf::from(state_dir(conf)).join(format!("blocks-{}", node.replace('/', "_"))),
        }
    }

    /// The blocks; none when there is no file, or one that cannot be used.
    pub fn read(&self) -> Vec<Cidr> {
        let Ok(content) = fs::read_to_string(&self.file) else {
            return Vec::new();
        };
        content
            .lines()
            .take(MOST)
            .filter_map(|line| line.parse().ok())
            .collect()
    }

    /// Remembers blocks, if they differ from what is remembered. Whatever goes wrong only costs the next
    /// call a round trip.
    pub fn write(&self, blocks: &[Cidr]) {
        let mut merged: Vec<Cidr> = blocks.to_vec();
        let known = self.read();
        for family in [margay_model::Family::V4, margay_model::Family::V6] {
            if !blocks.iter().any(|cidr| cidr.family() == family) {
                merged.extend(known.iter().filter(|cidr| cidr.family() == family));
            }
        }
        merged.sort();
        merged.truncate(MOST);
        if merged == known {
            return;
        }
        let content: String = merged.iter().map(|cidr| format!("{cidr}\n")).collect();
        if let Some(directory) = self.file.parent() {
            let _ = fs::create_dir_all(directory);
        }
        // In place: a torn file is a wrong hint, but a temporary one would outlive a call that is killed.
        let _ = fs::write(&self.file, content);
    }
}

/// Where the plugins keep what they know from call to call.
pub(crate) fn state_dir(conf: &Map<String, Value>) -> &str {
    text(conf, "state_dir").unwrap_or(DEFAULT_DIRECTORY)
}

const DEFAULT_DIRECTORY: &str = "/var/lib/margay";
const MOST: usize = 8;
