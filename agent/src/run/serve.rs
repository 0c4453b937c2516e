//! The agent's servers: a socket for `margayctl`, and health and metrics over TCP where they are wanted.

use std::sync::Arc;

use margay_telemetry::prometheus_client::registry::Registry;
use margay_telemetry::{Health, Listener, Reply, Site, serve};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::config::Config;
use crate::error::AgentError;
use crate::report::Status;

/// Starts them; they end when `stop` becomes true.
pub(super) async fn start(
    config: &Config,
    health: Health,
    registry: Arc<Registry>,
    status: watch::Receiver<Status>,
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
        own_site(health.clone(), Arc::clone(&registry), status),
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

/// Everything there is to be asked.
fn own_site(health: Health, registry: Arc<Registry>, status: watch::Receiver<Status>) -> Site {
    let board = health.clone();
    Site::new()
        .health(health)
        .metrics(registry)
        .routes(move |path, _| {
            (path == "/status").then(|| {
                let mut status = status.borrow().clone();
                status.ready = board.readiness().ok;
                Reply::from(json!(status))
            })
        })
}
