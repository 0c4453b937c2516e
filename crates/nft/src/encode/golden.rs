//! Every message byte by byte, against what nft sends for the same object.

#![cfg(target_endian = "little")]

use margay_model::Family;
use margay_ruleset::expression::{Limit, Reject};
use margay_ruleset::{
    Chain, DataType, Field, Observed, Set, Side, Statement, Table, interface_bytes, plan,
};

use super::*;
use margay_netlink::netfilter::wire;

fn table() -> Table {
    let mut table = Table::new("t", "a table");
    let hosts = Set::new([DataType::Ipv4]).commented("app == 'web'");
    let keys = [Key::of([10, 1, 0, 2]), Key::of([10, 1, 0, 3])];
    table.put_set("hosts", hosts.with(keys));
    let nets = Set::new([DataType::Ipv4]).with_intervals();
    let keys = [
        Key::interval([0, 0, 0, 0], [0, 255, 255, 255]),
        Key::interval([10, 0, 0, 0], [10, 255, 255, 255]),
        Key::interval([172, 16, 0, 0], [172, 31, 255, 255]),
    ];
    table.put_set("nets", nets.with(keys));
    let mut dispatch = Set::verdicts([DataType::Interface]).counted();
    let goto = Element::verdict(Verdict::Goto("class".to_owned())).commented("a pod");
    dispatch
        .elements
        .insert(Key::of(interface_bytes("cali1")), goto);
    table.put_set("dispatch", dispatch);
    let unknown = Rule::new([
        Statement::Interface {
            field: Field::InInterface,
            prefix: "cali".to_owned(),
            negated: false,
        },
        Statement::Counter,
    ]);
    let rules = [
        Rule::new([Statement::dispatch([Field::InInterface], "dispatch")]),
        unknown.then(Verdict::Drop).commented("unknown"),
        Rule::new([Statement::Counter])
            .then(Verdict::Goto("class".to_owned()))
            .commented("denied"),
    ];
    table.put_chain("base", Chain::base(Base::filter(Hook::Forward, -5), rules));
    table.put_chain("class", Chain::regular(class()).commented("a class"));
    table
}

fn class() -> Vec<Rule> {
    let v4 = || Statement::Family(Family::V4);
    let address = |side| Field::Address(side, Family::V4);
    let limit = |rate, seconds, burst, over| {
        Statement::Limit(Limit {
            rate,
            seconds,
            burst,
            over,
        })
    };
    let bit = 0x0001_0000;
    vec![
        Rule::new([
            v4(),
            Statement::within([address(Side::Source)], "hosts"),
            Statement::Counter,
        ])
        .then(Verdict::Accept)
        .commented("default|p|0"),
        Rule::new([
            v4(),
            Statement::without([address(Side::Destination)], "nets"),
            Statement::protocol(6),
            Statement::Between {
                field: Field::Port(Side::Destination),
                first: 80_u16.to_be_bytes().into(),
                last: 90_u16.to_be_bytes().into(),
            },
        ])
        .then(Verdict::Return),
        Rule::new([Statement::SetMark {
            mask: bit,
            value: bit,
        }]),
        Rule::new([Statement::Marked {
            mask: bit,
            value: 0,
        }])
        .then(Verdict::Drop),
        Rule::new([
            limit(10, 60, 5, false),
            Statement::Log {
                group: 2,
                prefix: "L|p".to_owned(),
            },
        ]),
        Rule::new([limit(100, 1, 20, true)]).then(Verdict::Drop),
        Rule::new([Statement::ConnectionsOver(9)]).then(Verdict::Drop),
        Rule::new([Statement::protocol(6), Statement::Reject(Reject::TcpReset)]),
        Rule::new([Statement::Reject(Reject::Prohibited)]),
        Rule::new([Statement::Notrack]),
    ]
}

#[test]
fn every_message_is_what_nft_sends() {
    let batch = plan(&table(), &Observed::default());
    let transaction = Transaction::new(&batch, 1);
    let ours: Vec<String> = wire::messages(transaction.bytes.as_bytes())
        .filter(|message| message.kind >> 8 == NFNL_SUBSYS_NFTABLES)
        .map(|message| {
            let name = match message.kind & 0xff {
                NFT_MSG_NEWTABLE => "NEWTABLE",
                NFT_MSG_NEWSET => "NEWSET",
                NFT_MSG_NEWSETELEM => "NEWSETELEM",
                NFT_MSG_NEWCHAIN => "NEWCHAIN",
                _ => "NEWRULE",
            };
            assert_eq!(message.family(), Some(NFPROTO_INET));
            format!("{name} {}", hex(&message.body[4..]))
        })
        .collect();
    let recorded = include_str!("nft-1.0.6.txt").lines();
    let theirs: Vec<_> = recorded.filter(|line| !line.starts_with('#')).collect();
    let only_ours: Vec<_> = ours
        .iter()
        .filter(|line| !theirs.contains(&line.as_str()))
        .collect();
    let only_theirs: Vec<_> = theirs
        .iter()
        .filter(|line| !ours.iter().any(|l| l == *line))
        .collect();
    assert!(
        only_ours.is_empty() && only_theirs.is_empty(),
        "{only_ours:#?}\n{only_theirs:#?}"
    );
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn a_batch_is_bounded_and_numbered() {
    let batch = Batch {
        table: "t".to_owned(),
        operations: vec![
            Operation::DeleteTable,
            Operation::FlushChain {
                name: "c".to_owned(),
            },
        ],
    };
    let expected = "
        14000000 1000 0100 07000000 00000000 # 20 bytes, NFNL_MSG_BATCH_BEGIN, request, sequence 7
        00 00 000a                           # nfgenmsg: res_id NFNL_SUBSYS_NFTABLES
        1c000000 020a 0100 08000000 00000000 # 28 bytes, NFT_MSG_DELTABLE
        01 00 0000                           # NFPROTO_INET
        0600 0100 7400 0000                  # NFTA_TABLE_NAME t
        24000000 080a 0100 09000000 00000000 # 36 bytes, NFT_MSG_DELRULE
        01 00 0000
        0600 0100 7400 0000                  # NFTA_RULE_TABLE t
        0600 0200 6300 0000                  # NFTA_RULE_CHAIN c
        14000000 1100 0100 0a000000 00000000 # NFNL_MSG_BATCH_END
        00 00 000a";
    let transaction = Transaction::new(&batch, 7);
    let fields = expected.lines().filter_map(|line| line.split('#').next());
    let expected: String = fields.flat_map(str::split_whitespace).collect();
    assert_eq!(hex(transaction.bytes.as_bytes()), expected);
    assert_eq!(transaction.operations, [0, 1]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
