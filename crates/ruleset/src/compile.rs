//! From policy to our table, in increments.
//!
//! A [`Compiler`] holds the table as it should be. Each [`Delta`] of policy changes what follows
//! from it, and the table notes what that was. A pod's arrival changes elements only: its
//! addresses, its interface's places in the maps to classes, its membership in selectors' sets.

mod base;
mod class;
mod denial;
mod endpoint;
mod host;
mod interval;
mod lookup;
mod names;
mod rule;
mod sets;
mod settings;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use margay_model::Family;
use margay_policy::{
    Delta, Desired, EndpointId, Member, Policy, PolicyId, Profile, Rule as PolicyRule, SetChange,
    SetId, Workload,
};

use self::class::{ClassKey, Kind};
pub use self::denial::is_denial;
use self::endpoint::Own;
use self::host::Hosts;
use self::lookup::{Lookup, LookupKey};
use self::rule::{Allow, Compiled, Context};
use self::sets::{element_of, is_of, put_nets, put_set, sets_of};
pub use self::settings::{Deny, Direction, EndpointToHost, Log, Marks, Nat, Node, Pool, Settings};
use crate::{Chain, Changes, Element, Key, ObservedTable, Table, interface_bytes};

/// Holds our table as policy and the node ask for it.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    node: Node,
    desired: Desired,
    table: Table,
    /// Chains and sets that are there whatever policy says.
    fixed: BTreeSet<String>,
    /// Sets that have, or have had, members that are more than one address.
    wide: BTreeSet<(SetId, Family)>,
    /// Families of which sets have, or have had, members. Of others there is nothing in the kernel.
    families: BTreeSet<Family>,
    workloads: BTreeMap<EndpointId, Placed>,
    hosts: Hosts,
    classes: BTreeMap<ClassKey, class::Parts>,
    lookups: BTreeMap<LookupKey, Lookup>,
    /// The chains of policies and profiles that are in the table.
    owned: BTreeMap<String, Owner>,
}

/// A workload endpoint's part of the table.
#[derive(Debug)]
struct Placed {
    interface: String,
    ingress: ClassKey,
    egress: ClassKey,
    own: Own,
}

/// Whose rules a chain holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Policy(PolicyId, Direction, Allow),
    Profile(String, Direction),
}

impl Compiler {
    /// A table without endpoints: every interface of a workload is closed.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut table = Table::new(&settings.table, COMMENT);
        endpoint::add_sets(&mut table);
        base::add_sets(&settings, &mut table);
        base::put_chains(&settings, Some(&host::Wildcards::default()), &mut table);
        base::put_nat(&Node::default(), &mut table);
        base::put_tunnel_peers(&Node::default(), &mut table);
        let names = table.chains().keys().chain(table.sets().keys());
        let mut fixed: BTreeSet<String> = names.cloned().collect();
        fixed.insert(base::NAT.to_owned());
        base::put_chains(&settings, None, &mut table);
        Self {
            fixed,
            settings,
            node: Node::default(),
            desired: Desired::default(),
            table,
            wide: BTreeSet::new(),
            families: BTreeSet::from([Family::V4]),
            workloads: BTreeMap::new(),
            hosts: Hosts::default(),
            classes: BTreeMap::new(),
            lookups: BTreeMap::new(),
            owned: BTreeMap::new(),
        }
    }

    /// The table as it should be.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What has changed in the table since it was last asked.
    pub fn take_changes(&mut self) -> Changes {
        self.table.take_changes()
    }

    /// The same policy on the same node by other settings. The table is made anew: what has changed in
    /// it is known by comparison only.
    #[must_use]
    pub fn with_settings(self, settings: Settings) -> Self {
        let mut compiler = Self::new(settings);
        compiler.update(self.desired.into());
        compiler.set_node(self.node);
        compiler
    }

    /// By which settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the table lets a workload's interface pass as policy says.
    #[must_use]
    pub fn knows_interface(&self, interface: &str) -> bool {
        let from = self.table.sets().get(endpoint::FROM);
        from.is_some_and(|set| set.elements.contains_key(&interface_key(interface)))
    }

    /// What is to be in force.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Takes in what the node now is.
    pub fn set_node(&mut self, node: Node) {
        if self.node != node {
            base::put_nat(&node, &mut self.table);
            base::put_tunnel_peers(&node, &mut self.table);
            self.node = node;
            self.update_hosts();
            self.sweep();
        }
    }

    /// Takes in a change of policy.
    pub fn update(&mut self, delta: Delta) {
        let mut policies: BTreeSet<PolicyId> = delta.policies.keys().cloned().collect();
        let mut profiles: BTreeSet<String> = delta.profiles.keys().cloned().collect();
        let workloads: Vec<EndpointId> = delta.workloads.keys().cloned().collect();
        let hosts = !delta.hosts.is_empty() || !delta.removed_hosts.is_empty();
        let removed_workloads = delta.removed_workloads.clone();
        let mut structure = hosts
            || !policies.is_empty()
            || !profiles.is_empty()
            || !removed_workloads.is_empty()
            || !delta.removed_sets.is_empty();
        let members = self.widen(&delta);
        let widened = members.widened;
        let removed_sets = !delta.removed_sets.is_empty();
        self.desired.apply(delta);
        if removed_sets {
            self.wide
                .retain(|(id, _)| self.desired.sets.contains_key(id));
        }
        self.change_members(&members.changed);
        structure |= !widened.is_empty();
        if members.new_family {
            structure = true;
            policies.extend(self.desired.policies.keys().cloned());
            profiles.extend(self.desired.profiles.keys().cloned());
        }

        self.recompile(&policies, &profiles, &widened);
        for id in removed_workloads {
            if let Some(placed) = self.workloads.remove(&id) {
                Own::default().replace(Some(&placed.own), &mut self.table);
            }
        }
        // Before others take them, endpoints give up interfaces that they no longer have.
        for id in &workloads {
            let now = self
                .desired
                .workloads
                .get(id)
                .map(|workload| &workload.interface);
            if let Some(placed) = self.workloads.get_mut(id)
                && now != Some(&placed.interface)
            {
                Own::default().replace(Some(&std::mem::take(&mut placed.own)), &mut self.table);
            }
        }
        for id in workloads {
            structure |= self.place(&id);
        }
        if hosts {
            self.update_hosts();
        } else {
            self.put_base();
        }
        if structure {
            self.sweep();
        }
    }

    /// Notes sets that get their first member that is more than one address.
    fn widen(&mut self, delta: &Delta) -> Members {
        let mut members = Members::default();
        for (id, change) in &delta.sets {
            let added = match change {
                SetChange::New(set) => {
                    if let Some(old) = self.desired.sets.get(id) {
                        let all = old.members.union(&set.members).copied().collect();
                        members.changed.insert(*id, all);
                    }
                    &set.members
                }
                SetChange::Members { added, removed } => {
                    let all = added.iter().chain(removed).copied().collect();
                    members.changed.insert(*id, all);
                    added
                }
            };
            for member in added {
                let family = match member {
                    Member::Net(cidr) => cidr.family(),
                    Member::Port { address, .. } => Family::of(*address),
                };
                members.new_family |= self.families.insert(family);
                if let Member::Net(cidr) = member
                    && lookup::single(member).is_none()
                    && self.wide.insert((*id, cidr.family()))
                {
                    members.widened.insert(*id);
                }
            }
        }
        members
    }

    /// Brings the elements of sets, and addresses in lookups, up to date.
    fn change_members(&mut self, changed: &BTreeMap<SetId, BTreeSet<Member>>) {
        let mut addresses: BTreeMap<SetId, BTreeSet<IpAddr>> = BTreeMap::new();
        for (id, members) in changed {
            let Some(set) = self.desired.sets.get(id) else {
                continue;
            };
            for member in members {
                let is_member = set.members.contains(member);
                if let Some(address) = lookup::single(member) {
                    addresses.entry(*id).or_default().insert(address);
                }
                if let Some((part, family, key)) = element_of(member) {
                    let name = names::set(*id, part, family);
                    if is_member {
                        self.table.put_element(&name, key, Element::default());
                    } else {
                        self.table.remove_element(&name, &key);
                    }
                }
            }
            let nets = |member: &&Member| lookup::single(member).is_none();
            for family in [Family::V4, Family::V6] {
                let changed = members
                    .iter()
                    .filter(nets)
                    .any(|member| is_of(member, family));
                if changed {
                    put_nets(*id, family, &set.members, &mut self.table);
                }
            }
        }
        for (key, lookup) in &self.lookups {
            let read = addresses.iter().filter(|(id, _)| lookup.reads(**id));
            let read: BTreeSet<&IpAddr> = read.flat_map(|(_, addresses)| addresses).collect();
            for address in read {
                lookup.refresh(key, *address, &self.desired, &mut self.table);
            }
        }
    }

    /// Makes the chains anew that hold these policies' or profiles' rules or read these sets, and
    /// the classes that lead to them.
    fn recompile(
        &mut self,
        policies: &BTreeSet<PolicyId>,
        profiles: &BTreeSet<String>,
        sets: &BTreeSet<SetId>,
    ) {
        if policies.is_empty() && profiles.is_empty() && sets.is_empty() {
            return;
        }
        let read = |policy: &Policy| {
            let rules = policy.ingress.iter().chain(&policy.egress);
            rules.flat_map(sets_of).any(|id| sets.contains(&id))
        };
        let mut policies = policies.clone();
        if !sets.is_empty() {
            let readers = self
                .desired
                .policies
                .iter()
                .filter(|(_, policy)| read(policy));
            policies.extend(readers.map(|(id, _)| id.clone()));
        }
        let owned: Vec<_> = self
            .owned
            .iter()
            .map(|(n, o)| (n.clone(), o.clone()))
            .collect();
        for (name, owner) in owned {
            let concerned = match &owner {
                Owner::Policy(id, ..) => policies.contains(id),
                Owner::Profile(id, _) => profiles.contains(id) || !sets.is_empty(),
            };
            if concerned {
                self.put_owned(&name, &owner);
            }
        }
        let concerned = |key: &&ClassKey| {
            key.profiles
                .iter()
                .any(|profile| profiles.contains(profile))
                || policies.iter().any(|id| key.has_policy(id))
        };
        let classes: Vec<_> = self.classes.keys().filter(concerned).cloned().collect();
        for key in &classes {
            for lookup in self.classes[key].lookups.clone() {
                self.lookups.remove(&lookup);
            }
        }
        for key in classes {
            self.put_class(&key);
        }
    }

    /// Puts a workload's part into the table; whether a class has come or may have gone.
    fn place(&mut self, id: &EndpointId) -> bool {
        let Some(workload) = self.desired.workloads.get(id) else {
            return false;
        };
        let (ingress, egress) = classes_of(workload);
        let workload = workload.clone();
        let before = self.workloads.remove(id);
        let mut structure = before.is_some();
        for class in [&ingress, &egress] {
            if !self.classes.contains_key(class) {
                self.put_class(class);
                structure = true;
            }
        }
        let own = Own::new(&workload, &ingress.name(), &egress.name());
        let interface = workload.interface;
        own.replace(before.as_ref().map(|placed| &placed.own), &mut self.table);
        let placed = Placed {
            interface,
            ingress,
            egress,
            own,
        };
        self.workloads.insert(id.clone(), placed);
        structure
    }

    fn update_hosts(&mut self) {
        self.hosts = Hosts::new(&self.desired, &self.node);
        for class in self.hosts.classes.clone() {
            if !self.classes.contains_key(&class) {
                self.put_class(&class);
            }
        }
        self.hosts.fill(&mut self.table);
        self.put_base();
    }

    fn put_base(&mut self) {
        let wildcards = (!self.hosts.classes.is_empty()).then_some(&self.hosts.wildcards);
        base::put_chains(&self.settings, wildcards, &mut self.table);
    }

    /// Puts a class's chain into the table, with all that it leads to.
    fn put_class(&mut self, key: &ClassKey) {
        let is_wide = |id, family| self.wide.contains(&(id, family));
        let is_plain = |id: &PolicyId, direction| {
            self.desired.policies.get(id).is_some_and(|policy| {
                let rules = rules_of(&policy.ingress, &policy.egress, direction);
                lookup::is_plain(rules, direction, &is_wide)
            })
        };
        let (chain, parts) = key.chain(&self.settings, &self.desired, &self.families, &is_plain);
        let (name, direction) = (key.name(), Some(key.direction));
        denial::put_chain(&self.settings, direction, &name, chain, &mut self.table);
        let owners = parts.policies.iter().map(|id| {
            let allow = key.kind.allow();
            let owner = Owner::Policy(id.clone(), key.direction, allow);
            (names::policy(id, key.direction, allow), owner)
        });
        let profiles = key.profiles.iter().map(|profile| {
            let owner = Owner::Profile(profile.clone(), key.direction);
            (names::profile(profile, key.direction), owner)
        });
        for (name, owner) in owners.chain(profiles).collect::<Vec<_>>() {
            if !self.owned.contains_key(&name) {
                self.put_owned(&name, &owner);
                self.owned.insert(name, owner);
            }
        }
        for lookup in &parts.lookups {
            if !self.lookups.contains_key(lookup) {
                let filled = Lookup::new(lookup, &self.desired);
                filled.fill(lookup, &self.desired, &self.families, &mut self.table);
                self.lookups.insert(lookup.clone(), filled);
            }
        }
        self.classes.insert(key.clone(), parts);
    }

    /// Puts the chain of a policy or profile into the table, with the sets that it reads.
    fn put_owned(&mut self, name: &str, owner: &Owner) {
        let none = (Policy::default(), Profile::default());
        let (allow, direction, tier, label, rules) = match owner {
            Owner::Policy(id, direction, allow) => {
                let policy = self.desired.policies.get(id).unwrap_or(&none.0);
                let rules = rules_of(&policy.ingress, &policy.egress, *direction);
                let tier = policy.tier.as_str();
                (*allow, *direction, tier, id.to_string(), rules)
            }
            Owner::Profile(id, direction) => {
                let profile = self.desired.profiles.get(id).unwrap_or(&none.1);
                let rules = rules_of(&profile.ingress, &profile.egress, *direction);
                (Allow::Accept, *direction, "profile", id.clone(), rules)
            }
        };
        let is_wide = |id, family| self.wide.contains(&(id, family));
        let context = Context {
            settings: &self.settings,
            is_wide: &is_wide,
            families: &self.families,
            allow,
            direction,
            in_tier: matches!(owner, Owner::Policy(..)),
            tier,
            owner: &label,
        };
        let mut compiled = Compiled::default();
        for rule in rules {
            compiled.push(rule, &context);
        }
        for id in rules.iter().flat_map(sets_of).collect::<BTreeSet<_>>() {
            if let Some(set) = self.desired.sets.get(&id) {
                let (wide, families) = (&self.wide, &self.families);
                put_set(id, set, wide, families, &mut self.table);
            }
        }
        for (name, set) in compiled.constants {
            self.table.put_set(&name, set);
        }
        let chain = Chain::regular(compiled.rules).commented(&label);
        let direction = Some(direction);
        denial::put_chain(&self.settings, direction, name, chain, &mut self.table);
    }
}

/// Whether a table in the kernel lets a workload's interface pass as policy says.
#[must_use]
pub fn is_enforced(observed: &ObservedTable, interface: &str) -> bool {
    let from = observed.sets.get(endpoint::FROM);
    from.is_some_and(|set| set.elements.contains_key(&interface_key(interface)))
}

fn interface_key(interface: &str) -> Key {
    Key::of(interface_bytes(interface))
}

/// What a change says of sets' members.
#[derive(Debug, Default)]
struct Members {
    /// Those that come and go.
    changed: BTreeMap<SetId, BTreeSet<Member>>,
    /// Sets that have their first member that is more than one address.
    widened: BTreeSet<SetId>,
    /// Whether no set had members of a family before.
    new_family: bool,
}

fn classes_of(workload: &Workload) -> (ClassKey, ClassKey) {
    let class = |direction, tiers: &[margay_policy::Tier]| ClassKey {
        kind: Kind::Workload,
        direction,
        tiers: tiers.to_owned(),
        profiles: workload.profiles.clone(),
    };
    (
        class(Direction::Ingress, &workload.chains.ingress),
        class(Direction::Egress, &workload.chains.egress),
    )
}

fn rules_of<'a>(
    ingress: &'a [PolicyRule],
    egress: &'a [PolicyRule],
    direction: Direction,
) -> &'a [PolicyRule] {
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

const COMMENT: &str = "Margay: changed by its agent only";
