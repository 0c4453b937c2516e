//! From a BGPFilter to rules of a policy.

use std::sync::Arc;

use margay_bgp::policy::{Interfaces, PrefixMatch, PrefixOperator};
use margay_bgp::{Community, Condition, LargeCommunity, Operation, Rule, Verdict};
use margay_model::resource::bgp::{
    BGPFilterSpec, FilterAction, FilterOperation, FilterRule, FilterSource, MatchOperator, PeerType,
};
use margay_model::{Cidr, Family};

use crate::configuration::PRIORITY_MAX;

/// The rules of a filter, in both directions and for both families.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Filter {
    pub(crate) import: Vec<Rule>,
    pub(crate) export: Vec<Rule>,
}

/// Reads a filter.
///
/// # Errors
/// The first rule that makes no sense, with the reason.
pub(crate) fn read(name: &str, spec: &BGPFilterSpec) -> Result<Filter, String> {
    if let Some(field) = spec.extra.keys().next() {
        return Err(format!(
            "field {field} is not known here; take it out, or use a version that has it"
        ));
    }
    let list = |field: &'static str, family, rules: &[FilterRule]| {
        rules
            .iter()
            .enumerate()
            .map(|(number, rule)| {
                let place = format!("{field}[{number}]");
                let what: Arc<str> = format!("{name} {place}").into();
                read_rule(what, family, rule).map_err(|reason| format!("{place}: {reason}"))
            })
            .collect::<Result<Vec<Rule>, String>>()
    };
    let mut filter = Filter {
        import: list("importV4", Family::V4, &spec.import_v4)?,
        export: list("exportV4", Family::V4, &spec.export_v4)?,
    };
    filter
        .import
        .extend(list("importV6", Family::V6, &spec.import_v6)?);
    filter
        .export
        .extend(list("exportV6", Family::V6, &spec.export_v6)?);
    Ok(filter)
}

fn read_rule(name: Arc<str>, family: Family, rule: &FilterRule) -> Result<Rule, String> {
    // A rule without one of its conditions would take what it is not meant for.
    if let Some(field) = unknown_fields(rule).next() {
        return Err(format!(
            "field {field} is not known here; take it out, or use a version that has it"
        ));
    }
    let mut conditions = vec![Condition::Family(family)];
    conditions.extend(prefix(family, rule)?);
    match &rule.source {
        None => {}
        Some(FilterSource::RemotePeers) => conditions.push(Condition::FromPeers),
        Some(FilterSource::Other(other)) => return Err(unknown("source", other)),
    }
    if !rule.interface.is_empty() {
        conditions.push(Condition::Interface(Interfaces(rule.interface.clone())));
    }
    match &rule.peer_type {
        None => {}
        Some(PeerType::External) => conditions.push(Condition::External),
        Some(PeerType::Internal) => conditions.push(Condition::Internal),
        Some(PeerType::Other(other)) => return Err(unknown("peerType", other)),
    }
    for text in rule.communities.iter().flat_map(|wanted| &wanted.values) {
        conditions.push(match community(text)? {
            Either::Standard(community) => Condition::Community(community),
            Either::Large(community) => Condition::LargeCommunity(community),
        });
    }
    if !rule.as_path_prefix.is_empty() {
        conditions.push(Condition::AsPathPrefix(rule.as_path_prefix.clone()));
    }
    if let Some(told) = rule.priority {
        conditions.push(Condition::Priority(priority(told)?));
    }
    let verdict = match &rule.action {
        FilterAction::Accept => Verdict::Accept,
        FilterAction::Reject => Verdict::Reject,
        FilterAction::Other(other) => return Err(unknown("action", other)),
    };
    if verdict == Verdict::Reject && !rule.operations.is_empty() {
        return Err("operations go with action Accept only".to_owned());
    }
    let operations = rule.operations.iter().map(operation);
    Ok(Rule {
        name,
        conditions,
        operations: operations.collect::<Result<_, _>>()?,
        verdict: Some(verdict),
    })
}

fn unknown_fields(rule: &FilterRule) -> impl Iterator<Item = &String> {
    let lengths = rule.prefix_length.iter();
    let communities = rule.communities.iter();
    let operations = rule.operations.iter();
    let operations = operations.flat_map(|operation| {
        let add = operation.add_community.iter();
        let prepend = operation.prepend_as_path.iter();
        let set = operation.set_priority.iter();
        let parts = add.flat_map(|add| add.extra.keys());
        let parts = parts.chain(prepend.flat_map(|prepend| prepend.extra.keys()));
        let parts = parts.chain(set.flat_map(|set| set.extra.keys()));
        operation.extra.keys().chain(parts)
    });
    let parts = lengths.flat_map(|lengths| lengths.extra.keys());
    let parts = parts.chain(communities.flat_map(|communities| communities.extra.keys()));
    rule.extra.keys().chain(parts).chain(operations)
}

fn prefix(family: Family, rule: &FilterRule) -> Result<Option<Condition>, String> {
    if rule.cidr.is_empty() {
        return match rule.prefix_length {
            None => Ok(None),
            Some(_) => Err("prefixLength needs a cidr".to_owned()),
        };
    }
    let cidr: Cidr = rule
        .cidr
        .parse()
        .map_err(|error| format!("cidr {:?}: {error}", rule.cidr))?;
    if cidr.family() != family {
        return Err(format!("cidr {cidr} is no {family} prefix"));
    }
    let operator = match &rule.match_operator {
        Some(MatchOperator::Equal) => PrefixOperator::Equal,
        Some(MatchOperator::NotEqual) => PrefixOperator::NotEqual,
        Some(MatchOperator::In) => PrefixOperator::In,
        Some(MatchOperator::NotIn) => PrefixOperator::NotIn,
        Some(MatchOperator::Other(other)) => return Err(unknown("matchOperator", other)),
        None => return Err("a cidr needs a matchOperator".to_owned()),
    };
    let length = |told: Option<i64>| match told {
        None => Ok(None),
        Some(told) => match u8::try_from(told) {
            Ok(length) if length <= family.width() => Ok(Some(length)),
            _ => Err(format!(
                "prefixLength {told} is not within 0 and {}",
                family.width()
            )),
        },
    };
    let lengths = rule.prefix_length.as_ref();
    Ok(Some(Condition::Prefix(PrefixMatch {
        cidr,
        operator,
        min: length(lengths.and_then(|lengths| lengths.min))?,
        max: length(lengths.and_then(|lengths| lengths.max))?,
    })))
}

fn operation(told: &FilterOperation) -> Result<Operation, String> {
    match (
        &told.add_community,
        &told.prepend_as_path,
        &told.set_priority,
    ) {
        (Some(add), None, None) => Ok(match community(&add.value)? {
            Either::Standard(community) => Operation::AddCommunity(community),
            Either::Large(community) => Operation::AddLargeCommunity(community),
        }),
        (None, Some(prepend), None) => Ok(Operation::PrependAs(prepend.prefix.clone())),
        (None, None, Some(set)) => {
            let value = set.value.ok_or("setPriority needs a value")?;
            Ok(Operation::SetPriority(priority(value)?))
        }
        _ => Err(
            "an operation is exactly one of addCommunity, prependASPath and setPriority".to_owned(),
        ),
    }
}

/// A community of either kind.
pub(crate) enum Either {
    Standard(Community),
    Large(LargeCommunity),
}

/// Reads a community of either kind.
pub(crate) fn community(text: &str) -> Result<Either, String> {
    if let Ok(community) = text.parse() {
        return Ok(Either::Standard(community));
    }
    match text.parse() {
        Ok(community) => Ok(Either::Large(community)),
        Err(_) => Err(format!(
            "{text:?} is no community; write aa:nn, each to 65535, or aa:nn:mm, each to 4294967295"
        )),
    }
}

fn priority(told: i64) -> Result<u32, String> {
    match u32::try_from(told) {
        Ok(priority) if (1..=PRIORITY_MAX).contains(&priority) => Ok(priority),
        _ => Err(format!(
            "priority {told} is not within 1 and {PRIORITY_MAX}"
        )),
    }
}

fn unknown(field: &str, word: &str) -> String {
    format!("{field} {word:?} is not known")
}
