//! What Docker's own API tells: names and labels, which its plugin protocol leaves out.
//!
//! Nothing depends on an answer: a call that Docker makes is never kept waiting for one that it may be unable to give
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::debug;

/// A client of Docker's API.
#[derive(Clone, Debug)]
pub struct Docker {
    socket: PathBuf,
}

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Docker's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The ids of its endpoints.
    pub endpoints: BTreeSet<String>,
}

impl Docker {
    /// A client of the daemon that listens there.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A network as `docker network inspect` shows it; `None` where Docker does not know it or does not answer.
    pub async fn network(&self, id: &str) -> Option<Value> {
        self.get(&format!("/networks/{id}")).await
    }

    /// The ids of all networks; `None` where Docker does not answer.
    pub async fn networks(&self) -> Option<BTreeSet<String>> {
        let told = self.get("/networks").await?;
        let ids = told.as_array()?.iter().filter_map(|one| one["Id"].as_str());
        Some(ids.map(str::to_owned).collect())
    }

    /// All containers that run; `None` where Docker does not answer.
    pub async fn containers(&self) -> Option<Vec<Container>> {
        let told = self.get("/containers/json").await?;
        Some(told.as_array()?.iter().map(container).collect())
    }

    async fn get(&self, path: &str) -> Option<Value> {
        match timeout(PATIENCE, self.ask(path)).await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) => {
                debug!(path, error = %error, socket = %self.socket.display(), "Docker's API does not answer");
                None
            }
            Err(_) => {
                debug!(path, "Docker's API does not answer in time");
                None
            }
        }
    }

    async fn ask(
        &self,
        path: &str,
    ) -> Result<Option<Value>, Box<dyn std::error::Error + Send + Sync>> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(hyper::header::HOST, "docker")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let known = response.status() == StatusCode::OK;
        let body = Limited::new(response.into_body(), LARGEST)
            .collect()
            .await?;
        connection.abort();
        if !known {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&body.to_bytes())?))
    }
}

/// An entry of `/containers/json`.
fn container(told: &Value) -> Container {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let networks = told["NetworkSettings"]["Networks"].as_object();
    let labels = told["Labels"].as_object().into_iter().flatten();
    Container {
        id: text(&told["Id"]),
        name: text(&told["Names"][0]).trim_start_matches('/').to_owned(),
        labels: labels
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        endpoints: networks
            .into_iter()
            .flatten()
            .map(|(_, network)| text(&network["EndpointID"]))
            .filter(|id| !id.is_empty())
            .collect(),
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer: a thousand containers need a few million.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_is_read_as_docker_lists_it() {
        let told = json!({"Id": "c1", "Names": ["/workload-a"], "Labels": {"role": "web"},
            "NetworkSettings": {"Networks": {"net1": {"EndpointID": "e1"}, "net2": {"EndpointID": ""}}}});
        let read = container(&told);
        assert_eq!((&*read.id, &*read.name), ("c1", "workload-a"));
        assert_eq!(read.endpoints.iter().collect::<Vec<_>>(), ["e1"]);
        assert_eq!(read.labels["role"], "web");
        assert_eq!(container(&json!({})), Container::default());
    }
}
