//! Object metadata, the part of Kubernetes' `ObjectMeta` that stored resources use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::json::Extra;
use crate::kind::Kind;
use crate::problem::Problems;
use crate::syntax::{is_dns_label, is_dns_subdomain, is_label_key, is_label_value};

/// Metadata of a resource. Field order is the order of the stored JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Name, unique per kind (and namespace).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Prefix the name was made from (workload endpoints of replicated pods).
    #[serde(
        rename = "generateName",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub generate_name: Option<String>,
    /// Namespace of namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// UUID made by the client on creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The key's modification revision, in decimal. Never stored; filled when an object is shown.
    #[serde(
        rename = "resourceVersion",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub resource_version: Option<String>,
    /// Generation counter, kept as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// RFC 3339, UTC, seconds; `null` in objects of old writers.
    #[serde(rename = "creationTimestamp", default)]
    pub creation_timestamp: Option<String>,
    /// Labels, which selectors match.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub annotations: BTreeMap<String, String>,
    /// Owner references, kept as found.
    #[serde(
        rename = "ownerReferences",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub owner_references: Option<Value>,
    /// Finalizers.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "crate::json::null_is_default"
    )]
    pub finalizers: Vec<String>,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Metadata {
    /// Metadata of a global resource.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Metadata of a namespaced resource.
    pub fn namespaced(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: Some(namespace.into()),
            ..Self::named(name)
        }
    }

    /// Reports what is wrong with metadata of this kind. Paths begin in `metadata`.
    pub(crate) fn validate(&self, kind: Kind, problems: &mut Problems) {
        let name = &self.name;
        problems.require(is_dns_subdomain(name), "name", name, SUBDOMAIN);
        match &self.namespace {
            Some(namespace) if kind.namespaced() => {
                problems.require(is_dns_label(namespace), "namespace", namespace, LABEL);
            }
            Some(namespace) if !namespace.is_empty() => {
                problems.refuse_field("namespace", namespace, format!("none: {kind} is global"));
            }
            None if kind.namespaced() => problems.refuse_field("namespace", "", LABEL),
            _ => {}
        }
        problems.field("labels", |problems| {
            for (key, value) in &self.labels {
                problems.require(is_label_key(key), key, key, LABEL_KEY);
                problems.require(is_label_value(value), key, value, LABEL_VALUE);
            }
        });
        problems.field("annotations", |problems| {
            for key in self.annotations.keys() {
                problems.require(is_label_key(key), key, key, LABEL_KEY);
            }
        });
        let size: usize = self
            .annotations
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum();
        if size > MAX_ANNOTATIONS {
            let allowed = format!("at most {MAX_ANNOTATIONS} bytes in all");
            problems.refuse_field("annotations", format!("{size} bytes"), allowed);
        }
    }
}

/// Most bytes of all annotations together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

const SUBDOMAIN: &str = "at most 253 of a-z, 0-9, - and ., each part between dots beginning and \
                         ending alphanumerically";
const LABEL: &str = "1 to 63 of a-z, 0-9 and -, beginning and ending alphanumerically";
const LABEL_KEY: &str = "a name of at most 63 of A-Z, a-z, 0-9, _, . and -, beginning and ending \
                         alphanumerically, or such a name after a DNS name and /";
const LABEL_VALUE: &str =
    "at most 63 of A-Z, a-z, 0-9, _, . and -, beginning and ending alphanumerically";
