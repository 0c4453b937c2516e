//! AS paths on the wire, of two octets and of four.

use margay_model::scalar::AsNumber;

use crate::attribute::{AsPath, SEGMENT_MAX, Segment, SegmentKind};
use crate::message::wire::Reader;

/// Reads an AS_PATH or AS4_PATH; `None` if it is malformed (RFC 7606 §7.2).
pub(super) fn read_path(value: &[u8], four_octets: bool) -> Option<AsPath> {
    let mut reader = Reader::new(value);
    let mut segments = Vec::new();
    while !reader.is_empty() {
        let kind = SegmentKind::from_octet(reader.u8()?)?;
        let count = reader.u8().filter(|count| *count > 0)?;
        let numbers = (0..count)
            .map(|_| {
                if four_octets {
                    reader.u32()
                } else {
                    reader.u16().map(u32::from)
                }
            })
            .map(|number| number.map(AsNumber))
            .collect::<Option<Vec<_>>>()?;
        segments.push(Segment { kind, numbers });
    }
    Some(AsPath(segments))
}

/// The path that a two-octet path and its AS4_PATH mean together (RFC 6793 §4.2.3): what the
/// first has more than the second, then the second.
pub(super) fn merge(short: AsPath, long: AsPath) -> AsPath {
    let Some(mut missing) = short.length().checked_sub(long.length()) else {
        return short;
    };
    let mut merged = AsPath::default();
    for mut segment in short.0 {
        // A confederation's segment counts nothing, and goes with the one before it.
        let size = match segment.kind {
            SegmentKind::Sequence => segment.numbers.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
        };
        if size > missing {
            segment.numbers.truncate(missing);
            if missing > 0 {
                merged.0.push(segment);
            }
            break;
        }
        missing -= size;
        merged.0.push(segment);
    }
    for segment in long.0 {
        match merged.0.last_mut() {
            Some(last)
                if last.kind == SegmentKind::Sequence
                    && segment.kind == SegmentKind::Sequence
                    && last.numbers.len() + segment.numbers.len() <= SEGMENT_MAX =>
            {
                last.numbers.extend(segment.numbers);
            }
            _ => merged.0.push(segment),
        }
    }
    merged
}

impl SegmentKind {
    /// Whether the segment belongs to a confederation.
    pub(crate) fn is_confederation(self) -> bool {
        matches!(self, Self::ConfedSequence | Self::ConfedSet)
    }

    fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Set),
            2 => Some(Self::Sequence),
            3 => Some(Self::ConfedSequence),
            4 => Some(Self::ConfedSet),
            _ => None,
        }
    }

    pub(in crate::message) fn octet(self) -> u8 {
        match self {
            Self::Set => 1,
            Self::Sequence => 2,
            Self::ConfedSequence => 3,
            Self::ConfedSet => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_octet_paths_replace_the_end() {
        let cases = [
            (vec![1, 23456, 23456], vec![70000, 80000], "1 70000 80000"),
            (vec![23456], vec![70000], "70000"),
            (vec![1], vec![70000, 80000], "1"),
            (vec![1, 2], vec![], "1 2"),
        ];
        for (short, long, expected) in cases {
            let merged = merge(AsPath::sequence(short), AsPath::sequence(long));
            assert_eq!(merged.to_string(), expected);
        }
    }

    #[test]
    fn segments_of_a_confederation_stay_where_they_lead() {
        let segment = |kind, numbers: &[u32]| Segment {
            kind,
            numbers: numbers.iter().copied().map(AsNumber).collect(),
        };
        let short = AsPath(vec![
            segment(SegmentKind::ConfedSequence, &[64512]),
            segment(SegmentKind::ConfedSet, &[64513, 64514]),
            segment(SegmentKind::Sequence, &[1, 23456]),
        ]);
        for (long, expected) in [
            (vec![70000], "(64512) [64513,64514] 1 70000"),
            (vec![1, 70000], "(64512) [64513,64514] 1 70000"),
            (vec![1, 2, 70000], "(64512) [64513,64514] 1 23456"),
        ] {
            let merged = merge(short.clone(), AsPath::sequence(long));
            assert_eq!(merged.to_string(), expected);
        }
    }
}
