//! What assigning and releasing do to a block.
//!
//! Invariants of a block: each ordinal is free, and then in `unallocated` exactly once, or allocated, and
//! then refers to an existing attribute; attributes nobody refers to are removed and the rest renumbered.

use std::net::IpAddr;

use margay_model::Cidr;
use margay_model::ipam::{Attribute, Block};
use margay_model::json::Extra;
use margay_model::time::Timestamp;

use crate::reservation::Reservations;

/// A new, empty block of `affinity` (`host:<node>`, or none), created at `now`.
pub fn create(cidr: Cidr, affinity: Option<String>, now: Timestamp) -> Block {
    let size = ordinals(cidr);
    Block {
        cidr,
        affinity_claim_time: affinity.is_some().then(|| now.rfc3339()),
        affinity,
        allocations: vec![None; size as usize],
        unallocated: (0..size).collect(),
        attributes: Vec::new(),
        sequence_number: now.unix_nanos(),
        sequence_number_for_allocation: std::collections::BTreeMap::new(),
        deleted: false,
        extra: Extra::new(),
    }
}

/// Takes the first free address that `refused` does not pick; `None` when there is none. The block's sequence
/// number is the caller's to raise, once for each write ([`written`]).
pub fn assign_next(
    block: &mut Block,
    attribute: &Attribute,
    refused: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let (position, address) = free(block)
        .enumerate()
        .find(|(_, address)| !refused(*address))?;
    let ordinal = block.unallocated.remove(position);
    allocate(block, ordinal, attribute);
    Some(address)
}

/// Takes one particular address; `false` when it is allocated already or outside the block.
pub fn assign_exact(block: &mut Block, address: IpAddr, attribute: &Attribute) -> bool {
    let Some(ordinal) = ordinal(block, address) else {
        return false;
    };
    let Some(position) = block.unallocated.iter().position(|free| *free == ordinal) else {
        return false;
    };
    block.unallocated.remove(position);
    allocate(block, ordinal, attribute);
    true
}

/// Whether an address is free that is not reserved.
pub fn has_room(block: &Block, reserved: &Reservations) -> bool {
    free(block).any(|address| !reserved.contains(address))
}

/// Whether nothing is allocated.
pub fn is_empty(block: &Block) -> bool {
    block.allocations.iter().all(Option::is_none)
}

/// The attribute of an allocated address.
pub fn attribute(block: &Block, address: IpAddr) -> Option<&Attribute> {
    let ordinal = ordinal(block, address)?;
    let index = (*block.allocations.get(ordinal as usize)?)?;
    block.attributes.get(index as usize)
}

/// All allocated addresses with their attributes, in address order.
pub fn allocated(block: &Block) -> impl Iterator<Item = (IpAddr, &Attribute)> {
    block
        .allocations
        .iter()
        .enumerate()
        .filter_map(|(ordinal, index)| {
            let attribute = block.attributes.get((*index)? as usize)?;
            Some((block.cidr.nth(ordinal as u128)?, attribute))
        })
}

/// Gives back every allocation that `select` picks, in address order, and returns their addresses.
/// With a cooldown (seconds, not 0) they stay unusable until [`collect`] finds the time over.
pub fn release(
    block: &mut Block,
    cooldown: u32,
    now: Timestamp,
    mut select: impl FnMut(IpAddr, &Attribute) -> bool,
) -> Vec<IpAddr> {
    let chosen: Vec<IpAddr> = allocated(block)
        .filter(|(_, attribute)| attribute.released_at.is_none())
        .filter(|(address, attribute)| select(*address, attribute))
        .map(|(address, _)| address)
        .collect();
    for address in &chosen {
        let Some(ordinal) = ordinal(block, *address) else {
            continue;
        };
        block
            .sequence_number_for_allocation
            .remove(&ordinal.to_string());
        if cooldown == 0 {
            block.allocations[ordinal as usize] = None;
            block.unallocated.push(ordinal);
        } else {
            let cooling = Attribute {
                released_at: Some(now.rfc3339()),
                ..Attribute::default()
            };
            block.allocations[ordinal as usize] = Some(attribute_index(block, &cooling));
        }
    }
    compact_attributes(block);
    chosen
}

/// Frees the addresses whose cooldown of `cooldown` seconds is over; whether there were any.
pub fn collect(block: &mut Block, cooldown: u32, now: Timestamp) -> bool {
    let over: Vec<u32> = block
        .allocations
        .iter()
        .enumerate()
        .filter(|(_, index)| {
            index
                .and_then(|index| block.attributes.get(index as usize))
                .and_then(|attribute| attribute.released_at.as_deref())
                .is_some_and(|at| {
                    Timestamp::parse_rfc3339(at)
                        .is_none_or(|at| at.seconds + u64::from(cooldown) <= now.seconds)
                })
        })
        .filter_map(|(ordinal, _)| u32::try_from(ordinal).ok())
        .collect();
    for ordinal in &over {
        block.allocations[*ordinal as usize] = None;
        block
            .sequence_number_for_allocation
            .remove(&ordinal.to_string());
        block.unallocated.push(*ordinal);
    }
    compact_attributes(block);
    !over.is_empty()
}

/// Raises the sequence number, as every write must.
pub fn written(block: &mut Block) {
    block.sequence_number = block.sequence_number.wrapping_add(1);
}

/// What is wrong with a stored block, in words; empty when nothing is.
pub fn faults(block: &Block) -> Vec<String> {
    let mut faults = Vec::new();
    let size = ordinals(block.cidr);
    if block.allocations.len() != size as usize {
        faults.push(format!(
            "{} allocations where {size} are expected",
            block.allocations.len()
        ));
    }
    let mut free = vec![0u32; size as usize];
    for ordinal in &block.unallocated {
        match free.get_mut(*ordinal as usize) {
            Some(count) => *count += 1,
            None => faults.push(format!("free ordinal {ordinal} lies outside the block")),
        }
    }
    for (ordinal, index) in block.allocations.iter().enumerate() {
        let times = free.get(ordinal).copied().unwrap_or_default();
        match index {
            None if times == 0 => {
                faults.push(format!("ordinal {ordinal} is neither free nor allocated"));
            }
            Some(_) if times > 0 => {
                faults.push(format!("ordinal {ordinal} is both free and allocated"));
            }
            Some(index) if *index as usize >= block.attributes.len() => {
                faults.push(format!(
                    "ordinal {ordinal} refers to the missing attribute {index}"
                ));
            }
            _ if times > 1 => faults.push(format!("ordinal {ordinal} is free {times} times")),
            _ => {}
        }
    }
    faults
}

/// Free addresses in the order in which they are given out.
fn free(block: &Block) -> impl Iterator<Item = IpAddr> {
    block
        .unallocated
        .iter()
        .map_while(|ordinal| block.cidr.nth(u128::from(*ordinal)))
}

fn ordinal(block: &Block, address: IpAddr) -> Option<u32> {
    u32::try_from(block.cidr.offset(address)?).ok()
}

/// Number of addresses; blocks hold at most 4,096 (/20, /116).
fn ordinals(cidr: Cidr) -> u32 {
    u32::try_from(cidr.size())
        .unwrap_or(u32::MAX)
        .min(MAX_ORDINALS)
}

fn allocate(block: &mut Block, ordinal: u32, attribute: &Attribute) {
    let index = attribute_index(block, attribute);
    block.allocations[ordinal as usize] = Some(index);
    block
        .sequence_number_for_allocation
        .insert(ordinal.to_string(), block.sequence_number);
}

fn attribute_index(block: &mut Block, attribute: &Attribute) -> u32 {
    let index = block
        .attributes
        .iter()
        .position(|held| held == attribute)
        .unwrap_or_else(|| {
            block.attributes.push(attribute.clone());
            block.attributes.len() - 1
        });
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Removes attributes nobody refers to and renumbers the rest, keeping their order.
fn compact_attributes(block: &mut Block) {
    let mut renumbered: Vec<Option<u32>> = vec![None; block.attributes.len()];
    for index in block.allocations.iter().flatten() {
        if let Some(slot) = renumbered.get_mut(*index as usize) {
            *slot = Some(0);
        }
    }
    for (kept, slot) in (0..).zip(renumbered.iter_mut().flatten()) {
        *slot = kept;
    }
    let mut index = 0;
    block.attributes.retain(|_| {
        index += 1;
        renumbered[index - 1].is_some()
    });
    for slot in block.allocations.iter_mut() {
        *slot = slot.and_then(|index| renumbered.get(index as usize).copied().flatten());
    }
}

const MAX_ORDINALS: u32 = 4_096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp {
        seconds: 1_795_393_566,
        nanos: 514_594_043,
    };

    fn owner(handle: &str) -> Attribute {
        Attribute {
            handle_id: Some(handle.to_owned()),
            ..Attribute::default()
        }
    }

    fn block() -> Block {
        create(
            "192.168.224.192/26".parse().unwrap(),
            Some("host:cp-h1".to_owned()),
            NOW,
        )
    }

    #[test]
    fn sequence_numbers_run_as_recorded() {
        let mut block = block();
        for handle in ["a", "b", "c"] {
            assign_next(&mut block, &owner(handle), |_| false).unwrap();
            written(&mut block);
        }
        let start = NOW.unix_nanos();
        assert_eq!(block.sequence_number, start + 3);
        assert_eq!(block.sequence_number_for_allocation["0"], start);
        assert_eq!(block.sequence_number_for_allocation["2"], start + 2);
    }

    #[test]
    fn free_addresses_are_first_in_first_out() {
        let mut block = block();
        for handle in ["a", "b", "c"] {
            assign_next(&mut block, &owner(handle), |_| false).unwrap();
        }
        for handle in ["b", "a", "c"] {
            release(&mut block, 0, NOW, |_, attribute| {
                attribute.handle_id.as_deref() == Some(handle)
            });
        }
        assert_eq!(block.unallocated[61..], [1, 0, 2]);
        assert!(block.attributes.is_empty());
        assert!(block.sequence_number_for_allocation.is_empty());
    }

    #[test]
    fn reserved_addresses_are_passed_over_but_may_be_asked_for() {
        let mut block = block();
        let reserved = Reservations::parse(["192.168.224.192/30"]);
        let address = assign_next(&mut block, &owner("a"), |address| {
            reserved.contains(address)
        })
        .unwrap();
        assert_eq!(address.to_string(), "192.168.224.196");
        assert!(assign_exact(
            &mut block,
            "192.168.224.193".parse().unwrap(),
            &owner("b")
        ));
        assert!(!assign_exact(
            &mut block,
            "192.168.224.193".parse().unwrap(),
            &owner("b")
        ));
        assert!(!assign_exact(
            &mut block,
            "10.0.0.1".parse().unwrap(),
            &owner("b")
        ));
    }

    #[test]
    fn released_addresses_cool_down() {
        let mut block = block();
        assign_next(&mut block, &owner("a"), |_| false).unwrap();
        release(&mut block, 60, NOW, |_, _| true);
        assert!(!is_empty(&block));
        assert_eq!(faults(&block), Vec::<String>::new());
        assert!(!collect(
            &mut block,
            60,
            Timestamp {
                seconds: NOW.seconds + 59,
                ..NOW
            }
        ));
        assert!(collect(
            &mut block,
            60,
            Timestamp {
                seconds: NOW.seconds + 60,
                ..NOW
            }
        ));
        assert_eq!(block.unallocated.last(), Some(&0));
        assert!(is_empty(&block));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Next(u8),
        Exact(u8, u8),
        Release(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..9u8).prop_map(Step::Next),
            (0..70u8, 0..9u8).prop_map(|(offset, owner)| Step::Exact(offset, owner)),
            (0..9u8).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn invariants_hold_whatever_is_done(steps in proptest::collection::vec(step(), 0..200)) {
            let mut block = block();
                let mut held = std::collections::BTreeMap::new();
            for step in steps {
                match step {
                    Step::Next(n) => {
                        if let Some(address) = assign_next(&mut block, &owner(&n.to_string()), |_| false) {
                            prop_assert!(held.insert(address, n).is_none());
                        } else {
                            prop_assert_eq!(held.len(), 64);
                        }
                    }
                    Step::Exact(offset, n) => {
                        let address = Cidr::host(IpAddr::from([192, 168, 224, 192 + offset.min(63)])).address();
                        let taken = assign_exact(&mut block, address, &owner(&n.to_string()));
                        prop_assert_eq!(taken, held.insert(address, n).is_none() );
                        if !taken { prop_assert!(attribute(&block, address).is_some()); let owner = attribute(&block, address).unwrap().handle_id.clone().unwrap().parse().unwrap(); held.insert(address, owner); }
                    }
                    Step::Release(n) => {
                        let handle = n.to_string();
                        release(&mut block, 0, NOW, |_, attribute| attribute.handle_id.as_ref() == Some(&handle));
                        held.retain(|_, owner| *owner != n);
                    }
                }
                written(&mut block);
                prop_assert_eq!(faults(&block), Vec::<String>::new());
                let now: Vec<_> = allocated(&block).map(|(address, _)| address).collect();
                prop_assert_eq!(now, held.keys().copied().collect::<Vec<_>>());
            }
        }
    }
}
