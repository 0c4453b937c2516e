//! `margay-agent install` and `uninstall`, and the same done by the agent itself.

mod keep;
mod prepare;
mod service_account;
mod settings;

use std::io::Write;
use std::time::Instant;

use clap::{ArgMatches, Command};
use margay_install::{Removed, uninstall};
use margay_telemetry::{Format, Log};
use tracing::info;

use crate::config::{ConfigError, Setting};
use crate::error::AgentError;
use crate::run::signals;

pub(crate) use keep::keep;
pub use settings::{INSTALL_SETTINGS, Settings};

use keep::Installation;

/// The sub-commands.
pub(crate) fn commands() -> [Command; 2] {
    settings::commands()
}

/// Settings of a sub-command, from its flags and the environment.
///
/// # Errors
/// Names setting, value and remedy.
pub(crate) fn settings(matches: &ArgMatches) -> Result<Settings, ConfigError> {
    let flag = |setting: &Setting| {
        let flag = setting.flag?;
        let given = matches.try_get_one::<String>(flag).ok().flatten().cloned();
        given.map(|value| (format!("--{flag}"), value))
    };
    Settings::resolve(flag)
}

/// Puts everything in place, and keeps it there where that is asked.
///
/// # Errors
/// What cannot be put in place, or an agent that does not become ready in time.
pub async fn run(settings: Settings) -> Result<(), AgentError> {
    Log::start(&settings.severity.to_string(), Format::Text)?;
    if settings.watch {
        let signals = signals::listen()?;
        let socket = settings.socket.clone();
        let wait = settings.wait;
        let ready = move || match wait.is_zero() {
            true => Ok(()),
            false => keep::ask(&socket),
        };
        return keep(settings, ready, None, signals.stop).await;
    }
    let mut installation = Installation::new(settings.clone())?;
    let until = Instant::now() + settings.wait;
    loop {
        let socket = settings.socket.clone();
        let ready = move || match settings.wait.is_zero() {
            true => Ok(()),
            false => keep::ask(&socket),
        };
        let Some(reason) = installation.pass(ready).await? else {
            info!("everything is in place");
            return Ok(());
        };
        if Instant::now() >= until {
            return Err(AgentError::NotReady {
                reason,
                wait: settings.wait,
            });
        }
        tokio::time::sleep(keep::POLL).await;
    }
}

/// Takes away what was installed.
///
/// # Errors
/// What cannot be removed.
pub fn remove(settings: &Settings) -> Result<(), AgentError> {
    let Removed { removed, changed } = uninstall(&settings.record)?;
    let mut text = String::new();
    for path in &removed {
        text.push_str(&format!("removed {}\n", path.display()));
    }
    for path in &changed {
        text.push_str(&format!(
            "kept {}: it holds something else than was installed\n",
            path.display()
        ));
    }
    if text.is_empty() {
        text = format!(
            "{} names nothing that was installed\n",
            settings.record.display()
        );
    }
    // Nobody reads: nothing is lost.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}
