//! Policies as BIRD's filters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use margay_bgp::policy::{Owners, priority_of_preference};
use margay_bgp::{NextHopMode, Operation, Policy, Rule, Verdict};
use margay_model::{Cidr, Family};

use super::expression::{Expression, Place, among, each, join, pair, range, triple};
use super::{Daemon, harmless, number};

/// The filters that peers share, and their texts.
#[derive(Debug)]
pub(super) struct Filters<'a> {
    /// Functions and filters, each before its use.
    pub(super) text: String,
    daemon: Daemon<'a>,
    functions: Functions,
    known: Vec<(Key<'a>, String)>,
}

/// What a filter's text depends on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Key<'a> {
    pub(super) policy: &'a Arc<Policy>,
    pub(super) direction: Direction,
    pub(super) family: Family,
    pub(super) external: bool,
    /// The session's own mode, which a policy may repeat but not change.
    pub(super) next_hop: NextHopMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Import,
    Export,
}

/// Functions that filters call.
#[derive(Debug, Default)]
pub(super) struct Functions {
    text: String,
    owners: Vec<(Arc<Owners>, Family, String)>,
}

impl<'a> Filters<'a> {
    pub(super) fn new(daemon: &Daemon<'a>) -> Self {
        Self {
            text: String::new(),
            daemon: *daemon,
            functions: Functions::default(),
            known: Vec::new(),
        }
    }

    /// The name of a policy's filter, which is written if it is not there yet.
    ///
    /// # Errors
    /// What BIRD cannot do of it.
    pub(super) fn name(&mut self, key: Key<'a>) -> Result<String, String> {
        if let Some((_, name)) = self.known.iter().find(|(other, _)| *other == key) {
            return Ok(name.clone());
        }
        let place = Place {
            family: key.family,
            external: key.external,
            routes: self.daemon.routes,
        };
        let mut body = String::new();
        match key.direction {
            // RFC 8326 §4: whatever is about to go is the last choice.
            Direction::Import if key.external => {
                body.push_str("  if (65535,0) ~ bgp_community then bgp_local_pref = 0;\n");
            }
            Direction::Import => {}
            Direction::Export => {
                body.push_str("  if source != RTS_BGP && source != RTS_STATIC then reject;\n");
            }
        }
        for rule in &key.policy.rules {
            let conditions = each(&rule.conditions, &place, &mut self.functions);
            body.push_str(&statement(
                rule,
                Expression::joined(conditions, true),
                &key,
            )?);
        }
        body.push_str(match key.policy.otherwise {
            Verdict::Accept => "  accept;\n",
            Verdict::Reject => "  reject;\n",
        });
        let direction = match key.direction {
            Direction::Import => "import",
            Direction::Export => "export",
        };
        let family = number(key.family);
        let name = format!("margay_{direction}{}_v{family}", self.known.len() + 1);
        self.text
            .push_str(&std::mem::take(&mut self.functions.text));
        let comment = harmless(&key.policy.name);
        let _ = write!(self.text, "\n# {comment}\nfilter {name} {{\n{body}}}\n");
        self.known.push((key, name.clone()));
        Ok(name)
    }
}

fn statement(rule: &Rule, when: Expression, key: &Key<'_>) -> Result<String, String> {
    let when = match when {
        Expression::Known(false) => return Ok(String::new()),
        Expression::Known(true) => String::new(),
        Expression::Asked(text) => format!("if {text} then "),
    };
    let mut acts = String::new();
    if rule.verdict != Some(Verdict::Reject) {
        for operation in &rule.operations {
            acts.push_str(&act(operation, key)?);
        }
    }
    acts.push_str(match rule.verdict {
        None => "",
        Some(Verdict::Accept) => "accept; ",
        Some(Verdict::Reject) => "reject; ",
    });
    if acts.is_empty() {
        return Ok(String::new());
    }
    let name = harmless(&rule.name);
    Ok(format!("  # {name}\n  {when}{{ {acts}}}\n"))
}

fn act(operation: &Operation, key: &Key<'_>) -> Result<String, String> {
    Ok(match operation {
        Operation::AddCommunity(community) => {
            format!("bgp_community.add({}); ", pair(*community))
        }
        Operation::AddLargeCommunity(community) => {
            format!("bgp_large_community.add({}); ", triple(*community))
        }
        Operation::RemoveCommunity(community) => {
            format!("bgp_community.delete([{}]); ", pair(*community))
        }
        Operation::RemoveLargeCommunity(community) => {
            format!("bgp_large_community.delete([{}]); ", triple(*community))
        }
        Operation::ClearCommunities => {
            "bgp_community.empty; bgp_large_community.empty; ".to_owned()
        }
        Operation::PrependAs(numbers) => {
            let last_first = numbers.iter().rev();
            last_first
                .map(|number| format!("bgp_path.prepend({number}); "))
                .collect()
        }
        Operation::SetLocalPref(value) => format!("bgp_local_pref = {value}; "),
        Operation::SetPriority(value) => {
            format!("bgp_local_pref = {}; ", priority_of_preference(*value))
        }
        Operation::SetMed(Some(value)) => format!("bgp_med = {value}; "),
        Operation::SetMed(None) => "unset(bgp_med); ".to_owned(),
        Operation::SetNextHop(mode) if *mode == key.next_hop => String::new(),
        Operation::SetNextHop(_) => {
            return Err(
                "a policy chooses the next hop of some routes, which BIRD does by session only; \
                 set nextHopMode of the peer"
                    .to_owned(),
            );
        }
    })
}

impl Functions {
    /// The name of the function that tells whether a learned route comes from its owner.
    pub(super) fn owner(&mut self, owners: &Arc<Owners>, family: Family) -> String {
        let same = |(other, of, _): &&(Arc<Owners>, Family, String)| {
            *of == family && (Arc::ptr_eq(other, owners) || other == owners)
        };
        if let Some((_, _, name)) = self.owners.iter().find(same) {
            return name.clone();
        }
        let name = format!("margay_owner{}_v{}", self.owners.len() + 1, number(family));
        let _ = write!(
            self.text,
            "\nfunction {name}() {{\n{}}}\n",
            owner_body(owners, family)
        );
        self.owners.push((Arc::clone(owners), family, name.clone()));
        name
    }
}

/// The longest prefix decides: those within others are asked before these.
fn owner_body(owners: &Owners, family: Family) -> String {
    let own: BTreeMap<&Cidr, _> = owners
        .by_prefix
        .iter()
        .filter(|(prefix, _)| prefix.family() == family)
        .collect();
    let depth = |prefix: &Cidr| {
        let around = (0..prefix.length()).filter_map(|length| Cidr::new(prefix.address(), length));
        around.filter(|outer| own.contains_key(outer)).count()
    };
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (prefix, addresses) in &own {
        let group = groups
            .entry((std::cmp::Reverse(depth(prefix)), *addresses))
            .or_default();
        group.extend(range(prefix, prefix.length(), family.width()));
    }
    let mut body = String::new();
    for ((_, addresses), prefixes) in groups {
        let Expression::Asked(within) = among(prefixes) else {
            continue;
        };
        if addresses.is_empty() {
            let _ = writeln!(body, "  if {within} then return false;");
            continue;
        }
        let hops = join(addresses, ", ");
        let peers = join(addresses.union(&owners.reflectors), ", ");
        let _ = writeln!(
            body,
            "  if {within} then return bgp_next_hop ~ [ {hops} ] && from ~ [ {peers} ];"
        );
    }
    body.push_str("  return false;\n");
    body
}
