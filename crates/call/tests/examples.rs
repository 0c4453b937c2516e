//! Every file in `conf-examples/` is a configuration that the plugins accept.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use margay_call::Settings;
use margay_cni::NetConf;
use serde_json::Value;

/// The configurations that a runtime would send for this file, in order.
fn sent(file: &Value) -> Vec<Value> {
    let Some(plugins) = file.get("plugins").and_then(Value::as_array) else {
        return vec![file.clone()];
    };
    plugins
        .iter()
        .map(|plugin| {
            let mut plugin = plugin.clone();
            plugin["name"] = file["name"].clone();
            plugin["cniVersion"] = file["cniVersion"].clone();
            plugin
        })
        .collect()
}

#[test]
fn all_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conf-examples");
    let mut seen = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        if !path
            .extension()
            .is_some_and(|ext| ext == "conf" || ext == "conflist")
        {
            continue;
        }
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for conf in sent(&file) {
            if conf["type"] != "margay" {
                continue;
            }
            let conf = NetConf::parse(conf.to_string().as_bytes()).unwrap();
            let read = Settings::read(&conf, &|_| None);
            assert!(read.is_ok(), "{}: {read:?}", path.display());
            assert!(conf.ipam().unwrap().is_some(), "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 4, "only {seen} configurations were found");
}
