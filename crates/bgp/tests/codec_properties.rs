//! What is written is read back, and nothing that is read panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "shared/strategies.rs"]
mod strategies;

use margay_bgp::message::{self, Context, Message, Nlri};
use margay_bgp::{Attributes, Families};
use margay_model::Family;
use proptest::collection::vec;
use proptest::prelude::*;

use strategies::{attributes, one_nlri};

/// All UPDATEs of a stream, read and put together.
fn read(octets: &[u8], context: &Context) -> (Vec<Nlri>, Vec<(Attributes, Vec<Nlri>)>) {
    let (mut withdrawn, mut announced) = (Vec::new(), Vec::new());
    let mut rest = octets;
    while let Some(size) = message::frame(rest).unwrap() {
        let (one, others) = rest.split_at(size);
        let Message::Update(update) = message::decode(one, context).unwrap() else {
            panic!("no UPDATE");
        };
        assert_eq!(update.findings, []);
        withdrawn.extend(update.withdrawn);
        announced.extend(update.announced.into_iter().map(|a| (a.attributes, a.nlri)));
        rest = others;
    }
    assert!(rest.is_empty());
    (withdrawn, announced)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn routes_come_back(
        (family, attributes, list) in prop_oneof![Just(Family::V4), Just(Family::V6)]
            .prop_flat_map(|family| (Just(family), attributes(family), vec(one_nlri(family), 1..600))),
        four_octet_as in any::<bool>(),
        add_path in any::<bool>(),
    ) {
        let context = Context {
            external: false,
            four_octet_as,
            families: Families::BOTH,
            add_path: Families { v4: add_path, v6: add_path },
            extended_next_hop: false,
        };
        let list: Vec<_> = list
            .into_iter()
            .map(|nlri| Nlri { path_id: if add_path { nlri.path_id } else { 0 }, ..nlri })
            .collect();
        let mut octets = Vec::new();
        message::announcements(&mut octets, &context, family, &attributes, &list).unwrap();
        let (_, announced) = read(&octets, &context);
        let prefixes: Vec<_> = announced.iter().flat_map(|(_, nlri)| nlri.clone()).collect();
        prop_assert_eq!(&prefixes, &list);
        for (back, _) in announced {
            if four_octet_as {
                prop_assert_eq!(back, attributes.clone());
            } else {
                // Segments may be joined where AS4_PATH takes over; numbers and the rest stay.
                let numbers = |attributes: &Attributes| attributes.as_path.numbers().collect::<Vec<_>>();
                prop_assert_eq!(numbers(&back), numbers(&attributes));
                let same = Attributes { as_path: attributes.as_path.clone(), ..back };
                prop_assert_eq!(same, attributes.clone());
            }
        }
        octets.clear();
        message::withdrawals(&mut octets, &context, family, &list);
        prop_assert_eq!(read(&octets, &context).0, list);
    }

    #[test]
    fn any_octets_are_read_without_panic(octets in vec(any::<u8>(), 0..200), kind in 1..6_u8) {
        let mut framed = vec![0xff; 16];
        framed.extend(u16::try_from(19 + octets.len()).unwrap().to_be_bytes());
        framed.push(kind);
        framed.extend(&octets);
        for external in [true, false] {
            let context = Context { external, families: Families::BOTH, ..Context::NONE };
            let _ = message::decode(&framed, &context);
            let _ = message::decode(&octets, &context);
        }
    }
}
