//! Certificates and keys of a TLS connection.

use std::path::Path;

use crate::config::ConfigError;

/// Where a certificate or key comes from.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Pem {
    /// A file.
    File(std::path::PathBuf),
    /// The text itself.
    Inline(String),
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Inline(_) => f.write_str("(inline)"),
        }
    }
}

/// What the text must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Certificate,
    Key,
}

impl Pem {
    /// The PEM text.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub(crate) fn load(&self, key: &str, content: Content) -> Result<Vec<u8>, ConfigError> {
        let (text, shown) = match self {
            Self::Inline(text) => (text.clone().into_bytes(), "(inline)".to_owned()),
            Self::File(path) => (read(key, path)?, path.display().to_string()),
        };
        let (mark, what) = match content {
            Content::Certificate => ("CERTIFICATE-----", "it holds no PEM certificate"),
            Content::Key => ("PRIVATE KEY-----", "it holds no PEM private key"),
        };
        if String::from_utf8_lossy(&text).contains(mark) {
            return Ok(text);
        }
        Err(ConfigError::new(
            key,
            &shown,
            what,
            "give a PEM file of that kind",
        ))
    }
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|error| {
        let problem = format!("the file cannot be read: {error}");
        ConfigError::new(
            key,
            &path.display().to_string(),
            &problem,
            "correct the path or its permissions",
        )
    })
}
