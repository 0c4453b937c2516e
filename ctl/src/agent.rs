//! Asks the node's agent over its socket.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// What an agent says of its node. Fields that are missing are empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The machine it runs on.
    pub machine: String,
    /// Whether what the store asks for is in the kernel.
    pub ready: bool,
    /// The node's blocks, and those it borrows from.
    pub blocks: Vec<Block>,
    /// The routes it has set.
    pub routes: Vec<Route>,
    /// Its workloads' endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Why endpoints of dead containers are not given back, where that is held.
    pub cleanup_held: Option<String>,
    /// Why what nodes that are gone held is not given back, where that is held.
    pub gone_held: Option<String>,
}

/// A block with addresses of the node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Block {
    /// Its prefix.
    pub cidr: String,
    /// The node it belongs to, if any.
    pub owner: Option<String>,
    /// How many of its addresses the owner uses.
    pub local: u64,
    /// How many of them other nodes use.
    pub borrowed: u64,
}

/// A route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Prefix that is routed.
    pub destination: String,
    /// Next hop, where there is one.
    pub via: Option<IpAddr>,
    /// Interface, where there is one.
    pub interface: Option<String>,
    /// The kernel's name of who set it.
    pub protocol: String,
    /// What the agent learned it from.
    pub source: String,
}

/// A workload's endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Its interface on the node.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// `up`, `down` or `error`.
    pub state: String,
}

/// The status of the agent that listens on `socket`.
///
/// # Errors
/// Nobody listens, or the answer is late or no status.
pub async fn status(socket: &Path) -> Result<Status> {
    let name = || format!("the agent at {}", socket.display());
    let body = tokio::time::timeout(DEADLINE, fetch(socket))
        .await
        .with_context(|| format!("{} did not answer within {DEADLINE:?}", name()))?
        .with_context(name)?;
    serde_json::from_slice(&body).with_context(name)
}

async fn fetch(socket: &Path) -> Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get("/status")
        .header("host", "agent")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await;
        if !status.is_success() {
            bail!("it answered {status}");
        }
        body.map(|body| body.to_bytes())
            .map_err(|error| anyhow::anyhow!(error))
    };
    tokio::pin!(exchange);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => {
            ended?;
            exchange.await
        }
    }
}

const DEADLINE: Duration = Duration::from_secs(5);
const MOST_BYTES: usize = 64 << 20;
