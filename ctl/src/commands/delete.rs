//! `delete`.

use anyhow::{Result, bail};
use margay_resources::{Client, Id, ResourceError};
use margay_store::Store;

use super::Streams;
use super::write::{Kinds, Verb, report};
use crate::cli::Delete;
use crate::documents;
use crate::stamps::SystemStamps;

/// Deletes resources one after the other. One that fails does not keep the others back, unless the store
/// itself fails.
pub(super) async fn delete<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    delete: &Delete,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let (kinds, ids) = targets(delete, streams)?;
    if ids.is_empty() {
        if delete.skip_empty {
            return Ok(());
        }
        bail!("No resources specified");
    }
    let mut failures = Vec::new();
    for id in &ids {
        let deleted = client
            .delete(id.kind, id.namespace.as_deref(), &id.name, None)
            .await;
        match deleted {
            Ok(deleted) => {
                for note in deleted.notes {
                    streams.warn(&format!("{id}: {note}"))?;
                }
            }
            Err(ResourceError::DoesNotExist { .. }) if delete.skip_not_exists => {}
            Err(error @ ResourceError::Store { .. }) => return Err(error.into()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    report(Verb::Delete, &kinds, ids.len(), &failures, streams)
}

fn targets(delete: &Delete, streams: &mut Streams<'_>) -> Result<(Kinds, Vec<Id>)> {
    if let Some(kind) = delete.kind {
        let namespace = kind.namespaced().then_some(delete.namespace.as_str());
        let names = delete.names.iter();
        let ids = names.map(|name| Id::new(kind, namespace, name)).collect();
        return Ok((Kinds::one(kind), ids));
    }
    let source = delete.filename.as_deref().unwrap_or_default();
    let documents = documents::load(source, delete.recursive, &delete.namespace, streams.input)?;
    let ids = documents.iter().map(documents::Document::id).collect();
    Ok((Kinds::of(&documents), ids))
}
