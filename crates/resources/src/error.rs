//! Why an operation on a resource was not done.

use std::fmt;

use margay_ipam_core::IpamError;
use margay_model::{Key, Kind, Metadata, Problems};
use margay_store::StoreError;

/// What identifies a resource: `IPPool(pool-a)`, `NetworkPolicy(prod/web)`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, for namespaced kinds.
    pub namespace: Option<String>,
    /// Its name as its author wrote it.
    pub name: String,
}

/// An error of an operation on a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It was to be created, and is there.
    #[error("resource already exists: {id}")]
    AlreadyExists {
        /// The resource.
        id: Id,
    },
    /// It is not there.
    #[error("resource does not exist: {id}")]
    DoesNotExist {
        /// The resource.
        id: Id,
    },
    /// Somebody else changed it.
    #[error("update conflict: {id} was changed since it was read; read it again")]
    UpdateConflict {
        /// The resource.
        id: Id,
    },
    /// Fields are not as they must be.
    #[error("{id} is invalid: {problems}")]
    Invalid {
        /// The resource.
        id: Id,
        /// The fields.
        problems: Problems,
    },
    /// The operation is not allowed.
    #[error("{operation} of {id} is refused: {reason}")]
    Refused {
        /// The resource.
        id: Id,
        /// `create`, `update` or `delete`.
        operation: &'static str,
        /// Why, and what to do instead.
        reason: String,
    },
    /// A stored object that is needed cannot be read.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// Its key.
        key: Box<Key>,
        /// What is wrong with it.
        reason: String,
    },
    /// Addresses or blocks could not be released.
    #[error("{id}: {source}")]
    Ipam {
        /// The resource that was to be deleted.
        id: Id,
        /// What went wrong.
        source: Box<IpamError>,
    },
    /// The store failed.
    #[error("{id}: {source}")]
    Store {
        /// The resource, or the kind with an empty name for lists.
        id: Id,
        /// What went wrong.
        source: Box<StoreError>,
    },
}

impl Id {
    /// The identity of a resource with this kind and metadata.
    pub fn of(kind: Kind, metadata: &Metadata) -> Self {
        Self::new(kind, metadata.namespace.as_deref(), &metadata.name)
    }

    /// An identity of these parts.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        }
    }

    /// The key of the resource where it is stored under `name`.
    pub(crate) fn key(&self, name: &str) -> Key {
        Key::Resource {
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn refused(
        &self,
        operation: &'static str,
        reason: impl Into<String>,
    ) -> ResourceError {
        ResourceError::Refused {
            id: self.clone(),
            operation,
            reason: reason.into(),
        }
    }

    pub(crate) fn invalid(&self, problems: Problems) -> ResourceError {
        ResourceError::Invalid {
            id: self.clone(),
            problems,
        }
    }

    pub(crate) fn missing(&self) -> ResourceError {
        ResourceError::DoesNotExist { id: self.clone() }
    }

    pub(crate) fn conflict(&self) -> ResourceError {
        ResourceError::UpdateConflict { id: self.clone() }
    }

    /// For `map_err` on calls to the store.
    pub(crate) fn store(&self) -> impl Fn(StoreError) -> ResourceError + '_ {
        |source| ResourceError::Store {
            id: self.clone(),
            source: Box::new(source),
        }
    }

    /// For `map_err` on calls to the allocator.
    pub(crate) fn ipam(&self) -> impl Fn(IpamError) -> ResourceError + '_ {
        |source| ResourceError::Ipam {
            id: self.clone(),
            source: Box::new(source),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match (&self.namespace, self.name.as_str()) {
            (None, "") => Ok(()),
            (None, name) => write!(f, "({name})"),
            (Some(namespace), name) => write!(f, "({namespace}/{name})"),
        }
    }
}
