//! The agent's servers: a socket for `margayctl`, and health and metrics over TCP where they are wanted.

use std::sync::Arc;

use margay_telemetry::prometheus_client::registry::Registry;
use margay_telemetry::{Health, Listener, Reply, Site, serve};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::info;

use crate::bgp::task::{About, Question};
use crate::bgp::view::BgpStatus;
use crate::config::Config;
use crate::error::AgentError;
use crate::report::Status;

/// Starts them; they end when `stop` becomes true.
pub(super) async fn start(
    config: &Config,
    health: Health,
    registry: Arc<Registry>,
    shown: Shown,
    tasks: &mut JoinSet<Result<&'static str, AgentError>>,
    stop: &watch::Receiver<bool>,
) -> Result<(), AgentError> {
    let path = &config.socket;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|source| AgentError::File {
            path: parent.to_owned(),
            source,
        })?;
    }
    let mut sites = vec![(
        Listener::unix(path).await?,
        own_site(health.clone(), Arc::clone(&registry), shown),
        "socket",
    )];
    if let Some((host, port)) = &config.health {
        let listener = Listener::tcp(host, *port).await?;
        sites.push((
            listener,
            Site::new().health(health.clone()),
            "health server",
        ));
    }
    if let Some((host, port)) = &config.metrics {
        let listener = Listener::tcp(host, *port).await?;
        sites.push((listener, Site::new().metrics(registry), "metrics server"));
    }
    for (listener, site, part) in sites {
        info!(%listener, "the {part} answers");
        let mut stop = stop.clone();
        tasks.spawn(async move {
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            serve(listener, site, stopped).await;
            Ok(part)
        });
    }
    Ok(())
}

/// What is shown on the socket.
pub(super) struct Shown {
    /// The state of the node.
    pub(super) status: watch::Receiver<Status>,
    /// The state of BGP.
    pub(super) bgp: watch::Receiver<BgpStatus>,
    /// Where questions about BGP's table are asked.
    pub(super) ask: mpsc::Sender<Question>,
}

/// Everything there is to be asked.
fn own_site(health: Health, registry: Arc<Registry>, shown: Shown) -> Site {
    let board = health.clone();
    let Shown { status, bgp, ask } = shown;
    Site::new()
        .health(health)
        .metrics(registry)
        .questions(move |path, _| {
            let about = About::from_path(path)?;
            let ask = ask.clone();
            Some(Box::pin(async move { question(&ask, about).await }))
        })
        .routes(move |path, _| match path {
            "/status" => {
                let mut status = status.borrow().clone();
                status.ready = board.readiness().ok;
                status.bgp.clone_from(&bgp.borrow());
                Some(Reply::from(json!(status)))
            }
            "/bgp/peers" => Some(Reply::from(json!(*bgp.borrow()))),
            _ => None,
        })
}

async fn question(ask: &mpsc::Sender<Question>, about: About) -> Reply {
    let (answer, answered) = oneshot::channel();
    // Where nobody takes the question the answer never comes, and that is seen below.
    let _ = ask.send(Question { about, answer }).await;
    match answered.await {
        Ok((status, body)) => Reply { status, body },
        Err(_) => Reply {
            status: 503,
            body: json!({ "error": "BGP does not answer; try again" }),
        },
    }
}
