//! Sets and maps, their keys and elements.

use std::collections::BTreeMap;

use crate::DataType;

/// A named set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// What it is.
    pub spec: SetSpec,
    /// What is in it.
    pub elements: BTreeMap<Key, Element>,
}

/// What a set or map is; a change of it needs a new set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    /// The fields of a key, one after the other.
    pub key: Vec<DataType>,
    /// What a map's elements lead to; `None` for a set.
    pub data: Option<Data>,
    /// Whether keys may be intervals. Slow to change if the key has several fields.
    pub interval: bool,
    /// Whether every element counts what it decides.
    pub counted: bool,
    /// What it stands for, for people; at most 127 bytes.
    pub comment: Option<String>,
}

/// What the elements of a map lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// Verdicts.
    Verdict,
    /// Values of a type.
    Value(DataType),
}

/// A key: one value, or an interval with both ends in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The value, or the lowest. Each field of several is padded to 4 bytes.
    pub first: Box<[u8]>,
    /// The highest value, if that is another one.
    pub last: Option<Box<[u8]>>,
}

/// What belongs to a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Element {
    /// Where it leads to, in a map.
    pub value: Option<Value>,
    /// What it stands for, for people; at most 127 bytes.
    pub comment: Option<String>,
}

/// Where an element of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A verdict.
    Verdict(Verdict),
    /// A value.
    Bytes(Box<[u8]>),
}

/// What happens to a packet next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The base chain is done with it; later base chains see it still.
    Accept,
    /// It is gone.
    Drop,
    /// The calling chain goes on.
    Return,
    /// Another chain, which may return.
    Jump(String),
    /// Another chain, in place of this one.
    Goto(String),
}

impl Set {
    /// An empty set.
    #[must_use]
    pub fn new(key: impl Into<Vec<DataType>>) -> Self {
        Self {
            spec: SetSpec {
                key: key.into(),
                data: None,
                interval: false,
                counted: false,
                comment: None,
            },
            elements: BTreeMap::new(),
        }
    }

    /// An empty map to verdicts.
    #[must_use]
    pub fn verdicts(key: impl Into<Vec<DataType>>) -> Self {
        Self::new(key).leading_to(Data::Verdict)
    }

    /// The same as a map.
    #[must_use]
    pub fn leading_to(mut self, data: Data) -> Self {
        self.spec.data = Some(data);
        self
    }

    /// The same with intervals.
    #[must_use]
    pub fn with_intervals(mut self) -> Self {
        self.spec.interval = true;
        self
    }

    /// The same with a counter for every element.
    #[must_use]
    pub fn counted(mut self) -> Self {
        self.spec.counted = true;
        self
    }

    /// The same with a comment, cut to what fits.
    #[must_use]
    pub fn commented(mut self, comment: &str) -> Self {
        self.spec.comment = Some(crate::comment(comment));
        self
    }

    /// The same with these keys.
    #[must_use]
    pub fn with(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        let elements = keys.into_iter().map(|key| (key, Element::default()));
        self.elements.extend(elements);
        self
    }
}

impl SetSpec {
    /// The length of a key in bytes.
    #[must_use]
    pub fn key_length(&self) -> usize {
        match self.key.as_slice() {
            [single] => single.length(),
            several => several.iter().map(|field| field.padded()).sum(),
        }
    }

    /// The fields of a key or of an end of it, each with its type and without padding.
    pub fn fields<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = (DataType, &'a [u8])> {
        let mut at = 0;
        self.key.iter().map(move |field| {
            let value = key.get(at..at + field.length()).unwrap_or_default();
            at += field.padded();
            (*field, value)
        })
    }

    /// Whether an interval needs one element with both ends (`flags interval` of several fields),
    /// and not one element for each end.
    #[must_use]
    pub fn is_concatenated_interval(&self) -> bool {
        self.interval && self.key.len() > 1
    }
}

impl Key {
    /// One value of one field.
    #[must_use]
    pub fn of(value: impl AsRef<[u8]>) -> Self {
        Self {
            first: value.as_ref().into(),
            last: None,
        }
    }

    /// All values from the first to the last.
    #[must_use]
    pub fn interval(first: impl AsRef<[u8]>, last: impl AsRef<[u8]>) -> Self {
        let (first, last) = (first.as_ref(), last.as_ref());
        Self {
            first: first.into(),
            last: (first != last).then(|| last.into()),
        }
    }

    /// One value of several fields.
    #[must_use]
    pub fn concatenation(fields: &[&[u8]]) -> Self {
        Self::of(concatenate(fields))
    }

    /// Fields of which each has a lowest and a highest value.
    #[must_use]
    pub fn intervals(fields: &[(&[u8], &[u8])]) -> Self {
        let first: Vec<_> = fields.iter().map(|(first, _)| *first).collect();
        let last: Vec<_> = fields.iter().map(|(_, last)| *last).collect();
        Self::interval(concatenate(&first), concatenate(&last))
    }
}

impl Element {
    /// An element that leads to a verdict.
    #[must_use]
    pub fn verdict(verdict: Verdict) -> Self {
        Self {
            value: Some(Value::Verdict(verdict)),
            comment: None,
        }
    }

    /// An element that leads to a value.
    #[must_use]
    pub fn bytes(value: impl AsRef<[u8]>) -> Self {
        Self {
            value: Some(Value::Bytes(value.as_ref().into())),
            comment: None,
        }
    }

    /// The same with a comment, cut to what fits.
    #[must_use]
    pub fn commented(mut self, comment: &str) -> Self {
        self.comment = Some(crate::comment(comment));
        self
    }

    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match &self.value {
            Some(Value::Verdict(verdict)) => verdict.chain(),
            _ => None,
        }
    }
}

impl Verdict {
    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            _ => None,
        }
    }
}

fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}
