//! Each point of Calico's semantics, for the calculation and the evaluator alike.

use crate::common::Change;
use crate::common::resource;
use crate::common::world::{World, global, id, namespaced, profile, rules, tcp, tier, workload};
use margay_model::{Key, Kind};
use margay_policy::evaluator::{Direction, Packet, Verdict};
use margay_policy::{Delta, SetChange, SetKind};
use serde_json::{Value, json};

use Direction::{Egress, Ingress};
use Verdict::{Allow, Deny};

const WEB: &str = "10.0.0.1";
const OTHER: &str = "10.0.0.9";

/// The workload `web` of namespace `a`, with the profile that allows everything.
fn web() -> Change {
    let labels = json!({"app": "web", "projectcalico.org/orchestrator": "k8s"});
    workload("n1", "a", "web", WEB, labels, json!({}))
}

fn allow() -> Value {
    rules(json!([{"action": "Allow"}]))
}

fn deny() -> Value {
    rules(json!([{"action": "Deny"}]))
}

fn with(mut spec: Value, fields: Value) -> Value {
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

/// What becomes of a packet to `web` under one global policy for everybody with this one rule.
fn under(rule: Value, packet: &Packet, more: impl IntoIterator<Item = Change>) -> Verdict {
    let mut world = World::new([web(), global("p", rules(json!([rule])))]);
    world.take(more);
    world.at("web", Ingress, packet)
}

fn delete(kind: Kind, namespace: Option<&str>, name: &str) -> Change {
    Change::Delete(Key::Resource {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    })
}

#[test]
fn tiers_come_by_order_then_by_name_and_missing_ones_last() {
    let in_tier = |name: &str| with(allow(), json!({"tier": name}));
    let mut world = World::new([
        web(),
        tier("z", Some(5.0), "Pass"),
        tier("b", Some(5.0), "Deny"),
        tier("none", None, "Deny"),
        global("1", in_tier("z")),
        global("2", in_tier("b")),
        global("3", in_tier("nowhere")),
        global("4", in_tier("")),
        global("5", in_tier("none")),
    ]);
    let order = |world: &World| world.order("web", Ingress);
    assert_eq!(
        order(&world),
        [
            "b Deny: GlobalNetworkPolicy/2",
            "z Pass: GlobalNetworkPolicy/1",
            "default Deny: GlobalNetworkPolicy/4",
            "none Deny: GlobalNetworkPolicy/5",
            "nowhere Deny: GlobalNetworkPolicy/3",
        ]
    );
    assert_eq!(
        world.conditions("globalnetworkpolicies/3"),
        [
            "its tier \"nowhere\" does not exist, so that it comes after all other tiers and what it \
             does not decide is denied; create the Tier"
        ]
    );
    // A stored default tier counts; a tier that goes moves its policies to the end.
    world.take([
        tier("default", Some(1.0), "Pass"),
        delete(Kind::Tier, None, "b"),
    ]);
    assert_eq!(
        order(&world),
        [
            "default Pass: GlobalNetworkPolicy/4",
            "z Pass: GlobalNetworkPolicy/1",
            "none Deny: GlobalNetworkPolicy/5",
            "b Deny: GlobalNetworkPolicy/2",
            "nowhere Deny: GlobalNetworkPolicy/3",
        ]
    );
}

#[test]
fn policies_come_by_order_then_by_name_with_namespace_and_kind() {
    let ordered = |order: Option<f64>| with(allow(), json!({"order": order}));
    let world = World::new([
        web(),
        global("last", ordered(None)),
        global("b", ordered(Some(1.0))),
        // "a-x/…" comes before "a/…", as the texts do.
        global("a", ordered(Some(1.0))),
        namespaced("a", "a-x", ordered(Some(1.0))),
        namespaced("a", "a", ordered(Some(1.0))),
        global("zero", ordered(Some(-0.5))),
    ]);
    assert_eq!(
        world.order("web", Egress),
        [
            "default Deny: GlobalNetworkPolicy/zero NetworkPolicy/a/a-x GlobalNetworkPolicy/a \
             NetworkPolicy/a/a GlobalNetworkPolicy/b GlobalNetworkPolicy/last"
        ]
    );
}

#[test]
fn the_first_matching_rule_decides_and_logging_goes_on() {
    let from_other = json!({"nets": [OTHER]});
    for (list, expected) in [
        (json!([{"action": "Allow"}, {"action": "Deny"}]), Allow),
        (json!([{"action": "Deny"}, {"action": "Allow"}]), Deny),
        (json!([{"action": "Log"}, {"action": "Allow"}]), Allow),
        (json!([{"action": "Log"}]), Deny),
        (
            json!([{"action": "Deny", "source": {"nets": ["10.9.0.0/16"]}}]),
            Deny,
        ),
        (
            json!([{"action": "Pass", "source": from_other}, {"action": "Deny"}]),
            // The last tier passes to the profiles, which allow.
            Allow,
        ),
        (json!([]), Deny),
    ] {
        let world = World::new([web(), global("p", rules(list.clone()))]);
        let verdict = world.at("web", Ingress, &tcp(OTHER, WEB));
        assert_eq!(verdict, expected, "{list}");
    }
}

#[test]
fn passing_skips_the_rest_of_a_tier_and_its_default() {
    let pass = rules(json!([{"action": "Pass"}]));
    let early =
        |spec: &Value, order: f64| with(spec.clone(), json!({"tier": "early", "order": order}));
    let mut world = World::new([
        web(),
        tier("early", Some(1.0), "Deny"),
        global("early.pass", early(&pass, 1.0)),
        global("early.deny", early(&deny(), 2.0)),
    ]);
    let packet = tcp(OTHER, WEB);
    assert_eq!(world.at("web", Ingress, &packet), Allow);
    world.take([global("p", deny())]);
    assert_eq!(world.at("web", Ingress, &packet), Deny);
    // A tier whose default is to pass lets what it does not decide go on.
    let nothing = with(rules(json!([])), json!({"tier": "early"}));
    world.take([
        delete(Kind::GlobalNetworkPolicy, None, "early.pass"),
        delete(Kind::GlobalNetworkPolicy, None, "early.deny"),
        global("early.nothing", nothing),
        global("p", allow()),
    ]);
    assert_eq!(world.at("web", Ingress, &packet), Deny);
    world.take([tier("early", Some(1.0), "Pass")]);
    assert_eq!(world.at("web", Ingress, &packet), Allow);
}

#[test]
fn a_direction_that_no_policy_decides_is_the_profiles() {
    let types = |types: Value| with(deny(), json!({"types": types}));
    for (spec, ingress, egress) in [
        (types(json!(["Ingress"])), Deny, Allow),
        (types(json!(["Egress"])), Allow, Deny),
        (types(json!(["Ingress", "Egress"])), Deny, Deny),
        // Clients always say the types; Calico's agent takes none for both.
        (types(json!([])), Deny, Deny),
    ] {
        let world = World::new([web(), global("p", spec)]);
        assert_eq!(world.at("web", Ingress, &tcp(OTHER, WEB)), ingress);
        assert_eq!(world.at("web", Egress, &tcp(WEB, OTHER)), egress);
    }
}

#[test]
fn profiles_come_in_their_order_and_missing_ones_deny() {
    let one = |action: &str| json!([{"action": action}]);
    for (profiles, expected) in [
        (json!(["yes"]), Allow),
        (json!(["no", "yes"]), Deny),
        (json!(["pass", "yes"]), Allow),
        (json!(["nothing", "yes"]), Allow),
        (json!(["nothing"]), Deny),
        (json!([]), Deny),
        (json!(["missing", "yes"]), Deny),
        (json!(["yes", "missing"]), Allow),
        // It exists without being stored.
        (json!(["projectcalico-default-allow"]), Allow),
    ] {
        let more = json!({"profiles": profiles});
        let world = World::new([
            workload("n1", "a", "web", WEB, json!({}), more),
            profile("yes", one("Allow"), json!({})),
            profile("no", one("Deny"), json!({})),
            profile("pass", one("Pass"), json!({})),
            profile("nothing", json!([]), json!({})),
        ]);
        assert_eq!(
            world.at("web", Ingress, &tcp(OTHER, WEB)),
            expected,
            "{profiles}"
        );
    }
    let more = json!({"profiles": ["missing"]});
    let mut world = World::new([workload("n1", "a", "web", WEB, json!({}), more)]);
    assert_eq!(world.conditions("n1-k8s-web-eth0").len(), 1);
    // The network plugin writes the profile after the endpoint.
    world.take([profile("missing", one("Allow"), json!({}))]);
    assert_eq!(world.at("web", Ingress, &tcp(OTHER, WEB)), Allow);
    assert!(world.conditions("n1-k8s-web-eth0").is_empty());
}

#[test]
fn a_policy_is_for_its_namespace_and_for_namespaces_and_accounts_that_it_selects() {
    let web = |labels: Value, more: Value| workload("n1", "a", "web", WEB, labels, more);
    let named = json!({"app": "web"});
    let in_prod = json!({"profiles": ["kns.a", "ksa.a.x"], "serviceAccountName": "x"});
    for (policy, applies) in [
        (namespaced("a", "p", deny()), true),
        (namespaced("b", "p", deny()), false),
        (
            global("p", with(deny(), json!({"selector": "app == 'web'"}))),
            true,
        ),
        (
            global("p", with(deny(), json!({"selector": "app == 'db'"}))),
            false,
        ),
        (
            global(
                "p",
                with(deny(), json!({"namespaceSelector": "env == 'prod'"})),
            ),
            true,
        ),
        (
            global(
                "p",
                with(deny(), json!({"namespaceSelector": "env == 'dev'"})),
            ),
            false,
        ),
        (
            global("p", with(deny(), json!({"namespaceSelector": "all()"}))),
            true,
        ),
        (
            global(
                "p",
                with(deny(), json!({"serviceAccountSelector": "team == 'core'"})),
            ),
            true,
        ),
        (
            global(
                "p",
                with(deny(), json!({"serviceAccountSelector": "!has(team)"})),
            ),
            false,
        ),
        (
            global(
                "p",
                with(deny(), json!({"serviceAccountSelector": "all()"})),
            ),
            true,
        ),
        (
            namespaced(
                "a",
                "p",
                with(deny(), json!({"serviceAccountSelector": "team == 'core'"})),
            ),
            true,
        ),
    ] {
        let world = World::new([
            web(named.clone(), in_prod.clone()),
            profile(
                "kns.a",
                json!([{"action": "Allow"}]),
                json!({"pcns.env": "prod"}),
            ),
            profile("ksa.a.x", json!([]), json!({"pcsa.team": "core"})),
            policy.clone(),
        ]);
        let expected = if applies { Deny } else { Allow };
        assert_eq!(
            world.at("web", Ingress, &tcp(OTHER, WEB)),
            expected,
            "{policy:?}"
        );
    }
    // all() of a global policy's service account selector is everybody who has an account.
    let without = json!({"profiles": ["projectcalico-default-allow"]});
    let world = World::new([
        web(named, without),
        global(
            "p",
            with(deny(), json!({"serviceAccountSelector": "all()"})),
        ),
    ]);
    assert_eq!(world.at("web", Ingress, &tcp(OTHER, WEB)), Allow);
}

#[test]
fn nobody_gives_himself_labels_of_his_namespace() {
    let pretending =
        json!({"pcns.env": "prod", "pcsa.team": "core", "projectcalico.org/namespace": "b"});
    let world = World::new([
        workload("n1", "a", "web", WEB, pretending.clone(), json!({})),
        global(
            "p",
            with(
                deny(),
                json!({"selector": "has(pcns.env) || has(pcsa.team)"}),
            ),
        ),
        namespaced("b", "q", deny()),
    ]);
    assert!(world.order("web", Ingress).is_empty());
    let set = resource(
        Kind::NetworkSet,
        Some("a"),
        "s",
        pretending,
        json!({"nets": [OTHER]}),
    );
    let from_prod = json!({"action": "Allow", "source": {"namespaceSelector": "env == 'prod'"}});
    assert_eq!(under(from_prod, &tcp(OTHER, WEB), [set]), Deny);
}

#[test]
fn selectors_of_rules() {
    let pod = |namespace, name, address, labels| {
        let more = json!({
            "profiles": [format!("kns.{namespace}"), "ksa.x"],
            "serviceAccountName": if namespace == "a" { "x" } else { "y" },
        });
        workload("n2", namespace, name, address, labels, more)
    };
    let neighbours = || {
        [
            pod("a", "1", "10.0.1.1", json!({"app": "db"})),
            pod("b", "2", "10.0.1.2", json!({"app": "db"})),
            profile("kns.a", json!([]), json!({"pcns.env": "prod"})),
            profile("kns.b", json!([]), json!({"pcns.env": "dev"})),
            profile("ksa.x", json!([]), json!({"pcsa.team": "core"})),
            resource(
                Kind::GlobalNetworkSet,
                None,
                "g",
                json!({"app": "db"}),
                json!({"nets": ["10.0.2.0/24"]}),
            ),
            resource(
                Kind::NetworkSet,
                Some("b"),
                "n",
                json!({"app": "db"}),
                json!({"nets": ["10.0.3.0/24"]}),
            ),
            resource(
                Kind::HostEndpoint,
                None,
                "h",
                json!({"app": "db"}),
                json!({"node": "n2", "interfaceName": "eth0", "expectedIPs": ["10.0.4.1"]}),
            ),
        ]
    };
    // Pod of a, pod of b, global set, set of b, host, somebody unknown.
    let sources = [
        "10.0.1.1", "10.0.1.2", "10.0.2.7", "10.0.3.7", "10.0.4.1", "10.9.9.9",
    ];
    for (policy, source, matched) in [
        ("global", json!({}), "xxxxxx"),
        ("global", json!({"selector": "app == 'db'"}), "xxxxx-"),
        ("global", json!({"selector": "all()"}), "xxxxx-"),
        ("global", json!({"namespaceSelector": "all()"}), "xx-x--"),
        ("global", json!({"namespaceSelector": "global()"}), "--x-x-"),
        (
            "global",
            json!({"namespaceSelector": "env == 'prod'"}),
            "x-----",
        ),
        (
            "global",
            json!({"namespaceSelector": "env != 'prod'"}),
            "-xxxx-",
        ),
        (
            "global",
            json!({"selector": "app == 'db'", "namespaceSelector": "env == 'dev'"}),
            "-x-x--",
        ),
        // Without a positive selector, strangers match a negative one, too.
        ("global", json!({"notSelector": "app == 'db'"}), "-----x"),
        ("global", json!({"notSelector": "has(nothing)"}), "xxxxxx"),
        (
            "global",
            json!({"selector": "app == 'db'", "notSelector": "pcns.env == 'dev'"}),
            "x-x-x-",
        ),
        (
            "global",
            json!({"serviceAccounts": {"names": ["x"]}}),
            "x-----",
        ),
        (
            "global",
            json!({"serviceAccounts": {"names": ["x", "y"]}}),
            "xx----",
        ),
        (
            "global",
            json!({"serviceAccounts": {"selector": "team == 'core'"}}),
            "xx----",
        ),
        (
            "global",
            json!({"serviceAccounts": {"names": ["y"], "selector": "team == 'core'"}}),
            "-x----",
        ),
        ("global", json!({"serviceAccounts": {}}), "xxxxxx"),
        ("namespaced", json!({}), "xxxxxx"),
        ("namespaced", json!({"selector": "app == 'db'"}), "x-----"),
        (
            "namespaced",
            json!({"selector": "app == 'db'", "namespaceSelector": "all()"}),
            "xx-x--",
        ),
        (
            "namespaced",
            json!({"serviceAccounts": {"names": ["x", "y"]}}),
            "x-----",
        ),
        // A negative selector speaks of endpoints, hence of the policy's own namespace.
        (
            "namespaced",
            json!({"notSelector": "has(nothing)"}),
            "x-----",
        ),
        ("namespaced", json!({"nets": ["10.0.0.0/8"]}), "xxxxxx"),
        (
            "global",
            json!({"selector": "app == 'db'", "nets": ["10.0.1.0/24"]}),
            "xx----",
        ),
        (
            "global",
            json!({"nets": ["10.0.0.0/8"], "notNets": ["10.0.1.0/24", "10.9.0.0/16"]}),
            "--xxx-",
        ),
    ] {
        let spec = rules(json!([{"action": "Allow", "source": source}]));
        let policy = match policy {
            "global" => global("p", spec),
            _ => namespaced("a", "p", spec),
        };
        let mut world = World::new([web(), policy]);
        world.take(neighbours());
        let found: String = sources
            .iter()
            .map(
                |address| match world.at("web", Ingress, &tcp(address, WEB)) {
                    Allow => 'x',
                    _ => '-',
                },
            )
            .collect();
        assert_eq!(found, matched, "{source}");
    }
}

#[test]
fn an_address_of_several_objects_matches_if_one_of_them_does() {
    // As in Calico, beside a positive selector the negative one narrows it.
    let set = |name: &str, labels: Value| {
        resource(
            Kind::GlobalNetworkSet,
            None,
            name,
            labels,
            json!({"nets": [OTHER]}),
        )
    };
    let rule =
        json!({"action": "Allow", "source": {"selector": "has(good)", "notSelector": "has(bad)"}});
    let (good, bad) = (json!({"good": ""}), json!({"bad": ""}));
    let both = json!({"good": "", "bad": ""});
    let packet = tcp(OTHER, WEB);
    assert_eq!(
        under(rule.clone(), &packet, [set("s", good), set("t", bad)]),
        Allow
    );
    assert_eq!(under(rule, &packet, [set("s", both)]), Deny);
}

#[test]
fn ports_by_number_range_and_name() {
    let ports = json!([
        {"name": "http", "protocol": "TCP", "port": 8080},
        {"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "", "port": 9},
    ]);
    let served = |labels| workload("n1", "a", "web", WEB, labels, json!({"ports": ports}));
    let port = |protocol: u8, destination_port: u16| Packet {
        protocol,
        destination_port,
        ..tcp(OTHER, WEB)
    };
    let (udp, sctp) = (17, 132);
    for (protocol, destination, packet, expected) in [
        (json!("TCP"), json!({"ports": [80]}), port(6, 80), Allow),
        (json!("TCP"), json!({"ports": [80]}), port(6, 81), Deny),
        (json!("TCP"), json!({"ports": [80]}), port(udp, 80), Deny),
        (
            json!("TCP"),
            json!({"ports": ["80:90"]}),
            port(6, 90),
            Allow,
        ),
        (json!("TCP"), json!({"ports": ["80:90"]}), port(6, 91), Deny),
        (
            json!("TCP"),
            json!({"ports": [80, "http"]}),
            port(6, 8080),
            Allow,
        ),
        (json!("TCP"), json!({"ports": ["http"]}), port(6, 80), Deny),
        // The name is another's, or of another protocol.
        (json!("TCP"), json!({"ports": ["dns"]}), port(6, 53), Deny),
        (
            json!("UDP"),
            json!({"ports": ["dns"]}),
            port(udp, 53),
            Allow,
        ),
        (json!(17), json!({"ports": ["dns"]}), port(udp, 53), Allow),
        (json!("SCTP"), json!({"ports": [80]}), port(sctp, 80), Allow),
        (
            json!("TCP"),
            json!({"ports": ["http"], "selector": "app == 'db'"}),
            port(6, 8080),
            Deny,
        ),
        (
            json!("TCP"),
            json!({"ports": ["http"], "selector": "app == 'web'"}),
            port(6, 8080),
            Allow,
        ),
        (
            json!("TCP"),
            json!({"ports": ["http", 81], "selector": "app == 'web'"}),
            port(6, 81),
            Allow,
        ),
        (json!("TCP"), json!({"notPorts": [80]}), port(6, 80), Deny),
        (json!("TCP"), json!({"notPorts": [80]}), port(6, 81), Allow),
        (
            json!("TCP"),
            json!({"notPorts": ["http"]}),
            port(6, 8080),
            Deny,
        ),
        (
            json!("TCP"),
            json!({"notPorts": ["http"]}),
            port(6, 80),
            Allow,
        ),
        (
            json!("TCP"),
            json!({"ports": ["1:9000"], "notPorts": ["8000:8100"]}),
            port(6, 8080),
            Deny,
        ),
    ] {
        let rule = json!({"action": "Allow", "protocol": protocol, "destination": destination});
        let world = World::new([
            served(json!({"app": "web"})),
            global("p", rules(json!([rule]))),
        ]);
        assert_eq!(
            world.at("web", Ingress, &packet),
            expected,
            "{rule} {packet:?}"
        );
    }
    // Source ports are the source's.
    let rule = json!({"action": "Allow", "protocol": "UDP", "source": {"ports": ["dns"]}});
    let world = World::new([served(json!({})), global("p", rules(json!([rule])))]);
    let from = Packet {
        source_port: 53,
        protocol: udp,
        ..tcp(WEB, OTHER)
    };
    assert_eq!(world.at("web", Egress, &from), Allow);
    assert_eq!(
        world.at(
            "web",
            Egress,
            &Packet {
                source_port: 54,
                ..from
            }
        ),
        Deny
    );
}

#[test]
fn named_ports_and_selectors_share_a_set_where_they_mean_the_same() {
    let destination = json!({"ports": ["http"], "selector": "app == 'web'"});
    let one = json!({"action": "Allow", "protocol": "TCP", "destination": destination});
    let other = json!({"action": "Allow", "protocol": 6, "destination": {
        "selector": "app  ==  \"web\"", "ports": ["http"]}});
    let world = World::new([web(), global("p", rules(json!([one, other])))]);
    let sets: Vec<_> = world.desired.sets.values().collect();
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0].kind, SetKind::Ports);
    assert_eq!(sets[0].label, "port http (6) of app == \"web\"");
}

#[test]
fn protocols_and_icmp() {
    let packet = |protocol, icmp| Packet {
        protocol,
        icmp,
        source_port: 0,
        destination_port: 0,
        ..tcp(OTHER, WEB)
    };
    let six = |protocol, icmp| Packet {
        source: "fd00::9".parse().unwrap(),
        destination: "fd00::1".parse().unwrap(),
        ..packet(protocol, icmp)
    };
    let (echo, other) = (Some((8, 0)), Some((8, 1)));
    for (rule, packet, expected) in [
        (json!({"protocol": "TCP"}), packet(6, None), Allow),
        (json!({"protocol": "udp"}), packet(17, None), Allow),
        (json!({"protocol": "UDPLite"}), packet(136, None), Allow),
        (json!({"protocol": 47}), packet(47, None), Allow),
        (json!({"protocol": 47}), packet(48, None), Deny),
        (json!({"notProtocol": "TCP"}), packet(6, None), Deny),
        (json!({"notProtocol": "TCP"}), packet(17, None), Allow),
        (json!({"protocol": "ICMP"}), packet(1, echo), Allow),
        (
            json!({"protocol": "ICMP", "icmp": {"type": 8}}),
            packet(1, other),
            Allow,
        ),
        (
            json!({"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}),
            packet(1, other),
            Deny,
        ),
        (
            json!({"protocol": "ICMP", "icmp": {"type": 8, "code": 0}}),
            packet(1, echo),
            Allow,
        ),
        (
            json!({"protocol": "ICMP", "icmp": {"type": 8}}),
            six(58, echo),
            Deny,
        ),
        (
            json!({"protocol": "ICMPv6", "icmp": {"type": 8}}),
            six(58, echo),
            Allow,
        ),
        (json!({"icmp": {"type": 8}}), six(58, echo), Allow),
        (json!({"icmp": {"type": 8}}), packet(58, echo), Deny),
        (
            json!({"protocol": "ICMP", "notICMP": {"type": 8}}),
            packet(1, echo),
            Deny,
        ),
        (
            json!({"protocol": "ICMP", "notICMP": {"type": 8, "code": 0}}),
            packet(1, other),
            Allow,
        ),
        // Without a protocol, what is no ICMP has no other type either, as nftables sees it.
        (json!({"notICMP": {"type": 8}}), packet(6, None), Deny),
        (json!({"ipVersion": 4}), packet(6, None), Allow),
        (json!({"ipVersion": 6}), packet(6, None), Deny),
        (json!({"ipVersion": 6}), six(6, None), Allow),
    ] {
        let mut rule = rule;
        rule["action"] = json!("Allow");
        let v6 = workload("n1", "a", "six", "fd00::1", json!({}), json!({}));
        let world = World::new([web(), v6, global("p", rules(json!([rule])))]);
        let at = if packet.source.is_ipv6() {
            "six"
        } else {
            "web"
        };
        assert_eq!(
            world.at(at, Ingress, &packet),
            expected,
            "{rule} {packet:?}"
        );
    }
}

#[test]
fn lists_of_prefixes_are_for_the_families_they_name() {
    let six = tcp("fd00::9", "fd00::1");
    let four = tcp(OTHER, WEB);
    for (source, on_four, on_six) in [
        (json!({"nets": ["10.0.0.0/8"]}), Allow, Deny),
        (json!({"nets": ["10.0.0.0/8", "fd00::/8"]}), Allow, Allow),
        // Also a negative list keeps the rule from the other family.
        (json!({"notNets": ["10.1.0.0/16"]}), Allow, Deny),
        (
            json!({"notNets": ["10.1.0.0/16", "fd01::/16"]}),
            Allow,
            Allow,
        ),
        (json!({"notNets": ["0.0.0.0/0"]}), Deny, Deny),
        (json!({"nets": ["10.0.0.9"]}), Allow, Deny),
        (json!({"nets": ["10.0.0.7/24"]}), Allow, Deny),
        (
            json!({"nets": ["10.0.0.0/8"], "notNets": ["fd00::/8"]}),
            Deny,
            Deny,
        ),
    ] {
        let rule = json!({"action": "Allow", "source": source});
        let v6 = workload("n1", "a", "six", "fd00::1", json!({}), json!({}));
        let world = World::new([web(), v6, global("p", rules(json!([rule])))]);
        assert_eq!(world.at("web", Ingress, &four), on_four, "{source}");
        assert_eq!(world.at("six", Ingress, &six), on_six, "{source}");
    }
}

#[test]
fn services_are_what_the_watcher_says_and_nothing_before() {
    let served = |address: &str, port| margay_policy::ServicePort {
        address: address.parse().unwrap(),
        protocol: 6,
        port,
    };
    let to = json!({"action": "Allow", "destination": {"services": {"name": "s"}}});
    let from = json!({"action": "Allow", "source": {"services": {"name": "s", "namespace": "b"}}});
    let spec = json!({"types": ["Ingress", "Egress"], "egress": [to], "ingress": [from]});
    let mut world = World::new([web(), namespaced("a", "p", spec)]);
    let (leaves, comes) = (tcp(WEB, OTHER), tcp(OTHER, WEB));
    assert_eq!(world.at("web", Egress, &leaves), Deny);
    assert_eq!(
        world.conditions("networkpolicies/a/p"),
        [
            "its rules name the service a/s, which is not known, so that they match nothing",
            "its rules name the service b/s, which is not known, so that they match nothing",
        ]
    );
    world.take([
        Change::Service("a/s".to_owned(), Some(vec![served(OTHER, 80)])),
        Change::Service("b/s".to_owned(), Some(vec![served(OTHER, 1)])),
    ]);
    assert_eq!(world.at("web", Egress, &leaves), Allow);
    let elsewhere = Packet {
        destination_port: 81,
        ..leaves
    };
    assert_eq!(world.at("web", Egress, &elsewhere), Deny);
    // Of a source, ports do not count.
    assert_eq!(world.at("web", Ingress, &comes), Allow);
    assert!(world.conditions("networkpolicies/a/p").is_empty());
    world.take([Change::Service("a/s".to_owned(), None)]);
    assert_eq!(world.at("web", Egress, &leaves), Deny);
}

#[test]
fn both_forms_of_a_name_are_one_policy() {
    let plain = || namespaced("a", "p", deny());
    let prefixed = || namespaced("a", "default.p", allow());
    let mut world = World::new([web(), prefixed()]);
    let packet = tcp(OTHER, WEB);
    let only = ["default Deny: NetworkPolicy/a/p"];
    assert_eq!(world.order("web", Ingress), only);
    assert_eq!(world.at("web", Ingress, &packet), Allow);
    // The migration of 3.32 copies, then deletes; the plain form counts.
    world.take([plain()]);
    assert_eq!(world.order("web", Ingress), only);
    assert_eq!(world.at("web", Ingress, &packet), Deny);
    world.take([delete(Kind::NetworkPolicy, Some("a"), "p")]);
    assert_eq!(world.at("web", Ingress, &packet), Allow);
    world.take([delete(Kind::NetworkPolicy, Some("a"), "default.p")]);
    assert!(world.order("web", Ingress).is_empty());
    // Policies made of Kubernetes' keep their name.
    world.take([namespaced("a", "knp.default.x", allow())]);
    assert_eq!(
        world.order("web", Ingress),
        ["default Deny: NetworkPolicy/a/knp.default.x"]
    );
}

#[test]
fn only_what_is_used_here_is_there() {
    let from =
        |selector: &str| rules(json!([{"action": "Allow", "source": {"selector": selector}}]));
    let remote = workload("n2", "a", "far", OTHER, json!({"app": "far"}), json!({}));
    let mut world = World::new([
        web(),
        remote,
        global(
            "here",
            with(from("app == 'far'"), json!({"selector": "app == 'web'"})),
        ),
        global(
            "there",
            with(from("app == 'web'"), json!({"selector": "app == 'far'"})),
        ),
    ]);
    let policies = |world: &World| -> Vec<String> {
        world
            .desired
            .policies
            .keys()
            .map(|id| id.to_string())
            .collect()
    };
    assert_eq!(policies(&world), ["GlobalNetworkPolicy/here"]);
    assert_eq!(world.desired.workloads.len(), 1);
    assert_eq!(world.desired.sets.len(), 1);
    let hint = json!({"performanceHints": ["AssumeNeededOnEveryNode"], "selector": "app == 'far'"});
    world.take([global("there", with(from("app == 'web'"), hint))]);
    assert_eq!(policies(&world).len(), 2);
    world.take([delete(Kind::WorkloadEndpoint, Some("a"), "n1-k8s-web-eth0")]);
    assert_eq!(policies(&world), ["GlobalNetworkPolicy/there"]);
    assert!(world.desired.profiles.is_empty());
}

#[test]
fn a_change_is_told_as_small_as_it_is() {
    let far = |name: &str, address: &str| {
        workload("n2", "a", name, address, json!({"app": "far"}), json!({}))
    };
    let from_far = rules(json!([{"action": "Allow", "source": {"selector": "app == 'far'"}}]));
    let mut world = World::new([web(), far("1", "10.0.1.1"), global("p", from_far)]);
    let mut take = |change: Change| -> Delta {
        crate::common::take(&mut world.calculator, &change);
        world.calculator.flush()
    };
    let delta = take(far("2", "10.0.1.2"));
    let [SetChange::Members { added, removed }] = &delta.sets.values().collect::<Vec<_>>()[..]
    else {
        panic!("{delta:?}");
    };
    assert_eq!((added.len(), removed.len()), (1, 0));
    let rest = Delta {
        sets: delta.sets.clone(),
        ..Delta::default()
    };
    assert_eq!(delta, rest);
    // The same address of another endpoint, the same endpoint again, and what nobody selects.
    assert!(take(far("3", "10.0.1.2")).is_empty());
    assert!(take(far("3", "10.0.1.2")).is_empty());
    assert!(take(delete(Kind::WorkloadEndpoint, Some("a"), "n2-k8s-3-eth0")).is_empty());
    assert!(take(workload("n2", "b", "4", OTHER, json!({}), json!({}))).is_empty());
    assert!(
        take(global(
            "q",
            with(deny(), json!({"selector": "app == 'far'"}))
        ))
        .is_empty()
    );
}

#[test]
fn workloads_carry_what_the_kernel_needs() {
    let more = json!({
        "ipNetworks": ["10.0.0.2/32", "fd00::1/128", "10.0.0.1/32"], "mac": "CA:FE:1D:52:BB:E9",
        "allowSpoofedSourcePrefixes": ["10.9.0.0/16", "10.8.0.1"],
        "qosControls": {"ingressBandwidth": 1000000},
    });
    let world = World::new([workload("n1", "a", "web", WEB, json!({}), more)]);
    let workload = &world.desired.workloads[&id("a", "web")];
    assert_eq!(workload.interface, "caliaweb");
    assert_eq!(workload.mac.as_deref(), Some("ca:fe:1d:52:bb:e9"));
    let addresses: Vec<String> = workload.addresses.iter().map(|a| a.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    let spoofable: Vec<String> = workload
        .spoofable
        .iter()
        .map(|net| net.to_string())
        .collect();
    assert_eq!(spoofable, ["10.8.0.1/32", "10.9.0.0/16"]);
    assert_eq!(
        workload.qos.as_ref().unwrap().ingress_bandwidth,
        Some(1_000_000)
    );
}

#[test]
fn of_two_workloads_with_one_interface_the_first_has_it() {
    let twin = |name: &str, address: &str| {
        workload(
            "n1",
            "a",
            name,
            address,
            json!({}),
            json!({"interfaceName": "cali1"}),
        )
    };
    let mut world = World::new([twin("b", "10.0.0.2"), twin("a", "10.0.0.1")]);
    assert_eq!(
        world.desired.workloads.keys().collect::<Vec<_>>(),
        [&id("a", "a")]
    );
    assert_eq!(
        world.conditions("n1-k8s-b-eth0"),
        ["its interface \"cali1\" is that of a/n1-k8s-a-eth0, whose policies hold; delete one"]
    );
    world.take([delete(Kind::WorkloadEndpoint, Some("a"), "n1-k8s-a-eth0")]);
    assert_eq!(
        world.desired.workloads.keys().collect::<Vec<_>>(),
        [&id("a", "b")]
    );
}

#[test]
fn values_can_be_written_and_read_back() {
    let rule = json!({"action": "Allow", "protocol": "TCP", "icmp": {},
        "source": {"selector": "has(x)"}, "destination": {"ports": ["http", 80]},
        "metadata": {"annotations": {"note": "kept"}}});
    let world = World::new([web(), global("p", rules(json!([rule])))]);
    let text = serde_json::to_string(&world.desired).unwrap();
    let again: margay_policy::Desired = serde_json::from_str(&text).unwrap();
    assert_eq!(again, world.desired);
    let policy = &world.desired.policies.values().next().unwrap();
    assert_eq!(policy.ingress[0].annotations["note"], "kept");
}
