//! What an installation is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use margay_telemetry::Severity;

use crate::config::{
    Config, ConfigError, DATASTORE_HELP, RUN_DIR, Setting, Source, argument, both, env,
    environment_help,
};

/// Everything an installation is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where runtimes on the host look for configurations.
    pub net_dir: PathBuf,
    /// Where runtimes on the host look for plugins.
    pub bin_dir: PathBuf,
    /// Where the host's folders are mounted, if this runs in a container.
    pub host_prefix: PathBuf,
    /// Name of the configuration's file.
    pub conf_name: String,
    /// Name of a configuration that it takes the place of.
    pub old_conf_name: Option<String>,
    /// A template of the configuration.
    pub template: Option<Template>,
    /// Name of the network.
    pub network: Option<String>,
    /// Where the programs are copied from; the folder of this program where `None`.
    pub programs_dir: Option<PathBuf>,
    /// Their names.
    pub programs: Vec<String>,
    /// Whether they are also installed under Calico's names.
    pub calico_names: bool,
    /// Whether a program that is there already is replaced.
    pub update_programs: bool,
    /// Whether only the programs are installed.
    pub programs_only: bool,
    /// Whether everything is kept in place until a signal says stop.
    pub watch: bool,
    /// The file in which it is written down what was installed.
    pub record: PathBuf,
    /// The agent's socket.
    pub socket: PathBuf,
    /// How long the agent is waited for; zero does not ask it.
    pub wait: Duration,
    /// Where the agent writes `nodename` and `mtu`.
    pub state_dir: PathBuf,
    /// Where plugins journal releases for the agent.
    pub releases_dir: PathBuf,
    /// Where the agent writes endpoint-status files; `None` where it writes none.
    pub status_dir: Option<PathBuf>,
    /// How long ADD waits for a pod's policy, in whole seconds; 0 does not wait.
    pub policy_wait: u32,
    /// File that says where the datastore is.
    pub datastore_file: Option<PathBuf>,
    /// Whether pods get an IPv4 address.
    pub ipv4: bool,
    /// Whether pods get an IPv6 address.
    pub ipv6: bool,
    /// The MTU in bytes; 0 leaves it to the agent.
    pub mtu: u32,
    /// Least grave message that plugins log.
    pub log_level: String,
    /// `LOG_FILE_PATH` and its kin, for templates.
    pub log_file: LogFile,
    /// How the API server is reached.
    pub kubernetes: Kubernetes,
    /// A folder with `etcd-ca`, `etcd-cert` and `etcd-key`.
    pub tls_assets: PathBuf,
    /// The node's name in templates.
    pub node_name: Option<String>,
    /// Least grave message that is logged.
    pub severity: Severity,
}

/// Where a template comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Template {
    /// The text itself.
    Text(String),
    /// A file.
    File(PathBuf),
}

/// What templates may say of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Its path.
    pub path: String,
    /// Its size in MB, its age in days, how many.
    pub limits: [String; 3],
}

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// A kubeconfig for the plugins that others keep.
    pub kubeconfig: Option<PathBuf>,
    /// Whether a kubeconfig is written.
    pub manage: bool,
    /// Name of the file.
    pub kubeconfig_name: String,
    /// `https` or `http`.
    pub protocol: String,
    /// The server's host; without it there is none.
    pub host: Option<String>,
    /// Its port.
    pub port: String,
    /// Whether any server is taken for the right one.
    pub insecure: bool,
    /// Folder of this pod's own service account.
    pub account_dir: PathBuf,
    /// The service account of the plugins; the pod's own where `None`.
    pub account: Option<String>,
}

impl Settings {
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

    /// Those of an agent that keeps the installation itself: from the environment, with its own folders.
    ///
    /// # Errors
    /// As [`Settings::resolve`].
    pub fn of_agent(config: &Config) -> Result<Self, ConfigError> {
        let told = Self::resolve(|_| None)?;
        Ok(Self {
            state_dir: config.state_dir.clone(),
            releases_dir: config.releases_dir.clone(),
            status_dir: config.status_dir(),
            datastore_file: config.datastore_file.clone(),
            node_name: told.node_name.or_else(|| config.nodename.clone()),
            socket: config.socket.clone(),
            ..told
        })
    }

    fn resolve_with(
        given: &dyn Fn(&Setting) -> Option<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let source = Source {
            table: INSTALL_SETTINGS,
            given,
        };
        let text = |variable: &str, default: &str| {
            source.text(variable).unwrap_or_else(|| default.to_owned())
        };
        let path = |variable: &str, default: &str| -> Result<PathBuf, ConfigError> {
            Ok(source.path(variable)?.unwrap_or_else(|| default.into()))
        };
        let flag = |variable: &str, default: bool| -> Result<bool, ConfigError> {
            Ok(source.boolean(variable)?.unwrap_or(default))
        };
        let skipped = source.words("SKIP_CNI_BINARIES");
        let mut programs = source.words("MARGAY_PROGRAMS");
        if programs.is_empty() {
            programs = PROGRAMS.map(str::to_owned).to_vec();
        }
        programs.retain(|program| !skipped.contains(program));
        let calico_names = flag("MARGAY_CALICO_NAMES", false)?;
        let (conf_name, kubeconfig_name) = match calico_names {
            true => ("10-calico.conflist", "calico-kubeconfig"),
            false => ("10-margay.conflist", "margay-kubeconfig"),
        };
        let template = match (
            source.path("CNI_NETWORK_CONFIG_FILE")?,
            source.text("CNI_NETWORK_CONFIG"),
        ) {
            (Some(file), _) => Some(Template::File(file)),
            (None, text) => text.map(Template::Text),
        };
        let run_dir = source.path("MARGAY_RUN_DIR")?;
        let socket = match &run_dir {
            Some(dir) => dir.join("agent.sock"),
            None => SOCKET.into(),
        };
        let status_dir = match source.path_or_none("FELIX_ENDPOINTSTATUSPATHPREFIX")? {
            Some(told) => told,
            None => Some(run_dir.unwrap_or_else(|| RUN_DIR.into())),
        };
        Ok(Self {
            net_dir: path("CNI_NET_DIR", "/etc/cni/net.d")?,
            bin_dir: path("CNI_BIN_DIR", "/opt/cni/bin")?,
            host_prefix: path("MARGAY_HOST_PREFIX", "/host")?,
            conf_name: text("CNI_CONF_NAME", conf_name),
            old_conf_name: source.text("CNI_OLD_CONF_NAME"),
            template,
            network: source.text("MARGAY_CNI_NETWORK"),
            programs_dir: source.path("MARGAY_PROGRAMS_DIR")?,
            programs,
            calico_names,
            update_programs: flag("UPDATE_CNI_BINARIES", true)?,
            programs_only: flag("MARGAY_PROGRAMS_ONLY", false)?,
            watch: flag("SLEEP", false)?,
            record: path("MARGAY_INSTALL_RECORD", "/var/lib/margay/install.json")?,
            socket,
            wait: source.duration("MARGAY_INSTALL_WAIT")?.unwrap_or(WAIT),
            state_dir: path("MARGAY_STATE_DIR", STATE_DIR)?,
            releases_dir: path("MARGAY_RELEASES_DIR", RELEASES_DIR)?,
            status_dir: status_dir.map(|prefix| prefix.join("endpoint-status")),
            policy_wait: source
                .read("MARGAY_POLICY_WAIT", |text| {
                    text.parse()
                        .map_err(|_| "give a whole number of seconds, or 0".to_owned())
                })?
                .unwrap_or(10),
            datastore_file: source.path("MARGAY_CONFIG")?,
            ipv4: flag("MARGAY_CNI_IPV4", true)?,
            ipv6: flag("MARGAY_CNI_IPV6", false)?,
            mtu: source
                .read("CNI_MTU", |text| {
                    text.parse()
                        .map_err(|_| "give a number of bytes, or 0".to_owned())
                })?
                .unwrap_or(0),
            log_level: text("LOG_LEVEL", "info"),
            log_file: LogFile {
                path: text("LOG_FILE_PATH", "/var/log/calico/cni/cni.log"),
                limits: [
                    text("LOG_FILE_MAX_SIZE", "100"),
                    text("LOG_FILE_MAX_AGE", "30"),
                    text("LOG_FILE_MAX_COUNT", "10"),
                ],
            },
            kubernetes: Kubernetes {
                kubeconfig: source.path("MARGAY_CNI_KUBECONFIG")?,
                manage: flag("CALICO_MANAGE_CNI", true)?,
                kubeconfig_name: text("MARGAY_KUBECONFIG_NAME", kubeconfig_name),
                protocol: text("KUBERNETES_SERVICE_PROTOCOL", "https"),
                host: source.text("KUBERNETES_SERVICE_HOST"),
                port: text("KUBERNETES_SERVICE_PORT", "443"),
                insecure: flag("SKIP_TLS_VERIFY", false)?,
                account_dir: path("MARGAY_SERVICE_ACCOUNT_DIR", ACCOUNT_DIR)?,
                account: source.text("CALICO_CNI_SERVICE_ACCOUNT"),
            },
            tls_assets: path("TLS_ASSETS_DIR", "/calico-secrets")?,
            node_name: source
                .text("KUBERNETES_NODE_NAME")
                .or_else(|| source.text("NODENAME")),
            severity: source
                .read("FELIX_LOGSEVERITYSCREEN", crate::config::severity)?
                .unwrap_or_default(),
        })
    }
}

/// The sub-commands with their flags.
pub(super) fn commands() -> [Command; 2] {
    let mut install = Command::new("install")
        .about(
            "Put plugins and CNI configuration in place, the configuration when the agent is ready",
        )
        .after_help(environment_help(INSTALL_SETTINGS, DATASTORE_HELP));
    for (name, variable, help) in SWITCHES {
        let help = format!("{help} [env: {variable}=true]");
        let switch = Arg::new(*name).long(*name).help(help);
        install = install.arg(
            switch
                .action(ArgAction::Set)
                .num_args(0)
                .default_missing_value("true"),
        );
    }
    let mut uninstall = Command::new("uninstall")
        .about("Take away what was installed, the configuration first and the plugins last");
    for setting in INSTALL_SETTINGS {
        let is_switch = SWITCHES.iter().any(|(name, ..)| setting.flag == Some(name));
        if !is_switch {
            install = install.args(argument(setting));
        }
        if setting.variable == "MARGAY_INSTALL_RECORD" {
            uninstall = uninstall.args(argument(setting));
        }
    }
    [install, uninstall]
}

/// Flags without a value.
const SWITCHES: &[(&str, &str, &str)] = &[
    (
        "watch",
        "SLEEP",
        "Keep everything in place until a signal says stop",
    ),
    (
        "calico-names",
        "MARGAY_CALICO_NAMES",
        "Install the plugins also as calico and calico-ipam",
    ),
    (
        "programs-only",
        "MARGAY_PROGRAMS_ONLY",
        "Install the plugins and no configuration",
    ),
];

const PROGRAMS: [&str; 2] = ["margay", "margay-ipam"];
const SOCKET: &str = "/run/margay/agent.sock";
const STATE_DIR: &str = "/var/lib/calico";
/// Where plugins journal releases unless they are told otherwise.
pub(super) const RELEASES_DIR: &str = "/var/lib/margay/releases";
const ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const WAIT: Duration = Duration::from_secs(60);

/// Every setting of an installation.
pub const INSTALL_SETTINGS: &[Setting] = &[
    both(
        "CNI_NET_DIR",
        "net-dir",
        "/etc/cni/net.d",
        "Where the runtime looks for configurations",
    ),
    both(
        "CNI_BIN_DIR",
        "bin-dir",
        "/opt/cni/bin",
        "Where the runtime looks for plugins",
    ),
    both(
        "MARGAY_HOST_PREFIX",
        "host-prefix",
        "/host",
        "In a container, where the host's folders are mounted: etc/cni/net.d, opt/cni/bin and secondary-bin-dir below it are written to where they are there",
    ),
    both(
        "CNI_CONF_NAME",
        "conf-name",
        "10-margay.conflist, or 10-calico.conflist with Calico's names",
        "Name of the configuration's file",
    ),
    both(
        "CNI_OLD_CONF_NAME",
        "old-conf-name",
        "none",
        "Name of a configuration that is removed once the new one is there, whoever wrote it",
    ),
    both(
        "CNI_NETWORK_CONFIG_FILE",
        "template",
        "none",
        "A template of the configuration, in place of the one that is made from the datastore's settings",
    ),
    env(
        "CNI_NETWORK_CONFIG",
        "none",
        "The text of such a template; a file counts first",
    ),
    both(
        "MARGAY_CNI_NETWORK",
        "network",
        "k8s-pod-network on Kubernetes, else margay",
        "Name of the network",
    ),
    both(
        "MARGAY_PROGRAMS_DIR",
        "programs-dir",
        "the folder of margay-agent",
        "Where the programs are copied from",
    ),
    both(
        "MARGAY_PROGRAMS",
        "programs",
        "margay,margay-ipam",
        "Names of the programs, comma-separated",
    ),
    both(
        "SKIP_CNI_BINARIES",
        "skip",
        "none",
        "Names of programs that are not installed, comma-separated",
    ),
    both(
        "UPDATE_CNI_BINARIES",
        "update",
        "true",
        "Whether a program that is there already is replaced",
    ),
    both(
        "MARGAY_CALICO_NAMES",
        "calico-names",
        "false",
        "Whether the plugins are also installed as calico and calico-ipam",
    ),
    both(
        "MARGAY_PROGRAMS_ONLY",
        "programs-only",
        "false",
        "Whether the plugins are installed and no configuration",
    ),
    both(
        "SLEEP",
        "watch",
        "false",
        "Whether everything is kept in place until a signal says stop",
    ),
    both(
        "MARGAY_INSTALL_RECORD",
        "record",
        "/var/lib/margay/install.json",
        "The file in which it is written down what was installed",
    ),
    both(
        "MARGAY_INSTALL_WAIT",
        "wait",
        "60",
        "Seconds for which the agent is waited for before the configuration is written; 0 does not ask it",
    ),
    both(
        "MARGAY_RUN_DIR",
        "run-dir",
        "/run/margay",
        "Where the agent's socket is",
    ),
    env(
        "FELIX_ENDPOINTSTATUSPATHPREFIX",
        "the run directory, else /var/run/calico",
        "Below which the agent writes endpoint-status/; none where it writes none",
    ),
    both(
        "MARGAY_POLICY_WAIT",
        "policy-wait",
        "10",
        "Seconds for which ADD waits until the pod's policy is in force; 0 does not wait",
    ),
    both(
        "MARGAY_STATE_DIR",
        "state-dir",
        "/var/lib/calico",
        "Where the agent writes the files nodename and mtu",
    ),
    both(
        "MARGAY_RELEASES_DIR",
        "releases-dir",
        "/var/lib/margay/releases",
        "Where plugins journal releases for the agent",
    ),
    both(
        "MARGAY_CONFIG",
        "config",
        "none",
        "A YAML file that says where the datastore is, as Calico's clients read it",
    ),
    both(
        "MARGAY_CNI_IPV4",
        "ipv4",
        "true",
        "Whether pods get an IPv4 address",
    ),
    both(
        "MARGAY_CNI_IPV6",
        "ipv6",
        "false",
        "Whether pods get an IPv6 address",
    ),
    both(
        "CNI_MTU",
        "mtu",
        "0",
        "The pods' MTU in bytes; 0 leaves it to the agent",
    ),
    both(
        "LOG_LEVEL",
        "plugin-log-level",
        "info",
        "Least grave message that the plugins log",
    ),
    both(
        "MARGAY_CNI_KUBECONFIG",
        "kubeconfig",
        "none",
        "A kubeconfig for the plugins that others keep; none is written then",
    ),
    both(
        "MARGAY_KUBECONFIG_NAME",
        "kubeconfig-name",
        "margay-kubeconfig, or calico-kubeconfig with Calico's names",
        "Name of the kubeconfig that is written beside the configuration",
    ),
    env(
        "CALICO_MANAGE_CNI",
        "true",
        "Whether a kubeconfig is written and its token renewed",
    ),
    env(
        "CALICO_CNI_SERVICE_ACCOUNT",
        "the pod's own",
        "The service account whose tokens the plugins use, in the pod's namespace",
    ),
    env(
        "MARGAY_SERVICE_ACCOUNT_DIR",
        "/var/run/secrets/kubernetes.io/serviceaccount",
        "Where token, ca.crt and namespace of the pod's own service account are",
    ),
    env(
        "KUBERNETES_SERVICE_PROTOCOL",
        "https",
        "How the API server is reached: protocol",
    ),
    env(
        "KUBERNETES_SERVICE_HOST",
        "none",
        "Host; without it no kubeconfig is written",
    ),
    env("KUBERNETES_SERVICE_PORT", "443", "Port"),
    env(
        "SKIP_TLS_VERIFY",
        "false",
        "Whether the plugins take any API server for the right one",
    ),
    env(
        "KUBERNETES_NODE_NAME",
        "NODENAME, else the host name in lower case",
        "The node's name in a template",
    ),
    env(
        "NODENAME",
        "the host name in lower case",
        "The same, where KUBERNETES_NODE_NAME is not given",
    ),
    env(
        "TLS_ASSETS_DIR",
        "/calico-secrets",
        "A folder with etcd-ca, etcd-cert and etcd-key, which are copied beside the configuration",
    ),
    env(
        "LOG_FILE_PATH",
        "/var/log/calico/cni/cni.log",
        "In a template: __LOG_FILE_PATH__",
    ),
    env(
        "LOG_FILE_MAX_SIZE",
        "100",
        "In a template: __LOG_FILE_MAX_SIZE__",
    ),
    env(
        "LOG_FILE_MAX_AGE",
        "30",
        "In a template: __LOG_FILE_MAX_AGE__",
    ),
    env(
        "LOG_FILE_MAX_COUNT",
        "10",
        "In a template: __LOG_FILE_MAX_COUNT__",
    ),
    both(
        "FELIX_LOGSEVERITYSCREEN",
        "log-level",
        "Info",
        "Least grave message that is logged: Trace, Debug, Info, Warning, Error or Fatal",
    ),
];

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn with(values: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        Settings::resolve_with(&|setting| {
            let found = values.iter().find(|(name, _)| *name == setting.variable)?;
            Some((found.0.to_owned(), found.1.to_owned()))
        })
    }

    #[test]
    fn defaults_are_those_of_runtimes() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.net_dir, PathBuf::from("/etc/cni/net.d"));
        assert_eq!(settings.bin_dir, PathBuf::from("/opt/cni/bin"));
        assert_eq!(settings.conf_name, "10-margay.conflist");
        assert_eq!(settings.programs, ["margay", "margay-ipam"]);
        assert!(settings.update_programs && !settings.watch && settings.template.is_none());
        assert_eq!(settings.kubernetes.kubeconfig_name, "margay-kubeconfig");
    }

    #[test]
    fn calicos_variables_count() {
        let settings = with(&[
            ("CNI_NETWORK_CONFIG", "{}"),
            ("UPDATE_CNI_BINARIES", "false"),
            ("SKIP_CNI_BINARIES", "margay-ipam,portmap"),
            ("SLEEP", "true"),
            ("MARGAY_CALICO_NAMES", "true"),
            ("MARGAY_RUN_DIR", "/run/n1"),
        ])
        .unwrap();
        assert_eq!(settings.template, Some(Template::Text("{}".to_owned())));
        assert_eq!(settings.programs, ["margay"]);
        assert!(settings.watch && !settings.update_programs);
        assert_eq!(settings.conf_name, "10-calico.conflist");
        assert_eq!(settings.kubernetes.kubeconfig_name, "calico-kubeconfig");
        assert_eq!(settings.socket, PathBuf::from("/run/n1/agent.sock"));
        let both = with(&[
            ("CNI_NETWORK_CONFIG", "{}"),
            ("CNI_NETWORK_CONFIG_FILE", "/t"),
        ])
        .unwrap();
        assert_eq!(both.template, Some(Template::File("/t".into())));
        let error = with(&[("CNI_MTU", "big")]).unwrap_err().to_string();
        assert!(error.contains("CNI_MTU=big"), "{error}");
    }

    #[test]
    fn the_command_lines_are_sound_and_the_guide_names_every_setting() {
        let guide = include_str!("../../../docs/install.md");
        for setting in INSTALL_SETTINGS {
            let flag = setting
                .flag
                .map_or(String::new(), |flag| format!("`--{flag}`"));
            let row = format!(
                "| `{}` | {flag} | {} | {} |",
                setting.variable, setting.default, setting.help
            );
            assert!(
                guide.contains(&row),
                "docs/install.md lacks the row:\n{row}"
            );
        }
        for command in commands() {
            command.debug_assert();
        }
    }
}
