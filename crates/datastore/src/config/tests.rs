use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Backend, Config, ConfigError};
use crate::Datastore;

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn cni(value: Value) -> Result<Config, ConfigError> {
    Config::from_cni(&object(value), &|_| None)
}

fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    move |name| {
        pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    }
}

fn file(spec: Value) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig", "spec": spec})
}

fn endpoints(config: &Config) -> Vec<&str> {
    match &config.backend {
        Backend::Etcd(etcd) => etcd.endpoints.iter().map(String::as_str).collect(),
        Backend::Sqlite { path } => panic!("{path:?} instead of etcd"),
    }
}

#[test]
fn nothing_said_is_the_file_of_this_machine() {
    for given in [
        json!({}),
        json!({"etcd_endpoints": "", "datastore_type": null}),
    ] {
        let config = cni(given).unwrap();
        let path = PathBuf::from("/var/lib/margay/store.db");
        assert_eq!(config.backend, Backend::Sqlite { path });
        assert_eq!(config.deadline, Duration::from_secs(5));
    }
}

#[test]
fn every_setting_is_read_from_each_source() {
    let values = [
        (
            "datastore_type",
            "DATASTORE_TYPE",
            "datastoreType",
            "etcdv3",
        ),
        (
            "etcd_endpoints",
            "ETCD_ENDPOINTS",
            "etcdEndpoints",
            "https://a:1, http://[::1]:2/",
        ),
        ("etcd_username", "ETCD_USERNAME", "etcdUsername", "node"),
        ("etcd_password", "ETCD_PASSWORD", "etcdPassword", "hidden"),
        ("etcd_key_file", "ETCD_KEY_FILE", "etcdKeyFile", "/k"),
        ("etcd_cert_file", "ETCD_CERT_FILE", "etcdCertFile", "/c"),
        (
            "etcd_ca_cert_file",
            "ETCD_CA_CERT_FILE",
            "etcdCACertFile",
            "/ca",
        ),
        (
            "store_timeout_ms",
            "MARGAY_STORE_TIMEOUT_MS",
            "storeTimeoutMs",
            "700",
        ),
    ];
    let named = |pick: fn(&(&'static str, &'static str, &'static str, &'static str)) -> String| {
        Value::Object(values.iter().map(|row| (pick(row), json!(row.3))).collect())
    };
    let lookup: Vec<_> = values.iter().map(|row| (row.1, row.3)).collect();
    let old: Vec<_> = values
        .iter()
        .map(|row| (format!("CALICO_{}", row.1), row.3))
        .collect();
    let old: Vec<_> = old
        .iter()
        .map(|(key, value)| (key.as_str(), *value))
        .collect();
    for config in [
        cni(named(|row| row.0.to_owned())).unwrap(),
        Config::from_environment(&environment(&lookup)).unwrap(),
        Config::from_environment(&environment(&old)).unwrap(),
        Config::from_file(&file(named(|row| row.2.to_owned())), &|_| None).unwrap(),
    ] {
        assert_eq!(endpoints(&config), ["https://a:1", "http://[::1]:2"]);
        assert_eq!(config.deadline, Duration::from_millis(700));
        let Backend::Etcd(etcd) = &config.backend else {
            panic!()
        };
        assert_eq!(etcd.user, Some(("node".to_owned(), "hidden".to_owned())));
        assert_eq!(
            format!("{:?} {:?}", etcd.authorities, etcd.identity),
            "Some(/ca) Some((/c, /k))"
        );
        assert!(!format!("{config:?}").contains("hidden"));
    }
    let config = cni(json!({"datastore_type": "sqlite", "store_path": "/x/y.db"})).unwrap();
    assert_eq!(
        config.backend,
        Backend::Sqlite {
            path: "/x/y.db".into()
        }
    );
    let config = cni(json!({"etcd_authority": "a:2379"})).unwrap();
    assert_eq!(endpoints(&config), ["http://a:2379"]);
    assert_eq!(
        cni(json!({"store_timeout_ms": 250}))
            .unwrap()
            .deadline
            .as_millis(),
        250
    );
}

#[test]
fn what_is_said_goes_before_the_environment() {
    let env = environment(&[
        ("ETCD_DISCOVERY_SRV", "example.org"),
        ("ETCD_USERNAME", "theirs"),
        ("CALICO_ETCD_ENDPOINTS", "http://old:1"),
        ("MARGAY_STORE_TIMEOUT_MS", "900"),
    ]);
    let said = json!({"etcd_endpoints": "http://a:1", "etcd_username": "u", "etcd_password": "p"});
    let config = Config::from_cni(&object(said), &env).unwrap();
    assert_eq!(endpoints(&config), ["http://a:1"]);
    assert_eq!(config.deadline, Duration::from_millis(900));
    let Backend::Etcd(etcd) = &config.backend else {
        panic!()
    };
    assert_eq!(etcd.user.as_ref().unwrap().0, "u");

    let plain = environment(&[
        ("ETCD_ENDPOINTS", "http://a:1"),
        ("CALICO_ETCD_ENDPOINTS", "bad"),
    ]);
    assert_eq!(
        endpoints(&Config::from_environment(&plain).unwrap()),
        ["http://a:1"]
    );
    let said = object(json!({"store_path": "/x.db"}));
    let config = Config::from_cni(&said, &plain).unwrap();
    assert_eq!(
        config.backend,
        Backend::Sqlite {
            path: "/x.db".into()
        }
    );
    let said = object(json!({"store_path": "/x.db", "datastore_type": "etcdv3"}));
    assert_eq!(
        endpoints(&Config::from_cni(&said, &plain).unwrap()),
        ["http://a:1"]
    );
    let said = object(json!({"datastore_type": "sqlite"}));
    let config = Config::from_cni(&said, &plain).unwrap();
    assert!(matches!(config.backend, Backend::Sqlite { .. }));
}

#[test]
fn every_wrong_type_is_named() {
    for key in [
        "datastore_type",
        "etcd_endpoints",
        "etcd_authority",
        "etcd_scheme",
        "etcd_discovery_srv",
        "etcd_username",
        "etcd_password",
        "etcd_key_file",
        "etcd_cert_file",
        "etcd_ca_cert_file",
        "store_path",
        "store_timeout_ms",
    ] {
        for value in [
            json!(["http://a:1"]),
            json!(true),
            json!({"a": 1}),
            json!(1.5),
        ] {
            let error = cni(json!({ key: value })).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            let hidden = key == "etcd_password";
            assert_eq!(error.value.is_none(), hidden, "{error}");
            assert!(!error.remedy.is_empty());
        }
    }
    for key in [
        "datastoreType",
        "etcdEndpoints",
        "etcdDiscoverySrv",
        "etcdUsername",
        "etcdPassword",
        "etcdKeyFile",
        "etcdCertFile",
        "etcdCACertFile",
        "etcdKey",
        "etcdCert",
        "etcdCACert",
        "storePath",
        "storeTimeoutMs",
    ] {
        let error = Config::from_file(&file(json!({ key: ["x"] })), &|_| None).unwrap_err();
        assert_eq!(error.key, format!("spec.{key}"));
    }
}

#[test]
fn every_wrong_value_is_named_with_a_remedy() {
    let secure = json!({"etcd_endpoints": "https://a:1", "etcd_ca_cert_file": "/ca"});
    let with = |base: &Value, more: Value| {
        let mut all = object(base.clone());
        all.extend(object(more));
        Value::Object(all)
    };
    let etcd = |endpoints: &str| json!({ "etcd_endpoints": endpoints });
    for (given, key, word) in [
        (
            json!({"datastore_type": "kubernetes"}),
            "datastore_type",
            "etcdv3",
        ),
        (
            json!({"datastore_type": "etcd"}),
            "datastore_type",
            "etcdv3 or sqlite",
        ),
        (
            json!({"datastore_type": "etcdv3"}),
            "etcd_endpoints",
            "missing",
        ),
        (etcd("10.0.0.1:2379"), "etcd_endpoints", "no scheme"),
        (etcd("http://a:1,b:2"), "etcd_endpoints", "\"b:2\""),
        (etcd("htps://a:1"), "etcd_endpoints", "scheme other"),
        (etcd("unix:///x:1"), "etcd_endpoints", "scheme other"),
        (etcd("http://a b:1"), "etcd_endpoints", "space"),
        (etcd("http://a:1 http://b:1"), "etcd_endpoints", "space"),
        (etcd("http://a"), "etcd_endpoints", "no port"),
        (etcd("http://:1"), "etcd_endpoints", "host"),
        (etcd("http://a:port"), "etcd_endpoints", "port"),
        (etcd("http://a:70000"), "etcd_endpoints", "port"),
        (etcd("http://a:1/v2"), "etcd_endpoints", "after the port"),
        (etcd("http://[::g]:1"), "etcd_endpoints", "host"),
        (etcd(" , ,"), "etcd_endpoints", "empty"),
        (etcd("https://a:1"), "etcd_ca_cert_file", "missing"),
        (
            json!({"etcd_authority": "http://a:1"}),
            "etcd_authority",
            "after the port",
        ),
        (
            json!({"etcd_authority": "a:1", "etcd_scheme": "ftp"}),
            "etcd_scheme",
            "http or https",
        ),
        (
            json!({"etcd_discovery_srv": "example.org"}),
            "etcd_discovery_srv",
            "not supported",
        ),
        (
            with(
                &etcd("http://a:1"),
                json!({"etcd_discovery_srv": "example.org"}),
            ),
            "etcd_discovery_srv",
            "etcd_endpoints is given too",
        ),
        (
            with(&secure, json!({"etcd_key_file": "/k"})),
            "etcd_cert_file",
            "etcd_key_file needs it",
        ),
        (
            with(&secure, json!({"etcd_cert_file": "/c"})),
            "etcd_key_file",
            "etcd_cert_file needs it",
        ),
        (
            with(&secure, json!({"etcd_username": "u"})),
            "etcd_password",
            "etcd_username needs it",
        ),
        (
            with(&secure, json!({"etcd_password": "p"})),
            "etcd_username",
            "etcd_password needs it",
        ),
        (json!({"store_path": "store.db"}), "store_path", "absolute"),
        (json!({"store_path": "/var/lib/"}), "store_path", "absolute"),
        (
            json!({"store_timeout_ms": "soon"}),
            "store_timeout_ms",
            "milliseconds",
        ),
        (json!({"store_timeout_ms": 5}), "store_timeout_ms", "100"),
    ] {
        let error = cni(given.clone()).unwrap_err();
        assert_eq!(error.key, key, "{given}: {error}");
        assert!(error.to_string().contains(word), "{given}: {error}");
        assert!(!error.remedy.is_empty(), "{given}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let error = cni(json!({"etcd_endpoints": "http://user:s3cret@a:1"})).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
    let inline = json!({"etcdEndpoints": "https://a:1", "etcdCACert": "s3cret", "etcdCert": "s3cret",
        "etcdKey": "s3cret", "etcdKeyFile": "/k", "etcdCertFile": "/c"});
    let error = Config::from_file(&file(inline), &|_| None).unwrap_err();
    assert_eq!(error.key, "spec.etcdCert");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[test]
fn files_of_another_kind_are_refused() {
    for (given, key) in [
        (json!({"kind": "CalicoAPIConfig"}), "apiVersion"),
        (
            json!({"apiVersion": "projectcalico.org/v3", "kind": "Node"}),
            "kind",
        ),
        (json!("text"), "apiVersion"),
        (file(json!("text")), "spec"),
    ] {
        let error = Config::from_file(&given, &|_| None).unwrap_err();
        assert_eq!(error.key, key, "{error}");
    }
    let file = json!({"apiVersion": "projectcalico.org/v3", "kind": "CalicoAPIConfig"});
    assert!(Config::from_file(&file, &|_| None).is_ok());
}

#[tokio::test]
async fn certificates_are_checked_when_opened() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let pem = |label: &str| format!("-----BEGIN {label}-----\nMA==\n-----END {label}-----\n");
    let certificate = write("cert.pem", &pem("CERTIFICATE"));
    let key = write("key.pem", &pem("EC PRIVATE KEY"));
    let locked = write("locked.pem", &pem("ENCRYPTED PRIVATE KEY"));
    let text = write("text.pem", "hello");
    let absent = directory.path().join("absent").display().to_string();
    let open = |ca: &str, cert: &str, key: &str| {
        let config = cni(
            json!({"etcd_endpoints": "https://a:1", "etcd_ca_cert_file": ca,
            "etcd_cert_file": cert, "etcd_key_file": key}),
        );
        Datastore::open(&config.unwrap())
    };
    let opened = open(&certificate, &certificate, &key).unwrap();
    assert_eq!(opened.describe(), "etcd at https://a:1");
    for (ca, cert, key, wrong, value, word) in [
        (
            &absent,
            &certificate,
            &key,
            "etcd_ca_cert_file",
            &absent,
            "cannot be read",
        ),
        (
            &text,
            &certificate,
            &key,
            "etcd_ca_cert_file",
            &text,
            "no PEM certificate",
        ),
        (
            &certificate,
            &key,
            &key,
            "etcd_cert_file",
            &key,
            "no PEM certificate",
        ),
        (
            &certificate,
            &certificate,
            &certificate,
            "etcd_key_file",
            &certificate,
            "private key",
        ),
        (
            &certificate,
            &certificate,
            &locked,
            "etcd_key_file",
            &locked,
            "encrypted",
        ),
    ] {
        let error = open(ca, cert, key).unwrap_err();
        assert_eq!(
            (error.key.as_str(), error.value.as_ref()),
            (wrong, Some(value))
        );
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_file_opens_on_its_first_call() {
    use margay_store::Store;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let config = cni(json!({"store_path": path.display().to_string()})).unwrap();
    let store = Datastore::open(&config).unwrap();
    assert_eq!(
        store.describe(),
        format!("the SQLite file {}", path.display())
    );
    assert!(!path.exists());
    store.read_many(&[]).await.unwrap();
    assert!(path.exists());
}
