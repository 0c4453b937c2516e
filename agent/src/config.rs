//! What the agent is told: flags and environment, read once at start.

mod settings;
mod value;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use ipnetwork::IpNetwork;
use margay_model::resource::pool::EncapMode;
use margay_model::{Cidr, Family};
use margay_telemetry::{Format, Severity};
use regex::Regex;

use crate::autodetect::Method;
use crate::bgp::backend::Backend;
use crate::enforce::settings::{self as policy_settings, PolicyTunables};
use crate::gone::DECLARED;
use crate::install;
use crate::standing::settings::{self as standing_settings, StandingTunables};

pub(crate) use settings::{DATASTORE_HELP, argument, both, env, environment_help};
pub use settings::{SETTINGS, Setting};
pub use value::ConfigError;
pub(crate) use value::{
    Source, boolean, duration, interface_prefixes, is_node_name, mtu, pattern, port, protocol,
    severity, vni,
};

/// Everything the agent is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name, where it is given; else the host name in lower case.
    pub nodename: Option<String>,
    /// Where `nodename` and `mtu` are kept.
    pub state_dir: PathBuf,
    /// Where plugins journal releases that they could not finish.
    pub releases_dir: PathBuf,
    /// How long a container's interface must be gone before its endpoint is given back; `None` is for ever.
    pub cleanup_grace: Option<Duration>,
    /// How long a silent node is waited for that nobody declares gone; never where `None`.
    pub node_grace: Option<Duration>,
    /// Below it, passwords of BGP sessions: `<secret>/<key>`.
    pub bgp_secrets: PathBuf,
    /// Which program speaks BGP.
    pub bgp_backend: Backend,
    /// Where programs that speak BGP have their files.
    pub bgp_dir: PathBuf,
    /// Below it, the sockets on which BIRD's clients are answered; `None` answers none.
    pub bird_dir: Option<PathBuf>,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Below it, `endpoint-status/`; `None` writes no status files.
    pub endpoint_status: Option<PathBuf>,
    /// Identity of this machine in place of `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// File that says where the datastore is.
    pub datastore_file: Option<PathBuf>,
    /// Whether plugins and CNI configuration are kept in place.
    pub install_cni: bool,
    /// The node's IPv4 address.
    pub ip: NodeAddress,
    /// The node's IPv6 address.
    pub ip6: NodeAddress,
    /// Whether connections are cut that policy no longer allows.
    pub cut_connections: bool,
    /// The node's AS number, where it differs from the cluster's.
    pub as_number: Option<u32>,
    /// Words to be found in the cluster's `clusterType`.
    pub cluster_type: Vec<String>,
    /// Pools of a cluster that never had one.
    pub default_pools: Vec<DefaultPool>,
    /// What a FelixConfiguration may say too; here only what flags or environment say.
    pub local: Tunables,
    /// How log lines look.
    pub log_format: Format,
    /// Where health is told over TCP.
    pub health: Option<(String, u16)>,
    /// Where metrics are told over TCP.
    pub metrics: Option<(String, u16)>,
    /// Print what would be changed, and end.
    pub dry_run: bool,
}

/// Where one of the node's addresses comes from.
#[derive(Debug, Clone)]
pub enum NodeAddress {
    /// The node has none of this family.
    None,
    /// What the node's record says, unless it is gone from the machine or there is none: then as detected.
    Detected(Method),
    /// What the node's record says, if anything.
    Recorded,
    /// This one; the prefix length is taken from the interface where it is not given.
    Given(IpAddr, Option<u8>),
}

/// A pool for an empty cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultPool {
    /// Its name.
    pub name: &'static str,
    /// Its prefix.
    pub cidr: Cidr,
    /// Prefix length of its blocks.
    pub block_size: u8,
    /// Whether traffic to the outside is masqueraded.
    pub nat_outgoing: bool,
    /// IP-in-IP encapsulation.
    pub ipip: EncapMode,
    /// VXLAN encapsulation.
    pub vxlan: EncapMode,
    /// Nodes that use it.
    pub node_selector: String,
}

/// Settings that the cluster's FelixConfiguration may give as well; `None` where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tunables {
    /// Prefixes of the names of workloads' interfaces.
    pub interface_prefixes: Option<Vec<String>>,
    /// Least grave message that is logged.
    pub log_severity: Option<Severity>,
    /// Whether IPv6 is handled.
    pub ipv6: Option<bool>,
    /// How often everything is compared although nothing is known to have changed; 0 is never.
    pub route_refresh: Option<Duration>,
    /// Interfaces whose MTU limits the workloads'.
    pub mtu_interfaces: Option<Pattern>,
    /// Whether routes of others on workloads' interfaces are removed.
    pub remove_external_routes: Option<bool>,
    /// Protocol number on routes to local workloads.
    pub device_route_protocol: Option<u8>,
    /// Whether there are VXLAN tunnels at all; where nothing is said, pools decide.
    pub vxlan: Option<bool>,
    /// The VXLAN network's identifier.
    pub vxlan_vni: Option<u32>,
    /// The UDP port of VXLAN.
    pub vxlan_port: Option<u16>,
    /// MTU of the IPv4 VXLAN device in bytes; 0 is computed.
    pub vxlan_mtu: Option<u32>,
    /// MTU of the IPv6 VXLAN device in bytes; 0 is computed.
    pub vxlan_mtu_v6: Option<u32>,
    /// How policy is put in force.
    pub policy: PolicyTunables,
    /// What is told in the datastore of endpoints and of the agent.
    pub standing: StandingTunables,
}

/// A regular expression; equal when its text is.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// What the process is started for.
#[derive(Debug, Clone)]
pub enum Start {
    /// To be the agent.
    Agent(Box<Config>),
    /// To install plugins and CNI configuration.
    Install(Box<install::Settings>),
    /// To take them away.
    Uninstall(Box<install::Settings>),
}

impl Start {
    /// Reads the process' arguments and environment.
    ///
    /// # Errors
    /// A flag is unknown or a value is wrong; also how help and version come about.
    pub fn from_process() -> Result<Self, StartError> {
        let matches = settings::command().try_get_matches()?;
        match matches.subcommand() {
            Some(("install", flags)) => Ok(Self::Install(Box::new(install::settings(flags)?))),
            Some((_, flags)) => Ok(Self::Uninstall(Box::new(install::settings(flags)?))),
            None => Ok(Self::Agent(Box::new(Config::of(&matches)?))),
        }
    }
}

impl Config {
    fn of(matches: &ArgMatches) -> Result<Self, ConfigError> {
        let dry_run = matches.get_flag(settings::DRY_RUN);
        let mut config = Self::resolve(|setting| {
            let flag = setting.flag?;
            let given = matches.get_one::<String>(flag).cloned();
            given.map(|value| (format!("--{flag}"), value))
        })?;
        config.dry_run = dry_run;
        Ok(config)
    }

    /// Reads values as `flag` gives them, then the environment, then defaults. An empty text is no value.
    ///
    /// # Errors
    /// [`ConfigError`] names setting, value and remedy.
    pub fn resolve(
        flag: impl Fn(&Setting) -> Option<(String, String)>,
    ) -> Result<Self, ConfigError> {
        Self::resolve_with(&|setting| {
            flag(setting).or_else(|| {
                let value = std::env::var(setting.variable).ok()?;
                Some((setting.variable.to_owned(), value))
            })
        })
    }

    fn resolve_with(
        given: &dyn Fn(&Setting) -> Option<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let source = Source {
            table: SETTINGS,
            given,
        };
        let run_dir = source.path("MARGAY_RUN_DIR")?;
        let socket = match &run_dir {
            Some(dir) => dir.join("agent.sock"),
            None => PathBuf::from(SOCKET),
        };
        let bgp_dir = socket.with_file_name("bgp");
        let bird_dir = match source.path_or_none("MARGAY_BIRD_SOCKETS")? {
            Some(told) => told,
            None => Some(run_dir.clone().unwrap_or_else(|| PathBuf::from(RUN_DIR))),
        };
        let endpoint_status = source.path_or_none("FELIX_ENDPOINTSTATUSPATHPREFIX")?;
        let endpoint_status = match (endpoint_status, run_dir) {
            (Some(told), _) => told,
            (None, run_dir) => Some(run_dir.unwrap_or_else(|| PathBuf::from(RUN_DIR))),
        };
        let health = source.boolean("FELIX_HEALTHENABLED")?.unwrap_or(false);
        let metrics = source.boolean("FELIX_PROMETHEUSMETRICSENABLED")?;
        let metrics = metrics.unwrap_or(false);
        let health_at = (
            source
                .text("FELIX_HEALTHHOST")
                .unwrap_or_else(|| "localhost".to_owned()),
            source.port("FELIX_HEALTHPORT")?.unwrap_or(9099),
        );
        let metrics_at = (
            source
                .text("FELIX_PROMETHEUSMETRICSHOST")
                .unwrap_or_else(|| "0.0.0.0".to_owned()),
            source.port("FELIX_PROMETHEUSMETRICSPORT")?.unwrap_or(9091),
        );
        Ok(Self {
            nodename: source.node_name("NODENAME")?,
            state_dir: source
                .path("MARGAY_STATE_DIR")?
                .unwrap_or_else(|| STATE_DIR.into()),
            releases_dir: source
                .path("MARGAY_RELEASES_DIR")?
                .unwrap_or_else(|| RELEASES_DIR.into()),
            cleanup_grace: Some(source.duration("MARGAY_CLEANUP_GRACE")?.unwrap_or(GRACE))
                .filter(|grace| !grace.is_zero()),
            node_grace: source
                .duration("MARGAY_NODE_GRACE")?
                .filter(|grace| !grace.is_zero())
                .map(|grace| grace.max(DECLARED)),
            bgp_secrets: source
                .path("MARGAY_BGP_SECRETS_DIR")?
                .unwrap_or_else(|| BGP_SECRETS.into()),
            bgp_backend: source.bgp_backend(&bgp_dir)?,
            bgp_dir,
            bird_dir,
            socket,
            endpoint_status,
            machine_id: source.text("MARGAY_MACHINE_ID"),
            datastore_file: source.path("MARGAY_CONFIG")?,
            cut_connections: source.boolean("MARGAY_CUT_CONNECTIONS")?.unwrap_or(false),
            install_cni: source.boolean("MARGAY_INSTALL_CNI")?.unwrap_or(false),
            ip: source.node_address("IP", "IP_AUTODETECTION_METHOD", Family::V4)?,
            ip6: source.node_address("IP6", "IP6_AUTODETECTION_METHOD", Family::V6)?,
            as_number: source.as_number("AS")?,
            cluster_type: source.words("CLUSTER_TYPE"),
            default_pools: source.default_pools()?,
            local: Tunables {
                interface_prefixes: source.interface_prefixes("FELIX_INTERFACEPREFIX")?,
                log_severity: source.severity("FELIX_LOGSEVERITYSCREEN")?,
                ipv6: source.boolean("FELIX_IPV6SUPPORT")?,
                route_refresh: source.duration("FELIX_ROUTEREFRESHINTERVAL")?,
                mtu_interfaces: source.pattern("FELIX_MTUIFACEPATTERN")?,
                remove_external_routes: source.boolean("FELIX_REMOVEEXTERNALROUTES")?,
                device_route_protocol: source.protocol("FELIX_DEVICEROUTEPROTOCOL")?,
                vxlan: source.boolean("FELIX_VXLANENABLED")?,
                vxlan_vni: source.read("FELIX_VXLANVNI", vni)?,
                vxlan_port: source.port("FELIX_VXLANPORT")?,
                vxlan_mtu: source.read("FELIX_VXLANMTU", mtu)?,
                vxlan_mtu_v6: source.read("FELIX_VXLANMTUV6", mtu)?,
                policy: policy(&source)?,
                standing: standing(&source)?,
            },
            log_format: source.log_format("MARGAY_LOG_FORMAT")?,
            health: health.then_some(health_at),
            metrics: metrics.then_some(metrics_at),
            dry_run: false,
        })
    }

    /// The endpoint-status directory, if status files are written.
    pub fn status_dir(&self) -> Option<PathBuf> {
        self.endpoint_status
            .as_ref()
            .map(|prefix| prefix.join("endpoint-status"))
    }
}

/// What is said of policy.
fn policy(source: &Source<'_>) -> Result<PolicyTunables, ConfigError> {
    use policy_settings as read;
    Ok(PolicyTunables {
        endpoint_to_host: source
            .read("FELIX_DEFAULTENDPOINTTOHOSTACTION", read::endpoint_to_host)?,
        deny: source.read("FELIX_NFTABLESFILTERDENYACTION", read::deny)?,
        spare_invalid: source.boolean("FELIX_DISABLECONNTRACKINVALIDCHECK")?,
        marks: source.read("FELIX_NFTABLESMARKMASK", read::marks)?,
        allow_ipip: source.boolean("FELIX_ALLOWIPIPPACKETSFROMWORKLOADS")?,
        allow_vxlan: source.boolean("FELIX_ALLOWVXLANPACKETSFROMWORKLOADS")?,
        failsafe_inbound: source.read("FELIX_FAILSAFEINBOUNDHOSTPORTS", read::failsafes)?,
        failsafe_outbound: source.read("FELIX_FAILSAFEOUTBOUNDHOSTPORTS", read::failsafes)?,
        log_rate: source.read("FELIX_LOGACTIONRATELIMIT", read::log_rate)?,
        log_burst: source.read("FELIX_LOGACTIONRATELIMITBURST", read::log_burst)?,
        log_prefix: source.read("FELIX_LOGPREFIX", read::log_prefix)?,
        log_denied: source.boolean("MARGAY_LOG_DENIED")?,
        nat_ports: source.read("FELIX_NATPORTRANGE", read::nat_ports)?,
        nat_address: source.read("FELIX_NATOUTGOINGADDRESS", read::nat_address)?,
        nat_exclusions: source.read("FELIX_NATOUTGOINGEXCLUSIONS", read::nat_exclusions)?,
    })
}

/// What is said of the status in the datastore.
fn standing(source: &Source<'_>) -> Result<StandingTunables, ConfigError> {
    use standing_settings as read;
    Ok(StandingTunables {
        endpoints: source.boolean("FELIX_ENDPOINTREPORTINGENABLED")?,
        delay: source.read("FELIX_ENDPOINTREPORTINGDELAYSECS", read::duration)?,
        interval: source.read("FELIX_REPORTINGINTERVALSECS", read::duration)?,
        ttl: source.read("FELIX_REPORTINGTTLSECS", read::ttl)?,
        region: source.read("FELIX_OPENSTACKREGION", read::region)?,
    })
}

/// Why the agent did not get as far as starting.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line; also the texts of `--help` and `--version`.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// A value.
    #[error(transparent)]
    Value(#[from] ConfigError),
}

impl NodeAddress {
    /// The address given as such, for tests and messages.
    pub fn given(network: IpNetwork) -> Self {
        Self::Given(network.ip(), Some(network.prefix()))
    }
}

const GRACE: Duration = Duration::from_secs(60);
const SOCKET: &str = "/run/margay/agent.sock";
/// Where the agent's files are for others, as Calico's.
pub(crate) const RUN_DIR: &str = "/var/run/calico";
const BGP_SECRETS: &str = "/etc/margay/bgp-secrets";
const STATE_DIR: &str = "/var/lib/calico";
const RELEASES_DIR: &str = "/var/lib/margay/releases";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::resolve_with(&|setting| {
            let found = values.iter().find(|(name, _)| *name == setting.variable)?;
            Some((found.0.to_owned(), found.1.to_owned()))
        })
    }

    #[test]
    fn defaults_are_those_calico_users_know() {
        let config = with(&[]).unwrap();
        assert_eq!(config.state_dir, PathBuf::from("/var/lib/calico"));
        let releases = "/var/lib/margay/releases";
        assert_eq!(config.releases_dir, PathBuf::from(releases));
        assert_eq!(config.cleanup_grace, Some(Duration::from_secs(60)));
        let never = with(&[("MARGAY_CLEANUP_GRACE", "0")]).unwrap();
        assert_eq!(never.cleanup_grace, None);
        assert_eq!(
            config.status_dir(),
            Some(PathBuf::from("/var/run/calico/endpoint-status"))
        );
        assert_eq!(config.socket, PathBuf::from("/run/margay/agent.sock"));
        let [pool] = config.default_pools.as_slice() else {
            panic!("{:?}", config.default_pools);
        };
        assert_eq!(
            (
                pool.name,
                pool.cidr.to_string().as_str(),
                pool.block_size,
                pool.nat_outgoing
            ),
            ("default-ipv4-ippool", "192.168.0.0/16", 26, true)
        );
        assert!(config.health.is_none() && config.metrics.is_none());
        assert!(matches!(
            config.ip,
            NodeAddress::Detected(Method::FirstFound)
        ));
        assert!(matches!(config.ip6, NodeAddress::Recorded));
    }

    #[test]
    fn another_program_may_speak_bgp() {
        assert_eq!(with(&[]).unwrap().bgp_backend, Backend::Margay);
        let config = with(&[
            ("MARGAY_BGP_BACKEND", "BIRD"),
            ("MARGAY_RUN_DIR", "/run/n1"),
        ]);
        let directory = PathBuf::from("/run/n1/bgp");
        let bird = Backend::Bird {
            program: PathBuf::from("bird"),
            directory: directory.clone(),
        };
        let config = config.unwrap();
        assert_eq!((config.bgp_backend, config.bgp_dir), (bird, directory));
        let settings = [
            ("MARGAY_BGP_BACKEND", "gobgp"),
            ("MARGAY_GOBGPD", "/opt/gobgpd"),
        ];
        let gobgp = Backend::Gobgp {
            program: PathBuf::from("/opt/gobgpd"),
            directory: PathBuf::from("/run/margay/bgp"),
        };
        assert_eq!(with(&settings).unwrap().bgp_backend, gobgp);
        let wrong = with(&[("MARGAY_BGP_BACKEND", "frr")]).unwrap_err();
        assert!(
            wrong.to_string().contains("margay, bird or gobgp"),
            "{wrong}"
        );
    }

    #[test]
    fn an_empty_text_is_no_value() {
        let config = with(&[("IP", ""), ("FELIX_HEALTHPORT", " "), ("NODENAME", "")]).unwrap();
        assert!(config.nodename.is_none());
        assert!(matches!(
            config.ip,
            NodeAddress::Detected(Method::FirstFound)
        ));
    }

    #[test]
    fn a_run_directory_moves_socket_and_status_files() {
        let config = with(&[("MARGAY_RUN_DIR", "/run/n1")]).unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/n1/agent.sock"));
        assert_eq!(config.status_dir(), Some("/run/n1/endpoint-status".into()));
        let config = with(&[("FELIX_ENDPOINTSTATUSPATHPREFIX", "none")]).unwrap();
        assert_eq!(config.status_dir(), None);
    }

    #[test]
    fn pools_follow_their_variables() {
        let config = with(&[
            ("CALICO_IPV4POOL_CIDR", "10.7.0.0/16"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "28"),
            ("CALICO_IPV4POOL_NAT_OUTGOING", "false"),
            ("CALICO_IPV4POOL_VXLAN", "CrossSubnet"),
            ("CALICO_IPV6POOL_CIDR", "fd00:7::/64"),
        ])
        .unwrap();
        let [v4, v6] = config.default_pools.as_slice() else {
            panic!("{:?}", config.default_pools);
        };
        assert_eq!((v4.block_size, v4.nat_outgoing), (28, false));
        assert_eq!(v4.vxlan, EncapMode::CrossSubnet);
        assert_eq!(
            (v6.name, v6.block_size, v6.nat_outgoing),
            ("default-ipv6-ippool", 122, false)
        );
        let none = with(&[("NO_DEFAULT_POOLS", "true")]).unwrap();
        assert!(none.default_pools.is_empty());
    }

    #[test]
    fn wrong_values_are_named_with_the_remedy() {
        for (variable, value, hint) in [
            ("FELIX_HEALTHPORT", "0", "port"),
            ("FELIX_HEALTHENABLED", "maybe", "true or false"),
            ("IP", "fd00::1", "IPv4"),
            ("IP", "10.0.0.300", "IPv4"),
            ("IP", "10.0.0.1/40", "prefix length"),
            ("IP6", "10.0.0.1", "IPv6"),
            (
                "IP_AUTODETECTION_METHOD",
                "kubernetes-internal-ip",
                "Kubernetes",
            ),
            (
                "IP_AUTODETECTION_METHOD",
                "interface=eth[",
                "regular expression",
            ),
            ("IP_AUTODETECTION_METHOD", "cidr=10.0.0.0/33", "prefix"),
            ("IP_AUTODETECTION_METHOD", "nearest", "first-found"),
            ("AS", "70000000000", "AS number"),
            ("NODENAME", "a/b", "node name"),
            ("CALICO_IPV4POOL_CIDR", "fd00::/64", "IPv4"),
            ("CALICO_IPV4POOL_CIDR", "10.0.0.0/28", "block"),
            ("CALICO_IPV4POOL_BLOCK_SIZE", "19", "20 to 32"),
            ("CALICO_IPV4POOL_IPIP", "Sometimes", "CrossSubnet"),
            ("FELIX_ROUTEREFRESHINTERVAL", "soon", "seconds"),
            ("FELIX_INTERFACEPREFIX", "ninechars", "prefix"),
            ("FELIX_INTERFACEPREFIX", ",", "at least one prefix"),
            ("FELIX_LOGSEVERITYSCREEN", "loud", "Info"),
            ("FELIX_DEVICEROUTEPROTOCOL", "300", "255"),
            ("FELIX_MTUIFACEPATTERN", "(", "regular expression"),
            ("FELIX_VXLANVNI", "16777216", "16777215"),
            ("FELIX_VXLANMTU", "70000", "65535"),
            ("MARGAY_LOG_FORMAT", "xml", "json"),
            ("MARGAY_STATE_DIR", "var/lib", "absolute"),
        ] {
            let text = with(&[(variable, value)]).unwrap_err().to_string();
            assert!(
                text.contains(variable) && text.contains(value) && text.contains(hint),
                "{text}"
            );
        }
    }

    #[test]
    fn ipip_and_vxlan_exclude_each_other() {
        let both = [
            ("CALICO_IPV4POOL_IPIP", "Always"),
            ("CALICO_IPV4POOL_VXLAN", "Always"),
        ];
        assert!(
            with(&both)
                .unwrap_err()
                .to_string()
                .contains("CALICO_IPV4POOL_VXLAN")
        );
    }
}
