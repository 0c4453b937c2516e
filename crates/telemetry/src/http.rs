//! One small HTTP/1.1 server for metrics, health and a program's own read-only routes.
//!
//! It answers `GET` and `HEAD`, one request a connection, each within [`DEADLINE`] and at most
//! [`CONNECTIONS`] at a time, so that no client can hold the program up or fill its descriptors.

mod listener;
mod site;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

pub use listener::Listener;
pub use site::{Pending, Reply, Site};

/// Answers on `listener` until `stop` resolves, then lets open requests finish and returns.
///
/// Dropping the returned future closes the listener and every connection at once.
pub async fn serve(listener: Listener, site: Site, stop: impl Future<Output = ()>) {
    let site = Arc::new(site);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = next(&listener, &slots) => accepted,
        };
        let (stream, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%listener, %error, "no connection could be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (site, stopped) = (Arc::clone(&site), stopped.clone());
        connections.spawn(async move {
            let _slot = slot;
            if timeout(DEADLINE, answer(stream, site, stopped))
                .await
                .is_err()
            {
                debug!("closed a connection that took too long");
            }
        });
    }
    drop(listener);
    drop(stopping);
    while connections.join_next().await.is_some() {}
}

/// Waits for a free slot first: clients beyond the bound wait in the kernel's queue.
async fn next(
    listener: &Listener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(Box<dyn Stream>, Option<tokio::sync::OwnedSemaphorePermit>)> {
    // The semaphore is never closed, so a permit always comes.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    Ok((listener.accept().await?, slot))
}

/// Serves one connection; once the program stops, only a request that has begun.
async fn answer(stream: Box<dyn Stream>, site: Arc<Site>, mut stopped: watch::Receiver<()>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let site = Arc::clone(&site);
        async move { Ok::<_, Infallible>(site.answer(request.method(), request.uri()).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!(%error, "a client broke off");
    }
}

/// A connection of either kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connections served at a time.
const CONNECTIONS: usize = 64;
/// From accepting a connection to its end.
const DEADLINE: Duration = Duration::from_secs(10);
/// Before trying again to accept, when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of request line and headers that are read; the least that hyper allows.
const MAX_HEAD: usize = 8192;
