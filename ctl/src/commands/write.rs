//! `create`, `apply`, `replace` and `validate`.

use anyhow::{Result, bail};
use margay_model::AnyResource;
use margay_resources::{Client, ResourceError};
use margay_store::Store;

use super::{Streams, warn_unknown};
use crate::cli::{Source, Write};
use crate::documents::{self, Document};
use crate::stamps::SystemStamps;

/// What is done with documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Existing resources are refused.
    Create,
    /// Existing resources are updated.
    Apply,
    /// Missing resources are refused.
    Replace,
    /// Resources are deleted.
    Delete,
}

impl Verb {
    fn infinitive(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }

    fn participle(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Apply => "applied",
            Self::Replace => "replaced",
            Self::Delete => "deleted",
        }
    }
}

/// Writes the documents one after the other. One that fails does not keep the others back, unless the
/// store itself fails.
pub(super) async fn write<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    verb: Verb,
    write: &Write,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let documents = load(&write.source, streams)?;
    if documents.is_empty() {
        return Ok(());
    }
    if verb != Verb::Replace {
        client.ensure_initialized().await?;
    }
    let mut failures = Vec::new();
    for document in &documents {
        warn_unknown(document, streams)?;
        match one(client, verb, document).await {
            Ok(()) => {}
            Err(ResourceError::AlreadyExists { .. }) if write.skip_exists => {}
            Err(error @ ResourceError::Store { .. }) => bail!("{}: {error}", document.place),
            Err(error) => failures.push(format!("{}: {error}", document.place)),
        }
    }
    report(
        verb,
        &Kinds::of(&documents),
        documents.len(),
        &failures,
        streams,
    )
}

async fn one<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    verb: Verb,
    document: &Document,
) -> Result<(), ResourceError> {
    let mut resource: AnyResource = document.resource.clone();
    match verb {
        Verb::Create => {
            let metadata = resource.metadata_mut();
            metadata.resource_version = None;
            metadata.uid = None;
            metadata.creation_timestamp = None;
            client.create(resource).await.map(drop)
        }
        Verb::Replace if resource.metadata().resource_version.is_some() => {
            client.replace(resource).await.map(drop)
        }
        Verb::Replace => client.overwrite(resource).await.map(drop),
        Verb::Apply | Verb::Delete => client.apply(resource).await.map(drop),
    }
}

/// The kinds of a set of resources, as messages name them.
pub(super) struct Kinds {
    single: Option<&'static str>,
}

impl Kinds {
    pub(super) fn of(documents: &[Document]) -> Self {
        let mut kinds = documents.iter().map(|document| document.resource.kind());
        let first = kinds.next();
        let single = first.filter(|first| kinds.all(|kind| kind == *first));
        Self {
            single: single.map(margay_model::Kind::name),
        }
    }

    pub(super) fn one(kind: margay_model::Kind) -> Self {
        Self {
            single: Some(kind.name()),
        }
    }

    fn with_space(&self) -> String {
        self.single
            .map(|kind| format!("'{kind}' "))
            .unwrap_or_default()
    }
}

/// Says what was done with `of` resources; an error when some failed.
pub(super) fn report(
    verb: Verb,
    kinds: &Kinds,
    of: usize,
    failures: &[String],
    streams: &mut Streams<'_>,
) -> Result<()> {
    let (kind, did) = (kinds.with_space(), verb.participle());
    let done = of.saturating_sub(failures.len());
    if failures.is_empty() {
        return streams.say(&format!("Successfully {did} {done} {kind}resource(s)\n"));
    }
    let failures = failures.join("\n");
    if done > 0 {
        streams.say(&format!(
            "Partial success: {did} {done} out of {of} {kind}resources\n"
        ))?;
        bail!("Hit error: {failures}");
    }
    let (any, s) = if of == 1 { ("", "") } else { ("any ", "s") };
    bail!(
        "Failed to {} {any}{kind}resource{s}: {failures}",
        verb.infinitive()
    );
}

/// Completes and checks the documents, and reports every one that is wrong.
pub(super) fn validate(source: &Source, streams: &mut Streams<'_>) -> Result<()> {
    let documents = load(source, streams)?;
    let mut wrong = 0;
    for document in &documents {
        warn_unknown(document, streams)?;
        let mut resource = document.resource.clone();
        resource.set_defaults();
        if let Err(problems) = resource.validate() {
            wrong += 1;
            for problem in problems.list() {
                let (place, id) = (&document.place, document.id());
                streams.say(&format!("{place}, {id}: {problem}\n"))?;
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} of {} resource(s) are invalid", documents.len());
    }
    let kinds = Kinds::of(&documents);
    let (count, kind) = (documents.len(), kinds.with_space());
    streams.say(&format!(
        "Successfully validated {count} {kind}resource(s)\n"
    ))
}

fn load(source: &Source, streams: &mut Streams<'_>) -> Result<Vec<Document>> {
    let name = source.filename.as_deref().unwrap_or_default();
    let documents = documents::load(name, source.recursive, &source.namespace, streams.input)?;
    if documents.is_empty() && !source.skip_empty {
        bail!("No resources specified in {name:?}");
    }
    Ok(documents)
}
