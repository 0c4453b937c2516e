//! Resources whose kind is known only when the program runs.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::affinity::BlockAffinitySpec;
use super::bgp::{BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec};
use super::cluster::{ClusterInformationSpec, NodeSpec, TierSpec};
use super::config::{
    FelixConfigurationSpec, IPAMConfigurationSpec, KubeControllersConfigurationSpec,
};
use super::endpoint::WorkloadEndpointSpec;
use super::hostendpoint::HostEndpointSpec;
use super::migration::LiveMigrationSpec;
use super::networkset::{GlobalNetworkSetSpec, NetworkSetSpec};
use super::policy::{
    GlobalNetworkPolicySpec, NetworkPolicySpec, StagedGlobalNetworkPolicySpec,
    StagedKubernetesNetworkPolicySpec, StagedNetworkPolicySpec,
};
use super::pool::{IPPoolSpec, IPReservationSpec};
use super::profile::ProfileSpec;
use super::status::CalicoNodeStatusSpec;
use super::{API_VERSION, Resource};
use crate::key::Key;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

/// A value that is no resource.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It is no JSON object with a `kind`.
    #[error("a resource is an object with a kind")]
    NoKind,
    /// There is no such kind.
    #[error("there is no kind {kind:?}")]
    UnknownKind {
        /// What the value says.
        kind: String,
    },
    /// It is written for another version of the API.
    #[error("{kind} has apiVersion {found:?} where {API_VERSION:?} is expected")]
    ApiVersion {
        /// The kind.
        kind: Kind,
        /// What the value says.
        found: String,
    },
    /// A field does not fit its type, or the text is no JSON.
    #[error("{kind}: {source}")]
    Invalid {
        /// The kind.
        kind: Kind,
        /// What is wrong.
        source: serde_json::Error,
    },
}

macro_rules! any_resource {
    ($($kind:ident($spec:ty),)+) => {
        /// A resource of any kind.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(missing_docs, reason = "each variant holds the resource of that kind")]
        pub enum AnyResource {
            $( $kind(Box<Resource<$spec>>), )+
        }

        /// Evaluates the same expression for every kind.
        macro_rules! each {
            ($any:expr, $resource:ident => $result:expr) => {
                match $any {
                    $( AnyResource::$kind($resource) => $result, )+
                }
            };
        }

        impl AnyResource {
            /// The kind.
            pub fn kind(&self) -> Kind {
                match self {
                    $( Self::$kind(_) => Kind::$kind, )+
                }
            }

            /// Reads a stored value of a kind.
            ///
            /// # Errors
            /// The value is not JSON, or not an object of this kind.
            pub fn decode(kind: Kind, value: &[u8]) -> Result<Self, DecodeError> {
                let decoded = match kind {
                    $( Kind::$kind => Resource::decode(value).map(Box::new).map(Self::$kind), )+
                };
                decoded.map_err(|source| DecodeError::Invalid { kind, source })
            }

            /// Reads a JSON value by its `kind`.
            ///
            /// # Errors
            /// The value is not an object of a known kind.
            pub fn from_value(value: Value) -> Result<Self, DecodeError> {
                let kind = kind_of(&value)?;
                let decoded = match kind {
                    $( Kind::$kind => serde_json::from_value(value).map(Box::new).map(Self::$kind), )+
                };
                decoded.map_err(|source| DecodeError::Invalid { kind, source })
            }

            /// Checks that nothing differs from the stored object that must not.
            ///
            /// # Errors
            /// What differs, all of it.
            pub fn validate_update(&self, stored: &Self) -> Result<(), Problems> {
                match (self, stored) {
                    $( (Self::$kind(new), Self::$kind(old)) => new.validate_update(old), )+
                    (new, old) => {
                        let mut problems = Problems::new();
                        problems.unchanged("kind", &old.kind(), &new.kind());
                        problems.into_result()
                    }
                }
            }
        }

        $(
            impl From<Resource<$spec>> for AnyResource {
                fn from(resource: Resource<$spec>) -> Self {
                    Self::$kind(Box::new(resource))
                }
            }
        )+
    };
}

any_resource! {
    BGPConfiguration(BGPConfigurationSpec),
    BGPFilter(BGPFilterSpec),
    BGPPeer(BGPPeerSpec),
    BlockAffinity(BlockAffinitySpec),
    CalicoNodeStatus(CalicoNodeStatusSpec),
    ClusterInformation(ClusterInformationSpec),
    FelixConfiguration(FelixConfigurationSpec),
    GlobalNetworkPolicy(GlobalNetworkPolicySpec),
    GlobalNetworkSet(GlobalNetworkSetSpec),
    HostEndpoint(HostEndpointSpec),
    IPAMConfiguration(IPAMConfigurationSpec),
    IPPool(IPPoolSpec),
    IPReservation(IPReservationSpec),
    KubeControllersConfiguration(KubeControllersConfigurationSpec),
    LiveMigration(LiveMigrationSpec),
    NetworkPolicy(NetworkPolicySpec),
    NetworkSet(NetworkSetSpec),
    Node(NodeSpec),
    Profile(ProfileSpec),
    StagedGlobalNetworkPolicy(StagedGlobalNetworkPolicySpec),
    StagedKubernetesNetworkPolicy(StagedKubernetesNetworkPolicySpec),
    StagedNetworkPolicy(StagedNetworkPolicySpec),
    Tier(TierSpec),
    WorkloadEndpoint(WorkloadEndpointSpec),
}

impl AnyResource {
    /// Name, namespace, labels and the like.
    pub fn metadata(&self) -> &Metadata {
        each!(self, resource => &resource.metadata)
    }

    /// Name, namespace, labels and the like, to be changed.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        each!(self, resource => &mut resource.metadata)
    }

    /// The status as found.
    pub fn status(&self) -> Option<&Map<String, Value>> {
        each!(self, resource => resource.status.as_ref())
    }

    /// The status, to be changed.
    pub fn status_mut(&mut self) -> &mut Option<Map<String, Value>> {
        each!(self, resource => &mut resource.status)
    }

    /// The key it is stored under.
    pub fn key(&self) -> Key {
        each!(self, resource => resource.key())
    }

    /// Fills what is left out, and brings what is given into the form that is stored.
    pub fn set_defaults(&mut self) {
        each!(self, resource => resource.set_defaults());
    }

    /// Checks every field.
    ///
    /// # Errors
    /// What is wrong, all of it.
    pub fn validate(&self) -> Result<(), Problems> {
        each!(self, resource => resource.validate())
    }

    /// The value to store: compact JSON in Calico's field order, without the revision.
    ///
    /// # Errors
    /// Only for extra fields that have no JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        each!(self, resource => resource.encode())
    }

    /// The resource as a JSON value, with the revision if it has one.
    ///
    /// # Errors
    /// Only for extra fields that have no JSON form.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }
}

impl Serialize for AnyResource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        each!(self, resource => resource.serialize(serializer))
    }
}

fn kind_of(value: &Value) -> Result<Kind, DecodeError> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let name = text("kind").ok_or(DecodeError::NoKind)?;
    let kind = Kind::from_name(name).ok_or_else(|| DecodeError::UnknownKind {
        kind: name.to_owned(),
    })?;
    match text("apiVersion") {
        None | Some(API_VERSION) => Ok(kind),
        Some(found) => Err(DecodeError::ApiVersion {
            kind,
            found: found.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips() {
        for kind in Kind::ALL {
            let value = serde_json::json!({"kind": kind.name(), "metadata": {"name": "x"}});
            let resource = AnyResource::from_value(value).unwrap();
            assert_eq!(resource.kind(), kind);
            let bytes = resource.encode().unwrap();
            let again = AnyResource::decode(kind, &bytes).unwrap();
            assert_eq!(again.encode().unwrap(), bytes, "{kind}");
        }
    }

    #[test]
    fn other_values_are_refused() {
        for (value, message) in [
            (serde_json::json!([]), "a resource is an object with a kind"),
            (
                serde_json::json!({"kind": "Pod"}),
                "there is no kind \"Pod\"",
            ),
            (
                serde_json::json!({"kind": "Tier", "apiVersion": "v1"}),
                "Tier has apiVersion \"v1\" where \"projectcalico.org/v3\" is expected",
            ),
        ] {
            assert_eq!(
                AnyResource::from_value(value).unwrap_err().to_string(),
                message
            );
        }
        let wrong = serde_json::json!({"kind": "Tier", "spec": {"order": "first"}});
        let error = AnyResource::from_value(wrong).unwrap_err().to_string();
        assert!(error.starts_with("Tier: invalid type"), "{error}");
    }

    #[test]
    fn kinds_do_not_change() {
        let tier = AnyResource::from(Resource::<TierSpec>::default());
        let node = AnyResource::from(Resource::<NodeSpec>::default());
        let problems = tier.validate_update(&node).unwrap_err();
        assert_eq!(problems.list()[0].path, "kind");
    }
}
