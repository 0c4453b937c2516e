//! Defaults give the values that real Calico stored for the same documents.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use margay_model::AnyResource;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// Recorded values of resources, by key.
fn recorded(name: &str) -> BTreeMap<String, String> {
    let recording: Value = serde_json::from_str(&read(name)).unwrap();
    let entries = recording["kvs"].as_array().unwrap();
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap().to_owned();
    entries
        .iter()
        .map(|entry| (text(entry, "key"), text(entry, "raw")))
        .collect()
}

#[test]
fn documents_become_what_calico_stored() {
    let stored = recorded("08-all-kinds-plus-bgppeer-ipamconfig.json");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("kinds.yaml")).unwrap();
    let mut seen = 0;
    for document in documents {
        let mut resource = AnyResource::from_value(document).unwrap();
        let key = resource.key().path();
        let Some(raw) = stored.get(&key) else {
            panic!("{key} was not recorded");
        };
        let recorded = AnyResource::decode(resource.kind(), raw.as_bytes()).unwrap();
        // The cluster's identity was there before the document, which changed none of it.
        if key.contains("/clusterinformations/") {
            continue;
        }
        resource
            .metadata_mut()
            .uid
            .clone_from(&recorded.metadata().uid);
        let created = recorded.metadata().creation_timestamp.clone();
        resource.metadata_mut().creation_timestamp = created;
        resource.set_defaults();
        assert_eq!(
            String::from_utf8(resource.encode().unwrap()).unwrap(),
            *raw,
            "{key}"
        );
        seen += 1;
    }
    assert_eq!(seen, 20);
}

#[test]
fn defaults_change_nothing_twice() {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read("kinds.yaml")).unwrap();
    for document in documents {
        let mut once = AnyResource::from_value(document).unwrap();
        once.set_defaults();
        let mut twice = once.clone();
        twice.set_defaults();
        assert_eq!(once, twice);
    }
}

#[test]
fn stored_values_have_their_defaults() {
    for (key, raw) in recorded("11-k8s-pod-del.json") {
        let Ok(value) = serde_json::from_str::<Value>(&raw) else {
            continue;
        };
        if value.get("apiVersion").is_none() {
            continue;
        }
        let stored = AnyResource::from_value(value).unwrap();
        let mut again = stored.clone();
        again.set_defaults();
        assert_eq!(again, stored, "{key}");
    }
}
