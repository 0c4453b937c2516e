//! What one file holds.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

/// One interface of one container on one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The container's id.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
}

/// A release that is to be finished: what a DEL would have given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Of which attachment.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// The node's name; `None` where the plugin could only guess it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The handle of the addresses.
    pub handle: String,
    /// The handle that old versions used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_handle: Option<String>,
    /// The endpoint; `None` where the IPAM plugin alone was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Names that the host interface may have had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<String>,
    /// The host interface's alias.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    /// When it was written, RFC 3339.
    #[serde(default)]
    pub when: String,
    /// Why the plugin could not do it.
    #[serde(default)]
    pub why: String,
}

/// What an endpoint's key is made of, beside node and interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its namespace.
    pub namespace: String,
    /// `cni` or `k8s`.
    pub orchestrator: String,
    /// The workload: container id or pod name.
    pub workload: String,
}

impl Attachment {
    /// What its file is named by: SHA-1 in hexadecimal, since ids may hold what file names may not.
    pub fn digest(&self) -> String {
        // None of the three holds a zero byte, so that no two attachments have the same text.
        let text = [&*self.network, &*self.container_id, &*self.ifname].join("\0");
        let digest = Sha1::digest(text.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
