//! The resident of a node: registers it, keeps its routes and endpoints right, reports.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use margay_agent::config::{Config, Start, StartError};
use margay_agent::error::{AgentError, whole};
use margay_agent::{install, run};
use margay_telemetry::Log;
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    let started = match Start::from_process() {
        Ok(Start::Agent(config)) => start(*config),
        Ok(Start::Install(settings)) => runtime(Builder::new_current_thread())
            .and_then(|it| it.block_on(install::run(*settings))),
        Ok(Start::Uninstall(settings)) => install::remove(&settings),
        Err(StartError::Arguments(error)) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
        Err(error @ StartError::Value(_)) => return failed(&error),
    };
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn start(config: Config) -> Result<(), AgentError> {
    let severity = config.local.log_severity.unwrap_or_default();
    let log = Log::start(&severity.to_string(), config.log_format)?;
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).thread_name("margay-agent");
    runtime(builder)?.block_on(async {
        if !config.dry_run {
            return run::run(config, log).await;
        }
        let text = run::dry_run(&config).await?;
        // Nobody reads: nothing is lost.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    })
}

fn runtime(mut builder: Builder) -> Result<Runtime, AgentError> {
    let built = builder.enable_all().build();
    built.map_err(|source| AgentError::System {
        what: "threads",
        source,
    })
}

fn failed(error: &dyn Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "margay-agent: {}", whole(error));
    ExitCode::FAILURE
}

const WORKERS: usize = 2;
