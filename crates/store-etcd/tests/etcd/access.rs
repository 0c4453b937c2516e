//! Certificates, users and roles.

use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Permission, PermissionType};
use margay_model::{Key, Prefix};
use margay_store::{Batch, Store, StoreError, Write};
use margay_store_etcd::{Etcd, Options, Tls};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::server::{Certificates, Cluster};

#[tokio::test]
async fn client_certificates_are_demanded_and_given() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let stranger = Authority::new();
    let server = authority.issue(&["127.0.0.1"]);
    let files = Certificates {
        authority: write(&directory, "ca.pem", &authority.pem),
        certificate: write(&directory, "server.pem", &server.0),
        key: write(&directory, "server-key.pem", &server.1),
    };
    let cluster = Cluster::launch(directory, 1, Some(&files));
    let options = |trusted: &Authority, identity: Option<(String, String)>| Options {
        tls: Tls {
            authorities: Some(trusted.pem.clone().into_bytes()),
            identity: identity.map(|(chain, key)| (chain.into_bytes(), key.into_bytes())),
        },
        deadline: Duration::from_secs(5),
        ..cluster.options()
    };
    let good = Etcd::new(options(&authority, Some(authority.issue(&["node"]))));
    cluster.wait(&good).await;
    let batch = Batch::of([Write::create(Key::IpamConfig, b"{}".to_vec())]);
    good.commit(&batch).await.unwrap();
    for (what, options) in [
        ("no certificate", options(&authority, None)),
        (
            "another's certificate",
            options(&authority, Some(stranger.issue(&["node"]))),
        ),
        (
            "another server",
            options(&stranger, Some(authority.issue(&["node"]))),
        ),
    ] {
        let error = Etcd::new(options).get(&Key::IpamConfig).await.unwrap_err();
        assert!(
            matches!(error, StoreError::Unavailable { .. }),
            "{what}: {error:?}"
        );
        assert!(
            error.to_string().contains(&cluster.endpoints()[0]),
            "{what}: {error}"
        );
    }
    let broken = Options {
        tls: Tls {
            authorities: Some(b"no certificate".to_vec()),
            identity: None,
        },
        ..cluster.options()
    };
    assert!(Etcd::new(broken).get(&Key::IpamConfig).await.is_err());
}

#[tokio::test]
async fn users_do_what_their_roles_allow() {
    let cluster = Cluster::start(1).await;
    let mut raw = cluster.raw().await;
    for user in ["root", "node"] {
        raw.user_add(user, format!("{user}-secret"), None)
            .await
            .unwrap();
        raw.role_add(user).await.unwrap();
        raw.user_grant_role(user, user).await.unwrap();
    }
    let ipam = Permission::new(PermissionType::Readwrite, "/calico/ipam/v2/").with_prefix();
    raw.role_grant_permission("node", ipam).await.unwrap();
    raw.auth_enable().await.unwrap();
    let as_user = |password: &str| {
        Etcd::new(Options {
            user: Some(("node".to_owned(), password.to_owned())),
            ..cluster.options()
        })
    };
    let node = as_user("node-secret");
    let batch = Batch::of([Write::create(Key::IpamConfig, b"{}".to_vec())]);
    node.commit(&batch).await.unwrap();
    assert!(node.get(&Key::IpamConfig).await.unwrap().is_some());
    let elsewhere = Batch::of([Write::create(Key::PoolMarker, vec![])]);
    let mut refused = vec![
        node.commit(&elsewhere).await.unwrap_err(),
        node.list(&Prefix::Margay).await.unwrap_err(),
        as_user("guessed-secret")
            .get(&Key::IpamConfig)
            .await
            .unwrap_err(),
        cluster.client().get(&Key::IpamConfig).await.unwrap_err(),
    ];
    let revision = node.list(&Prefix::Ipam).await.unwrap().revision;
    refused.push(node.watch(&Prefix::Margay, revision).await.unwrap_err());
    for error in refused {
        assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for these names, and its key.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn write(directory: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}
