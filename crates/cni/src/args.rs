//! The variable `CNI_ARGS`: `K=V;K2=V2`.
//!
//! Its values are labels that a caller chose. They are never a path, and no decision about access
//! rests on them alone (X05).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::quoted;
use crate::mac::MacAddress;

/// What `CNI_ARGS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// `IgnoreUnknown`.
    pub ignore_unknown: bool,
    /// `K8S_POD_NAMESPACE`.
    pub pod_namespace: Option<String>,
    /// `K8S_POD_NAME`. Some runtimes outside Kubernetes set it without a namespace.
    pub pod_name: Option<String>,
    /// `K8S_POD_INFRA_CONTAINER_ID`.
    pub pod_infra_container_id: Option<String>,
    /// `K8S_POD_UID`.
    pub pod_uid: Option<String>,
    /// `IP`: the addresses asked for.
    pub ips: Vec<RequestedAddress>,
    /// `MAC`: the Ethernet address asked for.
    pub mac: Option<MacAddress>,
    /// Keys that occur more than once; the last value counts (X03).
    pub duplicates: Vec<String>,
}

/// An address that the caller asks for, with or without a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestedAddress {
    /// The address.
    pub address: IpAddr,
    /// The prefix length in bits, when one is given.
    pub prefix: Option<u8>,
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as 10.0.0.5 or 10.0.0.5/24")]
pub struct AddressError;

impl Args {
    /// Reads the value of `CNI_ARGS`; the empty text has no arguments.
    ///
    /// # Errors
    /// All faults together, in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (args, faults) = Self::scan(text);
        if faults.is_empty() {
            Ok(args)
        } else {
            Err(faults.join("; "))
        }
    }

    /// Reads what can be read and passes over the rest: a DEL must not fail for a label.
    pub fn parse_lenient(text: &str) -> Self {
        Self::scan(text).0
    }

    /// The pod's namespace and name, when both are given: only then did Kubernetes call.
    pub fn pod(&self) -> Option<(&str, &str)> {
        Some((self.pod_namespace.as_deref()?, self.pod_name.as_deref()?))
    }

    fn scan(text: &str) -> (Self, Vec<String>) {
        let mut args = Self::default();
        let mut faults = Vec::new();
        if text.is_empty() {
            return (args, faults);
        }
        if text.len() > MAX_LENGTH {
            faults.push(format!("longer than {MAX_LENGTH} bytes"));
            return (args, faults);
        }
        if text.contains('\0') {
            faults.push("contains a NUL".to_owned());
            return (args, faults);
        }
        let mut unknown = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split(';') {
            let Some((key, value)) = pair.split_once('=').filter(|(_, v)| !v.contains('=')) else {
                faults.push(format!("{} is not of the form KEY=VALUE", quoted(pair)));
                continue;
            };
            if seen.contains(&key) {
                if !args.duplicates.iter().any(|known| known == key) {
                    args.duplicates.push(key.to_owned());
                }
            } else {
                seen.push(key);
            }
            match args.set(key, value) {
                Ok(true) => {}
                Ok(false) => unknown.push(key),
                Err(fault) => faults.push(format!("{key}={}: {fault}", quoted(value))),
            }
        }
        if !args.ignore_unknown && !unknown.is_empty() {
            let names: Vec<_> = unknown.into_iter().map(quoted).collect();
            faults.push(format!(
                "unknown key {}; add IgnoreUnknown=1 to pass over it",
                names.join(", ")
            ));
        }
        (args, faults)
    }

    /// Stores one pair; `Ok(false)` when the key is unknown.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let text = || (!value.is_empty()).then(|| value.to_owned());
        match key {
            "IgnoreUnknown" => {
                self.ignore_unknown = match value.to_ascii_lowercase().as_str() {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err("give 1, true, 0 or false".to_owned()),
                }
            }
            "K8S_POD_NAMESPACE" => self.pod_namespace = text(),
            "K8S_POD_NAME" => self.pod_name = text(),
            "K8S_POD_INFRA_CONTAINER_ID" => self.pod_infra_container_id = text(),
            "K8S_POD_UID" => self.pod_uid = text(),
            "IP" => {
                self.ips = value
                    .split(',')
                    .filter(|one| !one.is_empty())
                    .map(str::parse)
                    .collect::<Result<_, AddressError>>()
                    .map_err(|fault| fault.to_string())?;
            }
            "MAC" if value.is_empty() => self.mac = None,
            "MAC" => self.mac = Some(value.parse().map_err(|fault| format!("{fault}"))?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl FromStr for RequestedAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| AddressError)?;
        let prefix = prefix
            .map(str::parse::<u8>)
            .transpose()
            .map_err(|_| AddressError)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix.is_some_and(|prefix| prefix > width) {
            return Err(AddressError);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for RequestedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            Some(prefix) => write!(f, "{}/{prefix}", self.address),
            None => self.address.fmt(f),
        }
    }
}

/// Longest value of `CNI_ARGS`, in bytes.
const MAX_LENGTH: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn x01_a_pair_without_exactly_one_equals_sign_is_an_error() {
        for text in [
            "K8S_POD_NAME",
            "K8S_POD_NAME=a=b",
            "IgnoreUnknown=1;;IP=10.0.0.1",
            "IP=;",
        ] {
            assert!(Args::parse(text).is_err(), "{text}");
        }
        assert_eq!(Args::parse("").unwrap(), Args::default());
    }

    #[test]
    fn x02_unknown_keys_need_ignore_unknown() {
        let fault = Args::parse("NOMAD_REGION=x;FOO=y").unwrap_err();
        assert!(
            fault.contains("NOMAD_REGION") && fault.contains("FOO"),
            "{fault}"
        );
        for flag in ["1", "true", "True"] {
            assert!(Args::parse(&format!("NOMAD_REGION=x;IgnoreUnknown={flag}")).is_ok());
        }
        assert!(Args::parse("FOO=y;IgnoreUnknown=0").is_err());
        assert!(Args::parse("IgnoreUnknown=maybe").is_err());
        assert!(Args::parse("K8S_POD_NAME=a\0").is_err());
        assert!(Args::parse(&format!("K8S_POD_NAME={}", "x".repeat(5000))).is_err());
    }

    #[test]
    fn x03_known_keys_are_read_and_the_last_duplicate_wins() {
        let args = Args::parse(
            "K8S_POD_UID=u;IP=10.0.0.5,fd00::5/64;K8S_POD_NAME=a;K8S_POD_NAMESPACE=n;\
             K8S_POD_INFRA_CONTAINER_ID=c;MAC=0A:58:0a:00:00:05;K8S_POD_NAME=b",
        )
        .unwrap();
        assert_eq!(args.pod(), Some(("n", "b")));
        assert_eq!(args.pod_uid.as_deref(), Some("u"));
        assert_eq!(args.pod_infra_container_id.as_deref(), Some("c"));
        assert_eq!(args.mac.unwrap().to_string(), "0a:58:0a:00:00:05");
        let ips: Vec<_> = args.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.0.0.5", "fd00::5/64"]);
        assert_eq!(args.duplicates, ["K8S_POD_NAME"]);
    }

    #[test]
    fn x03_pod_name_without_namespace_is_no_pod() {
        assert_eq!(
            Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web")
                .unwrap()
                .pod(),
            None
        );
    }

    #[test]
    fn x03_bad_address_names_key_and_value() {
        let fault = Args::parse("IP=10.0.0.300;MAC=zz").unwrap_err();
        assert!(
            fault.contains("IP=\"10.0.0.300\"") && fault.contains("MAC=\"zz\""),
            "{fault}"
        );
        assert!("10.0.0.1/33".parse::<RequestedAddress>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(.|[;=,/0-9]|IP=|MAC=|IgnoreUnknown=){0,40}") {
            if let Ok(args) = Args::parse(&text) {
                prop_assert_eq!(args, Args::parse_lenient(&text));
            }
        }
    }
}
