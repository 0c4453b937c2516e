//! What ends the agent.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use margay_resources::ResourceError;

use crate::autodetect::DetectError;
use crate::config::ConfigError;
use crate::identity::Holder;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine cannot be told from others.
    #[error(
        "this machine has no /etc/machine-id; make one with systemd-machine-id-setup, or give --machine-id"
    )]
    MachineId,
    /// There is no name for the node.
    #[error("the host name {host:?} cannot be a node's name; give one with --nodename")]
    HostName {
        /// The host name.
        host: String,
    },
    /// Another machine is the node of this name.
    #[error(
        "node name {node} is held by another machine: machine id {}, process {}, since {}. Give this machine \
         another name with --nodename; if the other machine is gone, its hold ends within {ttl} seconds \
         of its last sign of life",
        holder.machine_id, holder.pid, holder.started
    )]
    NameTaken {
        /// The name.
        node: String,
        /// Who has it.
        holder: Box<Holder>,
        /// Seconds that a lease lasts.
        ttl: u64,
    },
    /// The node's address.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// An object in the store is not what it should be.
    #[error("{key} in the datastore cannot be used: {reason}. Repair or delete it")]
    Object {
        /// The object's key.
        key: String,
        /// Why.
        reason: String,
    },
    /// Somebody else kept changing an object.
    #[error("{key} in the datastore kept changing while it was to be written")]
    Contended {
        /// The object's key.
        key: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] margay_store::StoreError),
    /// Resources in the store.
    #[error(transparent)]
    Resources(#[from] ResourceError),
    /// Where the store is.
    #[error(transparent)]
    Datastore(#[from] margay_datastore::ConfigError),
    /// The file that says where the store is.
    #[error("{path}: {reason}", path = path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// The kernel.
    #[error(transparent)]
    Netlink(#[from] margay_netlink::Error),
    /// nftables.
    #[error(transparent)]
    Nft(#[from] margay_nft::Error),
    /// Logging and servers.
    #[error(transparent)]
    Telemetry(#[from] margay_telemetry::Error),
    /// A file.
    #[error("write {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A file that is read.
    #[error("read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// Plugins and CNI configuration.
    #[error(transparent)]
    Install(#[from] margay_install::InstallError),
    /// The template of a CNI configuration.
    #[error("the template of the CNI configuration: {reason}")]
    Template {
        /// What is wrong, with the remedy.
        reason: String,
    },
    /// The Kubernetes API server.
    #[error(transparent)]
    Kubernetes(#[from] margay_kube::Error),
    /// The agent did not become ready, so there is no configuration yet.
    #[error(
        "the CNI configuration is not written, for within {wait:?} {reason}. Start margay-agent, or give \
             --wait 0 not to ask it"
    )]
    NotReady {
        /// Why.
        reason: String,
        /// How long it was waited for.
        wait: Duration,
    },
    /// Signals or threads.
    #[error("the operating system refused {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A part of the agent ended that never should.
    #[error("the agent's {part} ended unexpectedly")]
    Ended {
        /// The part.
        part: &'static str,
    },
}

impl AgentError {
    /// Whether the same may succeed later without anybody's help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(source) => source.is_transient(),
            Self::Resources(ResourceError::Store { source, .. }) => source.is_transient(),
            Self::Contended { .. } => true,
            _ => false,
        }
    }
}

/// An error with its causes, each once.
pub fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(&format!(": {words}"));
        }
        source = cause.source();
    }
    text
}
