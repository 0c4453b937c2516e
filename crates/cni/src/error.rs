//! Errors as a container runtime sees them: a code, a line, details.

mod codes;

use std::borrow::Cow;

use serde_json::{Map, Value};

pub use self::codes::{CODES, CodeEntry, code};
use crate::version::Version;

/// The error object of the specification, before it is bound to a version.
///
/// [`Error::encode`] makes it presentable: one line, bounded, without control characters and
/// without passwords inside URLs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg} (code {code})")]
pub struct Error {
    /// One of [`mod@code`], or the code of a delegate.
    pub code: u32,
    /// What went wrong, with the object's name and the remedy, in one line.
    pub msg: String,
    /// What else helps a person; may be empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// A key of the network configuration with a value that cannot be used (code 7).
    pub fn invalid_key(key: &str, value: &Value, remedy: &str) -> Self {
        Self::new(
            code::INVALID_CONFIG,
            format!("key \"{key}\": {}; {remedy}", excerpt(value)),
        )
    }

    /// A call to the system that went wrong (code 107), with the error number in the details.
    pub fn kernel(what: impl Into<String>, source: &std::io::Error) -> Self {
        let details = match source.raw_os_error() {
            Some(number) => format!("{source}, errno {number}"),
            None => source.to_string(),
        };
        Self::new(code::KERNEL, what).with_details(details)
    }

    /// The same error with these details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same error, worded so that no runtime mistakes it for "already gone".
    ///
    /// Some runtimes take a DEL for done when the text of its error says that something was not
    /// found (E06).
    #[must_use]
    pub fn for_del(self) -> Self {
        let reword = |text: String| {
            let text = replace_ignoring_case(text, "no such file or directory", "path is absent");
            replace_ignoring_case(text, "not found", "absent")
        };
        Self {
            code: self.code,
            msg: reword(self.msg),
            details: reword(self.details),
        }
    }

    /// Whether the same call may succeed a little later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            code::TRY_AGAIN_LATER
                | code::DATASTORE_UNREACHABLE
                | code::AGENT_UNREACHABLE
                | code::DEADLINE
        )
    }

    /// The error object in the form of `version`.
    pub fn encode(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        // 0 would mean success to a reader that looks at nothing else.
        let code = if self.code == 0 {
            code::INTERNAL
        } else {
            self.code
        };
        object.insert("code".into(), code.into());
        object.insert("msg".into(), presentable(&self.msg, MAX_MSG).into());
        if !self.details.is_empty() {
            object.insert(
                "details".into(),
                presentable(&self.details, MAX_DETAILS).into(),
            );
        }
        Value::Object(object)
    }

    /// Reads an error object. `None` when the value is not one.
    pub fn decode(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let code = u32::try_from(value.get("code")?.as_u64()?).ok()?;
        if code == 0 && text("msg").is_empty() {
            return None;
        }
        let code = if code == 0 { code::INTERNAL } else { code };
        Some(Self {
            code,
            msg: text("msg").to_owned(),
            details: text("details").to_owned(),
        })
    }
}

/// Text from outside in quotes, cut to a sensible length, with control characters escaped.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", presentable(text, MAX_QUOTED))
}

/// A JSON value in one line, cut to a sensible length.
pub(crate) fn excerpt(value: &Value) -> String {
    presentable(&value.to_string(), MAX_QUOTED)
}

/// `text` in one line of at most `limit` bytes: control characters escaped, passwords in URLs
/// hidden.
pub fn presentable(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    for character in hide_passwords(text).chars() {
        let before = line.len();
        if is_unprintable(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
        if line.len() > limit {
            line.truncate(before);
            let keep = line.floor_char_boundary(limit.saturating_sub(ELLIPSIS.len()));
            line.truncate(keep);
            line.push_str(ELLIPSIS);
            break;
        }
    }
    line
}

/// Controls, and the characters that end or reorder a line on a terminal.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Replaces the user part of URLs (`scheme://user:password@host`).
fn hide_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        shown.push_str(head);
        let authority = tail
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | ',' | '\''))
            .unwrap_or(tail.len());
        rest = match tail[..authority].rfind('@') {
            Some(end) => {
                shown.push_str("***");
                &tail[end..]
            }
            None => tail,
        };
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

fn replace_ignoring_case(text: String, from: &str, to: &str) -> String {
    // ASCII lower-casing keeps byte offsets.
    let lower = text.to_ascii_lowercase();
    if !lower.contains(from) {
        return text;
    }
    let mut replaced = String::with_capacity(text.len());
    let mut done = 0;
    for (at, _) in lower.match_indices(from) {
        replaced.push_str(&text[done..at]);
        replaced.push_str(to);
        done = at + from.len();
    }
    replaced.push_str(&text[done..]);
    replaced
}

/// Longest `msg`, in bytes.
const MAX_MSG: usize = 256;
/// Longest `details`, in bytes.
const MAX_DETAILS: usize = 4096;
/// Longest piece of foreign text inside a message, in bytes.
const MAX_QUOTED: usize = 80;
const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn e01_code_zero_is_never_sent() {
        assert_eq!(Error::new(0, "x").encode(Version::LATEST)["code"], 999);
    }

    #[test]
    fn e03_table_has_each_code_once_with_a_remedy() {
        let codes: BTreeSet<u32> = CODES.iter().map(|entry| entry.code).collect();
        assert_eq!(codes.len(), CODES.len());
        assert!(CODES.is_sorted_by_key(|entry| entry.code));
        assert!((100..=110).all(|own| codes.contains(&own)));
        for entry in CODES {
            assert!(
                !entry.name.is_empty() && !entry.meaning.is_empty() && !entry.remedy.is_empty()
            );
            let reserved = matches!(entry.code, 0 | 9 | 10 | 12..=49 | 52..=99);
            assert!(!reserved, "{} is reserved by the specification", entry.code);
        }
    }

    #[test]
    fn e05_message_is_one_short_line_without_passwords() {
        let error = Error::new(
            102,
            format!("etcd http://root:s3cret@h:1\n{}", "ä".repeat(400)),
        );
        let msg = error.encode(Version::LATEST)["msg"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(msg.starts_with(r"etcd http://***@h:1\n"), "{msg}");
        assert!(msg.len() <= MAX_MSG && msg.ends_with('…'));
    }

    #[test]
    fn e06_del_error_never_says_not_found() {
        let error = Error::new(5, "x Not Found y no such file or directory")
            .with_details("No such file or directory (os error 2)")
            .for_del();
        assert_eq!(error.msg, "x absent y path is absent");
        assert_eq!(error.details, "path is absent (os error 2)");
    }

    #[test]
    fn v06_every_error_carries_the_version() {
        for version in Version::ALL {
            assert_eq!(
                Error::new(7, "x").encode(version)["cniVersion"],
                version.as_str()
            );
        }
    }

    proptest! {
        #[test]
        fn e05_any_text_becomes_presentable(msg: String, details: String) {
            let error = Error::new(7, msg).with_details(details).for_del();
            let value = error.encode(Version::LATEST);
            let msg = value["msg"].as_str().unwrap();
            prop_assert!(msg.len() <= MAX_MSG);
            prop_assert!(!msg.chars().any(char::is_control));
            prop_assert!(value.get("details").is_none_or(|d| d.as_str().unwrap().len() <= MAX_DETAILS));
            let again = Error::decode(&value).unwrap();
            prop_assert_eq!(again.encode(Version::LATEST), value);
        }
    }
}
