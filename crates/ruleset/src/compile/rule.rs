//! One rule of a policy as rules of nftables.

use std::collections::{BTreeMap, BTreeSet};

use margay_model::{Cidr, Family};
use margay_policy::{Action, Icmp, PortRange, Rule as PolicyRule, SetId, Side as PolicySide};

use super::names::{self, Part};
use super::settings::{Deny, Direction, ICMP, ICMPV6, SCTP, Settings, TCP, UDP};
use super::{denial, interval};
use crate::expression::{Limit, Reject};
use crate::{DataType, Field, Key, Rule, Set, Side, Statement, Verdict};

/// What `Allow` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allow {
    /// Accepts.
    Accept,
    /// Accepts and keeps the packet from connection tracking.
    Untracked,
    /// Accepts for the host's later chains too.
    PreDnat,
}

/// Where rules stand and what surrounds them.
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    /// Whether a set has members that are more than one address.
    pub(super) is_wide: &'a dyn Fn(SetId, Family) -> bool,
    /// The families that sets have members of.
    pub(super) families: &'a BTreeSet<Family>,
    pub(super) allow: Allow,
    pub(super) direction: Direction,
    /// Whether `Pass` goes on with the next tier, or else with the next profile.
    pub(super) in_tier: bool,
    pub(super) tier: &'a str,
    /// The policy's or profile's name, for people.
    pub(super) owner: &'a str,
}

/// Rules, and the sets of constants that they read, by name.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) rules: Vec<Rule>,
    pub(super) constants: BTreeMap<String, Set>,
}

/// Statements that have to hold together.
type All = Vec<Statement>;
/// Alternatives, one of which has to hold.
type Any = Vec<All>;

impl Compiled {
    /// Appends what says the same as a rule of policy.
    pub(super) fn push(&mut self, rule: &PolicyRule, context: &Context<'_>) {
        let families = match rule.family {
            Some(family) => vec![Some(family)],
            None if needs_family(rule) => vec![Some(Family::V4), Some(Family::V6)],
            None => vec![None],
        };
        for family in families {
            let Some(conditions) = self.conditions(rule, family, context) else {
                continue;
            };
            for all in product(conditions) {
                let rule = finish(all, rule, context);
                self.rules.push(rule);
            }
        }
    }

    /// What has to hold, each as alternatives; `None` if nothing can match.
    fn conditions(
        &mut self,
        rule: &PolicyRule,
        family: Option<Family>,
        context: &Context<'_>,
    ) -> Option<Vec<Any>> {
        // Sets of a family without members are not there: nothing is in them.
        let empty = family.is_some_and(|family| !context.families.contains(&family));
        if empty && reads_members(rule) {
            return None;
        }
        let mut conditions: Vec<Any> = Vec::new();
        let mut must = |statement| conditions.push(vec![vec![statement]]);
        if let Some(family) = family {
            must(Statement::Family(family));
        }
        if let Some(protocol) = rule.protocol {
            must(Statement::protocol(protocol));
        }
        if let Some(protocol) = rule.not_protocol {
            must(Statement::Is {
                field: Field::Protocol,
                value: [protocol].into(),
                negated: true,
            });
        }
        for (icmp, negated) in [(rule.icmp, false), (rule.not_icmp, true)] {
            if let (Some(icmp), Some(family)) = (icmp, family) {
                let own = if family == Family::V4 { ICMP } else { ICMPV6 };
                if rule.protocol.is_some_and(|protocol| protocol != own) {
                    return None;
                }
                conditions.push(vec![self.icmp(icmp, family, negated)]);
            }
        }
        for (policy_side, side) in [
            (&rule.source, Side::Source),
            (&rule.destination, Side::Destination),
        ] {
            self.addresses(policy_side, side, family, context, &mut conditions)?;
            let readable = family.filter(|_| !empty);
            self.ports(policy_side, side, readable, rule.protocol, &mut conditions)?;
        }
        Some(conditions)
    }

    fn icmp(&mut self, icmp: Icmp, family: Family, negated: bool) -> All {
        let own = if family == Family::V4 { ICMP } else { ICMPV6 };
        let mut all = vec![Statement::protocol(own)];
        let kind = Field::IcmpType(family);
        match (icmp.code, negated) {
            (None, negated) => all.push(Statement::Is {
                field: kind,
                value: [icmp.kind].into(),
                negated,
            }),
            (Some(code), false) => {
                all.push(Statement::is(kind, [icmp.kind]));
                all.push(Statement::is(Field::IcmpCode(family), [code]));
            }
            (Some(code), true) => {
                let fields = [kind, Field::IcmpCode(family)];
                let types = fields.into_iter().filter_map(Field::data_type);
                let set = Set::new(types.collect::<Vec<_>>());
                let key = Key::concatenation(&[&[icmp.kind], &[code]]);
                let name = self.constant("xi", set.with([key]));
                all.push(Statement::without(fields, &name));
            }
        }
        all
    }

    fn addresses(
        &mut self,
        from: &PolicySide,
        side: Side,
        family: Option<Family>,
        context: &Context<'_>,
        conditions: &mut Vec<Any>,
    ) -> Option<()> {
        let Some(family) = family else {
            return Some(());
        };
        let field = Field::Address(side, family);
        if !from.nets.is_empty() {
            let statement = self.nets(&from.nets, side, family, false)?;
            conditions.push(vec![vec![statement]]);
        }
        if let Some(statement) = self.nets(&from.not_nets, side, family, true) {
            conditions.push(vec![vec![statement]]);
        }
        let hosts = |id: &SetId| names::set(*id, Part::Hosts, family);
        let nets = |id: &SetId| names::set(*id, Part::Nets, family);
        for id in &from.sets {
            let mut any = vec![vec![Statement::within([field], &hosts(id))]];
            if (context.is_wide)(*id, family) {
                any.push(vec![Statement::within([field], &nets(id))]);
            }
            conditions.push(any);
        }
        let there = context.families.contains(&family);
        for id in from.not_sets.iter().filter(|_| there) {
            let mut all = vec![Statement::without([field], &hosts(id))];
            if (context.is_wide)(*id, family) {
                all.push(Statement::without([field], &nets(id)));
            }
            conditions.push(vec![all]);
        }
        Some(())
    }

    /// `None` if none of the prefixes is of the family.
    fn nets(
        &mut self,
        nets: &[Cidr],
        side: Side,
        family: Family,
        negated: bool,
    ) -> Option<Statement> {
        let own: Vec<_> = nets.iter().filter(|net| net.family() == family).collect();
        match own.as_slice() {
            [] => None,
            [prefix] if prefix.length() > 0 => Some(Statement::Prefix {
                side,
                prefix: **prefix,
                negated,
            }),
            _ => {
                let set = Set::new([DataType::address(family)]).with_intervals();
                let set = set.with(interval::keys(nets, family));
                let set = self.constant(&format!("x{}", names::digit(family)), set);
                Some(Statement::In {
                    fields: vec![Field::Address(side, family)],
                    set,
                    negated,
                })
            }
        }
    }

    fn ports(
        &mut self,
        from: &PolicySide,
        side: Side,
        family: Option<Family>,
        protocol: Option<u8>,
        conditions: &mut Vec<Any>,
    ) -> Option<()> {
        let named = |ids: &[SetId], negated: bool| -> Vec<Statement> {
            let Some(family) = family else {
                return Vec::new();
            };
            let ids = ids.iter();
            let statements = ids.map(|id| Statement::In {
                fields: vec![
                    Field::Address(side, family),
                    Field::Protocol,
                    Field::Port(side),
                ],
                set: names::set(*id, Part::Ports, family),
                negated,
            });
            statements.collect()
        };
        let mut any: Any = named(&from.named_ports, false)
            .into_iter()
            .map(|s| vec![s])
            .collect();
        if !from.ports.is_empty() {
            any.push(vec![self.port_ranges(&from.ports, side, protocol, false)]);
        }
        if !any.is_empty() {
            conditions.push(any);
        }
        let mut none = named(&from.not_named_ports, true);
        if !from.not_ports.is_empty() {
            none.push(self.port_ranges(&from.not_ports, side, protocol, true));
        }
        if !none.is_empty() {
            conditions.push(vec![none]);
        }
        if let Some(service) = from.service {
            conditions.push(vec![named(&[service], false)]);
        }
        Some(())
    }

    fn port_ranges(
        &mut self,
        ranges: &[PortRange],
        side: Side,
        protocol: Option<u8>,
        negated: bool,
    ) -> Statement {
        let field = Field::Port(side);
        match (ranges, protocol) {
            ([range], Some(protocol)) if has_ports(protocol) && range.first == range.last => {
                return Statement::Is {
                    field,
                    value: range.first.to_be_bytes().into(),
                    negated,
                };
            }
            ([range], Some(protocol)) if has_ports(protocol) && !negated => {
                return Statement::Between {
                    field,
                    first: range.first.to_be_bytes().into(),
                    last: range.last.to_be_bytes().into(),
                };
            }
            _ => {}
        }
        let protocols = protocol.map_or_else(|| vec![TCP, UDP, SCTP], |protocol| vec![protocol]);
        let clauses = protocols.iter().flat_map(|protocol| {
            ranges
                .iter()
                .map(|range| (*protocol, range.first, range.last))
        });
        let set = self.constant("xp", port_set(clauses));
        Statement::In {
            fields: vec![Field::Protocol, field],
            set,
            negated,
        }
    }

    /// A set of constants is named by what is in it, so that equal ones are one.
    fn constant(&mut self, prefix: &str, set: Set) -> String {
        let name = format!("{prefix}-{}", names::hash(&format!("{set:?}")));
        self.constants.insert(name.clone(), set);
        name
    }
}

/// A set of protocols and ports: slow intervals only where there are any.
pub(super) fn port_set(clauses: impl IntoIterator<Item = (u8, u16, u16)>) -> Set {
    let merged = merge_ports(clauses);
    let set = Set::new([DataType::Protocol, DataType::Port]);
    let set = match merged.iter().all(|(_, first, last)| first == last) {
        true => set,
        false => set.with_intervals(),
    };
    set.with(
        merged
            .into_iter()
            .map(|(protocol, first, last)| port_key(protocol, first, last)),
    )
}

pub(super) fn port_key(protocol: u8, first: u16, last: u16) -> Key {
    let protocol: &[u8] = &[protocol];
    let (first, last) = (first.to_be_bytes(), last.to_be_bytes());
    Key::intervals(&[(protocol, protocol), (&first, &last)])
}

/// Ranges that do not meet: the kernel takes others, and answers wrongly.
pub(super) fn merge_ports(
    clauses: impl IntoIterator<Item = (u8, u16, u16)>,
) -> Vec<(u8, u16, u16)> {
    let mut all: Vec<_> = clauses.into_iter().collect();
    all.sort_unstable();
    let mut merged: Vec<(u8, u16, u16)> = Vec::new();
    for (protocol, first, last) in all {
        match merged.last_mut() {
            Some((before, _, end)) if *before == protocol && first <= *end => {
                *end = last.max(*end);
            }
            _ => merged.push((protocol, first, last)),
        }
    }
    merged
}

/// Whether the kernel reads ports of this protocol where those of TCP stand.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP | 33 | 136)
}

fn needs_family(rule: &PolicyRule) -> bool {
    let side = |side: &PolicySide| {
        !(side.nets.is_empty()
            && side.not_nets.is_empty()
            && side.sets.is_empty()
            && side.not_sets.is_empty()
            && side.named_ports.is_empty()
            && side.not_named_ports.is_empty()
            && side.service.is_none())
    };
    side(&rule.source) || side(&rule.destination) || rule.icmp.is_some() || rule.not_icmp.is_some()
}

/// Whether a rule matches members of sets only.
fn reads_members(rule: &PolicyRule) -> bool {
    let side = |side: &PolicySide| {
        let named = !side.named_ports.is_empty() && side.ports.is_empty();
        !side.sets.is_empty() || side.service.is_some() || named
    };
    side(&rule.source) || side(&rule.destination)
}

/// Every way to take one alternative of each condition.
fn product(conditions: Vec<Any>) -> Vec<All> {
    conditions.into_iter().fold(vec![Vec::new()], |taken, any| {
        let each = taken.iter().flat_map(|all| {
            any.iter()
                .map(move |one| [all.as_slice(), one.as_slice()].concat())
        });
        each.collect()
    })
}

fn finish(mut all: All, rule: &PolicyRule, context: &Context<'_>) -> Rule {
    let label = names::label(context.tier, context.owner, &rule.index.to_string());
    match rule.action {
        Action::Log => {
            all.extend(context.settings.log.limit.map(|(rate, burst)| {
                Statement::Limit(Limit {
                    rate,
                    seconds: 60,
                    burst,
                    over: false,
                })
            }));
            all.push(Statement::Log {
                group: context.settings.log.group,
                prefix: denial::prefix('L', Some(context.direction), &label),
            });
        }
        Action::Allow => {
            all.push(Statement::Counter);
            match context.allow {
                Allow::Accept => {}
                Allow::Untracked => all.push(Statement::Notrack),
                Allow::PreDnat => {
                    let bit = context.settings.marks.accepted;
                    all.push(Statement::SetMark {
                        mask: bit,
                        value: bit,
                    });
                }
            }
            all.push(Statement::Verdict(Verdict::Accept));
        }
        Action::Deny => {
            all.push(Statement::Counter);
            all.push(denial(context.settings.deny, context.allow));
        }
        Action::Pass => {
            all.push(Statement::Counter);
            if context.in_tier {
                let bit = context.settings.marks.pass;
                all.push(Statement::SetMark {
                    mask: bit,
                    value: bit,
                });
            }
            all.push(Statement::Verdict(Verdict::Return));
        }
    }
    Rule::new(all).commented(&label)
}

/// How a packet is denied. Before routing there is nobody to answer.
pub(super) fn denial(deny: Deny, allow: Allow) -> Statement {
    match (deny, allow) {
        (Deny::Reject, Allow::Accept) => Statement::Reject(Reject::Prohibited),
        _ => Statement::Verdict(Verdict::Drop),
    }
}
