//! Random clusters, their changes, and packets among their addresses.

use std::net::IpAddr;

use margay_model::Kind;
use margay_policy::ServicePort;
use margay_policy::evaluator::Packet;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Change, resource};

const NAMESPACES: [&str; 2] = ["a", "b"];
const V4: [&str; 6] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.1.1",
    "192.0.2.1",
    "192.0.2.9",
];
const V6: [&str; 3] = ["fd00::1", "fd00::2", "2001:db8::1"];
const PORTS: [u16; 4] = [80, 443, 5000, 53];
const PROFILES: [&str; 6] = [
    "kns.a",
    "kns.b",
    "ksa.a.x",
    "open",
    "projectcalico-default-allow",
    "missing",
];
const SELECTORS: [&str; 12] = [
    "all()",
    "app == 'web'",
    "app == 'db'",
    "app != 'web'",
    "has(role)",
    "!has(app)",
    "app in {'web', 'db'} && has(role)",
    "role starts with 'f'",
    "pcns.env == 'prod'",
    "has(projectcalico.org/namespace)",
    "app == 'web' || role == 'front'",
    "!(app == 'db') && role not in {'back'}",
];
const ON_NAMESPACES: [&str; 5] = [
    "all()",
    "global()",
    "env == 'prod'",
    "!has(env)",
    "env in {'dev'}",
];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(from).prop_map(str::to_owned)
}

/// A field that is there now and then.
fn now_and_then<T: std::fmt::Debug + Clone>(
    chance: f64,
    strategy: impl Strategy<Value = T>,
) -> impl Strategy<Value = Option<T>> {
    // Never is no chance that proptest takes.
    prop::option::weighted(chance.max(f64::EPSILON), strategy)
}

fn set<T: Into<Value>>(object: &mut Value, field: &str, value: Option<T>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}

fn labels() -> BoxedStrategy<Value> {
    (
        now_and_then(0.8, pick(&["web", "db"])),
        now_and_then(0.5, pick(&["front", "back"])),
        now_and_then(0.1, pick(&["prod", "dev"])),
    )
        .prop_map(|(app, role, env)| {
            let mut labels = json!({});
            set(&mut labels, "app", app);
            set(&mut labels, "role", role);
            // Nobody can give himself labels of his namespace.
            set(&mut labels, "pcns.env", env);
            labels
        })
        .boxed()
}

fn nets() -> BoxedStrategy<Vec<String>> {
    let net = prop_oneof![
        3 => pick(&V4),
        1 => pick(&V6),
        2 => pick(&["10.0.0.0/24", "10.0.0.0/31", "192.0.2.0/24", "0.0.0.0/0", "10.0.0.1/32"]),
        1 => pick(&["fd00::/64", "::/0", "2001:db8::/32"]),
    ];
    prop::collection::vec(net, 1..3).boxed()
}

fn ports() -> BoxedStrategy<Vec<Value>> {
    let port = prop_oneof![
        3 => prop::sample::select(&PORTS[..]).prop_map(|port| json!(port)),
        1 => Just(json!("50:500")),
        3 => pick(&["http", "dns", "nobody"]).prop_map(|name| json!(name)),
    ];
    prop::collection::vec(port, 1..3).boxed()
}

fn entity(with_ports: bool) -> BoxedStrategy<Value> {
    let p = if with_ports { 0.4 } else { 0.0 };
    let selected = (
        now_and_then(0.3, pick(&SELECTORS)),
        now_and_then(0.12, pick(&SELECTORS)),
        now_and_then(0.2, pick(&ON_NAMESPACES)),
        now_and_then(
            0.1,
            prop::sample::select(vec![
                json!({"names": ["x"]}),
                json!({"selector": "team == 'core'"}),
                json!({"names": ["x", "y"], "selector": "all()"}),
                json!({}),
            ]),
        ),
        now_and_then(
            0.06,
            prop::sample::select(vec![
                json!({"name": "s"}),
                json!({"name": "s", "namespace": "b"}),
            ]),
        ),
    );
    let numbered = (
        now_and_then(0.2, nets()),
        now_and_then(0.12, nets()),
        now_and_then(p, ports()),
        now_and_then(p / 3.0, ports()),
    );
    let entity = (selected, numbered).prop_map(
        |((selector, not, on, accounts, services), (nets, not_nets, ports, not_ports))| {
            let mut entity = json!({});
            set(&mut entity, "selector", selector);
            set(&mut entity, "notSelector", not);
            set(&mut entity, "namespaceSelector", on);
            set(&mut entity, "serviceAccounts", accounts);
            set(&mut entity, "services", services);
            set(&mut entity, "nets", nets);
            set(&mut entity, "notNets", not_nets);
            set(&mut entity, "ports", ports);
            set(&mut entity, "notPorts", not_ports);
            entity
        },
    );
    prop_oneof![1 => Just(json!({})), 1 => entity].boxed()
}

fn rule() -> BoxedStrategy<Value> {
    let protocol = prop_oneof![
        4 => Just(None),
        4 => pick(&["TCP", "UDP"]).prop_map(|p| Some(json!(p))),
        2 => pick(&["ICMP", "ICMPv6"]).prop_map(|p| Some(json!(p))),
        1 => Just(Some(json!(17))),
        1 => Just(Some(json!(47))),
    ];
    protocol
        .prop_flat_map(|protocol| {
            let number = protocol.clone().unwrap_or_default();
            let with_ports =
                number == json!("TCP") || number == json!("UDP") || number == json!(17);
            let with_icmp =
                number.is_null() || number == json!("ICMP") || number == json!("ICMPv6");
            let p = if with_icmp { 0.3 } else { 0.0 };
            let icmp = || {
                prop::sample::select(vec![
                    json!({"type": 8}),
                    json!({"type": 8, "code": 0}),
                    json!({"type": 128, "code": 1}),
                    json!({}),
                ])
            };
            let head = (
                prop_oneof![
                    6 => Just("Allow"), 4 => Just("Deny"), 2 => Just("Pass"), 1 => Just("Log"),
                ],
                now_and_then(0.1, prop::sample::select(vec![4, 6])),
                now_and_then(0.1, pick(&["TCP", "UDP", "ICMP"])),
                now_and_then(p, icmp()),
                now_and_then(p / 2.0, icmp()),
                prop_oneof![
                    400 => Just(None),
                    1 => Just(Some(("http", json!({"methods": ["GET"]})))),
                    1 => Just(Some(("ipVersion", json!(5)))),
                    1 => Just(Some(("action", json!("Permit")))),
                    1 => Just(Some(("destination", json!({"domains": ["example.com"]})))),
                    1 => Just(Some(("source", json!({"selector": "app =="})))),
                    1 => Just(Some(("source", json!({"nets": ["10.0.0.0/99"]})))),
                    1 => Just(Some(("protocol", json!(3000)))),
                ],
            );
            (Just(protocol), head, entity(with_ports), entity(with_ports)).prop_map(
                |(
                    protocol,
                    (action, version, not_protocol, icmp, not_icmp, odd),
                    source,
                    destination,
                )| {
                    let mut rule =
                        json!({"action": action, "source": source, "destination": destination});
                    set(&mut rule, "protocol", protocol);
                    set(&mut rule, "ipVersion", version);
                    set(&mut rule, "notProtocol", not_protocol);
                    set(&mut rule, "icmp", icmp);
                    set(&mut rule, "notICMP", not_icmp);
                    if let Some((field, value)) = odd {
                        rule[field] = value;
                    }
                    rule
                },
            )
        })
        .boxed()
}

fn policy_spec() -> BoxedStrategy<Value> {
    let rules = || prop::collection::vec(rule(), 0..4);
    (
        now_and_then(0.6, pick(&["default", "early", "late", "nowhere"])),
        now_and_then(0.6, prop::sample::select(vec![1.0, 2.0, 2.5])),
        now_and_then(
            0.8,
            prop_oneof![20 => pick(&SELECTORS), 1 => Just("app ==".to_owned())],
        ),
        now_and_then(0.15, pick(&["all()", "team == 'core'"])),
        prop_oneof![
            3 => Just(None),
            3 => Just(Some(vec!["Ingress"])),
            2 => Just(Some(vec!["Egress"])),
            4 => Just(Some(vec!["Ingress", "Egress"])),
        ],
        rules(),
        rules(),
        (
            now_and_then(0.1, Just(vec!["AssumeNeededOnEveryNode"])),
            // Half of them differ little from each other, as policies do that are edited.
            any::<bool>(),
        ),
    )
        .prop_map(
            |(tier, order, selector, accounts, types, ingress, egress, (hints, plain))| {
                let mut spec = json!({"ingress": ingress, "egress": egress});
                if plain {
                    set(&mut spec, "types", types);
                    return spec;
                }
                set(&mut spec, "tier", tier);
                set(&mut spec, "order", order);
                set(&mut spec, "selector", selector);
                set(&mut spec, "serviceAccountSelector", accounts);
                set(&mut spec, "types", types);
                set(&mut spec, "performanceHints", hints);
                spec
            },
        )
        .boxed()
}

fn policy() -> BoxedStrategy<Change> {
    let staged = now_and_then(0.25, pick(&["Set", "Delete", "Ignore"]));
    let global = (
        now_and_then(0.25, pick(&["all()", "env == 'prod'", "!has(env)"])),
        0..6usize,
    );
    (
        prop::sample::select(&NAMESPACES[..]),
        pick(&["p", "q", "default.p", "default.q"]),
        policy_spec(),
        staged,
        prop::option::of(global),
    )
        .prop_map(|(namespace, name, mut spec, staged, global)| {
            let kind = match (&global, &staged) {
                (Some(_), None) => Kind::GlobalNetworkPolicy,
                (Some(_), Some(_)) => Kind::StagedGlobalNetworkPolicy,
                (None, None) => Kind::NetworkPolicy,
                (None, Some(_)) => Kind::StagedNetworkPolicy,
            };
            set(&mut spec, "stagedAction", staged);
            let mut within = Some(namespace);
            if let Some((on, stage)) = global {
                within = None;
                set(&mut spec, "namespaceSelector", on);
                for (field, stages) in [
                    ("applyOnForward", [1, 2, 3].as_slice()),
                    ("doNotTrack", &[2]),
                    ("preDNAT", &[3]),
                ] {
                    if stages.contains(&stage) {
                        spec[field] = json!(true);
                    }
                }
            }
            resource(kind, within, &name, json!({}), spec)
        })
        .boxed()
}

fn kubernetes() -> BoxedStrategy<Change> {
    let selector = || {
        prop::sample::select(vec![
            json!({}),
            json!({"matchLabels": {"app": "web"}}),
            json!({"matchExpressions": [{"key": "role", "operator": "Exists"}]}),
        ])
    };
    let spec = (
        selector(),
        prop::sample::select(vec![
            json!([]),
            json!([{}]),
            json!([{"from": [{"podSelector": {}}], "ports": [{"port": 80}, {"protocol": "UDP"}]}]),
            json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.1/32"]}}]}]),
            json!([{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}]}]),
        ]),
        pick(&["Set", "Delete"]),
        prop::sample::select(&NAMESPACES[..]),
    );
    spec.prop_map(|(selector, ingress, action, namespace)| {
        let spec = json!({"podSelector": selector, "ingress": ingress, "stagedAction": action,
            "policyTypes": ["Ingress"]});
        resource(
            Kind::StagedKubernetesNetworkPolicy,
            Some(namespace),
            "k",
            json!({}),
            spec,
        )
    })
    .boxed()
}

fn profiles() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(pick(&PROFILES), 0..3)
}

fn named_ports() -> BoxedStrategy<Vec<Value>> {
    let port = (
        pick(&["http", "dns"]),
        pick(&["TCP", "UDP"]),
        prop::sample::select(&PORTS[..]),
    );
    let port = port.prop_map(
        |(name, protocol, port)| json!({"name": name, "protocol": protocol, "port": port}),
    );
    prop::collection::vec(port, 0..3).boxed()
}

fn workload() -> BoxedStrategy<Change> {
    let addresses = prop_oneof![
        6 => pick(&V4).prop_map(|a| vec![format!("{a}/32")]),
        2 => (pick(&V4), pick(&V6)).prop_map(|(a, b)| vec![format!("{a}/32"), format!("{b}/128")]),
        1 => Just(vec![]),
        1 => Just(vec!["nonsense".to_owned()]),
    ];
    (
        (
            pick(&["n1", "n2"]),
            0..3usize,
            prop::sample::select(&NAMESPACES[..]),
        ),
        addresses,
        labels(),
        profiles(),
        named_ports(),
        now_and_then(0.5, pick(&["x", "y"])),
        prop_oneof![5 => Just(None), 1 => Just(Some("cali0"))],
        now_and_then(0.8, Just("k8s")),
    )
        .prop_map(
            |(
                (node, number, namespace),
                addresses,
                mut labels,
                profiles,
                ports,
                account,
                interface,
                orchestrator,
            )| {
                let interface =
                    interface.map_or_else(|| format!("cali{namespace}{number}"), str::to_owned);
                set(&mut labels, "projectcalico.org/orchestrator", orchestrator);
                let mut spec = json!({"node": node, "ipNetworks": addresses, "profiles": profiles,
                "ports": ports, "interfaceName": interface});
                set(&mut spec, "serviceAccountName", account);
                let name = format!("{node}-k8s-w{number}-eth0");
                resource(Kind::WorkloadEndpoint, Some(namespace), &name, labels, spec)
            },
        )
        .boxed()
}

fn host() -> BoxedStrategy<Change> {
    (
        pick(&["h1", "h2"]),
        pick(&["n1", "n1", "n2"]),
        pick(&["", "eth0", "*"]),
        prop::collection::vec(pick(&V4), 0..2),
        labels(),
        profiles(),
        named_ports(),
    )
        .prop_map(|(name, node, interface, ips, labels, profiles, ports)| {
            let spec = json!({"node": node, "interfaceName": interface, "expectedIPs": ips,
                "profiles": profiles, "ports": ports});
            resource(Kind::HostEndpoint, None, &name, labels, spec)
        })
        .boxed()
}

fn network_set() -> BoxedStrategy<Change> {
    (
        prop::option::of(prop::sample::select(&NAMESPACES[..])),
        pick(&["s", "t"]),
        labels(),
        nets(),
        now_and_then(0.1, Just("nonsense".to_owned())),
    )
        .prop_map(|(namespace, name, labels, mut nets, odd)| {
            nets.extend(odd);
            let kind = match namespace {
                Some(_) => Kind::NetworkSet,
                None => Kind::GlobalNetworkSet,
            };
            resource(kind, namespace, &name, labels, json!({"nets": nets}))
        })
        .boxed()
}

fn profile() -> BoxedStrategy<Change> {
    let rules = || {
        prop_oneof![
            2 => Just(vec![json!({"action": "Allow"})]),
            2 => prop::collection::vec(rule(), 0..3),
        ]
    };
    (
        pick(&["kns.a", "kns.b", "ksa.a.x", "open"]),
        rules(),
        rules(),
        prop::sample::select(vec![
            json!({}),
            json!({"pcns.env": "prod"}),
            json!({"pcns.env": "dev"}),
            json!({"pcsa.team": "core"}),
            json!({"role": "front"}),
        ]),
    )
        .prop_map(|(name, ingress, egress, labels)| {
            let spec = json!({"ingress": ingress, "egress": egress, "labelsToApply": labels});
            resource(Kind::Profile, None, &name, json!({}), spec)
        })
        .boxed()
}

fn tier() -> BoxedStrategy<Change> {
    (
        pick(&["default", "early", "late"]),
        now_and_then(0.8, prop::sample::select(vec![1.0, 5.0, 5.0, 2_000_000.0])),
        now_and_then(0.7, pick(&["Deny", "Pass"])),
    )
        .prop_map(|(name, order, default)| {
            let mut spec = json!({});
            set(&mut spec, "order", order);
            set(&mut spec, "defaultAction", default);
            resource(Kind::Tier, None, &name, json!({}), spec)
        })
        .boxed()
}

fn service() -> BoxedStrategy<Change> {
    let port = (
        prop::sample::select(&V4[..]),
        prop::sample::select(&PORTS[..]),
        0..2usize,
    );
    let port = port.prop_map(|(address, port, protocol)| ServicePort {
        address: address.parse().unwrap(),
        protocol: [6, 17][protocol],
        port,
    });
    let ports = prop::option::weighted(0.8, prop::collection::vec(port, 0..4));
    (pick(&["a/s", "b/s"]), ports)
        .prop_map(|(name, ports)| Change::Service(name, ports))
        .boxed()
}

/// A change of a random kind; one in eight takes away what it would have put.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let change = prop_oneof![
        8 => policy(),
        6 => workload(),
        2 => host(),
        2 => network_set(),
        3 => profile(),
        2 => tier(),
        1 => service(),
        1 => kubernetes(),
    ];
    (change, 0..8usize).prop_map(|(change, away)| match change {
        Change::Put(key, _) if away == 0 => Change::Delete(key),
        other => other,
    })
}

/// A packet among the addresses that the clusters have.
pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let pair = prop_oneof![
        4 => (prop::sample::select(&V4[..]), prop::sample::select(&V4[..])),
        1 => (prop::sample::select(&V6[..]), prop::sample::select(&V6[..])),
    ];
    let port = || prop_oneof![4 => prop::sample::select(&PORTS[..]), 1 => Just(100u16)];
    (
        pair,
        prop::sample::select(vec![6u8, 6, 17, 17, 1, 58, 47]),
        port(),
        port(),
        0..3usize,
    )
        .prop_map(
            |((source, destination), protocol, source_port, destination_port, icmp)| {
                let with_ports = matches!(protocol, 6 | 17);
                let address = |text: &str| text.parse::<IpAddr>().unwrap();
                Packet {
                    source: address(source),
                    destination: address(destination),
                    protocol,
                    source_port: if with_ports { source_port } else { 0 },
                    destination_port: if with_ports { destination_port } else { 0 },
                    icmp: matches!(protocol, 1 | 58).then_some([(8, 0), (128, 1), (0, 0)][icmp]),
                }
            },
        )
}

/// Rules for [`policy_for_all`].
pub(crate) fn rules() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(rule(), 1..5)
}

/// A policy with these rules in both directions, for all workloads of a namespace or of all.
pub(crate) fn policy_for_all(namespaced: bool, rules: Vec<Value>) -> Change {
    let (kind, namespace) = match namespaced {
        true => (Kind::NetworkPolicy, Some("a")),
        false => (Kind::GlobalNetworkPolicy, None),
    };
    let spec = json!({"types": ["Ingress", "Egress"], "ingress": rules, "egress": rules});
    resource(kind, namespace, "p", json!({}), spec)
}

/// Endpoints, network sets, profiles and services that rules can speak of; three workloads are local.
pub(crate) fn neighbourhood() -> Vec<Change> {
    let profile = |name, labels| {
        let allow = json!([{"action": "Allow"}]);
        let spec = json!({"ingress": allow, "egress": allow, "labelsToApply": labels});
        resource(Kind::Profile, None, name, json!({}), spec)
    };
    let workload = |node, namespace, number, labels, addresses: &[&str], account, ports| {
        let spec = json!({
            "node": node, "interfaceName": format!("cali{number}"), "ipNetworks": addresses,
            "profiles": [format!("kns.{namespace}"), format!("ksa.{namespace}.{account}")],
            "serviceAccountName": account, "ports": ports,
        });
        let name = format!("{node}-k8s-w{number}-eth0");
        resource(Kind::WorkloadEndpoint, Some(namespace), &name, labels, spec)
    };
    let http = json!([{"name": "http", "protocol": "TCP", "port": 80}]);
    let dns = json!([{"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "http", "protocol": "TCP", "port": 5000}, {"name": "", "port": 1}]);
    let (web, db) = (json!({"app": "web", "role": "front"}), json!({"app": "db"}));
    let served = |address: &str, port| ServicePort {
        address: address.parse().unwrap(),
        protocol: 6,
        port,
    };
    let service = |name: &str, ports| Change::Service(name.to_owned(), Some(ports));
    vec![
        profile("kns.a", json!({"pcns.env": "prod"})),
        profile("kns.b", json!({"pcns.env": "dev"})),
        profile("ksa.a.x", json!({"pcsa.team": "core"})),
        profile("ksa.b.y", json!({})),
        workload(
            "n1",
            "a",
            1,
            web.clone(),
            &["10.0.0.1/32", "fd00::1/128"],
            "x",
            http,
        ),
        workload("n1", "a", 2, db.clone(), &["10.0.0.2/32"], "y", json!([])),
        workload(
            "n1",
            "b",
            3,
            web,
            &["10.0.0.3/32", "fd00::2/128"],
            "y",
            dns.clone(),
        ),
        workload(
            "n2",
            "b",
            4,
            json!({"role": "back"}),
            &["10.0.1.1/32"],
            "x",
            dns,
        ),
        resource(
            Kind::NetworkSet,
            Some("a"),
            "s",
            db,
            json!({"nets": ["192.0.2.0/28"]}),
        ),
        // An address that is a workload's, too.
        resource(
            Kind::GlobalNetworkSet,
            None,
            "t",
            json!({"role": "front"}),
            json!({"nets": ["10.0.0.2", "2001:db8::/32"]}),
        ),
        resource(
            Kind::HostEndpoint,
            None,
            "h",
            json!({"app": "web"}),
            json!({"node": "n2", "expectedIPs": ["192.0.2.9"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 443}]}),
        ),
        service("a/s", vec![served("10.0.0.1", 80), served("10.0.1.1", 443)]),
        service("b/s", vec![served("10.0.0.3", 5000)]),
    ]
}
