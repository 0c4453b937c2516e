//! What the operator can tell a running agent.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use crate::error::AgentError;

/// Signals as values.
#[derive(Debug)]
pub(crate) struct Signals {
    /// Becomes true at SIGTERM or SIGINT.
    pub(crate) stop: watch::Receiver<bool>,
    /// Raised by SIGUSR1: the store is right as it is.
    pub(crate) accept: watch::Receiver<u64>,
}

/// Listens from now on. SIGHUP is heard and does nothing.
pub(crate) fn listen() -> Result<Signals, AgentError> {
    let mut terminate = open(SignalKind::terminate())?;
    let mut interrupt = open(SignalKind::interrupt())?;
    let mut accepted = open(SignalKind::user_defined1())?;
    let mut hangup = open(SignalKind::hangup())?;
    let (stop, stopped) = watch::channel(false);
    let (accept, accepting) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = accepted.recv() => {
                    info!("SIGUSR1: the datastore is taken as it is");
                    accept.send_modify(|count| *count += 1);
                }
                _ = hangup.recv() => {}
            }
        }
        stop.send_replace(true);
        // Both channels stay open until nobody listens any more.
        stop.closed().await;
    });
    Ok(Signals {
        stop: stopped,
        accept: accepting,
    })
}

fn open(kind: SignalKind) -> Result<Signal, AgentError> {
    signal(kind).map_err(|source: io::Error| AgentError::System {
        what: "a signal handler",
        source,
    })
}
