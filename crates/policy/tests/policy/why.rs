//! What the evaluator tells people who ask why.

use margay_policy::evaluator::{State, Step, Verdict, verdict};
use serde_json::json;

use crate::common::Change;
use crate::common::world::{World, global, namespaced, profile, rules, tcp, tier, workload};

const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";

fn world(more: impl IntoIterator<Item = Change>) -> State {
    let open = json!({"profiles": ["open"]});
    let mut world = World::new([
        workload("n1", "a", "web", WEB, json!({"app": "web"}), open.clone()),
        // The evaluator knows the whole cluster.
        workload("n2", "b", "db", DB, json!({"app": "db"}), open),
        profile("open", json!([{"action": "Allow"}]), json!({})),
        tier("early", Some(1.0), "Pass"),
    ]);
    world.take(more);
    world.store.state()
}

fn told(steps: &[Step]) -> Vec<String> {
    steps.iter().map(|step| step.to_string()).collect()
}

#[test]
fn both_ends_are_told_step_by_step() {
    let mut early = rules(json!([{"action": "Log"}, {"action": "Allow", "protocol": "UDP"}]));
    early["tier"] = json!("early");
    let mut in_db = rules(json!([{"action": "Allow", "source": {"selector": "app == 'web'"}}]));
    in_db["types"] = json!(["Ingress"]);
    let state = world([global("early.log", early), namespaced("b", "db", in_db)]);
    let trace = verdict(&tcp(WEB, DB), &state);
    let (from, egress) = trace.egress.as_ref().unwrap();
    assert_eq!(from.to_string(), "a/n1-k8s-web-eth0");
    assert_eq!(egress.verdict, Verdict::Allow);
    assert_eq!(
        told(&egress.steps),
        [
            "tier early: rule 0 of GlobalNetworkPolicy/early.log: Log",
            "tier early: no rule matches: Pass",
            "profile open: rule 0: Allow",
        ]
    );
    let (to, ingress) = trace.ingress.as_ref().unwrap();
    assert_eq!(to.to_string(), "b/n2-k8s-db-eth0");
    // The policy is of another namespace than the web server.
    assert_eq!(ingress.verdict, Verdict::Deny);
    assert_eq!(
        told(&ingress.steps)[2],
        "tier default: no rule matches: Deny"
    );
    assert!(!trace.allows());
}

#[test]
fn strangers_have_no_say() {
    let state = world([]);
    let trace = verdict(&tcp("192.0.2.1", DB), &state);
    assert!(trace.egress.is_none());
    assert!(trace.allows());
    let trace = verdict(&tcp("192.0.2.1", "192.0.2.2"), &state);
    assert!(trace.egress.is_none() && trace.ingress.is_none() && trace.allows());
}

#[test]
fn what_denies_without_a_rule_is_told() {
    let bad = rules(json!([{"action": "Permit"}]));
    let missing = json!({"profiles": ["missing"]});
    for (change, expected) in [
        (
            global("bad", bad),
            "tier default: GlobalNetworkPolicy/bad cannot be understood: Deny",
        ),
        (
            workload("n2", "b", "db", DB, json!({}), missing),
            "profile missing does not exist or cannot be understood: Deny",
        ),
        (
            workload("n2", "b", "db", DB, json!({}), json!({"profiles": []})),
            "nothing has decided",
        ),
    ] {
        let trace = verdict(&tcp(WEB, DB), &world([change]));
        let (_, ingress) = trace.ingress.as_ref().unwrap();
        assert_eq!(told(&ingress.steps), [expected]);
        assert!(!trace.allows());
    }
}
