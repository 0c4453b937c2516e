//! Policy and the table compiled from it decide alike, for any policy and any packet.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod packet;
mod random;
mod reference;

use std::collections::BTreeSet;

use margay_policy::{Delta, Desired};
use margay_ruleset::compile::{Log, Settings, is_denial};
use margay_ruleset::{Compiler, Statement, Verdict};
use proptest::prelude::*;

use crate::packet::{Outcome, Packet};
use crate::random::{delta, desired, endpoint};

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    let sources = [
        "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.9.9", "fd00::1", "fd00::2", "fd00::99",
    ];
    for source in sources {
        let destinations = match source.contains(':') {
            true => ["fd00::1", "fd00::7"],
            false => ["10.0.0.1", "10.0.0.2"],
        };
        for destination in destinations {
            for protocol in [6, 17, 1, 58, 47] {
                for (source_port, destination_port) in [(3, 1), (1, 2), (6, 4), (2, 6), (9, 99)] {
                    packets.push(Packet {
                        source: source.parse().unwrap(),
                        destination: destination.parse().unwrap(),
                        protocol,
                        source_port,
                        destination_port,
                        icmp: (7 + (destination_port % 2) as u8, (source_port % 2) as u8),
                    });
                }
            }
        }
    }
    packets
}

fn settings(lookup_above: usize, denials: bool) -> Settings {
    let default = Settings::default();
    Settings {
        lookup_above,
        log: Log {
            denials,
            ..default.log
        },
        ..default
    }
}

fn assert_alike(compiler: &Compiler, desired: &Desired) -> Result<(), TestCaseError> {
    let workload = &desired.workloads[&endpoint()];
    for packet in packets() {
        let expected = reference::decide(desired, workload, &packet);
        let found = packet::decide(compiler.table(), "fwd-to", "cali1", &packet);
        prop_assert_eq!(found, expected, "{:?}\n{}", packet, compiler.table());
    }
    let unknown = packet::decide(compiler.table(), "fwd-to", "cali2", &packets()[0]);
    prop_assert_eq!(unknown, Outcome::Drop);
    Ok(())
}

/// Every chain and set that something leads to is there.
fn assert_closed(compiler: &Compiler) -> Result<(), TestCaseError> {
    let table = compiler.table();
    let statements = || {
        let rules = table.chains().values().flat_map(|chain| &chain.rules);
        rules.flat_map(|rule| &rule.statements)
    };
    let elements = table.sets().values().flat_map(|set| set.elements.values());
    let chains = statements().filter_map(|statement| statement.chain());
    for chain in chains.chain(elements.filter_map(|element| element.chain())) {
        prop_assert!(table.chains().contains_key(chain), "{chain}");
    }
    let sets: BTreeSet<&str> = statements()
        .flat_map(|statement| statement.sets())
        .collect();
    for set in sets {
        prop_assert!(table.sets().contains_key(set), "{set}");
    }
    Ok(())
}

/// Nothing is denied without a word where denials are logged, and none is logged where they are not.
fn assert_told(compiler: &Compiler, denials: bool) -> Result<(), TestCaseError> {
    for (name, chain) in compiler.table().chains() {
        prop_assert!(denials || !is_denial(name), "{name}");
        for rule in &chain.rules {
            let drops = rule.statements.last() == Some(&Statement::Verdict(Verdict::Drop));
            prop_assert_eq!(
                drops,
                drops && denials == is_denial(name),
                "{} {}",
                name,
                rule
            );
        }
        if is_denial(name) {
            let rules: Vec<_> = chain.rules.iter().map(ToString::to_string).collect();
            prop_assert!(rules[0].contains("log prefix \"D"), "{rules:?}");
            prop_assert_eq!(&rules[1], "drop");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_table_decides_as_policy_does(
        states in prop::collection::vec(desired(), 1..4),
        lookup_above in prop::sample::select(vec![0_usize, 2, 1000]),
        denials in any::<bool>(),
    ) {
        let mut compiler = Compiler::new(settings(lookup_above, denials));
        let mut before = Desired::default();
        for state in &states {
            compiler.update(delta(&before, state));
            before = state.clone();
            assert_closed(&compiler)?;
            assert_alike(&compiler, state)?;
            assert_told(&compiler, denials)?;
        }
        // With the endpoint, all that it needed goes.
        let mut end = Delta::default();
        end.removed_workloads.insert(endpoint());
        end.removed_policies.extend(before.policies.keys().cloned());
        end.removed_profiles.extend(before.profiles.keys().cloned());
        end.removed_sets.extend(before.sets.keys().copied());
        compiler.update(end);
        let empty = Compiler::new(settings(0, denials));
        prop_assert_eq!(compiler.table().sets(), empty.table().sets());
        prop_assert_eq!(compiler.table().chains(), empty.table().chains());
    }
}
