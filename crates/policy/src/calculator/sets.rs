//! The sets that rules in force name, with their members counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use margay_selector::{Index, SelectorId};

use super::ServicePort;
use crate::item::{Items, Members};
use crate::output::{Delta, Member, Set, SetChange, SetId};
use crate::spec::SetSpec;
use margay_model::Cidr;

/// The sets in force.
#[derive(Debug, Default)]
pub(super) struct LiveSets {
    sets: HashMap<SetId, Live>,
    by_selector: HashMap<SelectorId, SetId>,
    by_service: BTreeMap<String, BTreeSet<SetId>>,
    /// Sets to look at when flushing.
    touched: BTreeSet<SetId>,
}

#[derive(Debug)]
struct Live {
    spec: Arc<SetSpec>,
    /// Number of policies and profiles in force that name it.
    users: usize,
    selector: Option<SelectorId>,
    /// How many items give it each member.
    counts: HashMap<Member, u32>,
    /// Whether it has been told.
    told: bool,
    /// Members that have come (`true`) or gone since it was told.
    pending: BTreeMap<Member, bool>,
}

impl LiveSets {
    /// Notes that something in force names a set.
    pub(super) fn acquire(
        &mut self,
        id: SetId,
        spec: &Arc<SetSpec>,
        index: &mut Index,
        items: &Items,
        services: &BTreeMap<String, BTreeSet<ServicePort>>,
    ) {
        self.touched.insert(id);
        if let Some(live) = self.sets.get_mut(&id) {
            live.users += 1;
            return;
        }
        let mut live = Live {
            spec: Arc::clone(spec),
            users: 1,
            selector: None,
            counts: HashMap::new(),
            told: false,
            pending: BTreeMap::new(),
        };
        if let Some(selector) = spec.selector() {
            let selector = index.add_selector(selector.clone());
            live.selector = Some(selector);
            self.by_selector.insert(selector, id);
            for item in index.items_of(selector) {
                for member in members_of(spec, items.members(item)) {
                    live.give(member);
                }
            }
        }
        if let Some(service) = spec.service() {
            let sets = self.by_service.entry(service.to_owned()).or_default();
            sets.insert(id);
            for port in services.get(service).into_iter().flatten() {
                live.give(member_of(spec, port));
            }
        }
        self.sets.insert(id, live);
    }

    /// Notes that something in force names a set no longer.
    pub(super) fn release(&mut self, id: SetId) {
        if let Some(live) = self.sets.get_mut(&id) {
            live.users -= 1;
            self.touched.insert(id);
        }
    }

    /// Adds an item's members to a selector's set.
    pub(super) fn give(&mut self, selector: SelectorId, members: &Members) {
        self.change(selector, members, Live::give);
    }

    /// Takes an item's members out of a selector's set.
    pub(super) fn take(&mut self, selector: SelectorId, members: &Members) {
        self.change(selector, members, Live::take);
    }

    fn change(&mut self, selector: SelectorId, members: &Members, change: fn(&mut Live, Member)) {
        let Some(id) = self.by_selector.get(&selector) else {
            return;
        };
        let Some(live) = self.sets.get_mut(id) else {
            return;
        };
        let spec = Arc::clone(&live.spec);
        for member in members_of(&spec, members) {
            change(live, member);
        }
        if !live.pending.is_empty() {
            self.touched.insert(*id);
        }
    }

    pub(super) fn change_service(
        &mut self,
        service: &str,
        before: &BTreeSet<ServicePort>,
        after: &BTreeSet<ServicePort>,
    ) {
        for id in self.by_service.get(service).into_iter().flatten() {
            let Some(live) = self.sets.get_mut(id) else {
                continue;
            };
            let spec = Arc::clone(&live.spec);
            for port in after {
                live.give(member_of(&spec, port));
            }
            for port in before {
                live.take(member_of(&spec, port));
            }
            self.touched.insert(*id);
        }
    }

    /// Tells what has changed.
    pub(super) fn flush(&mut self, index: &mut Index, delta: &mut Delta) {
        for id in std::mem::take(&mut self.touched) {
            let Some(live) = self.sets.get_mut(&id) else {
                continue;
            };
            if live.users == 0 {
                if live.told {
                    delta.removed_sets.insert(id);
                }
                self.remove(id, index);
            } else if !live.told {
                live.told = true;
                live.pending.clear();
                delta.sets.insert(
                    id,
                    SetChange::New(Set {
                        kind: live.spec.kind(),
                        label: live.spec.label(),
                        members: live.counts.keys().copied().collect(),
                    }),
                );
            } else if !live.pending.is_empty() {
                let (mut added, mut removed) = (BTreeSet::new(), BTreeSet::new());
                for (member, came) in std::mem::take(&mut live.pending) {
                    if came { &mut added } else { &mut removed }.insert(member);
                }
                delta.sets.insert(id, SetChange::Members { added, removed });
            }
        }
    }

    fn remove(&mut self, id: SetId, index: &mut Index) {
        let Some(live) = self.sets.remove(&id) else {
            return;
        };
        if let Some(selector) = live.selector {
            self.by_selector.remove(&selector);
            index.remove_selector(selector);
        }
        if let Some(service) = live.spec.service()
            && let Some(sets) = self.by_service.get_mut(service)
        {
            sets.remove(&id);
            if sets.is_empty() {
                self.by_service.remove(service);
            }
        }
    }
}

impl Live {
    fn give(&mut self, member: Member) {
        let count = self.counts.entry(member).or_insert(0);
        *count += 1;
        if *count == 1 {
            self.flip(member, true);
        }
    }

    fn take(&mut self, member: Member) {
        let Some(count) = self.counts.get_mut(&member) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&member);
            self.flip(member, false);
        }
    }

    /// A member that comes and goes between two flushes has not changed.
    fn flip(&mut self, member: Member, came: bool) {
        if self.told && self.pending.remove(&member).is_none() {
            self.pending.insert(member, came);
        }
    }
}

/// What an item gives to a set that it belongs to.
fn members_of<'a>(spec: &'a SetSpec, members: &'a Members) -> impl Iterator<Item = Member> + 'a {
    let nets = matches!(spec, SetSpec::Selector(_)).then_some(&members.nets);
    let ports = match spec {
        SetSpec::NamedPort { protocol, name, .. } => Some((*protocol, name.as_str())),
        _ => None,
    };
    let nets = nets.into_iter().flatten().copied().map(Member::Net);
    let named = ports.into_iter().flat_map(move |(protocol, name)| {
        let ports = members.ports().iter();
        let ports = ports.filter(move |port| port.protocol == protocol && *port.name == *name);
        ports.flat_map(|port| {
            members.addresses().map(|address| Member::Port {
                address,
                protocol: port.protocol,
                port: port.port,
            })
        })
    });
    nets.chain(named)
}

/// What a port of a service's endpoint gives to a set of the service.
fn member_of(spec: &SetSpec, port: &ServicePort) -> Member {
    match spec {
        SetSpec::ServicePorts(_) => Member::Port {
            address: port.address,
            protocol: port.protocol,
            port: port.port,
        },
        _ => Member::Net(Cidr::host(port.address)),
    }
}
