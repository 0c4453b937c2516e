//! Staged policies in the form of Kubernetes.

use serde_json::Value;

use super::{PolicyType, StagedAction};
use crate::kind::Kind;
use crate::resource::{Resource, Spec};

/// A Kubernetes `NetworkPolicy` that is tried out before it is in force.
pub type StagedKubernetesNetworkPolicy = Resource<StagedKubernetesNetworkPolicySpec>;

object! {
    /// Specification of a [`StagedKubernetesNetworkPolicy`]; the shapes are those of Kubernetes'
    /// `networking.k8s.io/v1`.
    pub struct StagedKubernetesNetworkPolicySpec {
        /// What the policy would do.
        "stagedAction" => pub staged_action: StagedAction,
        /// The pods, a label selector.
        "podSelector" => pub pod_selector: Option<Value>,
        /// Rules for traffic to the pods.
        "ingress" => pub ingress: Vec<Value>,
        /// Rules for traffic from the pods.
        "egress" => pub egress: Vec<Value>,
        /// The directions the policy decides.
        "policyTypes" => pub policy_types: Vec<PolicyType>,
    }
}

impl Spec for StagedKubernetesNetworkPolicySpec {
    const KIND: Kind = Kind::StagedKubernetesNetworkPolicy;
}
