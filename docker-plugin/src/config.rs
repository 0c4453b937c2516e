//! What the driver is told: flags and environment, read once at start.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use margay_datastore::ConfigError;
use margay_telemetry::{Format, Severity};

use crate::labels::CALICO_PREFIX;
use crate::network::is_interface_prefix;

/// Docker's remote network driver and IPAM driver.
#[derive(Clone, Debug, Parser)]
#[command(name = "margay-docker", version, about)]
pub struct Config {
    /// Name of the network driver; the IPAM driver is NAME-ipam. Several names may be given, separated by commas,
    /// such as margay,calico.
    #[arg(long = "driver", env = "MARGAY_DOCKER_DRIVER", default_value = "margay", value_delimiter = ',',
        value_parser = driver_name)]
    pub drivers: Vec<String>,

    /// Whether a network is known to one host or, with a Docker that has a cluster store, to all.
    #[arg(long, env = "MARGAY_DOCKER_SCOPE", value_enum, default_value = "local")]
    pub scope: Scope,

    /// Folder in which Docker looks for plugins' sockets.
    #[arg(
        long,
        env = "MARGAY_DOCKER_PLUGIN_DIR",
        default_value = "/run/docker/plugins"
    )]
    pub plugin_dir: PathBuf,

    /// Socket of Docker's API, asked for names and labels; "none" asks nobody.
    #[arg(long = "docker", env = "MARGAY_DOCKER_SOCKET", default_value = "/run/docker.sock",
        value_parser = path_or_none)]
    docker: PathOrNone,

    /// The node's name; else the file `nodename`, else the host's name in small letters.
    #[arg(long, env = "NODENAME")]
    pub nodename: Option<String>,

    /// Folder of the files `nodename` and `mtu`, which the agent writes.
    #[arg(long, env = "MARGAY_STATE_DIR", default_value = "/var/lib/calico")]
    pub state_dir: PathBuf,

    /// Folder in which the agent says which endpoints have their policy in force.
    #[arg(
        long,
        env = "MARGAY_STATUS_DIR",
        default_value = "/var/run/calico/endpoint-status"
    )]
    pub status_dir: PathBuf,

    /// Seconds to wait for an endpoint's policy before its container starts; 0 does not wait.
    #[arg(
        long = "policy-timeout",
        env = "MARGAY_DOCKER_POLICY_TIMEOUT",
        default_value_t = 0
    )]
    policy_seconds: u32,

    /// File that says where the datastore is.
    #[arg(long = "config", env = "MARGAY_CONFIG")]
    pub datastore_file: Option<PathBuf>,

    /// MTU of containers' interfaces in bytes; else the network's, else the file `mtu`.
    #[arg(long, env = "CALICO_LIBNETWORK_VETH_MTU", value_parser = clap::value_parser!(u32).range(68..=65535))]
    pub mtu: Option<u32>,

    /// How interfaces are called in containers; Docker adds a number.
    #[arg(long = "interface-prefix", env = "CALICO_LIBNETWORK_IFPREFIX", default_value = "cali",
        value_parser = interface_prefix)]
    pub interface_prefix: String,

    /// Prefixes of container labels that become endpoint labels, without the prefix.
    #[arg(long = "label-prefix", env = "MARGAY_DOCKER_LABEL_PREFIX", default_value = CALICO_PREFIX,
        value_delimiter = ',')]
    pub label_prefixes: Vec<String>,

    /// Seconds for which an endpoint may be without its interface before it is given back.
    #[arg(
        long = "cleanup-grace",
        env = "MARGAY_CLEANUP_GRACE_SECONDS",
        default_value_t = 60
    )]
    grace_seconds: u32,

    /// Least grave message that is logged: Debug, Info, Warning, Error.
    #[arg(long = "log-level", env = "MARGAY_LOG_LEVEL", default_value = "Info", value_parser = severity)]
    pub log_level: Severity,

    /// Whether log lines are JSON.
    #[arg(long = "log-json", env = "MARGAY_LOG_JSON")]
    log_json: bool,

    /// Address and port of metrics and health, such as localhost:9098.
    #[arg(long, env = "MARGAY_DOCKER_METRICS", value_parser = host_port)]
    pub metrics: Option<(String, u16)>,

    #[arg(skip)]
    /// Socket of Docker's API.
    pub docker_socket: Option<PathBuf>,
    #[arg(skip)]
    /// How long to wait for an endpoint's policy.
    pub policy_timeout: Option<Duration>,
    #[arg(skip)]
    /// How long an endpoint may be without its interface.
    pub grace: Duration,
}

/// To whom Docker makes a network known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// To one host: every Docker can.
    Local,
    /// To all hosts of a Docker with a cluster store.
    Global,
}

#[derive(Clone, Debug)]
struct PathOrNone(Option<PathBuf>);

impl Config {
    /// Reads the process' arguments and environment.
    ///
    /// # Errors
    /// A flag is unknown or a value is wrong; also how help and version come about.
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::try_parse().map(Self::resolved)
    }

    fn resolved(mut self) -> Self {
        self.docker_socket.clone_from(&self.docker.0);
        let patience = Duration::from_secs(self.policy_seconds.into());
        self.policy_timeout = Some(patience).filter(|patience| !patience.is_zero());
        self.grace = Duration::from_secs(self.grace_seconds.into());
        self
    }

    /// The name of the IPAM driver that goes with the first network driver.
    pub fn ipam_name(&self) -> String {
        let first = self.drivers.first().map_or("margay", String::as_str);
        format!("{first}{IPAM_SUFFIX}")
    }

    /// How log lines look.
    pub fn log_format(&self) -> Format {
        if self.log_json {
            Format::Json
        } else {
            Format::Text
        }
    }

    /// The MTU of containers in bytes, unless their network says otherwise: the flag, or what the agent wrote.
    pub fn mtu(&self) -> Option<u32> {
        self.mtu.or_else(|| {
            let written = fs::read_to_string(self.state_dir.join("mtu")).ok()?;
            written.trim().parse().ok()
        })
    }

    /// The node's name.
    ///
    /// # Errors
    /// There is none to be had.
    pub fn node(&self) -> Result<String, std::io::Error> {
        if let Some(name) = self.nodename.as_ref().filter(|name| !name.is_empty()) {
            return Ok(name.clone());
        }
        let first_line = |path: &Path| {
            let text = fs::read_to_string(path)?;
            Ok::<_, std::io::Error>(text.trim().to_owned())
        };
        if let Ok(written) = first_line(&self.state_dir.join("nodename"))
            && !written.is_empty()
        {
            return Ok(written);
        }
        Ok(first_line(Path::new("/proc/sys/kernel/hostname"))?.to_lowercase())
    }

    /// Where the datastore is.
    ///
    /// # Errors
    /// The file cannot be read, or a setting cannot be used.
    pub fn datastore(&self) -> Result<margay_datastore::Config, DatastoreError> {
        let env = |name: &str| std::env::var(name).ok();
        let Some(path) = &self.datastore_file else {
            return Ok(margay_datastore::Config::from_env(&env)?);
        };
        let unreadable = |reason: String| DatastoreError::File {
            path: path.clone(),
            reason,
        };
        let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let file: serde_json::Value =
            serde_saphyr::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        Ok(margay_datastore::Config::from_file(&file, &env)?)
    }
}

/// Why the datastore cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    /// The file.
    #[error("{}: {reason}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

fn driver_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if fits {
        return Ok(text.to_owned());
    }
    Err("use letters, digits, '-', '_' and '.', and a letter or digit first".to_owned())
}

fn path_or_none(text: &str) -> Result<PathOrNone, String> {
    Ok(PathOrNone((text != "none").then(|| text.into())))
}

fn interface_prefix(text: &str) -> Result<String, String> {
    if is_interface_prefix(text) {
        return Ok(text.to_owned());
    }
    Err("use 1 to 12 letters, digits, '-', '_' and '.'".to_owned())
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::from_word(text).ok_or_else(|| "use Debug, Info, Warning or Error".to_owned())
}

fn host_port(text: &str) -> Result<(String, u16), String> {
    let parts = text.rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    parsed.ok_or_else(|| "use HOST:PORT".to_owned())
}

/// What an IPAM driver's name adds to its network driver's.
pub const IPAM_SUFFIX: &str = "-ipam";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn with(words: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from([&["margay-docker"], words].concat()).map(Config::resolved)
    }

    #[test]
    fn several_names_are_answered_to() {
        let config = with(&["--driver", "margay,calico"]).unwrap();
        assert_eq!(config.drivers, ["margay", "calico"]);
        assert_eq!(config.ipam_name(), "margay-ipam");
    }

    #[test]
    fn wrong_values_are_refused() {
        for words in [
            ["--driver", "../margay"],
            ["--scope", "swarm"],
            ["--mtu", "12"],
            ["--interface-prefix", "a/b"],
            ["--log-level", "loud"],
            ["--metrics", "9098"],
        ] {
            assert!(with(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_nodes_name_is_as_the_agent_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_str().unwrap().to_owned();
        let config = with(&["--state-dir", &state]).unwrap();
        assert!(!config.node().unwrap().is_empty());
        fs::write(dir.path().join("nodename"), "rack7\n").unwrap();
        assert_eq!(config.node().unwrap(), "rack7");
        assert_eq!(config.mtu(), None);
        fs::write(dir.path().join("mtu"), "1450\n").unwrap();
        assert_eq!(config.mtu(), Some(1450));
        let named = with(&["--state-dir", &state, "--nodename", "n1"]).unwrap();
        assert_eq!(named.node().unwrap(), "n1");
    }
}
