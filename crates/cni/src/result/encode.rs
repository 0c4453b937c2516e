//! A result in the form of a version.

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::{Dns, Interface, Ip, ResultDoc, Route};
use crate::error::{Error, code};
use crate::version::Version;

impl ResultDoc {
    /// The document in the form of `version`; what that version cannot say is left out.
    ///
    /// # Errors
    /// Code 1 when there is no address and the version demands one (0.1.0 and 0.2.0).
    pub fn encode(&self, version: Version) -> Result<Value, Error> {
        let mut document = Map::new();
        document.insert("cniVersion".into(), version.as_str().into());
        if version < Version::V0_3_0 {
            self.encode_families(&mut document)?;
        } else {
            self.encode_lists(version, &mut document);
        }
        if version < Version::V1_0_0 || !self.dns.is_empty() {
            document.insert("dns".into(), encode_dns(&self.dns));
        }
        Ok(Value::Object(document))
    }

    /// One address a family, each with its routes.
    fn encode_families(&self, document: &mut Map<String, Value>) -> Result<(), Error> {
        for (key, is_family) in FAMILIES {
            let Some(ip) = self.ips.iter().find(|ip| is_family(&ip.address)) else {
                continue;
            };
            let mut family = Map::new();
            family.insert("ip".into(), ip.address.to_string().into());
            put(
                &mut family,
                "gateway",
                ip.gateway.map(|gateway| gateway.to_string()),
            );
            let routes = self.routes.iter().filter(|route| is_family(&route.dst));
            put_list(
                &mut family,
                "routes",
                routes.map(|r| encode_route(r, false)).collect(),
            );
            document.insert(key.into(), family.into());
        }
        if document.len() == 1 {
            return Err(Error::new(
                code::INCOMPATIBLE_VERSION,
                "a result without addresses cannot be told in cniVersion 0.1.0 or 0.2.0; \
                 set cniVersion to 0.3.1 or newer",
            ));
        }
        Ok(())
    }

    fn encode_lists(&self, version: Version, document: &mut Map<String, Value>) {
        let attributes = version >= Version::V1_1_0;
        let interfaces = self.interfaces.iter().map(|i| encode_interface(i, version));
        put_list(document, "interfaces", interfaces.collect());
        let ips = self
            .ips
            .iter()
            .map(|ip| encode_ip(ip, version < Version::V1_0_0));
        put_list(document, "ips", ips.collect());
        let routes = self
            .routes
            .iter()
            .map(|route| encode_route(route, attributes));
        put_list(document, "routes", routes.collect());
    }
}

/// The MTU belongs to 1.1.0, but the common types of Go's plugins also tell it in 1.0.0, and Calico does.
fn encode_interface(interface: &Interface, version: Version) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), interface.name.as_str().into());
    put(
        &mut object,
        "mac",
        interface.mac.as_deref().map(str::to_ascii_lowercase),
    );
    if version >= Version::V1_0_0 {
        put(&mut object, "mtu", nonzero(interface.mtu));
    }
    put(&mut object, "sandbox", interface.sandbox.as_deref());
    if version >= Version::V1_1_0 {
        put(&mut object, "socketPath", interface.socket_path.as_deref());
        put(&mut object, "pciID", interface.pci_id.as_deref());
    }
    object.into()
}

fn encode_ip(ip: &Ip, with_family: bool) -> Value {
    let mut object = Map::new();
    if with_family {
        object.insert(
            "version".into(),
            if ip.address.is_ipv4() { "4" } else { "6" }.into(),
        );
    }
    put(&mut object, "interface", ip.interface);
    object.insert("address".into(), ip.address.to_string().into());
    put(
        &mut object,
        "gateway",
        ip.gateway.map(|gateway| gateway.to_string()),
    );
    object.into()
}

fn encode_route(route: &Route, attributes: bool) -> Value {
    let mut object = Map::new();
    object.insert("dst".into(), route.dst.to_string().into());
    put(&mut object, "gw", route.gw.map(|gw| gw.to_string()));
    if attributes {
        put(&mut object, "mtu", nonzero(route.mtu));
        put(&mut object, "advmss", nonzero(route.advmss));
        put(&mut object, "priority", nonzero(route.priority));
        put(&mut object, "table", route.table);
        put(&mut object, "scope", route.scope);
    }
    object.into()
}

fn encode_dns(dns: &Dns) -> Value {
    let mut object = Map::new();
    let list = |list: &[String]| list.iter().map(|text| Value::from(text.as_str())).collect();
    put_list(&mut object, "nameservers", list(&dns.nameservers));
    put(&mut object, "domain", dns.domain.as_deref());
    put_list(&mut object, "search", list(&dns.search));
    put_list(&mut object, "options", list(&dns.options));
    object.into()
}

fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.into(), value.into());
    }
}

fn put_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(key.into(), list.into());
    }
}

/// In these fields 0 and absent are the same.
fn nonzero(value: Option<u32>) -> Option<u32> {
    value.filter(|&value| value != 0)
}

type IsFamily = fn(&IpNetwork) -> bool;

const FAMILIES: [(&str, IsFamily); 2] = [("ip4", IpNetwork::is_ipv4), ("ip6", IpNetwork::is_ipv6)];
