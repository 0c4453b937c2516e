//! Sets of policy as sets of nftables: single addresses, prefixes and ports apart, by family.

use std::collections::BTreeSet;

use margay_model::{Cidr, Family};
use margay_policy::{Member, Rule as PolicyRule, SetId, SetKind};

use super::interval;
use super::lookup::single;
use super::names::{self, Part};
use crate::{DataType, Element, Key, Set, Table};

/// The sets that a rule reads.
pub(super) fn sets_of(rule: &PolicyRule) -> Vec<SetId> {
    rule.sets()
}

/// The element of a member that has one of its own.
pub(super) fn element_of(member: &Member) -> Option<(Part, Family, Key)> {
    match member {
        Member::Net(_) => {
            let address = single(member)?;
            let key = Key::of(interval::octets(address));
            Some((Part::Hosts, Family::of(address), key))
        }
        Member::Port {
            address,
            protocol,
            port,
        } => {
            let address_bytes = interval::octets(*address);
            let fields: [&[u8]; 3] = [&address_bytes, &[*protocol], &port.to_be_bytes()];
            let key = Key::concatenation(&fields);
            Some((Part::Ports, Family::of(*address), key))
        }
    }
}

pub(super) fn is_of(member: &Member, family: Family) -> bool {
    matches!(member, Member::Net(cidr) if cidr.family() == family)
}

/// Puts the parts of a set into the table, unless they are there.
pub(super) fn put_set(
    id: SetId,
    set: &margay_policy::Set,
    wide: &BTreeSet<(SetId, Family)>,
    table: &mut Table,
) {
    for family in [Family::V4, Family::V6] {
        let address = DataType::address(family);
        let (part, fields) = match set.kind {
            SetKind::Nets => (Part::Hosts, vec![address]),
            SetKind::Ports => (
                Part::Ports,
                vec![address, DataType::Protocol, DataType::Port],
            ),
        };
        let name = names::set(id, part, family);
        if !table.sets().contains_key(&name) {
            let elements = set.members.iter().filter_map(element_of);
            let own = elements.filter(|(found, of, _)| *found == part && *of == family);
            let new = Set::new(fields).commented(&set.label);
            table.put_set(&name, new.with(own.map(|(.., key)| key)));
        }
        if wide.contains(&(id, family)) {
            let name = names::set(id, Part::Nets, family);
            if !table.sets().contains_key(&name) {
                let new = Set::new([address]).with_intervals().commented(&set.label);
                table.put_set(&name, new);
                put_nets(id, family, &set.members, table);
            }
        }
    }
}

/// Brings the intervals of a set up to date; nothing happens if it is not in the table.
pub(super) fn put_nets(id: SetId, family: Family, members: &BTreeSet<Member>, table: &mut Table) {
    let name = names::set(id, Part::Nets, family);
    let Some(there) = table.sets().get(&name) else {
        return;
    };
    let nets: Vec<Cidr> = members
        .iter()
        .filter_map(|member| match member {
            Member::Net(cidr) if single(member).is_none() => Some(*cidr),
            _ => None,
        })
        .collect();
    let wanted: BTreeSet<Key> = interval::keys(&nets, family).into_iter().collect();
    let gone = there.elements.keys().filter(|key| !wanted.contains(*key));
    for key in gone.cloned().collect::<Vec<_>>() {
        table.remove_element(&name, &key);
    }
    for key in wanted {
        table.put_element(&name, key, Element::default());
    }
}
