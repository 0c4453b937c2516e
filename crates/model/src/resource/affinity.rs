//! Block affinities as resources.
//!
//! Address management keeps its affinities under keys of its own ([`crate::ipam::Affinity`]) and neither
//! reads nor writes these.

use serde::{Deserialize, Serialize};

use super::{Resource, Spec};
use crate::cidr::Cidr;
use crate::json::{Extra, is_false};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

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

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let state = spec.state.as_str();
        let allowed = ["confirmed", "pending", "pendingDeletion"];
        problems.require(allowed.contains(&state), "state", state, allowed.join(", "));
        let fits = spec.cidr.parse::<Cidr>().is_ok();
        problems.require(fits, "cidr", &spec.cidr, "the prefix of a block");
    }
}
