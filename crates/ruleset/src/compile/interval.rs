//! Prefixes as intervals that do not meet: the kernel's interval sets hold no others.

use std::net::IpAddr;

use margay_model::{Cidr, Family};

use crate::Key;

/// The addresses of a prefix, from the first to the last.
pub(super) fn ends(cidr: &Cidr) -> (Vec<u8>, Vec<u8>) {
    let first = octets(cidr.address());
    let host_bits = usize::from(cidr.family().width() - cidr.length());
    let mut last = first.clone();
    for (place, byte) in last.iter_mut().rev().enumerate() {
        let bits = host_bits.saturating_sub(place * 8).min(8);
        *byte |= u8::try_from((1_u16 << bits) - 1).unwrap_or(u8::MAX);
    }
    (first, last)
}

/// The addresses of some prefixes of one family, as the fewest intervals.
pub(super) fn merged<'a>(
    cidrs: impl IntoIterator<Item = &'a Cidr>,
    family: Family,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let cidrs = cidrs.into_iter().filter(|cidr| cidr.family() == family);
    let mut all: Vec<_> = cidrs.map(ends).collect();
    all.sort();
    let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for (first, last) in all {
        match merged.last_mut() {
            // Prefixes meet only by one holding the other; neighbours stay apart.
            Some((_, end)) if first <= *end => *end = last.max(std::mem::take(end)),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// As [`merged`], as keys of a set.
pub(super) fn keys<'a>(cidrs: impl IntoIterator<Item = &'a Cidr>, family: Family) -> Vec<Key> {
    let merged = merged(cidrs, family).into_iter();
    merged
        .map(|(first, last)| Key::interval(first, last))
        .collect()
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_become_intervals_that_do_not_meet() {
        let cidrs: Vec<Cidr> = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "11.0.0.0/30",
            "11.0.0.4/32",
            "::/0",
        ]
        .iter()
        .map(|cidr| cidr.parse().unwrap())
        .collect();
        let expected = [
            (vec![10, 0, 0, 0], vec![10, 255, 255, 255]),
            (vec![11, 0, 0, 0], vec![11, 0, 0, 3]),
            (vec![11, 0, 0, 4], vec![11, 0, 0, 4]),
        ];
        assert_eq!(merged(&cidrs, Family::V4), expected);
        assert_eq!(merged(&cidrs, Family::V6), [(vec![0; 16], vec![0xff; 16])]);
    }
}
