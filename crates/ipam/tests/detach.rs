//! What taking an attachment out of the store removes, and what it leaves alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{NOW, addresses, initialised, node, pool, request, want};
use margay_ipam_core::{Allocator, Detach, Detached, IpamError, NoCompanion};
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec};
use margay_model::{Family, Key, Kind, Metadata, Prefix};
use margay_store::Store;
use margay_store::memory::Memory;

const ENDPOINT: &str = "n1-k8s-web-eth0";

fn cluster() -> Memory {
    let memory = Memory::new();
    pool(&memory, "pool-a", "192.168.0.0/16", |_| {});
    node(&memory, "n1", &[]);
    initialised(&memory);
    memory
}

fn key() -> Key {
    Key::namespaced(Kind::WorkloadEndpoint, "prod", ENDPOINT)
}

fn endpoint(memory: &Memory, container: &str, address: &str) {
    let spec = WorkloadEndpointSpec {
        container_id: Some(container.to_owned()),
        ip_networks: vec![format!("{address}/32")],
        ..WorkloadEndpointSpec::default()
    };
    let endpoint = WorkloadEndpoint::new(Metadata::namespaced("prod", ENDPOINT), spec);
    memory.put_raw(&key().path(), &endpoint.encode().unwrap());
}

async fn assign(memory: &Memory, handle: &str) -> String {
    let wanted = request("n1", handle, vec![want(Family::V4)]);
    let assigned = Allocator::new(memory)
        .assign(&wanted, &mut NoCompanion)
        .await;
    addresses(assigned).remove(0)
}

fn of(container: &str) -> Detach {
    Detach {
        node: "n1".to_owned(),
        container_id: container.to_owned(),
        ifname: "eth0".to_owned(),
        handle: format!("net.{container}"),
        legacy_handle: Some("prod.web".to_owned()),
        endpoint: Some(key()),
        endpoint_at: None,
        assigned_at: None,
        unless: None,
        hints: Vec::new(),
        now: NOW,
    }
}

async fn detach(memory: &Memory, container: &str) -> Detached {
    let detached = Allocator::new(memory)
        .detach(&of(container), &|| true)
        .await;
    detached.unwrap()
}

#[tokio::test]
async fn d01_endpoint_and_addresses_go_in_one_commit_and_again_without_effect() {
    let memory = cluster();
    let address = assign(&memory, "net.c1").await;
    endpoint(&memory, "c1", &address);
    let before = memory.revision();
    let gone = detach(&memory, "c1").await;
    assert_eq!(
        gone.addresses,
        [address.parse::<std::net::IpAddr>().unwrap()]
    );
    assert!(gone.endpoint);
    assert_eq!(memory.revision().0, before.0 + 1);
    assert_eq!(detach(&memory, "c1").await, Detached::default());
    assert_eq!(memory.revision().0, before.0 + 1);
    let handles = memory.list(&Prefix::Handles).await.unwrap();
    assert!(handles.entries.is_empty());
}

#[tokio::test]
async fn addresses_of_another_ipam_plugin_are_vacated_and_not_given_back() {
    let memory = cluster();
    endpoint(&memory, "c1", "203.0.113.9");
    let gone = detach(&memory, "c1").await;
    assert!(gone.addresses.is_empty());
    let foreign: std::net::IpAddr = "203.0.113.9".parse().unwrap();
    assert_eq!((gone.vacated, gone.endpoint), (vec![foreign], true));
    assert_eq!(detach(&memory, "c1").await, Detached::default());
}

#[tokio::test]
async fn d06_a_newer_container_of_the_same_pod_keeps_endpoint_and_address() {
    let memory = cluster();
    assign(&memory, "net.old").await;
    let newer = assign(&memory, "net.new").await;
    endpoint(&memory, "new", &newer);
    let gone = detach(&memory, "old").await;
    assert_eq!((gone.addresses.len(), gone.endpoint), (1, false));
    assert!(memory.get(&key()).await.unwrap().is_some());
    let kept = memory.get(&Key::Handle("net.new".to_owned())).await;
    assert!(kept.unwrap().is_some());
}

#[tokio::test]
async fn what_old_versions_assigned_goes_too() {
    let memory = cluster();
    assign(&memory, "prod.web").await;
    assert_eq!(detach(&memory, "c1").await.addresses.len(), 1);
    assert_eq!(detach(&memory, "c1").await, Detached::default());
}

#[tokio::test]
async fn nothing_is_touched_once_it_is_not_due_any_more() {
    let memory = cluster();
    let address = assign(&memory, "net.c1").await;
    endpoint(&memory, "c1", &address);
    let revision = memory.revision();
    let asked = AtomicUsize::new(0);
    let due = || {
        asked.fetch_add(1, Ordering::Relaxed);
        false
    };
    let gone = Allocator::new(&memory).detach(&of("c1"), &due).await;
    assert_eq!(gone.unwrap(), Detached::default());
    assert_eq!(asked.into_inner(), 1);
    assert_eq!(memory.revision(), revision);
}

#[tokio::test]
async fn a_damaged_endpoint_stays_with_its_addresses() {
    let memory = cluster();
    assign(&memory, "net.c1").await;
    memory.put_raw(&key().path(), b"{\"torn");
    let error = Allocator::new(&memory).detach(&of("c1"), &|| true).await;
    assert!(matches!(error, Err(IpamError::Damaged { .. })), "{error:?}");
    let held = memory.get(&Key::Handle("net.c1".to_owned())).await;
    assert!(held.unwrap().is_some());
}

#[tokio::test]
async fn r9_an_emptied_store_is_not_taken_for_one_that_holds_nothing() {
    let (memory, due) = (Memory::new(), of("c1"));
    let gone = Allocator::new(&memory).detach(&due, &|| true).await;
    assert_eq!(gone, Err(IpamError::Uninitialised));
}

#[tokio::test]
async fn r3_a_record_written_since_the_evidence_was_read_stays() {
    let memory = cluster();
    let address = assign(&memory, "net.c1").await;
    endpoint(&memory, "c1", &address);
    let seen = memory.get(&key()).await.unwrap().unwrap().revision;
    endpoint(&memory, "c1", &address);
    let (revision, mut due) = (memory.revision(), of("c1"));
    due.endpoint_at = Some(seen);
    let gone = Allocator::new(&memory).detach(&due, &|| true).await;
    assert_eq!(gone.unwrap(), Detached::default());
    assert_eq!(memory.revision(), revision);
    due.endpoint_at = Some(memory.get(&key()).await.unwrap().unwrap().revision);
    let gone = Allocator::new(&memory).detach(&due, &|| true).await;
    assert_eq!(gone.unwrap().addresses.len(), 1);
}
