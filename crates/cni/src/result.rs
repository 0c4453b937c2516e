//! The result of an ADD, in one form for all versions.

mod decode;
mod encode;

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

/// What an attachment consists of. The form of version 1.1.0, which contains all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultDoc {
    /// Interfaces, the node's and the container's. Empty in the result of an IPAM plugin.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes inside the container.
    pub routes: Vec<Route>,
    /// Resolver settings.
    pub dns: Dns,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address; written in lower case.
    #[serde(default)]
    pub mac: Option<String>,
    /// Its MTU in bytes (1.1.0).
    #[serde(default)]
    pub mtu: Option<u32>,
    /// `CNI_NETNS` as given, for the container's side; `None` for the node's side.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Path of a vhost-user socket (1.1.0).
    #[serde(default)]
    pub socket_path: Option<String>,
    /// PCI address of the device (1.1.0).
    #[serde(default, rename = "pciID")]
    pub pci_id: Option<String>,
}

/// An address of a result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// The address with its prefix length; host bits are kept.
    pub address: IpNetwork,
    /// The gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Index into [`ResultDoc::interfaces`].
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route of a result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// The destination.
    pub dst: IpNetwork,
    /// The next hop; `None` leaves the choice to the plugin that installs the route.
    #[serde(default)]
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes (1.1.0).
    #[serde(default)]
    pub mtu: Option<u32>,
    /// TCP segment size to announce, in bytes (1.1.0).
    #[serde(default)]
    pub advmss: Option<u32>,
    /// Metric; the lower is preferred (1.1.0).
    #[serde(default)]
    pub priority: Option<u32>,
    /// Routing table (1.1.0); 0 is not the same as absent.
    #[serde(default)]
    pub table: Option<u32>,
    /// Scope as the kernel numbers it (1.1.0); 0 is not the same as absent.
    #[serde(default)]
    pub scope: Option<u32>,
}

/// Resolver settings of a result or a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of name servers, in order of preference.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: Option<String>,
    /// Search domains.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl Route {
    /// A route without attributes.
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self {
            dst,
            gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

impl Dns {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::version::Version;

    const DUAL: &str = r#"{
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cali12", "mac": "EE:EE:EE:EE:EE:EE"},
            {"name": "eth0", "mac": "0a:58:0a:00:00:05", "mtu": 1450, "sandbox": "/run/netns/x",
             "socketPath": "/s", "pciID": "0000:00:01.0"}
        ],
        "ips": [
            {"address": "10.1.0.5/32", "interface": 1},
            {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 1}
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "169.254.1.1", "mtu": 1400, "table": 0, "scope": 0},
            {"dst": "::/0", "priority": 7, "advmss": 1360}
        ],
        "dns": {"nameservers": ["10.96.0.10"], "search": ["svc"]}
    }"#;

    fn dual() -> ResultDoc {
        ResultDoc::from_bytes(DUAL.as_bytes(), None).unwrap()
    }

    fn project(doc: &ResultDoc, version: Version) -> ResultDoc {
        ResultDoc::decode(&doc.encode(version).unwrap(), None).unwrap()
    }

    #[test]
    fn r01_legacy_shape() {
        for version in [Version::V0_1_0, Version::V0_2_0] {
            assert_eq!(
                dual().encode(version).unwrap(),
                json!({
                    "cniVersion": version.as_str(),
                    "ip4": {"ip": "10.1.0.5/32", "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]},
                    "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1", "routes": [{"dst": "::/0"}]},
                    "dns": {"nameservers": ["10.96.0.10"], "search": ["svc"]},
                })
            );
        }
    }

    #[test]
    fn r01_legacy_needs_an_address_and_has_dns_always() {
        let mut doc = ResultDoc::default();
        assert!(doc.encode(Version::V0_2_0).is_err());
        doc.ips.push(Ip {
            address: "10.0.0.1/24".parse().unwrap(),
            gateway: None,
            interface: None,
        });
        assert_eq!(doc.encode(Version::V0_1_0).unwrap()["dns"], json!({}));
    }

    #[test]
    fn r02_family_field_and_no_newer_attributes() {
        for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
            assert_eq!(
                dual().encode(version).unwrap(),
                json!({
                    "cniVersion": version.as_str(),
                    "interfaces": [
                        {"name": "cali12", "mac": "ee:ee:ee:ee:ee:ee"},
                        {"name": "eth0", "mac": "0a:58:0a:00:00:05", "sandbox": "/run/netns/x"},
                    ],
                    "ips": [
                        {"version": "4", "interface": 1, "address": "10.1.0.5/32"},
                        {"version": "6", "interface": 1, "address": "fd00::5/64", "gateway": "fd00::1"},
                    ],
                    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0"}],
                    "dns": {"nameservers": ["10.96.0.10"], "search": ["svc"]},
                })
            );
        }
        let mut doc = dual();
        doc.dns = Dns::default();
        assert_eq!(doc.encode(Version::V0_4_0).unwrap()["dns"], json!({}));
    }

    #[test]
    fn r03_no_family_field_and_dns_only_when_set() {
        let mut doc = dual();
        doc.dns = Dns::default();
        let value = doc.encode(Version::V1_0_0).unwrap();
        assert!(value.get("dns").is_none());
        assert!(value["ips"][0].get("version").is_none());
        assert!(
            value["interfaces"][1].get("mtu").is_some(),
            "as Calico tells it"
        );
        assert!(value["interfaces"][1].get("socketPath").is_none());
        assert!(value["routes"][0].get("table").is_none());
    }

    #[test]
    fn r04_newest_keeps_everything_and_tells_zero_from_absent() {
        let value = dual().encode(Version::V1_1_0).unwrap();
        let mut expected: Value = serde_json::from_str(DUAL).unwrap();
        expected["interfaces"][0]["mac"] = "ee:ee:ee:ee:ee:ee".into();
        assert_eq!(value, expected);
        let doc = dual();
        assert_eq!((doc.routes[0].table, doc.routes[1].table), (Some(0), None));
    }

    #[test]
    fn i01_ipam_result_has_no_interfaces() {
        let mut doc = dual();
        doc.interfaces.clear();
        for ip in &mut doc.ips {
            ip.interface = None;
        }
        let value = doc.encode(Version::V1_1_0).unwrap();
        assert!(value.get("interfaces").is_none() && value["ips"][0].get("interface").is_none());
    }

    #[test]
    fn decoding_without_a_version_goes_by_hint_then_shape() {
        let legacy = json!({"ip4": {"ip": "10.0.0.5/24"}});
        assert_eq!(ResultDoc::decode(&legacy, None).unwrap().ips.len(), 1);
        assert_eq!(
            ResultDoc::decode(&legacy, Some(Version::V1_0_0))
                .unwrap()
                .ips
                .len(),
            0
        );
        let modern = json!({"ips": [{"address": "10.0.0.5/24"}]});
        assert_eq!(ResultDoc::decode(&modern, None).unwrap().ips.len(), 1);
    }

    #[test]
    fn decoding_tolerates_null_and_empty_text() {
        let value = json!({"cniVersion": "0.4.0", "interfaces": null, "dns": {"domain": ""},
            "ips": [{"version": "4", "address": "10.0.0.5/24", "gateway": "", "interface": null}]});
        let doc = ResultDoc::decode(&value, None).unwrap();
        assert_eq!(doc.ips[0].gateway, None);
        assert!(doc.dns.is_empty());
        assert_eq!(
            ResultDoc::decode(&Value::Null, None).unwrap(),
            ResultDoc::default()
        );
    }

    #[test]
    fn r06_an_index_must_point_at_an_interface() {
        let mut value = dual().encode(Version::V1_0_0).unwrap();
        value["ips"][0]["interface"] = 2.into();
        assert!(ResultDoc::decode(&value, None).is_err());
        // An IPAM plugin that sends an index without interfaces means nothing by it.
        value.as_object_mut().unwrap().remove("interfaces");
        assert_eq!(
            ResultDoc::decode(&value, None).unwrap().ips[0].interface,
            None
        );
    }

    fn network(v4: bool) -> BoxedStrategy<IpNetwork> {
        if v4 {
            (any::<[u8; 4]>(), 0..=32u8)
                .prop_map(|(a, l)| IpNetwork::new(IpAddr::from(a), l).unwrap())
                .boxed()
        } else {
            (any::<[u8; 16]>(), 0..=128u8)
                .prop_map(|(a, l)| IpNetwork::new(IpAddr::from(a), l).unwrap())
                .boxed()
        }
    }

    prop_compose! {
        fn interface()(
            name in "[a-z]{1,8}", mac in prop::option::of("0a:58(:[0-9a-f]{2}){4}"),
            mtu in prop::option::of(1u32..), sandbox in prop::option::of("/[a-z]{1,8}"),
            socket_path in prop::option::of("/[a-z]{1,8}"), pci_id in prop::option::of("[0-9]{4}"),
        ) -> Interface {
            Interface { name, mac, mtu, sandbox, socket_path, pci_id }
        }
    }

    prop_compose! {
        fn route()(v4 in any::<bool>())(
            dst in network(v4), gw in prop::option::of(network(v4)), mtu in prop::option::of(1u32..),
            advmss in prop::option::of(1u32..), priority in prop::option::of(1u32..),
            table in any::<Option<u32>>(), scope in any::<Option<u32>>(),
        ) -> Route {
            Route { dst, gw: gw.map(|gw| gw.ip()), mtu, advmss, priority, table, scope }
        }
    }

    prop_compose! {
        fn ip(interfaces: usize)(v4 in any::<bool>())(
            address in network(v4), gateway in prop::option::of(network(v4)),
            interface in prop::option::of(0..interfaces),
        ) -> Ip {
            Ip { address, gateway: gateway.map(|gw| gw.ip()), interface }
        }
    }

    prop_compose! {
        fn document()(
            interfaces in prop::collection::vec(interface(), 1..4),
            ips in prop::collection::vec(ip(1), 1..4),
            routes in prop::collection::vec(route(), 0..4),
            nameservers in prop::collection::vec("[0-9.]{1,9}", 0..2),
            domain in prop::option::of("[a-z]{1,5}"),
        ) -> ResultDoc {
            let dns = Dns { nameservers, domain, ..Dns::default() };
            ResultDoc { interfaces, ips, routes, dns }
        }
    }

    fn version() -> impl Strategy<Value = Version> {
        prop::sample::select(Version::ALL.to_vec())
    }

    /// Only what all versions from 0.3.0 on can say.
    fn without_attributes(mut doc: ResultDoc) -> ResultDoc {
        for interface in &mut doc.interfaces {
            (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
        }
        for route in &mut doc.routes {
            *route = Route::new(route.dst, route.gw);
        }
        doc
    }

    proptest! {
        #[test]
        fn r09_conversion_loses_only_what_one_side_cannot_say(
            doc in document(), a in version(), b in version(),
        ) {
            let there = project(&project(&doc, a), b);
            prop_assert_eq!(&there, &project(&project(&doc, b), a));
            prop_assert_eq!(&project(&there, a), &there);
        }

        #[test]
        fn r09_newest_version_loses_nothing(doc in document()) {
            prop_assert_eq!(project(&doc, Version::V1_1_0), doc);
        }

        #[test]
        fn r09_modern_versions_keep_what_they_can_say(doc in document(), v in version()) {
            prop_assume!(v >= Version::V0_3_0);
            let doc = without_attributes(doc);
            prop_assert_eq!(project(&doc, v), doc);
        }

        #[test]
        fn r09_legacy_versions_keep_one_address_a_family(
            v4 in ip(1), routes in prop::collection::vec(route(), 0..4),
        ) {
            let family = v4.address.is_ipv4();
            let ip = Ip { interface: None, ..v4 };
            let routes = routes
                .into_iter()
                .filter(|r| r.dst.is_ipv4() == family)
                .map(|r| Route::new(r.dst, r.gw))
                .collect();
            let doc = ResultDoc { ips: vec![ip], routes, ..ResultDoc::default() };
            prop_assert_eq!(&project(&doc, Version::V0_2_0), &doc);
            prop_assert_eq!(project(&doc, Version::V0_1_0), doc);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ResultDoc::from_bytes(&bytes, None);
        }
    }
}
