//! Profiles.

use std::collections::BTreeMap;

use super::rule::Rule;
use super::rule::check::{Place, rules};
use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::scalar::Action;
use crate::syntax::{is_label_key, is_label_value};

/// Rules and labels that endpoints inherit by naming the profile.
pub type Profile = Resource<ProfileSpec>;

object! {
    /// Specification of a [`Profile`].
    pub struct ProfileSpec {
        /// Rules for traffic to the endpoint.
        "ingress" => pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        "egress" => pub egress: Vec<Rule>,
        /// Labels that every endpoint of the profile inherits.
        "labelsToApply" => pub labels_to_apply: BTreeMap<String, String>,
    }
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
