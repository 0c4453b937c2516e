//! Staged policies in the form of Kubernetes.

use std::collections::BTreeMap;

use super::{PolicyType, StagedAction, check, defaults};
use crate::cidr::Cidr;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::resource::{Resource, Spec};
use crate::scalar::{IntOrString, Protocol};
use crate::syntax::{is_label_key, is_label_value};

/// A Kubernetes `NetworkPolicy` that is tried out before it is in force.
pub type StagedKubernetesNetworkPolicy = Resource<StagedKubernetesNetworkPolicySpec>;

object! {
    /// Specification of a [`StagedKubernetesNetworkPolicy`]; the shapes are those of Kubernetes'
    /// `networking.k8s.io/v1`.
    pub struct StagedKubernetesNetworkPolicySpec {
        /// What the policy would do.
        "stagedAction" => pub staged_action: StagedAction,
        /// The pods, a label selector.
        "podSelector" => pub pod_selector: Option<LabelSelector>,
        /// Rules for traffic to the pods.
        "ingress" => pub ingress: Vec<KubernetesIngress>,
        /// Rules for traffic from the pods.
        "egress" => pub egress: Vec<KubernetesEgress>,
        /// The directions the policy decides.
        "policyTypes" => pub policy_types: Vec<PolicyType>,
    }
}

object! {
    /// A rule for traffic to the pods. What is empty matches everything.
    pub struct KubernetesIngress {
        /// Ports of the pods.
        "ports" => pub ports: Vec<KubernetesPort>,
        /// Where the traffic comes from.
        "from" => pub from: Vec<KubernetesPeer>,
    }
}

object! {
    /// A rule for traffic from the pods. What is empty matches everything.
    pub struct KubernetesEgress {
        /// Ports of the peers.
        "ports" => pub ports: Vec<KubernetesPort>,
        /// Where the traffic goes to.
        "to" => pub to: Vec<KubernetesPeer>,
    }
}

object! {
    /// A port, or a range of ports.
    pub struct KubernetesPort {
        /// The protocol; TCP when absent.
        "protocol" => pub protocol: Option<Protocol>,
        /// The port by number or name; all when absent.
        "port" => pub port: Option<IntOrString>,
        /// The last port of a range that begins with `port`.
        "endPort" => pub end_port: Option<i64>,
    }
}

object! {
    /// The other side: pods, or a block of addresses.
    pub struct KubernetesPeer {
        /// The pods.
        "podSelector" => pub pod_selector: Option<LabelSelector>,
        /// The namespaces of the pods; the policy's own when absent.
        "namespaceSelector" => pub namespace_selector: Option<LabelSelector>,
        /// The block.
        "ipBlock" => pub ip_block: Option<IpBlock>,
    }
}

object! {
    /// A block of addresses with exceptions.
    pub struct IpBlock {
        /// The block.
        "cidr" => pub cidr: String,
        /// Prefixes within the block that do not match.
        "except" => pub except: Vec<String>,
    }
}

object! {
    /// Kubernetes' label selector; all of it must hold, and an empty one matches everything.
    pub struct LabelSelector {
        /// Labels and their values.
        "matchLabels" => pub match_labels: BTreeMap<String, String>,
        /// Conditions on labels.
        "matchExpressions" => pub match_expressions: Vec<LabelRequirement>,
    }
}

words! {
    /// How a label selector compares a label.
    pub enum LabelOperator {
        /// It has one of the values.
        In = "In",
        /// It is absent, or has none of the values.
        NotIn = "NotIn",
        /// It is there.
        Exists = "Exists",
        /// It is absent.
        DoesNotExist = "DoesNotExist",
    }
}

object! {
    /// A condition on a label.
    pub struct LabelRequirement {
        /// The label.
        "key" => pub key: String,
        /// The comparison.
        "operator" => pub operator: LabelOperator,
        /// Values to compare with.
        "values" => pub values: Vec<String>,
    }
}

impl LabelSelector {
    fn check(&self, problems: &mut Problems) {
        problems.field("matchLabels", |problems| {
            for (key, value) in &self.match_labels {
                problems.require(is_label_key(key), key, key, "a label key");
                problems.require(is_label_value(value), key, value, "a label value");
            }
        });
        let requirements = &self.match_expressions;
        problems.items("matchExpressions", requirements, |problems, requirement| {
            let key = &requirement.key;
            problems.require(is_label_key(key), "key", key, "a label key");
            problems.word("operator", &requirement.operator);
            let (count, compares) = (
                requirement.values.len(),
                matches!(
                    requirement.operator,
                    LabelOperator::In | LabelOperator::NotIn
                ),
            );
            let allowed = if compares { "at least one" } else { "none" };
            problems.require(
                compares == (count > 0),
                "values",
                format!("{count} items"),
                allowed,
            );
        });
    }
}

impl KubernetesPort {
    fn check(&self, problems: &mut Problems) {
        if let Some(protocol) = &self.protocol {
            let allowed = "TCP, UDP, SCTP";
            problems.require(protocol.has_ports(), "protocol", protocol, allowed);
        }
        let first = match &self.port {
            Some(IntOrString::Int(port)) => Some(*port),
            _ => None,
        };
        problems.range("port", first, 1..=65535);
        if let Some(last) = self.end_port {
            let fits = first.is_some_and(|first| (first..=65535).contains(&last));
            problems.require(fits, "endPort", last, "port, a number, to 65535");
        }
    }
}

impl KubernetesPeer {
    fn check(&self, problems: &mut Problems) {
        let selects = self.pod_selector.is_some() || self.namespace_selector.is_some();
        if selects == self.ip_block.is_some() {
            problems.refuse("", "ipBlock, or selectors of pods and namespaces");
        }
        for (name, selector) in [
            ("podSelector", &self.pod_selector),
            ("namespaceSelector", &self.namespace_selector),
        ] {
            if let Some(selector) = selector {
                problems.field(name, |problems| selector.check(problems));
            }
        }
        if let Some(block) = &self.ip_block {
            problems.field("ipBlock", |problems| block.check(problems));
        }
    }
}

impl IpBlock {
    fn check(&self, problems: &mut Problems) {
        let whole = self.cidr.parse::<Cidr>().ok();
        let allowed = "an IP prefix such as 10.0.0.0/16 or fd00::/64";
        problems.require(whole.is_some(), "cidr", &self.cidr, allowed);
        problems.items("except", &self.except, |problems, except| {
            let part = except.parse::<Cidr>().ok();
            let within = |whole: Cidr| part.is_some_and(|part| whole.covers(&part));
            if part.is_none() || !whole.is_none_or(within) {
                problems.refuse(except, "a prefix within cidr");
            }
        });
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
            problems.field("podSelector", |problems| selector.check(problems));
        }
        problems.items("ingress", &spec.ingress, |problems, rule| {
            problems.items("ports", &rule.ports, |problems, port| port.check(problems));
            problems.items("from", &rule.from, |problems, peer| peer.check(problems));
        });
        problems.items("egress", &spec.egress, |problems, rule| {
            problems.items("ports", &rule.ports, |problems, port| port.check(problems));
            problems.items("to", &rule.to, |problems, peer| peer.check(problems));
        });
        let bare = Self {
            staged_action: spec.staged_action.clone(),
            ..Self::default()
        };
        check::staged(&spec.staged_action, *spec != bare, problems);
    }
}
