//! A real Kubernetes API server, with its own authority, on a lab's etcd.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use margay_integration::process::{eventually, inside, run};
use margay_integration::{Etcd, Lab, Running};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::apiserver::{Authority, HOST, kubeconfig};

/// The server; it ends with this value.
pub(crate) struct RealApiServer<'l> {
    process: Running,
    lab: &'l Lab,
    /// Its authority.
    pub(crate) authority: Authority,
    tls: Arc<ClientConfig>,
}

/// The program, where scripts/kube-apiserver has built it. Where it is not, that is said so that nobody can
/// miss it, whatever is captured.
pub(crate) fn program() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kube-apiserver");
    let told = run(&mut Command::new(script), b"");
    if told.success() {
        return Some(told.stdout.trim().into());
    }
    let _ = writeln!(
        std::io::stderr(),
        "\nSKIPPED: nothing was tested against a real Kubernetes API server: {}",
        told.stderr.trim()
    );
    None
}

impl<'l> RealApiServer<'l> {
    /// Starts one on the fabric of a lab, beside an etcd.
    pub(crate) fn start(lab: &'l Lab, etcd: &Etcd, program: &Path) -> Self {
        let authority = Authority::new();
        let dir = lab.dir().join("kubernetes");
        fs::create_dir(&dir).unwrap();
        let put = |name: &str, text: &str| {
            let file = dir.join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let (chain, key) = authority.issue(HOST);
        let (admin, admin_key) = authority.issue_to("admin", Some("system:masters"));
        let accounts = Authority::new();
        let mut command = inside(&lab.fabric(), program);
        let mut flag = |name: &str, value: &Path| {
            let mut text = std::ffi::OsString::from(format!("--{name}="));
            text.push(value);
            command.arg(text);
        };
        flag("tls-cert-file", &put("server.crt", &chain));
        flag("tls-private-key-file", &put("server.key", &key));
        flag("client-ca-file", &put("ca.crt", &authority.pem));
        flag(
            "service-account-key-file",
            &put("accounts.crt", &accounts.pem),
        );
        flag(
            "service-account-signing-key-file",
            &put("accounts.key", &accounts.key()),
        );
        command
            .arg(format!("--etcd-servers={}", etcd.endpoint))
            .arg(format!("--advertise-address={HOST}"))
            .arg(format!("--bind-address={HOST}"))
            .args([
                "--secure-port=6444",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                "--anonymous-auth=false",
            ]);
        let process = Running::start(&mut command, &lab.dir().join("kube-apiserver.log"));
        let mut server = Self {
            process,
            lab,
            tls: client(&authority, &admin, &admin_key),
            authority,
        };
        eventually("the API server is ready", Duration::from_secs(120), || {
            assert!(server.process.is_running(), "{}", server.process.log());
            server
                .ask("GET", "/readyz", None)
                .is_some_and(|(status, _)| status == 200)
        });
        server
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("https://{HOST}:{PORT}")
    }

    /// Makes an object, as an administrator does; what was stored.
    #[track_caller]
    pub(crate) fn create(&self, path: &str, object: Value) -> Value {
        let (status, answer) = self.ask("POST", path, Some(object)).unwrap();
        assert!(status == 201 || status == 200, "{path}: {status} {answer}");
        answer
    }

    /// Deletes an object at once.
    #[track_caller]
    pub(crate) fn delete(&self, path: &str) {
        let now = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
        let (status, answer) = self.ask("DELETE", path, Some(now)).unwrap();
        assert!(status == 200 || status == 202, "{path}: {status} {answer}");
    }

    /// An object.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, None).unwrap();
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Makes a pod of namespace `prod`; its UID.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str, metadata: Value, spec: Value) -> String {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name},
            "spec": {"nodeName": "n1", "serviceAccountName": "sa1",
                "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}});
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            let held = pod[part].as_object_mut().unwrap();
            held.extend(more.as_object().unwrap().clone());
        }
        let stored = self.create("/api/v1/namespaces/prod/pods", pod);
        stored["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// A token of a service account.
    pub(crate) fn token(&self, namespace: &str, account: &str) -> String {
        let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "spec": {"expirationSeconds": 3600}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let answer = self.create(&path, request);
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Writes a kubeconfig with a user of these fields; its file.
    pub(crate) fn kubeconfig(&self, name: &str, user: &str) -> PathBuf {
        kubeconfig(
            self.lab.dir(),
            name,
            &self.url(),
            &self.authority.trusted(),
            user,
        )
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let namespace = File::open(format!("/run/netns/{}", self.lab.fabric())).unwrap();
        let connected = thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            TcpStream::connect((HOST, PORT))
        });
        let stream = connected.join().unwrap().ok()?;
        let name = ServerName::try_from(HOST).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.tls), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let body = body.map_or(String::new(), |body| body.to_string());
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\naccept: application/json\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // The server may close without a farewell.
        let answer = String::from_utf8(answer)
            .ok()
            .filter(|text| read.is_ok() || !text.is_empty())?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let chunked = head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked");
        let body = if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        };
        Some((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        if length == 0 {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

fn client(authority: &Authority, chain: &str, key: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        );
    Arc::new(config.unwrap())
}

const PORT: u16 = 6444;
