//! A YAML document as a JSON value: plain mappings, lists and scalars, which is all that kubeconfigs use.

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Reads the only document of a text; an empty text is `null`. JSON is YAML too.
///
/// # Errors
/// Where and why the text is no YAML, or what of YAML is not understood here.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut open: Vec<Open> = Vec::new();
    let mut whole = None;
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        let at = |what: &str| format!("line {}: {what}", span.start.line());
        let done = match event {
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                None
            }
            Event::SequenceStart(..) => {
                open.push(Open::Sequence(Vec::new()));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(Open::close),
            Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
            Event::Alias(_) => return Err(at("aliases are not understood; write the value out")),
            Event::DocumentStart(..) if whole.is_some() => {
                return Err(at("there is a second document"));
            }
            _ => None,
        };
        if open.len() > MOST_LEVELS {
            return Err(at("nested too deeply"));
        }
        if let Some(value) = done {
            match open.last_mut() {
                None => whole = Some(value),
                Some(parent) => parent.take(value).map_err(|what| at(&what))?,
            }
        }
    }
    Ok(whole.unwrap_or(Value::Null))
}

/// A collection that is being read.
#[derive(Debug)]
enum Open {
    Sequence(Vec<Value>),
    /// With the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
}

impl Open {
    fn take(&mut self, value: Value) -> Result<(), String> {
        match self {
            Self::Sequence(items) => items.push(value),
            Self::Mapping(map, pending) => match pending.take() {
                Some(key) => {
                    if map.contains_key(&key) {
                        return Err(format!("key {key:?} occurs twice"));
                    }
                    map.insert(key, value);
                }
                None => match value {
                    Value::String(key) => *pending = Some(key),
                    other => *pending = Some(other.to_string()),
                },
            },
        }
        Ok(())
    }

    fn close(self) -> Value {
        match self {
            Self::Sequence(items) => Value::Array(items),
            Self::Mapping(map, _) => Value::Object(map),
        }
    }
}

/// The core schema's null and booleans; numbers stay text, since no field that is read here is one.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        _ if style != ScalarStyle::Plain => text.into(),
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => text.into(),
    }
}

const MOST_LEVELS: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_is_read_as_what_it_means() {
        let text = "# who\napiVersion: v1\nusers:\n- name: \"a: b\"\n  user:\n    token: 'it''s'\n    \
                    insecure: true\n    quoted: \"true\"\n    nothing:\n    block: >-\n      one\n      two\n\
                    flow: {x: [1, null], y: ~}\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({
                "apiVersion": "v1",
                "users": [{"name": "a: b", "user": {
                    "token": "it's", "insecure": true, "quoted": "true", "nothing": null, "block": "one two",
                }}],
                "flow": {"x": ["1", null], "y": null},
            })
        );
        assert_eq!(
            parse(r#"{"a":{"b":["c"]}}"#).unwrap(),
            json!({"a": {"b": ["c"]}})
        );
        assert_eq!(parse("").unwrap(), Value::Null);
    }

    #[test]
    fn what_is_not_understood_is_told_with_its_line() {
        for (text, word) in [
            ("a: b\nc: [", "line 2"),
            ("a: &x 1\nb: *x\n", "line 2: aliases"),
            ("a: 1\na: 2\n", "\"a\" occurs twice"),
            ("a: 1\n---\nb: 2\n", "second document"),
            (&format!("{}{}", "[".repeat(40), "]".repeat(40)), "deep"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(word), "{text:?}: {error}");
        }
    }
}
