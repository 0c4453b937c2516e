//! Block affinities as resources.
//!
//! Address management keeps its affinities under keys of its own ([`crate::ipam::Affinity`]) and neither
//! reads nor writes these.

use serde::{Deserialize, Serialize};

use super::{Resource, Spec};
use crate::json::{Extra, is_false};
use crate::kind::Kind;

/// A block of addresses and the node it belongs to.
pub type BlockAffinity = Resource<BlockAffinitySpec>;

/// Specification of a [`BlockAffinity`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockAffinitySpec {
    /// `confirmed`, `pending` or `pendingDeletion`.
    pub state: String,
    /// The node.
    pub node: String,
    /// What the block belongs to where it is no node; `host` when absent.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The block's prefix.
    pub cidr: String,
    /// Whether the affinity is gone.
    #[serde(skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Spec for BlockAffinitySpec {
    const KIND: Kind = Kind::BlockAffinity;
}
