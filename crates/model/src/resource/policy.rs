//! Network policies, in force and staged.

mod check;
mod defaults;
mod kubernetes;

use margay_selector::GlobalUse;

use super::rule::Rule;
use super::rule::check::{Place, rules};
use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

pub use kubernetes::{
    IpBlock, KubernetesEgress, KubernetesIngress, KubernetesPeer, KubernetesPort, LabelOperator,
    LabelRequirement, LabelSelector, StagedKubernetesNetworkPolicy,
    StagedKubernetesNetworkPolicySpec,
};

/// A policy for workloads of all namespaces and for hosts.
pub type GlobalNetworkPolicy = Resource<GlobalNetworkPolicySpec>;

/// A policy for the workloads of a namespace.
pub type NetworkPolicy = Resource<NetworkPolicySpec>;

/// A [`GlobalNetworkPolicy`] that is tried out before it is in force.
pub type StagedGlobalNetworkPolicy = Resource<StagedGlobalNetworkPolicySpec>;

/// A [`NetworkPolicy`] that is tried out before it is in force.
pub type StagedNetworkPolicy = Resource<StagedNetworkPolicySpec>;

words! {
    /// A direction of traffic, seen from the endpoint.
    pub enum PolicyType {
        /// Traffic to the endpoint.
        Ingress = "Ingress",
        /// Traffic from the endpoint.
        Egress = "Egress",
    }
}

words! {
    /// What a staged policy would do.
    pub enum StagedAction {
        /// Put the policy in force.
        Set = "Set",
        /// Delete the policy of the same name.
        Delete = "Delete",
        /// Learn a policy from traffic.
        Learn = "Learn",
        /// Nothing.
        Ignore = "Ignore",
    }
}

words! {
    /// Advice to node agents.
    pub enum PerformanceHint {
        /// Prepare the policy on every node.
        AssumeNeededOnEveryNode = "AssumeNeededOnEveryNode",
    }
}

object! {
    /// Specification of a [`GlobalNetworkPolicy`].
    pub struct GlobalNetworkPolicySpec {
        /// The tier; `default` when empty.
        "tier" => pub tier: String,
        /// Rank in the tier; absent is last.
        #[serde(serialize_with = "crate::scalar::order")]
        "order" => pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        "ingress" => pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        "egress" => pub egress: Vec<Rule>,
        /// The endpoints; all when empty.
        "selector" => pub selector: String,
        /// The directions the policy decides.
        "types" => pub types: Vec<PolicyType>,
        /// Whether the policy comes before connection tracking, which it then avoids.
        "doNotTrack" => pub do_not_track: bool,
        /// Whether the policy comes before destination translation.
        "preDNAT" => pub pre_dnat: bool,
        /// Whether the policy decides on traffic that the host forwards.
        "applyOnForward" => pub apply_on_forward: bool,
        /// The service accounts of the endpoints.
        "serviceAccountSelector" => pub service_account_selector: String,
        /// The namespaces of the endpoints.
        "namespaceSelector" => pub namespace_selector: String,
        /// Advice to node agents.
        "performanceHints" => pub performance_hints: Vec<PerformanceHint>,
    }
}

object! {
    /// Specification of a [`NetworkPolicy`].
    pub struct NetworkPolicySpec {
        /// The tier; `default` when empty.
        "tier" => pub tier: String,
        /// Rank in the tier; absent is last.
        #[serde(serialize_with = "crate::scalar::order")]
        "order" => pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        "ingress" => pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        "egress" => pub egress: Vec<Rule>,
        /// The endpoints of the namespace; all when empty.
        "selector" => pub selector: String,
        /// The directions the policy decides.
        "types" => pub types: Vec<PolicyType>,
        /// The service accounts of the endpoints.
        "serviceAccountSelector" => pub service_account_selector: String,
        /// Advice to node agents.
        "performanceHints" => pub performance_hints: Vec<PerformanceHint>,
    }
}

object! {
    /// Specification of a [`StagedGlobalNetworkPolicy`].
    pub struct StagedGlobalNetworkPolicySpec {
        /// What the policy would do.
        "stagedAction" => pub staged_action: StagedAction,
        /// The tier; `default` when empty.
        "tier" => pub tier: String,
        /// Rank in the tier; absent is last.
        #[serde(serialize_with = "crate::scalar::order")]
        "order" => pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        "ingress" => pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        "egress" => pub egress: Vec<Rule>,
        /// The endpoints; all when empty.
        "selector" => pub selector: String,
        /// The directions the policy decides.
        "types" => pub types: Vec<PolicyType>,
        /// Whether the policy comes before connection tracking, which it then avoids.
        "doNotTrack" => pub do_not_track: bool,
        /// Whether the policy comes before destination translation.
        "preDNAT" => pub pre_dnat: bool,
        /// Whether the policy decides on traffic that the host forwards.
        "applyOnForward" => pub apply_on_forward: bool,
        /// The service accounts of the endpoints.
        "serviceAccountSelector" => pub service_account_selector: String,
        /// The namespaces of the endpoints.
        "namespaceSelector" => pub namespace_selector: String,
        /// Advice to node agents.
        "performanceHints" => pub performance_hints: Vec<PerformanceHint>,
    }
}

object! {
    /// Specification of a [`StagedNetworkPolicy`].
    pub struct StagedNetworkPolicySpec {
        /// What the policy would do.
        "stagedAction" => pub staged_action: StagedAction,
        /// The tier; `default` when empty.
        "tier" => pub tier: String,
        /// Rank in the tier; absent is last.
        #[serde(serialize_with = "crate::scalar::order")]
        "order" => pub order: Option<f64>,
        /// Rules for traffic to the endpoint.
        "ingress" => pub ingress: Vec<Rule>,
        /// Rules for traffic from the endpoint.
        "egress" => pub egress: Vec<Rule>,
        /// The endpoints of the namespace; all when empty.
        "selector" => pub selector: String,
        /// The directions the policy decides.
        "types" => pub types: Vec<PolicyType>,
        /// The service accounts of the endpoints.
        "serviceAccountSelector" => pub service_account_selector: String,
        /// Advice to node agents.
        "performanceHints" => pub performance_hints: Vec<PerformanceHint>,
    }
}

impl Spec for GlobalNetworkPolicySpec {
    const KIND: Kind = Kind::GlobalNetworkPolicy;

    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        defaults::tier(metadata, &mut spec.tier);
        defaults::types(&mut spec.types, &spec.ingress, &spec.egress);
    }

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        check::name(Self::KIND, metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        check::common(
            &spec.tier,
            &spec.selector,
            &spec.types,
            &spec.performance_hints,
            problems,
        );
        let accounts = &spec.service_account_selector;
        problems.selector("serviceAccountSelector", accounts, GlobalUse::Forbidden);
        rules(&spec.ingress, &spec.egress, Place::Global, problems);
        problems.selector(
            "namespaceSelector",
            &spec.namespace_selector,
            GlobalUse::Forbidden,
        );
        check::switches(
            spec.do_not_track,
            spec.pre_dnat,
            spec.apply_on_forward,
            !spec.egress.is_empty(),
            &spec.types,
            problems,
        );
    }
}

impl Spec for NetworkPolicySpec {
    const KIND: Kind = Kind::NetworkPolicy;

    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        defaults::tier(metadata, &mut spec.tier);
        defaults::types(&mut spec.types, &spec.ingress, &spec.egress);
    }

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        check::name(Self::KIND, metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        check::common(
            &spec.tier,
            &spec.selector,
            &spec.types,
            &spec.performance_hints,
            problems,
        );
        let accounts = &spec.service_account_selector;
        problems.selector("serviceAccountSelector", accounts, GlobalUse::Forbidden);
        rules(&spec.ingress, &spec.egress, Place::Namespaced, problems);
    }
}

impl Spec for StagedGlobalNetworkPolicySpec {
    const KIND: Kind = Kind::StagedGlobalNetworkPolicy;

    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        defaults::staged_action(&mut spec.staged_action);
        defaults::tier(metadata, &mut spec.tier);
        if spec.staged_action != StagedAction::Delete {
            defaults::types(&mut spec.types, &spec.ingress, &spec.egress);
        }
    }

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        check::name(Self::KIND, metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        check::common(
            &spec.tier,
            &spec.selector,
            &spec.types,
            &spec.performance_hints,
            problems,
        );
        let accounts = &spec.service_account_selector;
        problems.selector("serviceAccountSelector", accounts, GlobalUse::Forbidden);
        rules(&spec.ingress, &spec.egress, Place::Global, problems);
        problems.selector(
            "namespaceSelector",
            &spec.namespace_selector,
            GlobalUse::Forbidden,
        );
        check::switches(
            spec.do_not_track,
            spec.pre_dnat,
            spec.apply_on_forward,
            !spec.egress.is_empty(),
            &spec.types,
            problems,
        );
        let bare = Self {
            staged_action: spec.staged_action.clone(),
            tier: spec.tier.clone(),
            ..Self::default()
        };
        check::staged(&spec.staged_action, *spec != bare, problems);
    }
}

impl Spec for StagedNetworkPolicySpec {
    const KIND: Kind = Kind::StagedNetworkPolicy;

    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        defaults::staged_action(&mut spec.staged_action);
        defaults::tier(metadata, &mut spec.tier);
        if spec.staged_action != StagedAction::Delete {
            defaults::types(&mut spec.types, &spec.ingress, &spec.egress);
        }
    }

    fn validate_name(metadata: &Metadata, _spec: &Self, problems: &mut Problems) {
        check::name(Self::KIND, metadata, problems);
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        check::common(
            &spec.tier,
            &spec.selector,
            &spec.types,
            &spec.performance_hints,
            problems,
        );
        let accounts = &spec.service_account_selector;
        problems.selector("serviceAccountSelector", accounts, GlobalUse::Forbidden);
        rules(&spec.ingress, &spec.egress, Place::Namespaced, problems);
        let bare = Self {
            staged_action: spec.staged_action.clone(),
            tier: spec.tier.clone(),
            ..Self::default()
        };
        check::staged(&spec.staged_action, *spec != bare, problems);
    }
}
