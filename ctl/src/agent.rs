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
    /// Why the policy in force is not that of the datastore, if it is not.
    pub policy_refused: Option<String>,
    /// Why policy does not follow the datastore for now, where that is held back.
    pub policy_held: Option<String>,
    /// What is wrong with the objects that policy is made of.
    pub policy_problems: Vec<String>,
    /// Rules of other programs that can drop workloads' packets.
    pub other_rules: Vec<String>,
    /// Its BGP.
    pub bgp: Bgp,
}

/// What an agent says of its BGP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Bgp {
    /// The node's AS number; none where it has no speaker.
    pub as_number: Option<u32>,
    /// Where connections are awaited.
    pub listening: Vec<String>,
    /// The peers.
    pub peers: Vec<Peer>,
    /// Objects that make no sense.
    pub problems: Vec<Problem>,
}

/// A peer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// What it comes from, in Calico's words.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The session's state.
    pub state: String,
    /// Since when.
    pub since: String,
    /// Why the last session or attempt ended.
    pub last_error: Option<String>,
    /// Its AS, once known.
    pub as_number: Option<u32>,
    /// Prefixes received from it.
    pub received: u64,
    /// Of those, taken.
    pub accepted: u64,
    /// Prefixes announced to it.
    pub advertised: u64,
}

/// Something of an object that makes no sense.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The object.
    pub object: String,
    /// What is wrong.
    pub reason: String,
}

/// A route of BGP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: String,
    /// The next hop.
    pub next_hop: String,
    /// From whom it is; empty where that is clear.
    pub from: String,
    /// The AS numbers of its path.
    pub as_path: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// Communities of every kind.
    pub communities: Vec<String>,
    /// Whether it is used, and why, or why not.
    pub note: String,
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
    let body = ask(socket, "/status").await?;
    serde_json::from_slice(&body).with_context(|| name(socket))
}

/// The body of the agent's answer to a path.
///
/// # Errors
/// Nobody listens, the answer is late, or it is a refusal.
pub async fn ask(socket: &Path, path: &str) -> Result<Bytes> {
    tokio::time::timeout(DEADLINE, fetch(socket, path))
        .await
        .with_context(|| format!("{} did not answer within {DEADLINE:?}", name(socket)))?
        .with_context(|| name(socket))
}

fn name(socket: &Path) -> String {
    format!("the agent at {}", socket.display())
}

async fn fetch(socket: &Path, path: &str) -> Result<Bytes> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path)
        .header("host", "agent")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MOST_BYTES)
            .collect()
            .await;
        let body = body
            .map(|body| body.to_bytes())
            .map_err(|error| anyhow::anyhow!(error))?;
        if !status.is_success() {
            let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            match told["error"].as_str() {
                Some(reason) => bail!("{reason}"),
                None => bail!("it answered {status}"),
            }
        }
        Ok(body)
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
