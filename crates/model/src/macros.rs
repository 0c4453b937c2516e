//! Declarations that would otherwise repeat the same attributes on every field.

/// Declares a JSON object. A field is left out when empty, `null` reads as empty, and unknown fields are
/// kept. The order of the fields is the order of the stored JSON.
macro_rules! object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $json:literal => pub $field:ident: $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(
                    rename = $json,
                    skip_serializing_if = "crate::json::absent",
                    deserialize_with = "crate::json::null_is_default"
                )]
                pub $field: $type,
            )*
            /// Fields of other writers.
            #[serde(flatten)]
            pub extra: crate::json::Extra,
        }
    };
}

/// Declares a set of words. A word that is not in the set is kept as it is, for validation to refuse.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$word_meta:meta])* $word:ident = $text:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$word_meta])* $word, )+
            /// A word outside the set.
            Other(String),
        }

        impl $name {
            /// The text of the word.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$word => $text, )+
                    Self::Other(text) => text,
                }
            }
        }

        impl crate::scalar::Word for $name {
            const ALLOWED: &'static [&'static str] = &[$($text),+];

            fn text(&self) -> &str {
                self.as_str()
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $( $text => Self::$word, )+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl crate::json::Absent for $name {
            fn absent(&self) -> bool {
                self.as_str().is_empty()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self::from(text.as_str()))
            }
        }
    };
}
