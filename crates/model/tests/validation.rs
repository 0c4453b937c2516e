//! What is valid, and where what is not valid is wrong.

mod common;

use std::path::Path;

use common::{bad, good};

use margay_model::resource::pool::{IPPool, IPPoolSpec, overlapping};
use margay_model::resource::profile::default_allow;
use margay_model::{AnyResource, Kind, Metadata};
use serde_json::{Value, json};

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
            json!({"interfaces": [{"name": "a b"}]}),
            "spec.interfaces[0].name",
        ),
        (
            json!({"interfaces": [{"name": "eth0", "addresses": ["x"]}]}),
            "spec.interfaces[0].addresses[0]",
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
    let limits = json!({"egressMinburst": 0, "ingressBurst": 34_359_738_360_i64, "dscp": "EF"});
    good(kind, name, &workload(json!({ "qosControls": limits })));
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
        (
            json!({"qosControls": {"egressMinburst": 999}}),
            "spec.qosControls.egressMinburst",
        ),
        (
            json!({"qosControls": {"dscp": 64}}),
            "spec.qosControls.dscp",
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
