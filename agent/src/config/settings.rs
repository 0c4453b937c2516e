//! The table of all settings, from which the command line and its help are made.

use clap::{Arg, ArgAction, Command};

use crate::install;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The flag, without dashes, where there is one.
    pub flag: Option<&'static str>,
    /// The default as people read it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// The command line.
pub(super) fn command() -> Command {
    let mut command = Command::new("margay-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about(
            "The resident of a node: registers it, keeps its routes and endpoints right, reports",
        )
        .after_help(environment_help(SETTINGS, DATASTORE_HELP))
        .subcommand_negates_reqs(true)
        .subcommands(install::commands())
        .arg(
            Arg::new(DRY_RUN)
                .long(DRY_RUN)
                .action(ArgAction::SetTrue)
                .help("Print what would be changed in the kernel, change nothing, and end"),
        );
    for setting in SETTINGS {
        command = command.args(argument(setting));
    }
    command
}

/// The flag of a setting, where it has one.
pub(crate) fn argument(setting: &Setting) -> Option<Arg> {
    let help = format!(
        "{} [env: {}; default: {}]",
        setting.help, setting.variable, setting.default
    );
    let flag = setting.flag?;
    Some(Arg::new(flag).long(flag).value_name("VALUE").help(help))
}

/// What is said of settings without a flag.
pub(crate) fn environment_help(settings: &[Setting], more: &str) -> String {
    let mut text = String::from("Set by the environment alone:\n");
    for setting in settings.iter().filter(|setting| setting.flag.is_none()) {
        text.push_str(&format!(
            "  {}\n          {} [default: {}]\n",
            setting.variable, setting.help, setting.default
        ));
    }
    text.push_str(more);
    text
}

pub(crate) const fn both(
    variable: &'static str,
    flag: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        variable,
        flag: Some(flag),
        default,
        help,
    }
}

pub(crate) const fn env(
    variable: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        variable,
        flag: None,
        default,
        help,
    }
}

pub(crate) const DATASTORE_HELP: &str = "\nThe datastore is found by the variables that all programs share: ETCD_ENDPOINTS and the like.";
/// The flag that shows a plan without applying it.
pub(super) const DRY_RUN: &str = "dry-run";

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    both(
        "NODENAME",
        "nodename",
        "the host name in lower case",
        "The node's name",
    ),
    both(
        "MARGAY_CONFIG",
        "config",
        "none",
        "A YAML file that says where the datastore is, as Calico's clients read it",
    ),
    both(
        "MARGAY_STATE_DIR",
        "state-dir",
        "/var/lib/calico",
        "Where the files nodename and mtu are written",
    ),
    both(
        "MARGAY_RELEASES_DIR",
        "releases-dir",
        "/var/lib/margay/releases",
        "Where plugins journal releases for the agent: releases/ below their state_dir",
    ),
    both(
        "MARGAY_CLEANUP_GRACE",
        "cleanup-grace",
        "60",
        "Seconds for which a container's interface must be gone before its endpoint is given back; 0 is never",
    ),
    both(
        "MARGAY_NODE_GRACE",
        "node-grace",
        "0",
        "Seconds without an agent after which a node counts as gone although nobody declares it; 0 is never",
    ),
    both(
        "MARGAY_RUN_DIR",
        "run-dir",
        "/var/run/calico",
        "Where the agent's socket and endpoint-status/ are; without it the socket is /run/margay/agent.sock",
    ),
    both(
        "MARGAY_BGP_SECRETS_DIR",
        "bgp-secrets-dir",
        "/etc/margay/bgp-secrets",
        "Where passwords of BGP sessions are, as files <secret>/<key>",
    ),
    both(
        "MARGAY_BGP_BACKEND",
        "bgp-backend",
        "margay",
        "Which program speaks BGP: margay, the agent itself; bird; or gobgp",
    ),
    env(
        "MARGAY_BIRD",
        "bird",
        "The program of BIRD 2, by name or path, where it speaks BGP",
    ),
    env(
        "MARGAY_GOBGPD",
        "gobgpd",
        "The program of GoBGP 3, by name or path, where it speaks BGP",
    ),
    env(
        "MARGAY_BIRD_SOCKETS",
        "the run directory",
        "Where bird.ctl and bird6.ctl are, for BIRD's clients such as calicoctl node status; none makes none",
    ),
    both(
        "MARGAY_MACHINE_ID",
        "machine-id",
        "/etc/machine-id",
        "What tells this machine from others that claim the same node name",
    ),
    both(
        "MARGAY_INSTALL_CNI",
        "install-cni",
        "false",
        "Whether plugins and CNI configuration are put in place when the agent is ready, and kept there",
    ),
    both(
        "MARGAY_CUT_CONNECTIONS",
        "cut-connections",
        "false",
        "Whether connections are cut that a change of policy no longer allows",
    ),
    both(
        "MARGAY_LOG_DENIED",
        "log-denied",
        "false",
        "Whether packets that are denied are logged, with the names of both ends and of the rule",
    ),
    both(
        "IP",
        "ip",
        "autodetect",
        "The node's IPv4 address, with or without prefix length; autodetect; or none",
    ),
    both(
        "IP_AUTODETECTION_METHOD",
        "ip-autodetection-method",
        "first-found",
        "first-found, can-reach=HOST, interface=REGEX,…, skip-interface=REGEX,… or cidr=CIDR,…",
    ),
    both(
        "IP6",
        "ip6",
        "what the node's record says",
        "The node's IPv6 address, with or without prefix length; autodetect; or none",
    ),
    both(
        "IP6_AUTODETECTION_METHOD",
        "ip6-autodetection-method",
        "first-found",
        "As IP_AUTODETECTION_METHOD, for IPv6",
    ),
    both(
        "AS",
        "as",
        "the cluster's",
        "The node's AS number, also in dotted form",
    ),
    both(
        "CLUSTER_TYPE",
        "cluster-type",
        "none",
        "Comma-separated words to add to the cluster's clusterType",
    ),
    env(
        "NO_DEFAULT_POOLS",
        "false",
        "Make no pool in a cluster that never had one",
    ),
    env(
        "CALICO_IPV4POOL_CIDR",
        "192.168.0.0/16",
        "Prefix of the first IPv4 pool, or none",
    ),
    env(
        "CALICO_IPV4POOL_BLOCK_SIZE",
        "26",
        "Prefix length of its blocks, 20 to 32",
    ),
    env(
        "CALICO_IPV4POOL_NAT_OUTGOING",
        "true",
        "Whether its traffic to the outside is masqueraded",
    ),
    env(
        "CALICO_IPV4POOL_IPIP",
        "Never",
        "IP-in-IP: Always, CrossSubnet or Never",
    ),
    env(
        "CALICO_IPV4POOL_VXLAN",
        "Never",
        "VXLAN: Always, CrossSubnet or Never",
    ),
    env(
        "CALICO_IPV4POOL_NODE_SELECTOR",
        "all()",
        "Which nodes use it",
    ),
    env(
        "CALICO_IPV6POOL_CIDR",
        "none",
        "Prefix of the first IPv6 pool",
    ),
    env(
        "CALICO_IPV6POOL_BLOCK_SIZE",
        "122",
        "Prefix length of its blocks, 116 to 128",
    ),
    env(
        "CALICO_IPV6POOL_NAT_OUTGOING",
        "false",
        "Whether its traffic to the outside is masqueraded",
    ),
    env(
        "CALICO_IPV6POOL_VXLAN",
        "Never",
        "VXLAN: Always, CrossSubnet or Never",
    ),
    env(
        "CALICO_IPV6POOL_NODE_SELECTOR",
        "all()",
        "Which nodes use it",
    ),
    env(
        "FELIX_INTERFACEPREFIX",
        "cali",
        "Prefixes of the names of workloads' interfaces, comma-separated",
    ),
    both(
        "FELIX_LOGSEVERITYSCREEN",
        "log-level",
        "Info",
        "Least grave message that is logged: Trace, Debug, Info, Warning, Error or Fatal",
    ),
    both(
        "MARGAY_LOG_FORMAT",
        "log-format",
        "text",
        "How log lines look: text or json",
    ),
    env(
        "FELIX_HEALTHENABLED",
        "false",
        "Whether health is told over TCP",
    ),
    env("FELIX_HEALTHHOST", "localhost", "Where: host"),
    env("FELIX_HEALTHPORT", "9099", "Where: port"),
    env(
        "FELIX_PROMETHEUSMETRICSENABLED",
        "false",
        "Whether metrics are told over TCP",
    ),
    env("FELIX_PROMETHEUSMETRICSHOST", "0.0.0.0", "Where: host"),
    env("FELIX_PROMETHEUSMETRICSPORT", "9091", "Where: port"),
    env(
        "FELIX_ENDPOINTSTATUSPATHPREFIX",
        "the run directory",
        "Below which endpoint-status/ is; none writes no status files",
    ),
    env("FELIX_IPV6SUPPORT", "true", "Whether IPv6 is handled"),
    env(
        "FELIX_ROUTEREFRESHINTERVAL",
        "90",
        "Seconds between full comparisons with the kernel; 0 is never",
    ),
    env(
        "FELIX_MTUIFACEPATTERN",
        "Ethernet, wireless and InfiniBand names",
        "Regular expression: interfaces whose MTU limits the workloads'",
    ),
    env(
        "FELIX_REMOVEEXTERNALROUTES",
        "true",
        "Whether routes of others on workloads' interfaces are removed",
    ),
    env(
        "FELIX_DEVICEROUTEPROTOCOL",
        "3",
        "Protocol number on routes to local workloads",
    ),
    env(
        "FELIX_VXLANENABLED",
        "what the pools ask for",
        "Whether there are VXLAN tunnels",
    ),
    env(
        "FELIX_VXLANVNI",
        "4096",
        "Identifier of the VXLAN network, the same on all nodes",
    ),
    env(
        "FELIX_VXLANPORT",
        "4789",
        "UDP port of VXLAN, the same on all nodes",
    ),
    env(
        "FELIX_VXLANMTU",
        "0",
        "MTU of the IPv4 VXLAN device in bytes; 0 is the uplinks' less 50",
    ),
    env(
        "FELIX_VXLANMTUV6",
        "0",
        "MTU of the IPv6 VXLAN device in bytes; 0 is the uplinks' less 70",
    ),
    env(
        "FELIX_DEFAULTENDPOINTTOHOSTACTION",
        "Drop",
        "What becomes of packets to the node itself that a workload's policy allows: Drop, Return or Accept",
    ),
    env(
        "FELIX_NFTABLESFILTERDENYACTION",
        "Drop",
        "How packets are denied: Drop, or Reject with an answer",
    ),
    env(
        "FELIX_FAILSAFEINBOUNDHOSTPORTS",
        "Calico's list",
        "Ports of the node that no policy can close, such as tcp:22,udp:68,tcp:10.0.0.0/8:179, or none",
    ),
    env(
        "FELIX_FAILSAFEOUTBOUNDHOSTPORTS",
        "Calico's list",
        "Ports of others that no policy can close to the node, in the same form",
    ),
    env(
        "FELIX_DISABLECONNTRACKINVALIDCHECK",
        "false",
        "Whether packets of no connection that begin none are let through",
    ),
    env(
        "FELIX_NFTABLESMARKMASK",
        "0xffff0000",
        "Bits of the packet's mark that nobody else uses; the lowest two of them are used",
    ),
    env(
        "FELIX_ALLOWIPIPPACKETSFROMWORKLOADS",
        "false",
        "Whether workloads may send IP-in-IP",
    ),
    env(
        "FELIX_ALLOWVXLANPACKETSFROMWORKLOADS",
        "false",
        "Whether workloads may send VXLAN",
    ),
    env(
        "FELIX_LOGACTIONRATELIMIT",
        "none",
        "Most logs of one Log rule, such as 10/second or 100/minute",
    ),
    env(
        "FELIX_LOGACTIONRATELIMITBURST",
        "5",
        "How many of them at once",
    ),
    env(
        "FELIX_LOGPREFIX",
        "calico-packet",
        "What the lines begin with that tell of Log rules' packets",
    ),
    env(
        "FELIX_NATPORTRANGE",
        "0",
        "Ports of translated sources, such as 32768:65535; 0 is any",
    ),
    env(
        "FELIX_NATOUTGOINGADDRESS",
        "the outgoing interface's",
        "IPv4 address of translated sources",
    ),
    env(
        "FELIX_NATOUTGOINGEXCLUSIONS",
        "IPPoolsOnly",
        "Destinations for which sources are not translated: IPPoolsOnly or IPPoolsAndHostIPs",
    ),
    env(
        "FELIX_ENDPOINTREPORTINGENABLED",
        "false",
        "Whether the status of endpoints is written to the datastore, as Felix does",
    ),
    env(
        "FELIX_ENDPOINTREPORTINGDELAYSECS",
        "1",
        "Seconds between two writings of it",
    ),
    env(
        "FELIX_REPORTINGINTERVALSECS",
        "30 with the status of endpoints, else never",
        "Seconds between two writings of the agent's own status to the datastore; 0 is never",
    ),
    env(
        "FELIX_REPORTINGTTLSECS",
        "90",
        "Seconds for which the agent's own status lasts without another",
    ),
    env(
        "FELIX_OPENSTACKREGION",
        "none",
        "The region in the keys of those statuses",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_guide_names_every_setting_with_its_default() {
        let guide = include_str!("../../../docs/agent.md");
        for setting in SETTINGS {
            let flag = setting
                .flag
                .map_or(String::new(), |flag| format!("`--{flag}`"));
            let row = format!(
                "| `{}` | {flag} | {} | {} |",
                setting.variable, setting.default, setting.help
            );
            assert!(guide.contains(&row), "docs/agent.md lacks the row:\n{row}");
        }
    }
}
