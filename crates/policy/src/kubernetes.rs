//! Staged policies in the form of Kubernetes, as the policies that Calico makes of Kubernetes' own.

use std::collections::BTreeMap;

use margay_model::resource::policy::{
    KubernetesPeer, KubernetesPort, LabelOperator, LabelSelector, NetworkPolicySpec, PolicyType,
    StagedKubernetesNetworkPolicySpec,
};
use margay_model::resource::rule::{EntityRule, Rule};
use margay_model::scalar::{Action, IntOrString, Port, Protocol};

/// What precedes the name of a Kubernetes policy in the name of the policy made of it.
pub(crate) const PREFIX: &str = "knp.default.";

/// The specification that Calico makes of a Kubernetes policy.
pub(crate) fn translated(spec: &StagedKubernetesNetworkPolicySpec) -> NetworkPolicySpec {
    let mut types = spec.policy_types.clone();
    if types.is_empty() {
        types.push(PolicyType::Ingress);
        if !spec.egress.is_empty() {
            types.push(PolicyType::Egress);
        }
    }
    let ingress = spec.ingress.iter().flat_map(|rule| {
        rules(&rule.from, &rule.ports, |peer, ports| Rule {
            source: peer,
            destination: ports,
            ..Rule::default()
        })
    });
    let egress = spec.egress.iter().flat_map(|rule| {
        rules(&rule.to, &rule.ports, |peer, ports| Rule {
            destination: EntityRule {
                ports: ports.ports,
                ..peer
            },
            ..Rule::default()
        })
    });
    NetworkPolicySpec {
        order: Some(ORDER),
        selector: pods(spec.pod_selector.as_ref()),
        types,
        ingress: ingress.collect(),
        egress: egress.collect(),
        ..NetworkPolicySpec::default()
    }
}

/// A rule for each peer and protocol.
fn rules(
    peers: &[KubernetesPeer],
    ports: &[KubernetesPort],
    rule: impl Fn(EntityRule, EntityRule) -> Rule,
) -> Vec<Rule> {
    let mut by_protocol: BTreeMap<Option<Protocol>, Vec<Port>> = BTreeMap::new();
    let mut whole: Vec<Option<Protocol>> = Vec::new();
    for port in ports {
        let protocol = Some(port.protocol.clone().unwrap_or(Protocol::Tcp));
        let numbers = by_protocol.entry(protocol.clone()).or_default();
        match number(port) {
            Some(port) => numbers.push(port),
            // Without a number, all ports of the protocol.
            None => whole.push(protocol),
        }
    }
    for protocol in whole {
        by_protocol.insert(protocol, Vec::new());
    }
    if by_protocol.is_empty() {
        by_protocol.insert(None, Vec::new());
    }
    let everyone = [KubernetesPeer::default()];
    let peers = if peers.is_empty() { &everyone } else { peers };
    let mut rules = Vec::new();
    for peer in peers {
        for (protocol, ports) in &by_protocol {
            let side = EntityRule {
                ports: ports.clone(),
                ..EntityRule::default()
            };
            rules.push(Rule {
                action: Action::Allow,
                protocol: protocol.clone(),
                ..rule(entity(peer), side)
            });
        }
    }
    rules
}

fn number(port: &KubernetesPort) -> Option<Port> {
    let first = match port.port.as_ref()? {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    Some(Port::parse(&match port.end_port {
        None => first,
        Some(last) => format!("{first}:{last}"),
    }))
}

fn entity(peer: &KubernetesPeer) -> EntityRule {
    if let Some(block) = &peer.ip_block {
        return EntityRule {
            nets: vec![block.cidr.clone()],
            not_nets: block.except.clone(),
            ..EntityRule::default()
        };
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return EntityRule::default();
    }
    let namespaces = peer.namespace_selector.as_ref().map(|selector| {
        let conditions = conditions(selector);
        if conditions.is_empty() {
            "all()".to_owned()
        } else {
            conditions.join(" && ")
        }
    });
    EntityRule {
        selector: pods(peer.pod_selector.as_ref()),
        namespace_selector: namespaces.unwrap_or_default(),
        ..EntityRule::default()
    }
}

/// Only pods, not what other orchestrators run.
fn pods(selector: Option<&LabelSelector>) -> String {
    let mut all = vec!["projectcalico.org/orchestrator == 'k8s'".to_owned()];
    all.extend(selector.map(conditions).unwrap_or_default());
    all.join(" && ")
}

fn conditions(selector: &LabelSelector) -> Vec<String> {
    let equal = selector.match_labels.iter();
    let equal = equal.map(|(key, value)| format!("{key} == '{value}'"));
    let expressions = selector.match_expressions.iter().map(|requirement| {
        let key = &requirement.key;
        let values = requirement.values.join("', '");
        match &requirement.operator {
            LabelOperator::In => format!("{key} in {{'{values}'}}"),
            LabelOperator::NotIn => format!("{key} not in {{'{values}'}}"),
            LabelOperator::Exists => format!("has({key})"),
            LabelOperator::DoesNotExist => format!("!has({key})"),
            // Not a word of the language, so that the policy is refused with this word.
            LabelOperator::Other(word) => format!("{key} {word} '{values}'"),
        }
    });
    equal.chain(expressions).collect()
}

/// Kubernetes' policies have no order; this is what Calico gives them.
const ORDER: f64 = 1000.0;
