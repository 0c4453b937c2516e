//! What the operations need to know of a resource, be its kind known when compiling or not.

use std::fmt::Debug;

use margay_model::json::Extra;
use margay_model::time::Timestamp;
use margay_model::{AnyResource, DecodeError, Kind, Metadata, Problems, Resource, Spec};
use serde_json::{Map, Value, json};

/// Where times and UIDs come from.
pub trait Stamps: Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;

    /// Sixteen random bytes, other ones at every call.
    fn random(&self) -> [u8; 16];
}

/// A resource: a typed [`Resource`], or one of any kind.
pub trait Object: Clone + Debug + Send + Sync {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Its metadata.
    fn metadata(&self) -> &Metadata;

    /// Its metadata, to be changed.
    fn metadata_mut(&mut self) -> &mut Metadata;

    /// Reads a stored value of this kind.
    ///
    /// # Errors
    /// The value is no resource of this kind; what is wrong.
    fn decode(kind: Kind, value: &[u8]) -> Result<Self, String>;

    /// The value to store.
    ///
    /// # Errors
    /// Only for extra fields that have no JSON form.
    fn encode(&self) -> Result<Vec<u8>, serde_json::Error>;

    /// Fills what is left out.
    fn set_defaults(&mut self);

    /// Checks every field.
    ///
    /// # Errors
    /// What is wrong.
    fn validate(&self) -> Result<(), Problems>;

    /// Checks that nothing fixed differs from the stored object.
    ///
    /// # Errors
    /// What is wrong.
    fn validate_update(&self, stored: &Self) -> Result<(), Problems>;
}

impl<S: Spec + Send + Sync> Object for Resource<S> {
    fn kind(&self) -> Kind {
        S::KIND
    }

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    fn decode(kind: Kind, value: &[u8]) -> Result<Self, String> {
        if kind != S::KIND {
            return Err(format!("it is a {kind} where {} is expected", S::KIND));
        }
        Self::decode(value).map_err(|error| error.to_string())
    }

    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.encode()
    }

    fn set_defaults(&mut self) {
        self.set_defaults();
    }

    fn validate(&self) -> Result<(), Problems> {
        self.validate()
    }

    fn validate_update(&self, stored: &Self) -> Result<(), Problems> {
        self.validate_update(stored)
    }
}

impl Object for AnyResource {
    fn kind(&self) -> Kind {
        self.kind()
    }

    fn metadata(&self) -> &Metadata {
        self.metadata()
    }

    fn metadata_mut(&mut self) -> &mut Metadata {
        self.metadata_mut()
    }

    fn decode(kind: Kind, value: &[u8]) -> Result<Self, String> {
        Self::decode(kind, value).map_err(|error| match error {
            DecodeError::Invalid { source, .. } => source.to_string(),
            other => other.to_string(),
        })
    }

    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        self.encode()
    }

    fn set_defaults(&mut self) {
        self.set_defaults();
    }

    fn validate(&self) -> Result<(), Problems> {
        self.validate()
    }

    fn validate_update(&self, stored: &Self) -> Result<(), Problems> {
        self.validate_update(stored)
    }
}

/// The stored form as a JSON object.
pub(crate) fn fields<O: Object>(object: &O) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_slice(&object.encode()?)
}

/// Fields of the top level and the specification that the kind does not know; likely misspelt.
pub fn unknown_fields<O: Object>(object: &O) -> Vec<String> {
    let fields = fields(object).unwrap_or_default();
    let known = ["kind", "apiVersion", "metadata", "spec", "status"];
    let top = fields
        .keys()
        .filter(|name| !known.contains(&name.as_str()))
        .cloned();
    let spec = fields.get("spec").and_then(Value::as_object);
    let inner = spec.into_iter().flat_map(|spec| spec.keys());
    let inner = inner.filter(|name| !knows::<O>(object.kind(), name));
    top.chain(inner.map(|name| format!("spec.{name}")))
        .collect()
}

/// Takes over from the stored object what a document leaves out because its author does not know of it:
/// unknown fields, the status, and the metadata that programs keep.
pub(crate) fn keep_foreign<O: Object>(new: &O, stored: &O) -> Result<O, String> {
    let kind = new.kind();
    let text = |error: serde_json::Error| error.to_string();
    let mut merged = fields(new).map_err(text)?;
    let mut old = fields(stored).map_err(text)?;
    let had_status = merged
        .get("status")
        .is_some_and(|status| *status != json!({}));
    if let Some(Value::Object(old_spec)) = old.remove("spec")
        && let Some(Value::Object(spec)) = merged.get_mut("spec")
    {
        for (name, value) in old_spec {
            if !spec.contains_key(&name) && !knows::<O>(kind, &name) {
                spec.insert(name, value);
            }
        }
    }
    for (name, value) in old {
        if !merged.contains_key(&name) || (name == "status" && !had_status) {
            merged.insert(name, value);
        }
    }
    let bytes = serde_json::to_vec(&merged).map_err(text)?;
    let mut object = O::decode(kind, &bytes)?;
    let (metadata, old) = (object.metadata_mut(), stored.metadata());
    keep_extra(&mut metadata.extra, &old.extra);
    if metadata.finalizers.is_empty() {
        metadata.finalizers.clone_from(&old.finalizers);
    }
    if metadata.owner_references.is_none() {
        metadata.owner_references.clone_from(&old.owner_references);
    }
    metadata.generation = metadata.generation.or(old.generation);
    Ok(object)
}

fn keep_extra(extra: &mut Extra, old: &Extra) {
    for (name, value) in old {
        if !extra.contains_key(name) {
            extra.insert(name.clone(), value.clone());
        }
    }
}

/// Whether the kind's specification has a field of this name: it reads `null` there as "left out", while
/// an unknown field is written back as it was found.
fn knows<O: Object>(kind: Kind, field: &str) -> bool {
    let probe = json!({"kind": kind.name(), "metadata": {"name": "probe"}, "spec": {field: null}});
    O::decode(kind, probe.to_string().as_bytes())
        .ok()
        .and_then(|object| fields(&object).ok())
        .is_none_or(|written| written["spec"].get(field) != Some(&Value::Null))
}
