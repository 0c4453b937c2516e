//! Operations on resources over a store.

pub mod delete;
mod forms;
mod initialize;
mod rules;

use margay_model::policy_names::NameForm;
use margay_model::{Key, Kind, Metadata, Prefix, uid};
use margay_store::{Batch, Entry, Outcome, Read, Revision, Store, Write};

use self::forms::{lookups, present, present_value, stored_name, stored_value};
use crate::error::{Id, ResourceError};
use crate::object::{Object, Stamps, keep_foreign};

/// Reads and writes resources.
#[derive(Debug)]
pub struct Client<'s, S, T> {
    store: &'s S,
    stamps: T,
    names: NameForm,
}

/// Resources of a kind, ordered by namespace and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing<O> {
    /// The revision of the store they were read at.
    pub revision: Revision,
    /// The resources.
    pub items: Vec<O>,
    /// Objects that could not be read, and why; Calico's clients pass over them in silence.
    pub unreadable: Vec<(Key, String)>,
}

/// The outcome of an [`Client::apply`].
#[derive(Clone, Debug, PartialEq)]
pub struct Applied<O> {
    /// The resource as it is stored now.
    pub object: O,
    /// What was done.
    pub effect: Effect,
}

/// What an operation did to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It did not exist.
    Created,
    /// It was written anew.
    Updated,
    /// It was as wanted; nothing was written.
    Unchanged,
}

/// A resource with the place it was read from.
#[derive(Clone, Debug)]
struct Stored<O> {
    object: O,
    entry: Entry,
}

impl<'s, S: Store, T: Stamps> Client<'s, S, T> {
    /// A client of this store.
    pub fn new(store: &'s S, stamps: T) -> Self {
        Self {
            store,
            stamps,
            names: NameForm::default(),
        }
    }

    /// The same client, storing new policies under names of this form. Both forms are read.
    #[must_use]
    pub fn with_names(self, names: NameForm) -> Self {
        Self { names, ..self }
    }

    /// Reads a resource, its `metadata.resourceVersion` filled.
    ///
    /// # Errors
    /// [`ResourceError::DoesNotExist`], [`ResourceError::Damaged`], or the store failed.
    pub async fn get<O: Object>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<O, ResourceError> {
        let id = Id::new(kind, namespace, name);
        if is_builtin(&id) {
            return builtin_profile();
        }
        let stored = self.find(&id).await?.ok_or_else(|| id.missing())?;
        Ok(stored.object)
    }

    /// Reads all resources of a kind, of one namespace or of all.
    ///
    /// # Errors
    /// The store failed.
    pub async fn list<O: Object>(
        &self,
        kind: Kind,
        namespace: Option<&str>,
    ) -> Result<Listing<O>, ResourceError> {
        let prefix = match namespace.filter(|_| kind.namespaced()) {
            Some(namespace) => Prefix::Namespace(kind, namespace.to_owned()),
            None => Prefix::Resources(kind),
        };
        let id = Id::new(kind, namespace, "");
        let page = self.store.list(&prefix).await.map_err(id.store())?;
        let mut listing = Listing {
            revision: page.revision,
            items: Vec::new(),
            unreadable: Vec::new(),
        };
        let mut found = Vec::new();
        for entry in page.entries {
            match present::<O>(kind, &entry) {
                Ok(object) => {
                    let id = Id::of(kind, object.metadata());
                    let other_form = entry.key != id.key(&id.name);
                    found.push((id, other_form, object));
                }
                Err(reason) => listing.unreadable.push((entry.key, reason)),
            }
        }
        if kind == Kind::Profile {
            found.push((
                Id::new(kind, None, BUILTIN_PROFILE),
                false,
                builtin_profile()?,
            ));
        }
        // A policy stored under both forms of its name is one policy.
        found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        found.dedup_by(|a, b| a.0 == b.0);
        listing.items = found.into_iter().map(|(_, _, object)| object).collect();
        Ok(listing)
    }

    /// Stores a new resource and gives it back as stored, revision filled.
    ///
    /// # Errors
    /// [`ResourceError::AlreadyExists`], [`ResourceError::Invalid`], [`ResourceError::Refused`], or the
    /// store failed.
    pub async fn create<O: Object>(&self, object: O) -> Result<O, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        if object.metadata().resource_version.is_some() {
            let reason = "metadata.resourceVersion must not be given for a new resource";
            return Err(id.refused(CREATE, reason));
        }
        check_place(&id, CREATE)?;
        if id.kind == Kind::ClusterInformation {
            return Err(id.refused(CREATE, "it is made when the datastore is initialised"));
        }
        for _ in 0..MOST_ATTEMPTS {
            if let Some(found) = self.find::<O>(&id).await? {
                let id = Id::of(id.kind, found.object.metadata());
                return Err(ResourceError::AlreadyExists { id });
            }
            if let Some(created) = self.try_create(object.clone()).await? {
                return Ok(created);
            }
        }
        Err(id.conflict())
    }

    /// Replaces a resource that was read at its `metadata.resourceVersion`.
    ///
    /// # Errors
    /// [`ResourceError::UpdateConflict`] when it was changed since, [`ResourceError::DoesNotExist`],
    /// [`ResourceError::Invalid`], [`ResourceError::Refused`], or the store failed.
    pub async fn replace<O: Object>(&self, object: O) -> Result<O, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        check_place(&id, UPDATE)?;
        let Some(version) = &object.metadata().resource_version else {
            let reason = "metadata.resourceVersion must be that of the resource as it was read";
            return Err(id.refused(UPDATE, reason));
        };
        let read_at = version.parse().map(Revision).map_err(|_| {
            let reason = format!("metadata.resourceVersion {version:?} is not a number");
            id.refused(UPDATE, reason)
        })?;
        for _ in 0..MOST_ATTEMPTS {
            let stored = self.find::<O>(&id).await?.ok_or_else(|| id.missing())?;
            let (ours, theirs) = (&object.metadata().uid, &stored.object.metadata().uid);
            if stored.entry.revision != read_at || (ours.is_some() && ours != theirs) {
                return Err(id.conflict());
            }
            if let Some(updated) = self.try_update(object.clone(), &stored).await? {
                return Ok(updated.object);
            }
        }
        Err(id.conflict())
    }

    /// Overwrites a resource that exists, whatever its revision. What the document's author cannot know is
    /// kept: identity, status, and unknown fields of the top level, the metadata and the specification.
    ///
    /// # Errors
    /// As [`Client::replace`]; a conflict only after many lost races.
    pub async fn overwrite<O: Object>(&self, object: O) -> Result<Applied<O>, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        check_place(&id, UPDATE)?;
        for _ in 0..MOST_ATTEMPTS {
            let stored = self.find::<O>(&id).await?.ok_or_else(|| id.missing())?;
            if let Some(applied) = self.try_merge(&object, &stored).await? {
                return Ok(applied);
            }
        }
        Err(id.conflict())
    }

    /// Creates a resource, or overwrites the stored one as [`Client::overwrite`] does.
    ///
    /// # Errors
    /// As [`Client::create`] and [`Client::overwrite`].
    pub async fn apply<O: Object>(&self, mut object: O) -> Result<Applied<O>, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        check_place(&id, UPDATE)?;
        object.metadata_mut().resource_version = None;
        for _ in 0..MOST_ATTEMPTS {
            if let Some(stored) = self.find::<O>(&id).await? {
                if let Some(applied) = self.try_merge(&object, &stored).await? {
                    return Ok(applied);
                }
            } else if id.kind == Kind::ClusterInformation {
                return self.create(object).await.map(|object| Applied {
                    object,
                    effect: Effect::Created,
                });
            } else if let Some(object) = self.try_create(object.clone()).await? {
                return Ok(Applied {
                    object,
                    effect: Effect::Created,
                });
            }
        }
        Err(id.conflict())
    }

    /// Completes, checks and writes a new resource; `None` when somebody was faster.
    async fn try_create<O: Object>(&self, mut object: O) -> Result<Option<O>, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        self.stamp(object.metadata_mut());
        object.set_defaults();
        object.validate().map_err(|problems| id.invalid(problems))?;
        let mut batch = Batch::new();
        let name = stored_name(self.names, &object);
        let value = stored_value(&id, &object, &name)?;
        batch.push(Write::create(id.key(&name), value.clone()));
        batch.writes.extend(self.rules(&id, &object, None).await?);
        match self.store.commit(&batch).await.map_err(id.store())? {
            Outcome::Conflict(_) => Ok(None),
            Outcome::Committed(revision) => {
                present_value(&id, id.key(&name), value, revision).map(Some)
            }
        }
    }

    /// Merges, checks and writes; `None` when somebody was faster.
    async fn try_merge<O: Object>(
        &self,
        object: &O,
        stored: &Stored<O>,
    ) -> Result<Option<Applied<O>>, ResourceError> {
        let mut merged =
            keep_foreign(object, &stored.object).map_err(|reason| damaged(stored, reason))?;
        let (metadata, old) = (merged.metadata_mut(), stored.object.metadata());
        metadata.uid.clone_from(&old.uid);
        metadata
            .creation_timestamp
            .clone_from(&old.creation_timestamp);
        self.try_update(merged, stored).await
    }

    /// Completes, checks and writes in place of what is stored; `None` when somebody was faster.
    async fn try_update<O: Object>(
        &self,
        mut object: O,
        stored: &Stored<O>,
    ) -> Result<Option<Applied<O>>, ResourceError> {
        let id = Id::of(object.kind(), object.metadata());
        let old = stored.object.metadata();
        let metadata = object.metadata_mut();
        if metadata.uid.is_none() {
            metadata.uid.clone_from(&old.uid);
        }
        if metadata.creation_timestamp.is_none() {
            metadata
                .creation_timestamp
                .clone_from(&old.creation_timestamp);
        }
        self.stamp(metadata);
        object.set_defaults();
        object.validate().map_err(|problems| id.invalid(problems))?;
        object
            .validate_update(&stored.object)
            .map_err(|problems| id.invalid(problems))?;
        let entry = &stored.entry;
        let Key::Resource { name, .. } = &entry.key else {
            return Err(damaged(stored, "it is no resource".to_owned()));
        };
        let value = stored_value(&id, &object, name)?;
        if value == entry.value {
            return Ok(Some(Applied {
                object: stored.object.clone(),
                effect: Effect::Unchanged,
            }));
        }
        let mut batch = Batch::new();
        batch.push(Write::update(
            entry.key.clone(),
            value.clone(),
            entry.revision,
        ));
        let rules = self.rules(&id, &object, Some(&stored.object)).await?;
        batch.writes.extend(rules);
        match self.store.commit(&batch).await.map_err(id.store())? {
            Outcome::Conflict(_) => Ok(None),
            Outcome::Committed(revision) => {
                let object = present_value(&id, entry.key.clone(), value, revision)?;
                Ok(Some(Applied {
                    object,
                    effect: Effect::Updated,
                }))
            }
        }
    }

    /// Looks a resource up under every name it may be stored under.
    async fn find<O: Object>(&self, id: &Id) -> Result<Option<Stored<O>>, ResourceError> {
        for entry in self.entries(id).await? {
            let mut object: O =
                present(id.kind, &entry).map_err(|reason| ResourceError::Damaged {
                    key: Box::new(entry.key.clone()),
                    reason,
                })?;
            let exact = entry.key == id.key(&id.name);
            if exact {
                // Asked for under its stored name, it keeps that.
                object.metadata_mut().name.clone_from(&id.name);
            }
            if object.metadata().name == id.name {
                return Ok(Some(Stored { object, entry }));
            }
        }
        Ok(None)
    }

    /// What is stored under the names that a resource may have.
    async fn entries(&self, id: &Id) -> Result<Vec<Entry>, ResourceError> {
        let reads: Vec<Read> = lookups(id)
            .iter()
            .map(|name| Read::Get(id.key(name)))
            .collect();
        let snapshot = self.store.read_many(&reads).await.map_err(id.store())?;
        let answers = snapshot.answers.into_iter();
        Ok(answers.flat_map(|answer| answer.entries).collect())
    }

    /// Gives metadata a UID and a creation time where it has none.
    fn stamp(&self, metadata: &mut Metadata) {
        if metadata.uid.as_deref().is_none_or(str::is_empty) {
            metadata.uid = Some(uid::from_random(self.stamps.random()));
        }
        if metadata.creation_timestamp.is_none() {
            metadata.creation_timestamp = Some(self.stamps.now().rfc3339());
        }
    }
}

fn damaged<O>(stored: &Stored<O>, reason: String) -> ResourceError {
    ResourceError::Damaged {
        key: Box::new(stored.entry.key.clone()),
        reason,
    }
}

/// Refuses what has no place in the store.
fn check_place(id: &Id, operation: &'static str) -> Result<(), ResourceError> {
    if is_builtin(id) {
        return Err(id.refused(operation, BUILTIN));
    }
    match (id.kind.namespaced(), &id.namespace) {
        (true, None) => Err(id.refused(operation, "metadata.namespace is missing")),
        (false, Some(_)) => Err(id.refused(operation, "the kind has no namespaces")),
        _ if id.name.is_empty() => Err(id.refused(operation, "metadata.name is missing")),
        _ if id.name.contains('/') => Err(id.refused(operation, "the name contains '/'")),
        _ => Ok(()),
    }
}

fn is_builtin(id: &Id) -> bool {
    id.kind == Kind::Profile && id.name == BUILTIN_PROFILE
}

/// The profile that allows everything. It is stored nowhere; every client knows it.
fn builtin_profile<O: Object>() -> Result<O, ResourceError> {
    let text = serde_json::json!({
        "kind": Kind::Profile.name(),
        "metadata": {"name": BUILTIN_PROFILE, "resourceVersion": "1"},
        "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]},
    });
    O::decode(Kind::Profile, text.to_string().as_bytes()).map_err(|reason| ResourceError::Damaged {
        key: Box::new(Key::resource(Kind::Profile, BUILTIN_PROFILE)),
        reason,
    })
}

const BUILTIN_PROFILE: &str = "projectcalico-default-allow";
const BUILTIN: &str = "it is built in";
const CREATE: &str = "create";
const UPDATE: &str = "update";
const MOST_ATTEMPTS: u32 = 20;
