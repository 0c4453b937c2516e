//! Which policies an endpoint has, in which order.

use std::collections::BTreeMap;

use margay_model::policy_names::given;
use margay_model::resource::policy::{PolicyType, StagedAction};
use margay_model::resource::rule::Rule;
use margay_model::{AnyResource, Key, Kind, Metadata};
use margay_selector::Selector;

use super::items::Item;
use super::matching::{holds, understood};
use super::{Direction, HostStage, State};
use crate::kubernetes;
use crate::output::{PolicyId, PolicyKind, TierDefault};

/// A policy as far as evaluation needs it.
pub(super) struct Applied<'a> {
    pub(super) id: PolicyId,
    /// Whether every part of it makes sense.
    pub(super) understood: bool,
    pub(super) ingress: Vec<Rule>,
    pub(super) egress: Vec<Rule>,
    tier: String,
    order: Option<f64>,
    types: Vec<PolicyType>,
    do_not_track: bool,
    pre_dnat: bool,
    apply_on_forward: bool,
    selector: String,
    namespace_selector: String,
    account_selector: String,
    metadata: &'a Metadata,
    action: Option<StagedAction>,
}

/// The tiers that have policies for an endpoint's direction, each with its default and its policies.
pub(super) fn tiers<'a>(
    state: &'a State,
    subject: &Item<'_>,
    stage: HostStage,
    direction: Direction,
) -> Vec<(String, TierDefault, Vec<Applied<'a>>)> {
    let mut tiers: BTreeMap<String, Vec<Applied<'a>>> = BTreeMap::new();
    for policy in in_force(state) {
        if policy.selects(subject) && policy.is_at(stage) && policy.decides(direction) {
            tiers.entry(policy.tier.clone()).or_default().push(policy);
        }
    }
    let mut tiers: Vec<_> = tiers.into_iter().collect();
    tiers.sort_by(|(left, _), (right, _)| {
        let order = |name: &str| match tier(state, name) {
            None => (2, f64::INFINITY),
            Some((None, _)) => (1, f64::INFINITY),
            Some((Some(order), _)) => (0, order),
        };
        let ((l_rank, l_order), (r_rank, r_order)) = (order(left), order(right));
        l_rank
            .cmp(&r_rank)
            .then(l_order.total_cmp(&r_order))
            .then(left.cmp(right))
    });
    tiers
        .into_iter()
        .map(|(name, mut policies)| {
            policies.sort_by(|left, right| {
                let order = |policy: &Applied<'_>| policy.order.unwrap_or(f64::INFINITY);
                order(left)
                    .total_cmp(&order(right))
                    .then_with(|| left.tie_break().cmp(&right.tie_break()))
            });
            let only_first = matches!(stage, HostStage::Untracked | HostStage::PreDnat);
            let passes = only_first || tier(state, &name).is_some_and(|(_, passes)| passes);
            let default = if passes {
                TierDefault::Pass
            } else {
                TierDefault::Deny
            };
            (name, default, policies)
        })
        .collect()
}

/// A tier's order and whether it passes; `None` where it does not exist.
fn tier(state: &State, name: &str) -> Option<(Option<f64>, bool)> {
    match state.resources.get(&Key::resource(Kind::Tier, name)) {
        Some(AnyResource::Tier(tier)) => Some((
            tier.spec.order,
            tier.spec.default_action.as_deref() == Some("Pass"),
        )),
        // The default tier exists also where none is stored.
        _ => (name == "default").then_some((Some(1_000_000.0), false)),
    }
}

/// The policies in force, each once, whatever names it is stored under.
fn in_force(state: &State) -> Vec<Applied<'_>> {
    let mut by_id: BTreeMap<PolicyId, Applied<'_>> = BTreeMap::new();
    for (key, resource) in &state.resources {
        let Some(policy) = read(key, resource) else {
            continue;
        };
        let own_name = policy.metadata.name == policy.id.name;
        if own_name || !by_id.contains_key(&policy.id) {
            by_id.insert(policy.id.clone(), policy);
        }
    }
    let mut policies: Vec<_> = by_id.into_values().collect();
    if state.staged {
        let replaced: Vec<PolicyId> = policies
            .iter()
            .filter(|policy| policy.counts_as_staged())
            .map(Applied::target)
            .collect();
        policies.retain(|policy| match &policy.action {
            None => !replaced.contains(&policy.id),
            Some(action) => policy.counts_as_staged() && *action != StagedAction::Delete,
        });
    } else {
        policies.retain(|policy| policy.action.is_none());
    }
    policies
}

fn read<'a>(key: &Key, resource: &'a AnyResource) -> Option<Applied<'a>> {
    let Key::Resource { namespace, .. } = key else {
        return None;
    };
    let namespace = namespace.as_deref();
    let id = |kind, metadata: &Metadata, tier: &str| {
        PolicyId::new(kind, namespace, given(metadata, tier))
    };
    macro_rules! applied {
        ($kind:ident, $policy:expr, $spec:expr, $action:expr) => {
            Applied {
                id: id(PolicyKind::$kind, &$policy.metadata, &$spec.tier),
                understood: true,
                ingress: $spec.ingress.clone(),
                egress: $spec.egress.clone(),
                tier: match $spec.tier.as_str() {
                    "" => "default".to_owned(),
                    tier => tier.to_owned(),
                },
                order: $spec.order,
                types: $spec.types.clone(),
                do_not_track: false,
                pre_dnat: false,
                apply_on_forward: true,
                selector: $spec.selector.clone(),
                namespace_selector: String::new(),
                account_selector: $spec.service_account_selector.clone(),
                metadata: &$policy.metadata,
                action: $action,
            }
        };
    }
    macro_rules! global {
        ($kind:ident, $policy:expr, $action:expr) => {
            Applied {
                do_not_track: $policy.spec.do_not_track,
                pre_dnat: $policy.spec.pre_dnat,
                apply_on_forward: $policy.spec.apply_on_forward,
                namespace_selector: $policy.spec.namespace_selector.clone(),
                ..applied!($kind, $policy, $policy.spec, $action)
            }
        };
    }
    let mut policy = match resource {
        AnyResource::GlobalNetworkPolicy(policy) => global!(GlobalNetworkPolicy, policy, None),
        AnyResource::NetworkPolicy(policy) => applied!(NetworkPolicy, policy, policy.spec, None),
        AnyResource::StagedGlobalNetworkPolicy(policy) => {
            let action = Some(policy.spec.staged_action.clone());
            global!(StagedGlobalNetworkPolicy, policy, action)
        }
        AnyResource::StagedNetworkPolicy(policy) => {
            let action = Some(policy.spec.staged_action.clone());
            applied!(StagedNetworkPolicy, policy, policy.spec, action)
        }
        AnyResource::StagedKubernetesNetworkPolicy(policy) => {
            let action = Some(policy.spec.staged_action.clone());
            let spec = kubernetes::translated(&policy.spec);
            applied!(StagedKubernetesNetworkPolicy, policy, spec, action)
        }
        _ => return None,
    };
    let rules = policy.ingress.iter().chain(&policy.egress);
    let mut types = policy.types.iter();
    policy.understood =
        rules.clone().all(understood) && !types.any(|kind| matches!(kind, PolicyType::Other(_)));
    Some(policy)
}

impl Applied<'_> {
    fn selects(&self, subject: &Item<'_>) -> bool {
        let (Ok(selector), Ok(namespaces), Ok(accounts)) = (
            Selector::parse(&self.selector),
            Selector::parse(&self.namespace_selector),
            Selector::parse(&self.account_selector),
        ) else {
            return false;
        };
        let label = |name: &str| subject.label(name);
        let namespace = label("projectcalico.org/namespace");
        if self.id.namespace.is_some() && namespace != self.id.namespace.as_deref() {
            return false;
        }
        if !holds(selector.expr(), &label, true, true) {
            return false;
        }
        if !self.namespace_selector.is_empty() {
            let inherited = |name: &str| subject.label(&format!("pcns.{name}"));
            let somewhere = namespace.is_some();
            if !holds(namespaces.expr(), &inherited, somewhere, !somewhere) {
                return false;
            }
        }
        if !self.account_selector.is_empty() {
            let inherited = |name: &str| subject.label(&format!("pcsa.{name}"));
            // In a policy of a namespace, all() is everything; in a global one, whoever has an account.
            let everyone =
                self.id.namespace.is_some() || label("projectcalico.org/serviceaccount").is_some();
            return holds(accounts.expr(), &inherited, everyone, true);
        }
        true
    }

    fn is_at(&self, stage: HostStage) -> bool {
        match stage {
            HostStage::Untracked => self.do_not_track,
            HostStage::PreDnat => self.pre_dnat && !self.do_not_track,
            HostStage::Forward => self.apply_on_forward && !self.do_not_track && !self.pre_dnat,
            HostStage::Normal => !self.do_not_track && !self.pre_dnat,
        }
    }

    fn decides(&self, direction: Direction) -> bool {
        let wanted = match direction {
            Direction::Ingress => PolicyType::Ingress,
            Direction::Egress => PolicyType::Egress,
        };
        let unknown = self
            .types
            .iter()
            .any(|kind| matches!(kind, PolicyType::Other(_)));
        let only_ingress = self.pre_dnat && !self.do_not_track;
        (self.types.is_empty() || unknown || self.types.contains(&wanted))
            && !(only_ingress && direction == Direction::Egress)
    }

    /// Whether it would change anything if it were put in force.
    fn counts_as_staged(&self) -> bool {
        match &self.action {
            Some(StagedAction::Set | StagedAction::Delete) => true,
            Some(StagedAction::Other(text)) => text.is_empty(),
            _ => false,
        }
    }

    /// The policy whose place a staged one would take; the policy itself if it is not staged.
    fn target(&self) -> PolicyId {
        let (kind, name) = match self.id.kind {
            PolicyKind::StagedGlobalNetworkPolicy => {
                (PolicyKind::GlobalNetworkPolicy, self.id.name.clone())
            }
            PolicyKind::StagedNetworkPolicy => (PolicyKind::NetworkPolicy, self.id.name.clone()),
            PolicyKind::StagedKubernetesNetworkPolicy => (
                PolicyKind::NetworkPolicy,
                format!("knp.default.{}", self.id.name),
            ),
            kind => (kind, self.id.name.clone()),
        };
        PolicyId::new(kind, self.id.namespace.as_deref(), name)
    }

    fn tie_break(&self) -> String {
        let PolicyId {
            kind,
            namespace,
            name,
        } = self.target();
        format!("{name}/{}/{}", namespace.unwrap_or_default(), kind.kind())
    }
}
