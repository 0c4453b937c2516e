//! The passwords that a listening socket must know, by ranges of addresses.
//!
//! The kernel keeps each key in a memory that holds some hundred of them
//! (`net.core.optmem_max`). So peers with the same password share a key wherever a range of
//! addresses holds no peer with another password or with none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_model::{Cidr, Family};

use super::{Password, SpeakerConfig};

impl SpeakerConfig {
    /// The passwords of peers that may connect, each for a range of addresses. The longest range
    /// that holds an address counts.
    #[must_use]
    pub fn password_keys(&self) -> Vec<(Cidr, Password)> {
        let peers = self
            .peers
            .values()
            .map(|peer| (Cidr::host(peer.address), &peer.password));
        let ranges = self
            .ranges
            .values()
            .map(|range| (range.cidr, &range.template.password));
        let all: BTreeMap<Cidr, Option<Password>> = peers
            .chain(ranges)
            .map(|(cidr, password)| (cidr, password.clone()))
            .collect();
        let mut keys = Vec::new();
        let mut by_password: BTreeMap<(&[u8], Family), Vec<Cidr>> = BTreeMap::new();
        for (cidr, password) in &all {
            if let Some(password) = password {
                by_password
                    .entry((password.as_bytes(), cidr.family()))
                    .or_default()
                    .push(*cidr);
            }
        }
        for ((key, _), members) in by_password {
            let Some(password) = members.first().and_then(|first| all.get(first)?.clone()) else {
                continue;
            };
            let others: Vec<Cidr> = all
                .iter()
                .filter(|(_, other)| other.as_ref().is_none_or(|other| other.as_bytes() != key))
                .map(|(cidr, _)| *cidr)
                .collect();
            let mut ranges = Vec::new();
            cover(&members, &others, &mut ranges);
            keys.extend(ranges.into_iter().map(|range| (range, password.clone())));
        }
        keys
    }
}

/// Finds few ranges that hold all members and overlap no other. Members are sorted.
fn cover(members: &[Cidr], others: &[Cidr], ranges: &mut Vec<Cidr>) {
    let (Some(first), Some(last)) = (members.first(), members.last()) else {
        return;
    };
    let common = common(first, last, members);
    if members.len() == 1 || !others.iter().any(|other| other.overlaps(&common)) {
        ranges.push(common);
        return;
    }
    // A member that holds others stands by itself; the rest lie in one half or the other.
    let (whole, rest): (Vec<_>, Vec<_>) = members.iter().copied().partition(|m| *m == common);
    ranges.extend(whole);
    let half = |cidr: &Cidr| Cidr::new(cidr.address(), common.length() + 1);
    let Some(low) = Cidr::new(common.address(), common.length() + 1) else {
        return;
    };
    let (left, right): (Vec<_>, Vec<_>) = rest
        .into_iter()
        .partition(|member| half(member) == Some(low));
    cover(&left, others, ranges);
    cover(&right, others, ranges);
}

/// The longest prefix that holds all members.
fn common(first: &Cidr, last: &Cidr, members: &[Cidr]) -> Cidr {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    let same = (bits(first.address()) ^ bits(last.address())).leading_zeros();
    let shortest = members.iter().map(Cidr::length).min().unwrap_or(0);
    let length = u8::try_from(same).unwrap_or(u8::MAX).min(shortest);
    Cidr::new(first.address(), length).unwrap_or(*first)
}

#[cfg(test)]
mod tests {
    use margay_model::scalar::AsNumber;

    use super::*;
    use crate::config::{PeerConfig, RemoteAs};

    fn keys(peers: &[(&str, Option<&str>)]) -> Vec<(String, Vec<u8>)> {
        let mut config = SpeakerConfig::new(AsNumber(1), "10.0.0.1".parse().unwrap());
        for (address, password) in peers {
            let mut peer = PeerConfig::new(address.parse().unwrap(), RemoteAs::Internal);
            peer.password = password.map(|text| Password::new(text).unwrap());
            config.peers.insert((*address).to_owned(), peer);
        }
        let keys = config.password_keys().into_iter();
        keys.map(|(cidr, password)| (cidr.to_string(), password.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn peers_of_one_password_share_a_key() {
        let addresses: Vec<String> = (1..=250).map(|host| format!("10.0.0.{host}")).collect();
        let peers: Vec<_> = addresses.iter().map(|a| (a.as_str(), Some("x"))).collect();
        assert_eq!(keys(&peers), [("10.0.0.0/24".to_owned(), b"x".to_vec())]);
        let with = |others: &[(&'static str, Option<&'static str>)]| {
            let mut all = vec![
                ("10.0.0.4", Some("x")),
                ("10.0.0.5", Some("x")),
                ("10.0.0.9", Some("x")),
            ];
            all.extend_from_slice(others);
            keys(&all)
                .into_iter()
                .map(|(cidr, _)| cidr)
                .collect::<Vec<_>>()
        };
        assert_eq!(with(&[]), ["10.0.0.0/28"]);
        assert_eq!(with(&[("10.0.0.15", None)]), ["10.0.0.4/31", "10.0.0.9/32"]);
        assert_eq!(
            with(&[("10.0.0.8", Some("y"))]),
            ["10.0.0.4/31", "10.0.0.9/32", "10.0.0.8/32"]
        );
        assert_eq!(with(&[("fd00::1", None)]), ["10.0.0.0/28"]);
        assert_eq!(
            with(&[("fd00::1", Some("x"))]),
            ["10.0.0.0/28", "fd00::1/128"]
        );
        assert!(keys(&[("10.0.0.4", None)]).is_empty());
    }
}
