//! Profiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::rule::Rule;
use super::{Resource, Spec};
use crate::json::Extra;
use crate::kind::Kind;

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
}
