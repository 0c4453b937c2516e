//! Configurations: their text, and that BIRD takes them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::policy::{Interfaces, Owners, PrefixMatch, PrefixOperator, PrefixSet};
use margay_bgp::{
    Condition, Families, LocalRoute, MaxPrefixes, NextHopMode, Operation, OverLimit, Password,
    PeerConfig, Policy, RemoteAs, Rule, SpeakerConfig, TtlMode, Verdict,
};
use margay_bird::{Configuration, Daemon, configuration};
use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn internal() -> RemoteAs {
    RemoteAs::Is(AsNumber(64512))
}

/// What a test has BIRD do.
struct Wanted {
    speaker: SpeakerConfig,
    routes: BTreeMap<Cidr, LocalRoute>,
    spared: PrefixSet,
    workloads: BTreeSet<IpAddr>,
    port: u16,
    own_addresses_only: bool,
}

impl Wanted {
    fn new() -> Self {
        let mut speaker = SpeakerConfig::new(AsNumber(64512), "10.0.0.1".parse().unwrap());
        speaker.address_v4 = Some("10.0.0.1".parse().unwrap());
        Self {
            speaker,
            routes: BTreeMap::new(),
            spared: PrefixSet::default(),
            workloads: BTreeSet::new(),
            port: 179,
            own_addresses_only: false,
        }
    }

    fn peer(&mut self, name: &str, peer: PeerConfig) {
        self.speaker.peers.insert(name.to_owned(), peer);
    }

    fn route(&mut self, prefix: &str, tag: u32) -> &mut LocalRoute {
        let route = LocalRoute {
            tag,
            ..LocalRoute::new(cidr(prefix))
        };
        self.routes.entry(cidr(prefix)).or_insert(route)
    }

    fn made(&self) -> Configuration {
        configuration(&Daemon {
            speaker: &self.speaker,
            routes: &self.routes,
            port: self.port,
            own_addresses_only: self.own_addresses_only,
            priorities: (1024, 1025),
            spared: &self.spared,
            workloads: &self.workloads,
            persist: true,
        })
    }
}

/// Has the real BIRD read a configuration.
#[track_caller]
fn read_by_bird(text: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bird.conf");
    std::fs::write(&file, text).unwrap();
    let output = std::process::Command::new("bird")
        .arg("-p")
        .arg("-c")
        .arg(&file)
        .output()
        .expect("bird is installed; see scripts/setup");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{text}");
}

fn policy(name: &str, rules: Vec<Rule>, otherwise: Verdict) -> Option<Arc<Policy>> {
    Some(Arc::new(Policy {
        name: name.to_owned(),
        rules,
        otherwise,
    }))
}

/// A node of a mesh that is a reflector too, with a router: as `margay-peering` makes it.
fn node() -> Wanted {
    let mut wanted = Wanted::new();
    wanted.speaker.address_v6 = Some("fd00::1".parse().unwrap());
    wanted.speaker.cluster_id = Some("1.2.3.4".parse().unwrap());
    wanted.speaker.multipath = 64.try_into().unwrap();
    wanted.port = 1790;
    wanted.own_addresses_only = true;
    wanted.route("192.168.1.0/26", 1);
    let borrowed = wanted.route("192.168.9.9/32", 2);
    borrowed.priority = Some(512);
    borrowed.interface = Some("cali12".into());
    borrowed.local_pref = Some(200);
    borrowed.med = Some(5);
    borrowed.communities = vec!["65000:7".parse().unwrap()];
    borrowed.large_communities = vec!["65000:1:2".parse().unwrap()];
    wanted.route("fd00:10::/122", 1);
    wanted.spared = PrefixSet::within([cidr("192.168.1.0/26")]);
    wanted.spared.insert(cidr("192.168.2.0/26"), 26, 26);
    let owners = Owners {
        by_prefix: BTreeMap::from([
            (
                cidr("192.168.2.0/26"),
                BTreeSet::from([address("10.0.0.2")]),
            ),
            (
                cidr("192.168.3.0/26"),
                BTreeSet::from([address("10.0.0.3")]),
            ),
            (
                cidr("192.168.2.7/32"),
                BTreeSet::from([address("10.0.0.3")]),
            ),
            (cidr("192.168.4.0/26"), BTreeSet::new()),
        ]),
        reflectors: BTreeSet::from([address("10.0.0.9")]),
    };
    let pools = || Condition::PrefixSet(Arc::new(PrefixSet::within([cidr("192.168.0.0/16")])));
    let of_nodes = Condition::All(vec![pools(), Condition::Owner(Arc::new(owners))]);
    let import = policy(
        "import",
        vec![Rule::new(
            "not of a pool, or not from its owner",
            vec![Condition::Not(Box::new(of_nodes))],
            Verdict::Reject,
        )],
        Verdict::Accept,
    );
    let export = policy(
        "export",
        vec![
            Rule::change(
                "prefixAdvertisements 192.168.0.0/16",
                vec![pools()],
                vec![Operation::AddCommunity("65000:9".parse().unwrap())],
            ),
            Rule::new(
                "own block or service",
                vec![Condition::Any(vec![Condition::Tag(1), Condition::Tag(3)])],
                Verdict::Accept,
            ),
            Rule::new(
                "route of a peer",
                vec![Condition::FromPeers, Condition::Any(vec![pools()])],
                Verdict::Accept,
            ),
        ],
        Verdict::Reject,
    );
    for (name, own, far) in [
        ("Mesh_10_0_0_2", "10.0.0.1", "10.0.0.2"),
        ("Mesh_fd00__2", "fd00::1", "fd00::2"),
    ] {
        let mut peer = PeerConfig::new(address(far), internal());
        peer.label = "node-to-node mesh".to_owned();
        peer.source = Some(address(own));
        peer.ttl = TtlMode::Multihop(64);
        peer.passive = true;
        peer.reflector_client = true;
        peer.password = Some(Password::new("secret of two words").unwrap());
        peer.add_path.receive = true;
        peer.import.clone_from(&import);
        peer.export.clone_from(&export);
        wanted.peer(name, peer);
    }
    let mut router = PeerConfig::new(address("10.0.0.254"), RemoteAs::Is(AsNumber(65001)));
    router.port = 1179;
    router.source = Some(address("10.0.0.1"));
    router.ttl = TtlMode::Security(1);
    router.local_as = Some(AsNumber(4_200_000_000));
    router.allow_own_as = 2;
    router.timers.keepalive = Some(Duration::from_secs(10));
    router.graceful_restart.restart_time = Duration::from_secs(300);
    router.graceful_restart.long_lived = Some(Duration::from_secs(3600));
    router.max_prefixes.v4 = Some(MaxPrefixes {
        limit: 1000,
        over: OverLimit::Discard,
    });
    router.next_hop = NextHopMode::Own;
    router.import = Some(Policy::accept_all());
    router.export = export;
    wanted.peer("Global_10_0_0_254", router);
    wanted
}

#[test]
fn a_nodes_configuration_is_as_it_was() {
    let made = node().made();
    assert_eq!(made.left_out, BTreeMap::new());
    assert_eq!(made.text, include_str!("recorded/node.conf"));
    read_by_bird(&made.text);
    assert_eq!(node().made(), made);
}

#[test]
fn routes_to_workloads_with_sessions_lead_to_next_hops() {
    let mut wanted = Wanted::new();
    wanted.spared = PrefixSet::within([cidr("192.168.1.0/26")]);
    wanted.workloads = BTreeSet::from([address("192.168.1.5"), address("fd65::5")]);
    let made = wanted.made();
    assert!(
        made.text
            .contains("import filter { if net ~ [ 192.168.1.5/32 ] then accept; if (krt_source"),
        "{}",
        made.text
    );
    read_by_bird(&made.text);
}

#[test]
fn a_node_without_peers_has_a_configuration_too() {
    read_by_bird(&Wanted::new().made().text);
}

/// Every condition, alone and in company, in both directions.
#[test]
fn every_condition_and_operation_is_known_to_bird() {
    use PrefixOperator::{Equal, In, NotEqual, NotIn};
    let own: BTreeSet<IpAddr> = BTreeSet::from([address("10.0.0.2"), address("fd00::2")]);
    let mut conditions = vec![
        Condition::PrefixSet(Arc::new(PrefixSet::within([]))),
        Condition::PrefixSet(Arc::new(PrefixSet::exactly([
            cidr("10.0.0.0/8"),
            cidr("fd00::/8"),
        ]))),
        Condition::Family(Family::V4),
        Condition::FromPeers,
        Condition::Local,
        Condition::Tag(7),
        Condition::Interface(Interfaces("cali*".to_owned())),
        Condition::Interface(Interfaces("eth*".to_owned())),
        Condition::Community("65000:7".parse().unwrap()),
        Condition::LargeCommunity("4200000000:1:2".parse().unwrap()),
        Condition::AsPathPrefix(vec![]),
        Condition::AsPathPrefix(vec![AsNumber(65001), AsNumber(4_200_000_000)]),
        Condition::Priority(0),
        Condition::Priority(1024),
        Condition::Priority(2_147_483_647),
        Condition::Priority(u32::MAX),
        Condition::External,
        Condition::Internal,
        Condition::NextHop(Arc::new(own)),
        Condition::NextHop(Arc::new(BTreeSet::new())),
        Condition::Owner(Arc::new(Owners::default())),
        Condition::Not(Box::new(Condition::Any(vec![]))),
        Condition::Any(vec![Condition::FromPeers, Condition::Tag(1)]),
        Condition::All(vec![
            Condition::Local,
            Condition::Not(Box::new(Condition::Tag(1))),
        ]),
    ];
    for operator in [Equal, NotEqual, In, NotIn] {
        for (min, max) in [
            (None, None),
            (Some(8), Some(26)),
            (Some(30), Some(20)),
            (None, Some(4)),
        ] {
            for prefix in ["10.65.0.0/16", "fd00::/48"] {
                conditions.push(Condition::Prefix(PrefixMatch {
                    cidr: cidr(prefix),
                    operator,
                    min,
                    max,
                }));
            }
        }
    }
    let operations = vec![
        Operation::AddCommunity("65000:7".parse().unwrap()),
        Operation::AddLargeCommunity("65000:1:2".parse().unwrap()),
        Operation::RemoveCommunity("65000:7".parse().unwrap()),
        Operation::RemoveLargeCommunity("65000:1:2".parse().unwrap()),
        Operation::ClearCommunities,
        Operation::PrependAs(vec![AsNumber(1), AsNumber(4_200_000_000)]),
        Operation::SetLocalPref(7),
        Operation::SetPriority(512),
        Operation::SetMed(Some(1)),
        Operation::SetMed(None),
        Operation::SetNextHop(NextHopMode::Auto),
    ];
    let mut rules = Vec::new();
    for (number, condition) in conditions.iter().enumerate() {
        let name = format!("rule {number} \"}}\n{{");
        let company = vec![condition.clone(), Condition::FromPeers];
        rules.push(Rule::change(
            name.clone(),
            vec![condition.clone()],
            operations.clone(),
        ));
        rules.push(Rule::new(name.clone(), company, Verdict::Accept));
        let inverse = Condition::Not(Box::new(condition.clone()));
        rules.push(Rule::new(name, vec![inverse], Verdict::Reject));
    }
    let mut wanted = Wanted::new();
    wanted.route("192.168.1.0/26", 1).interface = Some("cali1".into());
    for (name, remote) in [("inside", internal()), ("outside", RemoteAs::External)] {
        let mut peer = PeerConfig::new(address("10.0.0.2"), remote);
        peer.families = Families::BOTH;
        peer.extended_next_hop = true;
        peer.import = policy("import\n", rules.clone(), Verdict::Accept);
        peer.export = policy("export", rules.clone(), Verdict::Reject);
        wanted.peer(name, peer);
    }
    let made = wanted.made();
    assert_eq!(made.left_out, BTreeMap::new());
    read_by_bird(&made.text);
}

#[test]
fn peers_that_bird_cannot_have_are_left_out_with_the_reason() {
    let plain = || PeerConfig::new(address("10.0.0.2"), internal());
    let cases: [(&str, PeerConfig, &str); 8] = [
        ("a b", plain(), "no name for BIRD"),
        (
            "any",
            PeerConfig {
                remote_as: RemoteAs::Any,
                ..plain()
            },
            "of our AS",
        ),
        (
            "scope",
            PeerConfig {
                scope: 3,
                ..plain()
            },
            "link-local",
        ),
        (
            "client",
            PeerConfig {
                remote_as: RemoteAs::External,
                reflector_client: true,
                ..plain()
            },
            "reflector's client",
        ),
        (
            "paths",
            PeerConfig {
                add_path: margay_bgp::AddPath {
                    receive: false,
                    send: 2,
                },
                ..plain()
            },
            "number of paths",
        ),
        (
            "word",
            PeerConfig {
                password: Some(Password::new("say \"friend\"").unwrap()),
                ..plain()
            },
            "quotation mark",
        ),
        (
            "hold",
            {
                let mut peer = plain();
                peer.timers.send_hold = Some(Duration::from_secs(9));
                peer
            },
            "send hold",
        ),
        (
            "hop",
            PeerConfig {
                export: policy(
                    "export",
                    vec![Rule::change(
                        "keep",
                        Vec::new(),
                        vec![Operation::SetNextHop(NextHopMode::Keep)],
                    )],
                    Verdict::Accept,
                ),
                ..plain()
            },
            "nextHopMode",
        ),
    ];
    let mut wanted = Wanted::new();
    wanted.peer("good", plain());
    for (name, peer, _) in &cases {
        wanted.peer(name, peer.clone());
    }
    let made = wanted.made();
    read_by_bird(&made.text);
    assert!(made.text.contains("protocol bgp 'good'"));
    assert_eq!(made.left_out.len(), cases.len());
    for (name, _, reason) in cases {
        assert!(
            made.left_out[name].contains(reason),
            "{}",
            made.left_out[name]
        );
        assert!(!made.text.contains(&format!("protocol bgp '{name}'")));
    }
}
