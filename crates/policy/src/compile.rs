//! From policies and profiles as stored to rules over sets.

mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_model::policy_names::{DEFAULT_TIER, given};
use margay_model::resource::policy::{
    GlobalNetworkPolicySpec, NetworkPolicySpec, PerformanceHint, PolicyType, StagedAction,
};
use margay_model::resource::profile::ProfileSpec;
use margay_model::resource::rule::Rule as Stored;
use margay_model::scalar::Action as StoredAction;
use margay_model::{AnyResource, Metadata, Problems};
use margay_selector::{NAMESPACE_LABEL, Selector};

use crate::condition::Problem;
use crate::kubernetes;
use crate::output::{PolicyId, PolicyKind, Profile, Rule, SetId};
use crate::spec::SetSpec;
use rule::Compiler;

/// A policy, ready to be put in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Compiled {
    pub(crate) id: PolicyId,
    pub(crate) tier: String,
    /// Rank in the tier; infinite where none is given.
    pub(crate) order: f64,
    /// What decides among policies of the same order: name, namespace and kind, as Calico has it.
    pub(crate) rank: String,
    /// The endpoints; `None` where that cannot be read.
    pub(crate) selector: Option<Selector>,
    pub(crate) ingress: Option<Vec<Rule>>,
    pub(crate) egress: Option<Vec<Rule>>,
    pub(crate) stage: Stage,
    /// Whether it is prepared on every node.
    pub(crate) everywhere: bool,
    /// Whether a staged policy takes another's place, and how.
    pub(crate) staged: Option<Staged>,
    pub(crate) sets: Sets,
    pub(crate) problems: Vec<Problem>,
}

/// The sets that rules name.
pub(crate) type Sets = BTreeMap<SetId, Arc<SetSpec>>;

/// Where on a packet's way a policy decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Normal { forward: bool },
    PreDnat,
    Untracked,
}

/// What would become of the policy that a staged one is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Staged {
    Replaces,
    Deletes,
}

/// A profile, ready to be put in force.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CompiledProfile {
    pub(crate) rules: Profile,
    pub(crate) sets: Sets,
    pub(crate) problems: Vec<Problem>,
}

/// What the kinds of policies have in common.
struct Parts<'a> {
    metadata: &'a Metadata,
    tier: &'a str,
    order: Option<f64>,
    selector: &'a str,
    namespace_selector: &'a str,
    account_selector: &'a str,
    types: &'a [PolicyType],
    ingress: &'a [Stored],
    egress: &'a [Stored],
    hints: &'a [PerformanceHint],
    stage: Stage,
    staged: Option<Option<Staged>>,
}

/// Compiles a policy of any kind; `None` for other kinds, and for staged policies that change nothing.
///
/// `readable` is false where the rules could not be read, but the rest could.
pub(crate) fn policy(
    namespace: Option<&str>,
    resource: &AnyResource,
    unreadable: Option<&str>,
) -> Option<Compiled> {
    let kind = PolicyKind::of(resource.kind())?;
    let compile = |parts: Parts<'_>| compile(kind, namespace, &parts, unreadable);
    match resource {
        AnyResource::GlobalNetworkPolicy(policy) => {
            compile(global(&policy.metadata, &policy.spec, None))
        }
        AnyResource::NetworkPolicy(policy) => {
            compile(namespaced(&policy.metadata, &policy.spec, None))
        }
        AnyResource::StagedGlobalNetworkPolicy(policy) => {
            let spec = policy.spec.clone();
            let like = GlobalNetworkPolicySpec {
                tier: spec.tier,
                order: spec.order,
                ingress: spec.ingress,
                egress: spec.egress,
                selector: spec.selector,
                types: spec.types,
                do_not_track: spec.do_not_track,
                pre_dnat: spec.pre_dnat,
                apply_on_forward: spec.apply_on_forward,
                service_account_selector: spec.service_account_selector,
                namespace_selector: spec.namespace_selector,
                performance_hints: Vec::new(),
                extra: spec.extra,
            };
            let staged = staged(&spec.staged_action);
            compile(global(&policy.metadata, &like, Some(staged)))
        }
        AnyResource::StagedNetworkPolicy(policy) => {
            let spec = policy.spec.clone();
            let like = NetworkPolicySpec {
                tier: spec.tier,
                order: spec.order,
                ingress: spec.ingress,
                egress: spec.egress,
                selector: spec.selector,
                types: spec.types,
                service_account_selector: spec.service_account_selector,
                performance_hints: Vec::new(),
                extra: spec.extra,
            };
            let staged = staged(&spec.staged_action);
            compile(namespaced(&policy.metadata, &like, Some(staged)))
        }
        AnyResource::StagedKubernetesNetworkPolicy(policy) => {
            let like = kubernetes::translated(&policy.spec);
            let staged = staged(&policy.spec.staged_action);
            compile(namespaced(&policy.metadata, &like, Some(staged)))
        }
        _ => None,
    }
}

/// Compiles a profile.
pub(crate) fn profile(spec: &ProfileSpec) -> CompiledProfile {
    let mut compiler = Compiler::new(None);
    let ingress = compiler.rules("ingress", &spec.ingress);
    let egress = compiler.rules("egress", &spec.egress);
    let (mut sets, mut problems, flaws) = compiler.finish();
    keep_used(&mut sets, ingress.iter().chain(&egress));
    if let Err(flaws) = flaws.into_result() {
        problems.push(Problem::Denies {
            reason: flaws.to_string(),
        });
        return CompiledProfile {
            problems,
            ..denying_profile()
        };
    }
    CompiledProfile {
        rules: Profile { ingress, egress },
        sets,
        problems,
    }
}

/// The profile in the place of one that does not exist: as in Calico, it denies.
pub(crate) fn denying_profile() -> CompiledProfile {
    CompiledProfile {
        rules: Profile {
            ingress: vec![deny_all()],
            egress: vec![deny_all()],
        },
        ..CompiledProfile::default()
    }
}

fn global<'a>(
    metadata: &'a Metadata,
    spec: &'a GlobalNetworkPolicySpec,
    staged: Option<Option<Staged>>,
) -> Parts<'a> {
    Parts {
        metadata,
        tier: &spec.tier,
        order: spec.order,
        selector: &spec.selector,
        namespace_selector: &spec.namespace_selector,
        account_selector: &spec.service_account_selector,
        types: &spec.types,
        ingress: &spec.ingress,
        egress: &spec.egress,
        hints: &spec.performance_hints,
        stage: if spec.do_not_track {
            Stage::Untracked
        } else if spec.pre_dnat {
            Stage::PreDnat
        } else {
            Stage::Normal {
                forward: spec.apply_on_forward,
            }
        },
        staged,
    }
}

fn namespaced<'a>(
    metadata: &'a Metadata,
    spec: &'a NetworkPolicySpec,
    staged: Option<Option<Staged>>,
) -> Parts<'a> {
    Parts {
        metadata,
        tier: &spec.tier,
        order: spec.order,
        selector: &spec.selector,
        namespace_selector: "",
        account_selector: &spec.service_account_selector,
        types: &spec.types,
        ingress: &spec.ingress,
        egress: &spec.egress,
        hints: &spec.performance_hints,
        stage: Stage::Normal { forward: true },
        staged,
    }
}

fn staged(action: &StagedAction) -> Option<Staged> {
    match action {
        StagedAction::Set => Some(Staged::Replaces),
        StagedAction::Delete => Some(Staged::Deletes),
        StagedAction::Learn | StagedAction::Ignore => None,
        // Nothing is what older writers say for "set".
        StagedAction::Other(text) => text.is_empty().then_some(Staged::Replaces),
    }
}

fn compile(
    kind: PolicyKind,
    namespace: Option<&str>,
    parts: &Parts<'_>,
    unreadable: Option<&str>,
) -> Option<Compiled> {
    let staged = match parts.staged {
        None => None,
        Some(change) => Some(change?),
    };
    let tier = if parts.tier.is_empty() {
        DEFAULT_TIER
    } else {
        parts.tier
    };
    let mut compiler = Compiler::new(namespace);
    let ingress = compiler.rules("ingress", parts.ingress);
    let egress = compiler.rules("egress", parts.egress);
    let directions = directions(parts.types, compiler.flaws());
    let (mut sets, mut problems, flaws) = compiler.finish();
    let flaws = flaws.into_result().map_err(|flaws| flaws.to_string());
    let (mut ingress, mut egress) = (Some(ingress), Some(egress));
    if let Err(reason) = unreadable.map_or(flaws, |reason| Err(reason.to_owned())) {
        problems.push(Problem::Denies { reason });
        ingress = Some(vec![deny_all()]);
        egress = Some(vec![deny_all()]);
        sets.clear();
    }
    let selector = applies_to(namespace, parts)
        .map_err(|reason| problems.push(Problem::Unselective { reason }))
        .ok();
    let id = PolicyId::new(kind, namespace, given(parts.metadata, tier));
    let mut compiled = Compiled {
        rank: rank(&target(&id).unwrap_or_else(|| id.clone())),
        id,
        tier: tier.to_owned(),
        order: parts.order.unwrap_or(f64::INFINITY),
        selector,
        ingress: ingress.filter(|_| directions.0),
        egress: egress.filter(|_| directions.1 && parts.stage != Stage::PreDnat),
        stage: parts.stage,
        everywhere: parts
            .hints
            .contains(&PerformanceHint::AssumeNeededOnEveryNode),
        staged,
        sets,
        problems,
    };
    // Sets of rules for a direction that the policy does not decide are not needed.
    let rules = compiled.ingress.iter().chain(&compiled.egress).flatten();
    keep_used(&mut compiled.sets, rules);
    Some(compiled)
}

/// Whether a policy decides on ingress and on egress. One that does not say decides on both, as in
/// Calico's agent; clients always say.
fn directions(types: &[PolicyType], flaws: &mut Problems) -> (bool, bool) {
    let mut known = true;
    flaws.items("types", types, |flaws, kind| {
        if let PolicyType::Other(text) = kind {
            known = false;
            flaws.refuse(text, "Ingress, Egress");
        }
    });
    if types.is_empty() || !known {
        return (true, true);
    }
    (
        types.contains(&PolicyType::Ingress),
        types.contains(&PolicyType::Egress),
    )
}

/// The one selector of a policy's endpoints.
fn applies_to(namespace: Option<&str>, parts: &Parts<'_>) -> Result<Selector, String> {
    let parse = |field: &str, text: &str| {
        Selector::parse(text).map_err(|error| format!("spec.{field}: {error}"))
    };
    let mut selector = parse("selector", parts.selector)?;
    if let Some(namespace) = namespace {
        let within = Selector::equal(NAMESPACE_LABEL, namespace)
            .ok_or_else(|| format!("{namespace:?} is no namespace"))?;
        selector = selector.and(within);
    }
    if !parts.namespace_selector.is_empty() {
        let on = parse("namespaceSelector", parts.namespace_selector)?;
        selector = selector.and(on.on_namespace());
    }
    if !parts.account_selector.is_empty() {
        let under = parse("serviceAccountSelector", parts.account_selector)?;
        selector = selector.and(if namespace.is_some() {
            under.on_service_account()
        } else {
            under.under_service_account()
        });
    }
    Ok(selector)
}

impl Compiled {
    /// The policy that this staged one would replace or delete.
    pub(crate) fn target(&self) -> Option<PolicyId> {
        target(&self.id)
    }
}

/// Leaves only the sets that rules name.
fn keep_used<'a>(sets: &mut Sets, rules: impl Iterator<Item = &'a Rule>) {
    let mut used: BTreeSet<SetId> = BTreeSet::new();
    for side in rules.flat_map(|rule| [&rule.source, &rule.destination]) {
        used.extend(side.sets.iter().chain(&side.not_sets));
        used.extend(side.named_ports.iter().chain(&side.not_named_ports));
        used.extend(&side.service);
    }
    sets.retain(|id, _| used.contains(id));
}

/// The policy that a staged one is for; `None` where it is in force itself.
fn target(id: &PolicyId) -> Option<PolicyId> {
    let (kind, prefix) = match id.kind {
        PolicyKind::StagedGlobalNetworkPolicy => (PolicyKind::GlobalNetworkPolicy, ""),
        PolicyKind::StagedNetworkPolicy => (PolicyKind::NetworkPolicy, ""),
        PolicyKind::StagedKubernetesNetworkPolicy => {
            (PolicyKind::NetworkPolicy, kubernetes::PREFIX)
        }
        PolicyKind::GlobalNetworkPolicy | PolicyKind::NetworkPolicy => return None,
    };
    let name = format!("{prefix}{}", id.name);
    Some(PolicyId::new(kind, id.namespace.as_deref(), name))
}

fn rank(id: &PolicyId) -> String {
    let namespace = id.namespace.as_deref().unwrap_or_default();
    format!("{}/{namespace}/{}", id.name, id.kind.kind())
}

/// A rule that drops everything.
fn deny_all() -> Rule {
    Compiler::new(None)
        .rules("", &[Stored::of(StoredAction::Deny)])
        .remove(0)
}
