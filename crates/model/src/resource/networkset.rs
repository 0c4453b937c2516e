//! Sets of networks that selectors can match.

use super::{Resource, Spec};
use crate::kind::Kind;

/// Networks outside namespaces, matched by their labels.
pub type GlobalNetworkSet = Resource<GlobalNetworkSetSpec>;

/// Networks that belong to a namespace, matched by their labels.
pub type NetworkSet = Resource<NetworkSetSpec>;

object! {
    /// Specification of a [`GlobalNetworkSet`].
    pub struct GlobalNetworkSetSpec {
        /// Prefixes or addresses of either family.
        "nets" => pub nets: Vec<String>,
    }
}

object! {
    /// Specification of a [`NetworkSet`].
    pub struct NetworkSetSpec {
        /// Prefixes or addresses of either family.
        "nets" => pub nets: Vec<String>,
    }
}

impl Spec for GlobalNetworkSetSpec {
    const KIND: Kind = Kind::GlobalNetworkSet;
}

impl Spec for NetworkSetSpec {
    const KIND: Kind = Kind::NetworkSet;
}
