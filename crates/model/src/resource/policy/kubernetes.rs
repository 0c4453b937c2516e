//! Staged policies in the form of Kubernetes.

use serde_json::Value;

use super::{PolicyType, StagedAction, check, defaults};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
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

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        defaults::staged_action(&mut spec.staged_action);
        if spec.staged_action != StagedAction::Delete {
            defaults::types(&mut spec.policy_types, &spec.ingress, &spec.egress);
        }
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        problems.distinct("policyTypes", &spec.policy_types);
        if let Some(selector) = &spec.pod_selector {
            problems.require(
                selector.is_object(),
                "podSelector",
                selector,
                "a label selector",
            );
        }
        let bare = Self {
            staged_action: spec.staged_action.clone(),
            ..Self::default()
        };
        check::staged(&spec.staged_action, *spec != bare, problems);
    }
}
