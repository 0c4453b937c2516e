//! How resources are shown.

use anyhow::{Context, Result};
use margay_model::Kind;
use margay_resources::Object;
use serde_json::Value;

use crate::cli::Format;
use crate::columns::columns;
use crate::{documents, table, yaml};

/// Resources of one kind to be shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The kind.
    pub kind: Kind,
    /// The resources as JSON.
    pub items: Vec<Value>,
    /// Whether they were asked for as a list, at this revision.
    pub list: Option<String>,
}

/// A resource as JSON, in the order of its fields; without what belongs to one cluster when `export`.
///
/// # Errors
/// The resource has no JSON form.
pub fn value<O: Object>(object: &O, export: bool) -> Result<Value> {
    let bytes = object.encode().context("writing JSON")?;
    let mut value: Value = serde_json::from_slice(&bytes).context("reading JSON")?;
    let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Ok(value);
    };
    if export {
        for field in CLUSTER_FIELDS {
            metadata.shift_remove(field);
        }
    } else if let Some(version) = &object.metadata().resource_version {
        metadata.insert("resourceVersion".to_owned(), Value::from(version.clone()));
    }
    Ok(value)
}

/// What is printed for resources in a format. `spaces` shows the namespace in tables.
///
/// # Errors
/// A value has no form in the format.
pub fn render(shown: &[Shown], format: Format, spaces: bool) -> Result<String> {
    match format {
        Format::Ps => Ok(tables(shown, false, spaces)),
        Format::Wide => Ok(tables(shown, true, spaces)),
        Format::Name => Ok(names(shown)),
        Format::Yaml => {
            let documents: Result<Vec<String>> = values(shown).iter().map(yaml::emit).collect();
            Ok(documents?.join("---\n"))
        }
        Format::Json => {
            let mut values = values(shown);
            let value = match values.len() {
                1 => values.remove(0),
                _ => Value::Array(values),
            };
            let text = serde_json::to_string_pretty(&value).context("writing JSON")?;
            Ok(text + "\n")
        }
    }
}

fn tables(shown: &[Shown], wide: bool, spaces: bool) -> String {
    let tables: Vec<String> = shown
        .iter()
        .map(|shown| {
            let columns = columns(shown.kind, wide, spaces);
            let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
            let row = |item| columns.iter().map(|(_, cell)| cell(item)).collect();
            let rows: Vec<Vec<String>> = shown.items.iter().map(row).collect();
            table::plain(&header, &rows)
        })
        .collect();
    tables.join("\n")
}

fn names(shown: &[Shown]) -> String {
    let mut out = String::new();
    for shown in shown {
        let kind = shown.kind.name().to_ascii_lowercase();
        for item in &shown.items {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            out.push_str(&format!("{kind}/{name}\n"));
        }
    }
    out
}

fn values(shown: &[Shown]) -> Vec<Value> {
    let documents = shown.iter().flat_map(|shown| match &shown.list {
        Some(revision) => vec![documents::list(shown.kind, revision, shown.items.clone())],
        None => shown.items.clone(),
    });
    documents.collect()
}

const CLUSTER_FIELDS: [&str; 5] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "selfLink",
];
