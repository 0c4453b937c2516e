//! Whether a namespace is the plugin's own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use margay_cni::{Error, code};

/// Whether `path` is this process's network namespace. What cannot be looked at is not.
pub(crate) fn is_own(path: &str) -> bool {
    match (fs::metadata(path), fs::metadata("/proc/self/ns/net")) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

/// The error of a call for the plugin's own namespace.
pub(crate) fn own_namespace(path: &str) -> Error {
    Error::new(
        code::INVALID_NETNS,
        format!("CNI_NETNS {path:?} is the plugin's own network namespace; give the container's"),
    )
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn p16_own_namespace_by_any_path() {
        assert!(is_own("/proc/self/ns/net"));
        assert!(is_own(&format!("/proc/{}/ns/net", process::id())));
        assert!(!is_own("/proc/self/ns/mnt"));
        assert!(!is_own("/nonexistent"));
    }
}
