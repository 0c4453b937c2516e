//! What is valid, and where what is not valid is wrong.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use margay_model::resource::pool::{IPPool, IPPoolSpec, overlapping};
use margay_model::resource::profile::default_allow;
use margay_model::{AnyResource, Kind, Metadata};
use serde_json::{Value, json};

/// The paths at which an object of this kind, name and specification is wrong.
fn wrong(kind: Kind, name: &str, spec: &Value) -> Vec<String> {
    let namespace = kind.namespaced().then_some("prod");
    let mut resource = AnyResource::from_value(json!({
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }))
    .unwrap();
    resource.set_defaults();
    let found = resource.validate().err().unwrap_or_default();
    found
        .list()
        .iter()
        .map(|problem| problem.path.clone())
        .collect()
}

fn good(kind: Kind, name: &str, spec: &Value) {
    assert_eq!(wrong(kind, name, spec), [""; 0], "{kind} {name} {spec}");
}

fn bad(kind: Kind, name: &str, spec: &Value, path: &str) {
    let found = wrong(kind, name, spec);
    assert!(
        found.iter().any(|found| found == path),
        "{kind} {name} {spec}: {found:?}, not {path}"
    );
}

#[test]
fn all_that_calico_stored_is_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for file in [
        "09-ipamconfig-nonstrict.json",
        "11-k8s-pod-del.json",
        "10-k8s-pod-add.json",
    ] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        let recording: Value = serde_json::from_str(&text).unwrap();
        for entry in recording["kvs"].as_array().unwrap() {
            let value: Value = serde_json::from_str(entry["raw"].as_str().unwrap()).unwrap();
            if value.get("apiVersion").is_none() {
                continue;
            }
            let resource = AnyResource::from_value(value).unwrap();
            if let Err(problems) = resource.validate() {
                panic!("{}: {problems}", entry["key"]);
            }
            resource.validate_update(&resource).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 60, "only {seen} values checked");
}

#[test]
fn metadata() {
    let check = |metadata: Value| {
        let value = json!({"kind": "NetworkSet", "metadata": metadata});
        let problems = AnyResource::from_value(value)
            .unwrap()
            .validate()
            .err()
            .unwrap_or_default();
        problems
            .list()
            .first()
            .map(|problem| problem.path.clone())
            .unwrap_or_default()
    };
    assert_eq!(
        check(json!({"name": "a", "namespace": "b", "labels": {"x.io/y": "z"}})),
        ""
    );
    assert_eq!(
        check(json!({"name": "A", "namespace": "b"})),
        "metadata.name"
    );
    assert_eq!(check(json!({"name": "a"})), "metadata.namespace");
    assert_eq!(
        check(json!({"name": "a", "namespace": "b.c"})),
        "metadata.namespace"
    );
    let labelled = json!({"name": "a", "namespace": "b", "labels": {"-": ""}});
    assert_eq!(check(labelled), "metadata.labels.-");
    let forced =
        json!({"name": "a", "namespace": "b", "labels": {"projectcalico.org/namespace": "b"}});
    assert_eq!(check(forced), "metadata.labels.projectcalico.org/namespace");
    let long = "x".repeat(256 * 1024);
    let annotated = json!({"name": "a", "namespace": "b", "annotations": {"note": long}});
    assert_eq!(check(annotated), "metadata.annotations");
    let global = json!({"kind": "Tier", "metadata": {"name": "a", "namespace": "b"}});
    assert!(AnyResource::from_value(global).unwrap().validate().is_err());
}

#[test]
fn pools() {
    let kind = Kind::IPPool;
    for spec in [
        json!({"cidr": "10.0.0.0/16"}),
        json!({"cidr": "fd00::/64", "vxlanMode": "Always"}),
        json!({"cidr": "10.0.0.0/26", "blockSize": 28, "ipipMode": "CrossSubnet"}),
        json!({"cidr": "10.0.0.0/30", "disabled": true}),
        json!({"cidr": "10.0.0.0/24", "allowedUses": ["LoadBalancer"]}),
        json!({"cidr": "10.0.0.0/24", "allowedUses": ["Workload"], "namespaceSelector": "a == 'b'"}),
    ] {
        good(kind, "pool", &spec);
    }
    for (spec, path) in [
        (json!({}), "spec.cidr"),
        (json!({"cidr": "10.0.0.1/16"}), "spec.cidr"),
        (json!({"cidr": "10.0.0.1"}), "spec.cidr"),
        (json!({"cidr": "169.254.4.0/24"}), "spec.cidr"),
        (json!({"cidr": "0.0.0.0/0"}), "spec.cidr"),
        (json!({"cidr": "fe80::/64"}), "spec.cidr"),
        (
            json!({"cidr": "10.0.0.0/16", "blockSize": 19}),
            "spec.blockSize",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "blockSize": 33}),
            "spec.blockSize",
        ),
        (json!({"cidr": "10.0.0.0/28"}), "spec.blockSize"),
        (
            json!({"cidr": "fd00::/64", "ipipMode": "Always"}),
            "spec.ipipMode",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}),
            "spec.ipipMode",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "nodeSelector": "global()"}),
            "spec.nodeSelector",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "nodeSelector": "a ="}),
            "spec.nodeSelector",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "namespaceSelector": "has(a)"}),
            "spec.namespaceSelector",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Workload"]}),
            "spec.allowedUses",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "vxlanMode": "Always"}),
            "spec.vxlanMode",
        ),
        (
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"}),
            "spec.nodeSelector",
        ),
    ] {
        bad(kind, "pool", &spec, path);
    }
    bad(
        Kind::IPReservation,
        "r",
        &json!({"reservedCIDRs": ["10.0.0.1", "x"]}),
        "spec.reservedCIDRs[1]",
    );
}

#[test]
fn pools_do_not_overlap() {
    let pool = |name: &str, cidr: &str| {
        let spec = IPPoolSpec {
            cidr: cidr.to_owned(),
            ..IPPoolSpec::default()
        };
        IPPool::new(Metadata::named(name), spec)
    };
    let pools = [
        pool("a", "10.0.0.0/16"),
        pool("b", "fd00::/64"),
        pool("broken", "x"),
    ];
    let found = |name: &str, cidr: &str| {
        overlapping(name, cidr.parse().unwrap(), &pools).map(|pool| pool.metadata.name.as_str())
    };
    assert_eq!(found("new", "10.0.4.0/24"), Some("a"));
    assert_eq!(found("new", "0.0.0.0/0"), Some("a"));
    assert_eq!(found("new", "10.1.0.0/16"), None);
    assert_eq!(found("a", "10.0.0.0/16"), None);
    assert_eq!(found("new", "fd00::/48"), Some("b"));
}

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

#[test]
fn settings() {
    let kind = Kind::FelixConfiguration;
    good(
        kind,
        "default",
        &json!({"iptablesBackend": "nft", "failsafeInboundHostPorts": [], "unknown": 1}),
    );
    good(kind, "rack1", &json!({"nodeSelector": "rack == '1'"}));
    for (name, spec, path) in [
        ("rack1", json!({}), "metadata.name"),
        (
            "default",
            json!({"nodeSelector": "all()"}),
            "spec.nodeSelector",
        ),
        ("default", json!({"ipv6Support": "yes"}), "spec.ipv6Support"),
        ("default", json!({"vxlanPort": 0}), "spec.vxlanPort"),
        (
            "default",
            json!({"reportingInterval": "soon"}),
            "spec.reportingInterval",
        ),
        (
            "default",
            json!({"chainInsertMode": "Beside"}),
            "spec.chainInsertMode",
        ),
        (
            "default",
            json!({"nftablesMode": "auto"}),
            "spec.nftablesMode",
        ),
        (
            "default",
            json!({"natPortRange": "high"}),
            "spec.natPortRange",
        ),
        (
            "default",
            json!({"externalNodesList": ["10.0.0.0/33"]}),
            "spec.externalNodesList[0]",
        ),
        (
            "default",
            json!({"failsafeInboundHostPorts": [{"port": 70000}]}),
            "spec.failsafeInboundHostPorts[0].port",
        ),
        (
            "default",
            json!({"wireguardInterfaceName": "wireguard.calico.0"}),
            "spec.wireguardInterfaceName",
        ),
        (
            "default",
            json!({"bpfLogFilters": {"all": 1}}),
            "spec.bpfLogFilters",
        ),
    ] {
        bad(kind, name, &spec, path);
    }
    let kind = Kind::KubeControllersConfiguration;
    bad(kind, "mine", &json!({}), "metadata.name");
    let nested = json!({"controllers": {"node": {"hostEndpoint": {"autoCreate": "Yes"}}}});
    bad(
        kind,
        "default",
        &nested,
        "spec.controllers.node.hostEndpoint.autoCreate",
    );
    let kind = Kind::IPAMConfiguration;
    good(
        kind,
        "default",
        &json!({"strictAffinity": true, "maxBlocksPerHost": 4}),
    );
    bad(
        kind,
        "default",
        &json!({"maxBlocksPerHost": 4}),
        "spec.maxBlocksPerHost",
    );
    bad(
        kind,
        "default",
        &json!({"autoAllocateBlocks": false}),
        "spec.autoAllocateBlocks",
    );
}

#[test]
fn nodes_and_tiers() {
    for (spec, path) in [
        (json!({"bgp": {}}), "spec.bgp"),
        (json!({"bgp": {"asNumber": -1}}), "spec.bgp.asNumber"),
        (
            json!({"bgp": {"ipv4Address": "fd00::1/64"}}),
            "spec.bgp.ipv4Address",
        ),
        (
            json!({"bgp": {"routeReflectorClusterID": "one"}}),
            "spec.bgp.routeReflectorClusterID",
        ),
        (
            json!({"vxlanTunnelMACAddr": "66:aa"}),
            "spec.vxlanTunnelMACAddr",
        ),
        (
            json!({"ipv6VXLANTunnelAddr": "10.0.0.1"}),
            "spec.ipv6VXLANTunnelAddr",
        ),
        (
            json!({"wireguard": {"interfaceIPv4Address": "x"}}),
            "spec.wireguard.interfaceIPv4Address",
        ),
        (
            json!({"addresses": [{"address": "x"}]}),
            "spec.addresses[0].address",
        ),
        (
            json!({"addresses": [{"address": "10.0.0.1", "type": "Other"}]}),
            "spec.addresses[0].type",
        ),
    ] {
        bad(Kind::Node, "n", &spec, path);
    }
    good(
        Kind::Tier,
        "kube-admin",
        &json!({"order": 1000, "defaultAction": "Pass"}),
    );
    bad(Kind::Tier, "a.b", &json!({}), "metadata.name");
    bad(
        Kind::Tier,
        "t",
        &json!({"defaultAction": "Allow"}),
        "spec.defaultAction",
    );
    bad(Kind::Tier, "kube-admin", &json!({}), "spec.defaultAction");
    bad(Kind::Tier, "default", &json!({"order": 7}), "spec.order");
    bad(
        Kind::ClusterInformation,
        "other",
        &json!({}),
        "metadata.name",
    );
}

#[test]
fn endpoints() {
    let kind = Kind::HostEndpoint;
    good(kind, "h", &json!({"node": "n", "interfaceName": "*"}));
    for (spec, path) in [
        (json!({"interfaceName": "eth0"}), "spec.node"),
        (json!({"node": "n"}), "spec.interfaceName"),
        (
            json!({"node": "n", "interfaceName": "a234567890123456"}),
            "spec.interfaceName",
        ),
        (
            json!({"node": "n", "expectedIPs": ["10.0.0.0/8"]}),
            "spec.expectedIPs[0]",
        ),
        (
            json!({"node": "n", "interfaceName": "*", "ports": [{"name": "a", "protocol": "ICMP", "port": 1}]}),
            "spec.ports[0].protocol",
        ),
        (
            json!({"node": "n", "interfaceName": "*", "ports": [{"protocol": "TCP", "port": 1}]}),
            "spec.ports[0].name",
        ),
        (
            json!({"node": "n", "interfaceName": "*", "profiles": ["A"]}),
            "spec.profiles[0]",
        ),
    ] {
        bad(kind, "h", &spec, path);
    }
    let workload = |more: Value| {
        let mut spec =
            json!({"orchestrator": "k8s", "node": "n-1", "pod": "p", "endpoint": "eth0"});
        let fields = spec.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        spec
    };
    let (kind, name) = (Kind::WorkloadEndpoint, "n--1-k8s-p-eth0");
    good(
        kind,
        name,
        &workload(json!({"ipNetworks": ["10.0.0.1/32"], "ipv4Gateway": "10.0.0.254"})),
    );
    good(
        kind,
        name,
        &workload(json!({"ports": [{"protocol": "TCP", "port": 80, "hostPort": 8080}]})),
    );
    bad(kind, "other", &workload(json!({})), "metadata.name");
    bad(kind, name, &json!({"orchestrator": "k8s"}), "metadata.name");
    for (more, path) in [
        (json!({"ipNetworks": ["10.0.0.0/24"]}), "spec.ipNetworks[0]"),
        (json!({"ipv6Gateway": "fd00::1"}), "spec.ipv6Gateway"),
        (
            json!({"ipNATs": [{"internalIP": "10.0.0.9", "externalIP": "1.2.3.4"}]}),
            "spec.ipNATs[0].internalIP",
        ),
        (json!({"interfaceName": "a b"}), "spec.interfaceName"),
        (json!({"mac": "x"}), "spec.mac"),
        (
            json!({"ports": [{"protocol": "TCP", "port": 80}]}),
            "spec.ports[0].name",
        ),
        (
            json!({"allowSpoofedSourcePrefixes": ["x"]}),
            "spec.allowSpoofedSourcePrefixes[0]",
        ),
        (
            json!({"qosControls": {"dscp": "AF99"}}),
            "spec.qosControls.dscp",
        ),
        (
            json!({"qosControls": {"ingressBandwidth": 999}}),
            "spec.qosControls.ingressBandwidth",
        ),
    ] {
        bad(kind, name, &workload(more), path);
    }
}

#[test]
fn other_kinds() {
    bad(
        Kind::GlobalNetworkSet,
        "s",
        &json!({"nets": ["10.0.0.0/8", "x"]}),
        "spec.nets[1]",
    );
    bad(
        Kind::Profile,
        "p",
        &json!({"labelsToApply": {"a b": ""}}),
        "spec.labelsToApply.a b",
    );
    bad(
        Kind::BlockAffinity,
        "b",
        &json!({"state": "lost", "cidr": "10.0.0.0/26"}),
        "spec.state",
    );
    let status = json!({"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 10});
    good(Kind::CalicoNodeStatus, "s", &status);
    for (spec, path) in [
        (
            json!({"classes": ["BGP"], "updatePeriodSeconds": 10}),
            "spec.node",
        ),
        (
            json!({"node": "n", "updatePeriodSeconds": 10}),
            "spec.classes",
        ),
        (
            json!({"node": "n", "classes": ["BGP", "BGP"], "updatePeriodSeconds": 1}),
            "spec.classes[1]",
        ),
        (
            json!({"node": "n", "classes": ["BGP"]}),
            "spec.updatePeriodSeconds",
        ),
        (
            json!({"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 86401}),
            "spec.updatePeriodSeconds",
        ),
    ] {
        bad(Kind::CalicoNodeStatus, "s", &spec, path);
    }
    let endpoint = json!({"hostname": "n", "orchestratorID": "openstack", "workloadID": "w"});
    let move_it = json!({"source": {"workload": endpoint}, "target": {"selector": "has(a)"}});
    good(Kind::LiveMigration, "m", &move_it);
    bad(
        Kind::LiveMigration,
        "m",
        &json!({"source": {"workload": endpoint}}),
        "spec.target",
    );
}

#[test]
fn the_profile_that_allows_everything_is_not_stored() {
    let profile = default_allow();
    assert_eq!(profile.metadata.resource_version.as_deref(), Some("1"));
    let problems = profile.validate().unwrap_err();
    assert_eq!(problems.list().len(), 1);
    assert_eq!(problems.list()[0].path, "metadata.name");
}

#[test]
fn updates() {
    let pool = |spec: Value| {
        let mut pool = AnyResource::from_value(
            json!({"kind": "IPPool", "metadata": {"name": "p"}, "spec": spec}),
        )
        .unwrap();
        pool.set_defaults();
        pool
    };
    let old = pool(json!({"cidr": "fd00:0::/64"}));
    pool(json!({"cidr": "fd00::/64", "natOutgoing": true}))
        .validate_update(&old)
        .unwrap();
    for (spec, path) in [
        (json!({"cidr": "fd01::/64"}), "spec.cidr"),
        (
            json!({"cidr": "fd00::/64", "blockSize": 120}),
            "spec.blockSize",
        ),
    ] {
        let problems = pool(spec).validate_update(&old).unwrap_err();
        assert_eq!(problems.list()[0].path, path);
    }
    let balancers = pool(json!({"cidr": "fd00::/64", "allowedUses": ["LoadBalancer"]}));
    let problems = old.validate_update(&balancers).unwrap_err();
    assert_eq!(problems.list()[0].path, "spec.allowedUses");
}
