//! The Kubernetes API server of a configuration: where it is, and its failures as CNI errors.

use std::fs;
use std::path::Path;
use std::time::Duration;

use margay_cni::error::{Error, code};
use margay_kube::{Access, Client, Error as KubeError, Secret};
use serde_json::{Map, Value};

use crate::failure::whole;
use crate::{flag, text};

/// The parts of a configuration that concern Kubernetes: `policy`, `kubernetes` and `feature_control`.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// Whether endpoints are described by their pods (`policy.type` is `k8s`).
    pub describes_pods: bool,
    /// Whether pods may have addresses past IPAM (`feature_control.ip_addrs_no_ipam`).
    pub addresses_without_ipam: bool,
    /// Whether pods may have floating addresses (`feature_control.floating_ips`).
    pub floating_addresses: bool,
    /// The node's name in Kubernetes, where it is not the datastore's.
    pub node_name: Option<String>,
    policy: Map<String, Value>,
    kubernetes: Map<String, Value>,
}

impl Kubernetes {
    /// Reads the keys of a configuration, whose types have been checked. No file is read.
    pub fn read(conf: &Map<String, Value>) -> Self {
        let object = |key: &str| conf.get(key).and_then(Value::as_object).cloned();
        let policy = object("policy").unwrap_or_default();
        let kubernetes = object("kubernetes").unwrap_or_default();
        let features = object("feature_control").unwrap_or_default();
        Self {
            describes_pods: text(&policy, "type") == Some("k8s"),
            addresses_without_ipam: flag(&features, "ip_addrs_no_ipam"),
            floating_addresses: flag(&features, "floating_ips"),
            node_name: text(&kubernetes, "node_name").map(str::to_owned),
            policy,
            kubernetes,
        }
    }

    /// A client of the API server. Nothing is sent yet.
    ///
    /// # Errors
    /// Code 7 when no key says where the server is, 110 when a file or key cannot be used.
    pub fn client(&self) -> Result<Client, Error> {
        let access = self.access()?;
        let limit = LIMIT.min(margay_plugin::remaining() / 2);
        Client::new(&access, limit).map_err(|error| from_kube(&error))
    }

    /// The kubeconfig, with what other keys say in its place.
    fn access(&self) -> Result<Access, Error> {
        let mut access = match text(&self.kubernetes, "kubeconfig") {
            Some(file) => {
                Access::from_kubeconfig(Path::new(file)).map_err(|error| from_kube(&error))?
            }
            None => Access::default(),
        };
        let root =
            text(&self.kubernetes, "k8s_api_root").or_else(|| text(&self.policy, "k8s_api_root"));
        if let Some(root) = root {
            // Old configurations give the whole path of the API.
            let server = root.split("/api/").next().unwrap_or(root);
            server.clone_into(&mut access.server);
        }
        if access.server.is_empty() {
            return Err(Error::new(
                code::INVALID_CONFIG,
                "the Kubernetes API server is needed and no key says where it is; give \
                 \"kubernetes.kubeconfig\"",
            ));
        }
        if let Some(token) = text(&self.policy, "k8s_auth_token") {
            access.token = Some(Secret::new(token));
        }
        let file = |key: &str| {
            let file = text(&self.policy, key)?;
            Some(fs::read(file).map_err(|error| unreadable(key, file, &error)))
        };
        if let Some(content) = file("k8s_client_certificate").transpose()? {
            access.certificate = Some(content);
        }
        if let Some(content) = file("k8s_client_key").transpose()? {
            access.key = Some(Secret::new(content));
        }
        if let Some(content) = file("k8s_certificate_authority").transpose()? {
            access.authority = Some(content);
        }
        Ok(access)
    }
}

/// The error for a failure of the API server, or of what leads to it.
pub fn from_kube(error: &KubeError) -> Error {
    let (code, remedy) = match error {
        KubeError::Settings { .. } => (
            code::DATASTORE_SETTINGS,
            "; correct \"kubernetes.kubeconfig\" or the keys of \"policy\"",
        ),
        KubeError::Unreachable { .. } => (
            code::DATASTORE_UNREACHABLE,
            "; check key \"kubernetes.kubeconfig\", the certificates, and that the server is reached from this \
             host",
        ),
        KubeError::Deadline { .. } => (code::DEADLINE, ""),
        KubeError::Denied { .. } => (
            code::DATASTORE_DENIED,
            "; check the token or certificate of \"kubernetes.kubeconfig\", and its right to get pods, \
             namespaces and nodes",
        ),
        KubeError::Absent { .. } => (code::TRY_AGAIN_LATER, "; it is deleted, or not created yet"),
        KubeError::Answer { passing: true, .. } => (code::TRY_AGAIN_LATER, ""),
        KubeError::Answer { passing: false, .. } => (
            code::DECODE,
            "; check that key \"kubernetes.kubeconfig\" leads to an API server",
        ),
    };
    whole(code, format!("{error}{remedy}"))
}

fn unreadable(key: &str, file: &str, error: &std::io::Error) -> Error {
    Error::new(
        code::DATASTORE_SETTINGS,
        format!(
            "key \"policy.{key}\": reading {file}: {error}; correct the path or its permissions"
        ),
    )
}

/// The longest that one request may take.
const LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kubernetes(conf: Value) -> Kubernetes {
        Kubernetes::read(conf.as_object().unwrap())
    }

    #[test]
    fn pods_describe_endpoints_only_where_asked_for() {
        let conf = json!({"kubernetes": {"kubeconfig": "/absent"}, "policy": {"type": ""}});
        assert!(!kubernetes(conf).describes_pods);
        let conf = json!({"policy": {"type": "k8s"}, "feature_control": {"floating_ips": true}});
        let read = kubernetes(conf);
        assert!(read.describes_pods && read.floating_addresses && !read.addresses_without_ipam);
    }

    #[test]
    fn keys_count_before_the_kubeconfig() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kubeconfig");
        let text = "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
                    clusters: [{name: k, cluster: {server: 'https://a:1'}}]\nusers: [{name: u, user: {token: t}}]\n";
        fs::write(&file, text).unwrap();
        fs::write(directory.path().join("ca"), "pem").unwrap();
        let access = kubernetes(json!({
            "kubernetes": {"kubeconfig": file},
            "policy": {
                "type": "k8s",
                "k8s_api_root": "https://b:2/api/v1/",
                "k8s_certificate_authority": directory.path().join("ca"),
            },
        }));
        let access = access.access().unwrap();
        assert_eq!(access.server, "https://b:2");
        assert_eq!(access.authority.as_deref(), Some(&b"pem"[..]));
        assert_eq!(access.token, Some(Secret::new("t")));
    }

    #[test]
    fn what_is_missing_is_named() {
        let told = |conf: Value| kubernetes(conf).client().unwrap_err();
        let error = told(json!({"policy": {"type": "k8s"}}));
        assert_eq!(error.code, code::INVALID_CONFIG);
        assert!(error.msg.contains("kubernetes.kubeconfig"), "{error}");
        let error = told(json!({"kubernetes": {"kubeconfig": "/nowhere/config"}}));
        assert_eq!(error.code, code::DATASTORE_SETTINGS);
        assert!(error.msg.contains("/nowhere/config"), "{error}");
        let error = told(
            json!({"policy": {"k8s_api_root": "https://a", "k8s_client_key": "/nowhere/key"}}),
        );
        assert_eq!(error.code, code::DATASTORE_SETTINGS);
        assert!(error.msg.contains("policy.k8s_client_key"), "{error}");
    }
}
