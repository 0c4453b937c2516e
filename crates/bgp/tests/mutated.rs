//! Messages that were right before some octets changed hurt nobody but the session they come on.
//!
//! `MARGAY_BGP_MUTATIONS` is how many are tried (default 60,000).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use margay_bgp::message::{self, Context, Message, Nlri, Open};
use margay_bgp::{
    AddPath, AsPath, Attributes, Capability, Community, ConnectionId, Families, NextHop, Output,
    PeerConfig, Policy, RemoteAs, Speaker, SpeakerConfig, State,
};
use margay_model::Family;
use margay_model::scalar::AsNumber;

/// A generator that needs no state but a number.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap()
}

/// A peer that says nothing wrong, and reads all that it is told.
struct Bystander {
    name: &'static str,
    asn: u32,
    address: Ipv4Addr,
    /// Whether it has AS numbers of four octets.
    four_octet_as: bool,
    /// What the speaker and it agree on.
    context: Context,
    connection: Option<ConnectionId>,
    /// What was sent and is not read yet.
    stream: Vec<u8>,
    updates: u64,
}

impl Bystander {
    fn new(name: &'static str, asn: u32, address: [u8; 4], four_octet_as: bool) -> Self {
        let context = Context {
            external: asn != OWN_AS,
            four_octet_as,
            families: Families::BOTH,
            ..Context::NONE
        };
        Self {
            name,
            asn,
            address: address.into(),
            four_octet_as,
            context,
            connection: None,
            stream: Vec::new(),
            updates: 0,
        }
    }

    fn config(&self) -> PeerConfig {
        let remote = RemoteAs::Is(AsNumber(self.asn));
        let mut peer = PeerConfig::new(self.address.into(), remote);
        (peer.passive, peer.families) = (true, Families::BOTH);
        peer.reflector_client = self.asn == OWN_AS;
        peer.import = Some(Policy::accept_all());
        peer.export = Some(Policy::accept_all());
        peer
    }

    fn hello(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        let open = open(self.asn, self.address, self.four_octet_as);
        message::encode_open(&mut octets, &open);
        message::keepalive(&mut octets);
        octets
    }

    /// Reads what came: every message must be whole and right.
    fn read(&mut self, octets: &[u8]) {
        self.stream.extend(octets);
        let mut rest = self.stream.as_slice();
        while let Some(size) = message::frame(rest).unwrap() {
            let (one, others) = rest.split_at(size);
            match message::decode(one, &self.context).unwrap() {
                Message::Update(update) => {
                    assert_eq!(update.findings, [], "{}", self.name);
                    self.updates += 1;
                }
                Message::Notification(told) => panic!("{} is told {told}", self.name),
                _ => {}
            }
            rest = others;
        }
        self.stream = rest.to_vec();
    }
}

fn open(asn: u32, router_id: Ipv4Addr, four_octet_as: bool) -> Open {
    let mut capabilities = vec![
        Capability::Multiprotocol(Family::V4),
        Capability::Multiprotocol(Family::V6),
        Capability::EnhancedRefresh,
    ];
    if four_octet_as {
        capabilities.push(Capability::FourOctetAs(AsNumber(asn)));
    }
    Open {
        asn: AsNumber(asn),
        hold_time: 90,
        router_id,
        capabilities,
    }
}

/// Messages of the peer that are right; the last is its OPEN.
fn corpus() -> Vec<Vec<u8>> {
    let context = Context {
        external: false,
        four_octet_as: true,
        families: Families::BOTH,
        ..Context::NONE
    };
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let mut attributes = Attributes::local("10.0.0.2".parse().unwrap());
    attributes.as_path = AsPath::sequence([65001, 70000]);
    attributes.communities = vec![Community(7), Community::NO_LLGR];
    attributes.cluster_list = vec![Ipv4Addr::new(9, 9, 9, 9)];
    let four: Vec<_> = (0..10_u8)
        .map(|n| Nlri {
            prefix: format!("10.65.{n}.0/26").parse().unwrap(),
            path_id: 0,
        })
        .collect();
    let six = [Nlri {
        prefix: "fd00:65::/64".parse().unwrap(),
        path_id: 0,
    }];
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = Vec::new();
        write(&mut octets);
        corpus.push(octets);
    };
    add(&|out| message::announcements(out, &context, Family::V4, &attributes, &four).unwrap());
    let mut sixth = attributes.clone();
    sixth.next_hop = NextHop::new("fd00::2".parse().unwrap());
    add(&|out| message::announcements(out, &context, Family::V6, &sixth, &six).unwrap());
    add(&|out| message::withdrawals(out, &context, Family::V4, &four));
    add(&|out| message::withdrawals(out, &context, Family::V6, &six));
    add(&|out| message::end_of_rib(out, Family::V6));
    let open = open(OWN_AS, Ipv4Addr::new(10, 0, 0, 2), true);
    add(&|out| message::encode_open(out, &open));
    corpus
}

/// Changes up to three octets, and cuts one message of five.
fn mutate(octets: &mut Vec<u8>, state: &mut u64) {
    for _ in 0..random(state) % 4 {
        let place = 16 + random(state) % (octets.len() - 16);
        octets[place] = u8::try_from(random(state) % 256).unwrap();
    }
    if random(state).is_multiple_of(5) {
        let cut = 19 + random(state) % (octets.len() - 18);
        octets.truncate(cut);
        // A length that fits, so that the cut is seen.
        let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
        octets[16..18].copy_from_slice(&length);
    }
}

/// One peer of a reflector sends such messages. The speaker never panics, it survives to speak with
/// that peer again, and its counts stay right; sessions with others last, and what these are told
/// is well-formed.
#[test]
fn mutated_messages_hurt_nobody() {
    let rounds: u64 = match std::env::var("MARGAY_BGP_MUTATIONS") {
        Ok(told) => told.parse().unwrap(),
        Err(_) => ROUNDS,
    };
    let mut bystanders = [
        Bystander::new("client", OWN_AS, [10, 0, 0, 3], true),
        Bystander::new("router", 65002, [10, 0, 0, 4], true),
        Bystander::new("old router", 65003, [10, 0, 0, 5], false),
    ];
    let mut config = SpeakerConfig::new(AsNumber(OWN_AS), "10.0.0.1".parse().unwrap());
    config.address_v6 = Some("fd00::1".parse().unwrap());
    let mut peer = PeerConfig::new("10.0.0.2".parse().unwrap(), RemoteAs::Internal);
    (peer.passive, peer.families) = (true, Families::BOTH);
    peer.add_path = AddPath {
        receive: true,
        send: 2,
    };
    peer.timers.error_wait = Duration::ZERO;
    peer.timers.error_wait_max = Duration::ZERO;
    config.peers.insert("peer".to_owned(), peer);
    for bystander in &bystanders {
        let name = bystander.name.to_owned();
        config.peers.insert(name, bystander.config());
    }
    let mut speaker = Speaker::new(config, Duration::ZERO, 1, false);

    let corpus = corpus();
    let [local, remote]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
    let (mut state, mut now, mut sessions) = (0x9e37_79b9_7f4a_7c15_u64, Duration::ZERO, 0);
    for bystander in &mut bystanders {
        let accepted = speaker.accept(now, local, bystander.address.into());
        let (id, _) = accepted.unwrap();
        speaker.received(now, id, &bystander.hello());
        bystander.connection = Some(id);
    }
    let mut alive = Vec::new();
    message::keepalive(&mut alive);
    let mut connection = None;
    for round in 0..rounds {
        now += Duration::from_millis(1);
        if round % KEEPALIVE_ROUNDS == 0 {
            speaker.tick(now);
            for id in bystanders.iter().filter_map(|one| one.connection) {
                speaker.received(now, id, &alive);
            }
        }
        if connection.is_none() {
            speaker.tick(now);
            if let Ok((id, _)) = speaker.accept(now, local, remote) {
                let mut hello = corpus.last().unwrap().clone();
                message::keepalive(&mut hello);
                speaker.received(now, id, &hello);
                sessions += 1;
                connection = Some(id);
            }
        }
        if let Some(id) = connection {
            let mut octets = corpus[random(&mut state) % corpus.len()].clone();
            mutate(&mut octets, &mut state);
            speaker.received(now, id, &octets);
        }
        for output in speaker.poll(now) {
            match output {
                Output::Close {
                    connection: closed, ..
                } => {
                    let lost = bystanders.iter().find(|one| one.connection == Some(closed));
                    assert!(lost.is_none(), "{} lost", lost.unwrap().name);
                    if connection == Some(closed) {
                        connection = None;
                    }
                }
                Output::Transmit(id) => {
                    let mut out = Vec::new();
                    while speaker.transmit(now, id, &mut out) {}
                    let reader = bystanders.iter_mut().find(|one| one.connection == Some(id));
                    if let Some(reader) = reader {
                        reader.read(&out);
                    }
                }
                _ => {}
            }
        }
    }
    assert!(sessions > 100, "{sessions}");
    for bystander in &bystanders {
        assert!(bystander.updates > 100, "{}", bystander.name);
    }
    for status in speaker.peers() {
        let name: &str = &status.name;
        if name != "peer" {
            assert_eq!(status.state, State::Established, "{name}");
            continue;
        }
        let counters = &status.counters;
        assert!(counters.treated_as_withdraw > 100, "{counters:?}");
        let received = speaker.received_routes(name).unwrap();
        let counted = status.prefixes.v4.received + status.prefixes.v6.received;
        assert_eq!(usize::try_from(counted).unwrap(), received.len());
        let accepted = received.iter().filter(|route| route.rejected.is_none());
        let counted = status.prefixes.v4.accepted + status.prefixes.v6.accepted;
        assert_eq!(usize::try_from(counted).unwrap(), accepted.count());
    }
}

const OWN_AS: u32 = 64512;
const ROUNDS: u64 = 60_000;
/// A round is a millisecond, and the hold time is 90 s.
const KEEPALIVE_ROUNDS: u64 = 10_000;
