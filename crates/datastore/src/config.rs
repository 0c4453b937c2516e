//! The settings that lead to a store.
//!
//! Keys are those of Calico's programs: `etcd_endpoints` and its kin in a CNI configuration, `ETCD_ENDPOINTS`
//! in the environment (also with the old prefix `CALICO_`), `etcdEndpoints` in a file of kind
//! `CalicoAPIConfig`. What a configuration or file says comes before what the environment says, setting by
//! setting.

use std::path::PathBuf;
use std::time::Duration;

use margay_store_etcd::{Etcd, Options, Tls};
use serde_json::{Map, Value};

use crate::endpoint;
use crate::pem::{Content, Pem};

/// Which store to open, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The store.
    pub backend: Backend,
    /// Within which every call ends.
    pub deadline: Duration,
}

/// A store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// An etcd cluster.
    Etcd(Box<EtcdConfig>),
    /// One file.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
}

/// Settings of etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// `http://HOST:PORT` or `https://HOST:PORT`, in order of preference.
    pub endpoints: Vec<String>,
    ca: Option<(String, Pem)>,
    certificate: Option<(String, Pem)>,
    key: Option<(String, Pem)>,
    login: Option<(String, String)>,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key \"{key}\": {problem} ({value}); {remedy}")]
pub struct ConfigError {
    /// The key or variable.
    pub key: String,
    /// Its value, in quotes; never a password.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl ConfigError {
    pub(crate) fn new(key: &str, value: &str, problem: &str, remedy: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: format!("{value:?}"),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

impl std::fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .field("login", &self.login.as_ref().map(|(user, _)| user))
            .finish_non_exhaustive()
    }
}

impl Config {
    /// From the object of a CNI configuration, with the environment behind it.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn from_cni(
        conf: &Map<String, Value>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        Self::from_sources(
            &[
                Source {
                    object: Some(conf),
                    names: Names::Cni,
                },
                Source::ENV,
            ],
            env,
        )
    }

    /// From a file of kind `CalicoAPIConfig` (its `spec` counts), with the environment behind it.
    ///
    /// # Errors
    /// The file is of another kind, or a setting cannot be used.
    pub fn from_file(
        file: &Value,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let kind = file.get("kind").and_then(Value::as_str).unwrap_or_default();
        if kind != FILE_KIND {
            let remedy = "give kind: CalicoAPIConfig and the settings below spec";
            return Err(ConfigError::new(
                "kind",
                kind,
                "the file is of another kind",
                remedy,
            ));
        }
        let empty = Map::new();
        let spec = file
            .get("spec")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        Self::from_sources(
            &[
                Source {
                    object: Some(spec),
                    names: Names::File,
                },
                Source::ENV,
            ],
            env,
        )
    }

    /// From the environment alone.
    ///
    /// # Errors
    /// A setting cannot be used.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::from_sources(&[Source::ENV], env)
    }

    /// The keys of a CNI configuration that lead to the same store. A password is among them where there is one.
    ///
    /// # Errors
    /// A certificate or key is given as text, for which a CNI configuration has no key.
    pub fn to_cni(&self) -> Result<Map<String, Value>, ConfigError> {
        let etcd = match &self.backend {
            Backend::Sqlite { path } => {
                return Ok(object([
                    (Setting::Type, Some("sqlite".to_owned())),
                    (Setting::Path, Some(path.display().to_string())),
                ]));
            }
            Backend::Etcd(etcd) => etcd,
        };
        let file = |pem: &Option<(String, Pem)>| match pem {
            None => Ok(None),
            Some((_, Pem::File(path))) => Ok(Some(path.display().to_string())),
            Some((key, Pem::Inline(_))) => Err(ConfigError::new(
                key,
                "(inline)",
                "a CNI configuration can only name a file",
                "give the file",
            )),
        };
        Ok(object([
            (Setting::Type, Some("etcdv3".to_owned())),
            (Setting::Endpoints, Some(etcd.endpoints.join(","))),
            (Setting::CaFile, file(&etcd.ca)?),
            (Setting::CertFile, file(&etcd.certificate)?),
            (Setting::KeyFile, file(&etcd.key)?),
            (
                Setting::User,
                etcd.login.as_ref().map(|(user, _)| user.clone()),
            ),
            (
                Setting::Password,
                etcd.login.as_ref().map(|(_, password)| password.clone()),
            ),
        ]))
    }

    fn from_sources(
        sources: &[Source<'_>],
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let lookup = Lookup { sources, env };
        let endpoints = lookup.endpoints()?;
        let kind = lookup.text(Setting::Type)?;
        let named = kind.as_ref().map_or("", |(_, value)| value.as_str());
        let backend = match named {
            "etcdv3" | "" if endpoints.is_some() => {
                Backend::Etcd(Box::new(lookup.etcd(endpoints)?))
            }
            "etcdv3" => {
                let key = lookup.first_name(Setting::Endpoints);
                let remedy =
                    "give the endpoints, or leave out the datastore type to use the embedded store";
                return Err(ConfigError::new(
                    key,
                    "",
                    "the endpoints of etcd are missing",
                    remedy,
                ));
            }
            "sqlite" | "" => Backend::Sqlite {
                path: lookup.text(Setting::Path)?.map_or_else(
                    || DEFAULT_STORE_PATH.into(),
                    |(_, path)| PathBuf::from(path),
                ),
            },
            other => {
                let key = kind.as_ref().map_or("", |(key, _)| key);
                let problem = "this datastore type is not supported";
                return Err(ConfigError::new(
                    key,
                    other,
                    problem,
                    "use \"etcdv3\" or \"sqlite\"",
                ));
            }
        };
        Ok(Self {
            backend,
            deadline: lookup.deadline()?,
        })
    }
}

impl EtcdConfig {
    /// A client.
    ///
    /// # Errors
    /// A certificate or key cannot be read or used.
    pub(crate) fn open(&self, deadline: Duration) -> Result<Etcd, ConfigError> {
        Ok(Etcd::new(Options {
            endpoints: self.endpoints.clone(),
            tls: self.tls()?,
            user: self.login.clone(),
            deadline,
        }))
    }

    fn tls(&self) -> Result<Tls, ConfigError> {
        let load = |part: &Option<(String, Pem)>, content| {
            part.as_ref()
                .map(|(key, pem)| pem.load(key, content))
                .transpose()
        };
        let authorities = load(&self.ca, Content::Certificate)?;
        let certificate = load(&self.certificate, Content::Certificate)?;
        let key = load(&self.key, Content::Key)?;
        if self
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("http://"))
        {
            return Ok(Tls::default());
        }
        Ok(Tls {
            authorities,
            identity: certificate.zip(key),
        })
    }
}

/// Where settings come from.
#[derive(Clone, Copy)]
struct Source<'a> {
    object: Option<&'a Map<String, Value>>,
    names: Names,
}

impl Source<'_> {
    const ENV: Self = Self {
        object: None,
        names: Names::Env,
    };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Cni,
    File,
    Env,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Type,
    Path,
    Endpoints,
    Srv,
    Authority,
    Scheme,
    User,
    Password,
    KeyFile,
    CertFile,
    CaFile,
    Key,
    Cert,
    Ca,
    Timeout,
}

impl Setting {
    /// Its name in each kind of source; empty where it does not occur.
    fn name(self, names: Names) -> &'static str {
        let [cni, file, env] = match self {
            Self::Type => ["datastore_type", "datastoreType", "DATASTORE_TYPE"],
            Self::Path => ["store_path", "storePath", "MARGAY_STORE_PATH"],
            Self::Endpoints => ["etcd_endpoints", "etcdEndpoints", "ETCD_ENDPOINTS"],
            Self::Srv => [
                "etcd_discovery_srv",
                "etcdDiscoverySrv",
                "ETCD_DISCOVERY_SRV",
            ],
            Self::Authority => ["etcd_authority", "", "ETCD_AUTHORITY"],
            Self::Scheme => ["etcd_scheme", "", "ETCD_SCHEME"],
            Self::User => ["etcd_username", "etcdUsername", "ETCD_USERNAME"],
            Self::Password => ["etcd_password", "etcdPassword", "ETCD_PASSWORD"],
            Self::KeyFile => ["etcd_key_file", "etcdKeyFile", "ETCD_KEY_FILE"],
            Self::CertFile => ["etcd_cert_file", "etcdCertFile", "ETCD_CERT_FILE"],
            Self::CaFile => ["etcd_ca_cert_file", "etcdCACertFile", "ETCD_CA_CERT_FILE"],
            Self::Key => ["", "etcdKey", ""],
            Self::Cert => ["", "etcdCert", ""],
            Self::Ca => ["", "etcdCACert", ""],
            Self::Timeout => ["", "", "MARGAY_STORE_TIMEOUT_MS"],
        };
        match names {
            Names::Cni => cni,
            Names::File => file,
            Names::Env => env,
        }
    }
}

struct Lookup<'a> {
    sources: &'a [Source<'a>],
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Lookup<'_> {
    /// The name and value of a setting in the first source that has it. Empty texts count as absent.
    fn text(&self, setting: Setting) -> Result<Option<(String, String)>, ConfigError> {
        for source in self.sources {
            let name = setting.name(source.names);
            if name.is_empty() {
                continue;
            }
            let found = match source.object {
                None => self.variable(name),
                Some(object) => match object.get(name) {
                    None | Some(Value::Null) => None,
                    Some(Value::String(text)) => Some((name.to_owned(), text.clone())),
                    Some(other) => {
                        let shown = if setting == Setting::Password {
                            "…"
                        } else {
                            &other.to_string()
                        };
                        return Err(ConfigError::new(
                            name,
                            shown,
                            "the value is no string",
                            "give a string",
                        ));
                    }
                },
            };
            if let Some(found) = found.filter(|(_, value)| !value.trim().is_empty()) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A variable, or the same with the prefix that old versions used.
    fn variable(&self, name: &str) -> Option<(String, String)> {
        let old = format!("CALICO_{name}");
        (self.env)(name)
            .map(|value| (name.to_owned(), value))
            .or_else(|| (self.env)(&old).map(|value| (old, value)))
    }

    fn first_name(&self, setting: Setting) -> &'static str {
        self.sources
            .iter()
            .map(|source| setting.name(source.names))
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }

    /// The endpoints with the key that gave them; `None` where none are configured. The first source that says
    /// anything of endpoints decides alone.
    fn endpoints(&self) -> Result<Option<(String, String)>, ConfigError> {
        for source in self.sources {
            let only = Lookup {
                sources: std::slice::from_ref(source),
                env: self.env,
            };
            let endpoints = only.text(Setting::Endpoints)?;
            if let Some((key, value)) = only.text(Setting::Srv)? {
                let problem = match &endpoints {
                    Some(_) => "endpoints and a discovery domain are both given",
                    None => "endpoints cannot be discovered by DNS",
                };
                let remedy = "name the endpoints in etcd_endpoints";
                return Err(ConfigError::new(&key, &value, problem, remedy));
            }
            if endpoints.is_some() {
                return Ok(endpoints);
            }
            if let Some((key, authority)) = only.text(Setting::Authority)? {
                let scheme = only.text(Setting::Scheme)?;
                let scheme = scheme.map_or_else(|| "http".to_owned(), |(_, scheme)| scheme);
                return Ok(Some((key, format!("{scheme}://{authority}"))));
            }
        }
        Ok(None)
    }

    fn etcd(&self, endpoints: Option<(String, String)>) -> Result<EtcdConfig, ConfigError> {
        let (key, text) = endpoints.unwrap_or_default();
        let endpoints = endpoint::parse_list(&key, &text)?;
        let ca = self.pem(Setting::CaFile, Setting::Ca)?;
        let certificate = self.pem(Setting::CertFile, Setting::Cert)?;
        let private = self.pem(Setting::KeyFile, Setting::Key)?;
        match (&certificate, &private) {
            (Some((given, _)), None) => {
                let missing = self.first_name(Setting::KeyFile);
                let problem = format!("{given:?} is given without its key");
                return Err(ConfigError::new(missing, "", &problem, "give both or none"));
            }
            (None, Some((given, _))) => {
                let missing = self.first_name(Setting::CertFile);
                let problem = format!("{given:?} is given without its certificate");
                return Err(ConfigError::new(missing, "", &problem, "give both or none"));
            }
            _ => {}
        }
        if ca.is_none()
            && endpoints
                .iter()
                .any(|endpoint| endpoint.starts_with("https://"))
        {
            let missing = self.first_name(Setting::CaFile);
            let problem = "the endpoints are https, and no authority is given to trust";
            let remedy =
                "give the file of the certificate authority that signed etcd's certificates";
            return Err(ConfigError::new(missing, "", problem, remedy));
        }
        let login = match (self.text(Setting::User)?, self.text(Setting::Password)?) {
            (Some((_, user)), Some((_, password))) => Some((user, password)),
            _ => None,
        };
        Ok(EtcdConfig {
            endpoints,
            ca,
            certificate,
            key: private,
            login,
        })
    }

    fn pem(&self, file: Setting, inline: Setting) -> Result<Option<(String, Pem)>, ConfigError> {
        let (file, inline) = (self.text(file)?, self.text(inline)?);
        match (file, inline) {
            (Some((key, path)), Some((other, _))) => {
                let problem = format!("{other:?} is given too");
                Err(ConfigError::new(
                    &key,
                    &path,
                    &problem,
                    "give the file or the text, not both",
                ))
            }
            (Some((key, path)), None) => Ok(Some((key, Pem::File(path.into())))),
            (None, Some((key, text))) => Ok(Some((key, Pem::Inline(text)))),
            (None, None) => Ok(None),
        }
    }

    fn deadline(&self) -> Result<Duration, ConfigError> {
        let Some((key, text)) = self.text(Setting::Timeout)? else {
            return Ok(DEFAULT_DEADLINE);
        };
        match text.trim().parse::<u64>() {
            Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
            _ => Err(ConfigError::new(
                &key,
                &text,
                "it is no number of milliseconds",
                "give 1 or more",
            )),
        }
    }
}

/// Settings by their names in a CNI configuration.
fn object<const N: usize>(settings: [(Setting, Option<String>); N]) -> Map<String, Value> {
    let named = |(setting, value): (Setting, Option<String>)| {
        Some((setting.name(Names::Cni).to_owned(), value?.into()))
    };
    settings.into_iter().filter_map(named).collect()
}

/// Where the embedded store is when nothing else is said.
pub const DEFAULT_STORE_PATH: &str = "/var/lib/margay/store.db";
const FILE_KIND: &str = "CalicoAPIConfig";
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cni(conf: Value) -> Result<Config, ConfigError> {
        Config::from_cni(conf.as_object().unwrap(), &|_| None)
    }

    fn with_env(
        conf: Value,
        env: &'static [(&'static str, &'static str)],
    ) -> Result<Config, ConfigError> {
        Config::from_cni(conf.as_object().unwrap(), &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn endpoints(config: &Config) -> &[String] {
        match &config.backend {
            Backend::Etcd(etcd) => &etcd.endpoints,
            Backend::Sqlite { .. } => panic!("{config:?}"),
        }
    }

    #[test]
    fn the_embedded_store_is_the_default() {
        let config = cni(json!({})).unwrap();
        assert_eq!(
            config.backend,
            Backend::Sqlite {
                path: DEFAULT_STORE_PATH.into()
            }
        );
        let config = cni(json!({"datastore_type": "sqlite", "store_path": "/x/y.db"})).unwrap();
        assert_eq!(
            config.backend,
            Backend::Sqlite {
                path: "/x/y.db".into()
            }
        );
    }

    #[test]
    fn settings_become_keys_of_a_cni_configuration_and_back() {
        let etcd = json!({"datastore_type": "etcdv3", "etcd_endpoints": "https://a:1,https://b:2",
            "etcd_ca_cert_file": "/ca", "etcd_cert_file": "/cert", "etcd_key_file": "/key",
            "etcd_username": "u", "etcd_password": "p"});
        let sqlite = json!({"datastore_type": "sqlite", "store_path": "/x/y.db"});
        for conf in [etcd, sqlite] {
            let config = cni(conf.clone()).unwrap();
            assert_eq!(Value::Object(config.to_cni().unwrap()), conf);
        }
        let file = json!({"kind": FILE_KIND, "spec": {"etcdEndpoints": "https://a:1", "etcdCACert": "pem"}});
        let config = Config::from_file(&file, &|_| None).unwrap();
        let error = config.to_cni().unwrap_err().to_string();
        assert!(
            error.contains("etcdCACert") && error.contains("give the file"),
            "{error}"
        );
    }

    #[test]
    fn endpoints_mean_etcd() {
        let config = cni(json!({"etcd_endpoints": "http://a:1,http://b:2"})).unwrap();
        assert_eq!(endpoints(&config), ["http://a:1", "http://b:2"]);
        let config = cni(json!({"etcd_authority": "a:1", "etcd_scheme": "http"})).unwrap();
        assert_eq!(endpoints(&config), ["http://a:1"]);
    }

    #[test]
    fn the_configuration_comes_before_the_environment() {
        let env = &[
            ("ETCD_ENDPOINTS", "http://env:1"),
            ("ETCD_USERNAME", "u"),
            ("ETCD_PASSWORD", "p"),
        ];
        let config = with_env(json!({"etcd_endpoints": "http://conf:1"}), env).unwrap();
        assert_eq!(endpoints(&config), ["http://conf:1"]);
        assert_eq!(
            endpoints(&with_env(json!({}), env).unwrap()),
            ["http://env:1"]
        );
        let srv = &[("ETCD_DISCOVERY_SRV", "example.org")];
        let config = with_env(json!({"etcd_endpoints": "http://conf:1"}), srv).unwrap();
        assert_eq!(endpoints(&config), ["http://conf:1"]);
        let old = &[("CALICO_ETCD_ENDPOINTS", "http://old:1")];
        assert_eq!(
            endpoints(&with_env(json!({}), old).unwrap()),
            ["http://old:1"]
        );
    }

    #[test]
    fn files() {
        let file = json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig",
            "spec": {"datastoreType": "etcdv3", "etcdEndpoints": "https://a:1", "etcdCACert": "PEM"}});
        let config = Config::from_file(&file, &|_| None).unwrap();
        assert_eq!(endpoints(&config), ["https://a:1"]);
        assert!(Config::from_file(&json!({"kind": "IPPool"}), &|_| None).is_err());
        assert!(Config::from_file(&json!(7), &|_| None).is_err());
    }

    #[test]
    fn every_fault_names_its_key() {
        for (conf, key, word) in [
            (
                json!({"datastore_type": "etcdv3"}),
                "etcd_endpoints",
                "missing",
            ),
            (
                json!({"datastore_type": "kubernetes"}),
                "datastore_type",
                "not supported",
            ),
            (
                json!({"datastore_type": "etcdv3", "etcd_endpoints": 7}),
                "etcd_endpoints",
                "no string",
            ),
            (json!({"etcd_endpoints": "a:1"}), "etcd_endpoints", "scheme"),
            (
                json!({"etcd_endpoints": "http://a", "etcd_discovery_srv": "d"}),
                "etcd_discovery_srv",
                "both",
            ),
            (
                json!({"etcd_discovery_srv": "d"}),
                "etcd_discovery_srv",
                "DNS",
            ),
            (
                json!({"etcd_endpoints": "https://a", "etcd_cert_file": "/c"}),
                "etcd_key_file",
                "without its key",
            ),
            (
                json!({"etcd_endpoints": "https://a", "etcd_key_file": "/k"}),
                "etcd_cert_file",
                "without",
            ),
            (
                json!({"etcd_endpoints": "https://a"}),
                "etcd_ca_cert_file",
                "trust",
            ),
            (json!({"store_path": ["x"]}), "store_path", "no string"),
        ] {
            let error = cni(conf.clone()).unwrap_err();
            assert_eq!(error.key, key, "{conf}: {error}");
            assert!(error.problem.contains(word), "{conf}: {error}");
            assert!(!error.remedy.is_empty());
        }
    }

    #[test]
    fn unreadable_certificates_name_the_file() {
        let config = cni(
            json!({"etcd_endpoints": "https://127.0.0.1:1", "etcd_ca_cert_file": "/nonexistent/ca"}),
        );
        let error = crate::Datastore::open(&config.unwrap()).unwrap_err();
        assert_eq!(error.key, "etcd_ca_cert_file");
        assert!(error.to_string().contains("/nonexistent/ca"), "{error}");
        let file = std::env::temp_dir().join(format!("margay-no-pem-{}", std::process::id()));
        std::fs::write(&file, "hello").unwrap();
        let conf = json!({"etcd_endpoints": "https://127.0.0.1:1", "etcd_ca_cert_file": file});
        let error = crate::Datastore::open(&cni(conf).unwrap()).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.problem.contains("no PEM certificate"), "{error}");
    }

    #[test]
    fn passwords_are_never_shown() {
        let error =
            cni(json!({"etcd_endpoints": "http://a", "etcd_password": ["geheim"]})).unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
        let env = &[("ETCD_USERNAME", "u"), ("ETCD_PASSWORD", "geheim")];
        let config = with_env(json!({"etcd_endpoints": "http://a"}), env).unwrap();
        assert!(!format!("{config:?}").contains("geheim"));
    }

    #[test]
    fn timeouts() {
        let slow = with_env(json!({}), &[("MARGAY_STORE_TIMEOUT_MS", "250")]).unwrap();
        assert_eq!(slow.deadline, Duration::from_millis(250));
        assert!(with_env(json!({}), &[("MARGAY_STORE_TIMEOUT_MS", "soon")]).is_err());
    }
}
