use margay_model::Family;
use margay_nft::Nft;
use margay_ruleset::{
    Chain, DataType, Element, Field, Key, Observed, Rule, Set, Side, Statement, Table, Verdict,
    interface_bytes, plan, plan_changes,
};
use nix::errno::Errno;

use crate::fixture::TestNamespace;
use crate::sample::{TABLE, sample, v4};

fn load(nft: &mut Nft, table: &Table) -> Observed {
    let observed = nft.observe(table.name()).unwrap();
    nft.apply(&plan(table, &observed)).unwrap();
    nft.observe(table.name()).unwrap()
}

#[test]
fn what_is_loaded_is_observed() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let table = sample();
    let empty = nft.observe(TABLE).unwrap();
    assert_eq!(empty, Observed::default());
    let batch = plan(&table, &empty);
    nft.apply(&batch).unwrap();
    let mut expected = Observed::default();
    expected.apply(&batch);
    let observed = nft.observe(TABLE).unwrap();
    let (found, expected) = (observed.table.as_ref().unwrap(), expected.table.unwrap());
    for (name, set) in &expected.sets {
        assert_eq!(found.sets.get(name), Some(set), "{name}");
    }
    for (name, chain) in &expected.chains {
        assert_eq!(found.chains.get(name), Some(chain), "{name}");
    }
    assert_eq!(found, &expected);
    assert!(plan(&table, &observed).is_empty());
}

#[test]
fn nft_lists_what_it_would_load_from_our_text() {
    let (ours, theirs) = (TestNamespace::new(), TestNamespace::new());
    let table = sample();
    load(&mut Nft::open(&ours.namespace).unwrap(), &table);
    theirs.nft(&table.to_string());
    let list = format!("nft -s list table inet {TABLE}");
    assert_eq!(ours.run(&list), theirs.run(&list));
}

#[test]
fn a_printed_batch_does_what_the_batch_does() {
    let (ours, theirs) = (TestNamespace::new(), TestNamespace::new());
    let mut table = sample();
    let first = plan(&table, &Observed::default());
    table.take_changes();
    table.remove_set("empty");
    table.put_chain(
        "deeper",
        Chain::regular([Rule::default().then(Verdict::Drop)]),
    );
    table.remove_element("hosts4", &Key::of(v4("10.1.0.2")));
    table.put_element("hosts4", Key::of(v4("10.1.0.9")), Element::default());
    let mut observed = Observed::default();
    observed.apply(&first);
    let second = plan_changes(&table, &observed, &table.clone().take_changes());
    let mut nft = Nft::open(&ours.namespace).unwrap();
    for batch in [first, second] {
        nft.apply(&batch).unwrap();
        theirs.nft(&batch.to_string());
    }
    let list = format!("nft -s list table inet {TABLE}");
    assert_eq!(ours.run(&list), theirs.run(&list));
    assert!(plan(&table, &nft.observe(TABLE).unwrap()).is_empty());
}

#[test]
fn what_others_changed_is_put_right() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let table = sample();
    load(&mut nft, &table);
    for edit in [
        "add element inet T hosts4 { 10.9.9.9 }",
        "delete element inet T nets4 { 192.168.1.5 }",
        "delete element inet T dispatch { \"cali1\" }",
        "flush set inet T ports",
        "add rule inet T class accept",
        "insert rule inet T raw-pre ip saddr 1.2.3.4 fib daddr type local accept",
        "flush chain inet T class",
        "add chain inet T other { type filter hook input priority 0; policy drop; }",
        "add set inet T other { type ipv4_addr; flags timeout; }",
        "add counter inet T other",
        "add table inet T { flags dormant; }",
        "delete table inet T",
        "chain inet T fwd-from { policy drop; }",
    ] {
        let edit = edit.replace("inet T", &format!("inet {TABLE}"));
        namespace.nft(&edit);
        let observed = nft.observe(TABLE).unwrap();
        let batch = plan(&table, &observed);
        assert!(!batch.is_empty(), "{edit}");
        nft.apply(&batch)
            .unwrap_or_else(|error| panic!("{edit}: {error:?}"));
        let observed = nft.observe(TABLE).unwrap();
        assert!(plan(&table, &observed).is_empty(), "{edit}");
    }
}

#[test]
fn long_lists_are_split() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let mut table = Table::new(TABLE, "many");
    let keys = (0..20_000_u32).map(|number| Key::of((0x0a00_0000 + number).to_be_bytes()));
    table.put_set("many", Set::new([DataType::Ipv4]).with(keys));
    // Prefixes that touch each other, as two elements each.
    let nets = (0..5_000_u32).map(|number| {
        let first = 0x0b00_0000 + number * 256;
        Key::interval(first.to_be_bytes(), (first + 255).to_be_bytes())
    });
    table.put_set(
        "nets",
        Set::new([DataType::Ipv4]).with_intervals().with(nets),
    );
    let observed = load(&mut nft, &table);
    assert!(plan(&table, &observed).is_empty());
    let sets = observed.table.unwrap().sets;
    assert_eq!(sets["many"].elements.len(), 20_000);
    assert_eq!(sets["nets"].elements.len(), 5_000);
}

#[test]
fn a_refusal_names_the_object_and_changes_nothing() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let mut table = sample();
    let before = load(&mut nft, &table);
    table.take_changes();
    let lost = Rule::new([Statement::Counter]).then(Verdict::Jump("nowhere".to_owned()));
    table.put_element("hosts4", Key::of(v4("10.1.0.9")), Element::default());
    table.put_chain("lost", Chain::regular([lost.commented("default.lost|3")]));
    let changes = table.take_changes();
    let error = nft
        .apply(&plan_changes(&table, &before, &changes))
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("\"default.lost|3\" to chain lost of table"),
        "{text}"
    );
    assert_eq!(nft.observe(TABLE).unwrap(), before);
}

#[test]
fn rules_count() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let mut table = Table::new(TABLE, "counting");
    let to = Field::Address(Side::Destination, Family::V4);
    let rules = [
        Rule::new([Statement::Family(Family::V6)]),
        Rule::new([
            Statement::Family(Family::V4),
            Statement::is(to, v4("127.0.0.9")),
            Statement::Counter,
        ])
        .then(Verdict::Drop)
        .commented("nine"),
    ];
    let base = margay_ruleset::Base::filter(margay_ruleset::Hook::Output, 0);
    table.put_chain("out", Chain::base(base, rules));
    load(&mut nft, &table);
    namespace.start("ping -c3 -i0.01 -W1 127.0.0.9", "");
    let counters = nft.counters(TABLE).unwrap();
    assert_eq!(counters.len(), 1);
    let counter = &counters[0];
    assert_eq!((&*counter.chain, counter.index), ("out", 1));
    assert_eq!(counter.comment.as_deref(), Some("nine"));
    assert!(counter.denies);
    assert!(counter.packets >= 1 && counter.bytes >= 28, "{counter:?}");
    assert_eq!(interface_bytes("lo")[..3], *b"lo\0");
}

/// Others' chains are told apart by table, hook and what they do at their end.
#[test]
fn chains_of_others_are_seen() {
    let namespace = TestNamespace::new();
    namespace.nft(
        "add table ip filter
         add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }
         add chain ip filter DOCKER-USER
         add table inet mine
         add chain inet mine entry { type filter hook input priority 0; policy drop; }",
    );
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let found: Vec<_> = nft
        .chains()
        .unwrap()
        .into_iter()
        .map(|found| {
            (
                found.family,
                found.table,
                found.chain,
                found.forward,
                found.drops,
            )
        })
        .collect();
    let of = |family, table: &str, chain: &str, forward, drops| {
        (family, table.to_owned(), chain.to_owned(), forward, drops)
    };
    assert_eq!(found.len(), 3, "{found:?}");
    for expected in [
        of("ip", "filter", "FORWARD", true, true),
        of("ip", "filter", "DOCKER-USER", false, false),
        of("inet", "mine", "entry", false, true),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
}

/// Intervals that touch, hold and replace each other, in a tree and in fields.
#[test]
fn intervals_take_each_others_place() {
    let namespace = TestNamespace::new();
    let mut nft = Nft::open(&namespace.namespace).unwrap();
    let interval = |first: &str, last: &str| (v4(first), v4(last));
    let whole = interval("10.0.0.0", "10.255.255.255");
    let lower = interval("10.0.0.0", "10.127.255.255");
    let upper = interval("10.128.0.0", "10.255.255.255");
    let inner = interval("10.1.0.0", "10.1.255.255");
    let beside = interval("11.0.0.0", "11.0.0.0");
    let end = interval("255.255.255.254", "255.255.255.255");
    let states = [
        vec![whole],
        vec![lower, upper],
        vec![upper],
        vec![inner, upper, beside],
        vec![whole, beside],
        vec![beside, end],
        vec![],
        vec![lower, upper, beside],
        vec![interval("0.0.0.0", "255.255.255.255")],
        vec![lower],
    ];
    let interface = interface_bytes("cali1");
    let mut table = Table::new(TABLE, "intervals");
    let mut observed = Observed::default();
    for state in states {
        let tree = state.iter().map(|(first, last)| Key::interval(first, last));
        let nets = Set::new([DataType::Ipv4]).with_intervals();
        table.put_set("tree", nets.with(tree));
        let fields = state
            .iter()
            .map(|(first, last)| Key::intervals(&[(&interface, &interface), (first, last)]));
        let nets = Set::new([DataType::Interface, DataType::Ipv4]).with_intervals();
        table.put_set("fields", nets.with(fields));
        let batch = plan_changes(&table, &observed, &table.clone().take_changes());
        nft.apply(&batch)
            .unwrap_or_else(|error| panic!("{error:?}\n{batch}"));
        observed.apply(&batch);
        assert_eq!(nft.observe(TABLE).unwrap(), observed, "{batch}");
    }
}
