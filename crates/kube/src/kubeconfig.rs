//! Kubeconfig files: the current context's cluster and user.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::access::{Access, Secret};
use crate::error::Error;
use crate::yaml;

/// Reads a kubeconfig and the files that its current context names.
pub(crate) fn read(file: &Path) -> Result<Access, Error> {
    let place = format!("kubeconfig {}", file.display());
    let text =
        fs::read_to_string(file).map_err(|error| Error::settings(&place, error.to_string()))?;
    let document = yaml::parse(&text).map_err(|reason| Error::settings(&place, reason))?;
    let kubeconfig = Kubeconfig {
        place,
        directory: file.parent().unwrap_or_else(|| Path::new("/")).to_owned(),
        document,
    };
    kubeconfig.access()
}

#[derive(Debug)]
struct Kubeconfig {
    place: String,
    directory: PathBuf,
    document: Value,
}

impl Kubeconfig {
    fn access(&self) -> Result<Access, Error> {
        let context = text(&self.document, "current-context")
            .ok_or_else(|| self.fault("current-context is missing; name one of contexts"))?;
        let context = self.named("contexts", "context", context)?;
        let name = |field: &str| {
            text(context, field)
                .ok_or_else(|| self.fault(format!("the current context has no {field}")))
        };
        let cluster = self.named("clusters", "cluster", name("cluster")?)?;
        let user = match text(context, "user") {
            Some(user) => self.named("users", "user", user)?,
            None => &Value::Null,
        };
        self.refuse(
            cluster,
            &["proxy-url"],
            "it is not supported; give a server that is reached directly",
        )?;
        let remedy = "it is not supported; give a token, a tokenFile or a client certificate";
        self.refuse(
            user,
            &["exec", "auth-provider", "username", "password"],
            remedy,
        )?;
        let server =
            text(cluster, "server").ok_or_else(|| self.fault("the cluster has no server"))?;
        let token = match text(user, "tokenFile") {
            Some(file) => Some(self.file("tokenFile", file)?),
            None => text(user, "token").map(|token| token.as_bytes().to_vec()),
        };
        Ok(Access {
            server: server.to_owned(),
            authority: self.content(cluster, "certificate-authority")?,
            insecure: cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)),
            server_name: text(cluster, "tls-server-name").map(str::to_owned),
            certificate: self.content(user, "client-certificate")?,
            key: self.content(user, "client-key")?.map(Secret::new),
            token: token.map(Secret::new),
        })
    }

    /// The entry `name` of one of the lists.
    fn named(&self, list: &str, field: &str, name: &str) -> Result<&Value, Error> {
        let entries = self.document.get(list).and_then(Value::as_array);
        entries
            .into_iter()
            .flatten()
            .find(|entry| text(entry, "name") == Some(name))
            .map(|entry| entry.get(field).unwrap_or(&Value::Null))
            .ok_or_else(|| self.fault(format!("{list} has no {name:?}")))
    }

    /// Base64 of `<field>-data`, else the file that `field` names.
    fn content(&self, of: &Value, field: &str) -> Result<Option<Vec<u8>>, Error> {
        let data = format!("{field}-data");
        if let Some(encoded) = text(of, &data) {
            let compact: String = encoded.split_whitespace().collect();
            let decoded = STANDARD.decode(compact);
            return decoded
                .map(Some)
                .map_err(|error| self.fault(format!("{data} is no base64: {error}")));
        }
        text(of, field)
            .map(|file| self.file(field, file))
            .transpose()
    }

    fn file(&self, field: &str, file: &str) -> Result<Vec<u8>, Error> {
        let file = self.directory.join(file);
        fs::read(&file)
            .map_err(|error| self.fault(format!("{field}: reading {}: {error}", file.display())))
    }

    fn refuse(&self, of: &Value, fields: &[&str], remedy: &str) -> Result<(), Error> {
        let empty = Map::new();
        let object = of.as_object().unwrap_or(&empty);
        let held = |field: &&&str| object.get(**field).is_some_and(|value| !value.is_null());
        match fields.iter().find(held) {
            Some(field) => Err(self.fault(format!("the current context uses {field}: {remedy}"))),
            None => Ok(()),
        }
    }

    fn fault(&self, reason: impl Into<String>) -> Error {
        Error::settings(&self.place, reason)
    }
}

/// A text that is not empty.
fn text<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of.get(field)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<Access, Error> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.crt"), "authority").unwrap();
        fs::write(directory.path().join("token"), "from a file\n").unwrap();
        let file = directory.path().join("config");
        fs::write(&file, text).unwrap();
        read(&file)
    }

    const USUAL: &str = "apiVersion: v1\nkind: Config\nclusters:\n- name: local\n  cluster:\n    server: \
        https://[10.96.0.1]:443\n    certificate-authority-data: \"Y2E=\"\nusers:\n- name: calico\n  user:\n    \
        token: abc\ncontexts:\n- name: calico-context\n  context:\n    cluster: local\n    user: calico\n\
        current-context: calico-context\n";

    #[test]
    fn the_file_that_calico_installs_is_read() {
        let access = with(USUAL).unwrap();
        assert_eq!(access.server, "https://[10.96.0.1]:443");
        assert_eq!(access.authority.as_deref(), Some(&b"ca"[..]));
        assert_eq!(access.token, Some(Secret::new("abc")));
        assert!(!access.insecure && access.certificate.is_none());
        assert!(!format!("{access:?}").contains("abc"), "{access:?}");
    }

    #[test]
    fn files_are_relative_and_data_counts_first() {
        let text = USUAL
            .replace("certificate-authority-data: \"Y2E=\"", "certificate-authority: ca.crt")
            .replace("token: abc", "token: abc\n    tokenFile: token\n    client-certificate: gone.crt\n    client-certificate-data: eA==");
        let access = with(&text).unwrap();
        assert_eq!(access.authority.as_deref(), Some(&b"authority"[..]));
        assert_eq!(access.token, Some(Secret::new("from a file\n")));
        assert_eq!(access.certificate.as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn json_will_do() {
        let text = r#"{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"k"}}],
            "clusters":[{"name":"k","cluster":{"server":"http://127.0.0.1:8080","insecure-skip-tls-verify":true}}]}"#;
        let access = with(text).unwrap();
        assert!(access.insecure && access.token.is_none());
    }

    #[test]
    fn faults_name_the_field() {
        for (from, to, word) in [
            ("current-context: calico-context", "", "current-context"),
            (
                "user: calico\n",
                "user: nobody\n",
                "users has no \"nobody\"",
            ),
            ("\"Y2E=\"", "\"?\"", "certificate-authority-data"),
            ("token: abc", "exec: {command: aws}", "exec"),
            ("token: abc", "tokenFile: absent", "absent"),
            ("server:", "sever:", "no server"),
            ("clusters:", "clusters: [", "line"),
        ] {
            let error = with(&USUAL.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(word), "{to:?}: {error}");
            assert!(error.starts_with("kubeconfig /"), "{error}");
        }
    }
}
