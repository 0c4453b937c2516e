//! etcd servers on free loopback ports, with data in a temporary directory; gone when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions};
use margay_store::Store;
use margay_store_etcd::{Etcd, Options, Tls};
use tempfile::TempDir;

pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    _directory: TempDir,
    scheme: &'static str,
}

pub(crate) struct Member {
    client_port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

/// Files of a server's certificates.
pub(crate) struct Certificates {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Cluster {
    /// Starts members and waits until they serve.
    pub(crate) async fn start(count: usize) -> Self {
        let cluster = Self::launch(tempfile::tempdir().unwrap(), count, None);
        cluster.wait(&cluster.client()).await;
        cluster
    }

    /// Starts one member that demands client certificates. It is not waited for.
    pub(crate) fn launch(
        directory: TempDir,
        count: usize,
        certificates: Option<&Certificates>,
    ) -> Self {
        let ports = free_ports(2 * count);
        let scheme = if certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let peer = |number: usize| format!("http://127.0.0.1:{}", ports[2 * number + 1]);
        let names: Vec<_> = (0..count).map(|n| format!("m{n}={}", peer(n))).collect();
        let members = (0..count).map(|number| {
            let client = format!("{scheme}://127.0.0.1:{}", ports[2 * number]);
            let data = directory.path().join(format!("m{number}"));
            let mut arguments = vec![
                format!("--name=m{number}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={}", peer(number)),
                format!("--initial-advertise-peer-urls={}", peer(number)),
                format!("--initial-cluster={}", names.join(",")),
                "--logger=zap".to_owned(),
                "--log-level=error".to_owned(),
            ];
            if let Some(files) = certificates {
                let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
                arguments.push("--client-cert-auth".to_owned());
                arguments.push(flag("trusted-ca-file", &files.authority));
                arguments.push(flag("cert-file", &files.certificate));
                arguments.push(flag("key-file", &files.key));
            }
            let mut member = Member {
                client_port: ports[2 * number],
                arguments,
                process: None,
            };
            member.start();
            member
        });
        Self {
            members: members.collect(),
            _directory: directory,
            scheme,
        }
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        let ports = self.members.iter().map(|member| member.client_port);
        ports
            .map(|port| format!("{}://127.0.0.1:{port}", self.scheme))
            .collect()
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            endpoints: self.endpoints(),
            tls: Tls::default(),
            user: None,
            deadline: Duration::from_secs(10),
        }
    }

    pub(crate) fn client(&self) -> Etcd {
        Etcd::new(self.options())
    }

    /// The library's own client, for what the store's interface does not offer.
    pub(crate) async fn raw(&self) -> Client {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(10));
        Client::connect(self.endpoints(), Some(options))
            .await
            .unwrap()
    }

    /// Waits until reads are answered.
    pub(crate) async fn wait(&self, client: &Etcd) {
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = client.read_many(&[]).await {
            assert!(Instant::now() < until, "etcd does not serve: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Member {
    pub(crate) fn start(&mut self) {
        #[expect(clippy::disallowed_methods, reason = "the test needs a real server")]
        let mut command = Command::new("etcd");
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports that nobody listens on, held all at once so that they differ.
fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
