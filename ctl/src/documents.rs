//! Documents that people write: files, folders and standard input.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use margay_model::resource::API_VERSION;
use margay_model::{AnyResource, Kind};
use margay_resources::{Id, Object};
use serde_json::{Value, json};

use crate::yaml;

/// A resource as it stands in a document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Where it stands: `pools.yaml, document 2`.
    pub place: String,
    /// The resource.
    pub resource: AnyResource,
    /// Fields the kind does not know; likely misspelt.
    pub unknown: Vec<String>,
}

impl Document {
    /// What identifies the resource.
    pub fn id(&self) -> Id {
        Id::of(self.resource.kind(), self.resource.metadata())
    }
}

/// Reads the resources of a file, of a folder's files, or of `input` for `-`. Namespaced resources that
/// name no namespace are put into `namespace`.
///
/// # Errors
/// A file cannot be read, or a document is no resource; where it stands and what is wrong.
pub fn load(
    source: &str,
    recursive: bool,
    namespace: &str,
    input: &mut dyn Read,
) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    if source == "-" {
        let mut text = String::new();
        input.read_to_string(&mut text).context("standard input")?;
        read(&text, "standard input", namespace, &mut documents)?;
        return Ok(documents);
    }
    for path in files(Path::new(source), recursive)? {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| name.clone())?;
        read(&text, &name, namespace, &mut documents)?;
    }
    Ok(documents)
}

/// The files meant by a path: itself, or a folder's `.yaml`, `.yml` and `.json` files by name.
fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    let name = || path.display().to_string();
    if !std::fs::metadata(path).with_context(name)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = std::fs::read_dir(path)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .with_context(name)?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, true)?);
            }
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
    Ok(found)
}

fn read(text: &str, name: &str, namespace: &str, documents: &mut Vec<Document>) -> Result<()> {
    let values = yaml::parse(text).with_context(|| name.to_owned())?;
    for (index, value) in values.into_iter().enumerate() {
        let place = format!("{name}, document {}", index + 1);
        expand(value, &place, namespace, documents)?;
    }
    Ok(())
}

/// Adds a resource, or each resource of a list.
fn expand(value: Value, place: &str, namespace: &str, documents: &mut Vec<Document>) -> Result<()> {
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut fields) if is_list(&fields) => match fields.remove("items") {
            Some(Value::Array(items)) => items,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => bail!("{place}: items is no list"),
        },
        value => {
            documents.push(document(value, place.to_owned(), namespace)?);
            return Ok(());
        }
    };
    for (index, item) in items.into_iter().enumerate() {
        expand(
            item,
            &format!("{place}, item {}", index + 1),
            namespace,
            documents,
        )?;
    }
    Ok(())
}

fn is_list(fields: &serde_json::Map<String, Value>) -> bool {
    fields
        .get("kind")
        .and_then(Value::as_str)
        .is_some_and(|kind| kind.ends_with("List"))
}

fn document(value: Value, place: String, namespace: &str) -> Result<Document> {
    let Some(fields) = value.as_object() else {
        bail!("{place}: a resource with apiVersion, kind, metadata and spec is expected");
    };
    let text = |field: &str| {
        fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let Some(kind) = Kind::from_name(text("kind")) else {
        let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
        bail!(
            "{place}: kind is {:?}; allowed are {}",
            text("kind"),
            names.join(", ")
        );
    };
    if text("apiVersion") != API_VERSION {
        let found = text("apiVersion");
        bail!("{place}, {kind}: apiVersion is {found:?}; allowed is {API_VERSION:?}");
    }
    let name = value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let label = format!("{place}, {kind} {name:?}");
    let bytes = serde_json::to_vec(&value).with_context(|| label.clone())?;
    let mut resource = match <AnyResource as Object>::decode(kind, &bytes) {
        Ok(resource) => resource,
        Err(reason) => bail!("{label}: {reason}"),
    };
    let metadata = resource.metadata_mut();
    if kind.namespaced() && metadata.namespace.as_deref().is_none_or(str::is_empty) {
        metadata.namespace = Some(namespace.to_owned());
    }
    let unknown = margay_resources::object::unknown_fields(&resource);
    Ok(Document {
        place,
        resource,
        unknown,
    })
}

/// A list of resources as one document.
pub fn list(kind: Kind, revision: &str, items: Vec<Value>) -> Value {
    json!({
        "kind": format!("{kind}List"),
        "apiVersion": API_VERSION,
        "metadata": {"resourceVersion": revision},
        "items": items,
    })
}
