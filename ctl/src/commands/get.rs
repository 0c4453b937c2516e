//! `get`.

use anyhow::{Result, bail};
use margay_model::{AnyResource, Kind};
use margay_resources::{Client, Id, ResourceError};
use margay_store::Store;

use super::Streams;
use crate::cli::Get;
use crate::documents;
use crate::output::{self, Shown};
use crate::stamps::SystemStamps;

/// Shows resources; missing ones are reported after those that were found.
pub(super) async fn get<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    get: &Get,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let mut missing = Vec::new();
    let shown = match get.kind {
        Some(kind) if get.names.is_empty() => vec![list(client, get, kind, streams).await?],
        _ => {
            let ids = targets(get, streams)?;
            named(client, get, &ids, &mut missing).await?
        }
    };
    if !shown.is_empty() {
        let text = output::render(&shown, get.output, get.all_namespaces)?;
        streams.say(&text)?;
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("\n"));
    }
    Ok(())
}

async fn list<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    get: &Get,
    kind: Kind,
    streams: &mut Streams<'_>,
) -> Result<Shown> {
    let namespace = (!get.all_namespaces).then_some(get.namespace.as_str());
    let listing = client.list::<AnyResource>(kind, namespace).await?;
    for (key, reason) in &listing.unreadable {
        streams.warn(&format!("{key} cannot be read: {reason}"))?;
    }
    let items = listing
        .items
        .iter()
        .map(|object| output::value(object, get.export));
    Ok(Shown {
        kind,
        items: items.collect::<Result<_>>()?,
        list: Some(listing.revision.to_string()),
    })
}

async fn named<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    get: &Get,
    ids: &[Id],
    missing: &mut Vec<String>,
) -> Result<Vec<Shown>> {
    let mut shown: Vec<Shown> = Vec::new();
    for id in ids {
        let found = client
            .get::<AnyResource>(id.kind, id.namespace.as_deref(), &id.name)
            .await;
        let object = match found {
            Ok(object) => object,
            Err(error @ ResourceError::DoesNotExist { .. }) => {
                missing.push(error.to_string());
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let value = output::value(&object, get.export)?;
        match shown.last_mut() {
            Some(last) if last.kind == id.kind => last.items.push(value),
            _ => shown.push(Shown {
                kind: id.kind,
                items: vec![value],
                list: None,
            }),
        }
    }
    Ok(shown)
}

fn targets(get: &Get, streams: &mut Streams<'_>) -> Result<Vec<Id>> {
    if let Some(kind) = get.kind {
        if get.all_namespaces {
            bail!("names and --all-namespaces exclude each other");
        }
        let namespace = kind.namespaced().then_some(get.namespace.as_str());
        let names = get.names.iter();
        return Ok(names.map(|name| Id::new(kind, namespace, name)).collect());
    }
    let source = get.filename.as_deref().unwrap_or_default();
    let documents = documents::load(source, get.recursive, &get.namespace, streams.input)?;
    Ok(documents.iter().map(documents::Document::id).collect())
}
