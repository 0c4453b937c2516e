//! Policies have two stored names, and tiers.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod common;

use common::Counter;
use margay_model::policy_names::NameForm;
use margay_model::{AnyResource, Kind};
use margay_resources::{Client, Effect, Object, ResourceError};
use margay_store::Memory;
use serde_json::{Value, json};

const POLICIES: &str = "/calico/resources/v3/projectcalico.org/networkpolicies/prod";

fn client(store: &Memory) -> Client<'_, Memory, Counter> {
    Client::new(store, Counter::default())
}

fn policy(name: &str, tier: &str) -> AnyResource {
    let value = json!({
        "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "prod"},
        "spec": {"tier": tier, "selector": "all()", "types": ["Ingress"]},
    });
    <AnyResource as Object>::decode(Kind::NetworkPolicy, value.to_string().as_bytes()).unwrap()
}

fn stored(store: &Memory, name: &str) -> Option<Value> {
    let path = format!("{POLICIES}/{name}");
    let found = store.dump().into_iter().find(|(key, _)| *key == path);
    found.map(|(_, value)| serde_json::from_slice(&value).unwrap())
}

fn put_old(store: &Memory, name: &str, order: u32) {
    let value = json!({
        "kind": "NetworkPolicy", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "prod", "uid": "u", "creationTimestamp": "2026-03-01T10:00:00Z"},
        "spec": {"tier": "default", "order": order, "selector": "all()", "types": ["Ingress"]},
    });
    store.put_raw(&format!("{POLICIES}/{name}"), value.to_string().as_bytes());
}

#[tokio::test]
async fn the_plain_form_is_written_and_the_annotation_hidden() {
    let store = Memory::new();
    let client = client(&store);
    client.ensure_initialized().await.unwrap();
    let created = client.create(policy("web", "default")).await.unwrap();
    assert_eq!(created.metadata().name, "web");
    assert!(created.metadata().annotations.is_empty());
    let value = stored(&store, "web").unwrap();
    assert_eq!(value["metadata"]["name"], "web");
    let annotation = &value["metadata"]["annotations"]["projectcalico.org/metadata"];
    assert_eq!(annotation, r#"{"name":"web"}"#);
}

#[tokio::test]
async fn older_clusters_keep_their_form() {
    let store = Memory::new();
    let client = client(&store).with_names(NameForm::Prefixed);
    client.ensure_initialized().await.unwrap();
    let created = client.create(policy("web", "default")).await.unwrap();
    assert_eq!(created.metadata().name, "web");
    assert_eq!(
        stored(&store, "default.web").unwrap()["metadata"]["name"],
        "default.web"
    );
    let error = client.create(policy("web", "default")).await.unwrap_err();
    assert!(
        matches!(error, ResourceError::AlreadyExists { .. }),
        "{error}"
    );
    let read: AnyResource = client
        .get(Kind::NetworkPolicy, Some("prod"), "web")
        .await
        .unwrap();
    assert_eq!(read.metadata().name, "web");
}

#[tokio::test]
async fn both_forms_are_one_policy() {
    let store = Memory::new();
    let client = client(&store);
    client.ensure_initialized().await.unwrap();
    put_old(&store, "default.web", 1);
    let updated = client.apply(policy("web", "default")).await.unwrap();
    assert_eq!(updated.effect, Effect::Updated);
    assert_eq!(stored(&store, "web"), None, "it is updated where it is");
    let read: AnyResource = client
        .get(Kind::NetworkPolicy, Some("prod"), "default.web")
        .await
        .unwrap();
    assert_eq!(read.metadata().name, "default.web");
    put_old(&store, "web", 2);
    let listing = client
        .list::<AnyResource>(Kind::NetworkPolicy, None)
        .await
        .unwrap();
    assert_eq!(listing.items.len(), 1);
    let shown: Value = serde_json::from_slice(&listing.items[0].encode().unwrap()).unwrap();
    assert_eq!(shown["spec"]["order"], 2, "the newer form counts");
    client
        .delete(Kind::NetworkPolicy, Some("prod"), "web", None)
        .await
        .unwrap();
    assert_eq!(
        (stored(&store, "web"), stored(&store, "default.web")),
        (None, None)
    );
}

#[tokio::test]
async fn a_tier_must_exist() {
    let store = Memory::new();
    let client = client(&store);
    let error = client
        .create(policy("security.web", "security"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("spec.tier"), "{error}");
    client.create(policy("web", "default")).await.unwrap();
    let tier = json!({"kind": "Tier", "metadata": {"name": "security"}, "spec": {"order": 10}});
    let tier = <AnyResource as Object>::decode(Kind::Tier, tier.to_string().as_bytes()).unwrap();
    client.create(tier).await.unwrap();
    client
        .create(policy("security.web", "security"))
        .await
        .unwrap();
    let error = client
        .delete(Kind::Tier, None, "security", None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("NetworkPolicy(prod/security.web)"),
        "{error}"
    );
}

#[tokio::test]
async fn the_form_follows_the_cluster() {
    let path = "/calico/resources/v3/projectcalico.org/clusterinformations/default";
    for (version, form) in [
        (json!("v3.28.0"), NameForm::Prefixed),
        (json!("v3.31.4"), NameForm::Prefixed),
        (json!("v3.32.0"), NameForm::Plain),
        (Value::Null, NameForm::Plain),
    ] {
        let store = Memory::new();
        let information =
            json!({"metadata": {"name": "default"}, "spec": {"calicoVersion": version}});
        store.put_raw(path, information.to_string().as_bytes());
        assert_eq!(
            client(&store).names_of_cluster().await,
            Ok(form),
            "{version}"
        );
    }
    let empty = Memory::new();
    assert_eq!(client(&empty).names_of_cluster().await, Ok(NameForm::Plain));
}
