//! Names of what is made for a policy, a set or a class, and comments that tell people.

use std::fmt::Write as _;

use margay_model::Family;
use margay_policy::{PolicyId, SetId};
use sha2::{Digest, Sha256};

use super::rule::Allow;
use super::settings::Direction;

/// The part of a [`SetId`]'s members that a set of nftables holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Single addresses.
    Hosts,
    /// Prefixes.
    Nets,
    /// Ports of addresses.
    Ports,
}

pub(super) fn set(id: SetId, part: Part, family: Family) -> String {
    let part = match part {
        Part::Hosts => 's',
        Part::Nets => 'n',
        Part::Ports => 'p',
    };
    format!("{part}{}-{id}", digit(family))
}

pub(super) fn policy(id: &PolicyId, direction: Direction, allow: Allow) -> String {
    let variant = match allow {
        Allow::Accept => "",
        Allow::Untracked => "u",
        Allow::PreDnat => "d",
    };
    format!("p{variant}{}-{}", direction.letter(), hash(&id.to_string()))
}

pub(super) fn profile(name: &str, direction: Direction) -> String {
    format!("r{}-{}", direction.letter(), hash(name))
}

pub(super) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

/// 96 bits of a hash: what people name as they like must never meet in one name.
pub(super) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(12)
        .fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// `<tier>|<policy>|<index>`, with the middle left out where it is too long.
pub(super) fn label(tier: &str, policy: &str, index: &str) -> String {
    let text = format!("{tier}|{policy}|{index}");
    let length = text.chars().count();
    if text.len() <= LABEL && length <= LABEL {
        return text;
    }
    // Names are ASCII; what is not counts as its bytes.
    let keep = |count: usize| {
        text.char_indices()
            .nth(count)
            .map_or(text.len(), |(at, _)| at)
    };
    let head = &text[..keep(HEAD)];
    let tail = &text[keep(length.saturating_sub(TAIL))..];
    format!("{head}..{tail}")
}

/// What a log's prefix (`NF_LOG_PREFIXLEN`) and a comment can hold, less our own two letters.
const LABEL: usize = 120;
const HEAD: usize = 48;
const TAIL: usize = 70;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_tier_and_index() {
        assert_eq!(
            label("default", "NetworkPolicy/a/b", "3"),
            "default|NetworkPolicy/a/b|3"
        );
        let long = label("security", &"x".repeat(300), "17");
        assert!(long.len() <= LABEL);
        assert!(long.starts_with("security|x") && long.ends_with("x|17"));
    }
}
