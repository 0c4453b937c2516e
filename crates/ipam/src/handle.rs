//! What assigning and releasing do to a handle.

use margay_model::Cidr;
use margay_model::ipam::Handle;

/// Counts `by` more addresses of the block.
pub fn increment(handle: &mut Handle, block: Cidr, by: u64) {
    *handle.block.entry(block.to_string()).or_default() += by;
}

/// Sets how many addresses the handle has in the block; none removes the block.
pub fn set(handle: &mut Handle, block: Cidr, count: u64) {
    if count == 0 {
        handle.block.remove(&block.to_string());
    } else {
        handle.block.insert(block.to_string(), count);
    }
}

/// The blocks the handle names; entries that are no prefixes are passed over.
pub fn blocks(handle: &Handle) -> impl Iterator<Item = Cidr> {
    handle.block.keys().filter_map(|text| text.parse().ok())
}

/// Whether the handle names no block, and is to be deleted.
pub fn is_empty(handle: &Handle) -> bool {
    handle.block.is_empty()
}

/// A handle id as it is compared: cut at the first carriage return, which old migrations left behind.
pub fn id(text: &str) -> &str {
    text.split('\r').next().unwrap_or(text)
}
