//! A small cluster in the in-memory store.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

use std::collections::BTreeMap;

use margay_ipam_core::{Assignment, IpamError, Release, Request, Want};
use margay_model::resource::cluster::{ClusterInformation, Node, NodeSpec};
use margay_model::resource::pool::{AllowedUse, IPPool, IPPoolSpec};
use margay_model::time::Timestamp;
use margay_model::{Family, Metadata};
use margay_store::memory::Memory;

pub const NOW: Timestamp = Timestamp {
    seconds: 1_795_393_566,
    nanos: 514_594_043,
};

pub fn pool(memory: &Memory, name: &str, cidr: &str, change: impl FnOnce(&mut IPPoolSpec)) {
    let mut spec = IPPoolSpec {
        cidr: cidr.to_owned(),
        ..IPPoolSpec::default()
    };
    change(&mut spec);
    let pool = IPPool::new(Metadata::named(name), spec);
    memory.put_raw(&pool.key().path(), &pool.encode().unwrap());
}

pub fn node(memory: &Memory, name: &str, labels: &[(&str, &str)]) {
    let mut metadata = Metadata::named(name);
    metadata.labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let node = Node::new(metadata, NodeSpec::default());
    memory.put_raw(&node.key().path(), &node.encode().unwrap());
}

pub fn initialised(memory: &Memory) {
    let cluster = ClusterInformation::new(Metadata::named("default"), Default::default());
    memory.put_raw(&cluster.key().path(), &cluster.encode().unwrap());
}

pub fn want(family: Family) -> Want {
    Want::Auto {
        family,
        pools: Vec::new(),
    }
}

pub fn request(node: &str, handle: &str, wants: Vec<Want>) -> Request {
    Request {
        node: node.to_owned(),
        handle: handle.to_owned(),
        interface: "eth0".to_owned(),
        owner: BTreeMap::new(),
        wants,
        purpose: AllowedUse::Workload,
        max_blocks: None,
        namespace_labels: None,
        hints: Vec::new(),
        quarantine: Default::default(),
        now: NOW,
    }
}

pub fn release(node: &str, handle: &str) -> Release {
    Release {
        node: node.to_owned(),
        handle: handle.to_owned(),
        interface: None,
        timestamp: None,
        hints: Vec::new(),
        now: NOW,
    }
}

pub fn addresses(assignment: Result<Assignment, IpamError>) -> Vec<String> {
    match assignment.unwrap() {
        Assignment::Made { assigned, .. } => assigned
            .iter()
            .map(|assigned| assigned.address.to_string())
            .collect(),
        Assignment::Stopped => panic!("stopped"),
    }
}
