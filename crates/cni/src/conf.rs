//! The part of a network configuration that every plugin shares.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::args::RequestedAddress;
use crate::error::{Error, code, excerpt};
use crate::request::is_name;
use crate::result::{Dns, ResultDoc};
use crate::runtime_config::{self, RuntimeConfig};
use crate::version::Version;

/// A network configuration: the object on stdin, with typed access to its common keys.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    raw: Map<String, Value>,
    version: Version,
    name: String,
}

/// The object `ipam` of a configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IpamConf<'a> {
    /// `ipam.type`: the program to call.
    pub plugin: &'a str,
    /// The whole object.
    pub raw: &'a Map<String, Value>,
}

/// What Mesos says of the container, at `args."org.apache.mesos".network_info`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MesosNetworkInfo {
    /// The network's name.
    pub name: Option<String>,
    /// The task's labels; the last of equal keys counts.
    pub labels: BTreeMap<String, String>,
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attachment {
    /// The container's id.
    pub container_id: String,
    /// The interface's name inside the container.
    pub ifname: String,
}

/// The attachments that a GC must keep.
///
/// A runtime that sends no list has said nothing; one that sends `null` or `[]` has said that there
/// are none. To take the first for the second would free every address of the network (G01).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidAttachments {
    /// No list was sent: nothing may be removed.
    Unknown,
    /// Everything outside this set may be removed.
    Known(BTreeSet<Attachment>),
}

impl NetConf {
    /// Reads a configuration: one JSON object with a valid `name` and a supported `cniVersion`.
    ///
    /// # Errors
    /// Code 6 when the bytes are no JSON object, 1 for the version, 7 for the name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let raw = match serde_json::from_slice(bytes) {
            Ok(Value::Object(raw)) => raw,
            Ok(_) => {
                return Err(Error::new(
                    code::DECODE,
                    "network configuration is no JSON object",
                ));
            }
            Err(source) => {
                return Err(
                    Error::new(code::DECODE, "network configuration is no valid JSON")
                        .with_details(source.to_string()),
                );
            }
        };
        let version = Version::of(&raw)?;
        let remedy = "give letters, digits, '_', '.', '-', beginning with a letter or digit";
        let name = match raw.get("name") {
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(other) => return Err(Error::invalid_key("name", other, remedy)),
            None => {
                return Err(Error::new(code::INVALID_CONFIG, "key \"name\" is missing"));
            }
        };
        Ok(Self { raw, version, name })
    }

    /// The whole object.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// `cniVersion`; 0.1.0 when absent.
    pub fn version(&self) -> Version {
        self.version
    }

    /// `name`: the network. Letters, digits, `_`, `.` and `-` only.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `type`, when it is a string.
    pub fn plugin_type(&self) -> Option<&str> {
        self.raw.get("type").and_then(Value::as_str)
    }

    /// `ipam`; `None` when absent, `null` or without a `type`.
    ///
    /// # Errors
    /// Code 7 when `ipam` is no object or its `type` no string.
    pub fn ipam(&self) -> Result<Option<IpamConf<'_>>, Error> {
        let Some(raw) = object(&self.raw, "ipam", "ipam")? else {
            return Ok(None);
        };
        match raw.get("type") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(plugin)) if plugin.is_empty() => Ok(None),
            Some(Value::String(plugin)) => Ok(Some(IpamConf { plugin, raw })),
            Some(other) => Err(Error::invalid_key(
                "ipam.type",
                other,
                "give a plugin's name",
            )),
        }
    }

    /// `prevResult` as it stands; `None` when absent or `null`.
    pub fn raw_prev_result(&self) -> Option<&Value> {
        self.raw.get("prevResult").filter(|value| !value.is_null())
    }

    /// `prevResult`, of whatever supported version it is (V07).
    ///
    /// # Errors
    /// Code 6 when it is no result, 1 when its version is not supported.
    pub fn prev_result(&self) -> Result<Option<ResultDoc>, Error> {
        self.raw_prev_result()
            .map(|value| ResultDoc::decode(value, Some(self.version)))
            .transpose()
            .map_err(|error| Error {
                msg: format!("prevResult: {}", error.msg),
                ..error
            })
    }

    /// `prevResult` for verbs that cannot do without it (C01).
    ///
    /// # Errors
    /// As [`NetConf::prev_result`]; code 7 when it is absent.
    pub fn required_prev_result(&self) -> Result<ResultDoc, Error> {
        self.prev_result()?
            .ok_or_else(|| Error::new(code::INVALID_CONFIG, "key \"prevResult\" is missing"))
    }

    /// `prevResult` where a damaged one is as good as none (D03).
    pub fn prev_result_if_readable(&self) -> Option<ResultDoc> {
        self.prev_result().ok().flatten()
    }

    /// `runtimeConfig`: what the runtime adds for the declared capabilities.
    ///
    /// # Errors
    /// Code 7 naming the key that cannot be used (K03).
    pub fn runtime_config(&self) -> Result<RuntimeConfig, Error> {
        match object(&self.raw, "runtimeConfig", "runtimeConfig")? {
            Some(raw) => RuntimeConfig::parse(raw),
            None => Ok(RuntimeConfig::default()),
        }
    }

    /// `args.cni.ips`: addresses asked for.
    ///
    /// # Errors
    /// Code 7 when they are no list of addresses.
    pub fn args_ips(&self) -> Result<Vec<RequestedAddress>, Error> {
        let Some(args) = object(&self.raw, "args", "args")? else {
            return Ok(Vec::new());
        };
        match object(args, "cni", "args.cni")?.and_then(|cni| cni.get("ips")) {
            Some(ips) => runtime_config::addresses("args.cni.ips", ips),
            None => Ok(Vec::new()),
        }
    }

    /// `args."org.apache.mesos".network_info`, when Mesos called.
    pub fn mesos(&self) -> Option<MesosNetworkInfo> {
        let info = self
            .raw
            .get("args")?
            .get("org.apache.mesos")?
            .get("network_info")?
            .as_object()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let labels = info.get("labels").and_then(|labels| labels.get("labels"));
        Some(MesosNetworkInfo {
            name: text(info.get("name")),
            labels: labels
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                // A label's value is optional in Mesos.
                .filter_map(|label| {
                    Some((
                        text(label.get("key"))?,
                        text(label.get("value")).unwrap_or_default(),
                    ))
                })
                .collect(),
        })
    }

    /// `dns` of the configuration, to be echoed when IPAM gave none (K05).
    ///
    /// # Errors
    /// Code 7 when it has not the form of a result's `dns`.
    pub fn dns(&self) -> Result<Dns, Error> {
        match self.raw.get("dns") {
            None | Some(Value::Null) => Ok(Dns::default()),
            Some(value) => Dns::decode(value).map_err(|_| {
                Error::invalid_key(
                    "dns",
                    value,
                    "give an object of nameservers, domain, search and options",
                )
            }),
        }
    }

    /// The attachments that a GC must keep: the union of `cni.dev/valid-attachments` and the older
    /// key `cni.dev/attachments`.
    ///
    /// # Errors
    /// Code 7 when a list is there but cannot be read: nothing may be removed then.
    pub fn valid_attachments(&self) -> Result<ValidAttachments, Error> {
        let mut known = None;
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let Some(value) = self.raw.get(key) else {
                continue;
            };
            let set: &mut BTreeSet<Attachment> = known.get_or_insert_default();
            match value {
                Value::Null => {}
                Value::Array(entries) => {
                    for entry in entries {
                        set.insert(attachment(entry).ok_or_else(|| {
                            Error::invalid_key(
                                key,
                                entry,
                                "each entry needs the strings containerID and ifname",
                            )
                        })?);
                    }
                }
                other => {
                    return Err(Error::invalid_key(key, other, "give a list of attachments"));
                }
            }
        }
        Ok(known.map_or(ValidAttachments::Unknown, ValidAttachments::Known))
    }
}

impl ValidAttachments {
    /// The same, with these to be kept as well.
    #[must_use]
    pub fn and(self, more: impl IntoIterator<Item = Attachment>) -> Self {
        match self {
            Self::Unknown => Self::Unknown,
            Self::Known(mut set) => {
                set.extend(more);
                Self::Known(set)
            }
        }
    }

    /// Whether this attachment must be kept.
    pub fn keeps(&self, container_id: &str, ifname: &str) -> bool {
        match self {
            Self::Unknown => true,
            Self::Known(set) => set
                .iter()
                .any(|known| known.container_id == container_id && known.ifname == ifname),
        }
    }
}

fn attachment(entry: &Value) -> Option<Attachment> {
    let text = |key: &str| {
        entry
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Some(Attachment {
        container_id: text("containerID")?,
        ifname: text("ifname")?,
    })
}

/// The object at `key`, `None` when absent or `null`.
fn object<'a>(
    parent: &'a Map<String, Value>,
    key: &str,
    path: &str,
) -> Result<Option<&'a Map<String, Value>>, Error> {
    match parent.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => Err(Error::new(
            code::INVALID_CONFIG,
            format!("key \"{path}\": {}; give an object", excerpt(other)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conf(rest: &str) -> NetConf {
        NetConf::parse(format!(r#"{{"cniVersion":"1.1.0","name":"n"{rest}}}"#).as_bytes()).unwrap()
    }

    fn known(pairs: &[(&str, &str)]) -> ValidAttachments {
        let entry = |(id, ifname): &(&str, &str)| Attachment {
            container_id: (*id).to_owned(),
            ifname: (*ifname).to_owned(),
        };
        ValidAttachments::Known(pairs.iter().map(entry).collect())
    }

    #[test]
    fn p07_name_is_checked() {
        for name in [r#""""#, r#""../x""#, r#""a b""#, "1", "null"] {
            let bytes = format!(r#"{{"name":{name}}}"#);
            let error = NetConf::parse(bytes.as_bytes()).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG, "{name}");
        }
        assert_eq!(
            NetConf::parse(b"{}").unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn g01_absent_null_and_empty_differ() {
        assert_eq!(
            conf("").valid_attachments().unwrap(),
            ValidAttachments::Unknown
        );
        for list in ["null", "[]"] {
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                let conf = conf(&format!(r#","{key}":{list}"#));
                assert_eq!(
                    conf.valid_attachments().unwrap(),
                    known(&[]),
                    "{key} {list}"
                );
            }
        }
        assert!(ValidAttachments::Unknown.keeps("any", "eth0"));
        assert!(!known(&[]).keeps("any", "eth0"));
    }

    #[test]
    fn g01_union_of_both_keys() {
        let conf = conf(
            r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],
                "cni.dev/attachments":[{"containerID":"b","ifname":"eth1"}]"#,
        );
        assert_eq!(
            conf.valid_attachments().unwrap(),
            known(&[("a", "eth0"), ("b", "eth1")])
        );
    }

    #[test]
    fn g01_an_unreadable_list_is_an_error() {
        for list in [r#""x""#, "{}", "[1]", r#"[{"containerID":"a"}]"#, "false"] {
            let conf = conf(&format!(r#","cni.dev/valid-attachments":{list}"#));
            assert_eq!(
                conf.valid_attachments().unwrap_err().code,
                code::INVALID_CONFIG,
                "{list}"
            );
        }
    }

    #[test]
    fn g02_pairs_are_kept_not_ids() {
        let set = known(&[("a", "eth0")]);
        assert!(set.keeps("a", "eth0") && !set.keeps("a", "eth1"));
    }

    #[test]
    fn d03_damaged_prev_result_is_an_error_or_nothing() {
        for damage in [
            r#""junk""#,
            r#"{"cniVersion":"9.9.9"}"#,
            r#"{"ips":[{"address":1}]}"#,
        ] {
            let conf = conf(&format!(r#","prevResult":{damage}"#));
            assert!(conf.prev_result().is_err(), "{damage}");
            assert_eq!(conf.prev_result_if_readable(), None);
        }
        assert_eq!(conf(r#","prevResult":null"#).prev_result().unwrap(), None);
        assert!(conf(r#","prevResult":{}"#).prev_result().unwrap().is_some());
    }

    #[test]
    fn c01_check_needs_prev_result() {
        assert_eq!(
            conf("").required_prev_result().unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    #[test]
    fn v07_prev_result_of_another_version() {
        let conf = conf(r#","prevResult":{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.5/32"}}"#);
        let result = conf.prev_result().unwrap().unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.0.0.5/32");
    }

    #[test]
    fn mesos_labels_are_read() {
        let conf = conf(
            r#","args":{"org.apache.mesos":{"network_info":{"name":"net-a","labels":{"labels":[
                {"key":"app","value":"web"},{"key":"bare"},{"value":"lost"}]}}}}"#,
        );
        let mesos = conf.mesos().unwrap();
        assert_eq!(mesos.name.as_deref(), Some("net-a"));
        let labels: Vec<_> = mesos.labels.into_iter().collect();
        assert_eq!(
            labels,
            [("app".into(), "web".into()), ("bare".into(), String::new())]
        );
    }

    #[test]
    fn ipam_is_optional_and_typed() {
        assert_eq!(conf("").ipam().unwrap(), None);
        assert_eq!(conf(r#","ipam":{}"#).ipam().unwrap(), None);
        assert_eq!(
            conf(r#","ipam":{"type":"x"}"#)
                .ipam()
                .unwrap()
                .unwrap()
                .plugin,
            "x"
        );
        assert!(conf(r#","ipam":"x""#).ipam().is_err());
        assert!(conf(r#","ipam":{"type":1}"#).ipam().is_err());
    }

    #[test]
    fn k05_dns_is_read() {
        let conf = conf(r#","dns":{"nameservers":["10.0.0.2"],"search":["a.b"]}"#);
        assert_eq!(conf.dns().unwrap().nameservers, ["10.0.0.2"]);
        assert_eq!(
            self::conf(r#","dns":[]"#).dns().unwrap_err().code,
            code::INVALID_CONFIG
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = NetConf::parse(&bytes);
        }

        #[test]
        fn any_value_under_a_known_key_is_read_or_refused(
            key in "ipam|args|runtimeConfig|dns|prevResult|cni\\.dev/attachments",
            value in r#"(\{|\}|\[|\]|,|:|null|1|-3|"ips"|"ip4"|"dns"|"cni"|"x"){0,12}"#,
        ) {
            let text = format!(r#"{{"name":"n","{key}":{value}}}"#);
            if let Ok(conf) = NetConf::parse(text.as_bytes()) {
                let _ = (conf.ipam(), conf.args_ips(), conf.runtime_config(), conf.mesos());
                let _ = (conf.dns(), conf.prev_result(), conf.valid_attachments());
            }
        }
    }
}
