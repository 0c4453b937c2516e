//! What is stored for documents of every kind is what Calico's own client stored for them.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod common;

use std::collections::BTreeMap;

use common::Counter;
use margay_model::{AnyResource, Kind};
use margay_resources::{Client, Object};
use margay_store::Memory;
use serde_json::Value;

/// Documents as an author wrote them.
const DOCUMENTS: &str = include_str!("data/documents.json");

/// Paths and values in etcd afterwards.
const STORED: &str = include_str!("data/stored.json");

#[tokio::test]
async fn the_same_bytes() {
    let store = Memory::new();
    let client = Client::new(&store, Counter::default());
    client.ensure_initialized().await.unwrap();
    let mut documents: Vec<Value> = serde_json::from_str(DOCUMENTS).unwrap();
    // A peer names a filter, which must exist before it.
    documents.sort_by_key(|document| document["kind"] == "BGPPeer");
    for document in &documents {
        let kind = Kind::from_name(document["kind"].as_str().unwrap()).unwrap();
        let bytes = document.to_string();
        let resource = <AnyResource as Object>::decode(kind, bytes.as_bytes()).unwrap();
        let created = client.create(resource).await;
        assert_eq!(
            created.is_ok(),
            kind != Kind::ClusterInformation,
            "{kind}: {created:?}"
        );
    }
    let expected: BTreeMap<String, String> = serde_json::from_str(STORED).unwrap();
    let mut compared = 0;
    for (path, value) in store.dump() {
        let Some(expected) = expected.get(&path) else {
            assert!(path.starts_with("/margay/"), "{path} was not recorded");
            continue;
        };
        let value = String::from_utf8(value).unwrap();
        assert_eq!(normal(&value), normal(expected), "{path}");
        compared += 1;
    }
    assert_eq!(compared, documents.len() - 1 + 4);
}

/// A value without what differs from one run to the next.
fn normal(value: &str) -> String {
    let mut fields: Value = serde_json::from_str(value).unwrap();
    let metadata = &mut fields["metadata"];
    metadata["uid"] = Value::from("uid");
    metadata["creationTimestamp"] = Value::from("time");
    if fields["kind"] == "ClusterInformation" {
        fields["spec"]["clusterGUID"] = Value::from("guid");
    }
    fields.to_string()
}
