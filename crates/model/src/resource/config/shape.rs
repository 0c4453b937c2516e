//! What a setting may be.

use margay_selector::GlobalUse;
use serde_json::{Map, Value};

use crate::cidr::Cidr;
use crate::problem::Problems;
use crate::scalar::{GoDuration, Port};
use crate::syntax::is_interface_name;

/// A setting of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it may be.
    pub shape: Shape,
    /// What programs assume when it is absent, as text; empty for nothing.
    pub default: &'static str,
    /// JSON that is stored when it is absent.
    stored: Option<&'static str>,
}

/// What a setting may be.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number within a range, both ends included.
    Int(i64, i64),
    /// Any text.
    Text,
    /// One of some words.
    Word(&'static [&'static str]),
    /// One of some words in any case, or an empty text.
    AnyCase(&'static [&'static str]),
    /// A duration.
    Duration,
    /// A port or a range of ports.
    Ports,
    /// A prefix or an address.
    Cidr,
    /// A selector.
    Selector,
    /// The name of a network interface.
    Interface,
    /// A list of the same.
    List(&'static Self),
    /// An object with settings of its own.
    Object(&'static [Field]),
    /// An object that gives texts to names.
    Texts,
}

impl Field {
    /// A setting that is stored only when it is given.
    pub const fn new(name: &'static str, shape: Shape, default: &'static str) -> Self {
        Self {
            name,
            shape,
            default,
            stored: None,
        }
    }

    /// Makes `json` the value that is stored when none is given.
    pub const fn stored(mut self, json: &'static str) -> Self {
        self.stored = Some(json);
        self
    }
}

/// Drops settings that are `null`; unknown ones are kept.
pub(super) fn drop_nulls(fields: &[Field], values: &mut Map<String, Value>) {
    for field in fields {
        if values.get(field.name).is_some_and(Value::is_null) {
            values.shift_remove(field.name);
        }
    }
}

/// Adds what is stored when absent, writes durations in their normal form, and sorts by the table.
pub(super) fn set_defaults(fields: &[Field], values: &mut Map<String, Value>) {
    let mut given = std::mem::take(values);
    for field in fields {
        let value = given
            .shift_remove(field.name)
            .filter(|value| !value.is_null());
        let stored = || {
            field
                .stored
                .and_then(|json| serde_json::from_str(json).ok())
        };
        if let Some(mut value) = value.or_else(stored) {
            normalise(field.shape, &mut value);
            values.insert(field.name.to_owned(), value);
        }
    }
    values.append(&mut given);
}

fn normalise(shape: Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Duration, Value::String(text)) => {
            if let Ok(duration) = text.parse::<GoDuration>() {
                *text = duration.to_string();
            }
        }
        (Shape::Ports, value) => {
            if let Value::String(text) = value
                && let port @ Port::Range { .. } = Port::parse(text)
                && let Ok(normal) = serde_json::to_value(port)
            {
                *value = normal;
            }
        }
        (Shape::List(shape), Value::Array(items)) => {
            items.iter_mut().for_each(|item| normalise(*shape, item));
        }
        (Shape::Object(fields), Value::Object(values)) => set_defaults(fields, values),
        _ => {}
    }
}

/// Reports settings that are not what they may be. Settings that are in no table may be anything.
pub(super) fn validate(fields: &[Field], values: &Map<String, Value>, problems: &mut Problems) {
    for field in fields {
        if let Some(value) = values.get(field.name) {
            problems.field(field.name, |problems| check(field.shape, value, problems));
        }
    }
}

fn check(shape: Shape, value: &Value, problems: &mut Problems) {
    let text = value.as_str();
    match shape {
        Shape::Bool => expect(value.is_boolean(), value, "true or false", problems),
        Shape::Int(least, most) => {
            let fits = value
                .as_i64()
                .is_some_and(|number| (least..=most).contains(&number));
            if !fits {
                problems.refuse(value, format!("a whole number from {least} to {most}"));
            }
        }
        Shape::Text => expect(text.is_some(), value, "a text", problems),
        Shape::Word(words) => {
            expect(
                text.is_some_and(|text| words.contains(&text)),
                value,
                &words.join(", "),
                problems,
            );
        }
        Shape::AnyCase(words) => {
            let same = |text: &str| words.iter().any(|word| word.eq_ignore_ascii_case(text));
            let fits = text.is_some_and(|text| text.is_empty() || same(text));
            expect(fits, value, &words.join(", "), problems);
        }
        Shape::Duration => {
            let fits = text.is_some_and(|text| text.parse::<GoDuration>().is_ok());
            expect(
                fits,
                value,
                "a duration such as 90s, 1m30s or 500ms",
                problems,
            );
        }
        Shape::Ports => {
            let port: Option<Port> = serde_json::from_value(value.clone()).ok();
            let fits = matches!(port, Some(Port::Range { .. }));
            expect(
                fits,
                value,
                "a port or a range such as 30000:32767",
                problems,
            );
        }
        Shape::Cidr => match text {
            Some(text) => {
                let _: Option<Cidr> = problems.cidr_here(text);
            }
            None => problems.refuse(value, "a prefix or an address, as text"),
        },
        Shape::Selector => {
            match text.map(|text| margay_selector::validate(text, GlobalUse::Forbidden)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => problems.refuse(value, error.to_string()),
                None => problems.refuse(value, "a selector"),
            }
        }
        Shape::Interface => {
            let fits = text.is_some_and(is_interface_name);
            expect(
                fits,
                value,
                "a name of at most 15 of A-Z, a-z, 0-9, _, . and -",
                problems,
            );
        }
        Shape::List(shape) => match value.as_array() {
            Some(items) => {
                problems.items_here(items, |problems, item| check(*shape, item, problems))
            }
            None => problems.refuse(value, "a list"),
        },
        Shape::Object(fields) => match value.as_object() {
            Some(values) => validate(fields, values, problems),
            None => problems.refuse(value, "an object"),
        },
        Shape::Texts => {
            let fits = value
                .as_object()
                .is_some_and(|texts| texts.values().all(Value::is_string));
            expect(fits, value, "an object whose values are texts", problems);
        }
    }
}

fn expect(fits: bool, value: &Value, allowed: &str, problems: &mut Problems) {
    if !fits {
        problems.refuse(value, allowed);
    }
}
