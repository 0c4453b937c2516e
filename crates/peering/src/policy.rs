//! What is taken from peers and announced to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_bgp::policy::{Owners, PrefixSet};
use margay_bgp::{Condition, Operation, Policy, Rule, Verdict};
use margay_model::Cidr;

use crate::Problem;
use crate::filter::{Either, Filter, community, read};
use crate::input::Input;
use crate::routes::{self, TAG_BLOCK, TAG_HOST, TAG_SERVICE};

/// The parts of policies that sessions share.
#[derive(Debug)]
pub(crate) struct Policies {
    filters: BTreeMap<String, Result<Filter, String>>,
    /// What nodes may announce: prefixes of pools, each by its owner.
    of_nodes: Vec<Condition>,
    /// What is announced where no filter decides.
    announced: Vec<Rule>,
}

/// The policies of one session.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) import: Arc<Policy>,
    pub(crate) export: Arc<Policy>,
}

impl Policies {
    pub(crate) fn new(input: &Input<'_>, problems: &mut BTreeSet<Problem>) -> Self {
        let filters: BTreeMap<_, _> = input
            .filters
            .iter()
            .map(|(name, spec)| (name.clone(), read(name, spec)))
            .collect();
        for (name, filter) in &filters {
            if let Err(reason) = filter {
                problems.insert(Problem {
                    object: format!("BGPFilter {name}"),
                    reason: reason.clone(),
                });
            }
        }
        let pools = PrefixSet::within(input.pools.iter().map(|pool| pool.cidr));
        Self {
            filters,
            of_nodes: vec![
                Condition::PrefixSet(Arc::new(pools)),
                Condition::Owner(Arc::new(owners(input))),
            ],
            announced: announced(input, problems),
        }
    }

    /// The policies of a session with filters of these names; with a node, or with a router.
    ///
    /// # Errors
    /// A filter that is not there or makes no sense.
    pub(crate) fn of(&self, names: &[String], node: bool) -> Result<Pair, String> {
        let mut import = Vec::new();
        let mut export = Vec::new();
        if node {
            import.push(Rule::new(
                "not of a pool, or not from its owner",
                vec![Condition::Not(Box::new(Condition::All(
                    self.of_nodes.clone(),
                )))],
                Verdict::Reject,
            ));
        }
        for name in names {
            let filter = match self.filters.get(name) {
                None => {
                    return Err(format!(
                        "filter {name} does not exist; make it, or take it out"
                    ));
                }
                Some(Err(_)) => {
                    return Err(format!(
                        "filter {name} makes no sense; see its own condition"
                    ));
                }
                Some(Ok(filter)) => filter,
            };
            import.extend(filter.import.iter().cloned());
            export.extend(filter.export.iter().cloned());
        }
        export.extend(self.announced.iter().cloned());
        let policy = |direction: &str, rules, otherwise| {
            Arc::new(Policy {
                name: match names {
                    [] => direction.to_owned(),
                    names => format!("{direction} by {}", names.join(", ")),
                },
                rules,
                otherwise,
            })
        };
        Ok(Pair {
            import: policy("import", import, Verdict::Accept),
            export: policy("export", export, Verdict::Reject),
        })
    }
}

/// To whom the datastore gives what nodes announce.
fn owners(input: &Input<'_>) -> Owners {
    let mut owners = Owners::default();
    let borrowed = input.borrowed.iter();
    let borrowed = borrowed.map(|(address, node)| (Cidr::host(*address), node));
    let blocks = input.blocks.iter().map(|(cidr, node)| (*cidr, node));
    for (prefix, name) in blocks.chain(borrowed) {
        if let Some(node) = input.nodes.get(name) {
            owners.by_prefix.insert(prefix, node.addresses().collect());
        }
    }
    let reflectors = input
        .nodes
        .values()
        .filter(|node| node.cluster_id.is_some());
    owners.reflectors = reflectors.flat_map(crate::Node::addresses).collect();
    owners
}

fn announced(input: &Input<'_>, problems: &mut BTreeSet<Problem>) -> Vec<Rule> {
    let within = |export: bool| {
        let pools = input.pools.iter().filter(|pool| pool.export == export);
        Condition::PrefixSet(Arc::new(PrefixSet::within(pools.map(|pool| pool.cidr))))
    };
    let mut rules = vec![Rule::new(
        "pool with disableBGPExport",
        vec![within(false)],
        Verdict::Reject,
    )];
    rules.extend(communities(input, problems));
    let tags = [TAG_BLOCK, TAG_SERVICE].map(Condition::Tag).to_vec();
    rules.push(Rule::new(
        "own block or service",
        vec![Condition::Any(tags)],
        Verdict::Accept,
    ));
    rules.push(Rule::new(
        "own address of a pool",
        vec![Condition::Tag(TAG_HOST), within(true)],
        Verdict::Accept,
    ));
    let services = PrefixSet::within(routes::services(input).map(|(_, cidr)| cidr));
    let mut passed_on = vec![within(true)];
    let own = input.nodes.get(input.node);
    if own.is_some_and(|own| own.cluster_id.is_some()) {
        passed_on.push(Condition::PrefixSet(Arc::new(services)));
    }
    rules.push(Rule::new(
        "route of a peer",
        vec![Condition::FromPeers, Condition::Any(passed_on)],
        Verdict::Accept,
    ));
    rules
}

/// The communities of announced prefixes: the node's own where it has a list, else the cluster's.
fn communities(input: &Input<'_>, problems: &mut BTreeSet<Problem>) -> Vec<Rule> {
    let own = input
        .configuration_of(input.node)
        .filter(|spec| !spec.prefix_advertisements.is_empty());
    let name = match own {
        Some(_) => format!("node.{}", input.node),
        None => "default".to_owned(),
    };
    let Some(spec) = own.or_else(|| input.configuration()) else {
        return Vec::new();
    };
    let names = spec.communities.iter();
    let names: BTreeMap<&str, &str> = names
        .chain(
            input
                .configuration()
                .into_iter()
                .flat_map(|spec| &spec.communities),
        )
        .map(|community| (community.name.as_str(), community.value.as_str()))
        .collect();
    let mut complain = |reason: String| {
        problems.insert(Problem {
            object: format!("BGPConfiguration {name}"),
            reason,
        });
    };
    let mut rules = Vec::new();
    for advertisement in &spec.prefix_advertisements {
        let cidr: Cidr = match advertisement.cidr.parse() {
            Ok(cidr) => cidr,
            Err(error) => {
                complain(format!(
                    "prefixAdvertisements {:?}: {error}",
                    advertisement.cidr
                ));
                continue;
            }
        };
        let mut operations = Vec::new();
        for told in &advertisement.communities {
            let value = names.get(told.as_str()).copied().unwrap_or(told);
            match community(value) {
                Ok(Either::Standard(community)) => {
                    operations.push(Operation::AddCommunity(community));
                }
                Ok(Either::Large(community)) => {
                    operations.push(Operation::AddLargeCommunity(community));
                }
                Err(reason) => complain(format!("prefixAdvertisements {cidr}: {reason}")),
            }
        }
        let set = PrefixSet::within([cidr]);
        let conditions = vec![Condition::PrefixSet(Arc::new(set))];
        rules.push(Rule::change(
            format!("prefixAdvertisements {cidr}"),
            conditions,
            operations,
        ));
    }
    rules
}
