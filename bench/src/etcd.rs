//! Servers of etcd, and what they count.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::{Add, Sub};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// A server; it ends with this value, and with the thread that started it.
#[derive(Debug)]
pub struct Etcd {
    process: Child,
    endpoint: String,
    certificates: Option<PathBuf>,
    metrics_port: u16,
}

/// What a server has been asked, and how much it took and gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Requests of clients.
    pub requests: f64,
    /// Bytes from clients, without the connection's own.
    pub received: f64,
    /// Bytes to clients.
    pub sent: f64,
}

impl Etcd {
    /// Starts a server on the loopback; `number` sets its ports. With a folder of certificates it
    /// speaks TLS only, and demands one of its clients.
    pub fn start(data: &Path, number: u16, certificates: Option<PathBuf>) -> Result<Self> {
        let port = FIRST_PORT + number * 10;
        let scheme = if certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", port + 1);
        let metrics_port = port + 2;
        let log = File::create(data.join("log"))?;
        // Parent-death signal: no server outlives a run that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "etcd", "--name", "m0"])
            .arg("--data-dir")
            .arg(data.join("data"))
            .args(["--listen-client-urls", &endpoint])
            .args(["--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("m0={peer}")])
            .arg("--listen-metrics-urls")
            .arg(format!("http://127.0.0.1:{metrics_port}"))
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(folder) = &certificates {
            command.arg("--client-cert-auth");
            for (option, file) in CERTIFICATES {
                command.arg(option).arg(folder.join(file));
            }
        }
        let process = command.spawn().context("setpriv and etcd")?;
        let server = Self {
            process,
            endpoint,
            certificates,
            metrics_port,
        };
        let until = Instant::now() + START_LIMIT;
        while !server
            .page("/health")
            .is_ok_and(|page| page.contains("true"))
        {
            if Instant::now() > until {
                let said = std::fs::read_to_string(data.join("log")).unwrap_or_default();
                bail!("etcd at {} does not serve: {said}", server.endpoint);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The keys of a CNI configuration that lead here.
    pub fn keys(&self) -> Value {
        let mut keys = json!({"datastore_type": "etcdv3", "etcd_endpoints": self.endpoint});
        if let Some(folder) = &self.certificates {
            keys["etcd_ca_cert_file"] = json!(folder.join("ca.pem"));
            keys["etcd_cert_file"] = json!(folder.join("cert.pem"));
            keys["etcd_key_file"] = json!(folder.join("key.pem"));
        }
        keys
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What it has counted since its start.
    pub fn traffic(&self) -> Result<Traffic> {
        let page = self.page("/metrics")?;
        Ok(Traffic {
            requests: sum(&page, "grpc_server_started_total{"),
            received: sum(&page, "etcd_network_client_grpc_received_bytes_total "),
            sent: sum(&page, "etcd_network_client_grpc_sent_bytes_total "),
        })
    }

    fn page(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.metrics_port))?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            requests: self.requests - earlier.requests,
            received: self.received - earlier.received,
            sent: self.sent - earlier.sent,
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            received: self.received + other.received,
            sent: self.sent + other.sent,
        }
    }
}

/// The sum of the samples whose lines begin so.
fn sum(page: &str, beginning: &str) -> f64 {
    page.lines()
        .filter(|line| line.starts_with(beginning))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

const FIRST_PORT: u16 = 23790;
const START_LIMIT: Duration = Duration::from_secs(20);
const CERTIFICATES: [(&str, &str); 3] = [
    ("--trusted-ca-file", "ca.pem"),
    ("--cert-file", "cert.pem"),
    ("--key-file", "key.pem"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_their_labels() {
        let page = "# HELP grpc_server_started_total x\n\
                    grpc_server_started_total{grpc_method=\"Txn\"} 3\n\
                    grpc_server_started_total{grpc_method=\"Range\"} 4\n\
                    etcd_network_client_grpc_sent_bytes_total 1.5e+06\n";
        assert_eq!(sum(page, "grpc_server_started_total{").to_string(), "7");
        let sent = sum(page, "etcd_network_client_grpc_sent_bytes_total ");
        assert_eq!(sent.to_string(), "1500000");
    }
}
