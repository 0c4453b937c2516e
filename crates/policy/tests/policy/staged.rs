//! Staged policies are never in force; what they would do is told beside.

use crate::common::world::{World, global, id, namespaced, rules, tcp, workload};
use crate::common::{Change, resource};
use margay_model::Kind;
use margay_policy::Chains;
use margay_policy::evaluator::{Direction, Place, Verdict, decide};
use serde_json::{Value, json};

const WEB: &str = "10.0.0.1";
const OTHER: &str = "10.0.0.9";

fn web() -> Change {
    let labels = json!({"app": "web", "projectcalico.org/orchestrator": "k8s"});
    workload("n1", "a", "web", WEB, labels, json!({}))
}

fn spec(action: &str) -> Value {
    rules(json!([{"action": action}]))
}

fn staged(kind: Kind, name: &str, action: &str, mut spec: Value) -> Change {
    spec["stagedAction"] = json!(action);
    let namespace = kind.namespaced().then_some("a");
    resource(kind, namespace, name, json!({}), spec)
}

/// The policies for ingress as they would be.
fn preview(world: &World) -> Option<Vec<String>> {
    let staged: &Option<Chains> = &world.desired.workloads[&id("a", "web")].staged;
    let tiers = &staged.as_ref()?.ingress;
    let policies = tiers.iter().flat_map(|tier| &tier.policies);
    Some(policies.map(|id| id.to_string()).collect())
}

/// What would become of a packet to the workload.
fn would(world: &World) -> Verdict {
    let state = margay_policy::evaluator::State {
        staged: true,
        ..world.store.state()
    };
    let place = Place::Workload(id("a", "web"));
    let packet = tcp(OTHER, WEB);
    decide(&state, &place, Direction::Ingress, &packet)
        .unwrap()
        .verdict
}

#[test]
fn nothing_of_it_is_in_force() {
    let deny = staged(Kind::StagedGlobalNetworkPolicy, "p", "Set", spec("Deny"));
    let world = World::new([web(), deny]);
    assert!(world.order("web", Direction::Ingress).is_empty());
    assert!(world.desired.policies.is_empty() && world.desired.sets.is_empty());
    assert_eq!(
        world.at("web", Direction::Ingress, &tcp(OTHER, WEB)),
        Verdict::Allow
    );
    assert_eq!(preview(&world).unwrap(), ["StagedGlobalNetworkPolicy/p"]);
    assert_eq!(would(&world), Verdict::Deny);
}

#[test]
fn a_staged_policy_takes_the_place_of_its_namesake() {
    let mut world = World::new([
        web(),
        namespaced("a", "p", spec("Allow")),
        namespaced("a", "q", spec("Deny")),
        staged(Kind::StagedNetworkPolicy, "p", "Set", spec("Deny")),
    ]);
    assert_eq!(
        preview(&world).unwrap(),
        ["StagedNetworkPolicy/a/p", "NetworkPolicy/a/q"]
    );
    assert_eq!(
        world.at("web", Direction::Ingress, &tcp(OTHER, WEB)),
        Verdict::Allow
    );
    assert_eq!(would(&world), Verdict::Deny);
    world.take([staged(Kind::StagedNetworkPolicy, "p", "Delete", json!({}))]);
    assert_eq!(preview(&world).unwrap(), ["NetworkPolicy/a/q"]);
    for action in ["Ignore", "Learn"] {
        world.take([staged(Kind::StagedNetworkPolicy, "p", action, spec("Deny"))]);
        assert_eq!(preview(&world), None);
        assert_eq!(would(&world), Verdict::Allow);
    }
}

#[test]
fn kubernetes_policies_are_staged_in_their_own_form() {
    let staged = |spec: Value| staged(Kind::StagedKubernetesNetworkPolicy, "k", "Set", spec);
    let mut world = World::new([
        web(),
        namespaced("a", "knp.default.k", spec("Deny")),
        staged(json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/24"}}], "ports": [{"port": 80}]}],
        })),
    ]);
    assert_eq!(
        preview(&world).unwrap(),
        ["StagedKubernetesNetworkPolicy/a/k"]
    );
    assert_eq!(would(&world), Verdict::Allow);
    for (ingress, expected) in [
        (json!([]), Verdict::Deny),
        (json!([{}]), Verdict::Allow),
        (
            json!([{"ports": [{"port": 80, "protocol": "UDP"}]}]),
            Verdict::Deny,
        ),
        (
            json!([{"ports": [{"port": 70, "endPort": 90}]}]),
            Verdict::Allow,
        ),
        (
            json!([{"ports": [{"protocol": "TCP"}, {"port": 1}]}]),
            Verdict::Allow,
        ),
        (json!([{"from": [{"podSelector": {}}]}]), Verdict::Deny),
        (
            json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.8/31"]}}]}]),
            Verdict::Deny,
        ),
    ] {
        world.take([staged(json!({"podSelector": {}, "ingress": ingress}))]);
        assert_eq!(would(&world), expected, "{ingress}");
    }
    // It selects pods, not what other orchestrators run.
    let labels = json!({"projectcalico.org/orchestrator": "cni"});
    world.take([workload("n1", "a", "web", WEB, labels, json!({}))]);
    assert_eq!(preview(&world).unwrap().len(), 0);
}

#[test]
fn what_is_staged_elsewhere_changes_nothing_here() {
    let mut elsewhere = spec("Deny");
    elsewhere["selector"] = json!("app == 'db'");
    let world = World::new([
        web(),
        global("p", spec("Allow")),
        staged(Kind::StagedGlobalNetworkPolicy, "q", "Set", elsewhere),
    ]);
    assert_eq!(preview(&world), None);
}
