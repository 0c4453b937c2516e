//! Profiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::rule::check::{Place, rules};
use super::{Resource, Spec};
use crate::json::Extra;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::scalar::Action;
use crate::syntax::{is_label_key, is_label_value};

/// Rules and labels that endpoints inherit by naming the profile.
pub type Profile = Resource<ProfileSpec>;

/// Specification of a [`Profile`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSpec {
    /// Rules for traffic to the endpoint.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub ingress: Vec<Rule>,
    /// Rules for traffic from the endpoint.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub egress: Vec<Rule>,
    /// Labels that every endpoint of the profile inherits.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub labels_to_apply: BTreeMap<String, String>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Spec for ProfileSpec {
    const KIND: Kind = Kind::Profile;

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        let name = &metadata.name;
        let allowed = "another name: this profile always exists and cannot be changed";
        problems.require(name != DEFAULT_ALLOW, "name", name, allowed);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        rules(&spec.ingress, &spec.egress, Place::Profile, problems);
        problems.field("labelsToApply", |problems| {
            for (key, value) in &spec.labels_to_apply {
                problems.require(is_label_key(key), key, key, "a label key");
                problems.require(is_label_value(value), key, value, "a label value");
            }
        });
    }
}

/// Name of the profile that allows everything. It exists without being stored.
pub const DEFAULT_ALLOW: &str = "projectcalico-default-allow";

/// The profile that allows everything, as readers see it.
pub fn default_allow() -> Profile {
    let mut profile = Profile::new(
        Metadata::named(DEFAULT_ALLOW),
        ProfileSpec {
            ingress: vec![Rule::of(Action::Allow)],
            egress: vec![Rule::of(Action::Allow)],
            ..ProfileSpec::default()
        },
    );
    profile.metadata.resource_version = Some("1".to_owned());
    profile
}
