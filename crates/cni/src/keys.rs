//! Checking the keys of a configuration against the table of those a plugin understands.
//!
//! Foreign keys at the top level are other programs' business and pass. A key of ours with a value
//! of the wrong type, or one that is almost a key of ours, is a mistake and is told as such.

use serde_json::{Map, Value};

use crate::error::{Error, code, excerpt, quoted};

/// The JSON types a value may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    String,
    /// `true` or `false`.
    Bool,
    /// A whole number, not negative.
    Unsigned,
    /// A list of strings.
    Strings,
    /// A list of anything.
    List,
    /// An object.
    Object,
}

/// A key that a plugin understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The types that its value may have.
    pub kinds: &'static [Kind],
    /// Whether its value must never be shown.
    pub secret: bool,
}

impl Key {
    /// A key whose value may be shown.
    pub const fn new(name: &'static str, kinds: &'static [Kind]) -> Self {
        Self {
            name,
            kinds,
            secret: false,
        }
    }

    /// A key whose value must never be shown.
    pub const fn secret(name: &'static str, kinds: &'static [Kind]) -> Self {
        Self {
            name,
            kinds,
            secret: true,
        }
    }
}

/// Checks the top level of a configuration: wrong types and near misses are errors, other unknown
/// keys are not (P09). `null` counts as absent.
///
/// # Errors
/// Code 7 with the first fault as message and all of them in the details.
pub fn check(conf: &Map<String, Value>, known: &[Key]) -> Result<(), Error> {
    let mut faults = Vec::new();
    for (name, value) in conf {
        if let Some(key) = known.iter().find(|key| key.name == name) {
            faults.extend(type_fault(name, key, value));
        } else if !is_standard(name)
            && let Some(meant) = near_miss(name, known)
        {
            faults.push(format!(
                "unknown key {}: did you mean \"{meant}\"?",
                quoted(name)
            ));
        }
    }
    report(faults)
}

/// Checks an object that is wholly ours, such as `ipam` of our own type: every unknown key is an
/// error. `path` is the object's name, as `ipam`.
///
/// # Errors
/// As [`check`].
pub fn check_strict(object: &Map<String, Value>, path: &str, known: &[Key]) -> Result<(), Error> {
    let mut faults = Vec::new();
    for (name, value) in object {
        let full = format!("{path}.{name}");
        if let Some(key) = known.iter().find(|key| key.name == name) {
            faults.extend(type_fault(&full, key, value));
        } else if let Some(meant) = near_miss(name, known) {
            faults.push(format!(
                "unknown key {}: did you mean \"{meant}\"?",
                quoted(&full)
            ));
        } else {
            let names: Vec<_> = known.iter().map(|key| key.name).collect();
            faults.push(format!(
                "unknown key {}; {path} may have {}",
                quoted(&full),
                names.join(", ")
            ));
        }
    }
    report(faults)
}

fn report(faults: Vec<String>) -> Result<(), Error> {
    match faults.as_slice() {
        [] => Ok(()),
        [fault] => Err(Error::new(code::INVALID_CONFIG, fault.as_str())),
        [first, ..] => Err(Error::new(
            code::INVALID_CONFIG,
            format!("{first} (and {} more, see details)", faults.len() - 1),
        )
        .with_details(faults.join("; "))),
    }
}

fn type_fault(name: &str, key: &Key, value: &Value) -> Option<String> {
    if value.is_null() || key.kinds.iter().any(|kind| kind.admits(value)) {
        return None;
    }
    let wanted: Vec<_> = key.kinds.iter().map(|kind| kind.describe()).collect();
    let wanted = wanted.join(" or ");
    let is = type_name(value);
    Some(if key.secret {
        format!("key {} has {is} as value; give {wanted}", quoted(name))
    } else {
        format!(
            "key {}: {} is {is}; give {wanted}",
            quoted(name),
            excerpt(value)
        )
    })
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Bool => value.is_boolean(),
            Self::Unsigned => value.is_u64(),
            Self::Strings => value
                .as_array()
                .is_some_and(|list| list.iter().all(Value::is_string)),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::String => "a string in quotes",
            Self::Bool => "true or false without quotes",
            Self::Unsigned => "a whole number without quotes",
            Self::Strings => "a list of strings",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Keys that the specification or a runtime puts into any configuration.
fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("cni.dev/")
}

/// The known key that `name` was probably meant to be.
fn near_miss(name: &str, known: &[Key]) -> Option<&'static str> {
    if name.len() > MAX_KEY {
        return None;
    }
    let folded = fold(name);
    known
        .iter()
        .filter_map(|key| {
            let distance = if fold(key.name) == folded {
                0
            } else {
                distance(name, key.name)
            };
            // In a short name two changes make another word.
            let limit = if key.name.len() < 6 { 1 } else { 2 };
            (distance <= limit).then_some((distance, key.name))
        })
        .min()
        .map(|(_, name)| name)
}

fn fold(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

/// Number of insertions, deletions, replacements and swaps of neighbours between two texts.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

const STANDARD: &[&str] = &[
    "args",
    "capabilities",
    "cniVersion",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "dns",
    "ipam",
    "loadOnlyInlinedPlugins",
    "name",
    "plugins",
    "prevResult",
    "runtimeConfig",
    "type",
];
/// Longest name that is compared, in bytes.
const MAX_KEY: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[Key] = &[
        Key::new("etcd_endpoints", &[Kind::String]),
        Key::new("mtu", &[Kind::Unsigned]),
        Key::new("log_level", &[Kind::String]),
        Key::new("assign_ipv4", &[Kind::String, Kind::Bool]),
        Key::new("ipv4_pools", &[Kind::Strings]),
        Key::new("policy", &[Kind::Object]),
        Key::secret("k8s_auth_token", &[Kind::String]),
    ];

    fn fault(text: &str) -> Option<Error> {
        check(&serde_json::from_str(text).unwrap(), KNOWN).err()
    }

    #[test]
    fn p09_unknown_and_standard_keys_pass() {
        let conf = r#"{"capabilities":{"ips":true},"cniVersions":["1.0.0"],"args":{},"typ":1,
            "disableCheck":true,"cni.dev/mtu":1,"isDefaultGateway":true,"etcd_authority":"x",
            "mtu":null,"log_file_path":"/x"}"#;
        assert_eq!(fault(conf), None);
    }

    #[test]
    fn wrong_type_names_key_value_and_remedy() {
        let error = fault(r#"{"mtu":"1500"}"#).unwrap();
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert_eq!(
            error.msg,
            "key \"mtu\": \"1500\" is a string; give a whole number without quotes"
        );
        for bad in [r#"{"mtu":-1}"#, r#"{"ipv4_pools":[1]}"#, r#"{"policy":[]}"#] {
            assert!(fault(bad).is_some(), "{bad}");
        }
        assert!(
            fault(r#"{"assign_ipv4":1}"#)
                .unwrap()
                .msg
                .contains("or true or false")
        );
    }

    #[test]
    fn near_misses_are_told() {
        for (wrong, right) in [
            ("etcd_endpoint", "etcd_endpoints"),
            ("etcdEndpoints", "etcd_endpoints"),
            ("etcd-endpoints", "etcd_endpoints"),
            ("MTU", "mtu"),
            ("mut", "mtu"),
            ("log_levle", "log_level"),
        ] {
            let error = fault(&format!(r#"{{"{wrong}":"x"}}"#)).unwrap();
            assert_eq!(
                error.msg,
                format!("unknown key \"{wrong}\": did you mean \"{right}\"?")
            );
        }
        assert_eq!(fault(r#"{"qps":1,"mode":"x"}"#), None);
    }

    #[test]
    fn all_faults_are_in_the_details() {
        let error = fault(r#"{"mtu":"a","log_level":1}"#).unwrap();
        assert!(error.msg.contains("1 more"));
        assert!(error.details.contains("\"mtu\"") && error.details.contains("\"log_level\""));
    }

    #[test]
    fn e05_secret_values_are_not_echoed() {
        let error = fault(r#"{"k8s_auth_token":["hunter2"]}"#).unwrap();
        assert!(error.msg.contains("k8s_auth_token"));
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn strict_objects_admit_no_unknown_key() {
        let ipam: &[Key] = &[
            Key::new("type", &[Kind::String]),
            Key::new("ipv4_pools", &[Kind::Strings]),
        ];
        let check = |text: &str| check_strict(&serde_json::from_str(text).unwrap(), "ipam", ipam);
        assert!(check(r#"{"type":"margay-ipam","ipv4_pools":["a"]}"#).is_ok());
        let error = check(r#"{"subnet":"10.0.0.0/8"}"#).unwrap_err();
        assert_eq!(
            error.msg,
            "unknown key \"ipam.subnet\"; ipam may have type, ipv4_pools"
        );
        let error = check(r#"{"ipv4pools":[]}"#).unwrap_err();
        assert_eq!(
            error.msg,
            "unknown key \"ipam.ipv4pools\": did you mean \"ipv4_pools\"?"
        );
    }

    proptest! {
        #[test]
        fn distance_is_symmetric_and_zero_only_for_equals(a in "\\PC{0,8}", b in "\\PC{0,8}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }

        #[test]
        fn any_key_passes_or_is_told(name in "\\PC{0,80}") {
            let conf = Map::from_iter([(name, Value::Bool(true))]);
            let _ = (check(&conf, KNOWN), check_strict(&conf, "x", KNOWN));
        }
    }
}
