//! The settings of a FelixConfiguration that the agent heeds.

use std::fmt::Display;
use std::time::Duration;

use margay_telemetry::Severity;
use regex::Regex;
use serde_json::{Map, Value};

use crate::config::{self, Pattern, Tunables};
use crate::enforce::settings::{self as policy, PolicySettings, PolicyTunables};
use crate::mtu;
use crate::standing::settings::{self as standing, StandingSettings, StandingTunables};

/// What is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Prefixes of the names of workloads' interfaces; never empty.
    pub interface_prefixes: Vec<String>,
    /// Least grave message that is logged.
    pub log_severity: Severity,
    /// Whether IPv6 is handled.
    pub ipv6: bool,
    /// How often everything is compared; `None` is never.
    pub route_refresh: Option<Duration>,
    /// Interfaces whose MTU limits the workloads'.
    pub mtu_interfaces: Pattern,
    /// Whether routes of others on workloads' interfaces are removed.
    pub remove_external_routes: bool,
    /// Protocol number on routes to local workloads.
    pub device_route_protocol: u8,
    /// How VXLAN tunnels are made.
    pub vxlan: Vxlan,
    /// How policy is put in force.
    pub policy: PolicySettings,
    /// What is told in the datastore of endpoints and of the agent.
    pub standing: StandingSettings,
}

/// How VXLAN tunnels are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vxlan {
    /// Whether pools that ask for tunnels get them.
    pub enabled: bool,
    /// The network's identifier.
    pub vni: u32,
    /// UDP port of the outer packets.
    pub port: u16,
    /// MTU of the IPv4 device in bytes; computed where `None`.
    pub mtu_v4: Option<u32>,
    /// MTU of the IPv6 device in bytes; computed where `None`.
    pub mtu_v6: Option<u32>,
}

impl Settings {
    /// The first source that says something wins; where none does, the default holds.
    pub fn resolve(sources: [Option<&Tunables>; 3]) -> Self {
        fn first<'t, T>(
            sources: &[Option<&'t Tunables>],
            field: impl Fn(&'t Tunables) -> Option<&'t T>,
        ) -> Option<&'t T> {
            sources.iter().copied().flatten().find_map(field)
        }
        let refresh = first(&sources, |t| t.route_refresh.as_ref()).copied();
        let refresh = refresh.unwrap_or(ROUTE_REFRESH);
        Self {
            interface_prefixes: first(&sources, |t| t.interface_prefixes.as_ref())
                .cloned()
                .unwrap_or_else(|| vec![margay_endpoint::DEFAULT_PREFIX.to_owned()]),
            log_severity: first(&sources, |t| t.log_severity.as_ref())
                .copied()
                .unwrap_or_default(),
            ipv6: first(&sources, |t| t.ipv6.as_ref())
                .copied()
                .unwrap_or(true),
            route_refresh: (!refresh.is_zero()).then_some(refresh),
            mtu_interfaces: first(&sources, |t| t.mtu_interfaces.as_ref())
                .cloned()
                .unwrap_or_else(default_mtu_interfaces),
            remove_external_routes: first(&sources, |t| t.remove_external_routes.as_ref())
                .copied()
                .unwrap_or(true),
            device_route_protocol: first(&sources, |t| t.device_route_protocol.as_ref())
                .copied()
                .unwrap_or(margay_route::PROTOCOL_BOOT),
            vxlan: Vxlan {
                enabled: first(&sources, |t| t.vxlan.as_ref())
                    .copied()
                    .unwrap_or(true),
                vni: first(&sources, |t| t.vxlan_vni.as_ref())
                    .copied()
                    .unwrap_or(margay_route::VXLAN_VNI),
                port: first(&sources, |t| t.vxlan_port.as_ref())
                    .copied()
                    .unwrap_or(margay_route::VXLAN_PORT),
                mtu_v4: first(&sources, |t| t.vxlan_mtu.as_ref())
                    .copied()
                    .filter(|mtu| *mtu > 0),
                mtu_v6: first(&sources, |t| t.vxlan_mtu_v6.as_ref())
                    .copied()
                    .filter(|mtu| *mtu > 0),
            },
            policy: {
                let sources = sources.iter().flatten();
                let sources: Vec<_> = sources.map(|tunables| &tunables.policy).collect();
                PolicySettings::resolve(&sources)
            },
            standing: {
                let sources = sources.iter().flatten();
                let sources: Vec<_> = sources.map(|tunables| &tunables.standing).collect();
                StandingSettings::resolve(&sources)
            },
        }
    }
}

impl Settings {
    /// What the compilation of policy has to know of them.
    pub fn of_policy(&self) -> margay_ruleset::compile::Settings {
        self.policy
            .compiled(&self.interface_prefixes, self.vxlan.port)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::resolve([None, None, None])
    }
}

/// What a stored FelixConfiguration says, and what of it makes no sense.
pub(super) fn read(value: &[u8]) -> Result<(Tunables, Vec<String>), String> {
    let document: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let nothing = Map::new();
    let spec = match document.get("spec") {
        None | Some(Value::Null) => &nothing,
        Some(Value::Object(spec)) => spec,
        Some(_) => return Err("spec is no object".to_owned()),
    };
    let mut reader = Reader {
        spec,
        wrong: Vec::new(),
    };
    let tunables = Tunables {
        interface_prefixes: reader.field("interfacePrefix", config::interface_prefixes),
        log_severity: reader.field("logSeverityScreen", config::severity),
        ipv6: reader.field("ipv6Support", config::boolean),
        route_refresh: reader.field("routeRefreshInterval", config::duration),
        mtu_interfaces: reader.field("mtuIfacePattern", config::pattern),
        remove_external_routes: reader.field("removeExternalRoutes", config::boolean),
        device_route_protocol: reader.field("deviceRouteProtocol", config::protocol),
        vxlan: reader.field("vxlanEnabled", config::boolean),
        vxlan_vni: reader.field("vxlanVNI", config::vni),
        vxlan_port: reader.field("vxlanPort", config::port),
        vxlan_mtu: reader.field("vxlanMTU", config::mtu),
        vxlan_mtu_v6: reader.field("vxlanMTUV6", config::mtu),
        policy: PolicyTunables {
            endpoint_to_host: reader.field("defaultEndpointToHostAction", policy::endpoint_to_host),
            deny: reader
                .field("nftablesFilterDenyAction", policy::deny)
                .or_else(|| reader.field("iptablesFilterDenyAction", policy::deny)),
            spare_invalid: reader.field("disableConntrackInvalidCheck", config::boolean),
            marks: reader.field("nftablesMarkMask", policy::marks),
            allow_ipip: reader.field("allowIPIPPacketsFromWorkloads", config::boolean),
            allow_vxlan: reader.field("allowVXLANPacketsFromWorkloads", config::boolean),
            failsafe_inbound: reader.field("failsafeInboundHostPorts", policy::failsafes),
            failsafe_outbound: reader.field("failsafeOutboundHostPorts", policy::failsafes),
            log_rate: reader.field("logActionRateLimit", policy::log_rate),
            log_burst: reader.field("logActionRateLimitBurst", policy::log_burst),
            log_prefix: reader.field("logPrefix", policy::log_prefix),
            log_denied: reader.field("dropActionOverride", policy::drop_action),
            nat_ports: reader.field("natPortRange", policy::nat_ports),
            nat_address: reader.field("natOutgoingAddress", policy::nat_address),
            nat_exclusions: reader.field("natOutgoingExclusions", policy::nat_exclusions),
        },
        standing: StandingTunables {
            endpoints: reader.field("endpointReportingEnabled", config::boolean),
            delay: reader.field("endpointReportingDelay", standing::duration),
            interval: reader.field("reportingInterval", standing::duration),
            ttl: reader.field("reportingTTL", standing::ttl),
            region: reader.field("openstackRegion", standing::region),
        },
    };
    Ok((tunables, reader.wrong))
}

struct Reader<'d> {
    spec: &'d Map<String, Value>,
    wrong: Vec<String>,
}

impl Reader<'_> {
    /// A field by the rules of the environment variable that says the same.
    fn field<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = match self.spec.get(name)? {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.wrong.push(format!("spec.{name} {text:?}: {reason}"));
                None
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "the pattern is constant and tested")]
fn default_mtu_interfaces() -> Pattern {
    // invariant: `mtu::INTERFACES` is a regular expression.
    Pattern(Regex::new(mtu::INTERFACES).expect("a regular expression"))
}

const ROUTE_REFRESH: Duration = Duration::from_secs(90);

/// The name of the cluster's FelixConfiguration.
pub(super) const DEFAULT: &str = "default";

/// What the names of single nodes' FelixConfigurations begin with.
pub(super) const OF_NODE: &str = "node.";
