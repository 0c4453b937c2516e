//! The names of policies in keys, which differ between releases of Calico.
//!
//! Components before 3.32 store a policy of the default tier as `default.<name>`; later ones store the
//! name as given. Since 3.30 the annotation `projectcalico.org/metadata` holds the name as given, too.
//! The same policy under both keys is one policy.

use serde_json::Value;

use crate::metadata::Metadata;

/// The annotation that holds a policy's name as its author wrote it.
pub const NAME_ANNOTATION: &str = "projectcalico.org/metadata";

/// The label that holds a policy's tier.
pub const TIER_LABEL: &str = "projectcalico.org/tier";

/// The tier of policies that name none.
pub const DEFAULT_TIER: &str = "default";

/// How a cluster's components store policy names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameForm {
    /// As given: 3.32 and later.
    #[default]
    Plain,
    /// With `default.` before names of the default tier: before 3.32.
    Prefixed,
}

impl NameForm {
    /// The name a policy of this name is stored under.
    pub fn stored(self, name: &str) -> String {
        match self {
            Self::Prefixed if !name.contains('.') => format!("{PREFIX}{name}"),
            _ => name.to_owned(),
        }
    }
}

/// The name of a stored policy as its author wrote it.
pub fn given(metadata: &Metadata, tier: &str) -> String {
    if let Some(name) = annotated(metadata) {
        return name;
    }
    let name = metadata.name.as_str();
    let plain = if tier.is_empty() || tier == DEFAULT_TIER {
        name.strip_prefix(PREFIX).unwrap_or(name)
    } else {
        name
    };
    plain.to_owned()
}

/// The name in the annotation.
pub fn annotated(metadata: &Metadata) -> Option<String> {
    let value: Value = serde_json::from_str(metadata.annotations.get(NAME_ANNOTATION)?).ok()?;
    let name = value.get("name")?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Makes stored metadata what a reader should see: the given name, without the annotation.
pub fn present(metadata: &mut Metadata, tier: &str) {
    metadata.name = given(metadata, tier);
    metadata.annotations.remove(NAME_ANNOTATION);
}

/// Writes the annotation for the name that the metadata has now.
///
/// An annotation that names the same policy is kept: the metadata may be in the stored form already.
pub fn annotate(metadata: &mut Metadata) {
    let kept = annotated(metadata).is_some_and(|given| {
        given == metadata.name || NameForm::Prefixed.stored(&given) == metadata.name
    });
    if !kept {
        let text = serde_json::json!({ "name": metadata.name }).to_string();
        metadata
            .annotations
            .insert(NAME_ANNOTATION.to_owned(), text);
    }
}

const PREFIX: &str = "default.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_given_name() {
        for (stored, tier, expected) in [
            ("default.web", "default", "web"),
            ("default.web", "", "web"),
            ("web", "default", "web"),
            ("default.web", "security", "default.web"),
            ("security.gnp1", "security", "security.gnp1"),
            ("knp.default.web", "default", "knp.default.web"),
        ] {
            assert_eq!(given(&Metadata::named(stored), tier), expected, "{stored}");
        }
        let mut metadata = Metadata::named("default.default.web");
        metadata
            .annotations
            .insert(NAME_ANNOTATION.into(), r#"{"name":"default.web"}"#.into());
        present(&mut metadata, "default");
        assert_eq!(metadata, Metadata::named("default.web"));
    }

    #[test]
    fn writers_have_two_forms() {
        assert_eq!(NameForm::default().stored("web"), "web");
        assert_eq!(NameForm::Prefixed.stored("web"), "default.web");
        assert_eq!(NameForm::Prefixed.stored("security.gnp1"), "security.gnp1");
        assert_eq!(NameForm::Prefixed.stored("knp.default.x"), "knp.default.x");
    }

    #[test]
    fn annotations_follow_a_new_name_only() {
        let mut metadata = Metadata::named("web");
        annotate(&mut metadata);
        assert_eq!(metadata.annotations[NAME_ANNOTATION], r#"{"name":"web"}"#);
        metadata.name = "default.web".into();
        annotate(&mut metadata);
        assert_eq!(metadata.annotations[NAME_ANNOTATION], r#"{"name":"web"}"#);
        metadata.name = "other".into();
        annotate(&mut metadata);
        assert_eq!(metadata.annotations[NAME_ANNOTATION], r#"{"name":"other"}"#);
    }
}
