//! Settings of the network plugin beside those both plugins share.

use std::path::PathBuf;
use std::time::Duration;

use margay_call::{Kubernetes, OWN_IPAM_TYPES, Settings, flag, number, text};
use margay_cni::error::{Error, code};
use margay_cni::{NetConf, Request};

/// Settings of one call.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// What both plugins need.
    pub(crate) shared: Settings,
    /// Who assigns addresses.
    pub(crate) ipam: Ipam,
    /// What Kubernetes is asked.
    pub(crate) kubernetes: Kubernetes,
    /// The container interface's MTU in bytes, where the configuration gives one.
    mtu: Option<u32>,
    require_mtu_file: bool,
    /// Transmit and receive queues.
    pub(crate) queues: u32,
    /// Whether the container may forward packets.
    pub(crate) allow_ip_forwarding: bool,
    /// Whether there are default routes beside those IPAM gives.
    pub(crate) include_default_routes: bool,
    /// How long ADD waits for the agent to have the endpoint's policy in force; zero not at all, `None` for a while
    /// where there is an agent.
    pub(crate) policy_timeout: Option<Duration>,
    /// Where the agent writes that it has.
    pub(crate) status_dir: PathBuf,
    /// Prefixes of host interfaces, the first of which is used.
    pub(crate) interface_prefix: Option<String>,
}

/// Who assigns addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ipam {
    /// We, in the same commit as the endpoint.
    Own,
    /// Another plugin, by this name.
    Delegate(String),
}

impl Config {
    /// Reads and checks the configuration of a call.
    ///
    /// # Errors
    /// Codes 2, 7 and 110, naming key, value and remedy.
    pub(crate) fn read(
        conf: &NetConf,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let shared = Settings::read(conf, env)?;
        let raw = conf.raw();
        let ipam = match conf.ipam()? {
            None => {
                return Err(Error::new(
                    code::INVALID_CONFIG,
                    "key \"ipam.type\" is missing; give \"margay-ipam\" or another IPAM plugin",
                ));
            }
            Some(ipam) if OWN_IPAM_TYPES.contains(&ipam.plugin) => Ipam::Own,
            Some(ipam) => Ipam::Delegate(ipam.plugin.to_owned()),
        };
        let container = raw
            .get("container_settings")
            .and_then(|settings| settings.as_object());
        Ok(Self {
            shared,
            ipam,
            kubernetes: Kubernetes::read(raw),
            mtu: number(raw, "mtu").filter(|mtu| *mtu > 0),
            require_mtu_file: flag(raw, "require_mtu_file"),
            queues: number(raw, "num_queues").unwrap_or(1),
            allow_ip_forwarding: container
                .is_some_and(|settings| flag(settings, "allow_ip_forwarding")),
            include_default_routes: flag(raw, "include_default_routes"),
            policy_timeout: number(raw, "policy_setup_timeout_seconds")
                .map(|seconds| Duration::from_secs(seconds.into())),
            status_dir: text(raw, "endpoint_status_dir")
                .unwrap_or(DEFAULT_STATUS_DIR)
                .into(),
            interface_prefix: env("FELIX_INTERFACEPREFIX"),
        })
    }

    /// The MTU to set: the configuration's, else the one the agent wrote, else the kernel's default.
    ///
    /// # Errors
    /// Code 104 when the agent's file is required and is not there.
    pub(crate) fn mtu(&self) -> Result<Option<u32>, Error> {
        if self.mtu.is_some() {
            return Ok(self.mtu);
        }
        let written = self.shared.node.mtu()?;
        if written.is_none() && self.require_mtu_file {
            return Err(Error::new(
                code::AGENT_UNREACHABLE,
                "key \"require_mtu_file\": the agent has not written the MTU; start margay-agent on this node",
            ));
        }
        Ok(written)
    }
}

/// The namespace a verb needs.
///
/// # Errors
/// Code 4 when the runtime gave none.
pub(crate) fn netns(call: &Request) -> Result<&str, Error> {
    call.netns
        .as_deref()
        .ok_or_else(|| Error::new(code::INVALID_ENVIRONMENT, "CNI_NETNS is missing"))
}

const DEFAULT_STATUS_DIR: &str = "/var/run/calico/endpoint-status";
