//! From texts to values.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_endpoint::{Workload, host_interface};
use margay_model::resource::pool::EncapMode;
use margay_model::{Cidr, Family};
use margay_telemetry::{Format, Severity};
use regex::Regex;

use super::{DefaultPool, NodeAddress, Pattern, Setting};
use crate::autodetect::Method;
use crate::bgp::backend::Backend;

/// A value that a setting cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: {reason}")]
pub struct ConfigError {
    name: String,
    value: String,
    reason: String,
}

/// Where texts come from.
pub(crate) struct Source<'a> {
    /// The settings that there are.
    pub(crate) table: &'a [Setting],
    /// The name under which a setting was given, and its text.
    pub(crate) given: &'a dyn Fn(&Setting) -> Option<(String, String)>,
}

impl Source<'_> {
    /// The text of a setting by its variable, unless it is empty.
    pub(crate) fn text(&self, variable: &str) -> Option<String> {
        self.named(variable).map(|(_, value)| value)
    }

    pub(crate) fn words(&self, variable: &str) -> Vec<String> {
        split(&self.text(variable).unwrap_or_default())
    }

    pub(crate) fn boolean(&self, variable: &str) -> Result<Option<bool>, ConfigError> {
        self.read(variable, boolean)
    }

    pub(super) fn port(&self, variable: &str) -> Result<Option<u16>, ConfigError> {
        self.read(variable, port)
    }

    pub(super) fn protocol(&self, variable: &str) -> Result<Option<u8>, ConfigError> {
        self.read(variable, protocol)
    }

    pub(crate) fn duration(&self, variable: &str) -> Result<Option<Duration>, ConfigError> {
        self.read(variable, duration)
    }

    pub(super) fn pattern(&self, variable: &str) -> Result<Option<Pattern>, ConfigError> {
        self.read(variable, pattern)
    }

    pub(super) fn severity(&self, variable: &str) -> Result<Option<Severity>, ConfigError> {
        self.read(variable, severity)
    }

    pub(super) fn interface_prefixes(
        &self,
        variable: &str,
    ) -> Result<Option<Vec<String>>, ConfigError> {
        self.read(variable, interface_prefixes)
    }

    pub(super) fn log_format(&self, variable: &str) -> Result<Format, ConfigError> {
        let format = self.read(variable, |text| match text.to_ascii_lowercase().as_str() {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err("give text or json".to_owned()),
        })?;
        Ok(format.unwrap_or_default())
    }

    /// Which program speaks BGP; one that is a program of its own has its files in `directory`.
    pub(super) fn bgp_backend(&self, directory: &Path) -> Result<Backend, ConfigError> {
        let program = |variable: &str, usual: &str| {
            PathBuf::from(self.text(variable).unwrap_or_else(|| usual.to_owned()))
        };
        let directory = directory.to_owned();
        let backend = self.read("MARGAY_BGP_BACKEND", |text| {
            match text.to_ascii_lowercase().as_str() {
                "margay" => Ok(Backend::Margay),
                "bird" => Ok(Backend::Bird {
                    program: program("MARGAY_BIRD", "bird"),
                    directory,
                }),
                "gobgp" => Ok(Backend::Gobgp {
                    program: program("MARGAY_GOBGPD", "gobgpd"),
                    directory,
                }),
                _ => Err("give margay, bird or gobgp".to_owned()),
            }
        })?;
        Ok(backend.unwrap_or(Backend::Margay))
    }

    pub(crate) fn path(&self, variable: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.read(variable, absolute)
    }

    /// A path, or the word `none`.
    pub(crate) fn path_or_none(
        &self,
        variable: &str,
    ) -> Result<Option<Option<PathBuf>>, ConfigError> {
        self.read(variable, |text| match text {
            "none" => Ok(None),
            path => absolute(path).map(Some),
        })
    }

    pub(super) fn node_name(&self, variable: &str) -> Result<Option<String>, ConfigError> {
        self.read(variable, |text| {
            if is_node_name(text) {
                return Ok(text.to_owned());
            }
            Err("a node name is at most 253 letters, digits, '-', '_' and '.', beginning and ending \
                 with a letter or digit"
                .to_owned())
        })
    }

    pub(super) fn as_number(&self, variable: &str) -> Result<Option<u32>, ConfigError> {
        self.read(variable, |text| {
            as_number(text)
                .ok_or_else(|| "give an AS number from 1 to 4294967295, or high.low".to_owned())
        })
    }

    pub(super) fn node_address(
        &self,
        variable: &str,
        method: &str,
        family: Family,
    ) -> Result<NodeAddress, ConfigError> {
        let method = self.read(method, |text| Method::parse(text, family))?;
        let address = self.read(variable, |text| address(text, family))?;
        Ok(match address {
            Some(Address::Given(address, length)) => NodeAddress::Given(address, length),
            Some(Address::None) => NodeAddress::None,
            Some(Address::Detect) => NodeAddress::Detected(method.unwrap_or_default()),
            None if family == Family::V4 || method.is_some() => {
                NodeAddress::Detected(method.unwrap_or_default())
            }
            None => NodeAddress::Recorded,
        })
    }

    pub(super) fn default_pools(&self) -> Result<Vec<DefaultPool>, ConfigError> {
        if self.boolean("NO_DEFAULT_POOLS")?.unwrap_or(false) {
            return Ok(Vec::new());
        }
        let v4 = self.default_pool(&V4_POOL)?;
        let v6 = self.default_pool(&V6_POOL)?;
        Ok(v4.into_iter().chain(v6).collect())
    }

    fn default_pool(&self, kind: &PoolVariables) -> Result<Option<DefaultPool>, ConfigError> {
        let family = kind.family;
        let cidr = self.read(kind.cidr, |text| match text.parse::<Cidr>() {
            _ if text.eq_ignore_ascii_case("none") => Ok(None),
            Ok(cidr) if cidr.family() == family => Ok(Some(cidr)),
            _ => Err(format!(
                "give an {family} prefix such as {}, or none",
                kind.example
            )),
        })?;
        let cidr = match cidr {
            Some(told) => told,
            None => kind.default.and_then(|text| text.parse().ok()),
        };
        let Some(cidr) = cidr else { return Ok(None) };
        let (least, most, usual) = kind.block_sizes;
        let block_size = self.read(kind.block_size, |text| match text.parse() {
            Ok(size) if (least..=most).contains(&size) => Ok(size),
            _ => Err(format!("give a prefix length from {least} to {most}")),
        })?;
        let block_size = block_size.unwrap_or(usual);
        if block_size < cidr.length() {
            let (name, value) = self
                .named(kind.cidr)
                .unwrap_or_else(|| (kind.cidr.to_owned(), cidr.to_string()));
            let reason = format!("the prefix is smaller than one block of /{block_size}");
            return Err(ConfigError {
                name,
                value,
                reason,
            });
        }
        let ipip = match kind.ipip {
            Some(variable) => self.read(variable, encap)?.unwrap_or_default(),
            None => EncapMode::Never,
        };
        let vxlan = self.read(kind.vxlan, encap)?.unwrap_or_default();
        if ipip != EncapMode::Never && vxlan != EncapMode::Never {
            return Err(ConfigError {
                name: kind.vxlan.to_owned(),
                value: self.text(kind.vxlan).unwrap_or_default(),
                reason: "a pool has IP-in-IP or VXLAN, not both; set one to Never".to_owned(),
            });
        }
        Ok(Some(DefaultPool {
            name: kind.name,
            cidr,
            block_size,
            nat_outgoing: self.boolean(kind.nat_outgoing)?.unwrap_or(kind.usually_nat),
            ipip,
            vxlan,
            node_selector: self
                .text(kind.node_selector)
                .unwrap_or_else(|| "all()".to_owned()),
        }))
    }

    fn named(&self, variable: &str) -> Option<(String, String)> {
        let setting = self
            .table
            .iter()
            .find(|setting| setting.variable == variable)?;
        let (name, value) = (self.given)(setting)?;
        let value = value.trim();
        (!value.is_empty()).then(|| (name, value.to_owned()))
    }

    pub(crate) fn read<T>(
        &self,
        variable: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((name, value)) = self.named(variable) else {
            return Ok(None);
        };
        match parse(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(reason) => Err(ConfigError {
                name,
                value,
                reason,
            }),
        }
    }
}

/// Reads a boolean in any of the words Felix knows.
pub(crate) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" | "yes" | "y" => Ok(true),
        "false" | "f" | "0" | "no" | "n" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// Reads a number of seconds, or a Go duration such as `1m30s`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a number of seconds, or a duration such as 1m30s or 500ms".to_owned();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// Reads a regular expression.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    Regex::new(text)
        .map(Pattern)
        .map_err(|error| format!("not a regular expression: {error}"))
}

/// Reads a severity.
pub(crate) fn severity(text: &str) -> Result<Severity, String> {
    Severity::from_word(text)
        .ok_or_else(|| "give Trace, Debug, Info, Warning, Error or Fatal".to_owned())
}

/// Reads a route protocol number.
pub(crate) fn protocol(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a protocol number from 1 to 255".to_owned()),
    }
}

/// Reads a TCP or UDP port.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("give a port from 1 to 65535".to_owned()),
    }
}

/// Reads the identifier of a VXLAN network.
pub(crate) fn vni(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(vni) if vni < 1 << 24 => Ok(vni),
        _ => Err("give a number from 0 to 16777215".to_owned()),
    }
}

/// Reads an MTU in bytes; 0 stands for none.
pub(crate) fn mtu(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(mtu) if mtu == 0 || (1280..=65535).contains(&mtu) => Ok(mtu),
        _ => Err("give 0, or a number of bytes from 1280 to 65535".to_owned()),
    }
}

/// Reads a comma-separated list of interface prefixes.
pub(crate) fn interface_prefixes(text: &str) -> Result<Vec<String>, String> {
    let prefixes = split(text);
    if prefixes.is_empty() {
        return Err("give at least one prefix, such as cali".to_owned());
    }
    for prefix in &prefixes {
        host_interface(prefix, &Workload::Container { id: "0" }, "eth0")
            .map_err(|error| error.to_string())?;
    }
    Ok(prefixes)
}

enum Address {
    None,
    Detect,
    Given(IpAddr, Option<u8>),
}

fn address(text: &str, family: Family) -> Result<Address, String> {
    match text {
        "autodetect" => return Ok(Address::Detect),
        "none" => return Ok(Address::None),
        _ => {}
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = match address.parse() {
        Ok(address) if Family::of(address) == family => address,
        _ => return Err(format!("give an {family} address, autodetect or none")),
    };
    let length = match length.map(str::parse::<u8>) {
        None => None,
        Some(Ok(length)) if length <= family.width() => Some(length),
        Some(_) => return Err(format!("the prefix length is from 0 to {}", family.width())),
    };
    Ok(Address::Given(address, length))
}

fn as_number(text: &str) -> Option<u32> {
    let number = match text.split_once('.') {
        None => text.parse::<u32>().ok()?,
        Some((high, low)) => {
            (u32::from(high.parse::<u16>().ok()?) << 16) | u32::from(low.parse::<u16>().ok()?)
        }
    };
    (number > 0).then_some(number)
}

fn encap(text: &str) -> Result<EncapMode, String> {
    match text.to_ascii_lowercase().as_str() {
        "never" | "off" => Ok(EncapMode::Never),
        "always" => Ok(EncapMode::Always),
        "crosssubnet" | "cross-subnet" => Ok(EncapMode::CrossSubnet),
        _ => Err("give Always, CrossSubnet or Never".to_owned()),
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        return Ok(path);
    }
    Err("give an absolute path".to_owned())
}

/// Whether a text can be a node's name: what Calico's datastore takes.
pub(crate) fn is_node_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 253
        && text.starts_with(edge)
        && text.ends_with(edge)
        && text
            .chars()
            .all(|c| edge(c) || matches!(c, '-' | '_' | '.'))
}

fn split(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The variables that make a default pool.
struct PoolVariables {
    family: Family,
    name: &'static str,
    default: Option<&'static str>,
    example: &'static str,
    cidr: &'static str,
    block_size: &'static str,
    /// Least, most, usual.
    block_sizes: (u8, u8, u8),
    nat_outgoing: &'static str,
    usually_nat: bool,
    ipip: Option<&'static str>,
    vxlan: &'static str,
    node_selector: &'static str,
}

const V4_POOL: PoolVariables = PoolVariables {
    family: Family::V4,
    name: "default-ipv4-ippool",
    default: Some("192.168.0.0/16"),
    example: "192.168.0.0/16",
    cidr: "CALICO_IPV4POOL_CIDR",
    block_size: "CALICO_IPV4POOL_BLOCK_SIZE",
    block_sizes: (20, 32, 26),
    nat_outgoing: "CALICO_IPV4POOL_NAT_OUTGOING",
    usually_nat: true,
    ipip: Some("CALICO_IPV4POOL_IPIP"),
    vxlan: "CALICO_IPV4POOL_VXLAN",
    node_selector: "CALICO_IPV4POOL_NODE_SELECTOR",
};

const V6_POOL: PoolVariables = PoolVariables {
    family: Family::V6,
    name: "default-ipv6-ippool",
    default: None,
    example: "fd80:24e2:f998:72d6::/64",
    cidr: "CALICO_IPV6POOL_CIDR",
    block_size: "CALICO_IPV6POOL_BLOCK_SIZE",
    block_sizes: (116, 128, 122),
    nat_outgoing: "CALICO_IPV6POOL_NAT_OUTGOING",
    usually_nat: false,
    ipip: None,
    vxlan: "CALICO_IPV6POOL_VXLAN",
    node_selector: "CALICO_IPV6POOL_NODE_SELECTOR",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_go_durations() {
        for (text, millis) in [
            ("90", 90_000),
            ("0", 0),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["-1", "s", "5d", "1m30", "NaN", "1e300h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn as_numbers_may_be_dotted() {
        assert_eq!(as_number("64512"), Some(64512));
        assert_eq!(as_number("1.10"), Some(65546));
        assert_eq!(as_number("0"), None);
        assert_eq!(as_number("1.65536"), None);
    }

    #[test]
    fn node_names_are_judged() {
        for name in ["n1", "Node.example.com", "a_b-c"] {
            assert!(is_node_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "a/b", "a b", &"x".repeat(254)] {
            assert!(!is_node_name(name), "{name}");
        }
    }
}
