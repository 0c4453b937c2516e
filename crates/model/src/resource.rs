//! The frame that all resources of the v3 API share.

pub mod affinity;
mod any;
pub mod bgp;
pub mod cluster;
pub mod config;
pub mod endpoint;
pub mod hostendpoint;
pub mod migration;
pub mod networkset;
pub mod policy;
pub mod pool;
pub mod profile;
pub mod rule;
pub mod status;

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::json::Extra;
use crate::key::Key;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

pub use any::{AnyResource, DecodeError};

/// The `apiVersion` of every resource.
pub const API_VERSION: &str = "projectcalico.org/v3";

/// What distinguishes one kind's resources from another's.
pub trait Spec: Serialize + DeserializeOwned + Clone + Debug + Default + PartialEq {
    /// The kind.
    const KIND: Kind;

    /// Fills what is left out, and brings what is given into the form that is stored.
    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        let _ = (metadata, spec);
    }

    /// Reports what is wrong with the name, beyond the rules for all kinds. Paths begin in `metadata`.
    fn validate_name(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let _ = (metadata, spec, problems);
    }

    /// Reports what is wrong with the specification. Paths begin in `spec`.
    fn validate(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let _ = (metadata, spec, problems);
    }

    /// Reports what must not change from `old` to `new`. Paths begin in `spec`.
    fn validate_update(old: &Self, new: &Self, problems: &mut Problems) {
        let _ = (old, new, problems);
    }
}

/// A resource: metadata, a specification and, for some kinds, a status.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource<S> {
    /// Name, namespace, labels and the like.
    pub metadata: Metadata,
    /// The specification.
    pub spec: S,
    /// The status as found; kinds that always carry one are written with `{}`.
    pub status: Option<Map<String, Value>>,
    /// Top-level fields of other writers.
    pub extra: Extra,
}

impl<S: Spec> Resource<S> {
    /// A resource with this metadata and specification.
    pub fn new(metadata: Metadata, spec: S) -> Self {
        Self {
            metadata,
            spec,
            status: None,
            extra: Extra::new(),
        }
    }

    /// The key it is stored under.
    pub fn key(&self) -> Key {
        Key::Resource {
            kind: S::KIND,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// Fills what is left out, and brings what is given into the form that is stored.
    pub fn set_defaults(&mut self) {
        S::set_defaults(&mut self.metadata, &mut self.spec);
    }

    /// Checks every field.
    ///
    /// # Errors
    /// What is wrong, all of it.
    pub fn validate(&self) -> Result<(), Problems> {
        let mut problems = Problems::new();
        problems.field("metadata", |problems| {
            self.metadata.validate(S::KIND, problems);
            S::validate_name(&self.metadata, &self.spec, problems);
        });
        problems.field("spec", |problems| {
            S::validate(&self.metadata, &self.spec, problems);
        });
        problems.into_result()
    }

    /// Checks that nothing differs from the stored object that must not.
    ///
    /// # Errors
    /// What differs, all of it.
    pub fn validate_update(&self, stored: &Self) -> Result<(), Problems> {
        let mut problems = Problems::new();
        problems.field("metadata", |problems| {
            problems.unchanged("name", &stored.metadata.name, &self.metadata.name);
            problems.unchanged(
                "namespace",
                &stored.metadata.namespace,
                &self.metadata.namespace,
            );
        });
        problems.field("spec", |problems| {
            S::validate_update(&stored.spec, &self.spec, problems);
        });
        problems.into_result()
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// The value is not JSON, or not an object of this kind.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// The value to store: compact JSON in Calico's field order, without the revision.
    ///
    /// # Errors
    /// Only for extra fields that have no JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        if self.metadata.resource_version.is_none() {
            return crate::json::encode(self);
        }
        let mut stored = self.clone();
        stored.metadata.resource_version = None;
        crate::json::encode(&stored)
    }
}

impl<S: Spec> Serialize for Resource<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("kind", S::KIND.name())?;
        map.serialize_entry("apiVersion", API_VERSION)?;
        map.serialize_entry("metadata", &self.metadata)?;
        map.serialize_entry("spec", &self.spec)?;
        match &self.status {
            Some(status) => map.serialize_entry("status", status)?,
            None if S::KIND.always_has_status() => map.serialize_entry("status", &Map::new())?,
            None => {}
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de, S: Spec> Deserialize<'de> for Resource<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(bound = "S: Spec")]
        struct Frame<S> {
            kind: Option<String>,
            #[serde(rename = "apiVersion")]
            _api_version: Option<String>,
            #[serde(default)]
            metadata: Metadata,
            #[serde(default, deserialize_with = "crate::json::null_is_default")]
            spec: S,
            #[serde(default)]
            status: Option<Map<String, Value>>,
            #[serde(flatten)]
            extra: Extra,
        }
        let frame = Frame::<S>::deserialize(deserializer)?;
        if let Some(kind) = frame.kind.filter(|kind| kind != S::KIND.name()) {
            return Err(serde::de::Error::custom(format!(
                "kind is {kind:?} where {:?} is expected",
                S::KIND.name()
            )));
        }
        Ok(Self {
            metadata: frame.metadata,
            spec: frame.spec,
            status: frame.status,
            extra: frame.extra,
        })
    }
}

/// Requires the one name that kinds with a single object have.
pub(crate) fn only_default(metadata: &Metadata, problems: &mut Problems) {
    let name = &metadata.name;
    problems.require(name == "default", "name", name, "default");
}
