//! A table with one of everything.

use margay_model::Family;
use margay_ruleset::expression::{Limit, Reject};
use margay_ruleset::{
    Base, Chain, ChainKind, Data, DataType, Element, Field, Hook, Key, Rule, Set, Side, Statement,
    Table, Verdict, interface_bytes,
};

pub(crate) const TABLE: &str = "margay-sample";

pub(crate) fn sample() -> Table {
    let mut table = Table::new(TABLE, "one of everything");
    sets(&mut table);
    maps(&mut table);
    chains(&mut table);
    table
}

pub(crate) fn v4(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

pub(crate) fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn sets(table: &mut Table) {
    let hosts = Set::new([DataType::Ipv4]).commented("app == 'web'");
    table.put_set(
        "hosts4",
        hosts.with([Key::of(v4("10.1.0.2")), Key::of(v4("10.1.0.3"))]),
    );
    let nets = Set::new([DataType::Ipv4]).with_intervals();
    let keys = [
        Key::interval(v4("0.0.0.0"), v4("9.255.255.255")),
        Key::interval(v4("10.0.0.0"), v4("10.255.255.255")),
        Key::of(v4("192.168.1.5")),
        Key::interval(v4("240.0.0.0"), v4("255.255.255.255")),
    ];
    table.put_set("nets4", nets.with(keys));
    let nets = Set::new([DataType::Ipv6]).with_intervals();
    let last = "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    table.put_set("nets6", nets.with([Key::interval(v6("fe80::"), v6(last))]));
    table.put_set("empty", Set::new([DataType::Ipv6]));
    let sources = Set::new([DataType::Interface, DataType::Ipv4]);
    let key = Key::concatenation(&[&interface_bytes("cali1"), &v4("10.1.0.2")]);
    table.put_set("sources4", sources.with([key]));
    let sources = Set::new([DataType::Interface, DataType::Ipv6]);
    let key = Key::concatenation(&[&interface_bytes("cali1"), &v6("fd00::2")]);
    table.put_set("sources6", sources.with([key]));
    let macs = Set::new([DataType::Interface, DataType::Mac]);
    let key = Key::concatenation(&[&interface_bytes("cali1"), &[2, 0, 0, 0, 0, 1]]);
    table.put_set("macs", macs.with([key]));
    let ports = Set::new([DataType::Protocol, DataType::Port]).with_intervals();
    let keys = [
        Key::intervals(&[
            (&[6], &[6]),
            (&8000_u16.to_be_bytes(), &9000_u16.to_be_bytes()),
        ]),
        Key::intervals(&[
            (&[17], &[17]),
            (&53_u16.to_be_bytes(), &53_u16.to_be_bytes()),
        ]),
    ];
    table.put_set("ports", ports.with(keys));
    let named = Set::new([DataType::Ipv4, DataType::Protocol, DataType::Port]);
    let key = Key::concatenation(&[&v4("10.1.0.2"), &[6], &80_u16.to_be_bytes()]);
    table.put_set("named4", named.with([key]));
    let icmp = Set::new([DataType::IcmpType, DataType::IcmpCode]);
    table.put_set("icmps", icmp.with([Key::concatenation(&[&[3], &[4]])]));
    table.put_set(
        "nd",
        Set::new([DataType::Icmpv6Type]).with([Key::of([135])]),
    );
}

fn maps(table: &mut Table) {
    let mut states = Set::verdicts([DataType::CtState]);
    for (state, verdict) in [(2_u32, Verdict::Accept), (1, Verdict::Drop)] {
        let key = Key::of(state.to_ne_bytes());
        states.elements.insert(key, Element::verdict(verdict));
    }
    table.put_set("states", states);
    let mut dispatch = Set::verdicts([DataType::Interface]).counted();
    let goto = Element::verdict(Verdict::Goto("class".to_owned()));
    dispatch
        .elements
        .insert(Key::of(interface_bytes("cali1")), goto.commented("a pod"));
    let jump = Element::verdict(Verdict::Jump("class".to_owned()));
    dispatch
        .elements
        .insert(Key::of(interface_bytes("cali2")), jump);
    table.put_set("dispatch", dispatch);
    let mut allowed = Set::verdicts([DataType::Ipv4]).counted();
    let accept = Element::verdict(Verdict::Accept).commented("default.p|0");
    allowed.elements.insert(Key::of(v4("10.1.0.3")), accept);
    table.put_set("allowed", allowed);
    let mut marks = Set::new([DataType::Ipv4]).leading_to(Data::Value(DataType::Mark));
    marks
        .elements
        .insert(Key::of(v4("10.1.0.3")), Element::bytes(7_u32.to_ne_bytes()));
    table.put_set("marks", marks);
}

fn chains(table: &mut Table) {
    let from = Field::Address(Side::Source, Family::V4);
    let to = Field::Address(Side::Destination, Family::V4);
    let port = Field::Port(Side::Destination);
    let four = Statement::Family(Family::V4);
    let six = Statement::Family(Family::V6);
    let rules = [
        Rule::new([
            four.clone(),
            Statement::within([from], "hosts4"),
            Statement::Counter,
        ])
        .then(Verdict::Accept)
        .commented("default.p|0"),
        Rule::new([four.clone(), Statement::without([to], "nets4")]).then(Verdict::Return),
        Rule::new([
            six.clone(),
            Statement::without([Field::Address(Side::Source, Family::V6)], "nets6"),
        ])
        .then(Verdict::Drop),
        Rule::new([Statement::within([Field::Protocol, port], "ports")]).then(Verdict::Accept),
        Rule::new([
            four.clone(),
            Statement::within([to, Field::Protocol, port], "named4"),
        ])
        .then(Verdict::Accept),
        Rule::new([
            four.clone(),
            Statement::Prefix {
                side: Side::Source,
                prefix: "10.16.0.0/12".parse().unwrap(),
                negated: false,
            },
            Statement::protocol(6),
            Statement::Between {
                field: port,
                first: 8000_u16.to_be_bytes().into(),
                last: 9000_u16.to_be_bytes().into(),
            },
        ])
        .then(Verdict::Accept),
        Rule::new([
            six.clone(),
            Statement::Prefix {
                side: Side::Destination,
                prefix: "fd00::1/128".parse().unwrap(),
                negated: true,
            },
        ])
        .then(Verdict::Accept),
        Rule::new([
            four.clone(),
            Statement::protocol(1),
            Statement::is(Field::IcmpType(Family::V4), [8]),
            Statement::is(Field::IcmpCode(Family::V4), [0]),
        ])
        .then(Verdict::Accept),
        Rule::new([
            four.clone(),
            Statement::protocol(1),
            Statement::without(
                [Field::IcmpType(Family::V4), Field::IcmpCode(Family::V4)],
                "icmps",
            ),
        ])
        .then(Verdict::Accept),
        Rule::new([
            six,
            Statement::protocol(58),
            Statement::within([Field::IcmpType(Family::V6)], "nd"),
        ])
        .then(Verdict::Accept),
        Rule::new([Statement::SetMark {
            mask: 0x10000,
            value: 0x10000,
        }])
        .then(Verdict::Return),
        Rule::new([Statement::SetMark {
            mask: 0x10000,
            value: 0,
        }]),
        Rule::new([Statement::Marked {
            mask: 0x10000,
            value: 0,
        }])
        .then(Verdict::Jump("deeper".to_owned())),
        Rule::new([
            Statement::Limit(Limit {
                rate: 10,
                seconds: 60,
                burst: 5,
                over: false,
            }),
            Statement::Log {
                group: 2,
                prefix: "D|default.p|1".to_owned(),
            },
        ]),
        Rule::new([
            Statement::Limit(Limit {
                rate: 100,
                seconds: 1,
                burst: 20,
                over: true,
            }),
            Statement::Counter,
        ])
        .then(Verdict::Drop),
        Rule::new([Statement::ConnectionsOver(9), Statement::Counter]).then(Verdict::Drop),
        Rule::new([Statement::protocol(6), Statement::Reject(Reject::TcpReset)]),
        Rule::new([Statement::Reject(Reject::Prohibited)]),
    ];
    table.put_chain(
        "class",
        Chain::regular(rules).commented("a class of endpoints"),
    );
    let states = Rule::new([Statement::dispatch([Field::CtState], "states")]);
    table.put_chain("deeper", Chain::regular([states]));
    let ethernet = [Field::InInterface, Field::SourceMac];
    let raw = [
        Rule::new([
            Statement::is(Field::EthernetIn, 1_u16.to_ne_bytes()),
            Statement::without(ethernet, "macs"),
            Statement::Counter,
        ])
        .then(Verdict::Drop),
        Rule::new([
            four.clone(),
            Statement::without([Field::InInterface, from], "sources4"),
        ])
        .then(Verdict::Drop),
        Rule::new([Statement::Notrack]).then(Verdict::Accept),
    ];
    table.put_chain(
        "raw-pre",
        Chain::base(Base::filter(Hook::Prerouting, -300), raw),
    );
    let forward = [
        Rule::new([Statement::dispatch([Field::CtState], "states")]),
        Rule::new([Statement::dispatch([Field::InInterface], "dispatch")]),
        Rule::new([
            Statement::Interface {
                field: Field::InInterface,
                prefix: "cali".to_owned(),
                negated: false,
            },
            Statement::Counter,
        ])
        .then(Verdict::Drop),
    ];
    table.put_chain(
        "fwd-from",
        Chain::base(Base::filter(Hook::Forward, -5), forward),
    );
    let nat = [
        Rule::new([
            Statement::protocol(6),
            Statement::Masquerade {
                ports: Some((1000, 2000)),
            },
        ]),
        Rule::new([Statement::Masquerade { ports: None }]),
        Rule::new([
            four.clone(),
            Statement::SourceNat {
                address: "192.0.2.1".parse().unwrap(),
                ports: None,
            },
        ]),
        Rule::new([
            four,
            Statement::protocol(17),
            Statement::SourceNat {
                address: "192.0.2.1".parse().unwrap(),
                ports: Some((1000, 2000)),
            },
        ]),
    ];
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: 110,
    };
    table.put_chain("nat-post", Chain::base(base, nat));
    let forwards = [(Family::V4, "10.1.0.2"), (Family::V6, "fd00::2")];
    let forwards = forwards.map(|(family, address)| {
        Rule::new([
            Statement::Family(family),
            Statement::protocol(6),
            Statement::is(Field::Port(Side::Destination), 8080_u16.to_be_bytes()),
            Statement::DestinationNat {
                address: address.parse().unwrap(),
                port: 80,
            },
        ])
    });
    let base = Base {
        kind: ChainKind::Nat,
        hook: Hook::Prerouting,
        priority: -90,
    };
    table.put_chain("nat-pre", Chain::base(base, forwards));
}
