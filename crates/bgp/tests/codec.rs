//! Messages as octets: golden ones, errors of the header and of OPEN. Those of UPDATE are in `rfc7606.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use margay_bgp::attribute::{Aggregator, Segment, SegmentKind, UnknownAttribute};
use margay_bgp::message::{
    self, AddPathMode, Context, GracefulFamily, LongLivedFamily, Message, Nlri, Open, Refresh,
    RefreshKind, Update,
};
use margay_bgp::{
    AsPath, Attributes, Capability, Code, Community, ExtendedCommunity, Families, LargeCommunity,
    NextHop, Notification, Origin, PerFamily,
};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

const INTERNAL: Context = Context {
    external: false,
    four_octet_as: true,
    families: Families::BOTH,
    add_path: Families::NONE,
    extended_next_hop: false,
};

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

/// A message of the given type around a body in hexadecimal.
fn framed(kind: u8, body: &str) -> Vec<u8> {
    let body = hex(body);
    let mut message = vec![0xff; 16];
    message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
    message.push(kind);
    message.extend(body);
    message
}

/// An UPDATE of withdrawn prefixes, attributes and announced prefixes, each in hexadecimal.
fn update(withdrawn: &str, attributes: &str, announced: &str) -> Vec<u8> {
    let size = |text: &str| format!("{:04x}", hex(text).len());
    let (first, second) = (size(withdrawn), size(attributes));
    framed(
        2,
        &[&first, withdrawn, &second, attributes, announced].concat(),
    )
}

fn decode(message: &[u8], context: &Context) -> Update {
    match message::decode(message, context) {
        Ok(Message::Update(update)) => update,
        other => panic!("no UPDATE: {other:?}"),
    }
}

fn nlri(text: &str) -> Nlri {
    Nlri {
        prefix: cidr(text),
        path_id: 0,
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

#[test]
fn an_open_with_every_capability() {
    let open = Open {
        asn: AsNumber(4_200_000_001),
        hold_time: 90,
        router_id: "10.0.0.1".parse().unwrap(),
        capabilities: vec![
            Capability::Multiprotocol(Family::V4),
            Capability::Multiprotocol(Family::V6),
            Capability::RouteRefresh,
            Capability::ExtendedNextHop,
            Capability::GracefulRestart {
                restarted: true,
                notification: true,
                time: 120,
                families: vec![GracefulFamily {
                    family: Family::V4,
                    forwarding: true,
                }],
            },
            Capability::FourOctetAs(AsNumber(4_200_000_001)),
            Capability::AddPath(vec![(Family::V6, AddPathMode::Both)]),
            Capability::EnhancedRefresh,
            Capability::LongLivedRestart(vec![LongLivedFamily {
                family: Family::V4,
                forwarding: false,
                time: 3600,
            }]),
            Capability::Other {
                code: 73,
                value: vec![3, 1, 2, 3],
            },
        ],
    };
    let golden = framed(
        1,
        "04 5ba0 005a 0a000001 3d 02 3b
         0104 0001 00 01   0104 0002 00 01   0200   0506 0001 0001 0002
         4006 c078 0001 01 80   4104 fa56ea01   4504 0002 01 03   4600
         4707 0001 01 00 000e10   4904 03010203",
    );
    let mut written = Vec::new();
    message::encode_open(&mut written, &open);
    assert_eq!(written, golden);
    assert_eq!(
        message::decode(&golden, &Context::NONE),
        Ok(Message::Open(open))
    );
}

#[test]
fn long_opens_use_the_extended_form() {
    let open = Open {
        asn: AsNumber(64512),
        hold_time: 0,
        router_id: "10.0.0.1".parse().unwrap(),
        capabilities: (0..3)
            .map(|code| Capability::Other {
                code,
                value: vec![code; 200],
            })
            .collect(),
    };
    let mut written = Vec::new();
    message::encode_open(&mut written, &open);
    assert_eq!(&written[28..32], [255, 255, 2, 97]);
    assert_eq!(
        message::decode(&written, &Context::NONE),
        Ok(Message::Open(open))
    );
}

#[test]
fn updates_as_octets() {
    let mut attributes = Attributes::local("10.0.0.2".parse().unwrap());
    attributes.local_pref = Some(100);
    let block = "10.65.4.64/26";
    let golden = update(
        "",
        "400101 00  400200  400304 0a000002  400504 00000064",
        "1a 0a410440",
    );
    check(&INTERNAL, Family::V4, &attributes, block, &golden);

    let everything = Attributes {
        origin: Origin::Incomplete,
        as_path: AsPath(vec![
            Segment {
                kind: SegmentKind::Sequence,
                numbers: vec![AsNumber(65001), AsNumber(70000)],
            },
            Segment {
                kind: SegmentKind::Set,
                numbers: vec![AsNumber(1)],
            },
        ]),
        next_hop: NextHop::new("10.0.0.2".parse().unwrap()),
        med: Some(5),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some(Aggregator {
            asn: AsNumber(70000),
            router: "10.0.0.7".parse().unwrap(),
        }),
        communities: vec![Community::new(64513, 100), Community::NO_EXPORT],
        large_communities: vec![LargeCommunity([64513, 1, 2])],
        extended_communities: vec![ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 9])],
        originator_id: Some("10.0.0.3".parse().unwrap()),
        cluster_list: vec!["10.0.0.4".parse().unwrap(), "10.0.0.5".parse().unwrap()],
        unknown: vec![UnknownAttribute {
            code: 200,
            flags: 0xe0,
            value: vec![1, 2, 3],
        }],
    };
    let rest = "800404 00000005  400504 000000c8  400600";
    let middle = "c00808 fc010064 ffffff01  800904 0a000003  800a08 0a0000040a000005
                  c01008 0002000100000009";
    let end = "c0200c 0000fc01 00000001 00000002  e0c803 010203";
    let golden = update(
        "",
        &[
            "400101 02  400210 02 02 0000fde9 00011170 01 01 00000001  400304 0a000002",
            rest,
            "c00708 00011170 0a000007",
            middle,
            end,
        ]
        .concat(),
        "1a 0a410440",
    );
    check(&INTERNAL, Family::V4, &everything, block, &golden);

    // To a speaker of two-octet AS numbers.
    let short = Context {
        four_octet_as: false,
        ..INTERNAL
    };
    let golden = update(
        "",
        &[
            "400101 02  40020a 02 02 fde9 5ba0 01 01 0001  400304 0a000002",
            rest,
            "c00706 5ba0 0a000007",
            middle,
            "c01110 02 02 0000fde9 00011170 01 01 00000001  c01208 00011170 0a000007",
            end,
        ]
        .concat(),
        "1a 0a410440",
    );
    check(&short, Family::V4, &everything, block, &golden);

    // IPv6, with both kinds of address as next hop.
    let six = Attributes {
        next_hop: NextHop {
            address: "fd00::2".parse().unwrap(),
            link_local: Some("fe80::2".parse().unwrap()),
        },
        ..attributes.clone()
    };
    let golden = update(
        "",
        "900e0036 0002 01 20 fd000000000000000000000000000002 fe800000000000000000000000000002 00
         7a fd000065000000000000000000000040  400101 00  400200  400504 00000064",
        "",
    );
    check(&INTERNAL, Family::V6, &six, "fd00:65::40/122", &golden);

    // IPv4 by way of IPv6 (RFC 8950).
    let crossed = Attributes {
        next_hop: NextHop::new("fd00::2".parse().unwrap()),
        ..attributes
    };
    let extended = Context {
        extended_next_hop: true,
        ..INTERNAL
    };
    let golden = update(
        "",
        "900e001a 0001 01 10 fd000000000000000000000000000002 00 1a 0a410440
         400101 00  400200  400504 00000064",
        "",
    );
    check(&extended, Family::V4, &crossed, block, &golden);
    assert!(
        message::decode(&golden, &INTERNAL).is_err(),
        "not agreed on"
    );
}

/// Checks that the announcement is written as `golden` and read back as it was.
fn check(context: &Context, family: Family, attributes: &Attributes, prefix: &str, golden: &[u8]) {
    let mut written = Vec::new();
    let list = [nlri(prefix)];
    message::announcements(&mut written, context, family, attributes, &list).unwrap();
    assert_eq!(written, golden);
    let read = decode(golden, context);
    assert_eq!(read.findings, []);
    assert_eq!(read.announced.len(), 1);
    assert_eq!(read.announced[0].attributes, *attributes);
    assert_eq!(read.announced[0].nlri, list);
}

#[test]
fn withdrawals_and_ends() {
    let mut written = Vec::new();
    message::withdrawals(&mut written, &INTERNAL, Family::V4, &[nlri("10.65.0.0/16")]);
    assert_eq!(written, update("10 0a41", "", ""));
    assert_eq!(
        decode(&written, &INTERNAL).withdrawn,
        [nlri("10.65.0.0/16")]
    );

    written.clear();
    message::withdrawals(&mut written, &INTERNAL, Family::V6, &[nlri("fd00:65::/32")]);
    assert_eq!(written, update("", "900f0008 0002 01 20 fd000065", ""));
    assert_eq!(
        decode(&written, &INTERNAL).withdrawn,
        [nlri("fd00:65::/32")]
    );

    for (family, golden) in [
        (Family::V4, update("", "", "")),
        (Family::V6, update("", "900f0003 0002 01", "")),
    ] {
        written.clear();
        message::end_of_rib(&mut written, family);
        assert_eq!(written, golden);
        let read = decode(&golden, &INTERNAL);
        assert_eq!(
            read,
            Update {
                end_of_rib: Some(family),
                ..Update::default()
            }
        );
    }
    // An empty MP_REACH_NLRI is not one.
    let empty = update("", "800e09 0001 01 04 0a000002 00  400101 00  400200", "");
    assert_eq!(decode(&empty, &INTERNAL).end_of_rib, None);
}

#[test]
fn path_identifiers() {
    let context = Context {
        add_path: PerFamily {
            v4: true,
            v6: false,
        },
        ..INTERNAL
    };
    let path = Nlri {
        prefix: cidr("10.65.0.0/16"),
        path_id: 7,
    };
    let mut written = Vec::new();
    message::withdrawals(&mut written, &context, Family::V4, &[path]);
    assert_eq!(written, update("00000007 10 0a41", "", ""));
    assert_eq!(decode(&written, &context).withdrawn, [path]);
}

#[test]
fn many_prefixes_take_several_messages() {
    let list: Vec<Nlri> = (0..=255)
        .flat_map(|a| (0..8).map(move |b| nlri(&format!("10.{a}.{b}.0/24"))))
        .collect();
    let attributes = Attributes::local("10.0.0.2".parse().unwrap());
    let mut written = Vec::new();
    message::announcements(&mut written, &INTERNAL, Family::V4, &attributes, &list).unwrap();
    let mut read = Vec::new();
    let mut sizes = Vec::new();
    let mut rest = written.as_slice();
    while let Some(size) = message::frame(rest).unwrap() {
        let (one, others) = rest.split_at(size);
        sizes.push(size);
        read.extend(decode(one, &INTERNAL).announced.remove(0).nlri);
        rest = others;
    }
    assert!(rest.is_empty());
    assert_eq!(read, list);
    assert_eq!(sizes.len(), 3, "{sizes:?}");

    written.clear();
    let huge = Attributes {
        communities: (0..1100).map(Community).collect(),
        ..attributes
    };
    assert!(message::announcements(&mut written, &INTERNAL, Family::V4, &huge, &list).is_err());
    assert!(written.is_empty());
}

#[test]
fn other_messages() {
    let mut written = Vec::new();
    message::keepalive(&mut written);
    assert_eq!(written, framed(4, ""));
    written.clear();
    let refresh = Refresh {
        family: Family::V6,
        kind: RefreshKind::Begin,
    };
    message::encode_refresh(&mut written, refresh);
    assert_eq!(written, framed(5, "0002 01 01"));
    assert_eq!(
        message::decode(&written, &INTERNAL),
        Ok(Message::Refresh(Some(refresh)))
    );
    let other = framed(5, "0019 00 41");
    assert_eq!(
        message::decode(&other, &INTERNAL),
        Ok(Message::Refresh(None))
    );
    written.clear();
    let notification = Notification::cease_with_text(2, "bye");
    message::encode_notification(&mut written, &notification);
    assert_eq!(written, framed(3, "06 02 03 627965"));
    let read = message::decode(&written, &INTERNAL);
    assert_eq!(read, Ok(Message::Notification(notification)));
}

#[test]
fn headers() {
    let keepalive = framed(4, "");
    for cut in 0..19 {
        assert_eq!(message::frame(&keepalive[..cut]), Ok(None), "{cut} octets");
    }
    assert_eq!(message::frame(&keepalive), Ok(Some(19)));
    let unsynchronized = Notification::new(Code::Header, 1);
    assert_eq!(message::frame(&[0xff, 0xfe]), Err(unsynchronized));
    let cases = [
        (hex("0012 04"), 2, hex("0012")),
        (hex("1001 02"), 2, hex("1001")),
        (hex("0014 04"), 2, hex("0014")),
        (hex("001c 01"), 2, hex("001c")),
        (hex("0016 02"), 2, hex("0016")),
        (hex("0014 03"), 2, hex("0014")),
        (hex("0013 09"), 3, hex("09")),
    ];
    for (tail, subcode, data) in cases {
        let mut stream = vec![0xff; 16];
        stream.extend(&tail);
        let expected = Notification::with_data(Code::Header, subcode, data);
        assert_eq!(message::frame(&stream), Err(expected), "{tail:?}");
    }
}

#[test]
fn opens_that_are_refused() {
    let cases = [
        ("03 fc00 005a 0a000001 00", 1, "0004"),
        ("04 0000 005a 0a000001 00", 2, ""),
        ("04 fc00 005a 0a000001 08 02 06 41 04 00000000", 2, ""),
        ("04 fc00 005a 00000000 00", 3, ""),
        ("04 fc00 0002 0a000001 00", 6, "0002"),
        ("04 fc00 005a 0a000001 04 01 02 0000", 4, ""),
        ("04 fc00 005a 0a000001 05 02 02 0000", 0, ""),
        ("04 fc00 005a 0a000001 04 02 02 4104", 0, ""),
        ("04 fc00 005a 0a000001 02 02 05", 0, ""),
    ];
    for (body, subcode, data) in cases {
        let expected = Notification::with_data(Code::Open, subcode, hex(data));
        assert_eq!(
            message::decode(&framed(1, body), &Context::NONE),
            Err(expected),
            "{body}"
        );
    }
    // A capability whose value does not fit is not known, and no error (RFC 5492 §4).
    let odd = framed(1, "04 fc00 005a 0a000001 06 02 04 4102 0001");
    let Ok(Message::Open(open)) = message::decode(&odd, &Context::NONE) else {
        panic!("refused");
    };
    assert_eq!(
        open.capabilities,
        [Capability::Other {
            code: 65,
            value: vec![0, 1]
        }]
    );
}

const ORIGIN: &str = "400101 00";
const PATH: &str = "400206 02 01 0000fde9";
const HOP: &str = "400304 0a000002";

#[test]
fn fields_longer_than_the_update_end_the_session() {
    for body in ["0009 1a0a41 0000", "0000 0009 400101"] {
        let told = message::decode(&framed(2, body), &INTERNAL);
        assert_eq!(told, Err(Notification::new(Code::Update, 1)), "{body}");
    }
}

#[test]
fn families_that_are_not_in_use_are_passed_over() {
    let four = Context {
        families: Families::V4,
        ..INTERNAL
    };
    let labelled = "800e05 0019 41 00 00";
    let six = "900e001c 0002 01 10 fd000000000000000000000000000002 00 20 fd00006500 00";
    for attributes in [labelled, six] {
        let read = decode(&update("", &[attributes, ORIGIN, PATH].concat(), ""), &four);
        assert_eq!((read.announced, read.withdrawn), (Vec::new(), Vec::new()));
    }
    let six = Context {
        families: Families::V6,
        ..INTERNAL
    };
    let read = decode(
        &update("08 0a", &[ORIGIN, PATH, HOP].concat(), "08 0b"),
        &six,
    );
    assert_eq!((read.announced, read.withdrawn), (Vec::new(), Vec::new()));
}

#[test]
fn paths_of_two_octets_are_completed() {
    let short = Context {
        four_octet_as: false,
        ..INTERNAL
    };
    let long = "c0110a 02 02 00011170 00011171";
    let both = [ORIGIN, "400208 02 03 0001 5ba0 5ba0", HOP, long].concat();
    let read = decode(&update("", &both, "08 0a"), &short);
    assert_eq!(
        read.announced[0].attributes.as_path.to_string(),
        "1 70000 70001"
    );
    // A real AS in AGGREGATOR shows that the four-octet twins are old.
    let old = [&both, "c00706 0005 0a000001", "c01208 00011170 0a000001"].concat();
    let read = decode(&update("", &old, "08 0a"), &short);
    assert_eq!(
        read.announced[0].attributes.as_path.to_string(),
        "1 23456 23456"
    );
    assert_eq!(
        read.announced[0].attributes.aggregator.unwrap().asn,
        AsNumber(5)
    );
}
