//! How failures of the store and the allocator become CNI errors.

use margay_cni::error::{Error, code};
use margay_datastore::ConfigError;
use margay_ipam_core::{IpamError, Refusal};
use margay_store::StoreError;

/// The error for a setting of the store that cannot be used.
pub fn from_config(error: &ConfigError) -> Error {
    Error::new(code::DATASTORE_SETTINGS, error.to_string())
}

/// The error for a failure of the store.
pub fn from_store(error: &StoreError) -> Error {
    let code = match error {
        StoreError::Unavailable { .. } | StoreError::Unknown { .. } => code::DATASTORE_UNREACHABLE,
        StoreError::Deadline { .. } => code::DEADLINE,
        StoreError::Denied { .. } => code::DATASTORE_DENIED,
        StoreError::Compacted { .. } => code::TRY_AGAIN_LATER,
        StoreError::Failed { .. } => code::IO,
    };
    Error::new(code, format!("{error}{}", remedy(error)))
}

/// The error of STATUS for a reason why no ADD would succeed.
pub fn not_available(error: Error) -> Error {
    let mut details = format!("code {}", error.code);
    if !error.details.is_empty() {
        details.push_str(": ");
        details.push_str(&error.details);
    }
    Error::new(code::NOT_AVAILABLE, error.msg).with_details(details)
}

/// Which key leads there, and what to look at.
fn remedy(error: &StoreError) -> &'static str {
    let etcd = |target: &str| target.starts_with("http");
    match error {
        StoreError::Unavailable { target, .. } | StoreError::Deadline { target, .. }
            if etcd(target) =>
        {
            "; check key \"etcd_endpoints\", the certificates, and that etcd runs and is reached from this host"
        }
        StoreError::Denied { target, .. } if etcd(target) => {
            "; check \"etcd_cert_file\", \"etcd_key_file\" or the user, and its rights in etcd"
        }
        StoreError::Unavailable { .. } | StoreError::Denied { .. } | StoreError::Failed { .. } => {
            "; check key \"store_path\" (or etcd's alarms), its permissions and the space left"
        }
        _ => "",
    }
}

/// The error for a refusal or failure of the allocator.
pub fn from_ipam(error: &IpamError) -> Error {
    let code = match error {
        IpamError::NoAddress { refusals, .. } => {
            let limited = |refusal: &Refusal| matches!(refusal, Refusal::BlockLimit { .. });
            if refusals.iter().any(|refusal| limited(&refusal.refusal)) {
                code::LIMIT
            } else {
                code::POOL_EXHAUSTED
            }
        }
        IpamError::NoSuchPool { .. } | IpamError::AddressInNoPool { .. } => code::INVALID_CONFIG,
        IpamError::AddressTaken { .. } | IpamError::ForeignBlock { .. } => code::ADDRESS_OWNED,
        IpamError::UnknownNode { .. } => code::AGENT_UNREACHABLE,
        IpamError::Damaged { .. } => code::IO,
        IpamError::Contention { .. } | IpamError::Uninitialised => code::TRY_AGAIN_LATER,
        IpamError::Store(error) => return from_store(error),
    };
    whole(code, error.to_string())
}

/// An error whose text is in the details too where it is too long for a message.
pub(crate) fn whole(code: u32, text: String) -> Error {
    if text.len() <= MOST_OF_MESSAGE {
        return Error::new(code, text);
    }
    Error::new(code, text.clone()).with_details(text)
}

/// Bytes of a message that are surely shown.
const MOST_OF_MESSAGE: usize = 200;
