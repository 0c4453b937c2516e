//! IPAM objects as they are stored: blocks, affinities, handles and the allocator's configuration.
//!
//! Only their shape; what may be done with them is the allocator's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::json::{Extra, null_is_default};

/// A block of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// The block's prefix.
    pub cidr: Cidr,
    /// `host:<node>` or `virtual:<name>`; `None` when nobody claims the block.
    #[serde(default)]
    pub affinity: Option<String>,
    /// When the block was claimed, RFC 3339; empty in blocks of older writers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_claim_time: Option<String>,
    /// For each ordinal the index into `attributes`, or `None` when free.
    pub allocations: Vec<Option<u32>>,
    /// Free ordinals, first in first out: taken from the head, given back at the tail.
    #[serde(deserialize_with = "null_is_default")]
    pub unallocated: Vec<u32>,
    /// Owners of allocations; several ordinals may share one.
    #[serde(deserialize_with = "null_is_default")]
    pub attributes: Vec<Attribute>,
    /// Raised on every write; begins at the creation time in nanoseconds since 1970.
    #[serde(rename = "sequenceNumber", default)]
    pub sequence_number: u64,
    /// The sequence number at which each allocated ordinal (decimal) was assigned.
    #[serde(
        rename = "sequenceNumberForAllocation",
        default,
        deserialize_with = "null_is_default"
    )]
    pub sequence_number_for_allocation: BTreeMap<String, u64>,
    /// Deletion mark of stores without compare-and-delete.
    #[serde(default)]
    pub deleted: bool,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Who holds an address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The handle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle_id: Option<String>,
    /// Owner facts: `node`, `pod`, `namespace`, `timestamp`, `type`, …
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_default"
    )]
    pub secondary: BTreeMap<String, String>,
    /// The other owner during a live migration.
    #[serde(
        rename = "alternateOwnerAttrs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub alternate_owner: Option<BTreeMap<String, String>>,
    /// When the address was released, while it cools down.
    #[serde(
        rename = "releasedAt",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub released_at: Option<String>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A block affinity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    /// Where the claim stands.
    #[serde(default)]
    pub state: AffinityState,
    /// Deletion mark of stores without compare-and-delete.
    #[serde(default)]
    pub deleted: bool,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// State of a block affinity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AffinityState {
    /// Claimed, and the block exists. An empty or missing state means this.
    #[default]
    #[serde(rename = "confirmed", alias = "")]
    Confirmed,
    /// About to be claimed.
    #[serde(rename = "pending")]
    Pending,
    /// About to be given up.
    #[serde(rename = "pendingDeletion")]
    PendingDeletion,
}

/// A handle: the blocks in which its addresses lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handle {
    /// Number of addresses in each block; may exceed the truth, never fall short of it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub block: BTreeMap<String, u64>,
    /// Deletion mark of stores without compare-and-delete.
    #[serde(default)]
    pub deleted: bool,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The allocator's configuration. A missing key means [`IpamConfig::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IpamConfig {
    /// Whether a node may use its own blocks only.
    #[serde(default, skip_serializing_if = "crate::json::is_false")]
    pub strict_affinity: bool,
    /// Whether nodes claim blocks by themselves. Missing in a present object means false.
    #[serde(default, skip_serializing_if = "crate::json::is_false")]
    pub auto_allocate_blocks: bool,
    /// Most blocks a node may claim; 0 means the default of 20.
    #[serde(rename = "maxBlocksPerHost", default, skip_serializing_if = "is_zero")]
    pub max_blocks_per_host: u32,
    /// Whether KubeVirt machines keep their addresses.
    #[serde(
        rename = "kubeVirtVMAddressPersistence",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub kubevirt_vm_address_persistence: Option<String>,
    /// Seconds for which a released address is not given out again, 0–1200.
    #[serde(rename = "ipCooldownSeconds", default, skip_serializing_if = "is_zero")]
    pub ip_cooldown_seconds: u32,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Affinity {
    /// An affinity in this state.
    pub fn new(state: AffinityState) -> Self {
        Self {
            state,
            deleted: false,
            extra: Extra::new(),
        }
    }

    /// Reads a stored value; no bytes at all is the oldest form of "confirmed".
    ///
    /// # Errors
    /// The value is neither empty nor JSON of an affinity.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        if value.is_empty() {
            return Ok(Self::new(AffinityState::Confirmed));
        }
        serde_json::from_slice(value)
    }
}

impl Default for IpamConfig {
    fn default() -> Self {
        Self {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 0,
            kubevirt_vm_address_persistence: None,
            ip_cooldown_seconds: 0,
            extra: Extra::new(),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_affinities_are_confirmed() {
        for value in [&b""[..], b"{}", br#"{"state":"","deleted":false}"#] {
            assert_eq!(
                Affinity::decode(value).unwrap().state,
                AffinityState::Confirmed
            );
        }
    }

    #[test]
    fn a_present_configuration_without_the_switch_claims_nothing() {
        let config: IpamConfig = serde_json::from_str("{}").unwrap();
        assert!(!config.auto_allocate_blocks);
        assert!(IpamConfig::default().auto_allocate_blocks);
    }
}
