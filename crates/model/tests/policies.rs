//! What is valid of policies and BGP resources, and where what is not valid is wrong.

mod common;

use common::{bad, good};
use margay_model::Kind;
use serde_json::{Value, json};

#[test]
fn rules() {
    let kind = Kind::GlobalNetworkPolicy;
    for rule in [
        json!({"action": "Allow"}),
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "1:9", "web"]}}),
        json!({"action": "Deny", "protocol": "ICMPv6", "ipVersion": 6, "icmp": {"type": 1, "code": 2}}),
        json!({"action": "Log", "source": {"namespaceSelector": "global()"}}),
        json!({"action": "Pass", "source": {"nets": ["10.0.0.0/8", "10.1.2.3"], "notNets": ["10.9.0.0/16"]}}),
        json!({"action": "Allow", "source": {"services": {"name": "dns", "namespace": "kube-system"}}}),
        json!({"action": "Allow", "http": {"methods": ["GET"], "paths": [{"prefix": "/a"}]}}),
    ] {
        good(kind, "p", &json!({"ingress": [rule]}));
    }
    for (rule, path) in [
        (json!({}), "action"),
        (json!({"action": "allow"}), "action"),
        (json!({"action": "Allow", "ipVersion": 5}), "ipVersion"),
        (json!({"action": "Allow", "protocol": "GRE"}), "protocol"),
        (json!({"action": "Allow", "notProtocol": 0}), "notProtocol"),
        (
            json!({"action": "Allow", "protocol": "ICMP", "ipVersion": 6}),
            "protocol",
        ),
        (json!({"action": "Allow", "icmp": {"type": 8}}), "icmp"),
        (
            json!({"action": "Allow", "protocol": "ICMP", "icmp": {"type": 255}}),
            "icmp.type",
        ),
        (
            json!({"action": "Allow", "protocol": "ICMP", "icmp": {"code": 0}}),
            "icmp.code",
        ),
        (
            json!({"action": "Allow", "destination": {"ports": [80]}}),
            "destination.ports",
        ),
        (
            json!({"action": "Allow", "protocol": "UDPLite", "source": {"notPorts": ["web"]}}),
            "source.notPorts",
        ),
        (
            json!({"action": "Allow", "protocol": "TCP", "source": {"ports": [1, "9:8"]}}),
            "source.ports[1]",
        ),
        (
            json!({"action": "Allow", "source": {"nets": ["10.0.0.0/8", "::/0"]}}),
            "source.nets[1]",
        ),
        (
            json!({"action": "Allow", "ipVersion": 6, "source": {"nets": ["10.0.0.0/8"]}}),
            "source.nets[0]",
        ),
        (
            json!({"action": "Allow", "source": {"nets": ["1.0.0.0/8"]}, "destination": {"nets": ["::1"]}}),
            "destination.nets[0]",
        ),
        (
            json!({"action": "Allow", "source": {"notNets": ["0.0.0.0/0"]}}),
            "source.notNets[0]",
        ),
        (
            json!({"action": "Allow", "source": {"selector": "global()"}}),
            "source.selector",
        ),
        (
            json!({"action": "Allow", "source": {"namespaceSelector": "global() || has(a)"}}),
            "source.namespaceSelector",
        ),
        (
            json!({"action": "Allow", "source": {"services": {"name": "dns"}}}),
            "source.services.namespace",
        ),
        (
            json!({"action": "Allow", "source": {"selector": "all()", "services": {"name": "d", "namespace": "n"}}}),
            "source.selector",
        ),
        (
            json!({"action": "Allow", "destination": {"services": {"name": "d", "namespace": "n"}}}),
            "destination.services",
        ),
        (
            json!({"action": "Deny", "http": {"methods": ["GET"]}}),
            "http",
        ),
        (
            json!({"action": "Allow", "protocol": "UDP", "http": {}}),
            "http",
        ),
        (
            json!({"action": "Allow", "http": {"paths": [{"exact": "/", "prefix": "/"}]}}),
            "http.paths[0]",
        ),
        (
            json!({"action": "Allow", "source": {"nets": vec!["10.0.0.1"; 257]}}),
            "source.nets",
        ),
    ] {
        bad(
            kind,
            "p",
            &json!({"ingress": [rule]}),
            &format!("spec.ingress[0].{path}"),
        );
    }
    let many = vec![json!({"action": "Allow"}); 1025];
    bad(kind, "p", &json!({"egress": many}), "spec.egress");
    let http = json!({"egress": [{"action": "Allow", "http": {}}]});
    bad(kind, "p", &http, "spec.egress[0].http");
    let service =
        json!({"ingress": [{"action": "Allow", "source": {"services": {"name": "dns"}}}]});
    good(Kind::NetworkPolicy, "p", &service);
    bad(
        Kind::Profile,
        "p",
        &json!({"egress": [{"action": "Drop"}]}),
        "spec.egress[0].action",
    );
}

#[test]
fn policies() {
    let kind = Kind::GlobalNetworkPolicy;
    good(
        kind,
        "security.gnp1",
        &json!({"doNotTrack": true, "applyOnForward": true}),
    );
    for (spec, path) in [
        (json!({"tier": "a.b"}), "spec.tier"),
        (json!({"types": ["Ingress", "Ingress"]}), "spec.types[1]"),
        (json!({"types": ["Both"]}), "spec.types[0]"),
        (json!({"selector": "global()"}), "spec.selector"),
        (
            json!({"serviceAccountSelector": "x y"}),
            "spec.serviceAccountSelector",
        ),
        (
            json!({"namespaceSelector": "global()"}),
            "spec.namespaceSelector",
        ),
        (json!({"doNotTrack": true}), "spec.applyOnForward"),
        (
            json!({"doNotTrack": true, "preDNAT": true, "applyOnForward": true}),
            "spec.preDNAT",
        ),
        (
            json!({"preDNAT": true, "applyOnForward": true, "egress": [{"action": "Deny"}]}),
            "spec.egress",
        ),
        (
            json!({"preDNAT": true, "applyOnForward": true, "types": ["Egress"]}),
            "spec.types",
        ),
        (
            json!({"performanceHints": ["Hurry"]}),
            "spec.performanceHints[0]",
        ),
    ] {
        bad(kind, "p", &spec, path);
    }
    bad(kind, "a.b.c", &json!({}), "metadata.name");
    good(Kind::NetworkPolicy, "knp.default.a.b.c", &json!({}));
    good(
        Kind::StagedNetworkPolicy,
        "p",
        &json!({"stagedAction": "Delete", "tier": "t"}),
    );
    let delete = json!({"stagedAction": "Delete", "selector": "all()"});
    for kind in [Kind::StagedNetworkPolicy, Kind::StagedGlobalNetworkPolicy] {
        bad(kind, "p", &delete, "spec.stagedAction");
        bad(
            kind,
            "p",
            &json!({"stagedAction": "Try"}),
            "spec.stagedAction",
        );
    }
    let kind = Kind::StagedKubernetesNetworkPolicy;
    bad(
        kind,
        "p",
        &json!({"stagedAction": "Delete", "podSelector": {}}),
        "spec.stagedAction",
    );
    bad(
        kind,
        "p",
        &json!({"policyTypes": ["Both"]}),
        "spec.policyTypes[0]",
    );
}

#[test]
fn policies_in_the_form_of_kubernetes() {
    let kind = Kind::StagedKubernetesNetworkPolicy;
    let good_spec = json!({
        "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "ingress": [
            {},
            {"ports": [{"port": "http"}, {"protocol": "UDP", "port": 5000, "endPort": 5010}]},
            {"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
        ],
        "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]}],
    });
    good(kind, "p", &good_spec);
    let selector = |requirement: Value| json!({"podSelector": {"matchExpressions": [requirement]}});
    let port = |port: Value| json!({"ingress": [{"ports": [port]}]});
    let to = |peer: Value| json!({"egress": [{"to": [peer]}]});
    for (spec, path) in [
        (
            json!({"podSelector": {"matchLabels": {"-a": "b"}}}),
            "spec.podSelector.matchLabels.-a",
        ),
        (
            selector(json!({"key": "a", "operator": "Is"})),
            "spec.podSelector.matchExpressions[0].operator",
        ),
        (
            selector(json!({"key": "a", "operator": "In"})),
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            selector(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            "spec.podSelector.matchExpressions[0].values",
        ),
        (
            port(json!({"protocol": "ICMP"})),
            "spec.ingress[0].ports[0].protocol",
        ),
        (port(json!({"port": 0})), "spec.ingress[0].ports[0].port"),
        (
            port(json!({"port": 9, "endPort": 8})),
            "spec.ingress[0].ports[0].endPort",
        ),
        (
            port(json!({"port": "http", "endPort": 8})),
            "spec.ingress[0].ports[0].endPort",
        ),
        (to(json!({})), "spec.egress[0].to[0]"),
        (
            to(json!({"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}})),
            "spec.egress[0].to[0]",
        ),
        (
            to(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}})),
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
    ] {
        bad(kind, "p", &spec, path);
    }
}

#[test]
fn bgp_configurations() {
    let kind = Kind::BGPConfiguration;
    good(
        kind,
        "node.n1",
        &json!({"listenPort": 1790, "logSeverityScreen": "debug"}),
    );
    for (name, spec, path) in [
        ("node.n1", json!({"asNumber": 64512}), "spec.asNumber"),
        (
            "node.n1",
            json!({"serviceClusterIPs": [{"cidr": "10.0.0.0/8"}]}),
            "spec.serviceClusterIPs",
        ),
        (
            "default",
            json!({"logSeverityScreen": "Loud"}),
            "spec.logSeverityScreen",
        ),
        ("default", json!({"listenPort": 0}), "spec.listenPort"),
        (
            "default",
            json!({"serviceExternalIPs": [{"cidr": "x"}]}),
            "spec.serviceExternalIPs[0].cidr",
        ),
        (
            "default",
            json!({"communities": [{"name": "a", "value": "1:2"}]}),
            "spec.communities[0].name",
        ),
        (
            "default",
            json!({"communities": [{"name": "a", "value": "70000:2"}]}),
            "spec.communities[0].value",
        ),
        (
            "default",
            json!({"prefixAdvertisements": [{"cidr": "10.0.0.0/8", "communities": ["b"]}]}),
            "spec.prefixAdvertisements[0].communities[0]",
        ),
        (
            "default",
            json!({"nodeToNodeMeshEnabled": false, "nodeMeshPassword": {}}),
            "spec.nodeMeshPassword",
        ),
        ("default", json!({"bindMode": "All"}), "spec.bindMode"),
        (
            "default",
            json!({"ignoredInterfaces": ["eth/0"]}),
            "spec.ignoredInterfaces[0]",
        ),
        (
            "default",
            json!({"localWorkloadPeeringIPV4": "fd00::1"}),
            "spec.localWorkloadPeeringIPV4",
        ),
        (
            "default",
            json!({"ipv4NormalRoutePriority": 0}),
            "spec.ipv4NormalRoutePriority",
        ),
    ] {
        bad(kind, name, &spec, path);
    }
}

#[test]
fn bgp_peers_and_filters() {
    let kind = Kind::BGPPeer;
    for spec in [
        json!({"peerIP": "192.0.2.1:179", "asNumber": "1.10"}),
        json!({"peerIP": "[fd00::1]:1790", "asNumber": 1, "reachableBy": "fd00::2"}),
        json!({"nodeSelector": "all()", "peerSelector": "has(rr)"}),
        json!({"localWorkloadSelector": "has(vm)", "asNumber": 65001}),
    ] {
        good(kind, "p", &spec);
    }
    for (spec, path) in [
        (
            json!({"node": "a", "nodeSelector": "all()"}),
            "spec.nodeSelector",
        ),
        (json!({"peerIP": "192.0.2.1:0"}), "spec.peerIP"),
        (
            json!({"peerIP": "192.0.2.1", "peerSelector": "all()"}),
            "spec.peerIP",
        ),
        (
            json!({"asNumber": 1, "peerSelector": "all()"}),
            "spec.asNumber",
        ),
        (json!({"localWorkloadSelector": "all()"}), "spec.asNumber"),
        (
            json!({"peerIP": "192.0.2.1", "reachableBy": "fd00::1"}),
            "spec.reachableBy",
        ),
        (
            json!({"peerIP": "192.0.2.1", "sourceAddress": "Any"}),
            "spec.sourceAddress",
        ),
        (
            json!({"peerIP": "192.0.2.1", "nextHopMode": "Self", "keepOriginalNextHop": true}),
            "spec.keepOriginalNextHop",
        ),
        (
            json!({"peerIP": "192.0.2.1", "maxRestartTime": "-1s"}),
            "spec.maxRestartTime",
        ),
        (
            json!({"peerIP": "192.0.2.1", "filters": ["a", "B"]}),
            "spec.filters[1]",
        ),
    ] {
        bad(kind, "p", &spec, path);
    }
    let kind = Kind::BGPFilter;
    good(
        kind,
        "f",
        &json!({"exportV6": [{"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In",
        "prefixLength": {"min": 16, "max": 64}, "operations": [{"addCommunity": {"value": "1:2"}}]}]}),
    );
    for (rule, path) in [
        (json!({}), "action"),
        (
            json!({"action": "Accept", "cidr": "10.0.0.0/8"}),
            "matchOperator",
        ),
        (
            json!({"action": "Accept", "matchOperator": "In"}),
            "matchOperator",
        ),
        (
            json!({"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}),
            "cidr",
        ),
        (
            json!({"action": "Accept", "prefixLength": {"max": 8}}),
            "prefixLength",
        ),
        (
            json!({"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In", "prefixLength": {"max": 33}}),
            "prefixLength.max",
        ),
        (json!({"action": "Accept", "source": "Me"}), "source"),
        (json!({"action": "Accept", "peerType": "xBGP"}), "peerType"),
        (
            json!({"action": "Accept", "communities": {"values": ["1:2", "1:3"]}}),
            "communities.values",
        ),
        (
            json!({"action": "Reject", "operations": [{"setPriority": {"value": 1}}]}),
            "operations",
        ),
        (
            json!({"action": "Accept", "operations": [{}]}),
            "operations[0]",
        ),
        (
            json!({"action": "Accept", "operations": [{"setPriority": {"value": 0}}]}),
            "operations[0].setPriority.value",
        ),
    ] {
        bad(
            kind,
            "f",
            &json!({"importV4": [rule]}),
            &format!("spec.importV4[0].{path}"),
        );
    }
}
