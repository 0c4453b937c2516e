//! What operations on resources write, give back and refuse.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod common;

use common::Counter;
use margay_ipam_core::{Allocator, IpamError, NoCompanion, Request, Want};
use margay_model::resource::cluster::{ClusterInformation, Node, NodeSpec, Tier, TierSpec};
use margay_model::resource::endpoint::WorkloadEndpointSpec;
use margay_model::resource::pool::{AllowedUse, IPPool, IPPoolSpec};
use margay_model::resource::profile::Profile;
use margay_model::{Family, Key, Kind, Metadata, Prefix, Resource};
use margay_resources::{Client, Effect, Id, Note, ResourceError, Stamps};
use margay_store::memory::Disturbance;
use margay_store::{Memory, Revision, Store};
use serde_json::{Value, json};

fn client(store: &Memory) -> Client<'_, Memory, Counter> {
    Client::new(store, Counter::default())
}

fn pool(name: &str, cidr: &str) -> IPPool {
    let spec = IPPoolSpec {
        cidr: cidr.into(),
        ..IPPoolSpec::default()
    };
    IPPool::new(Metadata::named(name), spec)
}

fn tier(name: &str) -> Tier {
    Tier::new(Metadata::named(name), TierSpec::default())
}

async fn stored(store: &Memory, key: &Key) -> Option<Value> {
    let entry = store.get(key).await.unwrap()?;
    Some(serde_json::from_slice(&entry.value).unwrap())
}

async fn assign(store: &Memory, node: &str, handle: &str) -> String {
    let request = Request {
        node: node.into(),
        handle: handle.into(),
        interface: "eth0".into(),
        owner: std::collections::BTreeMap::new(),
        wants: vec![Want::Auto {
            family: Family::V4,
            pools: Vec::new(),
        }],
        purpose: AllowedUse::Workload,
        max_blocks: None,
        namespace_labels: None,
        hints: Vec::new(),
        quarantine: Default::default(),
        now: Counter::default().now(),
    };
    let made = Allocator::new(store)
        .assign(&request, &mut NoCompanion)
        .await;
    let made: Result<_, IpamError> = made;
    match made.unwrap() {
        margay_ipam_core::Assignment::Made { assigned, .. } => assigned[0].address.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_resource_gets_identity_and_revision() {
    let store = Memory::new();
    let created = client(&store)
        .create(pool("a", "10.0.0.0/16"))
        .await
        .unwrap();
    assert_eq!(
        created.metadata.uid.as_deref(),
        Some("00000000-0000-4000-8000-000000000000")
    );
    assert_eq!(
        created.metadata.creation_timestamp.as_deref(),
        Some("2026-11-23T00:26:06Z")
    );
    let entry = store.get(&created.key()).await.unwrap().unwrap();
    assert_eq!(
        created.metadata.resource_version,
        Some(entry.revision.to_string())
    );
    let value: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(value["metadata"].get("resourceVersion"), None);
    let again = client(&store).create(pool("a", "10.1.0.0/16")).await;
    let id = Id::new(Kind::IPPool, None, "a");
    assert_eq!(again, Err(ResourceError::AlreadyExists { id }));
    let with_revision = client(&store).create(created).await.unwrap_err();
    assert!(
        matches!(with_revision, ResourceError::Refused { .. }),
        "{with_revision}"
    );
}

#[tokio::test]
async fn replace_needs_the_revision_that_was_read() {
    let store = Memory::new();
    let client = client(&store);
    let first = client.create(pool("a", "10.0.0.0/16")).await.unwrap();
    let mut changed = first.clone();
    changed.spec.nat_outgoing = true;
    let second = client.replace(changed.clone()).await.unwrap();
    assert_eq!(second.metadata.uid, first.metadata.uid);
    assert!(second.spec.nat_outgoing);
    let stale = client.replace(changed).await.unwrap_err();
    assert!(
        matches!(stale, ResourceError::UpdateConflict { .. }),
        "{stale}"
    );
    let none = client.replace(pool("a", "10.0.0.0/16")).await.unwrap_err();
    assert!(none.to_string().contains("resourceVersion"), "{none}");
    let mut missing = second;
    missing.metadata.name = "b".into();
    let missing = client.replace(missing).await.unwrap_err();
    assert_eq!(missing.to_string(), "resource does not exist: IPPool(b)");
}

#[tokio::test]
async fn apply_creates_then_updates_then_leaves_alone() {
    let store = Memory::new();
    let client = client(&store);
    let first = client.apply(pool("a", "10.0.0.0/16")).await.unwrap();
    assert_eq!(first.effect, Effect::Created);
    let revision = store.revision();
    let same = client.apply(pool("a", "10.0.0.0/16")).await.unwrap();
    assert_eq!(
        (same.effect, store.revision()),
        (Effect::Unchanged, revision)
    );
    let mut changed = pool("a", "10.0.0.0/16");
    changed.spec.disabled = true;
    let changed = client.apply(changed).await.unwrap();
    assert_eq!(changed.effect, Effect::Updated);
    assert_eq!(changed.object.metadata.uid, first.object.metadata.uid);
}

#[tokio::test]
async fn what_others_wrote_survives() {
    let store = Memory::new();
    let client = client(&store);
    let key = Key::resource(Kind::Node, "n1");
    let value = json!({
        "kind": "Node", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "n1", "uid": "u", "creationTimestamp": "2026-03-01T10:00:00Z", "managed": 1,
            "finalizers": ["f"]},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}, "future": {"a": 1}},
        "status": {"wireguardPublicKey": "jlkVyQYooZYzI2wFfNhSZez5eWh44yfq1wKVjLvSXgY="},
        "top": true,
    });
    store.put_raw(&key.path(), value.to_string().as_bytes());
    let mut node = Node::new(Metadata::named("n1"), NodeSpec::default());
    node.metadata.labels.insert("rack".into(), "r1".into());
    client.overwrite(node).await.unwrap();
    let now = stored(&store, &key).await.unwrap();
    for path in [
        "/spec/future",
        "/status",
        "/top",
        "/metadata/managed",
        "/metadata/finalizers",
    ] {
        assert_eq!(now.pointer(path), value.pointer(path), "{path}");
    }
    assert_eq!(now.pointer("/metadata/uid"), Some(&json!("u")));
    assert_eq!(
        now.pointer("/spec/bgp"),
        None,
        "known fields are the document's"
    );
    assert_eq!(now.pointer("/metadata/labels/rack"), Some(&json!("r1")));
}

#[tokio::test]
async fn pools_do_not_overlap() {
    let store = Memory::new();
    let client = client(&store);
    client.create(pool("a", "10.0.0.0/16")).await.unwrap();
    let error = client.create(pool("b", "10.0.128.0/17")).await.unwrap_err();
    assert!(
        error.to_string().contains("overlap pool a (10.0.0.0/16)"),
        "{error}"
    );
}

/// Two clients of a new store whose calls interleave as the seed says.
fn rivals(seed: u64) -> (Memory, Memory) {
    let store = Memory::new();
    let other = store.client();
    for (store, seed) in [(&store, seed), (&other, seed + 1000)] {
        store.disturb(Some(Disturbance {
            seed,
            pauses: 3,
            ..Disturbance::default()
        }));
    }
    (store, other)
}

#[tokio::test]
async fn rivals_do_not_create_pools_that_overlap() {
    for seed in 0..100 {
        let (one, two) = rivals(seed);
        let (left, right) = (client(&one), client(&two));
        let (left, right) = tokio::join!(
            left.create(pool("a", "10.8.0.0/16")),
            right.create(pool("b", "10.8.0.0/17")),
        );
        let made = usize::from(left.is_ok()) + usize::from(right.is_ok());
        assert_eq!(made, 1, "seed {seed}: {left:?} {right:?}");
    }
}

#[tokio::test]
async fn rivals_initialise_once() {
    for seed in 0..100 {
        let (one, two) = rivals(seed);
        let spec = || Some(pool("x", "192.168.0.0/16").spec);
        let (left, right) = (client(&one), client(&two));
        let (left_made, right_made) = tokio::join!(
            async {
                left.ensure_initialized().await.unwrap();
                left.ensure_default_pools(spec(), None).await.unwrap()
            },
            async {
                right.ensure_initialized().await.unwrap();
                right.ensure_default_pools(spec(), None).await.unwrap()
            },
        );
        assert_eq!(left_made.len() + right_made.len(), 1, "seed {seed}");
        assert_eq!(one.dump().len(), 6, "seed {seed}");
    }
}

#[tokio::test]
async fn rivals_apply_one_after_the_other() {
    for seed in 0..100 {
        let (one, two) = rivals(seed);
        let node = |rack: &str| {
            let mut node = Node::new(Metadata::named("n1"), NodeSpec::default());
            node.metadata.labels.insert("rack".into(), rack.into());
            node
        };
        let (left, right) = (client(&one), client(&two));
        let (left, right) = tokio::join!(left.apply(node("r1")), right.apply(node("r2")));
        let mut effects = [left.unwrap().effect, right.unwrap().effect];
        effects.sort_by_key(|effect| *effect == Effect::Updated);
        assert_eq!(effects, [Effect::Created, Effect::Updated], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_is_deleted_with_its_empty_blocks() {
    let store = Memory::new();
    let client = client(&store);
    client.create(pool("a", "10.0.0.0/16")).await.unwrap();
    client
        .create(Node::new(Metadata::named("n1"), NodeSpec::default()))
        .await
        .unwrap();
    assign(&store, "n1", "h1").await;
    let deleted = client.delete(Kind::IPPool, None, "a", None).await.unwrap();
    let cidr = "10.0.0.0/16".parse().unwrap();
    assert_eq!(
        deleted.notes,
        [Note::InUse {
            pool: cidr,
            addresses: 1
        }]
    );
    assert_eq!(
        store.list(&Prefix::HostAffinities).await.unwrap().entries,
        []
    );
    assert_eq!(store.list(&Prefix::Blocks).await.unwrap().entries.len(), 1);
    let missing = client
        .delete(Kind::IPPool, None, "a", None)
        .await
        .unwrap_err();
    assert!(matches!(missing, ResourceError::DoesNotExist { .. }));
    let mut other = pool("b", "10.0.0.0/16");
    other.spec.block_size = Some(28);
    let error = client.create(other).await.unwrap_err();
    assert!(error.to_string().contains("spec.blockSize"), "{error}");
}

#[tokio::test]
async fn a_node_takes_along_what_is_its_own() {
    let store = Memory::new();
    let client = client(&store);
    client.create(pool("a", "10.0.0.0/16")).await.unwrap();
    for name in ["n1", "n1-a"] {
        client
            .create(Node::new(Metadata::named(name), NodeSpec::default()))
            .await
            .unwrap();
        let address = assign(&store, name, &format!("h-{name}")).await;
        let escaped = name.replace('-', "--");
        let spec: WorkloadEndpointSpec = serde_json::from_value(json!({
            "orchestrator": "k8s", "node": name, "containerID": "c", "pod": "web", "endpoint": "eth0",
            "ipNetworks": [format!("{address}/32")], "interfaceName": "cali1",
        }))
        .unwrap();
        let metadata = Metadata::namespaced("prod", format!("{escaped}-k8s-web-eth0"));
        client.create(Resource::new(metadata, spec)).await.unwrap();
        for (kind, name) in [
            ("felixconfigurations", format!("node.{name}")),
            ("bgppeers", format!("p-{name}")),
        ] {
            let path = format!("/calico/resources/v3/projectcalico.org/{kind}/{name}");
            let node = name.split_once(['.', '-']).unwrap().1;
            let value = json!({"metadata": {"name": name}, "spec": {"node": node}});
            store.put_raw(&path, value.to_string().as_bytes());
        }
    }
    let kept: Vec<String> = paths(&store, "n1-a")
        .into_iter()
        .chain(paths(&store, "n1--a"))
        .collect();
    let deleted = client.delete(Kind::Node, None, "n1", None).await.unwrap();
    let ids: Vec<String> = deleted.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        ids,
        [
            "deleted WorkloadEndpoint(prod/n1-k8s-web-eth0) with it",
            "gave back 1 addresses",
            "deleted BGPPeer(p-n1) with it",
            "deleted FelixConfiguration(node.n1) with it",
        ]
    );
    let left: Vec<String> = paths(&store, "n1-a")
        .into_iter()
        .chain(paths(&store, "n1--a"))
        .collect();
    assert_eq!(left, kept);
    assert_eq!(
        paths(&store, "n1").len(),
        left.len(),
        "{:?}",
        paths(&store, "n1")
    );
    assert_eq!(store.list(&Prefix::Blocks).await.unwrap().entries.len(), 1);
}

fn paths(store: &Memory, part: &str) -> Vec<String> {
    let all = store.dump().into_iter().map(|(path, _)| path);
    all.filter(|path| path.contains(part)).collect()
}

#[tokio::test]
async fn some_things_stay() {
    let store = Memory::new();
    let client = client(&store);
    client.ensure_initialized().await.unwrap();
    for (kind, name) in [
        (Kind::ClusterInformation, "default"),
        (Kind::Tier, "default"),
        (Kind::Tier, "kube-admin"),
        (Kind::Tier, "kube-baseline"),
        (Kind::Profile, "projectcalico-default-allow"),
    ] {
        let error = client.delete(kind, None, name, None).await.unwrap_err();
        assert!(matches!(error, ResourceError::Refused { .. }), "{error}");
    }
    let profile: Profile = client
        .get(Kind::Profile, None, "projectcalico-default-allow")
        .await
        .unwrap();
    assert_eq!(profile.metadata.resource_version.as_deref(), Some("1"));
    let listed = client.list::<Profile>(Kind::Profile, None).await.unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&profile));
    assert!(client.apply(profile).await.is_err());
    let information = ClusterInformation::new(Metadata::named("other"), Default::default());
    let error = client.create(information).await.unwrap_err();
    assert!(matches!(error, ResourceError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_tier_with_policies_stays() {
    let store = Memory::new();
    let client = client(&store);
    client.create(tier("security")).await.unwrap();
    let path = "/calico/resources/v3/projectcalico.org/networkpolicies/prod/security.web";
    let policy = json!({"metadata": {"name": "security.web"}, "spec": {"tier": "security"}});
    store.put_raw(path, policy.to_string().as_bytes());
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
    store.put_raw(path, br#"{"spec":{"tier":"other"}}"#);
    client
        .delete(Kind::Tier, None, "security", None)
        .await
        .unwrap();
}

#[tokio::test]
async fn deletion_can_be_conditional() {
    let store = Memory::new();
    let client = client(&store);
    let made = client.create(tier("security")).await.unwrap();
    let read_at = Revision(made.metadata.resource_version.unwrap().parse().unwrap());
    let stale = client
        .delete(Kind::Tier, None, "security", Some(Revision(read_at.0 - 1)))
        .await;
    assert!(matches!(stale, Err(ResourceError::UpdateConflict { .. })));
    client
        .delete(Kind::Tier, None, "security", Some(read_at))
        .await
        .unwrap();
}

#[tokio::test]
async fn initialising_writes_what_is_missing_only() {
    let store = Memory::new();
    let client = client(&store);
    client.ensure_initialized().await.unwrap();
    let all = store.dump();
    let information = String::from_utf8(all[0].1.clone()).unwrap();
    assert_eq!(
        information,
        r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"00000000-0000-4000-8000-000000000001","creationTimestamp":"2026-11-23T00:26:06Z"},"spec":{"clusterGUID":"00000000000000000000000000000000","datastoreReady":true}}"#
    );
    let tiers: Vec<Value> = all[1..]
        .iter()
        .map(|(_, v)| serde_json::from_slice(v).unwrap())
        .collect();
    let specs: Vec<String> = tiers.iter().map(|tier| tier["spec"].to_string()).collect();
    assert_eq!(
        specs,
        [
            r#"{"order":1000000,"defaultAction":"Deny"}"#,
            r#"{"order":1000,"defaultAction":"Pass"}"#,
            r#"{"order":10000000,"defaultAction":"Pass"}"#
        ]
    );
    let locked = br#"{"kind":"ClusterInformation","spec":{"datastoreReady":false}}"#;
    store.put_raw(
        "/calico/resources/v3/projectcalico.org/clusterinformations/default",
        locked,
    );
    let before = store.dump();
    client.ensure_initialized().await.unwrap();
    assert_eq!(store.dump(), before);
}

#[tokio::test(start_paused = true)]
async fn default_pools_are_for_clusters_that_never_had_one() {
    let spec = |cidr: &str| Some(pool("x", cidr).spec);
    let store = Memory::new();
    let client = client(&store);
    let made = client
        .ensure_default_pools(spec("192.168.0.0/16"), spec("fd00::/48"))
        .await
        .unwrap();
    let names: Vec<&str> = made
        .iter()
        .map(|pool| pool.metadata.name.as_str())
        .collect();
    assert_eq!(names, ["default-ipv4-ippool", "default-ipv6-ippool"]);
    let again = client
        .ensure_default_pools(spec("10.0.0.0/16"), None)
        .await
        .unwrap();
    assert_eq!(again, []);
    for name in names {
        client.delete(Kind::IPPool, None, name, None).await.unwrap();
    }
    let again = client
        .ensure_default_pools(spec("10.0.0.0/16"), None)
        .await
        .unwrap();
    assert_eq!(again, [], "whoever deleted the pools wants none");
}

#[test]
fn operations_can_move_between_threads() {
    fn movable<F: Send>(_: F) {}
    let store = Memory::new();
    let client = client(&store);
    movable(client.apply(pool("a", "10.0.0.0/16")));
    movable(client.delete(Kind::Node, None, "n1", None));
    movable(client.list::<Node>(Kind::Node, None));
    movable(client.ensure_initialized());
    movable(client.ensure_default_pools(None, None));
}
