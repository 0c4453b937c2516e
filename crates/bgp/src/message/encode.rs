//! Writing messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::Family;
use margay_model::scalar::AsNumber;

use super::open::{CAPABILITIES, EXTENDED, Open, VERSION};
use super::update::{Nlri, codes::*};
use super::wire::{UNICAST, afi, write_prefix};
use super::{
    Context, HEADER_LEN, KEEPALIVE, MARKER_LEN, MESSAGE_MAX, NOTIFICATION, Notification, OPEN,
    REFRESH, Refresh, UPDATE,
};
use crate::attribute::{Aggregator, AsPath, Attributes, SEGMENT_MAX, Segment};

/// Attributes that fill a message by themselves, so that no prefix can be announced with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the attributes take {0} octets, more than a message holds; shorten paths or communities")]
pub struct EncodeError(usize);

/// Writes a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    let start = begin(out, KEEPALIVE);
    finish(out, start);
}

/// Writes an OPEN.
pub fn open(out: &mut Vec<u8>, open: &Open) {
    let mut capabilities = Vec::new();
    for capability in &open.capabilities {
        capability.encode(&mut capabilities);
    }
    let start = begin(out, OPEN);
    out.push(VERSION);
    out.extend(short_as(open.asn).to_be_bytes());
    out.extend(open.hold_time.to_be_bytes());
    out.extend(open.router_id.octets());
    // A parameter is its type, its length and its value; RFC 9072 is for those that are long.
    match u8::try_from(capabilities.len()) {
        Ok(0) => out.push(0),
        Ok(length) if length <= u8::MAX - 2 => {
            out.extend([length + 2, CAPABILITIES, length]);
        }
        _ => {
            capabilities.truncate(CAPABILITIES_MAX);
            let length = u16::try_from(capabilities.len()).unwrap_or(0);
            out.extend([EXTENDED, EXTENDED]);
            out.extend((length + 3).to_be_bytes());
            out.push(CAPABILITIES);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(&capabilities);
    finish(out, start);
}

/// Writes a NOTIFICATION; data that does not fit is cut.
pub fn notification(out: &mut Vec<u8>, notification: &Notification) {
    let start = begin(out, NOTIFICATION);
    out.extend([notification.code.octet(), notification.subcode]);
    out.extend(notification.data.iter().take(MESSAGE_MAX - HEADER_LEN - 2));
    finish(out, start);
}

/// Writes a ROUTE-REFRESH.
pub fn refresh(out: &mut Vec<u8>, refresh: Refresh) {
    let start = begin(out, REFRESH);
    out.extend(afi(refresh.family).to_be_bytes());
    out.extend([refresh.kind.octet(), UNICAST]);
    finish(out, start);
}

/// Writes the End-of-RIB of a family (RFC 4724 §2).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    let start = begin(out, UPDATE);
    out.extend([0, 0]);
    let attributes = open_length(out);
    if family == Family::V6 {
        let value = open_attribute(out, OPTIONAL, MP_UNREACH);
        out.extend(afi(family).to_be_bytes());
        out.push(UNICAST);
        close_length(out, value);
    }
    close_length(out, attributes);
    finish(out, start);
}

/// Writes UPDATEs that withdraw prefixes of a family.
pub fn withdrawals(out: &mut Vec<u8>, context: &Context, family: Family, nlri: &[Nlri]) {
    let add_path = *context.add_path.get(family);
    let mut rest = nlri;
    while !rest.is_empty() {
        let start = begin(out, UPDATE);
        let end = start + MESSAGE_MAX;
        let withdrawn = open_length(out);
        if family == Family::V4 {
            // What follows is the length of no attributes.
            rest = write_nlri(out, rest, add_path, end - 2);
        }
        close_length(out, withdrawn);
        let attributes = open_length(out);
        if family == Family::V6 {
            let value = open_attribute(out, OPTIONAL, MP_UNREACH);
            out.extend(afi(family).to_be_bytes());
            out.push(UNICAST);
            rest = write_nlri(out, rest, add_path, end);
            close_length(out, value);
        }
        close_length(out, attributes);
        finish(out, start);
    }
}

/// Writes UPDATEs that announce prefixes of a family with the same attributes.
///
/// # Errors
/// [`EncodeError`], and nothing is written.
pub fn announcements(
    out: &mut Vec<u8>,
    context: &Context,
    family: Family,
    attributes: &Attributes,
    nlri: &[Nlri],
) -> Result<(), EncodeError> {
    let classic = match (family, attributes.next_hop.address) {
        (Family::V4, IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let mut common = Vec::new();
    path_attributes(&mut common, context, attributes, classic);
    if common.len() + FIXED_MAX > MESSAGE_MAX {
        return Err(EncodeError(common.len()));
    }
    let add_path = *context.add_path.get(family);
    let mut rest = nlri;
    while !rest.is_empty() {
        let start = begin(out, UPDATE);
        let end = start + MESSAGE_MAX;
        out.extend([0, 0]);
        let all = open_length(out);
        if classic.is_none() {
            // RFC 7606 §5.1: first, so that it is found whatever follows.
            let value = open_attribute(out, OPTIONAL, MP_REACH);
            out.extend(afi(family).to_be_bytes());
            out.push(UNICAST);
            next_hop(out, attributes);
            out.push(0);
            rest = write_nlri(out, rest, add_path, end - common.len());
            close_length(out, value);
        }
        out.extend_from_slice(&common);
        close_length(out, all);
        if classic.is_some() {
            rest = write_nlri(out, rest, add_path, end);
        }
        finish(out, start);
    }
    Ok(())
}

/// Writes all attributes but the multiprotocol ones, in the order of their codes.
fn path_attributes(
    out: &mut Vec<u8>,
    context: &Context,
    attributes: &Attributes,
    next_hop: Option<Ipv4Addr>,
) {
    let long = context.four_octet_as;
    put(out, TRANSITIVE, ORIGIN, &[attributes.origin.octet()]);
    put(
        out,
        TRANSITIVE,
        AS_PATH,
        &as_path(&attributes.as_path, long),
    );
    if let Some(address) = next_hop {
        put(out, TRANSITIVE, NEXT_HOP, &address.octets());
    }
    if let Some(med) = attributes.med {
        put(out, OPTIONAL, MED, &med.to_be_bytes());
    }
    if let Some(local_pref) = attributes.local_pref {
        put(out, TRANSITIVE, LOCAL_PREF, &local_pref.to_be_bytes());
    }
    if attributes.atomic_aggregate {
        put(out, TRANSITIVE, ATOMIC_AGGREGATE, &[]);
    }
    if let Some(aggregator) = &attributes.aggregator {
        put(
            out,
            OPTIONAL | TRANSITIVE,
            AGGREGATOR,
            &aggregator_value(aggregator, long),
        );
    }
    let words = attributes
        .communities
        .iter()
        .flat_map(|community| community.0.to_be_bytes());
    put_list(out, OPTIONAL | TRANSITIVE, COMMUNITIES, words);
    if let Some(originator) = attributes.originator_id {
        put(out, OPTIONAL, ORIGINATOR_ID, &originator.octets());
    }
    let clusters = attributes.cluster_list.iter().flat_map(Ipv4Addr::octets);
    put_list(out, OPTIONAL, CLUSTER_LIST, clusters);
    let extended = attributes
        .extended_communities
        .iter()
        .flat_map(|community| community.0);
    put_list(out, OPTIONAL | TRANSITIVE, EXTENDED_COMMUNITIES, extended);
    if !long {
        let lost = |asn: AsNumber| asn.0 > u32::from(u16::MAX);
        if attributes.as_path.numbers().any(lost) {
            let mut path = attributes.as_path.clone();
            path.remove_confederation();
            put(out, OPTIONAL | TRANSITIVE, AS4_PATH, &as_path(&path, true));
        }
        if let Some(aggregator) = attributes
            .aggregator
            .filter(|aggregator| lost(aggregator.asn))
        {
            put(
                out,
                OPTIONAL | TRANSITIVE,
                AS4_AGGREGATOR,
                &aggregator_value(&aggregator, true),
            );
        }
    }
    let (before, after): (Vec<_>, Vec<_>) = attributes
        .unknown
        .iter()
        .partition(|unknown| unknown.code < LARGE_COMMUNITY);
    for unknown in before {
        put(out, unknown.flags, unknown.code, &unknown.value);
    }
    let large = attributes.large_communities.iter();
    let large = large
        .flat_map(|community| community.0)
        .flat_map(u32::to_be_bytes);
    put_list(out, OPTIONAL | TRANSITIVE, LARGE_COMMUNITY, large);
    for unknown in after {
        put(out, unknown.flags, unknown.code, &unknown.value);
    }
}

/// Writes the next hop of MP_REACH_NLRI with its length.
fn next_hop(out: &mut Vec<u8>, attributes: &Attributes) {
    match attributes.next_hop.address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend(address.octets());
        }
        IpAddr::V6(address) => {
            let link_local = attributes.next_hop.link_local;
            out.push(if link_local.is_some() { 32 } else { 16 });
            out.extend(address.octets());
            out.extend(link_local.iter().flat_map(Ipv6Addr::octets));
        }
    }
}

fn as_path(path: &AsPath, long: bool) -> Vec<u8> {
    let mut value = Vec::new();
    for Segment { kind, numbers } in &path.0 {
        for numbers in numbers.chunks(SEGMENT_MAX) {
            value.extend([kind.octet(), u8::try_from(numbers.len()).unwrap_or(u8::MAX)]);
            for number in numbers {
                if long {
                    value.extend(number.0.to_be_bytes());
                } else {
                    value.extend(short_as(*number).to_be_bytes());
                }
            }
        }
    }
    value
}

fn aggregator_value(aggregator: &Aggregator, long: bool) -> Vec<u8> {
    let mut value = if long {
        aggregator.asn.0.to_be_bytes().to_vec()
    } else {
        short_as(aggregator.asn).to_be_bytes().to_vec()
    };
    value.extend(aggregator.router.octets());
    value
}

/// The two octets of an AS number, or those that stand for longer ones.
fn short_as(asn: AsNumber) -> u16 {
    u16::try_from(asn.0).unwrap_or(AS_TRANS_SHORT)
}

/// Writes prefixes while they fit before `end`; returns those left.
fn write_nlri<'a>(out: &mut Vec<u8>, nlri: &'a [Nlri], add_path: bool, end: usize) -> &'a [Nlri] {
    let mut rest = nlri;
    while let Some((first, others)) = rest.split_first() {
        let place = out.len();
        if add_path {
            out.extend(first.path_id.to_be_bytes());
        }
        write_prefix(out, &first.prefix);
        if out.len() > end {
            out.truncate(place);
            break;
        }
        rest = others;
    }
    rest
}

/// Writes an attribute.
fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags & !EXTENDED_LENGTH, code, length]),
        Err(_) => {
            out.extend([flags | EXTENDED_LENGTH, code]);
            out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// Writes an attribute that is left out when it is empty.
fn put_list(out: &mut Vec<u8>, flags: u8, code: u8, value: impl Iterator<Item = u8>) {
    let value: Vec<u8> = value.collect();
    if !value.is_empty() {
        put(out, flags, code, &value);
    }
}

/// Starts an attribute with a length of two octets, which [`close_length`] fills in.
fn open_attribute(out: &mut Vec<u8>, flags: u8, code: u8) -> usize {
    out.extend([flags | EXTENDED_LENGTH, code]);
    open_length(out)
}

/// Leaves room for a length of two octets; returns where what it counts begins.
fn open_length(out: &mut Vec<u8>) -> usize {
    out.extend([0, 0]);
    out.len()
}

fn close_length(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start - 2..start) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend([0xff; MARKER_LEN]);
    out.extend([0, 0, kind]);
    start
}

fn finish(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(start + MARKER_LEN..start + MARKER_LEN + 2) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// What a message has beside its common attributes, with the longest next hop and one prefix.
const FIXED_MAX: usize = HEADER_LEN + 4 + 4 + 3 + 33 + 1 + 4 + 17;
const CAPABILITIES_MAX: usize = MESSAGE_MAX - 64;
const AS_TRANS_SHORT: u16 = 23456;
