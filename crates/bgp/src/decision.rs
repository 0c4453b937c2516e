//! The decision process: which of several routes to a prefix is the best (RFC 4271 §9.1.2).
//!
//! Routes are eliminated step by step, as the RFC describes it, and not compared in pairs: with
//! MULTI_EXIT_DISC, which only counts among routes of the same neighbouring AS, pairs have no order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use margay_model::scalar::AsNumber;

use crate::event::BestReason;
use crate::table::Path;

/// How far next hops are; one that is not listed can be reached at no cost.
///
/// `None` stands for a next hop that cannot be reached.
pub(crate) type Metrics = BTreeMap<IpAddr, Option<u32>>;

/// What the decision process found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The place of the best route.
    pub(crate) best: usize,
    /// The places of all routes that are as good up to the distance of the next hop, in order.
    pub(crate) equal: Vec<usize>,
    /// The step that left the best.
    pub(crate) reason: BestReason,
}

/// Decides among routes to a prefix; `None` if none can be used.
pub(crate) fn decide(paths: &[Path], metrics: &Metrics) -> Option<Decision> {
    let mut left: Vec<usize> = paths
        .iter()
        .enumerate()
        .filter(|(_, path)| path.distance(metrics).is_some())
        .map(|(place, _)| place)
        .collect();
    let mut reason = BestReason::OnlyPath;
    let mut equal = Vec::new();
    for step in STEPS {
        if left.len() == 1 && !equal.is_empty() {
            break;
        }
        let before = left.len();
        if step == BestReason::Med {
            eliminate_by_med(paths, &mut left);
        } else if before > 1 {
            eliminate(paths, metrics, step, &mut left);
        }
        if left.len() == 1 && before > 1 {
            reason = step;
        }
        if step == BestReason::NextHopMetric {
            equal.clone_from(&left);
        }
    }
    let best = *left.first()?;
    Some(Decision {
        best,
        equal,
        reason,
    })
}

fn eliminate(paths: &[Path], metrics: &Metrics, step: BestReason, left: &mut Vec<usize>) {
    let rank = |place: &usize| paths.get(*place).map(|path| path.rank(step, metrics));
    let best = left.iter().filter_map(rank).min();
    left.retain(|place| rank(place) == best);
}

/// Of routes by way of the same neighbouring AS, those with the lowest MED stay.
fn eliminate_by_med(paths: &[Path], left: &mut Vec<usize>) {
    if left.len() < 2 {
        return;
    }
    let neighbour_and_med = |place: &usize| -> Option<(Option<AsNumber>, u32)> {
        let attributes = &paths.get(*place)?.attributes;
        Some((attributes.as_path.first(), attributes.med.unwrap_or(0)))
    };
    let mut lowest: BTreeMap<Option<AsNumber>, u32> = BTreeMap::new();
    for (neighbour, med) in left.iter().filter_map(neighbour_and_med) {
        let least = lowest.entry(neighbour).or_insert(med);
        *least = med.min(*least);
    }
    left.retain(|place| {
        neighbour_and_med(place)
            .is_some_and(|(neighbour, med)| lowest.get(&neighbour) == Some(&med))
    });
}

impl Path {
    /// The distance of the next hop; `None` if it cannot be reached.
    pub(crate) fn distance(&self, metrics: &Metrics) -> Option<u32> {
        if self.source.peer().is_none() {
            return Some(0);
        }
        metrics
            .get(&self.attributes.next_hop.address)
            .copied()
            .unwrap_or(Some(0))
    }

    /// Where the route stands in a step of the decision; less is better.
    fn rank(&self, step: BestReason, metrics: &Metrics) -> Rank {
        let attributes = &self.attributes;
        let peer = self.source.peer();
        match step {
            BestReason::Local => Rank::Number(u64::from(peer.is_some())),
            BestReason::NotStale => Rank::Number(u64::from(self.long_lived_stale())),
            BestReason::LocalPreference => {
                Rank::Number(u64::from(u32::MAX - attributes.preference()))
            }
            BestReason::AsPathLength => Rank::Number(number(attributes.as_path.length())),
            BestReason::Origin => Rank::Number(u64::from(attributes.origin.octet())),
            BestReason::External => {
                Rank::Number(u64::from(peer.is_some_and(|peer| !peer.external)))
            }
            BestReason::NextHopMetric => {
                Rank::Number(u64::from(self.distance(metrics).unwrap_or(u32::MAX)))
            }
            BestReason::RouterId => {
                let own = peer.map_or(Ipv4Addr::UNSPECIFIED, |peer| peer.router_id);
                Rank::Number(u64::from(u32::from(
                    attributes.originator_id.unwrap_or(own),
                )))
            }
            BestReason::ClusterListLength => Rank::Number(number(attributes.cluster_list.len())),
            BestReason::PeerAddress => Rank::Address(peer.map(|peer| peer.address)),
            BestReason::PathId => Rank::Number(u64::from(self.path_id)),
            BestReason::OnlyPath | BestReason::Med => Rank::Number(0),
        }
    }
}

/// What steps compare.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Number(u64),
    Address(Option<IpAddr>),
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

const STEPS: [BestReason; 12] = [
    BestReason::Local,
    BestReason::NotStale,
    BestReason::LocalPreference,
    BestReason::AsPathLength,
    BestReason::Origin,
    BestReason::Med,
    BestReason::External,
    BestReason::NextHopMetric,
    BestReason::RouterId,
    BestReason::ClusterListLength,
    BestReason::PeerAddress,
    BestReason::PathId,
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::attribute::{AsPath, Attributes, Community, Origin};
    use crate::peer::PeerId;
    use crate::table::{Freshness, PathSource, PeerSource};

    fn path(peer: u8, external: bool, change: impl FnOnce(&mut Attributes)) -> Path {
        let address = Ipv4Addr::new(10, 0, 0, peer);
        let mut attributes = Attributes::local(address.into());
        attributes.as_path = AsPath::sequence([65001]);
        change(&mut attributes);
        Path {
            source: PathSource::Peer(Arc::new(PeerSource {
                id: PeerId(u32::from(peer)),
                name: "peer".into(),
                address: address.into(),
                router_id: address,
                external,
                client: false,
            })),
            path_id: 0,
            local_id: u32::from(peer),
            attributes: Arc::new(attributes),
            stale: Freshness::Fresh,
        }
    }

    fn nothing(_: &mut Attributes) {}

    #[test]
    fn each_step_decides() {
        let cases: [(BestReason, Path, Path); 10] = [
            (
                BestReason::NotStale,
                path(9, false, nothing),
                path(1, false, |a| a.add_community(Community::LLGR_STALE)),
            ),
            (
                BestReason::LocalPreference,
                path(9, false, |a| a.local_pref = Some(101)),
                path(1, false, nothing),
            ),
            (
                BestReason::AsPathLength,
                path(9, false, nothing),
                path(1, false, |a| a.as_path = AsPath::sequence([65001, 1])),
            ),
            (
                BestReason::Origin,
                path(9, false, nothing),
                path(1, false, |a| a.origin = Origin::Egp),
            ),
            (
                BestReason::Med,
                path(9, false, nothing),
                path(1, false, |a| a.med = Some(1)),
            ),
            (
                BestReason::External,
                path(9, true, nothing),
                path(1, false, nothing),
            ),
            (
                BestReason::RouterId,
                path(1, false, nothing),
                path(9, false, nothing),
            ),
            (
                BestReason::RouterId,
                path(9, false, |a| {
                    a.originator_id = Some(Ipv4Addr::new(1, 0, 0, 1))
                }),
                path(1, false, nothing),
            ),
            (
                BestReason::ClusterListLength,
                path(9, false, |a| {
                    a.originator_id = Some(Ipv4Addr::new(1, 0, 0, 1));
                    a.cluster_list = vec![Ipv4Addr::new(1, 0, 0, 1)];
                }),
                path(1, false, |a| {
                    a.originator_id = Some(Ipv4Addr::new(1, 0, 0, 1));
                    a.cluster_list = vec![Ipv4Addr::new(1, 0, 0, 1); 2];
                }),
            ),
            (
                BestReason::PeerAddress,
                path(1, false, |a| {
                    a.originator_id = Some(Ipv4Addr::new(1, 0, 0, 1))
                }),
                path(9, false, |a| {
                    a.originator_id = Some(Ipv4Addr::new(1, 0, 0, 1))
                }),
            ),
        ];
        for (reason, better, worse) in cases {
            for (paths, best) in [([better.clone(), worse.clone()], 0), ([worse, better], 1)] {
                let decision = decide(&paths, &Metrics::new()).unwrap();
                assert_eq!((decision.best, decision.reason), (best, reason));
            }
        }
    }

    #[test]
    fn next_hops_count_by_distance_and_reach() {
        let paths = [
            path(1, false, nothing),
            path(2, false, nothing),
            path(3, false, nothing),
        ];
        let first: IpAddr = "10.0.0.1".parse().unwrap();
        let second: IpAddr = "10.0.0.2".parse().unwrap();
        let decision = decide(&paths, &Metrics::new()).unwrap();
        assert_eq!((decision.best, decision.equal), (0, vec![0, 1, 2]));
        let far = Metrics::from([(first, Some(10))]);
        let decision = decide(&paths, &far).unwrap();
        assert_eq!((decision.best, decision.equal), (1, vec![1, 2]));
        let gone = Metrics::from([(first, None), (second, None)]);
        let decision = decide(&paths, &gone).unwrap();
        assert_eq!((decision.best, decision.reason), (2, BestReason::OnlyPath));
        assert_eq!(decide(&paths[..2], &gone), None);
    }

    /// The order of arrival must not matter, which comparing in pairs would not give: by MED the
    /// first beats the third, by router ID the second beats the first and the third the second.
    #[test]
    fn med_does_not_depend_on_order() {
        let via = |asn: u32, med: u32| {
            move |a: &mut Attributes| {
                a.as_path = AsPath::sequence([asn]);
                a.med = Some(med);
            }
        };
        let paths = [
            path(3, true, via(1, 0)),
            path(2, true, via(2, 5)),
            path(1, true, via(1, 10)),
        ];
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let shuffled = order.map(|place: usize| paths[place].clone());
            let best = decide(&shuffled, &Metrics::new()).unwrap().best;
            assert_eq!(shuffled[best], paths[1], "{order:?}");
        }
    }
}
