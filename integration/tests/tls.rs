//! etcd with TLS: client certificates that are good, and each way in which they are bad.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_integration::process::{eventually, inside, run};
use margay_integration::{Agent, Lab, Plugin, Running, StoreKind};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use serde_json::{Value, json};

/// A certificate authority with what it issued.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: PathBuf,
    name: &'static str,
}

impl Authority {
    fn new(dir: &Path, name: &'static str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            dir: dir.to_owned(),
            name,
        }
    }

    fn certificate(&self) -> PathBuf {
        self.dir.join(format!("{}.pem", self.name))
    }

    /// Issues a certificate; the files of certificate and key.
    fn issue(&self, subject: &str, address: Option<IpAddr>) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, subject);
        params.subject_alt_names = address.map(SanType::IpAddress).into_iter().collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |end: &str| self.dir.join(format!("{}-{subject}.{end}", self.name));
        std::fs::write(file("crt"), certificate.pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
        (file("crt"), file("key"))
    }
}

#[test]
fn certificates_are_used_and_bad_ones_are_told() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (ours, other) = (
        Authority::new(lab.dir(), "ours"),
        Authority::new(lab.dir(), "other"),
    );
    let address: IpAddr = "172.31.255.254".parse().unwrap();
    let (server, server_key) = ours.issue("server", Some(address));
    let (client, client_key) = ours.issue("client", None);
    let (stranger, stranger_key) = other.issue("stranger", None);
    let endpoint = "https://172.31.255.254:23790";
    let mut command = inside(&lab.fabric(), "etcd");
    command
        .args([
            "--listen-client-urls",
            endpoint,
            "--advertise-client-urls",
            endpoint,
        ])
        .args([
            "--listen-peer-urls",
            "http://172.31.255.254:23791",
            "--client-cert-auth",
        ])
        .args([
            "--initial-advertise-peer-urls",
            "http://172.31.255.254:23791",
        ])
        .args([
            "--initial-cluster",
            "default=http://172.31.255.254:23791",
            "--log-level",
            "error",
        ])
        .arg("--data-dir")
        .arg(lab.dir().join("etcd"))
        .arg("--cert-file")
        .arg(server)
        .arg("--key-file")
        .arg(server_key)
        .arg("--trusted-ca-file")
        .arg(ours.certificate());
    let _etcd = Running::start(&mut command, &lab.dir().join("etcd.log"));
    eventually("etcd answers", Duration::from_secs(20), || {
        let mut health = inside(&lab.fabric(), "etcdctl");
        health
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", endpoint, "--cacert"])
            .arg(ours.certificate());
        health
            .arg("--cert")
            .arg(&client)
            .arg("--key")
            .arg(&client_key);
        run(health.args(["endpoint", "health"]), b"").success()
    });
    let store = StoreKind::Etcd(endpoint.to_owned());
    let text = |path: &Path| path.display().to_string();
    let (ca, cert, key) = (text(&ours.certificate()), text(&client), text(&client_key));
    let env = [
        ("ETCD_CA_CERT_FILE", ca.as_str()),
        ("ETCD_CERT_FILE", cert.as_str()),
        ("ETCD_KEY_FILE", key.as_str()),
    ];
    let _agent = Agent::start(node, &store, &env);
    let tls = |ca: &Path, cert: &Path, key: &Path| json!({"etcd_ca_cert_file": ca, "etcd_cert_file": cert, "etcd_key_file": key});
    let plugin = Plugin::new(node, &store).with(tls(&ours.certificate(), &client, &client_key));
    let pod = lab.pod();
    plugin.add("good", &pod);
    plugin.del("good", &pod);
    for (what, change) in [
        (
            "the server's certificate is of an unknown authority",
            tls(&other.certificate(), &client, &client_key),
        ),
        (
            "the client's certificate is of an unknown authority",
            tls(&ours.certificate(), &stranger, &stranger_key),
        ),
        (
            "no client certificate",
            json!({"etcd_ca_cert_file": ours.certificate()}),
        ),
    ] {
        let mut conf = Plugin::new(node, &store).conf;
        conf.extend(change.as_object().unwrap().clone());
        let short = [("MARGAY_DEADLINE_MS", "5000")];
        let output = plugin.call_with("ADD", "bad", &pod.path(), &short, &Value::Object(conf));
        assert_eq!(output.code, 1, "{what}: {output:?}");
        assert!(
            output.took < Duration::from_secs(6),
            "{what}: {:?}",
            output.took
        );
        let error = output.json();
        assert!(
            matches!(error["code"].as_u64(), Some(102 | 103 | 108 | 110)),
            "{what}: {error}"
        );
        let message = error["msg"].as_str().unwrap();
        assert!(
            message.contains(endpoint) && message.contains("certificate"),
            "{what}: {message}"
        );
    }
    // A certificate and a key that do not belong together are refused before anything is sent.
    let mut conf = Plugin::new(node, &store).conf;
    conf.extend(
        tls(&ours.certificate(), &client, &stranger_key)
            .as_object()
            .unwrap()
            .clone(),
    );
    let output = plugin.call_with(
        "ADD",
        "bad",
        &pod.path(),
        &[("MARGAY_DEADLINE_MS", "5000")],
        &Value::Object(conf),
    );
    assert_eq!(output.code, 1, "{output:?}");
    assert!(
        output.json()["msg"].as_str().unwrap().contains("etcd"),
        "{output:?}"
    );
}
