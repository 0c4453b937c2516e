//! Errors in UPDATEs, row by row of RFC 7606 and of the RFCs that follow it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use margay_bgp::message::{self, Context, ErrorAction, Message, Nlri, Open, Update};
use margay_bgp::{
    Capability, Code, ConnectionId, Families, Notification, Output, PeerConfig, Policy, RemoteAs,
    Speaker, SpeakerConfig, State,
};
use margay_model::Family;
use margay_model::scalar::AsNumber;

/// The section (of RFC 7606 where no other is named), the error, the peer, the path attributes, and
/// what is done by which attribute.
///
/// Peers are `ibgp`, `ebgp`, and `old`: an internal one with AS numbers of two octets. Attributes
/// are in hexadecimal, in the order of the UPDATE, or one of the right ones that [`octets`] names.
/// Each UPDATE announces 10.65.4.64/26 in its last field.
const ATTRIBUTES: &str = "
    3 c  | ORIGIN optional              | ibgp | C00101.00 path hop                       | withdraw 1
    3 c  | ORIGIN not transitive        | ibgp | 000101.00 path hop                       | withdraw 1
    3 c  | AS_PATH optional             | ibgp | origin C00206.02.01.0000FDE9 hop         | withdraw 2
    3 c  | NEXT_HOP optional            | ibgp | origin path C00304.0A000002              | withdraw 3
    3 c  | MED transitive               | ibgp | origin path hop C00404.00000001          | withdraw 4
    3 c  | MED well-known               | ibgp | origin path hop 400404.00000001          | withdraw 4
    3 c  | LOCAL_PREF optional          | ibgp | origin path hop C00504.00000001          | withdraw 5
    3 c  | ATOMIC_AGGREGATE optional    | ibgp | origin path hop C00600                   | withdraw 6
    3 c  | AGGREGATOR not transitive    | ibgp | origin path hop 800708.0000FDE9.0A000001 | withdraw 7
    3 c  | COMMUNITIES not transitive   | ibgp | origin path hop 800804.FDE90001          | withdraw 8
    3 c  | ORIGINATOR_ID transitive     | ibgp | origin path hop C00904.0A000003          | withdraw 9
    3 c  | CLUSTER_LIST transitive      | ibgp | origin path hop C00A04.0A000003          | withdraw 10
    3 c  | MP_REACH_NLRI transitive     | ibgp | C00E09.0001.01.04.0A000002.00 origin path hop | withdraw 14
    3 c  | MP_UNREACH_NLRI transitive   | ibgp | C00F03.0002.01 origin path hop           | withdraw 15
    3 c  | EXTENDED not transitive      | ibgp | origin path hop 801008.0002FDE900000001  | withdraw 16
    3 c  | LARGE_COMMUNITY not transitive | ibgp | origin path hop 80200C.0000FDE9.00000001.00000002 | withdraw 32
    3 c  | Partial is no conflict       | ibgp | origin path hop E00804.FDE90001          | none
    3 c  | nor are the unused flags     | ibgp | 5F010001.00 path hop                     | none
    3 d  | no ORIGIN                    | ibgp | path hop                                 | withdraw 1
    3 d  | no AS_PATH                   | ibgp | origin hop                               | withdraw 2
    3 d  | no NEXT_HOP                  | ibgp | origin path                              | withdraw 3
    3 d  | LOCAL_PREF may be missing    | ibgp | origin path hop                          | none
    3 g  | MP_REACH_NLRI twice          | ibgp | 800E09.0001.01.04.0A000002.00 800E09.0001.01.04.0A000002.00 | reset 1
    3 g  | MP_UNREACH_NLRI twice        | ibgp | 800F03.0002.01 800F03.0002.01 origin path hop | reset 1
    3 g  | ORIGIN twice                 | ibgp | origin path hop 400101.01                | discard 1
    3 g  | COMMUNITIES twice            | ibgp | origin path hop C00804.FDE90001 C00804.FDE90002 | discard 8
    3 g  | unknown twice                | ibgp | origin path hop C0C801.00 C0C801.01      | discard 200
    3 g  | the second may be wrong      | ibgp | origin path hop 400102.0000              | discard 1
    3 h  | the stronger of two          | ibgp | 400101.07 path hop C00707.0000FDE9.0A0000 | withdraw 1, discard 7
    3 h  | the strongest of three       | ibgp | 400101.07 path hop 400601.00 800E0A.0002.01.05.0A00000200.00 | reset 9
    4    | longer than what is left     | ibgp | origin path hop C00809.FDE90001          | withdraw 8
    4    | ends after its flags         | ibgp | origin path hop C0                       | withdraw 0
    4    | ends after its code          | ibgp | origin path hop C008                     | withdraw 8
    4    | ends in an extended length   | ibgp | origin path hop D00800                   | withdraw 8
    4    | ORIGIN empty                 | ibgp | 400100 path hop                          | withdraw 1
    4    | AS_PATH may be empty         | ibgp | origin 400200 hop                        | none
    4    | NEXT_HOP empty               | ibgp | origin path 400300                       | withdraw 3
    4    | MED empty                    | ibgp | origin path hop 800400                   | withdraw 4
    4    | LOCAL_PREF empty             | ibgp | origin path hop 400500                   | withdraw 5
    4    | ATOMIC_AGGREGATE is empty    | ibgp | origin path hop 400600                   | none
    4    | AGGREGATOR empty             | ibgp | origin path hop C00700                   | discard 7
    4    | COMMUNITIES empty            | ibgp | origin path hop C00800                   | withdraw 8
    4    | ORIGINATOR_ID empty          | ibgp | origin path hop 800900                   | withdraw 9
    4    | CLUSTER_LIST empty           | ibgp | origin path hop 800A00                   | withdraw 10
    4    | EXTENDED COMMUNITIES empty   | ibgp | origin path hop C01000                   | withdraw 16
    4    | LARGE_COMMUNITY empty        | ibgp | origin path hop C02000                   | withdraw 32
    3 j  | MP_REACH_NLRI cut            | ibgp | origin path hop 800E20.0002.01           | reset 9
    3 j  | MP_UNREACH_NLRI cut          | ibgp | origin path hop 800F20.0002.01           | reset 9
    3 j  | MP_REACH_NLRI without length | ibgp | origin path hop 900E00                   | reset 9
    5.3  | MP_REACH_NLRI of four octets | ibgp | 800E04.0002.01.00 origin path hop        | reset 9
    5.3  | MP_REACH_NLRI prefix cut     | ibgp | 800E0D.0001.01.04.0A000002.00.1A.0A4104 origin path | reset 9
    5.3  | MP_REACH_NLRI prefix of 33 bits | ibgp | 800E0F.0001.01.04.0A000002.00.21.0A41040000 origin path | reset 9
    5.3  | MP_REACH_NLRI next hop cut   | ibgp | 800E08.0002.01.10.FD000002 origin path   | reset 9
    5.3  | MP_UNREACH_NLRI of two octets | ibgp | 800F02.0002 origin path hop             | reset 9
    5.3  | MP_UNREACH_NLRI prefix of 129 bits | ibgp | 800F15.0002.01.81.0000000000000000000000000000000000 origin path hop | reset 9
    5.3  | MP_UNREACH_NLRI prefix cut   | ibgp | 800F06.0002.01.20.FD00 origin path hop   | reset 9
    7.1  | ORIGIN of an undefined value | ibgp | 400101.07 path hop                       | withdraw 1
    7.1  | ORIGIN of two octets         | ibgp | 400102.0000 path hop                     | withdraw 1
    7.2  | AS_PATH segment of type 9    | ibgp | origin 400206.09.01.0000FDE9 hop         | withdraw 2
    7.2  | AS_PATH segment of type 0    | ibgp | origin 400206.00.01.0000FDE9 hop         | withdraw 2
    7.2  | AS_PATH segment too long     | ibgp | origin 400206.02.02.0000FDE9 hop         | withdraw 2
    7.2  | AS_PATH number cut           | ibgp | origin 400205.02.01.0000FD hop           | withdraw 2
    7.2  | AS_PATH number of two octets | ibgp | origin 400204.02.01.FDE9 hop             | withdraw 2
    7.2  | AS_PATH with an octet left   | ibgp | origin 400207.02.01.0000FDE9.02 hop      | withdraw 2
    7.2  | AS_PATH empty segment        | ibgp | origin 400202.02.00 hop                  | withdraw 2
    7.2  | AS_PATH number of four octets | old | origin 400206.02.01.0000FDE9 hop         | withdraw 2
    7.3  | NEXT_HOP of three octets     | ibgp | origin path 400303.0A0000                | withdraw 3
    7.3  | NEXT_HOP of five octets      | ibgp | origin path 400305.0A00000200            | withdraw 3
    7.4  | MED of two octets            | ibgp | origin path hop 800402.0000              | withdraw 4
    7.4  | MED of five octets           | ibgp | origin path hop 800405.0000000000        | withdraw 4
    7.5  | LOCAL_PREF of two octets     | ibgp | origin path hop 400502.0000              | withdraw 5
    7.5  | LOCAL_PREF from outside      | ebgp | origin path hop 400504.00000064          | discard 5
    7.5  | the same of two octets       | ebgp | origin path hop 400502.0000              | discard 5
    7.6  | ATOMIC_AGGREGATE not empty   | ibgp | origin path hop 400601.00                | discard 6
    7.7  | AGGREGATOR of seven octets   | ibgp | origin path hop C00707.0000FDE9.0A0000   | discard 7
    7.7  | AGGREGATOR of six octets     | ibgp | origin path hop C00706.FDE9.0A000001     | discard 7
    7.7  | AGGREGATOR of eight octets   | old  | origin path2 hop C00708.0000FDE9.0A000001 | discard 7
    7.7  | AGGREGATOR as it should be   | old  | origin path2 hop C00706.FDE9.0A000001    | none
    7.8  | COMMUNITIES of five octets   | ibgp | origin path hop C00805.FDE9000100        | withdraw 8
    7.9  | ORIGINATOR_ID of three octets | ibgp | origin path hop 800903.0A0000           | withdraw 9
    7.9  | ORIGINATOR_ID from outside   | ebgp | origin path hop 800904.0A000003          | discard 9
    7.9  | the same of three octets     | ebgp | origin path hop 800903.0A0000            | discard 9
    7.10 | CLUSTER_LIST of six octets   | ibgp | origin path hop 800A06.0A0000030A00      | withdraw 10
    7.10 | CLUSTER_LIST from outside    | ebgp | origin path hop 800A04.0A000003          | discard 10
    7.10 | the same of three octets     | ebgp | origin path hop 800A03.0A0000            | discard 10
    7.11 | next hop of five octets      | ibgp | 800E0A.0002.01.05.0A00000200.00 origin path | reset 9
    7.11 | next hop of none             | ibgp | 800E05.0002.01.00.00 origin path         | reset 9
    7.11 | IPv4 next hop of IPv6 routes | ibgp | 800E09.0002.01.04.0A000002.00 origin path | reset 9
    7.11 | IPv6 next hop of IPv4 routes, not agreed on | ibgp | 800E15.0001.01.10.FD000000000000000000000000000002.00 origin path | reset 9
    7.12 | MP_UNREACH_NLRI as it should be | ibgp | 800F08.0002.01.20.FD000065 origin path hop | none
    7.13 | TRAFFIC ENGINEERING is not read | ibgp | origin path hop 801801.00             | none
    7.14 | EXTENDED COMMUNITIES of seven octets | ibgp | origin path hop C01007.0002FDE9000000 | withdraw 16
    7.14 | of an unknown type           | ibgp | origin path hop C01008.7F7F000000000001  | none
    7.15 | IPv6 EXTENDED is passed on unread | ibgp | origin path hop C01904.00000000     | none
    7.16 | ATTR_SET is passed on unread | ibgp | origin path hop C08004.00000000          | none
    RFC 4271 6.3 | well-known and not known | ibgp | origin path hop 40C801.00            | withdraw 200
    RFC 4271 9 | optional, not transitive and not known | ibgp | origin path hop 80C801.00 | none
    RFC 5065 5 | AS_CONFED_SEQUENCE from outside | ebgp | origin 400206.03.01.0000FDE9 hop | withdraw 2
    RFC 5065 5 | AS_CONFED_SET from outside | ebgp | origin 40020C.02.01.0000FDE9.04.01.0000FDEA hop | withdraw 2
    RFC 6793 6 | AS4_PATH between new speakers | ibgp | origin path hop C01106.02.01.0000FDE9 | discard 17
    RFC 6793 6 | AS4_AGGREGATOR between new speakers | ibgp | origin path hop C01208.0000FDE9.0A000001 | discard 18
    RFC 6793 6 | AS4_PATH of three octets | old | origin path2 hop C01103.020100         | discard 17
    RFC 6793 6 | AS4_PATH empty         | old  | origin path2 hop C01100                  | discard 17
    RFC 6793 6 | AS4_PATH segment of type 9 | old | origin path2 hop C01106.09.01.0000FDE9 | discard 17
    RFC 6793 6 | AS4_PATH segment too long | old | origin path2 hop C01106.02.02.0000FDE9 | discard 17
    RFC 6793 6 | AS4_PATH empty segment | old  | origin path2 hop C01102.02.00            | discard 17
    RFC 6793 6 | AS4_PATH well-known    | old  | origin path2 hop 401106.02.01.0000FDE9   | discard 17
    RFC 6793 6 | AS4_PATH of a confederation | old | origin path2 hop C01106.03.01.0000FDE9 | none
    RFC 6793 6 | AS4_AGGREGATOR of three octets | old | origin path2 hop C01203.000000     | discard 18
    RFC 6793 6 | AS4_AGGREGATOR well-known | old | origin path2 hop 401208.0000FDE9.0A000001 | discard 18
    RFC 7607 2 | AS_PATH with AS 0      | ibgp | origin 400206.02.01.00000000 hop         | withdraw 2
    RFC 7607 2 | AGGREGATOR with AS 0   | ibgp | origin path hop C00708.00000000.0A000001 | discard 7
    RFC 7607 2 | AS4_PATH with AS 0     | old  | origin path2 hop C01106.02.01.00000000   | discard 17
    RFC 7607 2 | AS4_AGGREGATOR with AS 0 | old | origin path2 hop C01208.00000000.0A000001 | discard 18
    RFC 8092 6 | LARGE_COMMUNITY of eleven octets | ibgp | origin path hop C0200B.0000FDE9.00000001.000000 | withdraw 32
";

/// Errors of an UPDATE's fields, and of UPDATEs that announce nothing: the section, the error, the
/// withdrawn routes, the attributes, the prefixes, and what is done. All from `ibgp`.
const FIELDS: &str = "
    5.3  | prefix of 33 bits            |         | origin path hop | 21.0A41044000 | reset 10
    5.3  | prefix cut                   |         | origin path hop | 1A.0A4104     | reset 10
    5.3  | the second prefix cut        |         | origin path hop | 1A.0A410440.18.0A41 | reset 10
    5.3  | bits beyond the length       |         | origin path hop | 1A.0A41047F   | none
    3 i  | withdrawn prefix of 33 bits  | 21.0A41044000 |           |               | reset 10
    3 i  | withdrawn prefix cut         | 1A.0A41 |                 |               | reset 10
    5.2  | ORIGIN wrong, no prefix      | 18.0A4200 | 400101.07     |               | reset 1
    5.2  | ORIGIN wrong, only withdrawn prefixes of IPv6 | | 800F08.0002.01.20.FD000065 400101.07 | | reset 1
    5.2  | MP_REACH_NLRI without prefix | | 800E09.0001.01.04.0A000002.00 origin path 800401.00 | | reset 1
    5.2  | End-of-RIB, and an octet     |         | 800F03.0002.01.C0 |             | reset 1
    5.2  | End-of-RIB, and half an attribute |    | 800F03.0002.01 C008 |           | reset 1
    5.2  | only the flags of MP_UNREACH_NLRI |    | C00F08.0002.01.20.FD000065 |    | withdraw 15
    5.2  | discarding needs no prefix   |         | origin path 400601.00 |         | discard 6
    5.2  | nor does what is right       |         | origin path     |               | none
    5.2  | a family that is not in use counts | | 800E06.0019.41.00.00.00 400101.07 | | withdraw 1
";

/// A row of one of the tables.
struct Row {
    name: String,
    peer: &'static str,
    withdrawn: Vec<u8>,
    attributes: Vec<u8>,
    nlri: Vec<u8>,
    outcome: Outcome,
}

/// What is done about an UPDATE.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The session ends with a NOTIFICATION of this subcode.
    Reset(u8),
    /// The session lives; the attributes with errors, and what is done about them.
    Lives(Vec<(ErrorAction, u8)>),
}

/// Octets from hexadecimal and from words; points are for reading.
fn octets(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for word in text.split_whitespace() {
        let digits = match word {
            "origin" => "40010100",
            "path" => "4002060201.0000FDE9",
            "path2" => "4002040201.FDE9",
            "hop" => "400304.0A000002",
            digits => digits,
        };
        let digits = digits.replace('.', "");
        assert!(digits.len().is_multiple_of(2), "{word}");
        let pairs = (0..digits.len()).step_by(2);
        octets.extend(pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()));
    }
    octets
}

fn outcome(text: &str) -> Outcome {
    if let Some(subcode) = text.strip_prefix("reset ") {
        return Outcome::Reset(subcode.parse().unwrap());
    }
    let errors = text.split(", ").filter(|error| *error != "none");
    let error = |error: &str| match error.split_once(' ').unwrap() {
        ("withdraw", code) => (ErrorAction::TreatAsWithdraw, code.parse().unwrap()),
        ("discard", code) => (ErrorAction::Discard, code.parse().unwrap()),
        _ => panic!("{error}"),
    };
    Outcome::Lives(errors.map(error).collect())
}

fn rows() -> Vec<Row> {
    let cells = |table: &'static str| {
        let lines = table.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>())
    };
    let attributes = cells(ATTRIBUTES).map(|row| match row[..] {
        [section, error, peer, attributes, done] => Row {
            name: format!("{section}: {error}"),
            peer,
            withdrawn: Vec::new(),
            attributes: octets(attributes),
            nlri: octets("1A.0A410440"),
            outcome: outcome(done),
        },
        _ => panic!("{row:?}"),
    });
    let fields = cells(FIELDS).map(|row| match row[..] {
        [section, error, withdrawn, attributes, nlri, done] => Row {
            name: format!("{section}: {error}"),
            peer: "ibgp",
            withdrawn: octets(withdrawn),
            attributes: octets(attributes),
            nlri: octets(nlri),
            outcome: outcome(done),
        },
        _ => panic!("{row:?}"),
    });
    attributes.chain(fields).collect()
}

impl Row {
    fn context(&self) -> Context {
        Context {
            external: self.peer == "ebgp",
            four_octet_as: self.peer != "old",
            families: Families::BOTH,
            ..Context::NONE
        }
    }

    fn message(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for field in [&self.withdrawn, &self.attributes] {
            body.extend(u16::try_from(field.len()).unwrap().to_be_bytes());
            body.extend(field);
        }
        body.extend(&self.nlri);
        let mut message = vec![0xff; 16];
        message.extend(u16::try_from(19 + body.len()).unwrap().to_be_bytes());
        message.push(2);
        message.extend(body);
        message
    }

    /// Whether routes are taken as withdrawn.
    fn withdraws(&self) -> bool {
        matches!(&self.outcome, Outcome::Lives(errors)
            if errors.iter().any(|(action, _)| *action == ErrorAction::TreatAsWithdraw))
    }
}

#[test]
fn the_codec_does_what_each_row_says() {
    for row in rows() {
        let read = match message::decode(&row.message(), &row.context()) {
            Err(told) => {
                assert_eq!(told.code, Code::Update, "{}", row.name);
                assert_eq!(Outcome::Reset(told.subcode), row.outcome, "{}", row.name);
                continue;
            }
            Ok(Message::Update(read)) => read,
            Ok(other) => panic!("{}: {other:?}", row.name),
        };
        let found = read.findings.iter().map(|f| (f.action, f.code)).collect();
        assert_eq!(
            Outcome::Lives(found),
            row.outcome,
            "{}: {:?}",
            row.name,
            read.findings
        );
        if !row.nlri.is_empty() {
            let block = nlri(BLOCK);
            let announced = read.announced.iter().any(|one| one.nlri.contains(&block));
            assert_eq!(announced, !row.withdraws(), "{}", row.name);
            let withdrawn = read.withdrawn.contains(&block);
            assert_eq!(withdrawn, row.withdraws(), "{}", row.name);
        }
        let unread = read.findings.iter().find(|found| {
            let place = row.attributes.windows(found.octets.len().max(1));
            !found.octets.is_empty() && !place.clone().any(|octets| octets == found.octets)
        });
        assert_eq!(unread, None, "{}: shown as received", row.name);
    }
}

/// A route that was right is announced again with the row's error.
#[test]
fn the_speaker_does_what_each_row_says() {
    for row in rows() {
        let mut script = Script::up(&row);
        script.say(&script.right(&row));
        assert!(script.holds(), "{}", row.name);
        script.say(&row.message());
        match &row.outcome {
            Outcome::Reset(subcode) => {
                let told = script.told.as_ref().map(|told| (told.code, told.subcode));
                assert_eq!(told, Some((Code::Update, *subcode)), "{}", row.name);
                assert!(script.closed, "{}", row.name);
                continue;
            }
            Outcome::Lives(errors) => {
                let counters = &script.speaker.peers()[0].counters;
                let count = |wanted| {
                    let wanted = errors.iter().filter(|(action, _)| *action == wanted);
                    u64::try_from(wanted.count()).unwrap()
                };
                let discarded = count(ErrorAction::Discard);
                assert_eq!(counters.attributes_discarded, discarded, "{}", row.name);
                let withdrawn = u64::from(row.withdraws());
                assert_eq!(counters.treated_as_withdraw, withdrawn, "{}", row.name);
            }
        }
        assert_eq!(script.told, None, "{}", row.name);
        assert!(!script.closed, "{}", row.name);
        let state = script.speaker.peers()[0].state;
        assert_eq!(state, State::Established, "{}", row.name);
        let held = row.nlri.is_empty() || !row.withdraws();
        assert_eq!(script.holds(), held, "{}", row.name);
        // What comes after it is read as if nothing had happened.
        script.say(&script.right(&row));
        assert!(script.holds(), "{}", row.name);
    }
}

#[test]
fn every_attribute_that_is_read_has_its_rows() {
    let known = BTreeSet::from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16, 17, 18, 32]);
    let mut found = BTreeSet::new();
    for row in rows() {
        if let Outcome::Lives(errors) = row.outcome {
            found.extend(errors.iter().map(|(_, code)| *code));
        }
    }
    let missing: Vec<_> = known.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_first_of_two_counts() {
    let rows = rows();
    let row = rows.iter().find(|row| row.name == "3 g: ORIGIN twice");
    let row = row.unwrap();
    let Ok(Message::Update(Update { announced, .. })) =
        message::decode(&row.message(), &row.context())
    else {
        panic!("no UPDATE");
    };
    assert_eq!(announced[0].attributes.origin, margay_bgp::Origin::Igp);
}

/// A peer of a row's kind, with its session.
struct Script {
    speaker: Speaker,
    connection: ConnectionId,
    context: Context,
    told: Option<Notification>,
    closed: bool,
}

impl Script {
    fn up(row: &Row) -> Self {
        let own_as = AsNumber(64512);
        let peer_as = if row.peer == "ebgp" {
            AsNumber(65001)
        } else {
            own_as
        };
        let mut config = SpeakerConfig::new(own_as, Ipv4Addr::new(10, 0, 0, 1));
        config.address_v6 = Some("fd00::1".parse().unwrap());
        let [local, remote]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut peer = PeerConfig::new(remote, RemoteAs::Is(peer_as));
        (peer.passive, peer.families) = (true, Families::BOTH);
        (peer.import, peer.export) = (Some(Policy::accept_all()), Some(Policy::accept_all()));
        config.peers.insert("peer".to_owned(), peer);
        let mut speaker = Speaker::new(config, NOW, 1, false);
        let (connection, _) = speaker.accept(NOW, local, remote).unwrap();
        let mut script = Self {
            speaker,
            connection,
            context: row.context(),
            told: None,
            closed: false,
        };
        let mut capabilities = vec![
            Capability::Multiprotocol(Family::V4),
            Capability::Multiprotocol(Family::V6),
        ];
        if row.peer != "old" {
            capabilities.push(Capability::FourOctetAs(peer_as));
        }
        let mut hello = Vec::new();
        let open = Open {
            asn: peer_as,
            hold_time: 90,
            router_id: Ipv4Addr::new(10, 0, 0, 2),
            capabilities,
        };
        message::encode_open(&mut hello, &open);
        message::keepalive(&mut hello);
        script.say(&hello);
        assert_eq!(script.speaker.peers()[0].state, State::Established);
        script
    }

    /// The route as it should be announced.
    fn right(&self, row: &Row) -> Vec<u8> {
        let path = if row.peer == "old" { "path2" } else { "path" };
        let right = Row {
            name: String::new(),
            peer: row.peer,
            withdrawn: Vec::new(),
            attributes: octets(&format!("origin {path} hop")),
            nlri: octets("1A.0A410440"),
            outcome: Outcome::Lives(Vec::new()),
        };
        right.message()
    }

    fn say(&mut self, octets: &[u8]) {
        self.speaker.received(NOW, self.connection, octets);
        for output in self.speaker.poll(NOW) {
            match output {
                Output::Transmit(connection) => {
                    let mut octets = Vec::new();
                    while self.speaker.transmit(NOW, connection, &mut octets) {}
                    self.hear(&octets);
                }
                Output::Close { last, .. } => {
                    self.hear(&last);
                    self.closed = true;
                }
                _ => {}
            }
        }
    }

    fn hear(&mut self, mut octets: &[u8]) {
        while let Some(size) = message::frame(octets).unwrap() {
            let (one, rest) = octets.split_at(size);
            if let Message::Notification(told) = message::decode(one, &self.context).unwrap() {
                self.told = Some(told);
            }
            octets = rest;
        }
    }

    /// Whether the speaker has the route.
    fn holds(&self) -> bool {
        let routes = self.speaker.received_routes("peer").unwrap();
        routes
            .iter()
            .any(|route| route.prefix == nlri(BLOCK).prefix && route.rejected.is_none())
    }
}

fn nlri(prefix: &str) -> Nlri {
    Nlri {
        prefix: prefix.parse().unwrap(),
        path_id: 0,
    }
}

/// The prefix of the rows.
const BLOCK: &str = "10.65.4.64/26";
const NOW: Duration = Duration::ZERO;
