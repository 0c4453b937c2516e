//! Who this machine and this process are.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

use margay_model::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::AgentError;

/// What a node lease holds: who runs the node's agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `/etc/machine-id`, or what the operator gave instead.
    pub machine_id: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process id.
    pub pid: u32,
    /// When the process started, RFC 3339.
    pub started: String,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Holder {
    /// This process.
    ///
    /// # Errors
    /// [`AgentError::MachineId`] when the machine has no identity and none was given.
    pub fn this_process(machine_id: Option<String>) -> Result<Self, AgentError> {
        let machine_id = match machine_id {
            Some(given) => given,
            None => MACHINE_ID
                .iter()
                .find_map(|path| read(Path::new(path)))
                .ok_or(AgentError::MachineId)?,
        };
        Ok(Self {
            machine_id,
            boot_id: read(Path::new(BOOT_ID)).unwrap_or_default(),
            pid: process::id(),
            started: now().rfc3339(),
            extra: Map::new(),
        })
    }
}

/// The node's name: the one given, else the host name in lower case, as Calico does.
///
/// # Errors
/// [`AgentError::HostName`] when none is given and the host name cannot be one.
pub fn node_name(given: Option<&str>) -> Result<String, AgentError> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let host = read(Path::new(HOST_NAME))
        .unwrap_or_default()
        .to_lowercase();
    if crate::config::is_node_name(&host) {
        return Ok(host);
    }
    Err(AgentError::HostName { host })
}

/// The time by the machine's clock.
pub fn now() -> Timestamp {
    // A clock before 1970 is as wrong as one that stands at 1970.
    Timestamp::from_epoch(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// When the machine started, by its clock as it is now; `None` where the kernel does not say.
pub fn booted() -> Option<Timestamp> {
    let text = read(Path::new(STATISTICS))?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    let seconds = line.trim().parse().ok()?;
    Some(Timestamp { seconds, nanos: 0 })
}

/// Random bytes, good for identity and jitter, not for secrets.
pub fn random() -> [u8; 16] {
    // The keys of every hasher derive from the system's random numbers, and no two are alike.
    let word = |salt| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(salt);
        u128::from(hasher.finish())
    };
    ((word(0) << 64) | word(1)).to_be_bytes()
}

fn read(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

const MACHINE_ID: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const STATISTICS: &str = "/proc/stat";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";
