//! Names of policies, endpoints and sets, each with one text form.

use std::fmt;
use std::str::FromStr;

use margay_model::{Key, Kind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A text that names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

/// A policy, by the name its author gave it. Its text is such as `NetworkPolicy/prod/db-allow` or
/// `GlobalNetworkPolicy/security.gnp1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// The kind.
    pub kind: PolicyKind,
    /// The namespace; present exactly for kinds that have one.
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
}

/// The kinds of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is the kind of that name")]
pub enum PolicyKind {
    GlobalNetworkPolicy,
    NetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedNetworkPolicy,
    StagedKubernetesNetworkPolicy,
}

/// A workload endpoint, by namespace and stored name. Its text is `<namespace>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// The namespace.
    pub namespace: String,
    /// The stored name.
    pub name: String,
}

/// A set, by the hash of what it stands for. Its text is 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId([u8; 16]);

impl PolicyId {
    /// A policy of this kind.
    pub fn new(kind: PolicyKind, namespace: Option<&str>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.into(),
        }
    }

    /// Whether it is staged, so that it is never in force.
    pub fn is_staged(&self) -> bool {
        self.kind.enforced().is_none()
    }
}

impl PolicyKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::GlobalNetworkPolicy,
        Self::NetworkPolicy,
        Self::StagedGlobalNetworkPolicy,
        Self::StagedNetworkPolicy,
        Self::StagedKubernetesNetworkPolicy,
    ];

    /// The kind among the policy kinds; `None` for others.
    pub fn of(kind: Kind) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|candidate| candidate.kind() == kind)
    }

    /// The kind of the resources.
    pub fn kind(self) -> Kind {
        match self {
            Self::GlobalNetworkPolicy => Kind::GlobalNetworkPolicy,
            Self::NetworkPolicy => Kind::NetworkPolicy,
            Self::StagedGlobalNetworkPolicy => Kind::StagedGlobalNetworkPolicy,
            Self::StagedNetworkPolicy => Kind::StagedNetworkPolicy,
            Self::StagedKubernetesNetworkPolicy => Kind::StagedKubernetesNetworkPolicy,
        }
    }

    /// The kind itself where its policies are in force; `None` where they are staged.
    pub fn enforced(self) -> Option<Self> {
        matches!(self, Self::GlobalNetworkPolicy | Self::NetworkPolicy).then_some(self)
    }
}

impl EndpointId {
    /// The endpoint of a stored key; `None` for other keys.
    pub fn of(key: &Key) -> Option<Self> {
        match key {
            Key::Resource {
                kind: Kind::WorkloadEndpoint,
                namespace: Some(namespace),
                name,
            } => Some(Self {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            _ => None,
        }
    }

    /// The key it is stored under.
    pub fn key(&self) -> Key {
        Key::namespaced(Kind::WorkloadEndpoint, &self.namespace, &self.name)
    }
}

impl SetId {
    /// The id of what this text describes completely.
    pub fn hash(description: &str) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(description.as_bytes())[..16]);
        Self(id)
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.kind();
        match &self.namespace {
            Some(namespace) => write!(f, "{kind}/{namespace}/{}", self.name),
            None => write!(f, "{kind}/{}", self.name),
        }
    }
}

impl FromStr for PolicyId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (kind, rest) = text.split_once('/')?;
            let kind = PolicyKind::of(Kind::from_name(kind)?)?;
            if !kind.kind().namespaced() {
                return named(rest).map(|name| Self::new(kind, None, name));
            }
            let (namespace, name) = rest.split_once('/')?;
            Some(Self::new(kind, Some(named(namespace)?), named(name)?))
        };
        read().ok_or_else(|| IdError {
            what: "policy such as NetworkPolicy/<namespace>/<name> or GlobalNetworkPolicy/<name>",
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for EndpointId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(namespace, name)| {
                Some(Self {
                    namespace: named(namespace)?.to_owned(),
                    name: named(name)?.to_owned(),
                })
            })
            .ok_or_else(|| IdError {
                what: "endpoint such as <namespace>/<name>",
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SetId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hexadecimal = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| hexadecimal)
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| IdError {
                what: "set: 32 hexadecimal digits",
                text: text.to_owned(),
            })
    }
}

/// Writes and reads by the text form, which can be a map's key in JSON.
macro_rules! by_text {
    ($($id:ty),+) => {
        $(
            impl Serialize for $id {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.collect_str(self)
                }
            }

            impl<'de> Deserialize<'de> for $id {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                }
            }
        )+
    };
}

by_text!(PolicyId, EndpointId, SetId);

fn named(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_back() {
        for text in [
            "NetworkPolicy/prod/knp.default.x",
            "GlobalNetworkPolicy/a.b",
        ] {
            assert_eq!(text.parse::<PolicyId>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "NetworkPolicy/x",
            "GlobalNetworkPolicy/a/b",
            "Tier/a",
            "NetworkPolicy//b",
        ] {
            assert!(text.parse::<PolicyId>().is_err(), "{text}");
        }
        let endpoint: EndpointId = "prod/n1-k8s-web-eth0".parse().unwrap();
        assert_eq!(EndpointId::of(&endpoint.key()), Some(endpoint));
        assert!("prod".parse::<EndpointId>().is_err());
        let set = SetId::hash("x");
        assert_eq!(set.to_string().parse(), Ok(set));
        assert!("+0000000000000000000000000000000".parse::<SetId>().is_err());
    }
}
