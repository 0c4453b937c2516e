//! Errors as a container runtime sees them: a code, a line, details.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::version::Version;

/// The error object of the specification, before it is bound to a version.
///
/// [`Error::encode`] makes it presentable: one line, bounded, without control characters and
/// without passwords inside URLs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg} (code {code})")]
pub struct Error {
    /// One of [`code`], or the code of a delegate.
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

/// One line of the table of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// The number in the error object.
    pub code: u32,
    /// A short name that never changes.
    pub name: &'static str,
    /// What the code says.
    pub meaning: &'static str,
    /// What a person does about it.
    pub remedy: &'static str,
}

/// Numbers of the codes. Those from 100 on are Margay's own and never change their meaning.
pub mod code {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown, and needs no DEL.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_*` variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output went wrong.
    pub const IO: u32 = 5;
    /// Content could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used.
    pub const INVALID_NETNS: u32 = 8;
    /// A passing condition; the same call will succeed later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// An ADD would not succeed now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// An ADD would not succeed now, and existing containers may be cut off.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// No free address in the pools that may be used.
    pub const POOL_EXHAUSTED: u32 = 100;
    /// The address asked for belongs to someone else.
    pub const ADDRESS_OWNED: u32 = 101;
    /// The datastore does not answer.
    pub const DATASTORE_UNREACHABLE: u32 = 102;
    /// The datastore refuses the credentials.
    pub const DATASTORE_DENIED: u32 = 103;
    /// The node's agent does not answer.
    pub const AGENT_UNREACHABLE: u32 = 104;
    /// An interface of that name exists and is not Margay's.
    pub const INTERFACE_EXISTS: u32 = 105;
    /// A limit that an operator set is reached.
    pub const LIMIT: u32 = 106;
    /// The kernel refused an operation.
    pub const KERNEL: u32 = 107;
    /// The verb's time is over.
    pub const DEADLINE: u32 = 108;
    /// The endpoint's policy was not in force in time.
    pub const POLICY_NOT_PROGRAMMED: u32 = 109;
    /// The settings that lead to the datastore cannot be used.
    pub const DATASTORE_SETTINGS: u32 = 110;
    /// A defect of the program.
    pub const INTERNAL: u32 = 999;
}

/// Every code that a plugin can answer with, its meaning and its remedy.
pub const CODES: &[CodeEntry] = &[
    CodeEntry {
        code: code::INCOMPATIBLE_VERSION,
        name: "incompatible version",
        meaning: "the configuration's cniVersion is not supported, or the verb needs a newer one",
        remedy: "set cniVersion to a version named in the details",
    },
    CodeEntry {
        code: code::UNSUPPORTED_FIELD,
        name: "unsupported field",
        meaning: "a field of the configuration is understood but cannot be honoured",
        remedy: "remove the field, or change its value, that the message names",
    },
    CodeEntry {
        code: code::UNKNOWN_CONTAINER,
        name: "unknown container",
        meaning: "the container does not exist; nothing was changed and no DEL is needed",
        remedy: "none",
    },
    CodeEntry {
        code: code::INVALID_ENVIRONMENT,
        name: "invalid environment",
        meaning: "the runtime passed a missing or malformed CNI_* variable",
        remedy: "correct the variables that the message names; usually a defect of the caller",
    },
    CodeEntry {
        code: code::IO,
        name: "input or output failed",
        meaning: "stdin, stdout or a file could not be read or written",
        remedy: "see the details for the file and the reason",
    },
    CodeEntry {
        code: code::DECODE,
        name: "undecodable content",
        meaning: "the configuration, or the answer of another plugin, is not the JSON it should be",
        remedy: "correct the document that the message names",
    },
    CodeEntry {
        code: code::INVALID_CONFIG,
        name: "invalid network configuration",
        meaning: "a key of the network configuration is missing, misspelt or has an unusable value",
        remedy: "correct the key that the message names in the file under /etc/cni/net.d",
    },
    CodeEntry {
        code: code::INVALID_NETNS,
        name: "invalid network namespace",
        meaning: "CNI_NETNS is absent, is no network namespace, or is the plugin's own",
        remedy: "give the container a network namespace of its own",
    },
    CodeEntry {
        code: code::TRY_AGAIN_LATER,
        name: "try again later",
        meaning: "a passing condition, such as an election in the datastore",
        remedy: "none; the runtime's next attempt should succeed",
    },
    CodeEntry {
        code: code::NOT_AVAILABLE,
        name: "plugin not available",
        meaning: "an ADD would not succeed now",
        remedy: "see the details; existing containers are not affected",
    },
    CodeEntry {
        code: code::LIMITED_CONNECTIVITY,
        name: "plugin not available, connectivity limited",
        meaning: "an ADD would not succeed now, and existing containers may be affected",
        remedy: "see the details; look at the agent on this node first",
    },
    CodeEntry {
        code: code::POOL_EXHAUSTED,
        name: "pool exhausted",
        meaning: "no pool that this endpoint may use has a free address for this node",
        remedy: "add a pool or enlarge one, or look for leaked addresses with margayctl ipam check",
    },
    CodeEntry {
        code: code::ADDRESS_OWNED,
        name: "address already owned",
        meaning: "the address asked for belongs to another endpoint, or this attachment has one",
        remedy: "ask for another address, or release the owner that the details name",
    },
    CodeEntry {
        code: code::DATASTORE_UNREACHABLE,
        name: "datastore unreachable",
        meaning: "no endpoint of the datastore answered within the deadline",
        remedy: "check the endpoints that the details name and the network to them",
    },
    CodeEntry {
        code: code::DATASTORE_DENIED,
        name: "datastore permission or credential",
        meaning: "the datastore answered and refused the credentials, or denied the access",
        remedy: "renew the certificate or password, or grant the role the access it lacks",
    },
    CodeEntry {
        code: code::AGENT_UNREACHABLE,
        name: "agent unreachable",
        meaning: "margay-agent does not answer on its socket",
        remedy: "start margay-agent on this node, or read its log",
    },
    CodeEntry {
        code: code::INTERFACE_EXISTS,
        name: "interface name taken",
        meaning: "an interface with the wanted name exists and was not made by Margay",
        remedy: "remove or rename the interface, or put this plugin first in the chain",
    },
    CodeEntry {
        code: code::LIMIT,
        name: "limit reached",
        meaning: "a limit that an operator set is reached, such as the number of blocks of a node",
        remedy: "raise the limit that the message names",
    },
    CodeEntry {
        code: code::KERNEL,
        name: "kernel refused",
        meaning: "the kernel refused an operation; the details hold its error number",
        remedy: "check privileges, kernel modules and limits for the operation that is named",
    },
    CodeEntry {
        code: code::DEADLINE,
        name: "deadline passed",
        meaning: "the plugin's time for this verb was over; the message says where it waited",
        remedy: "look at what it waited for",
    },
    CodeEntry {
        code: code::POLICY_NOT_PROGRAMMED,
        name: "policy not in force",
        meaning: "the agent did not confirm the endpoint's policy in time",
        remedy: "read the log of margay-agent on this node",
    },
    CodeEntry {
        code: code::DATASTORE_SETTINGS,
        name: "datastore settings unusable",
        meaning: "a certificate, key or address of the datastore's settings cannot be used",
        remedy: "correct the file or key that the message names",
    },
    CodeEntry {
        code: code::INTERNAL,
        name: "internal error",
        meaning: "a defect of the program",
        remedy: "report it with the message and the version",
    },
];

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
