//! The documentation says what the plugins understand, and its examples are configurations that they accept.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use margay_call::{
    AddressSettings, CONTAINER_KEYS, FEATURE_KEYS, IPAM_KEYS, KEYS, KUBERNETES_KEYS,
    OWN_IPAM_TYPES, POLICY_KEYS, Settings,
};
use margay_cni::NetConf;
use serde_json::{Map, Value, json};

#[test]
fn every_key_is_documented() {
    let text = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let tables = [
        KEYS,
        IPAM_KEYS,
        CONTAINER_KEYS,
        POLICY_KEYS,
        KUBERNETES_KEYS,
        FEATURE_KEYS,
    ];
    for key in tables.iter().copied().flatten() {
        let row = format!("| `{}` |", key.name);
        assert!(
            text.contains(&row),
            "docs/configuration.md has no row {row}"
        );
    }
}

#[test]
fn every_documented_example_is_accepted() {
    let mut found = 0;
    for file in pages(&root().join("docs")) {
        let text = fs::read_to_string(&file).unwrap();
        for (line, block) in json_blocks(&text) {
            let place = format!("{}:{line}", file.display());
            let value = serde_json::from_str(&block)
                .unwrap_or_else(|error| panic!("{place}: no JSON: {error}"));
            found += accept(&place, &value);
        }
    }
    assert!(
        found >= 8,
        "only {found} configurations were found in docs/"
    );
}

/// Checks what a document holds of configurations of ours, a list's members as a runtime hands them over.
/// Their number.
#[track_caller]
fn accept(place: &str, document: &Value) -> usize {
    let Value::Object(document) = document else {
        return 0;
    };
    let Some(plugins) = document.get("plugins").and_then(Value::as_array) else {
        return accept_one(place, document);
    };
    let mut found = 0;
    for plugin in plugins {
        let mut conf = plugin.as_object().expect(place).clone();
        for key in ["cniVersion", "name"] {
            let value = document
                .get(key)
                .unwrap_or_else(|| panic!("{place}: no {key}"));
            conf.insert(key.to_owned(), value.clone());
        }
        found += accept_one(place, &conf);
    }
    found
}

fn accept_one(place: &str, conf: &Map<String, Value>) -> usize {
    if conf.get("type") != Some(&json!("margay")) {
        return 0;
    }
    let bytes = serde_json::to_vec(conf).unwrap();
    let conf = NetConf::parse(&bytes).unwrap_or_else(|error| panic!("{place}: {error}"));
    if let Err(error) = Settings::read(&conf, &|_| None) {
        panic!("{place}: {error}");
    }
    let ipam = conf
        .ipam()
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let ipam = ipam.unwrap_or_else(|| panic!("{place}: no ipam.type"));
    if OWN_IPAM_TYPES.contains(&ipam.plugin)
        && let Err(error) = AddressSettings::read(ipam.raw)
    {
        panic!("{place}: {error}");
    }
    1
}

/// The fenced blocks marked as JSON, with the number of their first line.
fn json_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```json" => open = Some((index + 2, String::new())),
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some((_, block)) => {
                block.push_str(line);
                block.push('\n');
            }
            None => {}
        }
    }
    assert!(open.is_none(), "a block of JSON is not closed");
    blocks
}

/// The pages of a directory and those below it, in order.
fn pages(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(pages(&path));
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
