//! The same operations write what real Calico was recorded to write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::collections::BTreeMap;

use common::{NOW, release, request};
use margay_ipam_core::{Allocator, NoCompanion, Want};
use margay_model::Key;
use margay_store::memory::Memory;
use serde_json::Value;

/// IPAM keys and values of a recording.
fn recording(name: &str) -> BTreeMap<String, Value> {
    let path = format!(
        "{}/../model/tests/golden/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read(path).unwrap();
    let recording: Value = serde_json::from_slice(&text).unwrap();
    let entries = recording["kvs"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            (
                entry["key"].as_str().unwrap().to_owned(),
                entry["raw"].as_str().unwrap(),
            )
        })
        .filter(|(key, _)| key.starts_with("/calico/ipam/"))
        .map(|(key, raw)| (key, normalised(raw.as_bytes())))
        .collect()
}

fn stored(memory: &Memory) -> BTreeMap<String, Value> {
    memory
        .dump()
        .into_iter()
        .filter(|(key, _)| key.starts_with("/calico/ipam/"))
        .map(|(key, value)| (key, normalised(&value)))
        .collect()
}

/// Sequence numbers become distances from the block's first, and times become one text.
fn normalised(raw: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(raw).unwrap();
    if value.get("affinity_claim_time").is_some() {
        value["affinity_claim_time"] = "T".into();
    }
    if let Some(now) = value.get("sequenceNumber").and_then(Value::as_u64) {
        let first = FIRST.iter().find(|first| now - **first < 1_000).unwrap();
        value["sequenceNumber"] = (now - first).into();
        let numbers = value["sequenceNumberForAllocation"]
            .as_object_mut()
            .unwrap();
        for number in numbers.values_mut() {
            *number = (number.as_u64().unwrap() - first).into();
        }
    }
    for attribute in value
        .get_mut("attributes")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(time) = attribute.pointer_mut("/secondary/timestamp") {
            *time = "T".into();
        }
    }
    value
}

#[tokio::test]
async fn adds_and_dels() {
    let memory = Memory::new();
    let text = std::fs::read_to_string(format!(
        "{}/../model/tests/golden/01-init-pool-node.json",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap();
    let start: Value = serde_json::from_str(&text).unwrap();
    for entry in start["kvs"].as_array().unwrap() {
        memory.put_raw(
            entry["key"].as_str().unwrap(),
            entry["raw"].as_str().unwrap().as_bytes(),
        );
    }
    let handles = [
        "calinet.cnitool-bad930507234c0c08a40",
        "calinet.cnitool-2b47f84827ec7bd3b4aa",
        "calinet.cnitool-5e74e5ed388394f20225",
    ];
    let allocator = Allocator::new(&memory);
    // The recorded block is asked for by its first address; the rest come in order.
    let first = Want::Exact("192.168.224.192".parse().unwrap());
    allocator
        .assign(&request("cp-h1", handles[0], vec![first]), &mut NoCompanion)
        .await
        .unwrap();
    assert_eq!(stored(&memory), recording("02-one-add"));
    for handle in &handles[1..] {
        let next = Want::Auto {
            family: margay_model::Family::V4,
            pools: Vec::new(),
        };
        allocator
            .assign(&request("cp-h1", handle, vec![next]), &mut NoCompanion)
            .await
            .unwrap();
    }
    assert_eq!(stored(&memory), recording("03-three-adds"));
    allocator
        .release(&release("cp-h1", handles[1]), &mut NoCompanion)
        .await
        .unwrap();
    assert_eq!(stored(&memory), recording("04-del-one-of-three"));
    for handle in [handles[0], handles[2]] {
        allocator
            .release(&release("cp-h1", handle), &mut NoCompanion)
            .await
            .unwrap();
    }
    assert_eq!(stored(&memory), recording("05-all-del"));
    assert!(
        memory
            .dump()
            .iter()
            .all(|(key, _)| Key::parse(key).is_some())
    );
}

/// Sequence numbers at which the recorded block and ours were made.
const FIRST: [u64; 2] = [
    1_795_393_566_514_594_043,
    NOW.seconds * 1_000_000_000 + NOW.nanos as u64,
];
