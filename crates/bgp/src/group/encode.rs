//! A segment of a group's log as octets, shared by all members.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Entry, GroupKey, Path};
use crate::attribute::Attributes;
use crate::message::{self, HEADER_LEN, Nlri};
use crate::peer::PeerId;

/// A segment of the log, encoded.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    /// What is withdrawn.
    pub(super) withdrawals: Part,
    /// What is announced.
    pub(super) announcements: Part,
    /// What a source's own routes took the place of, which it may have been told.
    superseded: Vec<(PeerId, Nlri)>,
}

/// UPDATEs, with the places of those that their source is not told.
#[derive(Debug, Default)]
pub(super) struct Part {
    octets: Vec<u8>,
    messages: u64,
    /// Sorted by source, and by place for each.
    spans: Vec<Span>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    source: PeerId,
    start: usize,
    end: usize,
    messages: u64,
}

impl Encoded {
    pub(super) fn new<'a>(
        key: &GroupKey,
        entries: impl Iterator<Item = (&'a Path, &'a Entry)>,
    ) -> Self {
        let mut withdrawn = Runs::default();
        let mut announced = Runs::default();
        let mut superseded = Vec::new();
        for ((prefix, path_id), entry) in entries {
            let nlri = Nlri {
                prefix: *prefix,
                path_id: *path_id,
            };
            let attributes = entry.attributes.as_ref();
            if attributes.is_some() && entry.mixed {
                superseded.extend(entry.source.map(|source| (source, nlri)));
            }
            let source = entry
                .source
                .filter(|_| attributes.is_some() || !entry.mixed);
            let runs = if attributes.is_some() {
                &mut announced
            } else {
                &mut withdrawn
            };
            runs.add(source, attributes, nlri);
        }
        let mut encoded = Self {
            superseded,
            ..Self::default()
        };
        for run in withdrawn.runs {
            encoded.withdrawals.write(run.source, |out| {
                message::withdrawals(out, &key.context, key.family, &run.nlri);
            });
        }
        for run in announced.runs {
            let Some(attributes) = run.attributes else {
                continue;
            };
            encoded.announcements.write(run.source, |out| {
                // Attributes too long for a message are announced to nobody.
                let _ =
                    message::announcements(out, &key.context, key.family, attributes, &run.nlri);
            });
        }
        encoded.withdrawals.spans.sort_unstable();
        encoded.announcements.spans.sort_unstable();
        encoded
    }

    /// Withdraws from a source what its own routes took the place of; returns how many messages
    /// that takes.
    pub(super) fn own_withdrawals(&self, key: &GroupKey, peer: PeerId, out: &mut Vec<u8>) -> u64 {
        let own = self.superseded.iter().filter(|(source, _)| *source == peer);
        let own: Vec<_> = own.map(|(_, nlri)| *nlri).collect();
        let start = out.len();
        message::withdrawals(out, &key.context, key.family, &own);
        count_messages(out.get(start..).unwrap_or_default())
    }
}

impl Part {
    /// Appends all that `peer` is told; returns how many messages that is.
    pub(super) fn copy_for(&self, peer: PeerId, out: &mut Vec<u8>) -> u64 {
        let first = self.spans.partition_point(|span| span.source < peer);
        let own = self
            .spans
            .iter()
            .skip(first)
            .take_while(|span| span.source == peer);
        let (mut place, mut messages) = (0, self.messages);
        for span in own {
            out.extend_from_slice(self.octets.get(place..span.start).unwrap_or_default());
            place = span.end;
            messages -= span.messages;
        }
        out.extend_from_slice(self.octets.get(place..).unwrap_or_default());
        messages
    }

    fn write(&mut self, source: Option<PeerId>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.octets.len();
        write(&mut self.octets);
        let end = self.octets.len();
        let messages = count_messages(self.octets.get(start..).unwrap_or_default());
        self.messages += messages;
        self.spans.extend(source.map(|source| Span {
            source,
            start,
            end,
            messages,
        }));
    }
}

/// Prefixes of the same source and attributes, in the order in which they came.
#[derive(Default)]
struct Runs<'a> {
    runs: Vec<Run<'a>>,
    places: HashMap<(Option<PeerId>, *const Attributes), usize>,
}

struct Run<'a> {
    source: Option<PeerId>,
    attributes: Option<&'a Arc<Attributes>>,
    nlri: Vec<Nlri>,
}

impl<'a> Runs<'a> {
    fn add(&mut self, source: Option<PeerId>, attributes: Option<&'a Arc<Attributes>>, nlri: Nlri) {
        let identity = attributes.map_or(std::ptr::null(), Arc::as_ptr);
        let place = *self.places.entry((source, identity)).or_insert_with(|| {
            self.runs.push(Run {
                source,
                attributes,
                nlri: Vec::new(),
            });
            self.runs.len() - 1
        });
        if let Some(run) = self.runs.get_mut(place) {
            run.nlri.push(nlri);
        }
    }
}

/// How many messages stand one after another.
pub(super) fn count_messages(mut octets: &[u8]) -> u64 {
    let mut count = 0;
    while let Some((header, _)) = octets.split_at_checked(HEADER_LEN) {
        let length = match header {
            [.., high, low, _] => usize::from(u16::from_be_bytes([*high, *low])),
            _ => break,
        };
        octets = octets.get(length.max(HEADER_LEN)..).unwrap_or_default();
        count += 1;
    }
    count
}
