//! Certificates and keys: where they are, and whether they are that.

use std::fmt;
use std::path::PathBuf;

use margay_store_etcd::Tls;

use super::settings::Given;
use super::{ConfigError, EtcdConfig};

/// Where PEM text is.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    key: String,
    source: Source,
}

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Text(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Key,
}

impl Pem {
    pub(super) fn file(given: &Given) -> Self {
        Self {
            key: given.key.clone(),
            source: Source::File(PathBuf::from(&given.value)),
        }
    }

    pub(super) fn text(given: &Given) -> Self {
        Self {
            key: given.key.clone(),
            source: Source::Text(given.value.clone()),
        }
    }

    fn read(&self, kind: Kind) -> Result<Vec<u8>, ConfigError> {
        let text = match &self.source {
            Source::Text(text) => text.clone(),
            Source::File(path) => match std::fs::read(path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => {
                    let problem = format!("the file cannot be read: {error}");
                    return Err(self.wrong(problem, "check the path and its permissions"));
                }
            },
        };
        let begins = |label: &str| text.contains(&format!("-----BEGIN {label}"));
        if kind == Kind::Key && (begins("ENCRYPTED") || text.contains("Proc-Type: 4,ENCRYPTED")) {
            return Err(self.wrong(
                "the key is encrypted".to_owned(),
                "decrypt it, for instance with openssl pkey",
            ));
        }
        let labels: &[&str] = match kind {
            Kind::Certificate => &["CERTIFICATE-----"],
            Kind::Key => &[
                "PRIVATE KEY-----",
                "RSA PRIVATE KEY-----",
                "EC PRIVATE KEY-----",
            ],
        };
        if labels.iter().any(|label| begins(label)) && text.contains("-----END ") {
            return Ok(text.into_bytes());
        }
        Err(match kind {
            Kind::Certificate => self.wrong(
                "there is no PEM certificate in it".to_owned(),
                "it must begin with -----BEGIN CERTIFICATE-----",
            ),
            Kind::Key => self.wrong(
                "there is no PEM private key in it".to_owned(),
                "it must begin with -----BEGIN PRIVATE KEY-----, or that of an RSA or EC key",
            ),
        })
    }

    fn wrong(&self, problem: String, remedy: &str) -> ConfigError {
        let value = match &self.source {
            Source::File(path) => Some(path.display().to_string()),
            Source::Text(_) => None,
        };
        ConfigError {
            key: self.key.clone(),
            value,
            problem,
            remedy: remedy.to_owned(),
        }
    }
}

impl EtcdConfig {
    /// Reads the certificates that `https` endpoints need.
    pub(crate) fn tls(&self) -> Result<Tls, ConfigError> {
        if !self.endpoints.iter().any(|url| url.starts_with("https://")) {
            return Ok(Tls::default());
        }
        let authorities = self
            .authorities
            .as_ref()
            .map(|pem| pem.read(Kind::Certificate));
        let identity = self.identity.as_ref().map(|(certificate, key)| {
            Ok::<_, ConfigError>((certificate.read(Kind::Certificate)?, key.read(Kind::Key)?))
        });
        Ok(Tls {
            authorities: authorities.transpose()?,
            identity: identity.transpose()?,
        })
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Text(_) => f.write_str("a text"),
        }
    }
}
