//! Settings: kinds whose specification is a flat list of optional values.
//!
//! Such a specification is kept as an ordered JSON map, next to a table that says which settings there are,
//! what they may be and what programs assume when they are absent.

mod felix;
mod kube_controllers;
mod shape;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

pub use shape::{Field, Shape};

/// Settings of node agents: `default`, `node.<node>`, or for the nodes of a selector.
pub type FelixConfiguration = Resource<FelixConfigurationSpec>;

/// Settings of the controllers that follow Kubernetes; only one, named `default`.
pub type KubeControllersConfiguration = Resource<KubeControllersConfigurationSpec>;

/// Settings of address management for programs that read resources only; only one, named `default`.
pub type IPAMConfiguration = Resource<IPAMConfigurationSpec>;

macro_rules! settings {
    ($(#[$meta:meta])* $name:ident, $kind:ident, $fields:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        #[serde(transparent)]
        pub struct $name {
            values: Map<String, Value>,
        }

        impl $name {
            /// The settings there are, in the order they are written.
            pub const FIELDS: &'static [Field] = $fields;

            /// The value of a setting, when it is set.
            pub fn get(&self, name: &str) -> Option<&Value> {
                self.values.get(name)
            }

            /// Sets a value; `null` unsets it.
            pub fn set(&mut self, name: &str, value: Value) {
                if value.is_null() {
                    self.values.shift_remove(name);
                } else {
                    self.values.insert(name.to_owned(), value);
                }
            }

            /// The settings that are set, in the order they are written.
            pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
                self.values.iter().map(|(name, value)| (name.as_str(), value))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut values = Map::deserialize(deserializer)?;
                shape::drop_nulls(Self::FIELDS, &mut values);
                Ok(Self { values })
            }
        }

        impl Spec for $name {
            const KIND: Kind = Kind::$kind;

            fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
                shape::set_defaults(Self::FIELDS, &mut spec.values);
            }

            fn validate_name(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
                spec.name_fits(metadata, problems);
            }

            fn validate(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
                shape::validate(Self::FIELDS, &spec.values, problems);
                spec.values_fit(metadata, problems);
            }
        }
    };
}

settings! {
    /// Specification of a [`FelixConfiguration`].
    FelixConfigurationSpec, FelixConfiguration, felix::FIELDS
}

settings! {
    /// Specification of a [`KubeControllersConfiguration`].
    KubeControllersConfigurationSpec, KubeControllersConfiguration, kube_controllers::FIELDS
}

settings! {
    /// Specification of an [`IPAMConfiguration`].
    IPAMConfigurationSpec, IPAMConfiguration, IPAM_FIELDS
}

impl FelixConfigurationSpec {
    fn name_fits(&self, metadata: &Metadata, problems: &mut Problems) {
        let name = &metadata.name;
        let fits =
            name == "default" || name.starts_with("node.") || self.get("nodeSelector").is_some();
        problems.require(
            fits,
            "name",
            name,
            "default, node.<node>, or any name where spec.nodeSelector is given",
        );
    }

    fn values_fit(&self, metadata: &Metadata, problems: &mut Problems) {
        let name = &metadata.name;
        if let Some(selector) = self.get("nodeSelector")
            && (name == "default" || name.starts_with("node."))
        {
            let allowed = format!("none: {name} says already which nodes it is for");
            problems.refuse_field("nodeSelector", selector, allowed);
        }
    }
}

impl KubeControllersConfigurationSpec {
    #[expect(clippy::unused_self, reason = "the same signature for all settings")]
    fn name_fits(&self, metadata: &Metadata, problems: &mut Problems) {
        super::only_default(metadata, problems);
    }

    #[expect(clippy::unused_self, reason = "the same signature for all settings")]
    fn values_fit(&self, _metadata: &Metadata, _problems: &mut Problems) {}
}

impl IPAMConfigurationSpec {
    #[expect(clippy::unused_self, reason = "the same signature for all settings")]
    fn name_fits(&self, metadata: &Metadata, problems: &mut Problems) {
        super::only_default(metadata, problems);
    }

    fn values_fit(&self, _metadata: &Metadata, problems: &mut Problems) {
        let strict = self.get("strictAffinity") == Some(&Value::Bool(true));
        let auto = self.get("autoAllocateBlocks") != Some(&Value::Bool(false));
        problems.require(
            strict || auto,
            "autoAllocateBlocks",
            auto,
            "true where strictAffinity is false",
        );
        if let Some(most) = self.get("maxBlocksPerHost").and_then(Value::as_i64) {
            let allowed = "0 where strictAffinity is false";
            problems.require(strict || most == 0, "maxBlocksPerHost", most, allowed);
        }
    }
}

const IPAM_FIELDS: &[Field] = &[
    Field::new("strictAffinity", Shape::Bool, "false").stored("false"),
    Field::new("maxBlocksPerHost", Shape::Int(0, 1_000_000), "0"),
    // An absent value reads as false, and then no node gets another block.
    Field::new("autoAllocateBlocks", Shape::Bool, "true").stored("true"),
    Field::new(
        "kubeVirtVMAddressPersistence",
        Shape::Word(&["Enabled", "Disabled"]),
        "Enabled",
    ),
    Field::new("ipCooldownSeconds", Shape::Int(0, 1200), "0"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_keep_their_order_and_forget_nulls() {
        let text = r#"{"zed":null,"bpfLogLevel":"","ipv6Support":false}"#;
        let spec: FelixConfigurationSpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        let spec: FelixConfigurationSpec = serde_json::from_str(r#"{"ipv6Support":null}"#).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), "{}");
    }

    #[test]
    fn settings_are_set_one_by_one() {
        let mut spec = FelixConfigurationSpec::default();
        spec.set("vxlanPort", json!(4790));
        assert_eq!(spec.get("vxlanPort"), Some(&json!(4790)));
        assert_eq!(spec.iter().count(), 1);
        spec.set("vxlanPort", Value::Null);
        assert_eq!(spec, FelixConfigurationSpec::default());
    }
}
