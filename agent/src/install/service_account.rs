//! Tokens for the plugins' kubeconfig.

use std::fs;
use std::time::{Duration, Instant};

use margay_kube::{Access, Client, Secret, Token};
use tracing::{info, warn};

use super::settings::Kubernetes;
use crate::error::AgentError;

/// Where tokens come from.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    issued: Option<(Token, Instant)>,
}

impl Kubernetes {
    /// Whether a kubeconfig is to be written: this is a pod that has a service account.
    pub(super) fn writes_kubeconfig(&self) -> bool {
        self.manage
            && self.kubeconfig.is_none()
            && self.host.is_some()
            && self.account_dir.join("token").exists()
    }

    /// The server's URL.
    pub(super) fn server(&self) -> String {
        let host = self.host.as_deref().unwrap_or_default();
        match host.contains(':') {
            true => format!("{}://[{host}]:{}", self.protocol, self.port),
            false => format!("{}://{host}:{}", self.protocol, self.port),
        }
    }

    /// The certificates that the server's must be signed by; `None` takes any.
    pub(super) fn authority(&self) -> Result<Option<Vec<u8>>, AgentError> {
        match self.insecure {
            true => Ok(None),
            false => self.of_account("ca.crt").map(Some),
        }
    }

    fn of_account(&self, name: &str) -> Result<Vec<u8>, AgentError> {
        let path = self.account_dir.join(name);
        fs::read(&path).map_err(|source| AgentError::Read { path, source })
    }

    fn own_token(&self) -> Result<String, AgentError> {
        let token = self.of_account("token")?;
        Ok(String::from_utf8_lossy(&token).trim().to_owned())
    }
}

impl Tokens {
    /// A token that is valid now: the pod's own, which the kubelet renews in its file; or one of the plugins'
    /// service account, renewed at half of its life.
    pub(super) async fn current(&mut self, kubernetes: &Kubernetes) -> Result<String, AgentError> {
        let own = kubernetes.own_token()?;
        let Some(account) = &kubernetes.account else {
            return Ok(own);
        };
        let age = |token: &Token, since: &Instant| (since.elapsed(), token.lifetime());
        if let Some((token, since)) = &self.issued {
            let (age, lifetime) = age(token, since);
            if age < lifetime / 2 {
                return Ok(token.expose().to_owned());
            }
        }
        match request(kubernetes, account, own).await {
            Ok(token) => {
                info!(account, lifetime = ?token.lifetime(), "the plugins have a new token");
                let text = token.expose().to_owned();
                self.issued = Some((token, Instant::now()));
                Ok(text)
            }
            Err(error) => match &self.issued {
                Some((token, since)) if age(token, since).0 < token.lifetime() => {
                    let left = token.lifetime().saturating_sub(since.elapsed());
                    warn!(%error, ?left, "the plugins' token could not be renewed; trying again");
                    Ok(token.expose().to_owned())
                }
                _ => Err(error),
            },
        }
    }
}

async fn request(kubernetes: &Kubernetes, account: &str, own: String) -> Result<Token, AgentError> {
    let access = Access {
        server: kubernetes.server(),
        authority: kubernetes.authority()?,
        insecure: kubernetes.insecure,
        token: Some(Secret::new(own)),
        ..Access::default()
    };
    let namespace = kubernetes.of_account("namespace")?;
    let namespace = String::from_utf8_lossy(&namespace).trim().to_owned();
    let mut client = Client::new(&access, LIMIT)?;
    Ok(client.token(&namespace, account, LIFETIME).await?)
}

/// How long tokens of the plugins' service account live.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a request may take.
const LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::super::settings::tests::with;

    #[test]
    fn servers_are_urls() {
        for (host, url) in [
            ("10.96.0.1", "https://10.96.0.1:443"),
            ("fd00::1", "https://[fd00::1]:443"),
        ] {
            let settings = with(&[("KUBERNETES_SERVICE_HOST", host)]).unwrap();
            assert_eq!(settings.kubernetes.server(), url);
        }
    }

    #[test]
    fn a_kubeconfig_is_written_by_pods_alone() {
        let dir = tempfile::tempdir().unwrap();
        let account = dir.path().to_str().unwrap().to_owned();
        let host = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        let writes = |values: &[(&str, &str)]| with(values).unwrap().kubernetes.writes_kubeconfig();
        let here = ("MARGAY_SERVICE_ACCOUNT_DIR", account.as_str());
        assert!(!writes(&[host, here]));
        std::fs::write(dir.path().join("token"), "t").unwrap();
        assert!(writes(&[host, here]) && !writes(&[here]));
        assert!(!writes(&[host, here, ("CALICO_MANAGE_CNI", "false")]));
        assert!(!writes(&[host, here, ("MARGAY_CNI_KUBECONFIG", "/etc/k")]));
    }
}
