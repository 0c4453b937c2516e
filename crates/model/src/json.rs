//! JSON in the exact form Calico writes it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// Fields that this crate does not know, kept in their order.
pub type Extra = Map<String, Value>;

/// Encodes compactly; `<`, `>` and `&` become `\u003c`, `\u003e` and `\u0026`, as Go's encoder writes them.
///
/// # Errors
/// Only for values that have no JSON form, such as a map with keys that are not strings.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let plain = serde_json::to_vec(value)?;
    if !plain.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        return Ok(plain);
    }
    // These three bytes occur in compact JSON inside strings only, and never in a multi-byte sequence.
    let mut out = Vec::with_capacity(plain.len() + 16);
    for byte in plain {
        match byte {
            b'<' => out.extend_from_slice(b"\\u003c"),
            b'>' => out.extend_from_slice(b"\\u003e"),
            b'&' => out.extend_from_slice(b"\\u0026"),
            other => out.push(other),
        }
    }
    Ok(out)
}

/// `skip_serializing_if` for booleans that Calico omits when false.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature serde asks for"
)]
pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

/// Values that the stored form leaves out.
pub(crate) trait Absent {
    /// Whether the field is left out.
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for String {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for bool {
    fn absent(&self) -> bool {
        !*self
    }
}

/// `skip_serializing_if` for every field whose type knows what is left out.
pub(crate) fn absent<T: Absent>(value: &T) -> bool {
    value.absent()
}

/// Reads `null` as the type's default.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    Ok(<Option<T> as serde::Deserialize>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_like_go() {
        let text = encode(&serde_json::json!({"a": "x<y>&'é"})).unwrap();
        assert_eq!(text, "{\"a\":\"x\\u003cy\\u003e\\u0026'é\"}".as_bytes());
    }
}
