//! What Margay keeps of each node that its agent has run on, beyond the agent's life.

use serde::{Deserialize, Serialize};

use crate::json::Extra;

/// A node that an agent of Margay has run on: only such a node's leavings are ever given back by others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Membership {
    /// The machine that ran it last.
    #[serde(rename = "machineId")]
    pub machine_id: String,
    /// When an operator declared that the node is gone, RFC 3339. An agent that runs takes that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
    /// Fields of later versions.
    #[serde(flatten)]
    pub extra: Extra,
}
