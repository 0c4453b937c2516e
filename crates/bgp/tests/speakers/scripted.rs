//! A speaker against a peer that says what no speaker of ours would.

use std::net::IpAddr;
use std::time::Duration;

use margay_bgp::message::{self, Context, Message, Nlri, Open};
use margay_bgp::{
    Attributes, Capability, Code, ConnectionId, Event, Families, Notification, Output, PeerConfig,
    RemoteAs, Speaker, SpeakerConfig, State,
};
use margay_model::Family;
use margay_model::scalar::AsNumber;

const CONTEXT: Context = Context {
    external: false,
    four_octet_as: true,
    families: Families::BOTH,
    add_path: Families::NONE,
    extended_next_hop: false,
};

struct Script {
    now: Duration,
    speaker: Speaker,
    connection: ConnectionId,
    heard: Vec<Message>,
    events: Vec<Event>,
    closed: bool,
}

impl Script {
    fn new(change: impl FnOnce(&mut PeerConfig)) -> Self {
        let mut config = SpeakerConfig::new(AsNumber(64512), "10.0.0.1".parse().unwrap());
        let mut peer = PeerConfig::new("10.0.0.2".parse().unwrap(), RemoteAs::Internal);
        peer.passive = true;
        change(&mut peer);
        config.peers.insert("peer".to_owned(), peer);
        let mut speaker = Speaker::new(config, Duration::ZERO, 1, false);
        let [local, remote]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let (connection, _) = speaker.accept(Duration::ZERO, local, remote).unwrap();
        let mut script = Self {
            now: Duration::ZERO,
            speaker,
            connection,
            heard: Vec::new(),
            events: Vec::new(),
            closed: false,
        };
        script.poll();
        script
    }

    fn up(change: impl FnOnce(&mut PeerConfig), capabilities: Vec<Capability>) -> Self {
        let mut script = Self::new(change);
        script.say(|out| message::encode_open(out, &open(capabilities)));
        script.say(message::keepalive);
        assert_eq!(script.state(), State::Established);
        script
    }

    fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut octets = Vec::new();
        write(&mut octets);
        self.speaker.received(self.now, self.connection, &octets);
        self.poll();
    }

    fn announce(&mut self, attributes: &Attributes, prefix: &str) {
        let list = [Nlri {
            prefix: prefix.parse().unwrap(),
            path_id: 0,
        }];
        self.say(|out| {
            message::announcements(out, &CONTEXT, Family::V4, attributes, &list).unwrap();
        });
    }

    fn poll(&mut self) {
        for output in self.speaker.poll(self.now) {
            match output {
                Output::Transmit(connection) => {
                    let mut octets = Vec::new();
                    while self.speaker.transmit(self.now, connection, &mut octets) {}
                    self.hear(&octets);
                }
                Output::Close { last, .. } => {
                    self.hear(&last);
                    self.closed = true;
                }
                Output::Event(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn hear(&mut self, mut octets: &[u8]) {
        while let Some(size) = message::frame(octets).unwrap() {
            let (one, rest) = octets.split_at(size);
            self.heard.push(message::decode(one, &CONTEXT).unwrap());
            octets = rest;
        }
        assert!(octets.is_empty());
    }

    fn state(&self) -> State {
        self.speaker.peers()[0].state
    }

    fn told(&self) -> Option<Notification> {
        self.heard.iter().find_map(|message| match message {
            Message::Notification(told) => Some(told.clone()),
            _ => None,
        })
    }
}

fn open(capabilities: Vec<Capability>) -> Open {
    Open {
        asn: AsNumber(64512),
        hold_time: 90,
        router_id: "10.0.0.2".parse().unwrap(),
        capabilities,
    }
}

fn usual() -> Vec<Capability> {
    vec![
        Capability::Multiprotocol(Family::V4),
        Capability::FourOctetAs(AsNumber(64512)),
    ]
}

#[test]
fn messages_must_fit_the_state() {
    let mut script = Script::new(|_| ());
    script.say(message::keepalive);
    assert_eq!(
        script.told(),
        Some(Notification::new(Code::StateMachine, 1))
    );
    assert!(script.closed);

    let mut script = Script::new(|_| ());
    script.say(|out| message::encode_open(out, &open(usual())));
    assert_eq!(script.state(), State::OpenConfirm);
    script.say(|out| message::end_of_rib(out, Family::V4));
    assert_eq!(
        script.told(),
        Some(Notification::new(Code::StateMachine, 2))
    );

    let mut script = Script::up(|_| (), usual());
    script.say(|out| message::encode_open(out, &open(usual())));
    assert_eq!(
        script.told(),
        Some(Notification::new(Code::StateMachine, 3))
    );
}

#[test]
fn octets_arrive_one_by_one() {
    let mut script = Script::new(|_| ());
    let mut octets = Vec::new();
    message::encode_open(&mut octets, &open(usual()));
    message::keepalive(&mut octets);
    let attributes = Attributes::local("10.0.0.2".parse().unwrap());
    let list = [Nlri {
        prefix: "10.65.0.0/24".parse().unwrap(),
        path_id: 0,
    }];
    message::announcements(&mut octets, &CONTEXT, Family::V4, &attributes, &list).unwrap();
    for octet in octets {
        script
            .speaker
            .received(script.now, script.connection, &[octet]);
    }
    script.poll();
    assert_eq!(script.state(), State::Established);
    assert_eq!(script.speaker.table().count(), 1);
}

#[test]
fn a_peer_without_capabilities_speaks_ipv4() {
    let mut script = Script::up(|peer| peer.families = Families::BOTH, Vec::new());
    let status = script.speaker.peers().remove(0);
    assert_eq!(status.families, Families::V4);
    // Two-octet paths.
    let short = Context {
        four_octet_as: false,
        ..CONTEXT
    };
    let mut attributes = Attributes::local("10.0.0.2".parse().unwrap());
    attributes.as_path = margay_bgp::AsPath::sequence([65001, 70000]);
    let list = [Nlri {
        prefix: "10.65.0.0/24".parse().unwrap(),
        path_id: 0,
    }];
    script.say(|out| {
        message::announcements(out, &short, Family::V4, &attributes, &list).unwrap();
    });
    let entry = script.speaker.table().next().unwrap();
    assert_eq!(entry.paths[0].attributes.as_path.to_string(), "65001 70000");
}

#[test]
fn an_error_in_an_attribute_withdraws_and_nothing_more() {
    let mut script = Script::up(|_| (), usual());
    let attributes = Attributes::local("10.0.0.2".parse().unwrap());
    script.announce(&attributes, "10.65.0.0/24");
    script.announce(&attributes, "10.66.0.0/24");
    assert_eq!(script.speaker.table().count(), 2);
    // ORIGIN of 7.
    script.say(|out| {
        let start = out.len();
        let list = [Nlri {
            prefix: "10.65.0.0/24".parse().unwrap(),
            path_id: 0,
        }];
        message::announcements(out, &CONTEXT, Family::V4, &attributes, &list).unwrap();
        out[start + 19 + 4 + 3] = 7;
    });
    assert_eq!(script.state(), State::Established);
    let left: Vec<_> = script
        .speaker
        .table()
        .map(|entry| entry.prefix.to_string())
        .collect();
    assert_eq!(left, ["10.66.0.0/24"]);
    assert_eq!(script.speaker.peers()[0].counters.treated_as_withdraw, 1);
    let detail = script.events.iter().find_map(|event| match event {
        Event::AttributeError { detail, .. } => Some(detail.as_str()),
        _ => None,
    });
    assert_eq!(
        detail,
        Some(
            "attribute 1: ORIGIN has an unknown value; routes taken as withdrawn; octets 40010107"
        )
    );
}

#[test]
fn impossible_next_hops_are_not_used() {
    let mut script = Script::up(|_| (), usual());
    for hop in [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.5",
        "255.255.255.255",
        "10.0.0.1",
    ] {
        script.announce(&Attributes::local(hop.parse().unwrap()), "10.65.0.0/24");
        assert_eq!(script.speaker.table().count(), 0, "{hop}");
        let received = script.speaker.received_routes("peer").unwrap();
        let reason = received[0].rejected.as_deref();
        assert_eq!(
            reason,
            Some("the next hop is no unicast address, or our own")
        );
    }
    script.announce(
        &Attributes::local("10.0.0.9".parse().unwrap()),
        "10.65.0.0/24",
    );
    assert_eq!(script.speaker.table().count(), 1);
}

#[test]
fn our_own_reflected_routes_come_back_in_vain() {
    let mut script = Script::up(|_| (), usual());
    let mut attributes = Attributes::local("10.0.0.9".parse().unwrap());
    attributes.originator_id = Some("10.0.0.1".parse().unwrap());
    attributes.cluster_list = vec!["9.9.9.9".parse().unwrap()];
    script.announce(&attributes, "10.65.0.0/24");
    let received = script.speaker.received_routes("peer").unwrap();
    assert_eq!(
        received[0].rejected.as_deref(),
        Some("we are the originator")
    );
}

#[test]
fn a_new_connection_of_a_restarted_peer_takes_over() {
    let graceful = Capability::GracefulRestart {
        restarted: true,
        notification: false,
        time: 120,
        families: vec![message::GracefulFamily {
            family: Family::V4,
            forwarding: true,
        }],
    };
    for restartable in [true, false] {
        let mut capabilities = usual();
        if restartable {
            capabilities.push(graceful.clone());
        }
        let mut script = Script::up(|_| (), capabilities.clone());
        script.announce(
            &Attributes::local("10.0.0.9".parse().unwrap()),
            "10.65.0.0/24",
        );
        let [local, remote]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let (second, _) = script.speaker.accept(script.now, local, remote).unwrap();
        script.poll();
        let first = std::mem::replace(&mut script.connection, second);
        script.say(|out| message::encode_open(out, &open(capabilities)));
        if restartable {
            script.say(message::keepalive);
            assert_eq!(script.state(), State::Established);
            let received = script.speaker.received_routes("peer").unwrap();
            assert!(received[0].stale);
            script.say(|out| message::end_of_rib(out, Family::V4));
            assert_eq!(script.speaker.table().count(), 0);
        } else {
            // RFC 4271 §6.8: the session that is up stays.
            assert_eq!(script.told().map(|told| told.subcode), Some(7));
            script.connection = first;
            assert_eq!(script.state(), State::Established);
            assert_eq!(script.speaker.table().count(), 1);
        }
    }
}
