//! Every value recorded from real Calico decodes and encodes to the same bytes.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use margay_model::ipam::{Affinity, Block, Handle, IpamConfig};
use margay_model::status::{AgentReport, EndpointStatus};
use margay_model::{AnyResource, Key, Kind, json};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Deserialize)]
struct Recording {
    kvs: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    key: String,
    raw: String,
}

fn entries() -> Vec<Entry> {
    let mut files: Vec<_> = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .read_dir()
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    assert!(files.len() >= 12, "recordings are missing");
    files
        .iter()
        .flat_map(|path| {
            let recording: Recording =
                serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            recording.kvs
        })
        .collect()
}

fn round_trip<T: Serialize + DeserializeOwned>(raw: &str) -> String {
    let value: T = serde_json::from_str(raw).unwrap();
    String::from_utf8(json::encode(&value).unwrap()).unwrap()
}

/// JSON without blanks between tokens. Calico writes none, but some recorded objects were put by hand.
fn without_blanks(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let kept = text.chars().filter(|char| {
        let blank = !in_string && char.is_ascii_whitespace();
        if *char == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = *char == '\\' && !escaped;
        !blank
    });
    kept.collect()
}

#[test]
fn recorded_keys_round_trip() {
    for entry in entries() {
        let key = Key::parse(&entry.key).unwrap_or_else(|| panic!("{} is no key", entry.key));
        assert_eq!(key.path(), entry.key);
    }
}

#[test]
fn recorded_values_round_trip() {
    let mut seen = 0;
    for entry in entries() {
        let raw = &entry.raw;
        let again = match Key::parse(&entry.key).unwrap() {
            Key::Block(_) => round_trip::<Block>(raw),
            Key::Affinity(..) => round_trip::<Affinity>(raw),
            Key::Handle(_) => round_trip::<Handle>(raw),
            Key::IpamConfig => round_trip::<IpamConfig>(raw),
            Key::Resource { kind, .. } => {
                let resource = AnyResource::decode(kind, raw.as_bytes()).unwrap();
                assert_eq!(resource.key().path(), entry.key);
                let by_kind = AnyResource::from_value(serde_json::from_str(raw).unwrap()).unwrap();
                assert_eq!(by_kind, resource);
                String::from_utf8(resource.encode().unwrap()).unwrap()
            }
            Key::WorkloadStatus { .. } | Key::HostEndpointStatus { .. } => {
                round_trip::<EndpointStatus>(raw)
            }
            Key::AgentStatus { .. } | Key::LastAgentStatus { .. } => round_trip::<AgentReport>(raw),
            other => panic!("{} has no value type", other.path()),
        };
        assert_eq!(again, without_blanks(raw), "{}", entry.key);
        seen += 1;
    }
    assert!(seen > 200, "only {seen} values compared");
}

#[test]
fn what_others_write_survives() {
    for (kind, spec) in [
        (
            Kind::Node,
            r#"{"wireguard":{"interfaceIPv4Address":"10.0.0.1","new":1},"interfaces":[{"name":"eth0","addresses":["10.0.0.2"],"new":{}}]}"#,
        ),
        (
            Kind::WorkloadEndpoint,
            r#"{"qosControls":{"ingressBandwidth":1000000,"dscp":"AF41","new":true}}"#,
        ),
        (
            Kind::StagedKubernetesNetworkPolicy,
            r#"{"podSelector":{},"ingress":[{},{"ports":[{"protocol":"TCP","port":"http"}],"from":[{"podSelector":{},"new":null}]}],"policyTypes":["Ingress"]}"#,
        ),
    ] {
        let text = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"x","creationTimestamp":null}},"spec":{spec}}}"#
        );
        let resource = AnyResource::decode(kind, text.as_bytes()).unwrap();
        let again = String::from_utf8(resource.encode().unwrap()).unwrap();
        let status = if kind.always_has_status() {
            r#","status":{}}"#
        } else {
            "}"
        };
        assert_eq!(again, text[..text.len() - 1].to_owned() + status);
    }
}
