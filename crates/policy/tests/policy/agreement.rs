//! However the state came about, the calculation is the same; and it means what the evaluator says.

use std::collections::BTreeSet;

use crate::common::interpret;
use crate::common::random::{change, neighbourhood, packet, policy_for_all, rules};
use crate::common::{Change, NODE, Store, take};
use margay_policy::evaluator::{Direction, HostStage, Place, decide};
use margay_policy::{Calculator, Delta, Desired, SetChange};
use proptest::prelude::*;

/// What a calculator that reads all of a store at once gives.
fn anew(changes: &[Change]) -> (Desired, Calculator) {
    let mut calculator = Calculator::new(NODE);
    for change in changes {
        take(&mut calculator, change);
    }
    let mut desired = Desired::default();
    desired.apply(calculator.flush());
    (desired, calculator)
}

/// Nothing is told that is not new, and nothing is there that nothing names.
fn check(before: &Desired, delta: &Delta, after: &Desired) -> Result<(), TestCaseError> {
    for (id, change) in &delta.sets {
        match change {
            SetChange::New(_) => prop_assert!(!before.sets.contains_key(id)),
            SetChange::Members { added, removed } => {
                let members = &before.sets[id].members;
                prop_assert!(!(added.is_empty() && removed.is_empty()));
                prop_assert!(added.iter().all(|member| !members.contains(member)));
                prop_assert!(removed.iter().all(|member| members.contains(member)));
            }
        }
    }
    prop_assert!(
        delta
            .policies
            .iter()
            .all(|(id, p)| before.policies.get(id) != Some(p))
    );
    prop_assert!(
        delta
            .profiles
            .iter()
            .all(|(id, p)| before.profiles.get(id) != Some(p))
    );
    prop_assert!(
        delta
            .workloads
            .iter()
            .all(|(id, w)| before.workloads.get(id) != Some(w))
    );
    prop_assert!(
        delta
            .hosts
            .iter()
            .all(|(id, h)| before.hosts.get(id) != Some(h))
    );
    prop_assert!(
        delta
            .removed_sets
            .iter()
            .all(|id| before.sets.contains_key(id))
    );
    prop_assert!(
        delta
            .removed_policies
            .iter()
            .all(|id| before.policies.contains_key(id))
    );
    prop_assert!(
        delta
            .removed_profiles
            .iter()
            .all(|id| before.profiles.contains_key(id))
    );
    prop_assert!(
        delta
            .removed_workloads
            .iter()
            .all(|id| before.workloads.contains_key(id))
    );
    prop_assert!(
        delta
            .removed_hosts
            .iter()
            .all(|id| before.hosts.contains_key(id))
    );

    let rules = after
        .policies
        .values()
        .flat_map(|p| p.ingress.iter().chain(&p.egress));
    let of_profiles = after
        .profiles
        .values()
        .flat_map(|p| p.ingress.iter().chain(&p.egress));
    let mut named = BTreeSet::new();
    for side in rules
        .chain(of_profiles)
        .flat_map(|rule| [&rule.source, &rule.destination])
    {
        named.extend(
            side.sets
                .iter()
                .chain(&side.not_sets)
                .chain(&side.named_ports),
        );
        named.extend(side.not_named_ports.iter().chain(&side.service));
    }
    prop_assert_eq!(named, after.sets.keys().collect::<BTreeSet<_>>());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn increments_lead_where_a_full_calculation_leads(
        changes in prop::collection::vec((change(), any::<bool>()), 1..60),
    ) {
        let mut calculator = Calculator::new(NODE);
        let mut store = Store::default();
        let mut desired = Desired::default();
        for (change, flush) in &changes {
            take(&mut calculator, change);
            store.take(change);
            if *flush {
                let (before, delta) = (desired.clone(), calculator.flush());
                desired.apply(delta.clone());
                check(&before, &delta, &desired)?;
                let (full, other) = anew(&store.changes());
                prop_assert_eq!(&desired, &full);
                prop_assert_eq!(calculator.conditions(), other.conditions());
            }
        }
        let (before, delta) = (desired.clone(), calculator.flush());
        desired.apply(delta.clone());
        check(&before, &delta, &desired)?;
        let mut reversed = store.changes();
        reversed.reverse();
        prop_assert_eq!(&desired, &anew(&reversed).0);
        prop_assert!(calculator.flush().is_empty());
    }

    #[test]
    fn every_rule_means_what_the_evaluator_says(
        rules in rules(),
        namespaced in any::<bool>(),
        packets in prop::collection::vec(packet(), 60),
    ) {
        let mut store = Store::default();
        neighbourhood().iter().for_each(|change| store.take(change));
        store.take(&policy_for_all(namespaced, rules));
        store.keep_readable();
        let (desired, _) = anew(&store.changes());
        let state = store.state();
        prop_assert!(desired.workloads.len() == 3);
        for id in desired.workloads.keys() {
            let place = Place::Workload(id.clone());
            for direction in [Direction::Ingress, Direction::Egress] {
                for packet in &packets {
                    let decision = decide(&state, &place, direction, packet).unwrap();
                    let found = interpret(&desired, &place, direction, packet);
                    prop_assert_eq!(
                        found, Some(decision.verdict),
                        "{:?} {:?} {:?}: {:?}", place, direction, packet, decision.steps
                    );
                }
            }
        }
    }

    #[test]
    fn the_calculated_state_means_what_the_evaluator_says(
        changes in prop::collection::vec(change(), 10..60),
        packets in prop::collection::vec(packet(), 30),
    ) {
        let mut store = Store::default();
        changes.iter().for_each(|change| store.take(change));
        store.keep_readable();
        let (desired, _) = anew(&store.changes());
        let state = store.state();
        let mut places: Vec<Place> = desired.workloads.keys().cloned().map(Place::Workload).collect();
        for name in desired.hosts.keys() {
            use HostStage::{Forward, Normal, PreDnat, Untracked};
            places.extend([Forward, Normal, PreDnat, Untracked].map(|s| Place::Host(name.clone(), s)));
        }
        for place in &places {
            for direction in [Direction::Ingress, Direction::Egress] {
                for packet in &packets {
                    let decision = decide(&state, place, direction, packet).unwrap();
                    let found = interpret(&desired, place, direction, packet);
                    prop_assert_eq!(
                        found, Some(decision.verdict),
                        "{:?} {:?} {:?}: {:?}", place, direction, packet, decision.steps
                    );
                }
            }
        }
    }
}
