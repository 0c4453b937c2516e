//! The stored form of resources and the form that readers see, which differ in policies' names.

use margay_model::policy_names::{self, NameForm};
use margay_model::resource::cluster::ClusterInformation;
use margay_model::{Key, Kind};
use margay_store::{Entry, Revision, Store};

use super::Client;
use crate::error::{Id, ResourceError};
use crate::object::{Object, Stamps, fields};

impl<S: Store, T: Stamps> Client<'_, S, T> {
    /// The form in which the cluster's components store policies' names, by the version that its
    /// ClusterInformation names; the newest form where it names none.
    ///
    /// # Errors
    /// The store failed, or the ClusterInformation is damaged.
    pub async fn names_of_cluster(&self) -> Result<NameForm, ResourceError> {
        let id = Id::new(Kind::ClusterInformation, None, "default");
        let found = self.find::<ClusterInformation>(&id).await?;
        let fields = found
            .and_then(|found| fields(&found.object).ok())
            .unwrap_or_default();
        let version = fields
            .get("spec")
            .and_then(|spec| spec["calicoVersion"].as_str());
        Ok(match version.and_then(release) {
            Some(release) if release < FIRST_PLAIN => NameForm::Prefixed,
            _ => NameForm::Plain,
        })
    }
}

/// Major and minor number of a version such as `v3.28.1`.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.strip_prefix('v').unwrap_or(version).split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the kind's names have two stored forms.
pub(super) fn is_policy(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::GlobalNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::StagedNetworkPolicy
    )
}

/// The names a resource may be stored under, the preferred first.
pub(super) fn lookups(id: &Id) -> Vec<String> {
    let mut names = vec![id.name.clone()];
    if is_policy(id.kind) {
        let prefixed = NameForm::Prefixed.stored(&id.name);
        if prefixed != id.name {
            names.push(prefixed);
        }
    }
    names
}

/// The name under which a new resource is stored.
pub(super) fn stored_name<O: Object>(form: NameForm, object: &O) -> String {
    let name = &object.metadata().name;
    if is_policy(object.kind()) && tier_of(object) == policy_names::DEFAULT_TIER {
        return form.stored(name);
    }
    name.clone()
}

/// The bytes to store under a name.
pub(super) fn stored_value<O: Object>(
    id: &Id,
    object: &O,
    name: &str,
) -> Result<Vec<u8>, ResourceError> {
    let mut stored = object.clone();
    if is_policy(id.kind) {
        policy_names::annotate(stored.metadata_mut());
        name.clone_into(&mut stored.metadata_mut().name);
    }
    stored.encode().map_err(|error| ResourceError::Damaged {
        key: Box::new(id.key(name)),
        reason: error.to_string(),
    })
}

/// A stored value as readers see it.
pub(super) fn present<O: Object>(kind: Kind, entry: &Entry) -> Result<O, String> {
    let mut object = O::decode(kind, &entry.value)?;
    let tier = is_policy(kind).then(|| tier_of(&object));
    let metadata = object.metadata_mut();
    if let Some(tier) = tier {
        policy_names::present(metadata, &tier);
    }
    metadata.resource_version = Some(entry.revision.to_string());
    Ok(object)
}

pub(super) fn present_value<O: Object>(
    id: &Id,
    key: Key,
    value: Vec<u8>,
    revision: Revision,
) -> Result<O, ResourceError> {
    let entry = Entry {
        key,
        value,
        revision,
        lease: None,
    };
    present(id.kind, &entry).map_err(|reason| ResourceError::Damaged {
        key: Box::new(entry.key),
        reason,
    })
}

/// The tier a policy names, `default` where it names none.
pub(super) fn tier_of<O: Object>(object: &O) -> String {
    fields(object)
        .ok()
        .and_then(|fields| {
            let tier = fields.get("spec")?.get("tier")?.as_str()?;
            (!tier.is_empty()).then(|| tier.to_owned())
        })
        .unwrap_or_else(|| policy_names::DEFAULT_TIER.to_owned())
}

/// The first release that stores policies' names as given.
const FIRST_PLAIN: (u32, u32) = (3, 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("v3.28.1", Some((3, 28))),
            ("3.32.0-0.dev", Some((3, 32))),
            ("v3", None),
            ("master", None),
            ("", None),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
    }
}
