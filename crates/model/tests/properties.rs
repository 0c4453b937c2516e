//! Properties that hold for every resource and every JSON text.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use margay_model::resource::bgp::{BGPPeer, BGPPeerSpec};
use margay_model::resource::policy::{NetworkPolicy, NetworkPolicySpec, PolicyType};
use margay_model::resource::rule::{EntityRule, IcmpMatch, Rule};
use margay_model::scalar::{Action, AsNumber, GoDuration, Port, Protocol};
use margay_model::{AnyResource, Kind, Metadata, Resource, Spec};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Value};

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Deny),
        Just(Action::Log),
        Just(Action::Pass),
        "[a-z]{1,5}".prop_map(|word| Action::from(word.as_str())),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![
        any::<u8>().prop_map(Protocol::Number),
        Just(Protocol::Tcp),
        Just(Protocol::IcmpV6)
    ]
}

fn port() -> impl Strategy<Value = Port> {
    prop_oneof![
        (any::<u16>(), any::<u16>()).prop_map(|(a, b)| Port::Range {
            first: a.min(b),
            last: a.max(b)
        }),
        "[a-z]{1,9}".prop_map(Port::Named),
    ]
}

fn entity() -> impl Strategy<Value = EntityRule> {
    (
        vec("[0-9./]{1,9}", 0..3),
        ".{0,9}",
        vec(port(), 0..4),
        vec(port(), 0..2),
    )
        .prop_map(|(nets, selector, ports, not_ports)| EntityRule {
            nets,
            selector,
            ports,
            not_ports,
            ..EntityRule::default()
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let icmp = (any::<Option<u8>>(), any::<Option<u8>>()).prop_map(|(kind, code)| IcmpMatch {
        kind: kind.map(i64::from),
        code: code.map(i64::from),
        ..IcmpMatch::default()
    });
    (
        action(),
        proptest::option::of(protocol()),
        proptest::option::of(icmp),
        entity(),
        entity(),
    )
        .prop_map(|(action, protocol, icmp, source, destination)| Rule {
            action,
            protocol,
            icmp,
            source,
            destination,
            ..Rule::default()
        })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    ("[a-z]{1,9}", btree_map("[a-z]{1,4}", ".{0,9}", 0..3)).prop_map(|(name, labels)| Metadata {
        labels,
        ..Metadata::namespaced("prod", name)
    })
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let order = proptest::option::of(prop_oneof![
        any::<i32>().prop_map(f64::from),
        (-1e6..1e6f64).prop_filter("stored as a fraction", |order| order.fract() != 0.0),
    ]);
    (metadata(), order, vec(rule(), 0..3), vec(rule(), 0..3)).prop_map(
        |(metadata, order, ingress, egress)| {
            let spec = NetworkPolicySpec {
                order,
                ingress,
                egress,
                types: vec![PolicyType::Ingress],
                ..NetworkPolicySpec::default()
            };
            Resource::new(metadata, spec)
        },
    )
}

fn peer() -> impl Strategy<Value = BGPPeer> {
    (
        metadata(),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
        any::<Option<u8>>(),
    )
        .prop_map(|(metadata, number, seconds, ttl_security)| {
            let spec = BGPPeerSpec {
                as_number: number.map(AsNumber),
                max_restart_time: seconds.map(GoDuration::from_secs),
                ttl_security,
                ..BGPPeerSpec::default()
            };
            Resource::new(metadata, spec)
        })
}

/// JSON with the names that resources use, so that much of it is read.
fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("10.0.0.0/8".to_owned()),
        Just("Allow".to_owned()),
        Just("90s".to_owned()),
        Just("all()".to_owned()),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let name = proptest::sample::select(NAMES).prop_map(str::to_owned);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..6).prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}

fn there_and_back<S: Spec>(resource: &Resource<S>) -> Result<(), TestCaseError> {
    let bytes = resource.encode().unwrap();
    let again = Resource::<S>::decode(&bytes).unwrap();
    prop_assert_eq!(&again, resource);
    prop_assert_eq!(again.encode().unwrap(), bytes);
    Ok(())
}

proptest! {
    #[test]
    fn policies_go_there_and_back(policy in policy()) {
        there_and_back(&policy)?;
    }

    #[test]
    fn peers_go_there_and_back(peer in peer()) {
        there_and_back(&peer)?;
    }

    #[test]
    fn no_json_is_too_much(metadata in json(), spec in json(), kind in proptest::sample::select(&Kind::ALL[..])) {
        let mut value = Map::new();
        value.insert("kind".to_owned(), kind.name().into());
        value.insert("metadata".to_owned(), metadata);
        value.insert("spec".to_owned(), spec);
        if let Ok(mut resource) = AnyResource::from_value(Value::Object(value)) {
            let bytes = resource.encode().unwrap();
            let stable = AnyResource::decode(kind, &bytes).unwrap();
            prop_assert_eq!(stable.encode().unwrap(), bytes);
            resource.set_defaults();
            let _ = resource.validate();
            let _ = resource.validate_update(&stable);
            let once = resource.encode().unwrap();
            resource.set_defaults();
            prop_assert_eq!(resource.encode().unwrap(), once);
        }
    }

    #[test]
    fn durations_go_there_and_back(text in "-?[0-9]{1,4}(\\.[0-9]{1,3})?(ns|us|ms|s|m|h)") {
        let duration: GoDuration = text.parse().unwrap();
        prop_assert_eq!(duration.to_string().parse::<GoDuration>().unwrap(), duration);
    }
}

const NAMES: &[&str] = &[
    "name",
    "namespace",
    "labels",
    "annotations",
    "cidr",
    "blockSize",
    "nodeSelector",
    "ingress",
    "egress",
    "action",
    "source",
    "destination",
    "ports",
    "protocol",
    "nets",
    "selector",
    "types",
    "order",
    "bgp",
    "asNumber",
    "addresses",
    "ipNetworks",
    "profiles",
    "communities",
    "exportV4",
    "controllers",
    "node",
    "reconcilerPeriod",
    "reportingInterval",
    "failsafeInboundHostPorts",
    "icmp",
    "type",
    "code",
    "target",
    "workloadEndpoint",
    "qosControls",
    "ipNATs",
    "extra",
];
