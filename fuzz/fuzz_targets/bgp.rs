//! A stream of BGP messages; its first octet says what the session agreed on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_bgp::Families;
use margay_bgp::message::{self, Context, Message, Nlri, Update};
use margay_model::Family;

fuzz_target!(|data: &[u8]| {
    let Some((agreed, mut stream)) = data.split_first() else {
        return;
    };
    let bit = |place: u8| agreed & (1 << place) != 0;
    let context = Context {
        external: bit(0),
        four_octet_as: bit(1),
        families: Families {
            v4: bit(2),
            v6: bit(3),
        },
        add_path: Families {
            v4: bit(4),
            v6: bit(5),
        },
        extended_next_hop: bit(6),
    };
    while let Ok(Some(size)) = message::frame(stream) {
        let (one, rest) = stream.split_at(size);
        match message::decode(one, &context) {
            Ok(Message::Update(update)) => hold(&update, &context),
            // What is told to the peer and to people.
            Err(told) => drop(told.to_string()),
            Ok(_) => {}
        }
        stream = rest;
    }
});

/// What was read is of families in use, and withdrawn prefixes are read back as they are written.
fn hold(update: &Update, context: &Context) {
    let announced = update.announced.iter().flat_map(|one| &one.nlri);
    for nlri in announced.chain(&update.withdrawn) {
        assert!(context.families.has(nlri.prefix.family()));
    }
    for family in [Family::V4, Family::V6] {
        let withdrawn = update.withdrawn.iter().copied();
        let mut withdrawn: Vec<Nlri> = withdrawn
            .filter(|nlri| nlri.prefix.family() == family)
            .collect();
        let mut octets = Vec::new();
        message::withdrawals(&mut octets, context, family, &withdrawn);
        let mut back = Vec::new();
        let mut rest = octets.as_slice();
        while let Some(size) = message::frame(rest).expect("what is written has a right header") {
            let (one, others) = rest.split_at(size);
            match message::decode(one, context) {
                Ok(Message::Update(update)) => back.extend(update.withdrawn),
                other => panic!("{other:?}"),
            }
            rest = others;
        }
        withdrawn.sort();
        back.sort();
        assert_eq!(back, withdrawn);
    }
}
