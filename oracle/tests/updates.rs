//! UPDATEs: what is written here is read alike there, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../crates/bgp/tests/shared/strategies.rs"]
mod strategies;

use margay_bgp::attribute::UnknownAttribute;
use margay_bgp::message::{self, Announcement, Message, Nlri, Update};
use margay_bgp::{AsPath, Attributes, NextHop};
use margay_model::{Cidr, Family};
use margay_oracle::{Reading, Session, bgpkit, joined, netgauze};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

type Read = fn(&[u8], Session) -> Result<Reading, String>;
type Write = fn(&Update, Session, bool) -> Result<Vec<u8>, String>;

/// The judges: how each reads and writes UPDATEs.
const JUDGES: [(&str, Read, Write); 2] = [
    ("bgpkit-parser", bgpkit::read_update, bgpkit::write_update),
    (
        "netgauze-bgp-pkt",
        netgauze::read_update,
        netgauze::write_update,
    ),
];

fn session() -> impl Strategy<Value = Session> {
    (any::<bool>(), any::<bool>()).prop_map(|(four_octet_as, add_path)| Session {
        four_octet_as,
        add_path,
    })
}

/// A prefix that both judges read, see their pages: it has no multicast addresses at its ends, and no
/// first octet of 0.
fn readable(nlri: Nlri, session: Session) -> Nlri {
    let length = nlri.prefix.length().max(1);
    let prefix = match nlri.prefix.address() {
        std::net::IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            let [a, b, c] = rest;
            Cidr::new([first & 0x7f, a, b, c].into(), length)
        }
        std::net::IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[0] &= 0x7f;
            Cidr::new(octets.into(), length)
        }
    };
    Nlri {
        prefix: prefix.unwrap(),
        path_id: if session.add_path { nlri.path_id } else { 0 },
    }
}

/// Routes of a family with their attributes, and what the session agreed on.
fn routes() -> impl Strategy<Value = (Family, Attributes, Vec<Nlri>, Session)> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let parts = family.prop_flat_map(|family| {
        let list = vec(strategies::one_nlri(family), 1..60);
        let crossed = any::<bool>();
        let local = of(any::<u64>());
        let attributes = strategies::attributes(family);
        (Just(family), attributes, list, session(), crossed, local)
    });
    parts.prop_map(|(family, mut attributes, list, session, crossed, local)| {
        if crossed && family == Family::V4 {
            attributes.next_hop = NextHop::new("fd00::2".parse().unwrap());
        }
        if attributes.next_hop.family() == Family::V6 {
            let low = |low: u64| (0xfe80_u128 << 112 | u128::from(low)).into();
            attributes.next_hop.link_local = local.map(low);
        }
        let list = list.into_iter().map(|nlri| readable(nlri, session));
        (family, attributes, list.collect(), session)
    })
}

/// Each message of a stream.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let Some(size) = message::frame(stream).unwrap() {
        let (one, rest) = stream.split_at(size);
        messages.push(one);
        stream = rest;
    }
    assert!(stream.is_empty());
    messages
}

fn ours(octets: &[u8], session: Session) -> Update {
    match message::decode(octets, &session.context()) {
        Ok(Message::Update(update)) => update,
        other => panic!("no UPDATE: {other:?}"),
    }
}

/// The UPDATE with its paths' sequences joined.
fn comparable(mut update: Update) -> Update {
    for one in &mut update.announced {
        one.attributes.as_path = joined(&one.attributes.as_path);
    }
    update
}

fn announced(attributes: &Attributes, nlri: Vec<Nlri>) -> Update {
    let attributes = attributes.clone();
    Update {
        announced: vec![Announcement { attributes, nlri }],
        ..Update::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn routes_we_write_are_read((family, attributes, list, session) in routes()) {
        let mut written = Vec::new();
        message::announcements(&mut written, &session.context(), family, &attributes, &list).unwrap();
        for (judge, read, _) in JUDGES {
            let mut prefixes = Vec::new();
            for octets in messages(&written) {
                let reading = read(octets, session).map_err(|e| TestCaseError::fail(format!("{judge}: {e}")))?;
                prop_assert_eq!(&reading.warnings, &Vec::<String>::new(), "{}", judge);
                let update = reading.update().unwrap();
                prop_assert_eq!(update.announced.len(), 1, "{}", judge);
                let nlri = update.announced[0].nlri.clone();
                prefixes.extend(nlri.iter().copied());
                let expected = comparable(announced(&attributes, nlri));
                prop_assert_eq!(comparable(update), expected, "{}", judge);
            }
            prop_assert_eq!(&prefixes, &list, "{}", judge);
        }
    }

    #[test]
    fn withdrawals_we_write_are_read((family, _, list, session) in routes()) {
        let mut written = Vec::new();
        message::withdrawals(&mut written, &session.context(), family, &list);
        for (judge, read, _) in JUDGES {
            let mut prefixes = Vec::new();
            for octets in messages(&written) {
                let update = read(octets, session).unwrap().update().unwrap();
                prop_assert_eq!(update.end_of_rib, None, "{}", judge);
                prefixes.extend(update.withdrawn);
            }
            prop_assert_eq!(&prefixes, &list, "{}", judge);
        }
    }

    #[test]
    fn routes_others_write_are_read(
        (_, attributes, list, session) in routes(),
        extended in any::<bool>(),
    ) {
        for (judge, _, write) in JUDGES {
            // What they write has no bound: such a message is none of ours.
            let list = list.iter().take(40).copied().collect();
            let update = announced(&attributes, list);
            let octets = write(&update, session, extended)
                .map_err(|e| TestCaseError::fail(format!("{judge}: {e}")))?;
            prop_assert_eq!(comparable(ours(&octets, session)), comparable(update), "{}", judge);
        }
    }

    #[test]
    fn withdrawals_others_write_are_read((_, _, list, session) in routes()) {
        for (judge, _, write) in JUDGES {
            let update = Update { withdrawn: list.clone(), ..Update::default() };
            let octets = write(&update, session, false).unwrap();
            prop_assert_eq!(ours(&octets, session), update, "{}", judge);
        }
    }

    /// An old speaker may have put numbers before a path since its four-octet twin was written.
    #[test]
    fn paths_of_two_octets_are_completed_alike(
        short in strategies::path(),
        long in strategies::path(),
    ) {
        prop_assume!(!long.is_empty());
        let (short, _) = margay_oracle::two_octet_path(&short);
        let session = Session { four_octet_as: false, add_path: false };
        let attributes = Attributes {
            as_path: short.clone(),
            // Its twin, as an attribute that is passed on unread.
            unknown: vec![UnknownAttribute { code: 17, flags: 0xc0, value: four_octets(&long) }],
            ..Attributes::local("10.0.0.2".parse().unwrap())
        };
        let list = vec![Nlri { prefix: "10.65.0.0/16".parse().unwrap(), path_id: 0 }];
        let octets = netgauze::write_update(&announced(&attributes, list), session, false).unwrap();
        let update = ours(&octets, session);
        let read = joined(&update.announced[0].attributes.as_path);
        prop_assert_eq!(read, joined(&bgpkit::merged(&short, &long)));
    }
}

fn four_octets(path: &AsPath) -> Vec<u8> {
    let mut octets = Vec::new();
    for segment in &path.0 {
        let kind = match segment.kind {
            margay_bgp::attribute::SegmentKind::Set => 1,
            _ => 2,
        };
        octets.extend([kind, u8::try_from(segment.numbers.len()).unwrap()]);
        octets.extend(segment.numbers.iter().flat_map(|asn| asn.0.to_be_bytes()));
    }
    octets
}

#[test]
fn ends_of_rib() {
    let session = Session {
        four_octet_as: true,
        add_path: false,
    };
    for family in [Family::V4, Family::V6] {
        let end = Update {
            end_of_rib: Some(family),
            ..Update::default()
        };
        let mut written = Vec::new();
        message::end_of_rib(&mut written, family);
        for (judge, read, write) in JUDGES {
            let reading = read(&written, session).unwrap();
            assert_eq!(reading.update().unwrap(), end, "{judge}");
            let octets = write(&end, session, false).unwrap();
            assert_eq!(ours(&octets, session), end, "{judge}");
        }
    }
}

/// Each judge reads default routes on some sessions only.
#[test]
fn default_routes() {
    for (family, prefix, hop) in [
        (Family::V4, "0.0.0.0/0", "10.0.0.2"),
        (Family::V6, "::/0", "fd00::2"),
    ] {
        for add_path in [false, true] {
            let session = Session {
                four_octet_as: true,
                add_path,
            };
            let attributes = Attributes::local(hop.parse().unwrap());
            let list = vec![Nlri {
                prefix: prefix.parse().unwrap(),
                path_id: u32::from(add_path) * 7,
            }];
            let mut written = Vec::new();
            message::announcements(&mut written, &session.context(), family, &attributes, &list)
                .unwrap();
            let expected = announced(&attributes, list);
            let reading = netgauze::read_update(&written, session).unwrap();
            assert_eq!(reading.update().unwrap(), expected);
            if add_path {
                let reading = bgpkit::read_update(&written, session).unwrap();
                assert_eq!(reading.update().unwrap(), expected);
            }
        }
    }
}

const CASES: u32 = 400;
