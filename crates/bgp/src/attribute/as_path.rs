//! The path of autonomous systems.

use std::fmt;

use margay_model::scalar::AsNumber;
use serde::Serialize;

/// What the numbers of a segment mean (RFC 4271 §4.3, RFC 5065 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// AS_SET: unordered.
    Set,
    /// AS_SEQUENCE: ordered, the last AS first.
    Sequence,
    /// AS_CONFED_SEQUENCE.
    ConfedSequence,
    /// AS_CONFED_SET.
    ConfedSet,
}

/// A segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Segment {
    /// What the numbers mean.
    pub kind: SegmentKind,
    /// 1 to 255 AS numbers.
    pub numbers: Vec<AsNumber>,
}

/// A path of autonomous systems, the nearest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct AsPath(pub Vec<Segment>);

impl AsPath {
    /// A path of one sequence; empty for no numbers.
    #[must_use]
    pub fn sequence(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut path = Self::default();
        path.prepend(&numbers.into_iter().map(AsNumber).collect::<Vec<_>>());
        path
    }

    /// Whether there is no segment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The length for the decision: a set counts one, confederations nothing (RFC 4271 §9.1.2.2,
    /// RFC 5065 §5.3).
    #[must_use]
    pub fn length(&self) -> usize {
        self.0
            .iter()
            .map(|segment| match segment.kind {
                SegmentKind::Sequence => segment.numbers.len(),
                SegmentKind::Set => 1,
                SegmentKind::ConfedSequence | SegmentKind::ConfedSet => 0,
            })
            .sum()
    }

    /// All numbers in order.
    pub fn numbers(&self) -> impl Iterator<Item = AsNumber> + '_ {
        self.0
            .iter()
            .flat_map(|segment| segment.numbers.iter().copied())
    }

    /// The nearest AS, if the path starts with a sequence.
    #[must_use]
    pub fn first(&self) -> Option<AsNumber> {
        let segment = self.0.first()?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.numbers.first().copied())?
    }

    /// The AS the route comes from, if the path ends with a sequence.
    #[must_use]
    pub fn origin(&self) -> Option<AsNumber> {
        let segment = self.0.last()?;
        (segment.kind == SegmentKind::Sequence).then(|| segment.numbers.last().copied())?
    }

    /// How often `asn` occurs.
    #[must_use]
    pub fn count(&self, asn: AsNumber) -> usize {
        self.numbers().filter(|number| *number == asn).count()
    }

    /// Whether the path's first numbers are these, all in sequences.
    #[must_use]
    pub fn starts_with(&self, numbers: &[AsNumber]) -> bool {
        let mut sequence = self
            .0
            .iter()
            .take_while(|segment| segment.kind == SegmentKind::Sequence)
            .flat_map(|segment| &segment.numbers);
        numbers.iter().all(|number| sequence.next() == Some(number))
    }

    /// Puts numbers before the path, in the given order.
    pub fn prepend(&mut self, numbers: &[AsNumber]) {
        let mut rest = numbers;
        if let Some(first) = self.0.first_mut()
            && first.kind == SegmentKind::Sequence
        {
            let room = SEGMENT_MAX
                .saturating_sub(first.numbers.len())
                .min(rest.len());
            let (head, tail) = rest.split_at(rest.len() - room);
            first.numbers.splice(0..0, tail.iter().copied());
            rest = head;
        }
        for chunk in rest.rchunks(SEGMENT_MAX) {
            let segment = Segment {
                kind: SegmentKind::Sequence,
                numbers: chunk.to_vec(),
            };
            self.0.insert(0, segment);
        }
    }

    /// Takes the segments of a confederation out, as at its border (RFC 5065 §4.1).
    pub fn remove_confederation(&mut self) {
        self.0.retain(|segment| !segment.kind.is_confederation());
    }

    /// Whether a segment belongs to a confederation.
    #[must_use]
    pub fn has_confederation(&self) -> bool {
        self.0
            .iter()
            .any(|s| matches!(s.kind, SegmentKind::ConfedSequence | SegmentKind::ConfedSet))
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            let (open, between, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
                SegmentKind::ConfedSequence => ("(", " ", ")"),
                SegmentKind::ConfedSet => ("[", ",", "]"),
            };
            f.write_str(if place == 0 { "" } else { " " })?;
            f.write_str(open)?;
            for (place, number) in segment.numbers.iter().enumerate() {
                f.write_str(if place == 0 { "" } else { between })?;
                number.fmt(f)?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

/// The most numbers of a segment: its count is one octet.
pub(crate) const SEGMENT_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepending_fills_segments() {
        let mut path = AsPath::sequence([3, 4]);
        path.prepend(&[AsNumber(1), AsNumber(2)]);
        assert_eq!(path.to_string(), "1 2 3 4");
        assert!(path.starts_with(&[AsNumber(1), AsNumber(2)]));
        assert!(!path.starts_with(&[AsNumber(2)]));
        let long: Vec<_> = (0..300).map(AsNumber).collect();
        path.prepend(&long);
        assert_eq!(path.length(), 304);
        assert_eq!(
            path.0.iter().map(|s| s.numbers.len()).max(),
            Some(SEGMENT_MAX)
        );
        assert_eq!(path.numbers().take(300).collect::<Vec<_>>(), long);
        assert_eq!(path.origin(), Some(AsNumber(4)));
    }

    #[test]
    fn a_confederation_ends_at_its_border() {
        let segment = |kind, numbers: &[u32]| Segment {
            kind,
            numbers: numbers.iter().copied().map(AsNumber).collect(),
        };
        let mut path = AsPath(vec![
            segment(SegmentKind::ConfedSequence, &[64512]),
            segment(SegmentKind::ConfedSet, &[64513, 64514]),
            segment(SegmentKind::Sequence, &[65001]),
        ]);
        assert!(path.has_confederation());
        path.remove_confederation();
        path.prepend(&[AsNumber(64500)]);
        assert_eq!(path, AsPath::sequence([64500, 65001]));
    }

    #[test]
    fn sets_count_one() {
        let set = Segment {
            kind: SegmentKind::Set,
            numbers: vec![AsNumber(7), AsNumber(8)],
        };
        let mut path = AsPath(vec![set]);
        assert_eq!(
            (path.length(), path.first(), path.origin()),
            (1, None, None)
        );
        path.prepend(&[AsNumber(5)]);
        assert_eq!(path.to_string(), "5 {7,8}");
        assert_eq!((path.length(), path.count(AsNumber(8))), (2, 1));
    }
}
