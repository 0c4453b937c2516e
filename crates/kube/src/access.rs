//! Where the API server is, and how one proves oneself to it.

use std::fmt;
use std::path::Path;

use crate::error::Error;
use crate::kubeconfig;

/// Where the API server is, and how one proves oneself to it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// `https://HOST:PORT` or `http://HOST:PORT`, perhaps with a path.
    pub server: String,
    /// Certificates, in PEM, by one of which the server's must be signed.
    pub authority: Option<Vec<u8>>,
    /// Whether any certificate of the server is taken for good.
    pub insecure: bool,
    /// The name that the server's certificate must have; the host of `server` where `None`.
    pub server_name: Option<String>,
    /// The client's certificate chain, in PEM.
    pub certificate: Option<Vec<u8>>,
    /// The client's key, in PEM.
    pub key: Option<Secret>,
    /// The bearer token.
    pub token: Option<Secret>,
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Access {
    /// What the current context of a kubeconfig says. Files that it names are read, relative to its own
    /// directory; `*-data` counts before a file, `tokenFile` before `token`.
    ///
    /// # Errors
    /// [`Error::Settings`] naming the file and the field.
    pub fn from_kubeconfig(file: &Path) -> Result<Self, Error> {
        kubeconfig::read(file)
    }
}

impl Secret {
    /// Hides bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
