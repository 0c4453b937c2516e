//! A result out of the form of any version.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Dns, Interface, Ip, ResultDoc, Route};
use crate::error::{Error, code};
use crate::version::Version;

/// The form of 0.1.0 and 0.2.0.
#[derive(Deserialize)]
struct Families {
    #[serde(default)]
    ip4: Option<Family>,
    #[serde(default)]
    ip6: Option<Family>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Deserialize)]
struct Family {
    ip: IpNetwork,
    #[serde(default)]
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<Route>,
}

/// The form from 0.3.0 on; a superset of what each version has.
#[derive(Deserialize)]
struct Lists {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Ip>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    dns: Dns,
}

impl ResultDoc {
    /// Reads a document of any version.
    ///
    /// The version is the declared one, else `assumed`, else what the document looks like. `null`
    /// is a result without content.
    ///
    /// # Errors
    /// Code 1 when the declared version is not supported, 6 when the document is no result.
    pub fn decode(value: &Value, assumed: Option<Version>) -> Result<Self, Error> {
        let document = match value {
            Value::Object(document) => document,
            Value::Null => return Ok(Self::default()),
            _ => return Err(Error::new(code::DECODE, "a result must be a JSON object")),
        };
        let by_family = match Version::declared(document)?.or(assumed) {
            Some(version) => version < Version::V0_3_0,
            None => document.contains_key("ip4") || document.contains_key("ip6"),
        };
        let document = Value::Object(without_blanks(document));
        let mut result = if by_family {
            Self::from(typed::<Families>(document)?)
        } else {
            Self::from(typed::<Lists>(document)?)
        };
        result.settle_indices()?;
        Ok(result)
    }

    /// Reads a document from bytes, as [`ResultDoc::decode`].
    ///
    /// # Errors
    /// As [`ResultDoc::decode`]; code 6 when the bytes are no JSON.
    pub fn from_bytes(bytes: &[u8], assumed: Option<Version>) -> Result<Self, Error> {
        let value = serde_json::from_slice(bytes).map_err(|source| {
            Error::new(code::DECODE, "a result is no valid JSON").with_details(source.to_string())
        })?;
        Self::decode(&value, assumed)
    }

    fn settle_indices(&mut self) -> Result<(), Error> {
        let count = self.interfaces.len();
        for ip in &mut self.ips {
            let Some(index) = ip.interface.filter(|&index| index >= count) else {
                continue;
            };
            if count > 0 {
                return Err(Error::new(
                    code::DECODE,
                    format!(
                        "address {} names interface {index} of only {count}",
                        ip.address
                    ),
                ));
            }
            ip.interface = None;
        }
        Ok(())
    }
}

impl Dns {
    /// Reads resolver settings.
    ///
    /// # Errors
    /// Code 6 when they have not the form of a result's `dns`.
    pub fn decode(value: &Value) -> Result<Self, Error> {
        match value {
            Value::Object(object) => typed(Value::Object(without_blanks(object))),
            _ => Err(Error::new(code::DECODE, "dns must be a JSON object")),
        }
    }
}

impl From<Families> for ResultDoc {
    fn from(families: Families) -> Self {
        let mut result = Self {
            dns: families.dns,
            ..Self::default()
        };
        for family in [families.ip4, families.ip6].into_iter().flatten() {
            result.ips.push(Ip {
                address: family.ip,
                gateway: family.gateway,
                interface: None,
            });
            result.routes.extend(family.routes);
        }
        result.routes.iter_mut().for_each(drop_zeroes);
        result
    }
}

impl From<Lists> for ResultDoc {
    fn from(lists: Lists) -> Self {
        let Lists {
            mut interfaces,
            ips,
            mut routes,
            dns,
        } = lists;
        for interface in &mut interfaces {
            interface.mtu = interface.mtu.filter(|&mtu| mtu != 0);
        }
        routes.iter_mut().for_each(drop_zeroes);
        Self {
            interfaces,
            ips,
            routes,
            dns,
        }
    }
}

/// In these fields 0 and absent are the same.
fn drop_zeroes(route: &mut Route) {
    for field in [&mut route.mtu, &mut route.advmss, &mut route.priority] {
        *field = field.filter(|&value| value != 0);
    }
}

/// The object without members that are `null` or "": writers in the field use both for absent.
fn without_blanks(object: &Map<String, Value>) -> Map<String, Value> {
    object
        .iter()
        .filter(|(_, value)| !value.is_null() && value.as_str() != Some(""))
        .map(|(key, value)| (key.clone(), clean(value)))
        .collect()
}

fn clean(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(without_blanks(object)),
        Value::Array(list) => Value::Array(list.iter().map(clean).collect()),
        other => other.clone(),
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|source| {
        Error::new(code::DECODE, "a result has a field of the wrong form")
            .with_details(source.to_string())
    })
}
