//! From settings to what is to be in place.

use std::fs;
use std::path::{Path, PathBuf};

use margay_datastore::Config as StoreConfig;
use margay_install::{
    Configuration, Conflist, Kubeconfig, Kubernetes as ApiServer, Program, SecretFile, Wanted,
    Words, fill,
};
use serde_json::{Map, Value};

use super::settings::{RELEASES_DIR, Settings, Template};
use crate::error::AgentError;
use crate::{datastore, identity};

/// What is to be in place. `token` is that of the plugins, where a kubeconfig is written.
pub(super) fn wanted(settings: &Settings, token: Option<&str>) -> Result<Wanted, AgentError> {
    let mut secrets = tls_assets(settings)?;
    let tls: Vec<String> = secrets
        .iter()
        .filter_map(|file| name_of(&file.path))
        .collect();
    if let Some(token) = token {
        let kubeconfig = Kubeconfig {
            server: settings.kubernetes.server(),
            authority: settings.kubernetes.authority()?,
            token: token.to_owned(),
        };
        secrets.push(SecretFile {
            path: net_dir(settings).join(&settings.kubernetes.kubeconfig_name),
            content: kubeconfig.text().into_bytes(),
        });
    }
    let configuration = match settings.programs_only {
        true => None,
        false => Some(configuration(settings, &tls, token)?),
    };
    Ok(Wanted {
        record: settings.record.clone(),
        bin_dirs: bin_dirs(settings),
        programs: programs(settings)?,
        update_programs: settings.update_programs,
        secrets,
        net_dir: net_dir(settings),
        configuration,
        old_name: settings.old_conf_name.clone(),
    })
}

/// Folders in which a change may make a difference.
pub(super) fn folders(settings: &Settings) -> Vec<PathBuf> {
    let mut folders = bin_dirs(settings);
    folders.push(net_dir(settings));
    folders.push(net_dir(settings).join(tls_folder(settings)));
    folders.push(settings.tls_assets.clone());
    folders.push(settings.kubernetes.account_dir.clone());
    if let Some(Template::File(file)) = &settings.template {
        folders.extend(file.parent().map(Path::to_owned));
    }
    folders
}

/// Where the kubeconfig is written.
pub(super) fn kubeconfig(settings: &Settings) -> PathBuf {
    net_dir(settings).join(&settings.kubernetes.kubeconfig_name)
}

/// The folder of configurations: that of the host where it is mounted, else the one that is named.
fn net_dir(settings: &Settings) -> PathBuf {
    let mounted = settings.host_prefix.join("etc/cni/net.d");
    match mounted.is_dir() {
        true => mounted,
        false => settings.net_dir.clone(),
    }
}

fn bin_dirs(settings: &Settings) -> Vec<PathBuf> {
    let mut mounted = ["opt/cni/bin", "secondary-bin-dir"]
        .map(|name| settings.host_prefix.join(name))
        .to_vec();
    mounted.retain(|dir| dir.is_dir());
    if mounted.is_empty() {
        mounted.push(settings.bin_dir.clone());
    }
    mounted
}

fn programs(settings: &Settings) -> Result<Vec<Program>, AgentError> {
    let folder = match &settings.programs_dir {
        Some(folder) => folder.clone(),
        None => {
            let own = std::env::current_exe().map_err(|source| AgentError::System {
                what: "the path of this program",
                source,
            })?;
            own.parent().unwrap_or_else(|| Path::new("/")).to_owned()
        }
    };
    let program = |name: &str, source: &str| Program {
        name: name.to_owned(),
        source: folder.join(source),
    };
    let mut programs: Vec<Program> = settings
        .programs
        .iter()
        .map(|name| program(name, name))
        .collect();
    if settings.calico_names {
        for (ours, theirs) in CALICO_NAMES {
            if settings.programs.iter().any(|name| name == ours) {
                programs.push(program(theirs, ours));
            }
        }
    }
    Ok(programs)
}

/// Certificates and keys, to be copied to where the plugins on the host see them.
fn tls_assets(settings: &Settings) -> Result<Vec<SecretFile>, AgentError> {
    let folder = net_dir(settings).join(tls_folder(settings));
    let mut files = Vec::new();
    for (name, _) in TLS_ASSETS {
        let path = settings.tls_assets.join(name);
        match fs::read(&path) {
            Ok(content) if content.is_empty() => {}
            Ok(content) => files.push(SecretFile {
                path: folder.join(name),
                content,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(AgentError::Read { path, source }),
        }
    }
    Ok(files)
}

fn tls_folder(settings: &Settings) -> &'static str {
    match settings.calico_names {
        true => "calico-tls",
        false => "margay-tls",
    }
}

fn name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}

/// The configuration: the template filled, or one made of the settings. `tls` names the assets that are copied.
fn configuration(
    settings: &Settings,
    tls: &[String],
    token: Option<&str>,
) -> Result<Configuration, AgentError> {
    let store = datastore::config(settings.datastore_file.as_deref())?;
    let mut keys = store.to_cni()?;
    for (name, key) in TLS_ASSETS {
        if tls.iter().any(|asset| asset == name) {
            let path = settings.net_dir.join(tls_folder(settings)).join(name);
            keys.insert(key.to_owned(), path.display().to_string().into());
        }
    }
    let kubeconfig = match (&settings.kubernetes.kubeconfig, token) {
        (Some(given), _) => Some(given.clone()),
        (None, Some(_)) => Some(settings.net_dir.join(&settings.kubernetes.kubeconfig_name)),
        // One that an earlier pass wrote, while no new token can be had.
        (None, None) if settings.kubernetes.writes_kubeconfig() => {
            Some(settings.net_dir.join(&settings.kubernetes.kubeconfig_name))
        }
        (None, None) => None,
    };
    let (text, secret) = match template(settings)? {
        Some(template) => {
            let words = words(settings, &store, &keys, token)?;
            let wrong = |word| AgentError::Template {
                reason: format!(
                    "nothing is known of the word {word}; docs/install.md lists those that are"
                ),
            };
            (
                fill(&template, &words).map_err(wrong)?,
                template.contains(TOKEN_WORD),
            )
        }
        None => (
            made(settings, keys.clone(), kubeconfig),
            keys.contains_key("etcd_password"),
        ),
    };
    Ok(Configuration::new(&settings.conf_name, text, secret)?)
}

fn template(settings: &Settings) -> Result<Option<String>, AgentError> {
    match &settings.template {
        None => Ok(None),
        Some(Template::Text(text)) => Ok(Some(text.clone())),
        Some(Template::File(path)) => {
            let read = fs::read_to_string(path);
            read.map(Some).map_err(|source| AgentError::Read {
                path: path.clone(),
                source,
            })
        }
    }
}

/// The text of a configuration of our own.
fn made(settings: &Settings, mut keys: Map<String, Value>, kubeconfig: Option<PathBuf>) -> String {
    if settings.log_level != "info" {
        keys.insert("log_level".to_owned(), settings.log_level.clone().into());
    }
    if settings.mtu > 0 {
        keys.insert("mtu".to_owned(), settings.mtu.into());
    }
    if settings.state_dir != Path::new("/var/lib/calico") {
        let file = settings.state_dir.join("nodename").display().to_string();
        keys.insert("nodename_file".to_owned(), file.into());
    }
    if settings.releases_dir != Path::new(RELEASES_DIR)
        && let Some(folder) = settings.releases_dir.parent()
    {
        keys.insert("state_dir".to_owned(), folder.display().to_string().into());
    }
    if let Some(folder) = &settings.status_dir
        && settings.policy_wait > 0
    {
        let wait = settings.policy_wait.into();
        keys.insert("policy_setup_timeout_seconds".to_owned(), wait);
        if folder != Path::new(USUAL_STATUS_DIR) {
            let folder = folder.display().to_string().into();
            keys.insert("endpoint_status_dir".to_owned(), folder);
        }
    }
    let mut ipam = Map::new();
    for (key, given, usual) in [
        ("assign_ipv4", settings.ipv4, true),
        ("assign_ipv6", settings.ipv6, false),
    ] {
        if given != usual {
            ipam.insert(key.to_owned(), given.to_string().into());
        }
    }
    let usual = match kubeconfig {
        Some(_) => "k8s-pod-network",
        None => "margay",
    };
    let has_portmap = settings.programs.iter().any(|name| name == PORTMAP)
        || bin_dirs(settings)
            .iter()
            .any(|dir| dir.join(PORTMAP).is_file());
    let list = Conflist {
        network: settings.network.clone().unwrap_or_else(|| usual.to_owned()),
        keys,
        ipam,
        kubernetes: kubeconfig.map(|path| ApiServer {
            kubeconfig: path.display().to_string(),
        }),
        portmap: has_portmap,
    };
    list.text()
}

/// What the words of a template stand for.
fn words(
    settings: &Settings,
    store: &StoreConfig,
    keys: &Map<String, Value>,
    token: Option<&str>,
) -> Result<Words, AgentError> {
    let key = |name: &str| {
        let value = keys.get(name).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let node = identity::node_name(settings.node_name.as_deref())?;
    let kubernetes = &settings.kubernetes;
    let kubeconfig = match &kubernetes.kubeconfig {
        Some(given) => given.clone(),
        None => settings.net_dir.join(&kubernetes.kubeconfig_name),
    };
    let [size, age, count] = settings.log_file.limits.clone();
    let kind = match store.backend {
        margay_datastore::Backend::Etcd(_) => "etcdv3",
        margay_datastore::Backend::Sqlite { .. } => "sqlite",
    };
    Ok(Words::from([
        ("__CNI_MTU__", settings.mtu.to_string()),
        ("__DATASTORE_TYPE__", kind.to_owned()),
        ("__ETCD_CA_CERT_FILE__", key("etcd_ca_cert_file")),
        ("__ETCD_CERT_FILE__", key("etcd_cert_file")),
        ("__ETCD_DISCOVERY_SRV__", String::new()),
        ("__ETCD_ENDPOINTS__", key("etcd_endpoints")),
        ("__ETCD_KEY_FILE__", key("etcd_key_file")),
        (
            "__KUBECONFIG_FILENAME__",
            name_of(&kubeconfig).unwrap_or_default(),
        ),
        ("__KUBECONFIG_FILEPATH__", kubeconfig.display().to_string()),
        ("__KUBERNETES_NODE_NAME__", node.clone()),
        (
            "__KUBERNETES_SERVICE_HOST__",
            kubernetes.host.clone().unwrap_or_default(),
        ),
        ("__KUBERNETES_SERVICE_PORT__", kubernetes.port.clone()),
        ("__LOG_FILE_MAX_AGE__", age),
        ("__LOG_FILE_MAX_COUNT__", count),
        ("__LOG_FILE_MAX_SIZE__", size),
        ("__LOG_FILE_PATH__", settings.log_file.path.clone()),
        ("__LOG_LEVEL__", settings.log_level.clone()),
        ("__NODENAME__", node),
        (TOKEN_WORD, token.unwrap_or_default().to_owned()),
    ]))
}

const TOKEN_WORD: &str = "__SERVICEACCOUNT_TOKEN__";
const PORTMAP: &str = "portmap";
/// Where plugins look for status files unless they are told otherwise.
const USUAL_STATUS_DIR: &str = "/var/run/calico/endpoint-status";
const CALICO_NAMES: [(&str, &str); 2] = [("margay", "calico"), ("margay-ipam", "calico-ipam")];
/// Files of a folder of TLS assets, each with its key in a CNI configuration.
const TLS_ASSETS: [(&str, &str); 3] = [
    ("etcd-ca", "etcd_ca_cert_file"),
    ("etcd-cert", "etcd_cert_file"),
    ("etcd-key", "etcd_key_file"),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::settings::tests::with;
    use super::*;

    struct Scene {
        dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let file = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {datastoreType: etcdv3, etcdEndpoints: 'https://a:2379', etcdCACertFile: /ca}\n";
            fs::write(dir.path().join("config.yaml"), file).unwrap();
            Self { dir }
        }

        fn path(&self, name: &str) -> String {
            self.dir.path().join(name).display().to_string()
        }

        fn settings(&self, more: &[(&str, &str)]) -> Settings {
            let (prefix, config) = (self.path("host"), self.path("config.yaml"));
            let net_dir = self.path("net.d");
            let mut values = vec![
                ("MARGAY_HOST_PREFIX", prefix.as_str()),
                ("MARGAY_CONFIG", config.as_str()),
                ("CNI_NET_DIR", net_dir.as_str()),
                ("TLS_ASSETS_DIR", "/nowhere/secrets"),
                ("NODENAME", "n1"),
            ];
            values.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
            values.extend(more);
            with(&values).unwrap()
        }

        fn configuration(&self, more: &[(&str, &str)], token: Option<&str>) -> Value {
            let wanted = wanted(&self.settings(more), token).unwrap();
            serde_json::from_str(wanted.configuration.unwrap().text()).unwrap()
        }
    }

    #[test]
    fn without_a_template_the_datastore_s_settings_count() {
        let scene = Scene::new();
        let list = scene.configuration(&[], None);
        assert_eq!(list["name"], "margay");
        assert_eq!(
            list["plugins"],
            json!([{"type": "margay", "datastore_type": "etcdv3", "etcd_endpoints": "https://a:2379",
                "etcd_ca_cert_file": "/ca", "policy_setup_timeout_seconds": 10, "ipam": {"type": "margay-ipam"}}])
        );
        let more = [
            ("MARGAY_CNI_IPV6", "true"),
            ("CNI_MTU", "1400"),
            ("LOG_LEVEL", "debug"),
            ("MARGAY_STATE_DIR", "/s"),
            ("MARGAY_RELEASES_DIR", "/h/releases"),
            ("MARGAY_CNI_KUBECONFIG", "/etc/k"),
            ("MARGAY_PROGRAMS", "margay,margay-ipam,portmap"),
            ("MARGAY_RUN_DIR", "/r"),
            ("MARGAY_POLICY_WAIT", "3"),
        ];
        let list = scene.configuration(&more, None);
        assert_eq!(list["name"], "k8s-pod-network");
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["ipam"]["assign_ipv6"], "true");
        assert_eq!(
            (&plugin["mtu"], &plugin["log_level"]),
            (&json!(1400), &json!("debug"))
        );
        assert_eq!(
            (&plugin["nodename_file"], &plugin["state_dir"]),
            (&json!("/s/nodename"), &json!("/h"))
        );
        assert_eq!(
            (
                &plugin["policy_setup_timeout_seconds"],
                &plugin["endpoint_status_dir"]
            ),
            (&json!(3), &json!("/r/endpoint-status"))
        );
        let unwatched = [("FELIX_ENDPOINTSTATUSPATHPREFIX", "none")];
        let plugin = &scene.configuration(&unwatched, None)["plugins"][0];
        assert_eq!(plugin.get("policy_setup_timeout_seconds"), None);
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["kubernetes"]["kubeconfig"], "/etc/k");
        assert_eq!(list["plugins"][1]["type"], "portmap");
    }

    #[test]
    fn every_word_is_known() {
        let scene = Scene::new();
        let fields: Map<String, Value> = margay_install::WORDS
            .iter()
            .map(|word| ((*word).trim_matches('_').to_owned(), (*word).into()))
            .collect();
        let mut template = Value::Object(fields);
        template["name"] = "n".into();
        template["plugins"] = json!([{"type": "calico"}]);
        let template = template.to_string();
        let settings = scene.settings(&[
            ("CNI_NETWORK_CONFIG", &template),
            ("MARGAY_CALICO_NAMES", "true"),
        ]);
        let wanted = wanted(&settings, None).unwrap();
        let configuration = wanted.configuration.unwrap();
        assert!(
            !configuration.text().contains("__"),
            "{}",
            configuration.text()
        );
        let read: Value = serde_json::from_str(configuration.text()).unwrap();
        assert_eq!(read["KUBERNETES_NODE_NAME"], "n1");
        assert_eq!(read["ETCD_ENDPOINTS"], "https://a:2379");
        assert_eq!(
            read["KUBECONFIG_FILEPATH"],
            format!("{}/calico-kubeconfig", scene.path("net.d"))
        );
        assert_eq!(configuration.name(), "10-calico.conflist");
        let names: Vec<&str> = wanted
            .programs
            .iter()
            .map(|program| &*program.name)
            .collect();
        assert_eq!(names, ["margay", "margay-ipam", "calico", "calico-ipam"]);
        let unknown = scene.settings(&[("CNI_NETWORK_CONFIG", "{\"x\":\"__POD_CIDR__\"}")]);
        let error = super::wanted(&unknown, None).unwrap_err().to_string();
        assert!(error.contains("__POD_CIDR__"), "{error}");
    }

    #[test]
    fn certificates_are_copied_to_where_the_plugins_see_them() {
        let scene = Scene::new();
        fs::create_dir(scene.path("secrets")).unwrap();
        fs::write(scene.path("secrets/etcd-ca"), "ca").unwrap();
        fs::write(scene.path("secrets/etcd-key"), "").unwrap();
        for folder in [
            "host/etc/cni/net.d",
            "host/opt/cni/bin",
            "host/secondary-bin-dir",
        ] {
            fs::create_dir_all(scene.path(folder)).unwrap();
        }
        let secrets = scene.path("secrets");
        let wanted = wanted(&scene.settings(&[("TLS_ASSETS_DIR", &secrets)]), None).unwrap();
        // Written to where the host's folder is mounted, and named as the host sees it.
        let [ca] = &*wanted.secrets else {
            panic!("{:?}", wanted.secrets);
        };
        assert_eq!(
            ca.path,
            PathBuf::from(scene.path("host/etc/cni/net.d/margay-tls/etcd-ca"))
        );
        assert_eq!(
            wanted.net_dir,
            PathBuf::from(scene.path("host/etc/cni/net.d"))
        );
        assert_eq!(wanted.bin_dirs.len(), 2);
        let read: Value = serde_json::from_str(wanted.configuration.unwrap().text()).unwrap();
        let named = format!("{}/margay-tls/etcd-ca", scene.path("net.d"));
        assert_eq!(read["plugins"][0]["etcd_ca_cert_file"], named);
    }

    #[test]
    fn a_pod_writes_a_kubeconfig_and_names_it() {
        let scene = Scene::new();
        let account = scene.path("account");
        fs::create_dir(&account).unwrap();
        fs::write(scene.path("account/token"), "t").unwrap();
        fs::write(scene.path("account/ca.crt"), "pem").unwrap();
        let more = [
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("MARGAY_SERVICE_ACCOUNT_DIR", account.as_str()),
        ];
        let wanted = wanted(&scene.settings(&more), Some("t")).unwrap();
        assert_eq!(
            wanted.secrets[0].path,
            PathBuf::from(scene.path("net.d/margay-kubeconfig"))
        );
        let list = scene.configuration(&more, Some("t"));
        assert_eq!(
            list["plugins"][0]["kubernetes"]["kubeconfig"],
            scene.path("net.d/margay-kubeconfig")
        );
        assert!(!list.to_string().contains("\"t\""));
        let template =
            "{\"name\":\"n\",\"plugins\":[{\"type\":\"x\",\"t\":\"__SERVICEACCOUNT_TOKEN__\"}]}";
        let more = [more[0], more[1], ("CNI_NETWORK_CONFIG", template)];
        assert_eq!(
            scene.configuration(&more, Some("t"))["plugins"][0]["t"],
            "t"
        );
    }
}
