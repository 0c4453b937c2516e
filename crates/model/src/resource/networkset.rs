//! Sets of networks that selectors can match.

use super::endpoint::NAMESPACE_LABEL;
use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

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

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        no_namespace_label(metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        nets(&spec.nets, problems);
    }
}

impl Spec for NetworkSetSpec {
    const KIND: Kind = Kind::NetworkSet;

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        no_namespace_label(metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        nets(&spec.nets, problems);
    }
}

fn no_namespace_label(metadata: &Metadata, problems: &mut Problems) {
    if let Some(value) = metadata.labels.get(NAMESPACE_LABEL) {
        problems.field("labels", |problems| {
            problems.refuse_field(NAMESPACE_LABEL, value, "no label of this key");
        });
    }
}

fn nets(nets: &[String], problems: &mut Problems) {
    problems.items("nets", nets, |problems, net| {
        problems.cidr_here(net);
    });
}
