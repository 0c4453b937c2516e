//! One bad object harms no other, and where it is a policy it denies.

use crate::common::world::{World, global, namespaced, profile, rules, tcp, workload};
use crate::common::{Change, resource};
use margay_model::{Key, Kind};
use margay_policy::evaluator::{Direction::Egress, Direction::Ingress, Verdict};
use serde_json::{Value, json};

const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";

/// Two workloads, one for each policy.
fn pair() -> [Change; 2] {
    [("web", WEB), ("db", DB)]
        .map(|(name, address)| workload("n1", "a", name, address, json!({"app": name}), json!({})))
}

fn for_app(app: &str, rule: Value) -> Value {
    let mut spec = rules(json!([rule, {"action": "Allow"}]));
    spec["selector"] = json!(format!("app == '{app}'"));
    spec
}

#[test]
fn a_policy_that_cannot_be_understood_denies() {
    for (rule, reason) in [
        (
            json!({"action": "Permit"}),
            "spec.ingress[0].action: \"Permit\"",
        ),
        (
            json!({"action": "Allow", "source": {"nets": ["10.0.0.0/99"]}}),
            "spec.ingress[0].source.nets[0]",
        ),
        (
            json!({"action": "Allow", "source": {"selector": "app =="}}),
            "spec.ingress[0].source.selector",
        ),
        (
            json!({"action": "Allow", "protocol": "GRE"}),
            "spec.ingress[0].protocol",
        ),
        (
            json!({"action": "Allow", "protocol": 0}),
            "spec.ingress[0].protocol",
        ),
        (
            json!({"action": "Allow", "ipVersion": 5}),
            "spec.ingress[0].ipVersion",
        ),
        (
            json!({"action": "Allow", "destination": {"ports": [80]}}),
            "spec.ingress[0].destination.ports",
        ),
        (
            json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["9:8"]}}),
            "spec.ingress[0].destination.ports[0]",
        ),
        (
            json!({"action": "Allow", "protocol": "ICMP", "icmp": {"code": 1}}),
            "spec.ingress[0].icmp.code",
        ),
        (
            json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 255}}),
            "spec.ingress[0].icmp.type",
        ),
    ] {
        let world = World::new(pair().into_iter().chain([
            global("bad", for_app("web", rule.clone())),
            global("good", for_app("db", json!({"action": "Log"}))),
        ]));
        assert_eq!(
            world.at("web", Ingress, &tcp(DB, WEB)),
            Verdict::Deny,
            "{rule}"
        );
        assert_eq!(
            world.at("web", Egress, &tcp(WEB, DB)),
            Verdict::Deny,
            "{rule}"
        );
        assert_eq!(
            world.at("db", Ingress, &tcp(WEB, DB)),
            Verdict::Allow,
            "{rule}"
        );
        let conditions = world.conditions("globalnetworkpolicies/bad");
        assert_eq!(conditions.len(), 1);
        assert!(
            conditions[0].contains(reason) && conditions[0].contains("denies everything"),
            "{}",
            conditions[0]
        );
    }
}

#[test]
fn a_policy_whose_rules_cannot_be_read_denies() {
    // A port that no number is keeps the whole value from being read.
    let rule = json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [70000]}});
    let mut world = World::new(
        pair()
            .into_iter()
            .chain([global("bad", for_app("web", rule))]),
    );
    let order = ["default Deny: GlobalNetworkPolicy/bad"];
    assert_eq!(world.order("web", Ingress), order);
    assert!(world.order("db", Ingress).is_empty());
    let policy = world.desired.policies.values().next().unwrap();
    assert_eq!(policy.ingress.len(), 1);
    assert_eq!(policy.ingress[0].action, margay_policy::Action::Deny);
    assert_eq!(world.conditions("globalnetworkpolicies/bad").len(), 1);
    world.take([global("bad", for_app("web", json!({"action": "Log"})))]);
    assert_eq!(world.at("web", Ingress, &tcp(DB, WEB)), Verdict::Allow);
    assert!(world.conditions("globalnetworkpolicies/bad").is_empty());
}

#[test]
fn a_policy_that_does_not_say_for_whom_is_for_nobody() {
    let mut spec = for_app("web", json!({"action": "Deny"}));
    spec["selector"] = json!("app ==");
    let world = World::new(pair().into_iter().chain([namespaced("a", "bad", spec)]));
    assert_eq!(world.at("web", Ingress, &tcp(DB, WEB)), Verdict::Allow);
    let conditions = world.conditions("networkpolicies/a/bad");
    assert!(
        conditions[0].starts_with("it is for nobody"),
        "{conditions:?}"
    );
}

#[test]
fn what_cannot_be_enforced_closes_rather_than_opens() {
    for field in [
        json!({"http": {"methods": ["GET"]}}),
        json!({"destination": {"domains": ["example.com"]}}),
        json!({"futureMatch": true}),
    ] {
        for (action, expected) in [("Allow", Verdict::Deny), ("Deny", Verdict::Deny)] {
            let mut rule = field.clone();
            rule["action"] = json!(action);
            let mut spec = rules(json!([rule]));
            if action == "Deny" {
                spec = rules(json!([rule, {"action": "Allow"}]));
            }
            let world = World::new(pair().into_iter().chain([global("p", spec)]));
            assert_eq!(
                world.at("web", Egress, &tcp(WEB, DB)),
                expected,
                "{field} {action}"
            );
            let conditions = world.conditions("globalnetworkpolicies/p");
            assert_eq!(conditions.len(), 2, "{conditions:?}");
            assert!(
                conditions[0].contains("cannot be enforced here"),
                "{conditions:?}"
            );
        }
    }
}

#[test]
fn bad_parts_of_other_objects_are_left_out() {
    let from_bad = json!({"action": "Allow", "source": {"selector": "has(list)"}});
    let set = resource(
        Kind::GlobalNetworkSet,
        None,
        "s",
        json!({"list": ""}),
        json!({"nets": ["nonsense", DB]}),
    );
    let world = World::new(
        pair()
            .into_iter()
            .chain([set, global("p", rules(json!([from_bad])))]),
    );
    assert_eq!(world.at("web", Ingress, &tcp(DB, WEB)), Verdict::Allow);
    assert_eq!(world.conditions("globalnetworksets/s").len(), 1);
    // An endpoint without an address, and one without an interface.
    let (nothing, unnamed) = (json!({"ipNetworks": []}), json!({"interfaceName": ""}));
    let world = World::new([
        workload("n1", "a", "no-address", WEB, json!({}), nothing),
        workload("n1", "a", "no-interface", DB, json!({}), unnamed),
        resource(
            Kind::WorkloadEndpoint,
            Some("a"),
            "nameless",
            json!({}),
            json!({}),
        ),
    ]);
    assert!(world.desired.workloads.is_empty());
    for name in ["no-address-eth0", "no-interface-eth0", "a/nameless"] {
        let name = name.replace("no-", "n1-k8s-no-");
        // A single dash separates the parts of a name.
        assert_eq!(world.conditions(&name).len(), 1, "{name}");
    }
}

#[test]
fn a_profile_that_cannot_be_understood_denies_but_labels() {
    let mut world = World::new([
        workload(
            "n1",
            "a",
            "web",
            WEB,
            json!({}),
            json!({"profiles": ["kns.a"]}),
        ),
        profile(
            "kns.a",
            json!([{"action": "Permit"}]),
            json!({"pcns.env": "prod"}),
        ),
    ]);
    assert_eq!(world.at("web", Ingress, &tcp(DB, WEB)), Verdict::Deny);
    let mut spec = rules(json!([{"action": "Allow"}]));
    spec["namespaceSelector"] = json!("env == 'prod'");
    world.take([global("p", spec)]);
    assert_eq!(world.at("web", Ingress, &tcp(DB, WEB)), Verdict::Allow);
    assert_eq!(world.conditions("profiles/kns.a").len(), 1);
}

#[test]
fn texts_that_are_no_objects_count_as_none() {
    let mut world = World::new(pair());
    let key = Key::namespaced(Kind::WorkloadEndpoint, "a", "n1-k8s-web-eth0");
    world.calculator.update_bytes(&key, Some(b"{"));
    world.desired.apply(world.calculator.flush());
    assert_eq!(world.desired.workloads.len(), 1);
    let conditions = world.conditions("n1-k8s-web-eth0");
    assert!(
        conditions[0].starts_with("it is passed over"),
        "{conditions:?}"
    );
    world.calculator.update_bytes(&key, None);
    assert!(world.conditions("n1-k8s-web-eth0").is_empty());
}
