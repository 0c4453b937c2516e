//! A store with its calculated state, asked by both ways.

use margay_model::Kind;
use margay_policy::evaluator::{Direction, HostStage, Packet, Place, Verdict, decide};
use margay_policy::{Calculator, Condition, Desired, EndpointId};
use serde_json::{Value, json};

use super::interpret;
use super::{Change, NODE, Store, resource, take};

/// A store and what is calculated from it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) calculator: Calculator,
    pub(crate) desired: Desired,
}

impl World {
    pub(crate) fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut world = Self {
            store: Store::default(),
            calculator: Calculator::new(NODE),
            desired: Desired::default(),
        };
        world.take(changes);
        world
    }

    pub(crate) fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            take(&mut self.calculator, &change);
            self.store.take(&change);
        }
        self.desired.apply(self.calculator.flush());
    }

    /// What becomes of a packet at a workload of namespace `a`; calculation and evaluator agree.
    pub(crate) fn at(&self, workload: &str, direction: Direction, packet: &Packet) -> Verdict {
        self.decide(&Place::Workload(id("a", workload)), direction, packet)
    }

    /// What becomes of a packet at a host endpoint.
    pub(crate) fn at_host(
        &self,
        name: &str,
        stage: HostStage,
        direction: Direction,
        packet: &Packet,
    ) -> Verdict {
        self.decide(&Place::Host(name.to_owned(), stage), direction, packet)
    }

    fn decide(&self, place: &Place, direction: Direction, packet: &Packet) -> Verdict {
        let decision = decide(&self.store.state(), place, direction, packet).unwrap();
        let calculated = interpret(&self.desired, place, direction, packet).unwrap();
        assert_eq!(calculated, decision.verdict, "{:#?}", decision.steps);
        calculated
    }

    /// The policies of a workload of namespace `a` for a direction, tier by tier.
    pub(crate) fn order(&self, workload: &str, direction: Direction) -> Vec<String> {
        let chains = &self.desired.workloads[&id("a", workload)].chains;
        let tiers = match direction {
            Direction::Ingress => &chains.ingress,
            Direction::Egress => &chains.egress,
        };
        let in_tier = |tier: &margay_policy::Tier| {
            let policies: Vec<String> = tier.policies.iter().map(|p| p.to_string()).collect();
            format!("{} {:?}: {}", tier.name, tier.default, policies.join(" "))
        };
        tiers.iter().map(in_tier).collect()
    }

    /// What is wrong with the object of a key that ends so.
    pub(crate) fn conditions(&self, name: &str) -> Vec<String> {
        let conditions = self.calculator.conditions().into_iter();
        let of = |condition: &Condition| condition.key.path().ends_with(name);
        conditions
            .filter(of)
            .map(|condition| condition.problem.to_string())
            .collect()
    }
}

/// A workload of this node.
pub(crate) fn id(namespace: &str, workload: &str) -> EndpointId {
    format!("{namespace}/n1-k8s-{workload}-eth0")
        .parse()
        .unwrap()
}

/// A workload endpoint of a node, with these fields of the specification besides the usual.
pub(crate) fn workload(
    node: &str,
    namespace: &str,
    name: &str,
    address: &str,
    labels: Value,
    more: Value,
) -> Change {
    let prefix = if address.contains(':') { 128 } else { 32 };
    let mut spec = json!({
        "node": node, "orchestrator": "k8s", "interfaceName": format!("cali{namespace}{name}"),
        "ipNetworks": [format!("{address}/{prefix}")], "profiles": ["projectcalico-default-allow"],
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let name = format!("{node}-k8s-{name}-eth0");
    resource(Kind::WorkloadEndpoint, Some(namespace), &name, labels, spec)
}

pub(crate) fn tier(name: &str, order: Option<f64>, default: &str) -> Change {
    let spec = json!({"order": order, "defaultAction": default});
    resource(Kind::Tier, None, name, json!({}), spec)
}

pub(crate) fn global(name: &str, spec: Value) -> Change {
    resource(Kind::GlobalNetworkPolicy, None, name, json!({}), spec)
}

pub(crate) fn namespaced(namespace: &str, name: &str, spec: Value) -> Change {
    resource(Kind::NetworkPolicy, Some(namespace), name, json!({}), spec)
}

pub(crate) fn profile(name: &str, rules: Value, labels: Value) -> Change {
    let spec = json!({"ingress": rules, "egress": rules, "labelsToApply": labels});
    resource(Kind::Profile, None, name, json!({}), spec)
}

/// A policy of all types for everybody.
pub(crate) fn rules(rules: Value) -> Value {
    json!({"types": ["Ingress", "Egress"], "ingress": rules, "egress": rules})
}

/// A TCP packet to port 80.
pub(crate) fn tcp(source: &str, destination: &str) -> Packet {
    Packet {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 80,
        icmp: None,
    }
}
