//! An API server that knows a few objects: HTTPS, tokens, client certificates, and the moods of a real one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use margay_integration::Lab;
use nix::sched::{CloneFlags, setns};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As it should.
    Good,
    /// With status 503.
    Busy,
    /// Not at all.
    Silent,
}

/// The server; it ends with the test's process.
#[derive(Debug)]
pub(crate) struct ApiServer {
    /// Its URL.
    pub(crate) url: String,
    /// Its authority.
    pub(crate) authority: Authority,
    shared: Arc<Mutex<Shared>>,
    dir: PathBuf,
}

#[derive(Debug)]
struct Shared {
    objects: BTreeMap<String, Value>,
    asked: Vec<String>,
    mood: Mood,
}

/// Who signs certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    /// Its certificate, in PEM.
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Writes a kubeconfig for a server, with a cluster and a user of these fields; its file.
pub(crate) fn kubeconfig(
    dir: &Path,
    name: &str,
    server: &str,
    cluster: &str,
    user: &str,
) -> PathBuf {
    let text = format!(
        "# Kubeconfig file for Calico CNI plugin.\napiVersion: v1\nkind: Config\nclusters:\n- name: local\n  \
         cluster:\n    server: {server}\n    {cluster}\nusers:\n- name: calico\n  user:\n    {user}\ncontexts:\n- name: \
         calico-context\n  context:\n    cluster: local\n    user: calico\ncurrent-context: calico-context\n"
    );
    let file = dir.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

/// The token that the server takes.
pub(crate) const TOKEN: &str = "eyJhbGciOiJub25lIn0.token.of-the-plugin";

impl ApiServer {
    /// Starts one on the fabric of a lab.
    pub(crate) fn start(lab: &Lab) -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.issue(HOST);
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = listen(&lab.fabric());
        let shared = Arc::new(Mutex::new(Shared {
            objects: BTreeMap::from([("/version".to_owned(), json!({"gitVersion": "v1.37.2"}))]),
            asked: Vec::new(),
            mood: Mood::Good,
        }));
        let served = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, served) = (Arc::clone(&config), Arc::clone(&served));
                thread::spawn(move || serve(stream, config, &served));
            }
        });
        Self {
            url: format!("https://{HOST}:{PORT}"),
            authority,
            shared,
            dir: lab.dir().to_owned(),
        }
    }

    /// Puts a namespace there.
    pub(crate) fn namespace(&self, name: &str, metadata: Value) {
        let path = format!("/api/v1/namespaces/{name}");
        self.put(path, "Namespace", name, metadata, json!({}));
    }

    /// Puts a pod there.
    pub(crate) fn pod(&self, namespace: &str, name: &str, metadata: Value, spec: Value) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        self.put(path, "Pod", name, metadata, spec);
    }

    /// Puts a node there.
    pub(crate) fn node(&self, name: &str, spec: Value) {
        self.put(
            format!("/api/v1/nodes/{name}"),
            "Node",
            name,
            json!({}),
            spec,
        );
    }

    /// The paths that were asked for since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().asked)
    }

    /// Changes how it answers.
    pub(crate) fn be(&self, mood: Mood) {
        self.shared.lock().unwrap().mood = mood;
    }

    /// Writes a kubeconfig with a cluster and a user of these fields; its file.
    pub(crate) fn kubeconfig(&self, name: &str, cluster: &str, user: &str) -> PathBuf {
        kubeconfig(&self.dir, name, &self.url, cluster, user)
    }

    /// The usual kubeconfig: the authority as data, and a token.
    pub(crate) fn usual(&self) -> PathBuf {
        self.kubeconfig("kubeconfig", &self.trusted(), &format!("token: {TOKEN}"))
    }

    /// The field of a cluster that trusts this server.
    pub(crate) fn trusted(&self) -> String {
        self.authority.trusted()
    }

    fn put(&self, path: String, kind: &str, name: &str, metadata: Value, spec: Value) {
        let mut object =
            json!({"kind": kind, "apiVersion": "v1", "metadata": {"name": name}, "spec": spec});
        let held = object["metadata"].as_object_mut().unwrap();
        held.extend(metadata.as_object().unwrap().clone());
        self.shared.lock().unwrap().objects.insert(path, object);
    }
}

impl Authority {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// Its key, in PEM.
    pub(crate) fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The field of a kubeconfig's cluster that trusts it.
    pub(crate) fn trusted(&self) -> String {
        format!(
            "certificate-authority-data: \"{}\"",
            STANDARD.encode(&self.pem)
        )
    }

    /// A certificate for a host or client of a name, and its key, both in PEM.
    pub(crate) fn issue(&self, name: &str) -> (String, String) {
        self.issue_to(name, None)
    }

    /// As [`Authority::issue`], for a member of an organisation: to Kubernetes, a group.
    pub(crate) fn issue_to(&self, name: &str, organisation: Option<&str>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organisation) = organisation {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organisation);
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

/// A listener inside a network namespace, made by a thread that enters it and ends.
fn listen(namespace: &str) -> TcpListener {
    let namespace = File::open(format!("/run/netns/{namespace}")).unwrap();
    let entered = thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        TcpListener::bind((HOST, PORT)).unwrap()
    });
    entered.join().unwrap()
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Mutex<Shared>) {
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = StreamOwned::new(connection, stream);
    while let Some(head) = head(&mut stream) {
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let certified = stream.conn.peer_certificates().is_some();
        let token = format!("bearer {TOKEN}").to_ascii_lowercase();
        let known = certified
            || head.lines().any(|line| {
                let line = line.to_ascii_lowercase();
                line.strip_prefix("authorization: ") == Some(&token)
            });
        let (mood, object) = {
            let mut shared = shared.lock().unwrap();
            shared.asked.push(path.clone());
            (shared.mood, shared.objects.get(&path).cloned())
        };
        let status =
            |message: &str| json!({"kind": "Status", "apiVersion": "v1", "message": message});
        let (code, body) = match (mood, object) {
            (Mood::Silent, _) => {
                thread::sleep(Duration::from_secs(60));
                return;
            }
            (Mood::Busy, _) => ("503 Service Unavailable", status("etcd leader changed")),
            _ if !known => ("401 Unauthorized", status("Unauthorized")),
            (_, None) => ("404 Not Found", status("not found")),
            (_, Some(object)) => ("200 OK", object),
        };
        let body = body.to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The head of the next request; `None` when the client is done, or was never one.
fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

pub(crate) const HOST: &str = "172.31.255.254";
const PORT: u16 = 6443;
