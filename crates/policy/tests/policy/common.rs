//! Stores and their changes.

pub(crate) mod random;
pub(crate) mod world;

use std::collections::BTreeMap;

use margay_model::{AnyResource, Key, Kind};
use margay_policy::evaluator::{Direction, Packet, Place, State, Verdict};
use margay_policy::{Calculator, Desired, Failsafes, ServicePort, judge};
use serde_json::{Value, json};

/// The node whose state is calculated.
pub(crate) const NODE: &str = "n1";

/// What becomes of a packet by what is calculated, with the usual failsafe ports.
pub(crate) fn interpret(
    desired: &Desired,
    place: &Place,
    direction: Direction,
    packet: &Packet,
) -> Option<Verdict> {
    judge(desired, &Failsafes::default(), place, direction, packet)
}

/// A change of the store, or of the services.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Key, Value),
    Delete(Key),
    Service(String, Option<Vec<ServicePort>>),
}

/// The whole of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) values: BTreeMap<Key, Value>,
    pub(crate) services: BTreeMap<String, Vec<ServicePort>>,
}

impl Store {
    pub(crate) fn take(&mut self, change: &Change) {
        match change {
            Change::Put(key, value) => drop(self.values.insert(key.clone(), value.clone())),
            Change::Delete(key) => drop(self.values.remove(key)),
            Change::Service(name, Some(ports)) => {
                self.services.insert(name.clone(), ports.clone());
            }
            Change::Service(name, None) => drop(self.services.remove(name)),
        }
    }

    /// All of it as changes.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let values = self.values.iter();
        let values = values.map(|(key, value)| Change::Put(key.clone(), value.clone()));
        let services = self.services.iter();
        values
            .chain(services.map(|(name, ports)| Change::Service(name.clone(), Some(ports.clone()))))
            .collect()
    }

    /// Leaves only what can be read.
    pub(crate) fn keep_readable(&mut self) {
        self.values
            .retain(|_, value| AnyResource::from_value(value.clone()).is_ok());
    }

    /// The state that the evaluator takes. Values that cannot be read are left out.
    pub(crate) fn state(&self) -> State {
        let values = self.values.iter();
        let resources = values.filter_map(|(key, value)| {
            AnyResource::from_value(value.clone())
                .ok()
                .map(|resource| (key.clone(), resource))
        });
        State {
            resources: resources.collect(),
            services: self.services.clone(),
            ..State::default()
        }
    }
}

pub(crate) fn take(calculator: &mut Calculator, change: &Change) {
    match change {
        Change::Put(key, value) => {
            calculator.update_bytes(key, Some(&serde_json::to_vec(value).unwrap()));
        }
        Change::Delete(key) => calculator.update_bytes(key, None),
        Change::Service(name, ports) => {
            let (namespace, name) = name.split_once('/').unwrap();
            calculator.set_service(namespace, name, ports.clone());
        }
    }
}

/// A resource as it is stored, with its key.
pub(crate) fn resource(
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
    labels: Value,
    spec: Value,
) -> Change {
    let mut metadata = json!({"name": name, "labels": labels});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let key = Key::Resource {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    };
    Change::Put(
        key,
        json!({"kind": kind.name(), "metadata": metadata, "spec": spec}),
    )
}
