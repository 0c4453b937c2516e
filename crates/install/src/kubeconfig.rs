//! The kubeconfig with which plugins reach the API server.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What a kubeconfig says.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// `https://HOST:PORT`.
    pub server: String,
    /// The certificates, in PEM, by one of which the server's must be signed; `None` takes any server.
    pub authority: Option<Vec<u8>>,
    /// The bearer token.
    pub token: String,
}

impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubeconfig")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Kubeconfig {
    /// The text of the file, in YAML.
    pub fn text(&self) -> String {
        let trust = match &self.authority {
            Some(pem) => format!("certificate-authority-data: \"{}\"", STANDARD.encode(pem)),
            None => "insecure-skip-tls-verify: true".to_owned(),
        };
        // A string of JSON is one of YAML.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "# Kubeconfig of the CNI plugins, kept by margay-agent. Whoever reads it can do what they can.\n\
             apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n    server: {}\n    {trust}\n\
             users:\n- name: margay\n  user:\n    token: {}\ncontexts:\n- name: margay\n  context:\n    \
             cluster: local\n    user: margay\ncurrent-context: margay\n",
            quoted(&self.server),
            quoted(self.token.trim()),
        )
    }
}

#[cfg(test)]
mod tests {
    use margay_kube::{Access, Secret};

    use super::*;

    fn read(kubeconfig: &Kubeconfig) -> Access {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        std::fs::write(&file, kubeconfig.text()).unwrap();
        Access::from_kubeconfig(&file).unwrap()
    }

    #[test]
    fn the_plugins_read_what_is_written() {
        let mut kubeconfig = Kubeconfig {
            server: "https://[fd00::1]:6443".to_owned(),
            authority: Some(b"pem".to_vec()),
            token: "a.b-c\n".to_owned(),
        };
        let access = read(&kubeconfig);
        assert_eq!(access.server, "https://[fd00::1]:6443");
        assert_eq!(access.authority.as_deref(), Some(&b"pem"[..]));
        assert_eq!(access.token, Some(Secret::new("a.b-c")));
        assert!(!access.insecure);
        kubeconfig.authority = None;
        assert!(read(&kubeconfig).insecure);
        assert!(!format!("{kubeconfig:?}").contains("a.b-c"));
    }
}
