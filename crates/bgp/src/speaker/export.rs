//! Routes to peers: which update group a peer belongs to, and what groups are told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_model::{Cidr, Family};

use super::Speaker;
use crate::config::{FAMILIES, Families};
use crate::event::Output;
use crate::group::{End, Group, GroupKey, OwnNextHops};
use crate::message::Context;
use crate::peer::{GroupId, PeerId, Phase};

impl Speaker {
    /// Decides on all prefixes that changed and brings what follows to the groups.
    pub(super) fn spread_changes(&mut self) {
        if !self.table.has_changes() {
            return;
        }
        let decided = self.table.decide(&self.metrics, self.config.multipath);
        for id in self.groups.keys().copied().collect::<Vec<_>>() {
            for (prefix, _) in &decided {
                self.export(id, *prefix);
            }
        }
        for (prefix, news) in decided {
            if let Some(best) = news {
                self.outputs.push(Output::Best { prefix, best });
            }
        }
        self.news_for_all();
    }

    /// Marks that members of groups may have something to be told.
    pub(super) fn news_for_all(&mut self) {
        for group in self.groups.values_mut() {
            group.compact();
        }
    }

    /// Tells the shell which connections have something to send.
    pub(super) fn announce_news(&mut self, now: Duration) {
        for group in self.groups.values() {
            for member in group.members() {
                if !group.has_news(member) {
                    continue;
                }
                let Some(peer) = self.peers.get_mut(&member) else {
                    continue;
                };
                let send_hold = peer.send_hold();
                let up = peer
                    .connections
                    .iter_mut()
                    .find(|c| c.phase == Phase::Established);
                let Some(connection) = up.filter(|connection| !connection.announced) else {
                    continue;
                };
                connection.announced = true;
                connection.send_until = Some(now + send_hold);
                self.outputs.push(Output::Transmit(connection.id));
            }
        }
    }

    /// Brings what the table says of a prefix to a group.
    fn export(&mut self, id: GroupId, prefix: Cidr) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if prefix.family() != group.key.family {
            return;
        }
        let deferred = self.restart.deferral.is_some();
        let wanted = match self.table.get(&prefix) {
            Some(entry) => {
                // While peers' routes are awaited, only our own are announced.
                let usable = entry.usable(&self.metrics);
                let paths = usable.filter(|path| !deferred || path.source.peer().is_none());
                group.key.export(prefix, paths, &mut self.interner)
            }
            None => Vec::new(),
        };
        group.set(prefix, &wanted);
    }

    /// Makes a peer that is up a member of its groups.
    pub(super) fn join_groups(&mut self, id: PeerId) {
        for family in FAMILIES {
            if let Some(key) = self.group_key(id, family) {
                self.join_group(id, family, key, BTreeSet::new(), true);
            }
        }
    }

    fn join_group(
        &mut self,
        id: PeerId,
        family: Family,
        key: GroupKey,
        known: BTreeSet<(Cidr, u32)>,
        end: bool,
    ) {
        let group_id = self.group_with(key);
        let end = (end && self.restart.deferral.is_none()).then_some(End::OfRib);
        if let Some(group) = self.groups.get_mut(&group_id) {
            group.join(id, known.into_iter(), end);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            *peer.groups.get_mut(family) = Some(group_id);
        }
    }

    pub(super) fn leave_groups(&mut self, id: PeerId) {
        for family in FAMILIES {
            self.leave_group(id, family);
        }
    }

    fn leave_group(&mut self, id: PeerId, family: Family) -> BTreeSet<(Cidr, u32)> {
        let group_id = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.groups.get_mut(family).take());
        let Some(group_id) = group_id else {
            return BTreeSet::new();
        };
        let Some(group) = self.groups.get_mut(&group_id) else {
            return BTreeSet::new();
        };
        let known = group.leave(id);
        if group.is_empty() {
            self.groups.remove(&group_id);
        }
        known
    }

    /// Finds the group for what its members have in common, or makes it.
    fn group_with(&mut self, key: GroupKey) -> GroupId {
        if let Some((id, _)) = self.groups.iter().find(|(_, group)| group.key == key) {
            return *id;
        }
        self.next_group += 1;
        let id = GroupId(self.next_group);
        self.groups.insert(id, Group::new(key));
        self.fill(id);
        id
    }

    /// Brings the whole table to a group.
    fn fill(&mut self, id: GroupId) {
        let mut prefixes: Vec<_> = self.table.iter().map(|(prefix, _)| *prefix).collect();
        if let Some(group) = self.groups.get(&id) {
            prefixes.extend(group.prefixes());
        }
        for prefix in prefixes {
            self.export(id, prefix);
        }
    }

    /// Brings peers into other groups after a change of configuration. A group whose members all
    /// go the same way goes with them, so that they are told only what differs.
    pub(super) fn regroup(&mut self) {
        let mut moves: BTreeMap<GroupId, Vec<(PeerId, Family, GroupKey)>> = BTreeMap::new();
        for peer in self.peers.values() {
            for family in FAMILIES {
                let Some(group) = *peer.groups.get(family) else {
                    continue;
                };
                if let Some(key) = self.group_key(peer.id, family) {
                    moves.entry(group).or_default().push((peer.id, family, key));
                }
            }
        }
        for (id, members) in moves {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            let Some((_, _, first)) = members.first() else {
                continue;
            };
            let together = members.iter().all(|(_, _, key)| key == first);
            if together && group.key == *first {
                continue;
            }
            let free = !self.groups.values().any(|group| group.key == *first);
            let same_octets = group.key.context == first.context && group.key.paths == first.paths;
            if together && free && same_octets {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.key = first.clone();
                }
                self.fill(id);
                continue;
            }
            for (peer, family, key) in members {
                if self.groups.get(&id).is_some_and(|group| group.key == key) {
                    continue;
                }
                let known = self.leave_group(peer, family);
                self.join_group(peer, family, key, known, false);
            }
        }
        self.news_for_all();
    }

    fn group_key(&self, id: PeerId, family: Family) -> Option<GroupKey> {
        let peer = self.peers.get(&id)?;
        let connection = peer.established()?;
        let session = connection.session.as_ref()?;
        if !session.context.families.has(family) {
            return None;
        }
        let send = session.add_path_send.has(family);
        let mut add_path = Families::NONE;
        *add_path.get_mut(family) = send;
        Some(GroupKey {
            family,
            context: Context {
                families: Families::BOTH,
                add_path,
                ..session.context
            },
            client: peer.config.reflector_client && !session.context.external,
            long_lived: session.graceful.takes_long_lived,
            paths: if send { peer.config.add_path.send } else { 0 },
            asn: self.own_as(&peer.config),
            cluster: self.config.cluster(),
            own: self.own_next_hops(connection.local),
            mode: peer.config.next_hop,
            policy: peer.config.export.clone(),
        })
    }

    /// Our addresses towards a peer: that of the session, then those of the configuration.
    fn own_next_hops(&self, local: Option<IpAddr>) -> OwnNextHops {
        let mut own = OwnNextHops {
            v4: self.config.address_v4,
            v6: self.config.address_v6,
            link_local: None,
        };
        match local {
            Some(IpAddr::V4(address)) => own.v4 = Some(address),
            Some(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                own.link_local = Some(address);
            }
            Some(IpAddr::V6(address)) => own.v6 = Some(address),
            None => {}
        }
        own
    }
}
