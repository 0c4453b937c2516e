//! Looking for what is wrong with an object.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test files, which fail by panicking"
)]

use margay_model::{AnyResource, Kind};
use serde_json::{Value, json};

/// The paths at which an object of this kind, name and specification is wrong.
pub fn wrong(kind: Kind, name: &str, spec: &Value) -> Vec<String> {
    let namespace = kind.namespaced().then_some("prod");
    let mut resource = AnyResource::from_value(json!({
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
    .unwrap();
    resource.set_defaults();
    let found = resource.validate().err().unwrap_or_default();
    found
        .list()
        .iter()
        .map(|problem| problem.path.clone())
        .collect()
}

/// Nothing is wrong with it.
pub fn good(kind: Kind, name: &str, spec: &Value) {
    assert_eq!(wrong(kind, name, spec), [""; 0], "{kind} {name} {spec}");
}

/// It is wrong at this path.
pub fn bad(kind: Kind, name: &str, spec: &Value, path: &str) {
    let found = wrong(kind, name, spec);
    assert!(
        found.iter().any(|found| found == path),
        "{kind} {name} {spec}: {found:?}, not {path}"
    );
}
