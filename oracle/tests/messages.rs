//! OPEN and the small messages: what is written here is read alike there, and the other way round.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bgpkit_parser::models::{BgpMessage, BgpNotificationMessage, BgpRouteRefreshMessage};
use margay_bgp::message::{
    self, AddPathMode, Context, GracefulFamily, LongLivedFamily, Message, Open, Refresh,
    RefreshKind,
};
use margay_bgp::{Capability, Code, Notification};
use margay_model::Family;
use margay_model::scalar::AsNumber;
use margay_oracle::{Session, bgpkit, netgauze};
use proptest::collection::vec;
use proptest::prelude::*;

type ReadOpen = fn(&[u8]) -> Result<Open, String>;
type WriteOpen = fn(&Open, bool) -> Result<Vec<u8>, String>;

const JUDGES: [(&str, ReadOpen, WriteOpen); 2] = [
    ("bgpkit-parser", bgpkit::read_open, bgpkit::write_open),
    (
        "netgauze-bgp-pkt",
        netgauze::read_open,
        netgauze::write_open,
    ),
];

/// A capability that both judges know.
fn known() -> impl Strategy<Value = Capability> {
    let family = || prop_oneof![Just(Family::V4), Just(Family::V6)];
    let graceful = (family(), any::<bool>())
        .prop_map(|(family, forwarding)| GracefulFamily { family, forwarding });
    let mode = prop_oneof![
        Just(AddPathMode::Receive),
        Just(AddPathMode::Send),
        Just(AddPathMode::Both)
    ];
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::ExtendedNextHop),
        (any::<bool>(), 0..4096_u16, vec(graceful, 0..3)).prop_map(
            |(restarted, time, families)| {
                Capability::GracefulRestart {
                    restarted,
                    notification: false,
                    time,
                    families,
                }
            }
        ),
        vec((family(), mode), 1..3).prop_map(Capability::AddPath),
        vec(any::<u8>(), 0..8).prop_map(|value| Capability::Other { code: 200, value }),
    ]
}

/// A capability that `netgauze-bgp-pkt` alone knows.
fn newer() -> impl Strategy<Value = Capability> {
    let long =
        (any::<bool>(), any::<bool>(), 0..1_u32 << 24).prop_map(|(four, forwarding, time)| {
            LongLivedFamily {
                family: if four { Family::V4 } else { Family::V6 },
                forwarding,
                time,
            }
        });
    prop_oneof![
        Just(Capability::EnhancedRefresh),
        Just(Capability::GracefulRestart {
            restarted: false,
            notification: true,
            time: 120,
            families: Vec::new(),
        }),
        vec(long, 1..3).prop_map(Capability::LongLivedRestart),
    ]
}

fn open(capability: impl Strategy<Value = Capability>) -> impl Strategy<Value = Open> {
    let number = prop_oneof![1..23456_u32, 23457..65536_u32, 65536..=u32::MAX];
    let hold = prop_oneof![Just(0_u16), 3..=u16::MAX];
    let parts = (
        number,
        hold,
        1..1_u32 << 31,
        vec(capability, 0..6),
        any::<bool>(),
    );
    parts.prop_map(
        |(asn, hold_time, router_id, mut capabilities, four_octets)| {
            if four_octets || asn > u32::from(u16::MAX) {
                capabilities.push(Capability::FourOctetAs(AsNumber(asn)));
            }
            Open {
                asn: AsNumber(asn),
                hold_time,
                router_id: router_id.into(),
                capabilities,
            }
        },
    )
}

fn ours(octets: &[u8]) -> Message {
    message::decode(octets, &Context::NONE).unwrap()
}

fn written(open: &Open) -> Vec<u8> {
    let mut written = Vec::new();
    message::encode_open(&mut written, open);
    written
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn opens_we_write_are_read(open in open(known())) {
        for (judge, read, _) in JUDGES {
            prop_assert_eq!(read(&written(&open)), Ok(open.clone()), "{}", judge);
        }
    }

    #[test]
    fn opens_others_write_are_read(open in open(known()), apart in any::<bool>()) {
        for (judge, _, write) in JUDGES {
            let octets = write(&open, apart).unwrap();
            prop_assert_eq!(ours(&octets), Message::Open(open.clone()), "{}", judge);
        }
    }

    #[test]
    fn newer_capabilities_are_read(open in open(newer()), apart in any::<bool>()) {
        prop_assert_eq!(netgauze::read_open(&written(&open)), Ok(open.clone()));
        let octets = netgauze::write_open(&open, apart).unwrap();
        prop_assert_eq!(ours(&octets), Message::Open(open));
    }

    #[test]
    fn notifications_are_read(code in 1..=8_u8, subcode in 0..12_u8, data in vec(any::<u8>(), 0..40)) {
        let notification = Notification::with_data(Code::from_octet(code), subcode, data);
        let mut octets = Vec::new();
        message::encode_notification(&mut octets, &notification);
        let BgpMessage::Notification(read) = bgpkit::read(&octets, SESSION).unwrap() else {
            return Err(TestCaseError::fail("no NOTIFICATION"));
        };
        prop_assert_eq!(read.error.get_codes(), (code, subcode));
        prop_assert_eq!(&read.data, &notification.data);
        let theirs = BgpMessage::Notification(BgpNotificationMessage { ..read });
        let theirs = bgpkit::write(&theirs, SESSION).unwrap();
        prop_assert_eq!(ours(&theirs), Message::Notification(notification));
        // It knows some codes only, and writes those as it read them.
        if let Ok(read) = netgauze::read(&octets, SESSION) {
            prop_assert_eq!(netgauze::write(&read).unwrap(), octets);
        }
    }
}

#[test]
fn long_opens_are_read() {
    let other = |code| Capability::Other {
        code,
        value: vec![code; 200],
    };
    let open = Open {
        asn: AsNumber(64512),
        hold_time: 90,
        router_id: "10.0.0.1".parse().unwrap(),
        capabilities: [200, 201, 202].map(other).to_vec(),
    };
    // RFC 9072, which netgauze-bgp-pkt does not know.
    assert_eq!(bgpkit::read_open(&written(&open)), Ok(open.clone()));
    let octets = bgpkit::write_open(&open, true).unwrap();
    assert_eq!(ours(&octets), Message::Open(open));
}

#[test]
fn refreshes_and_keepalives_are_read() {
    for family in [Family::V4, Family::V6] {
        for (kind, subtype) in [
            (RefreshKind::Request, 0),
            (RefreshKind::Begin, 1),
            (RefreshKind::End, 2),
        ] {
            let refresh = Refresh { family, kind };
            let mut octets = Vec::new();
            message::encode_refresh(&mut octets, refresh);
            let expected = BgpRouteRefreshMessage {
                afi: if family == Family::V4 { 1 } else { 2 },
                subtype,
                safi: 1,
                data: Vec::new(),
            };
            let read = bgpkit::read(&octets, SESSION).unwrap();
            assert_eq!(read, BgpMessage::RouteRefresh(expected));
            let theirs = bgpkit::write(&read, SESSION).unwrap();
            assert_eq!(ours(&theirs), Message::Refresh(Some(refresh)));
            let read = netgauze::read(&octets, SESSION).unwrap();
            let theirs = netgauze::write(&read).unwrap();
            assert_eq!(ours(&theirs), Message::Refresh(Some(refresh)));
        }
    }
    let mut octets = Vec::new();
    message::keepalive(&mut octets);
    assert_eq!(bgpkit::read(&octets, SESSION), Ok(BgpMessage::KeepAlive));
    let read = netgauze::read(&octets, SESSION).unwrap();
    assert_eq!(netgauze::write(&read).unwrap(), octets);
}

const SESSION: Session = Session {
    four_octet_as: true,
    add_path: false,
};
