//! Keeps an installation in place: what is deleted or overwritten comes back.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use margay_install::{Done, Keeper, Watch, apply};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use super::prepare;
use super::service_account::Tokens;
use super::settings::Settings;
use crate::error::AgentError;
use crate::metrics::Metrics;

/// Keeps everything in place until `stop` becomes true. What cannot be put in place is told and tried again.
///
/// # Errors
/// The kernel does not tell of changes.
pub(crate) async fn keep(
    settings: Settings,
    ready: impl Fn() -> Result<(), String> + Clone + Send + 'static,
    metrics: Option<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), AgentError> {
    let refused = |source| AgentError::System {
        what: "a watch on the folders of plugins and configurations",
        source,
    };
    let watch = Watch::new().map_err(refused)?;
    // Readable when there is something to be read, as a pipe is.
    let changes = watch
        .descriptor()
        .and_then(Receiver::from_owned_fd_unchecked);
    let changes = changes.map_err(refused)?;
    let mut brake = Brake::new(Instant::now());
    let mut installation = None;
    loop {
        let done = pass(&mut installation, &settings, ready.clone()).await;
        let pause = match &done {
            Ok(None) => PERIOD,
            Ok(Some(_)) => POLL,
            Err(failed) => {
                error!(error = %crate::error::whole(failed), "plugins and configuration cannot be put in place; trying again");
                RETRY
            }
        };
        if let Some(metrics) = &metrics {
            metrics
                .cni_installed
                .set(i64::from(matches!(done, Ok(None))));
            let changed = installation.as_ref().map_or(0, |it| it.changed);
            metrics
                .cni_files_placed
                .inc_by(changed - metrics.cni_files_placed.get());
        }
        for folder in prepare::folders(&settings) {
            watch.add(&folder).map_err(refused)?;
        }
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                _ = stop.changed() => return Ok(()),
                () = sleep_until(until) => {
                    brake.release(Instant::now());
                    break;
                }
                noticed = changes.readable() => {
                    noticed.map_err(refused)?;
                    if !drain(&changes).map_err(refused)? {
                        continue;
                    }
                    let changed = installation.as_ref().map_or(0, |it| it.changed);
                    let delay = brake.delay(changed, Instant::now());
                    tokio::select! {
                        _ = stop.changed() => return Ok(()),
                        () = sleep(delay) => {}
                    }
                    drain(&changes).map_err(refused)?;
                    break;
                }
            }
        }
    }
}

/// Takes what has been noticed; whether that was anything. What it was does not matter: everything is looked at.
fn drain(changes: &Receiver) -> io::Result<bool> {
    let mut noticed = false;
    let mut events = [0; 4096];
    loop {
        match changes.try_read(&mut events) {
            Ok(_) => noticed = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(noticed),
            Err(error) => return Err(error),
        }
    }
}

async fn pass(
    installation: &mut Option<Installation>,
    settings: &Settings,
    ready: impl Fn() -> Result<(), String> + Send + 'static,
) -> Result<Option<String>, AgentError> {
    let installation = match installation {
        Some(installation) => installation,
        None => installation.insert(Installation::new(settings.clone())?),
    };
    installation.pass(ready).await
}

/// One installation, with the right to keep it.
#[derive(Debug)]
pub(super) struct Installation {
    settings: Settings,
    tokens: Tokens,
    /// Number of files that were placed, corrected or removed.
    changed: u64,
    /// What people were told last.
    told: Done,
    _keeper: Keeper,
}

impl Installation {
    /// Takes the right to keep it.
    ///
    /// # Errors
    /// Another process has it.
    pub(super) fn new(settings: Settings) -> Result<Self, AgentError> {
        Ok(Self {
            _keeper: Keeper::take(&settings.record)?,
            tokens: Tokens::default(),
            changed: 0,
            told: Done::default(),
            settings,
        })
    }

    /// Puts in place what is not. Returns why the configuration is not there yet.
    ///
    /// # Errors
    /// What cannot be prepared or put in place.
    pub(super) async fn pass(
        &mut self,
        ready: impl Fn() -> Result<(), String> + Send + 'static,
    ) -> Result<Option<String>, AgentError> {
        let token = self.token().await?;
        let wanted = prepare::wanted(&self.settings, token.as_deref())?;
        let done = spawn_blocking(move || apply(&wanted, &ready)).await;
        let done = done.map_err(|_| AgentError::Ended {
            part: "installation",
        })??;
        self.tell(&done);
        let waiting = done.waiting.clone();
        self.told = done;
        Ok(waiting)
    }

    /// The plugins' token, where a kubeconfig is written. An old one does while no new one can be had.
    async fn token(&mut self) -> Result<Option<String>, AgentError> {
        if !self.settings.kubernetes.writes_kubeconfig() {
            return Ok(None);
        }
        match self.tokens.current(&self.settings.kubernetes).await {
            Ok(token) => Ok(Some(token)),
            Err(failed) if prepare::kubeconfig(&self.settings).exists() => {
                warn!(error = %crate::error::whole(&failed), "no new token for the plugins; the kubeconfig stays as it is");
                Ok(None)
            }
            Err(failed) => Err(failed),
        }
    }

    fn tell(&mut self, done: &Done) {
        for path in &done.changed {
            self.changed += 1;
            info!(path = %path.display(), "put in place");
        }
        if let Some(reason) = &done.waiting
            && self.told.waiting.is_none()
        {
            info!(reason, "the CNI configuration waits for the agent");
        }
        if !done.before.is_empty() && done.before != self.told.before {
            warn!(
                configurations = done.before.join(", "),
                "other CNI configurations sort before this one, and runtimes may use them in its place; remove \
                 them, or give this one a name that sorts first"
            );
        }
        if !done.missing.is_empty() && done.missing != self.told.missing {
            warn!(
                programs = done.missing.join(", "),
                "the CNI configuration names programs that are not in the folder of plugins; install them"
            );
        }
        if !done.privileged.is_empty() && done.privileged != self.told.privileged {
            let paths: Vec<String> = done
                .privileged
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            warn!(
                programs = paths.join(", "),
                "whoever starts these has root's rights (CVE-2024-33522); remove them, or take the bit away with \
                 chmod ug-s"
            );
        }
    }
}

/// Slows down where somebody else changes the same files again and again.
#[derive(Debug)]
struct Brake {
    delay: Duration,
    changed: u64,
    since: Instant,
}

impl Brake {
    fn new(now: Instant) -> Self {
        Self {
            delay: FIRST_DELAY,
            changed: 0,
            since: now,
        }
    }

    /// How long to wait before the next pass, when so many files have been changed by now.
    fn delay(&mut self, changed: u64, now: Instant) -> Duration {
        if changed != self.changed {
            self.changed = changed;
            self.since = now;
            self.delay = (self.delay * 2).min(LONGEST_DELAY);
            if self.delay == LONGEST_DELAY {
                warn!(
                    "somebody else keeps changing the files of this installation; find out who, and stop one of the two"
                );
            }
        }
        self.delay
    }

    /// Notes that nobody changed anything for a while.
    fn release(&mut self, now: Instant) {
        if now.duration_since(self.since) >= PERIOD {
            self.delay = FIRST_DELAY;
        }
    }
}

/// Asks an agent by its socket whether it is ready.
///
/// # Errors
/// Why it is not, or cannot be asked.
pub(super) fn ask(socket: &Path) -> Result<(), String> {
    let asked = UnixStream::connect(socket).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(
            b"GET /readiness HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )?;
        let mut answer = String::new();
        stream.take(MOST).read_to_string(&mut answer)?;
        Ok(answer)
    });
    match asked {
        Ok(answer) if answer.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(answer) => {
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().trim();
            Err(format!(
                "the agent at {} is not ready: {body}",
                socket.display()
            ))
        }
        Err(error) => Err(format!(
            "the agent does not answer at {}: {error}",
            socket.display()
        )),
    }
}

/// How often everything is looked at although nothing is known to have changed.
const PERIOD: Duration = Duration::from_secs(60);
/// How often the agent is asked whether it is ready.
pub(super) const POLL: Duration = Duration::from_millis(250);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);
/// How long the agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of its answer that are read.
const MOST: u64 = 64 << 10;
/// Between a change by somebody else and the next pass; twice as long each time that there was something to do.
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_changes_files_again_and_again_is_met_ever_slower() {
        let start = Instant::now();
        let mut brake = Brake::new(start);
        assert_eq!(brake.delay(0, start), FIRST_DELAY);
        let delays: Vec<Duration> = (1..15).map(|changed| brake.delay(changed, start)).collect();
        assert!(delays.is_sorted() && delays[0] == FIRST_DELAY * 2);
        assert_eq!(delays[13], LONGEST_DELAY);
        brake.release(start + PERIOD / 2);
        assert_eq!(brake.delay(14, start), LONGEST_DELAY);
        brake.release(start + PERIOD);
        assert_eq!(brake.delay(14, start), FIRST_DELAY);
    }

    #[test]
    fn an_agent_that_is_not_there_is_told() {
        let error = ask(Path::new("/nowhere/agent.sock")).unwrap_err();
        assert!(error.contains("/nowhere/agent.sock"), "{error}");
    }
}
