//! Every value recorded from real Calico decodes and encodes to the same bytes.

use std::path::Path;

use margay_model::ipam::{Affinity, Block, Handle, IpamConfig};
use margay_model::resource::cluster::{ClusterInformation, Node, Tier};
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::resource::pool::{IPPool, IPReservation};
use margay_model::resource::profile::Profile;
use margay_model::{Key, Kind, json};
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
            Key::Resource { kind, .. } => match kind {
                Kind::IPPool => round_trip::<IPPool>(raw),
                Kind::IPReservation => round_trip::<IPReservation>(raw),
                Kind::ClusterInformation => round_trip::<ClusterInformation>(raw),
                Kind::Tier => round_trip::<Tier>(raw),
                Kind::Node => round_trip::<Node>(raw),
                Kind::WorkloadEndpoint => round_trip::<WorkloadEndpoint>(raw),
                Kind::Profile => round_trip::<Profile>(raw),
                _ => continue,
            },
            _ => continue,
        };
        assert_eq!(&again, raw, "{}", entry.key);
        seen += 1;
    }
    assert!(seen > 100, "only {seen} values compared");
}
