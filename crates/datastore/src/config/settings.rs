//! Settings by name, from each source, before they are understood.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ConfigError, Environment};

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    Type,
    Endpoints,
    Authority,
    Scheme,
    Srv,
    Username,
    Password,
    KeyFile,
    CertFile,
    CaFile,
    Key,
    Cert,
    Ca,
    StorePath,
    Timeout,
}

/// A setting's value with the name it was given by.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: String,
    secret: bool,
}

/// A source's name for a setting, where it has one.
type NameOf = fn(Setting) -> Option<&'static str>;

/// What one source says.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    given: BTreeMap<Setting, Given>,
    /// How the source names a setting that is missing.
    names: Option<(&'static str, NameOf)>,
}

impl Setting {
    const ALL: [Self; 15] = [
        Self::Type,
        Self::Endpoints,
        Self::Authority,
        Self::Scheme,
        Self::Srv,
        Self::Username,
        Self::Password,
        Self::KeyFile,
        Self::CertFile,
        Self::CaFile,
        Self::Key,
        Self::Cert,
        Self::Ca,
        Self::StorePath,
        Self::Timeout,
    ];

    /// Settings that go from one source together.
    const GROUPS: [&'static [Self]; 4] = [
        &[Self::Endpoints, Self::Authority, Self::Scheme, Self::Srv],
        &[Self::KeyFile, Self::CertFile, Self::Key, Self::Cert],
        &[Self::CaFile, Self::Ca],
        &[Self::Username, Self::Password],
    ];

    /// CNI key, environment variable, key in a file.
    fn names(
        self,
    ) -> (
        Option<&'static str>,
        Option<&'static str>,
        Option<&'static str>,
    ) {
        let all = |cni, environment, file| (Some(cni), Some(environment), Some(file));
        match self {
            Self::Type => all("datastore_type", "DATASTORE_TYPE", "datastoreType"),
            Self::Endpoints => all("etcd_endpoints", "ETCD_ENDPOINTS", "etcdEndpoints"),
            Self::Authority => (Some("etcd_authority"), Some("ETCD_AUTHORITY"), None),
            Self::Scheme => (Some("etcd_scheme"), Some("ETCD_SCHEME"), None),
            Self::Srv => all(
                "etcd_discovery_srv",
                "ETCD_DISCOVERY_SRV",
                "etcdDiscoverySrv",
            ),
            Self::Username => all("etcd_username", "ETCD_USERNAME", "etcdUsername"),
            Self::Password => all("etcd_password", "ETCD_PASSWORD", "etcdPassword"),
            Self::KeyFile => all("etcd_key_file", "ETCD_KEY_FILE", "etcdKeyFile"),
            Self::CertFile => all("etcd_cert_file", "ETCD_CERT_FILE", "etcdCertFile"),
            Self::CaFile => all("etcd_ca_cert_file", "ETCD_CA_CERT_FILE", "etcdCACertFile"),
            Self::Key => (None, None, Some("etcdKey")),
            Self::Cert => (None, None, Some("etcdCert")),
            Self::Ca => (None, None, Some("etcdCACert")),
            Self::StorePath => all("store_path", "MARGAY_STORE_PATH", "storePath"),
            Self::Timeout => all(
                "store_timeout_ms",
                "MARGAY_STORE_TIMEOUT_MS",
                "storeTimeoutMs",
            ),
        }
    }

    pub(super) fn cni(self) -> Option<&'static str> {
        self.names().0
    }

    pub(super) fn environment(self) -> Option<&'static str> {
        self.names().1
    }

    pub(super) fn file(self) -> Option<&'static str> {
        self.names().2
    }

    /// Whether the value must not be shown.
    fn secret(self) -> bool {
        matches!(self, Self::Password | Self::Key | Self::Cert | Self::Ca)
    }
}

impl Given {
    /// An error about this value.
    pub(super) fn wrong(&self, problem: &str, remedy: &str) -> ConfigError {
        ConfigError {
            key: self.key.clone(),
            value: (!self.secret).then(|| self.value.clone()),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    /// [`Given::wrong`] where the value holds a secret by mistake.
    pub(super) fn wrong_and_secret(&self, problem: &str, remedy: &str) -> ConfigError {
        ConfigError {
            value: None,
            ..self.wrong(problem, remedy)
        }
    }
}

impl Settings {
    /// Reads an object's keys; `prefix` says where it lies.
    pub(super) fn from_object(
        object: &Map<String, Value>,
        prefix: &'static str,
        name: NameOf,
    ) -> Result<Self, ConfigError> {
        let mut given = BTreeMap::new();
        for setting in Setting::ALL {
            let Some(key) = name(setting) else { continue };
            let value = match object.get(key) {
                None | Some(Value::Null) => continue,
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(number)) if setting == Setting::Timeout => number.to_string(),
                Some(other) => {
                    let shown = (!setting.secret()).then_some(other);
                    let remedy = "write it between double quotes".to_owned();
                    let key = format!("{prefix}{key}");
                    return Err(ConfigError::json(&key, shown, "it is no text", remedy));
                }
            };
            insert(&mut given, setting, format!("{prefix}{key}"), value);
        }
        Ok(Self {
            given,
            names: Some((prefix, name)),
        })
    }

    /// Reads the environment; plain names go before those with `CALICO_`.
    pub(super) fn from_environment(environment: Environment<'_>) -> Self {
        let mut given = BTreeMap::new();
        for setting in Setting::ALL {
            let Some(name) = setting.environment() else {
                continue;
            };
            for name in [name.to_owned(), format!("CALICO_{name}")] {
                let value = environment(&name).filter(|value| !value.trim().is_empty());
                if let Some(value) = value {
                    insert(&mut given, setting, name, value);
                    break;
                }
            }
        }
        Self { given, names: None }
    }

    /// These settings, with the gaps filled by others.
    pub(super) fn over(mut self, others: Self) -> Self {
        let closed: Vec<Setting> = Setting::GROUPS
            .into_iter()
            .filter(|group| group.iter().any(|setting| self.given.contains_key(setting)))
            .flatten()
            .copied()
            .collect();
        for (setting, given) in others.given {
            if !closed.contains(&setting) {
                self.given.entry(setting).or_insert(given);
            }
        }
        self
    }

    pub(super) fn get(&self, setting: Setting) -> Option<&Given> {
        self.given.get(&setting)
    }

    /// What says where etcd is.
    pub(super) fn places(&self) -> impl Iterator<Item = &Given> {
        let places = [Setting::Endpoints, Setting::Authority, Setting::Srv];
        places.into_iter().filter_map(|setting| self.get(setting))
    }

    /// How this source names a setting.
    pub(super) fn name(&self, setting: Setting) -> String {
        let own = self
            .names
            .and_then(|(prefix, name)| Some(format!("{prefix}{}", name(setting)?)));
        own.unwrap_or_else(|| setting.environment().unwrap_or_default().to_owned())
    }
}

fn insert(given: &mut BTreeMap<Setting, Given>, setting: Setting, key: String, value: String) {
    if value.trim().is_empty() {
        return;
    }
    let secret = setting.secret();
    given.insert(setting, Given { key, value, secret });
}
