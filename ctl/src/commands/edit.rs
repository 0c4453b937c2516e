//! `patch` and `label`.

use anyhow::{Result, anyhow, bail};
use margay_model::{AnyResource, Kind};
use margay_resources::{Client, Id, Object, ResourceError};
use margay_store::Store;
use serde_json::{Map, Value};

use super::Streams;
use crate::cli::{Label, Patch};
use crate::stamps::SystemStamps;
use crate::{output, yaml};

/// Merges a change into a resource.
pub(super) async fn patch<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    patch: &Patch,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let mut changes = yaml::parse(&patch.patch)?;
    if changes.len() != 1 || !changes[0].is_object() {
        bail!("the patch must be one object, such as {{\"spec\":{{\"disabled\":true}}}}");
    }
    let change = changes.remove(0);
    if change.pointer("/metadata/name").is_some() || change.get("kind").is_some() {
        bail!("a patch cannot change kind and metadata.name");
    }
    let id = id_of(patch.kind, &patch.namespace, &patch.name);
    edit(client, &id, |value| {
        merge(value, &change);
        Ok(())
    })
    .await?;
    streams.say(&format!("Successfully patched 1 '{}' resource\n", id.kind))
}

/// Sets or removes a label.
pub(super) async fn label<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    label: &Label,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let id = id_of(label.kind, &label.namespace, &label.name);
    if label.remove {
        edit(client, &id, |value| {
            let labels = value
                .pointer_mut("/metadata/labels")
                .and_then(Value::as_object_mut);
            match labels.and_then(|labels| labels.shift_remove(&label.label)) {
                Some(_) => Ok(()),
                None => bail!("{id} has no label {:?}", label.label),
            }
        })
        .await?;
        let text = format!(
            "Successfully removed label {} from {} {}.\n",
            label.label, id.kind, id.name
        );
        return streams.say(&text);
    }
    let (key, wanted) = label.label.split_once('=').ok_or_else(|| {
        anyhow!(
            "{:?} is no key=value; to remove a label add --remove",
            label.label
        )
    })?;
    edit(client, &id, |value| {
        let metadata = &mut value["metadata"];
        if let Some(found) = metadata["labels"].get(key).and_then(Value::as_str)
            && found != wanted
            && !label.overwrite
        {
            bail!("{id} has label {key}={found}; to change it add --overwrite");
        }
        if !metadata["labels"].is_object() {
            metadata["labels"] = Value::Object(Map::new());
        }
        metadata["labels"][key] = Value::from(wanted);
        Ok(())
    })
    .await?;
    streams.say(&format!(
        "Successfully set label {key} on {} {}.\n",
        id.kind, id.name
    ))
}

fn id_of(kind: Kind, namespace: &str, name: &str) -> Id {
    Id::new(kind, kind.namespaced().then_some(namespace), name)
}

/// Reads, changes and replaces a resource, again when somebody else changed it meanwhile.
async fn edit<S: Store>(
    client: &Client<'_, S, SystemStamps>,
    id: &Id,
    change: impl Fn(&mut Value) -> Result<()>,
) -> Result<()> {
    let mut attempts = 0;
    loop {
        let object: AnyResource = client
            .get(id.kind, id.namespace.as_deref(), &id.name)
            .await?;
        let mut value = output::value(&object, false)?;
        change(&mut value)?;
        let bytes = serde_json::to_vec(&value)?;
        let changed = <AnyResource as Object>::decode(id.kind, &bytes)
            .map_err(|reason| anyhow!("{id}: {reason}"))?;
        attempts += 1;
        match client.replace(changed).await {
            Ok(_) => return Ok(()),
            Err(ResourceError::UpdateConflict { .. }) if attempts < MOST_ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// JSON Merge Patch, RFC 7386 section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else {
        return;
    };
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

const MOST_ATTEMPTS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merging() {
        for (target, patch, result) in [
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null, "d": 3}}),
                json!({"a": {"c": 2, "d": 3}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (
                json!({"a": "x"}),
                json!({"a": {"b": null, "c": 1}}),
                json!({"a": {"c": 1}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, result, "{target} with {patch}");
        }
    }
}
