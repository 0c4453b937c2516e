//! The versions of the specification.

use std::fmt;

use serde_json::{Map, Value};

use crate::error::{Error, code, quoted};

/// A version of the CNI specification, in order of age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0, also meant by a configuration without a version.
    V0_1_0,
    /// 0.2.0.
    V0_2_0,
    /// 0.3.0: results list interfaces and any number of addresses.
    V0_3_0,
    /// 0.3.1: plugins are chained.
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: addresses without a family field.
    V1_0_0,
    /// 1.1.0: GC and STATUS, route attributes.
    V1_1_0,
}

impl Version {
    /// Every version that is understood, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest version that is understood.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as it stands in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads a version. The empty text means 0.1.0.
    ///
    /// # Errors
    /// Code 6 when the text has not the form of a version, code 1 when it has but is not supported.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        if let Some(known) = Self::ALL.into_iter().find(|known| known.as_str() == text) {
            return Ok(known);
        }
        if !is_dotted_number(text) {
            return Err(Error::new(
                code::DECODE,
                format!("cniVersion {} is no version such as 1.0.0", quoted(text)),
            ));
        }
        Err(Error::new(
            code::INCOMPATIBLE_VERSION,
            format!("cniVersion {} is not supported", quoted(text)),
        )
        .with_details(format!(
            "configuration is {}, supported are {}",
            quoted(text),
            Self::list()
        )))
    }

    /// The version that the top level of a document declares; absent, null and "" mean 0.1.0.
    ///
    /// # Errors
    /// As [`Version::parse`]; code 6 when the value is no string.
    pub fn of(document: &Map<String, Value>) -> Result<Self, Error> {
        Ok(Self::declared(document)?.unwrap_or(Self::V0_1_0))
    }

    /// The version that a document declares, or `None` when it declares none.
    ///
    /// # Errors
    /// As [`Version::of`].
    pub fn declared(document: &Map<String, Value>) -> Result<Option<Self>, Error> {
        match document.get("cniVersion") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Self::parse(text).map(Some),
            Some(_) => Err(Error::new(
                code::DECODE,
                "cniVersion is not a string; give one such as \"1.0.0\"",
            )),
        }
    }

    /// The version in which to answer whatever stdin held: the declared one when it can be read and
    /// is supported, else the newest.
    pub fn of_answer(stdin: &[u8]) -> Self {
        match serde_json::from_slice(stdin) {
            Ok(Value::Object(document)) => Self::of(&document).unwrap_or(Self::LATEST),
            _ => Self::LATEST,
        }
    }

    /// The answer to VERSION: what was asked in when supported, and all supported versions (V01).
    pub fn report(stdin: &[u8]) -> Value {
        serde_json::json!({
            "cniVersion": Self::of_answer(stdin).as_str(),
            "supportedVersions": Self::ALL.map(Self::as_str),
        })
    }

    /// All supported versions, separated by commas.
    pub fn list() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn is_dotted_number(text: &str) -> bool {
    text.split('.').count() <= 3
        && text
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Version, Error> {
        let document: Map<String, Value> = serde_json::from_str(text).unwrap();
        Version::of(&document)
    }

    #[test]
    fn v01_report_lists_all_and_echoes_a_supported_version() {
        let report = Version::report(br#"{"cniVersion":"0.4.0"}"#);
        assert_eq!(report["cniVersion"], "0.4.0");
        assert_eq!(
            report["supportedVersions"],
            serde_json::json!([
                "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"
            ])
        );
        assert_eq!(
            Version::report(br#"{"cniVersion":"7.0.0"}"#)["cniVersion"],
            "1.1.0"
        );
    }

    #[test]
    fn v02_report_needs_no_stdin() {
        assert_eq!(Version::report(b"")["cniVersion"], "1.1.0");
    }

    #[test]
    fn v03_absent_and_empty_mean_0_1_0() {
        for text in ["{}", r#"{"cniVersion":""}"#, r#"{"cniVersion":null}"#] {
            assert_eq!(of(text).unwrap(), Version::V0_1_0, "{text}");
        }
    }

    #[test]
    fn v04_unsupported_is_code_1_and_unreadable_is_code_6() {
        for text in ["9.9.9", "1.2.0", "1"] {
            let error = Version::parse(text).unwrap_err();
            assert_eq!(error.code, code::INCOMPATIBLE_VERSION, "{text}");
            assert!(error.details.contains(text) && error.details.contains("1.1.0"));
        }
        for text in ["latest", "1..0", "1.0.0.0", "v1.0.0"] {
            assert_eq!(
                Version::parse(text).unwrap_err().code,
                code::DECODE,
                "{text}"
            );
        }
        assert_eq!(of(r#"{"cniVersion":1}"#).unwrap_err().code, code::DECODE);
    }

    #[test]
    fn versions_are_ordered_and_parse_their_own_text() {
        assert!(Version::ALL.is_sorted());
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()).unwrap(), version);
        }
    }
}
