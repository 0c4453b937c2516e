//! Properties of the planner: what it promises for any two tables.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

use std::collections::BTreeMap;

use margay_ruleset::expression::Expression;
use margay_ruleset::{
    Base, Batch, Chain, DataType, Element, Field, Hook, Key, Observed, ObservedTable, Operation,
    Rule, Set, Statement, Table, Value, Verdict, closed, plan, plan_changes,
};
use proptest::prelude::*;

/// A description from which a table without loose ends is made.
#[derive(Debug, Clone)]
struct Sketch {
    /// By number: its kind, and the last bytes of its elements.
    sets: BTreeMap<u8, (u8, Vec<u8>)>,
    /// By number: the chains that its elements lead to.
    maps: BTreeMap<u8, Vec<(u8, u8)>>,
    /// By number: whether it is a base chain, and its rules.
    chains: BTreeMap<u8, (bool, Vec<(u8, u8)>)>,
}

fn sketch() -> impl Strategy<Value = Sketch> {
    let elements = prop::collection::vec(0_u8..8, 0..6);
    let sets = prop::collection::btree_map(0_u8..4, (0_u8..8, elements), 0..4);
    let maps = prop::collection::vec((0_u8..6, 0_u8..6), 0..5);
    let maps = prop::collection::btree_map(0_u8..3, maps, 0..3);
    let rules = prop::collection::vec((0_u8..5, 0_u8..6), 0..5);
    let chains = prop::collection::btree_map(0_u8..6, (prop::bool::weighted(0.2), rules), 0..6);
    (sets, maps, chains).prop_map(|(sets, maps, chains)| Sketch { sets, maps, chains })
}

fn key(number: u8) -> Key {
    Key::of([10, 0, 0, number])
}

impl Sketch {
    fn table(&self) -> Table {
        let mut table = Table::new("t", "a table");
        self.fill(&mut table);
        table
    }

    /// Makes a table what is sketched, by changes.
    fn fill(&self, table: &mut Table) {
        let desired: Vec<_> = self
            .chains
            .keys()
            .map(|number| format!("c{number}"))
            .collect();
        for name in table.chains().keys().cloned().collect::<Vec<_>>() {
            if !desired.contains(&name) {
                table.remove_chain(&name);
            }
        }
        let sets = self.sets.keys().map(|number| format!("s{number}"));
        let desired: Vec<_> = sets
            .chain(self.maps.keys().map(|n| format!("m{n}")))
            .collect();
        for name in table.sets().keys().cloned().collect::<Vec<_>>() {
            if !desired.contains(&name) {
                table.remove_set(&name);
            }
        }
        for (number, (kind, elements)) in &self.sets {
            let set = match kind {
                0 => Set::new([DataType::Ipv4]).counted(),
                _ => Set::new([DataType::Ipv4]),
            };
            let name = format!("s{number}");
            put_set(
                table,
                &name,
                set.with(elements.iter().map(|number| key(*number))),
            );
        }
        for (number, elements) in &self.maps {
            let mut map = Set::verdicts([DataType::Ipv4]);
            for (element, chain) in elements {
                if self.chains.contains_key(chain) && !self.chains[chain].0 {
                    let verdict = Verdict::Goto(format!("c{chain}"));
                    map.elements
                        .insert(key(*element), Element::verdict(verdict));
                }
            }
            put_set(table, &format!("m{number}"), map);
        }
        for (number, (base, rules)) in &self.chains {
            let rules = rules
                .iter()
                .filter_map(|(what, which)| self.rule(*number, *what, *which));
            let rules: Vec<_> = rules.collect();
            let chain = match base {
                true => Chain::base(Base::filter(Hook::Forward, 0), rules),
                false => Chain::regular(rules),
            };
            table.put_chain(&format!("c{number}"), chain);
        }
    }

    fn rule(&self, chain: u8, what: u8, which: u8) -> Option<Rule> {
        let field = Field::Address(margay_ruleset::Side::Source, margay_model::Family::V4);
        let rule = match what {
            0 if self.sets.contains_key(&which) => {
                Rule::new([Statement::within([field], &format!("s{which}"))])
            }
            1 if self.maps.contains_key(&which) => {
                Rule::new([Statement::dispatch([field], &format!("m{which}"))])
            }
            2 if which > chain && self.chains.get(&which).is_some_and(|(base, _)| !base) => {
                Rule::default().then(Verdict::Jump(format!("c{which}")))
            }
            3 => Rule::new([Statement::Counter])
                .then(Verdict::Drop)
                .commented("drop"),
            4 => Rule::new([Statement::protocol(which)]).then(Verdict::Accept),
            _ => return None,
        };
        Some(rule)
    }
}

/// Element by element where that is possible, as those do who keep a table.
fn put_set(table: &mut Table, name: &str, set: Set) {
    let Some(there) = table
        .sets()
        .get(name)
        .filter(|there| there.spec == set.spec)
    else {
        table.put_set(name, set);
        return;
    };
    let gone = there
        .elements
        .keys()
        .filter(|key| !set.elements.contains_key(*key));
    for key in gone.cloned().collect::<Vec<_>>() {
        table.remove_element(name, &key);
    }
    for (key, element) in set.elements {
        table.put_element(name, key, element);
    }
}

/// Takes a batch operation by operation, and panics where the kernel would refuse.
fn apply(observed: &Observed, batch: &Batch) -> Observed {
    let mut observed = observed.clone();
    for operation in &batch.operations {
        check(observed.table.as_ref(), operation);
        observed.apply(&Batch {
            table: batch.table.clone(),
            operations: vec![operation.clone()],
        });
    }
    observed
}

fn check(table: Option<&ObservedTable>, operation: &Operation) {
    if matches!(operation, Operation::AddTable { .. }) {
        return;
    }
    let table = table.unwrap();
    let (mut sets, mut chains) = (Vec::new(), Vec::new());
    for rule in table.chains.values().flat_map(|chain| &chain.rules) {
        references(&rule.expressions, &mut sets, &mut chains);
    }
    for element in table.sets.values().flat_map(|set| set.elements.values()) {
        chains.extend(element.chain().map(str::to_owned));
    }
    match operation {
        Operation::AddTable { .. } | Operation::DeleteTable => {}
        Operation::AddSet { name, .. } => assert!(!table.sets.contains_key(name)),
        Operation::DeleteSet { name } => {
            assert!(
                table.sets.contains_key(name) && !sets.contains(name),
                "{name}"
            );
        }
        Operation::AddElements { set, elements, .. } => {
            for (key, element) in elements {
                assert!(!table.sets[set].elements.contains_key(key), "{set}");
                assert!(
                    element
                        .chain()
                        .is_none_or(|chain| table.chains.contains_key(chain))
                );
                let is_verdict = matches!(element.value, Some(Value::Verdict(_)));
                assert_eq!(
                    is_verdict,
                    table.sets[set].spec.as_ref().unwrap().data.is_some()
                );
            }
        }
        Operation::DeleteElements { set, keys, .. } => {
            assert!(
                keys.iter()
                    .all(|key| table.sets[set].elements.contains_key(key))
            );
        }
        Operation::AddChain { name, .. } => assert!(!table.chains.contains_key(name)),
        Operation::FlushChain { name } => assert!(table.chains.contains_key(name)),
        Operation::DeleteChain { name } => {
            assert!(
                table.chains[name].rules.is_empty() && !chains.contains(name),
                "{name}"
            );
        }
        Operation::AddRule { chain, rule } => {
            let (mut sets, mut chains) = (Vec::new(), Vec::new());
            references(&rule.expressions(), &mut sets, &mut chains);
            assert!(table.chains.contains_key(chain));
            assert!(
                sets.iter().all(|set| table.sets.contains_key(set)),
                "{sets:?}"
            );
            assert!(chains.iter().all(|chain| table.chains.contains_key(chain)));
        }
    }
}

fn references(expressions: &[Expression], sets: &mut Vec<String>, chains: &mut Vec<String>) {
    for expression in expressions {
        match expression {
            Expression::Lookup { set, .. } | Expression::Map { set, .. } => sets.push(set.clone()),
            Expression::Verdict(verdict) => chains.extend(verdict.chain().map(str::to_owned)),
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_planned_is_what_was_wanted(from in sketch(), to in sketch()) {
        let (from, to) = (from.table(), to.table());
        let nothing = Observed::default();
        let before = apply(&nothing, &plan(&from, &nothing));
        let after = apply(&before, &plan(&to, &before));
        prop_assert_eq!(&after, &apply(&nothing, &plan(&to, &nothing)));
        prop_assert!(plan(&to, &after).is_empty());
    }

    #[test]
    fn noted_changes_are_all_that_has_to_be_looked_at(from in sketch(), to in sketch()) {
        let nothing = Observed::default();
        let mut table = from.table();
        let before = apply(&nothing, &plan(&table, &nothing));
        table.take_changes();
        to.fill(&mut table);
        let changes = table.take_changes();
        let batch = plan_changes(&table, &before, &changes);
        prop_assert_eq!(batch.is_empty(), plan(&table, &before).is_empty());
        let after = apply(&before, &batch);
        prop_assert_eq!(&after, &apply(&nothing, &plan(&to.table(), &nothing)));
    }
}

#[test]
fn a_closed_table_gives_way_in_one_batch() {
    let prefixes = ["cali".to_owned(), "tap".to_owned()];
    let small = closed("t", "a table", &prefixes);
    let nothing = Observed::default();
    let first = plan(&small, &nothing);
    assert!(first.operations.len() <= 16, "{first}");
    let before = apply(&nothing, &first);
    let mut whole = Table::new("t", "a table");
    let drop = Rule::new([Statement::Counter]).then(Verdict::Drop);
    whole.put_chain("c", Chain::base(Base::filter(Hook::Forward, 0), [drop]));
    let after = apply(&before, &plan(&whole, &before));
    assert_eq!(after, apply(&nothing, &plan(&whole, &nothing)));
}

#[test]
fn what_cannot_be_changed_in_place_is_replaced_with_the_table() {
    let nothing = Observed::default();
    let mut table = Table::new("t", "a table");
    table.put_set("s", Set::new([DataType::Ipv4]));
    let before = apply(&nothing, &plan(&table, &nothing));
    table.put_set("s", Set::new([DataType::Ipv4]).with_intervals());
    let batch = plan(&table, &before);
    assert_eq!(batch.operations[0], Operation::DeleteTable);
    let mut dormant = before;
    dormant.table.as_mut().unwrap().flags = 1;
    assert_eq!(plan(&table, &dormant).operations[0], Operation::DeleteTable);
}

#[test]
fn batches_print_as_commands() {
    let mut table = Table::new("t", "a table");
    let element = Element::verdict(Verdict::Accept).commented("why");
    let mut map = Set::verdicts([DataType::Interface]);
    map.elements
        .insert(Key::of(margay_ruleset::interface_bytes("cali1")), element);
    table.put_set("m", map);
    let rule = Rule::new([Statement::dispatch([Field::InInterface], "m")]).commented("a\"b\nc");
    table.put_chain("c", Chain::base(Base::filter(Hook::Forward, -5), [rule]));
    let expected = "\
add table inet t { comment \"a table\"; }
add map inet t m { type ifname : verdict; }
add chain inet t c { type filter hook forward priority -5; policy accept; }
add rule inet t c iifname vmap @m comment \"a'b'c\"
add element inet t m { \"cali1\" comment \"why\" : accept }
";
    assert_eq!(plan(&table, &Observed::default()).to_string(), expected);
}
