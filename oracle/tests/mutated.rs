//! UPDATEs that were right before some octets changed: where we take routes, others read the same, and
//! where we find errors, others do.
//!
//! `MARGAY_BGP_MUTATIONS` is how many are tried (default 60,000).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../crates/bgp/tests/shared/strategies.rs"]
mod strategies;

use std::collections::BTreeMap;

use margay_bgp::message::{self, ErrorAction, Finding, Message, Nlri, Update};
use margay_model::Family;
use margay_oracle::{Session, bgpkit, joined, netgauze};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// A generator that needs no state but a number.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

/// Right UPDATEs of both families, the same at every run.
fn corpus(session: Session) -> Vec<Vec<u8>> {
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), seed);
    let mut corpus = Vec::new();
    for number in 0..200 {
        let family = if number % 2 == 0 {
            Family::V4
        } else {
            Family::V6
        };
        let routes = (
            strategies::attributes(family),
            vec(strategies::one_nlri(family), 1..6),
        );
        let (attributes, list) = routes.new_tree(&mut runner).unwrap().current();
        let mut octets = Vec::new();
        let context = session.context();
        message::announcements(&mut octets, &context, family, &attributes, &list).unwrap();
        if number % 10 == 0 {
            octets.clear();
            message::withdrawals(&mut octets, &context, family, &list);
        }
        corpus.push(octets);
    }
    corpus
}

/// Changes one to three octets behind the header.
fn mutate(octets: &mut [u8], state: &mut u64) {
    for _ in 0..=random(state) % 3 {
        let place = 19 + random(state) % (octets.len() - 19);
        octets[place] = match random(state) % 3 {
            0 => octets[place] ^ (1 << (random(state) % 8)),
            1 => octets[place].wrapping_add(1),
            _ => u8::try_from(random(state) % 256).unwrap(),
        };
    }
}

fn prefixes(update: &Update) -> Vec<Nlri> {
    let announced = update.announced.iter().flat_map(|one| &one.nlri);
    let mut all: Vec<_> = announced.chain(&update.withdrawn).copied().collect();
    all.sort();
    all
}

/// Whether there are routes of a family that is not in use, which we pass over (RFC 4760 §7 lets us).
fn has_other_family(octets: &[u8]) -> bool {
    let withdrawn = usize::from(u16::from_be_bytes([octets[19], octets[20]]));
    let length = usize::from(u16::from_be_bytes([
        octets[21 + withdrawn],
        octets[22 + withdrawn],
    ]));
    let mut rest = &octets[23 + withdrawn..][..length];
    while let [flags, code, size, behind @ ..] = rest {
        let (size, value) = match (flags & 0x10, behind) {
            (0, _) => (usize::from(*size), behind),
            (_, [low, value @ ..]) => (usize::from(u16::from_be_bytes([*size, *low])), value),
            (_, []) => return false,
        };
        let Some((value, others)) = value.split_at_checked(size) else {
            return false;
        };
        let unicast = value.starts_with(&[0, 1, 1]) || value.starts_with(&[0, 2, 1]);
        if matches!(code, 14 | 15) && !unicast {
            return true;
        }
        rest = others;
    }
    false
}

/// Why `bgpkit-parser` may read other prefixes, if it may.
fn bgpkit_differs(update: &Update, session: Session) -> Option<&'static str> {
    // RFC 7911 §3 has path identifiers only where they were agreed on; it does not know, and guesses.
    if !session.add_path
        && prefixes(update)
            .iter()
            .any(|nlri| nlri.prefix.length() == 0)
    {
        return Some("a first octet of 0 taken for a path identifier");
    }
    // RFC 7606 §4 goes on with the prefixes; where the length itself is cut it does not.
    let cut = update.findings.iter().any(|found| {
        found.what.contains("longer than what is left") && matches!(found.octets.len(), 3)
    });
    cut.then_some("an attribute cut within its length")
}

/// Whether `bgpkit-parser` finds errors where we do, but for what only one of both looks at.
fn warned_alike(update: &Update, warnings: &[String], octets: &[u8]) -> bool {
    match (update.findings.is_empty(), warnings.is_empty()) {
        (true, true) | (false, false) => true,
        (false, true) => {
            let only_ours = [
                // RFC 7606 §4: it passes over the rest.
                "longer than what is left",
                // RFC 4271 §6.3.
                "well-known attribute is not known",
                // RFC 6793 §6: between speakers of four octets, and of six octets.
                "for peers with two-octet AS numbers only",
                "aggregator has a wrong length",
                // RFC 7607 §2.
                "has AS 0",
                // RFC 7606 §7.2: a segment of no numbers.
                "AS_PATH is malformed",
            ];
            let is_ours = |found: &Finding| {
                // RFC 7606 §4: lists of nothing, behind a header of three octets or four.
                let empty = found.what.contains("list has") && found.octets.len() <= 4;
                empty || only_ours.iter().any(|what| found.what.contains(what))
            };
            update.findings.iter().any(is_ours)
        }
        (true, false) => {
            let only_theirs = [
                // RFC 7606 §3 c names the bits Optional and Transitive alone; it looks at Partial.
                "flags error",
                // Attributes that we do not read.
                "AIGP",
                "BFD_DISCRIMINATOR",
                "BGP_DOMAIN_PATH",
                "BGP_LS_ATTRIBUTE",
                "BGP_PREFIX_SID",
                "BIER",
                "IPV6_ADDRESS_SPECIFIC_EXTENDED_COMMUNITIES",
                "ONLY_TO_CUSTOMER",
                "SFP_ATTRIBUTE",
                "TRAFFIC_ENGINEERING",
                "TUNNEL_ENCAPSULATION",
            ];
            let is_theirs =
                |warning: &String| only_theirs.iter().any(|what| warning.contains(what));
            has_other_family(octets) || warnings.iter().all(is_theirs)
        }
    }
}

/// Whether `bgpkit-parser` drops the segments of a confederation that lead a path of two octets;
/// RFC 6793 §4.2.3 keeps them.
fn bgpkit_loses_segments(update: &Update, session: Session) -> bool {
    let announced = update.announced.iter();
    !session.four_octet_as
        && announced
            .map(|one| &one.attributes)
            .any(|a| a.as_path.has_confederation())
}

/// Why `netgauze-bgp-pkt` refuses an UPDATE in which we find no error, if it may.
fn netgauze_refuses(words: &str, octets: &[u8]) -> Option<&'static str> {
    if words.contains("in MP ") && has_other_family(octets) {
        return Some("routes of a family that is not in use");
    }
    let classes = [
        // RFC 7606 §5.3 asks that a prefix's length fit, and no more.
        (
            "is not a valid IPv4 unicast",
            "multicast addresses in a prefix",
        ),
        (
            "is not a valid IPv6 unicast",
            "multicast addresses in a prefix",
        ),
        // RFC 7606 §3 c names the bits Optional and Transitive alone.
        ("Invalid partial flag", "the Partial bit of an attribute"),
        // RFC 5065 §5 forbids them from external peers; ours is internal.
        (
            "unknown AS_PATH segment type 3",
            "a confederation's segment",
        ),
        (
            "unknown AS_PATH segment type 4",
            "a confederation's segment",
        ),
        // RFC 6793 §4.2.3; here nobody puts them together for it.
        ("the paths are not as long", "paths to be put together"),
        // RFC 4271 §9 passes on, or over, what is not known.
    ];
    // RFC 4271 §9 passes on, or over, what is not known; it names these in its errors.
    let unread = [
        ("in AIGP", "AccumulatedIgp"),
        ("in IPv6 extended communities", "ExtendedCommunitiesIpv6"),
        ("in BGP-LS", "BgpLsAttribute"),
        ("in segment identifier", "BgpPrefixSid"),
        ("in only to customer", "OnlyToCustomer"),
    ];
    let found = classes.iter().find(|(sign, _)| words.contains(sign));
    let is_unread = |(place, name): &(&str, &str)| words.contains(place) || words.contains(name);
    match found {
        Some((_, class)) => Some(class),
        None => unread
            .iter()
            .any(is_unread)
            .then_some("an attribute that we do not read"),
    }
}

/// Both UPDATEs without what only one of both can say: where segments of paths end, and attributes that
/// we do not read and others do.
fn comparable(ours: &Update, mut theirs: Update) -> (Update, Update) {
    let mut ours = ours.clone();
    for (our, their) in ours.announced.iter_mut().zip(&mut theirs.announced) {
        let (our, their) = (&mut our.attributes, &mut their.attributes);
        our.as_path = joined(&our.as_path);
        their.as_path = joined(&their.as_path);
        let known = |code| their.unknown.iter().any(|unknown| unknown.code == code);
        our.unknown.retain(|unknown| known(unknown.code));
    }
    (ours, theirs)
}

/// Mutates and compares; returns how often was what.
fn compare(session: Session, rounds: u64) -> BTreeMap<&'static str, u64> {
    let corpus = corpus(session);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut counts = BTreeMap::new();
    for _ in 0..rounds {
        let mut octets = corpus[random(&mut state) % corpus.len()].clone();
        mutate(&mut octets, &mut state);
        let mut count = |what| *counts.entry(what).or_default() += 1;
        let Ok(Message::Update(update)) = message::decode(&octets, &session.context()) else {
            count("refused by us");
            continue;
        };
        let shown = || format!("{octets:02x?}\n{update:#?}");
        let right = update.findings.is_empty();
        let withdraws = |found: &Finding| found.action == ErrorAction::TreatAsWithdraw;
        if update.findings.iter().any(withdraws) {
            assert!(update.announced.is_empty(), "{}", shown());
            count("treated as withdraw");
        }
        // Prefixes first: they are what RFC 7606 needs whatever else is wrong.
        match bgpkit_differs(&update, session) {
            Some(class) => count(class),
            None => {
                let reading = bgpkit::read_update(&octets, session);
                let reading = reading.unwrap_or_else(|e| panic!("bgpkit-parser: {e}: {}", shown()));
                let ours = prefixes(&update);
                assert_eq!(reading.prefixes(), ours, "bgpkit-parser: {}", shown());
                count("prefixes agreed on with bgpkit-parser");
                let alike = warned_alike(&update, &reading.warnings, &octets);
                assert!(alike, "bgpkit-parser: {:?}: {}", reading.warnings, shown());
                if right && bgpkit_loses_segments(&update, session) {
                    count("a confederation's segment before a path put together");
                } else if right {
                    let theirs = reading.update().unwrap_or_else(|| panic!("{}", shown()));
                    let (ours, theirs) = comparable(&update, theirs);
                    assert_eq!(theirs, ours, "bgpkit-parser: {}", shown());
                    count("routes agreed on with bgpkit-parser");
                }
            }
        }
        let mut communities = update
            .announced
            .iter()
            .flat_map(|one| &one.attributes.extended_communities);
        if !communities.all(netgauze::keeps) {
            count("extended communities that netgauze-bgp-pkt changes");
            continue;
        }
        match netgauze::read_update(&octets, session) {
            Ok(reading) if right => {
                let theirs = reading.update().unwrap_or_else(|| panic!("{}", shown()));
                let (ours, theirs) = comparable(&update, theirs);
                assert_eq!(theirs, ours, "netgauze-bgp-pkt: {}", shown());
                count("routes agreed on with netgauze-bgp-pkt");
            }
            Ok(_) => count("errors that netgauze-bgp-pkt does not see"),
            Err(error) if right => match netgauze_refuses(&error, &octets) {
                Some(class) => count(class),
                None => panic!("netgauze-bgp-pkt: {error}: {}", shown()),
            },
            Err(_) => count("errors agreed on with netgauze-bgp-pkt"),
        }
    }
    counts
}

#[test]
fn others_read_the_same_routes() {
    let rounds: u64 = match std::env::var("MARGAY_BGP_MUTATIONS") {
        Ok(told) => told.parse().unwrap(),
        Err(_) => 60_000,
    };
    for four_octet_as in [true, false] {
        for add_path in [false, true] {
            let session = Session {
                four_octet_as,
                add_path,
            };
            let counts = compare(session, rounds / 4);
            println!("{session:?}: {counts:#?}");
            for enough in [
                "refused by us",
                "prefixes agreed on with bgpkit-parser",
                "routes agreed on with bgpkit-parser",
                "routes agreed on with netgauze-bgp-pkt",
                "errors agreed on with netgauze-bgp-pkt",
                "treated as withdraw",
            ] {
                let count = counts.get(enough).copied().unwrap_or(0);
                assert!(count > rounds / 400, "{enough}: {counts:#?}");
            }
        }
    }
}
