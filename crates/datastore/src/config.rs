//! The configuration: which backend, where, and with what credentials.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

pub use self::error::ConfigError;
pub use self::pem::Pem;
use self::settings::{Given, Setting, Settings};

mod endpoint;
mod error;
mod pem;
mod settings;

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which store.
    pub backend: Backend,
    /// How long any call may take.
    pub deadline: Duration,
}

/// A store's kind and place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// etcd v3.
    Etcd(Box<EtcdConfig>),
    /// SQLite.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
}

/// How to reach etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs with scheme, host and port.
    pub endpoints: Vec<String>,
    /// Whom to trust.
    pub authorities: Option<Pem>,
    /// The client's certificate and key.
    pub identity: Option<(Pem, Pem)>,
    /// User name and password.
    pub user: Option<(String, String)>,
}

impl Config {
    /// Reads a CNI network configuration, the object as it came in; the environment fills the gaps.
    ///
    /// # Errors
    /// A key has a wrong type or value, or one is missing that the others need.
    pub fn from_cni(
        configuration: &Map<String, Value>,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let said = Settings::from_object(configuration, "", |setting| setting.cni())?;
        resolve(said, Settings::from_environment(environment))
    }

    /// Reads the environment alone.
    ///
    /// # Errors
    /// As [`Config::from_cni`].
    pub fn from_environment(environment: Environment<'_>) -> Result<Self, ConfigError> {
        resolve(Settings::default(), Settings::from_environment(environment))
    }

    /// Reads the content of a file of kind `CalicoAPIConfig`; the environment fills the gaps.
    ///
    /// # Errors
    /// As [`Config::from_cni`], or the file is of another kind.
    pub fn from_file(file: &Value, environment: Environment<'_>) -> Result<Self, ConfigError> {
        for (key, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            let found = file.get(key);
            if found.and_then(Value::as_str) != Some(expected) {
                let problem = "the file is of another kind";
                let remedy = format!("write {key}: {expected}");
                return Err(ConfigError::json(key, found, problem, remedy));
            }
        }
        let empty = Map::new();
        let spec = match file.get("spec") {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(spec)) => spec,
            other => {
                let remedy = "write the settings below spec, as names and texts";
                return Err(ConfigError::json(
                    "spec",
                    other,
                    "it is no object",
                    remedy.to_owned(),
                ));
            }
        };
        let said = Settings::from_object(spec, "spec.", |setting| setting.file())?;
        resolve(said, Settings::from_environment(environment))
    }
}

fn resolve(said: Settings, environment: Settings) -> Result<Config, ConfigError> {
    let etcd = backend(&said, &environment)?;
    let settings = said.over(environment);
    let deadline = deadline(&settings)?;
    let backend = if etcd {
        Backend::Etcd(Box::new(etcd_config(&settings)?))
    } else {
        Backend::Sqlite {
            path: store_path(&settings)?,
        }
    };
    Ok(Config { backend, deadline })
}

/// Whether it is etcd.
fn backend(said: &Settings, environment: &Settings) -> Result<bool, ConfigError> {
    let kind = said
        .get(Setting::Type)
        .or_else(|| environment.get(Setting::Type));
    if let Some(given) = kind {
        return match given.value.as_str() {
            "etcdv3" => Ok(true),
            "sqlite" => Ok(false),
            "kubernetes" => Err(given.wrong(
                "the Kubernetes API is not supported as a datastore",
                "use etcdv3 with etcd_endpoints, or sqlite for a single machine",
            )),
            _ => Err(given.wrong("there is no such datastore", "use etcdv3 or sqlite")),
        };
    }
    for settings in [said, environment] {
        if settings.places().next().is_some() {
            return Ok(true);
        }
        if settings.get(Setting::StorePath).is_some() {
            return Ok(false);
        }
    }
    Ok(false)
}

fn deadline(settings: &Settings) -> Result<Duration, ConfigError> {
    let Some(given) = settings.get(Setting::Timeout) else {
        return Ok(DEADLINE);
    };
    let number: Option<u64> = given.value.parse().ok();
    let number = number.filter(|number| TIMEOUTS_MS.contains(number));
    number.map(Duration::from_millis).ok_or_else(|| {
        given.wrong(
            "it is no number of milliseconds from 100 to 600000",
            "leave it out for 5000",
        )
    })
}

fn store_path(settings: &Settings) -> Result<PathBuf, ConfigError> {
    let Some(given) = settings.get(Setting::StorePath) else {
        return Ok(PathBuf::from(STORE_PATH));
    };
    let path = PathBuf::from(&given.value);
    if path.is_absolute() && path.file_name().is_some() && !given.value.ends_with('/') {
        return Ok(path);
    }
    let remedy = format!("write the whole path from the root, such as {STORE_PATH}");
    Err(given.wrong("it is no absolute path of a file", &remedy))
}

fn etcd_config(settings: &Settings) -> Result<EtcdConfig, ConfigError> {
    let endpoints = endpoint::endpoints(settings)?;
    let user = pair(settings, Setting::Username, Setting::Password)?
        .map(|(name, password)| (name.value.clone(), password.value.clone()));
    let identity = match pair(settings, Setting::CertFile, Setting::KeyFile)? {
        Some((certificate, key)) => {
            let mixed = [Setting::Cert, Setting::Key]
                .into_iter()
                .find_map(|s| settings.get(s));
            if let Some(given) = mixed {
                return Err(given.wrong(
                    "certificates are given both as text and as files",
                    "keep one of the two",
                ));
            }
            Some((Pem::file(certificate), Pem::file(key)))
        }
        None => pair(settings, Setting::Cert, Setting::Key)?
            .map(|(certificate, key)| (Pem::text(certificate), Pem::text(key))),
    };
    let authorities = match (settings.get(Setting::CaFile), settings.get(Setting::Ca)) {
        (Some(_), Some(text)) => {
            return Err(text.wrong(
                "authorities are given both as text and as a file",
                "keep one of the two",
            ));
        }
        (Some(file), None) => Some(Pem::file(file)),
        (None, Some(text)) => Some(Pem::text(text)),
        (None, None) => None,
    };
    let secure = endpoints.iter().find(|url| url.starts_with("https://"));
    if let (Some(url), None) = (secure, &authorities) {
        return Err(ConfigError::missing(
            &settings.name(Setting::CaFile),
            &format!("{url} cannot be trusted without it"),
            "name the file with the certificate of the authority that signed etcd's",
        ));
    }
    Ok(EtcdConfig {
        endpoints,
        authorities,
        identity,
        user,
    })
}

/// Two settings that need each other.
fn pair(
    settings: &Settings,
    one: Setting,
    two: Setting,
) -> Result<Option<(&Given, &Given)>, ConfigError> {
    let alone = |there: &Given, missing: Setting| {
        let problem = format!("{} needs it", there.key);
        let remedy = format!("set it, or leave out {}", there.key);
        ConfigError::missing(&settings.name(missing), &problem, &remedy)
    };
    match (settings.get(one), settings.get(two)) {
        (None, None) => Ok(None),
        (Some(one), Some(two)) => Ok(Some((one, two))),
        (Some(there), None) => Err(alone(there, two)),
        (None, Some(there)) => Err(alone(there, one)),
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("authorities", &self.authorities)
            .field("identity", &self.identity)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .finish()
    }
}

const API_VERSION: &str = "projectcalico.org/v3";
const KIND: &str = "CalicoAPIConfig";
const STORE_PATH: &str = "/var/lib/margay/store.db";
const DEADLINE: Duration = Duration::from_secs(5);
const TIMEOUTS_MS: std::ops::RangeInclusive<u64> = 100..=600_000;

#[cfg(test)]
mod tests;
