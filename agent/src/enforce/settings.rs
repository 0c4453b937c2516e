//! What operators choose of policy: flags, environment and FelixConfiguration by the same words.

use std::net::Ipv4Addr;

use margay_policy::{Failsafe, Failsafes};
use margay_ruleset::compile::{Deny, EndpointToHost, Log, Marks, Settings};
use serde_json::Value;

/// What one source says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyTunables {
    /// `defaultEndpointToHostAction`.
    pub endpoint_to_host: Option<EndpointToHost>,
    /// `nftablesFilterDenyAction`.
    pub deny: Option<Deny>,
    /// `disableConntrackInvalidCheck`.
    pub spare_invalid: Option<bool>,
    /// `nftablesMarkMask`.
    pub marks: Option<Marks>,
    /// `allowIPIPPacketsFromWorkloads`.
    pub allow_ipip: Option<bool>,
    /// `allowVXLANPacketsFromWorkloads`.
    pub allow_vxlan: Option<bool>,
    /// `failsafeInboundHostPorts`.
    pub failsafe_inbound: Option<Vec<Failsafe>>,
    /// `failsafeOutboundHostPorts`.
    pub failsafe_outbound: Option<Vec<Failsafe>>,
    /// `logActionRateLimit`: logs a minute of one rule.
    pub log_rate: Option<u64>,
    /// `logActionRateLimitBurst`.
    pub log_burst: Option<u32>,
    /// `logPrefix`.
    pub log_prefix: Option<String>,
    /// `dropActionOverride`: whether denials are logged.
    pub log_denied: Option<bool>,
    /// `natPortRange`; `Some(None)` is any port.
    pub nat_ports: Option<Option<(u16, u16)>>,
    /// `natOutgoingAddress`.
    pub nat_address: Option<Ipv4Addr>,
    /// `natOutgoingExclusions`.
    pub nat_exclusions: Option<Exclusions>,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySettings {
    /// What becomes of packets from a workload to its host that policy allows.
    pub endpoint_to_host: EndpointToHost,
    /// How packets are denied.
    pub deny: Deny,
    /// Whether packets of no connection that begin none are let through.
    pub spare_invalid: bool,
    /// Bits of the packet's mark.
    pub marks: Marks,
    /// Whether workloads may send IP in IP.
    pub allow_ipip: bool,
    /// Whether workloads may send VXLAN.
    pub allow_vxlan: bool,
    /// Ports of hosts that no policy can close.
    pub failsafes: Failsafes,
    /// Logs a minute of one rule, and at once.
    pub log_limit: Option<(u64, u32)>,
    /// What lines about rules `Log` begin with.
    pub log_prefix: String,
    /// Whether denials are logged.
    pub log_denied: bool,
    /// Ports of translated sources, both included.
    pub nat_ports: Option<(u16, u16)>,
    /// The address of translated sources; the outgoing interface's where `None`.
    pub nat_address: Option<Ipv4Addr>,
    /// Destinations for which nothing is translated.
    pub nat_exclusions: Exclusions,
}

/// Destinations for which sources are not translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Exclusions {
    /// Those in pools.
    #[default]
    Pools,
    /// Those, and the nodes' addresses.
    PoolsAndHosts,
}

impl PolicySettings {
    /// The first source that says something wins; where none does, the default holds.
    pub fn resolve(sources: &[&PolicyTunables]) -> Self {
        fn first<T: Clone>(
            sources: &[&PolicyTunables],
            field: impl Fn(&PolicyTunables) -> Option<&T>,
        ) -> Option<T> {
            sources.iter().find_map(|source| field(source)).cloned()
        }
        let default = Settings::default();
        let failsafes = Failsafes::default();
        let burst = first(sources, |t| t.log_burst.as_ref()).unwrap_or(LOG_BURST);
        Self {
            endpoint_to_host: first(sources, |t| t.endpoint_to_host.as_ref())
                .unwrap_or(default.endpoint_to_host),
            deny: first(sources, |t| t.deny.as_ref()).unwrap_or(default.deny),
            spare_invalid: first(sources, |t| t.spare_invalid.as_ref()).unwrap_or(false),
            marks: first(sources, |t| t.marks.as_ref()).unwrap_or(default.marks),
            allow_ipip: first(sources, |t| t.allow_ipip.as_ref()).unwrap_or(false),
            allow_vxlan: first(sources, |t| t.allow_vxlan.as_ref()).unwrap_or(false),
            failsafes: Failsafes {
                inbound: first(sources, |t| t.failsafe_inbound.as_ref())
                    .unwrap_or(failsafes.inbound),
                outbound: first(sources, |t| t.failsafe_outbound.as_ref())
                    .unwrap_or(failsafes.outbound),
            },
            log_limit: first(sources, |t| t.log_rate.as_ref()).map(|rate| (rate, burst)),
            log_prefix: first(sources, |t| t.log_prefix.as_ref())
                .unwrap_or_else(|| LOG_PREFIX.to_owned()),
            log_denied: first(sources, |t| t.log_denied.as_ref()).unwrap_or(false),
            nat_ports: first(sources, |t| t.nat_ports.as_ref()).flatten(),
            nat_address: first(sources, |t| t.nat_address.as_ref()),
            nat_exclusions: first(sources, |t| t.nat_exclusions.as_ref()).unwrap_or_default(),
        }
    }

    /// What the compilation has to know.
    pub fn compiled(&self, interface_prefixes: &[String], vxlan_port: u16) -> Settings {
        let default = Settings::default();
        Settings {
            workload_prefixes: interface_prefixes.to_vec(),
            endpoint_to_host: self.endpoint_to_host,
            deny: self.deny,
            drop_invalid: !self.spare_invalid,
            marks: self.marks,
            log: Log {
                limit: self.log_limit,
                denials: self.log_denied,
                ..default.log
            },
            allow_ipip: self.allow_ipip,
            allow_vxlan: self.allow_vxlan,
            vxlan_port,
            failsafes: self.failsafes.clone(),
            ..default
        }
    }
}

/// Reads `defaultEndpointToHostAction`: `Return` leaves the packet to the host's other rules, as `Accept`
/// does here, since a table cannot accept for others.
pub(crate) fn endpoint_to_host(text: &str) -> Result<EndpointToHost, String> {
    match text.to_ascii_lowercase().as_str() {
        "drop" => Ok(EndpointToHost::Drop),
        "accept" | "return" => Ok(EndpointToHost::Accept),
        _ => Err("give Drop, Return or Accept".to_owned()),
    }
}

/// Reads `nftablesFilterDenyAction`.
pub(crate) fn deny(text: &str) -> Result<Deny, String> {
    match text.to_ascii_lowercase().as_str() {
        "drop" => Ok(Deny::Drop),
        "reject" => Ok(Deny::Reject),
        _ => Err("give Drop or Reject".to_owned()),
    }
}

/// Reads `nftablesMarkMask`: the lowest two of its bits are used.
pub(crate) fn marks(text: &str) -> Result<Marks, String> {
    let mask = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    let wrong =
        || "give a mask of 32 bits, two of them set at least, such as 0xffff0000".to_owned();
    let mask = mask.map_err(|_| wrong())?;
    let lowest = |mask: u32| mask & mask.wrapping_neg();
    let accepted = lowest(mask);
    let pass = lowest(mask & !accepted);
    if pass == 0 {
        return Err(wrong());
    }
    Ok(Marks { pass, accepted })
}

/// Reads failsafe ports, as the environment or a FelixConfiguration has them.
pub(crate) fn failsafes(text: &str) -> Result<Vec<Failsafe>, String> {
    let ports = match serde_json::from_str::<Value>(text) {
        Ok(list @ Value::Array(_)) => Failsafe::from_value(&list),
        _ => Failsafe::parse_list(text),
    };
    ports.map_err(|error| error.to_string())
}

/// Reads `logActionRateLimit`, such as `100/minute`; logs a minute.
pub(crate) fn log_rate(text: &str) -> Result<u64, String> {
    let read = || {
        let (count, unit) = text.split_once('/')?;
        let count: u64 = count.trim().parse().ok().filter(|count| *count > 0)?;
        match unit.trim() {
            "second" => count.checked_mul(60),
            "minute" => Some(count),
            "hour" => Some(count.div_ceil(60)),
            "day" => Some(count.div_ceil(60 * 24)),
            _ => None,
        }
    };
    read().ok_or_else(|| "give a rate such as 10/second, 100/minute or 5/hour".to_owned())
}

/// Reads `logActionRateLimitBurst`.
pub(crate) fn log_burst(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(burst) if (1..=9999).contains(&burst) => Ok(burst),
        _ => Err("give a number from 1 to 9999".to_owned()),
    }
}

/// Reads `logPrefix`.
pub(crate) fn log_prefix(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// Reads `dropActionOverride`: whether denials are logged.
pub(crate) fn drop_action(text: &str) -> Result<bool, String> {
    match text.replace('-', "").to_ascii_lowercase().as_str() {
        "drop" => Ok(false),
        "loganddrop" => Ok(true),
        _ => Err("give Drop or LogAndDrop: what policy denies is never accepted here".to_owned()),
    }
}

/// Reads `natPortRange`, such as `32768:65535`; 0 is any port.
pub(crate) fn nat_ports(text: &str) -> Result<Option<(u16, u16)>, String> {
    if text == "0" {
        return Ok(None);
    }
    let read = || {
        let (low, high) = text.split_once(':').unwrap_or((text, text));
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (low > 0 && low <= high).then_some((low, high))
    };
    read()
        .map(Some)
        .ok_or_else(|| "give ports such as 32768:65535, or 0 for any".to_owned())
}

/// Reads `natOutgoingAddress`.
pub(crate) fn nat_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_| "give an IPv4 address of this node".to_owned())
}

/// Reads `natOutgoingExclusions`.
pub(crate) fn nat_exclusions(text: &str) -> Result<Exclusions, String> {
    match text.to_ascii_lowercase().as_str() {
        "ippoolsonly" => Ok(Exclusions::Pools),
        "ippoolsandhostips" => Ok(Exclusions::PoolsAndHosts),
        _ => Err("give IPPoolsOnly or IPPoolsAndHostIPs".to_owned()),
    }
}

/// Felix's.
const LOG_BURST: u32 = 5;
const LOG_PREFIX: &str = "calico-packet";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_felix_reads_them() {
        assert_eq!(endpoint_to_host("ACCEPT"), Ok(EndpointToHost::Accept));
        assert!(endpoint_to_host("maybe").is_err());
        assert_eq!(deny("Reject"), Ok(Deny::Reject));
        let usual = Settings::default().marks;
        assert_eq!(marks("0xffff0000"), Ok(usual));
        assert_eq!(marks("4294901760"), Ok(usual));
        assert!(marks("0x80000000").is_err(), "one bit");
        assert_eq!(log_rate("10/second"), Ok(600));
        assert_eq!(log_rate("90/hour"), Ok(2));
        assert!(log_rate("0/second").is_err());
        assert_eq!(drop_action("LogAndDrop"), Ok(true));
        assert_eq!(drop_action("LOG-and-DROP"), Ok(true));
        assert_eq!(drop_action("Drop"), Ok(false));
        assert!(drop_action("LogAndAccept").is_err());
        assert_eq!(nat_ports("0"), Ok(None));
        assert_eq!(nat_ports("99:100"), Ok(Some((99, 100))));
        assert!(nat_ports("100:99").is_err());
        assert_eq!(
            nat_exclusions("IPPoolsAndHostIPs"),
            Ok(Exclusions::PoolsAndHosts)
        );
    }

    #[test]
    fn failsafe_ports_come_as_text_and_as_objects() {
        let text = failsafes("tcp:22,udp:[fd00::/8]:53").unwrap();
        let objects = r#"[{"protocol": "tcp", "port": 22},
            {"protocol": "UDP", "port": 53, "net": "fd00::/8"}]"#;
        assert_eq!(failsafes(objects).unwrap(), text);
        assert_eq!(failsafes("none"), Ok(Vec::new()));
        assert_eq!(failsafes("[]"), Ok(Vec::new()));
        assert!(failsafes(r#"[{"port": "x"}]"#).is_err());
    }

    #[test]
    fn the_nearest_source_wins_field_by_field() {
        let near = PolicyTunables {
            deny: Some(Deny::Reject),
            nat_ports: Some(None),
            ..PolicyTunables::default()
        };
        let far = PolicyTunables {
            deny: Some(Deny::Drop),
            nat_ports: Some(Some((1, 2))),
            allow_ipip: Some(true),
            failsafe_inbound: Some(Vec::new()),
            ..PolicyTunables::default()
        };
        let settings = PolicySettings::resolve(&[&near, &far]);
        assert_eq!(settings.deny, Deny::Reject);
        assert_eq!(settings.nat_ports, None);
        assert!(settings.allow_ipip && settings.failsafes.inbound.is_empty());
        assert_eq!(settings.failsafes.outbound, Failsafes::default().outbound);
        let compiled = settings.compiled(&["cali".to_owned()], 4789);
        assert!(compiled.allow_ipip && compiled.drop_invalid);
    }
}
