//! What a group's members are told of a route: reflection, policy, next hop, and what differs
//! between internal and external peers.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use margay_model::scalar::AsNumber;
use margay_model::{Cidr, Family};

use crate::attribute::{Attributes, Community, NextHop};
use crate::config::NextHopMode;
use crate::intern::Interner;
use crate::message::Context;
use crate::peer::PeerId;
use crate::policy::Outcome;
use crate::policy::{Candidate, Policy};
use crate::table::{Path, PathSource};

/// What the members of a group have in common.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupKey {
    /// The family.
    pub(crate) family: Family,
    /// How messages are written, and whether the members are external.
    pub(crate) context: Context,
    /// Whether the members are clients of ours (RFC 4456).
    pub(crate) client: bool,
    /// Whether the members take long-lived stale routes (RFC 9494).
    pub(crate) long_lived: bool,
    /// The most paths of a prefix; 0 without add-path.
    pub(crate) paths: u8,
    /// Our AS on the session.
    pub(crate) asn: AsNumber,
    /// Our cluster.
    pub(crate) cluster: Ipv4Addr,
    /// Our addresses.
    pub(crate) own: OwnNextHops,
    /// Which next hop is announced.
    pub(crate) mode: NextHopMode,
    /// The export policy.
    pub(crate) policy: Option<Arc<Policy>>,
}

/// Our addresses as next hops on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnNextHops {
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
    pub(crate) link_local: Option<Ipv6Addr>,
}

impl GroupKey {
    /// How the best routes of a prefix are announced: path identifier, attributes, source.
    pub(crate) fn export<'a>(
        &self,
        prefix: Cidr,
        paths: impl Iterator<Item = &'a Path>,
        interner: &mut Interner,
    ) -> Vec<(u32, Arc<Attributes>, Option<PeerId>)> {
        let most = usize::from(self.paths.max(1));
        let mut told = Vec::new();
        for path in paths.take(if self.paths == 0 { 1 } else { usize::MAX }) {
            if told.len() == most {
                break;
            }
            if let Some(attributes) = self.export_path(prefix, path) {
                let id = if self.paths == 0 { 0 } else { path.local_id };
                told.push((id, interner.intern(attributes), path.source.id()));
            }
        }
        told
    }

    fn export_path(&self, prefix: Cidr, path: &Path) -> Option<Attributes> {
        if prefix.family() != self.family || !self.may_know(path) {
            return None;
        }
        let candidate = Candidate {
            prefix,
            attributes: &path.attributes,
            source: path.source.for_policy(),
            external: self.context.external,
        };
        let (mut attributes, chosen) = match &self.policy {
            Some(policy) => match policy.evaluate(&candidate) {
                Outcome::Accept {
                    attributes,
                    next_hop,
                } => (attributes, next_hop),
                Outcome::Reject(_) => return None,
            },
            // RFC 8212: an external peer is told nothing without a policy.
            None if self.context.external => return None,
            None => (Cow::Borrowed(&*path.attributes), None),
        };
        let mode = chosen.unwrap_or(self.mode);
        let next_hop = self.next_hop(&attributes, path, mode)?;
        let changed = attributes.to_mut();
        changed.next_hop = next_hop;
        if self.context.external {
            self.make_external(changed, path);
        } else {
            self.make_internal(changed, path);
        }
        Some(attributes.into_owned())
    }

    /// Whether the members may know of the route at all.
    fn may_know(&self, path: &Path) -> bool {
        let attributes = &path.attributes;
        let scoped = attributes.has_community(Community::NO_ADVERTISE)
            || (self.context.external
                && (attributes.has_community(Community::NO_EXPORT)
                    || attributes.has_community(Community::NO_EXPORT_SUBCONFED)));
        // RFC 4456 §6: what comes from a client goes to all, the rest to clients.
        let reflected = match path.source.peer() {
            Some(peer) if !peer.external && !self.context.external => peer.client || self.client,
            _ => true,
        };
        !scoped && reflected && (self.long_lived || !path.long_lived_stale())
    }

    fn make_external(&self, attributes: &mut Attributes, path: &Path) {
        attributes.as_path.remove_confederation();
        attributes.as_path.prepend(&[self.asn]);
        attributes.local_pref = None;
        attributes.originator_id = None;
        attributes.cluster_list.clear();
        // RFC 4271 §5.1.4: what another AS said is not passed on.
        if path.source.peer().is_some() && attributes.med == path.attributes.med {
            attributes.med = None;
        }
        attributes.extended_communities.retain(|community| {
            // RFC 4360 §6: non-transitive ones stay within the AS.
            community
                .0
                .first()
                .is_some_and(|kind| kind & NON_TRANSITIVE == 0)
        });
    }

    fn make_internal(&self, attributes: &mut Attributes, path: &Path) {
        attributes.local_pref = Some(attributes.preference());
        if let Some(peer) = path.source.peer().filter(|peer| !peer.external) {
            attributes.originator_id.get_or_insert(peer.router_id);
            attributes.cluster_list.insert(0, self.cluster);
        }
    }

    fn next_hop(&self, attributes: &Attributes, path: &Path, mode: NextHopMode) -> Option<NextHop> {
        let given = attributes.next_hop;
        let local = matches!(path.source, PathSource::Local(_));
        let own = match mode {
            _ if given.address.is_unspecified() || given.is_link_local() => true,
            NextHopMode::Own => true,
            NextHopMode::Keep => false,
            NextHopMode::Auto => self.context.external && !local,
        };
        let fits = given.family() == self.family || self.context.extended_next_hop;
        if !own && fits {
            return Some(NextHop::new(given.address));
        }
        let v6 = || {
            let address = self.own.v6.or(self.own.link_local)?;
            Some(NextHop {
                address: IpAddr::V6(address),
                link_local: self.own.link_local,
            })
        };
        match self.family {
            Family::V4 => match self.own.v4 {
                Some(address) => Some(NextHop::new(IpAddr::V4(address))),
                None => v6().filter(|_| self.context.extended_next_hop),
            },
            Family::V6 => v6(),
        }
    }
}

const NON_TRANSITIVE: u8 = 0x40;
