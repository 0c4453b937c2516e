//! The Adj-RIB-Out of peers that are told the same: an update group.
//!
//! A group keeps what its members are to know, and a log of changes in which each prefix stands
//! once, at its latest change. The log is cut into segments, encoded once for all members. A member
//! is a pair of places in the log, one for withdrawals, which go first, and one for announcements:
//! what lies behind them is what it still has to be told. A slow member costs nothing, and skips
//! what changed again meanwhile.

mod encode;
mod export;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use margay_model::Cidr;

use crate::attribute::Attributes;
use crate::message::{self, Nlri, Refresh, RefreshKind};
use crate::peer::PeerId;
use crate::status::AdvertisedRoute;
use encode::Encoded;
pub(crate) use export::{GroupKey, OwnNextHops};

/// An update group.
#[derive(Debug)]
pub(crate) struct Group {
    /// What its members have in common.
    pub(crate) key: GroupKey,
    members: BTreeMap<PeerId, Member>,
    entries: BTreeMap<Path, Entry>,
    segments: BTreeMap<u64, Segment>,
    next_segment: u64,
    /// The farthest that any member ever was.
    farthest: u64,
}

/// A prefix and the path identifier it is announced with.
type Path = (Cidr, u32);

/// What members are to know of a prefix.
#[derive(Debug)]
struct Entry {
    /// How it is announced; `None` once it is withdrawn, until all members know.
    attributes: Option<Arc<Attributes>>,
    /// Whose route it is, who is not told of it.
    source: Option<PeerId>,
    /// The segment in which the prefix first stood.
    born: u64,
    /// Whether it was of several sources since, so that its source may have been told of it.
    mixed: bool,
    /// The segment in which it stands.
    segment: u64,
}

/// A part of the log.
#[derive(Debug, Default)]
struct Segment {
    /// What changed; also what has moved on to a later segment since.
    paths: Vec<Path>,
    /// How many have not moved on.
    live: usize,
    encoded: Option<Arc<Encoded>>,
}

/// A peer of the group.
#[derive(Debug)]
struct Member {
    /// The first segment whose withdrawals it has not been told.
    withdrawn: u64,
    /// The first segment whose announcements it has not been told.
    announced: u64,
    /// What it knows from an earlier group and must forget.
    forget: Vec<Nlri>,
    /// What it knows from before it was set to the start of the log, until it is told that anew.
    kept: Vec<Path>,
    /// The segment before which all that is kept stands.
    kept_until: u64,
    /// What is said when it has been told all up to a segment.
    end: Option<(u64, End)>,
}

/// What is said when a member has been told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// End-of-RIB (RFC 4724 §2).
    OfRib,
    /// End of a refresh (RFC 7313 §4).
    OfRefresh,
}

/// What a call wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// UPDATEs.
    pub(crate) updates: u64,
    /// ROUTE-REFRESHes.
    pub(crate) refreshes: u64,
}

impl Group {
    pub(crate) fn new(key: GroupKey) -> Self {
        Self {
            key,
            members: BTreeMap::new(),
            entries: BTreeMap::new(),
            segments: BTreeMap::new(),
            next_segment: 1,
            farthest: 0,
        }
    }

    /// Adds a member that knows `known` already, and is to be told the rest from the start.
    pub(crate) fn join(
        &mut self,
        peer: PeerId,
        known: impl Iterator<Item = Path>,
        end: Option<End>,
    ) {
        let (kept, forget): (Vec<_>, Vec<_>) = known.partition(|path| {
            let entry = self.entries.get(path);
            entry.is_some_and(|entry| entry.is_for(peer))
        });
        if !kept.is_empty() {
            // What is withdrawn from now on is no news to nobody.
            self.farthest = self.farthest.max(self.next_segment);
        }
        let forget = forget
            .into_iter()
            .map(|(prefix, path_id)| Nlri { prefix, path_id })
            .collect();
        let end = end.map(|end| (self.next_segment, end));
        self.members.insert(
            peer,
            Member {
                withdrawn: 0,
                announced: 0,
                forget,
                kept,
                kept_until: self.next_segment,
                end,
            },
        );
    }

    /// Removes a member; returns what it may know.
    pub(crate) fn leave(&mut self, peer: PeerId) -> BTreeSet<Path> {
        let Some(member) = self.members.remove(&peer) else {
            return BTreeSet::new();
        };
        let forgotten = member.forget.iter().map(|nlri| (nlri.prefix, nlri.path_id));
        self.known_to(&member).chain(forgotten).collect()
    }

    /// Tells a member everything again.
    pub(crate) fn repeat(&mut self, peer: PeerId, end: Option<End>) {
        let next = self.next_segment;
        let known = self.members.get(&peer).map(|member| self.known_to(member));
        let known: BTreeSet<_> = known.into_iter().flatten().collect();
        if let Some(member) = self.members.get_mut(&peer) {
            (member.withdrawn, member.announced) = (0, 0);
            (member.kept, member.kept_until) = (known.into_iter().collect(), next);
            // An End-of-RIB that is still due stays due.
            if member.end.is_none_or(|(_, due)| due == End::OfRefresh) {
                member.end = end.map(|end| (next, end));
            }
        }
    }

    /// Has all members told that they know everything, once they do.
    pub(crate) fn end_for_all(&mut self) {
        for member in self.members.values_mut() {
            member.end = Some((self.next_segment, End::OfRib));
        }
    }

    /// The members.
    pub(crate) fn members(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    /// Whether nobody is a member.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a member has something to be told.
    pub(crate) fn has_news(&self, peer: PeerId) -> bool {
        self.members.get(&peer).is_some_and(|member| {
            let first = member.withdrawn.min(member.announced);
            let end = member.end.is_some();
            end || !member.forget.is_empty() || self.segments.range(first..).next().is_some()
        })
    }

    /// Notes how a prefix is to be announced from now on; with several paths, all of them.
    pub(crate) fn set(&mut self, prefix: Cidr, wanted: &[(u32, Arc<Attributes>, Option<PeerId>)]) {
        if self.key.paths > 0 {
            let present = self.entries.range((prefix, 0)..=(prefix, u32::MAX));
            let gone: Vec<_> = present
                .map(|(path, _)| *path)
                .filter(|(_, id)| !wanted.iter().any(|(wanted, ..)| wanted == id))
                .collect();
            for path in gone {
                self.withdraw(path);
            }
        } else if wanted.is_empty() {
            self.withdraw((prefix, 0));
        }
        for (id, attributes, source) in wanted {
            self.announce((prefix, *id), attributes, *source);
        }
    }

    /// The prefixes that are announced.
    pub(crate) fn prefixes(&self) -> Vec<Cidr> {
        let mut prefixes: Vec<_> = self.entries.keys().map(|(prefix, _)| *prefix).collect();
        prefixes.dedup();
        prefixes
    }

    /// What a member is announced.
    pub(crate) fn advertised(&self, peer: PeerId) -> Vec<AdvertisedRoute> {
        let Some(member) = self.members.get(&peer) else {
            return Vec::new();
        };
        let told = self.entries.iter().filter(|(_, entry)| entry.is_for(peer));
        told.filter_map(|((prefix, path_id), entry)| {
            Some(AdvertisedRoute {
                prefix: *prefix,
                path_id: *path_id,
                attributes: entry.attributes.clone()?,
                queued: entry.segment >= member.announced,
            })
        })
        .collect()
    }

    /// How many routes there are for members, and of how many each source is not told.
    pub(crate) fn count(&self) -> (u32, BTreeMap<PeerId, u32>) {
        let mut all = 0;
        let mut of = BTreeMap::new();
        for entry in self
            .entries
            .values()
            .filter(|entry| entry.attributes.is_some())
        {
            all += 1;
            if let Some(source) = entry.source {
                *of.entry(source).or_insert(0) += 1;
            }
        }
        (all, of)
    }

    /// Writes what a member has to be told until `out` has `limit` octets or nothing is left.
    pub(crate) fn transmit(&mut self, peer: PeerId, out: &mut Vec<u8>, limit: usize) -> Written {
        let mut written = Written::default();
        let Some(mut member) = self.members.remove(&peer) else {
            return written;
        };
        let family = self.key.family;
        if !member.forget.is_empty() {
            let forget = std::mem::take(&mut member.forget);
            let start = out.len();
            message::withdrawals(out, &self.key.context, family, &forget);
            written.updates += encode::count_messages(out.get(start..).unwrap_or_default());
        }
        while out.len() < limit
            && let Some(id) = self.next_from(member.withdrawn)
        {
            written.updates += self.encoded(id).withdrawals.copy_for(peer, out);
            member.withdrawn = id + 1;
        }
        while out.len() < limit
            && let Some(id) = self.next_from(member.announced)
        {
            let encoded = self.encoded(id);
            written.updates += encoded.own_withdrawals(&self.key, peer, out);
            written.updates += encoded.announcements.copy_for(peer, out);
            member.announced = id + 1;
        }
        self.farthest = self.farthest.max(member.withdrawn).max(member.announced);
        if member.announced >= member.kept_until || self.next_from(member.announced).is_none() {
            member.kept = Vec::new();
        }
        let told = self.next_from(member.withdrawn.min(member.announced));
        if let Some((target, end)) = member.end
            && told.is_none_or(|next| next >= target)
        {
            match end {
                End::OfRib => {
                    message::end_of_rib(out, family);
                    written.updates += 1;
                }
                End::OfRefresh => {
                    message::encode_refresh(
                        out,
                        Refresh {
                            family,
                            kind: RefreshKind::End,
                        },
                    );
                    written.refreshes += 1;
                }
            }
            member.end = None;
        }
        self.members.insert(peer, member);
        written
    }

    /// Forgets withdrawn prefixes that all members know of, and joins small segments that all
    /// members have passed.
    pub(crate) fn compact(&mut self) {
        let places = self
            .members
            .values()
            .map(|member| member.withdrawn.min(member.announced));
        let passed = places.min().unwrap_or(self.next_segment);
        let small: Vec<u64> = self
            .segments
            .range(..passed)
            .rev()
            .take_while(|(_, segment)| segment.live < SEGMENT_MAX / 2)
            .map(|(id, _)| *id)
            .collect();
        if small.len() < COMPACT_FROM {
            return;
        }
        let mut live = Vec::new();
        for id in small.iter().rev() {
            let Some(segment) = self.segments.remove(id) else {
                continue;
            };
            for path in segment.paths {
                let Some(entry) = self.entries.get(&path).filter(|e| e.segment == *id) else {
                    continue;
                };
                if entry.attributes.is_some() {
                    live.push(path);
                } else {
                    self.entries.remove(&path);
                }
            }
        }
        for (paths, id) in live.chunks(SEGMENT_MAX).zip(small.iter().rev()) {
            for path in paths {
                if let Some(entry) = self.entries.get_mut(path) {
                    entry.segment = *id;
                    entry.born = entry.born.min(*id);
                }
            }
            let segment = Segment {
                paths: paths.to_vec(),
                live: paths.len(),
                encoded: None,
            };
            self.segments.insert(*id, segment);
        }
    }

    /// What a member may have been told, without what it is to forget.
    fn known_to(&self, member: &Member) -> impl Iterator<Item = Path> {
        let place = member.announced;
        let told = self.entries.iter();
        let told = told.filter(move |(_, entry)| entry.born < place);
        told.map(|(path, _)| *path).chain(member.kept.clone())
    }

    fn announce(&mut self, path: Path, attributes: &Arc<Attributes>, source: Option<PeerId>) {
        let next = self.next_segment;
        let entry = self.entries.entry(path).or_insert_with(|| Entry {
            attributes: None,
            source,
            born: next,
            mixed: false,
            segment: 0,
        });
        let same = entry
            .attributes
            .as_ref()
            .is_some_and(|known| known == attributes);
        if same && entry.source == source {
            return;
        }
        entry.mixed |= entry.source != source;
        entry.source = source;
        entry.attributes = Some(Arc::clone(attributes));
        self.log(path);
    }

    fn withdraw(&mut self, path: Path) {
        let Some(entry) = self
            .entries
            .get_mut(&path)
            .filter(|e| e.attributes.is_some())
        else {
            return;
        };
        entry.attributes = None;
        if entry.born >= self.farthest {
            // Nobody was told of it.
            let segment = entry.segment;
            self.entries.remove(&path);
            self.left(segment);
        } else {
            self.log(path);
        }
    }

    /// Writes a change into the log, in the last segment if nobody has read that yet.
    fn log(&mut self, path: Path) {
        let last = self.segments.last_key_value();
        let open =
            last.filter(|(id, segment)| **id >= self.farthest && segment.paths.len() < SEGMENT_MAX);
        let id = open.map_or(self.next_segment, |(id, _)| *id);
        self.next_segment = self.next_segment.max(id + 1);
        let Some(entry) = self.entries.get_mut(&path) else {
            return;
        };
        let before = std::mem::replace(&mut entry.segment, id);
        entry.born = entry.born.min(id);
        let segment = self.segments.entry(id).or_default();
        segment.encoded = None;
        if before != id {
            segment.paths.push(path);
            segment.live += 1;
            self.left(before);
        }
    }

    /// Notes that a prefix left a segment.
    fn left(&mut self, id: u64) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.live = segment.live.saturating_sub(1);
            segment.encoded = None;
            if segment.live == 0 {
                self.segments.remove(&id);
            }
        }
    }

    fn next_from(&self, place: u64) -> Option<u64> {
        self.segments.range(place..).next().map(|(id, _)| *id)
    }

    fn encoded(&mut self, id: u64) -> Arc<Encoded> {
        let Some(segment) = self.segments.get_mut(&id) else {
            return Arc::default();
        };
        let encoded = segment.encoded.get_or_insert_with(|| {
            let here = segment.paths.iter().filter_map(|path| {
                let entry = self.entries.get(path)?;
                (entry.segment == id).then_some((path, entry))
            });
            Arc::new(Encoded::new(&self.key, here))
        });
        Arc::clone(encoded)
    }
}

impl Entry {
    fn is_for(&self, peer: PeerId) -> bool {
        self.attributes.is_some() && self.source != Some(peer)
    }
}

/// The most prefixes of a segment.
const SEGMENT_MAX: usize = 256;
/// How many small segments are joined.
const COMPACT_FROM: usize = 32;
