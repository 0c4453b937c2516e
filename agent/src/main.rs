//! The resident of a node: registers it, keeps its routes and endpoints right, reports.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use margay_agent::config::{Config, StartError};
use margay_agent::error::AgentError;
use margay_agent::run;
use margay_telemetry::Log;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
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
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn start(config: Config) -> Result<(), AgentError> {
    let severity = config.local.log_severity.unwrap_or_default();
    let log = Log::start(&severity.to_string(), config.log_format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("margay-agent")
        .enable_all()
        .build()
        .map_err(|source| AgentError::System {
            what: "threads",
            source,
        })?;
    runtime.block_on(async {
        if !config.dry_run {
            return run::run(config, log).await;
        }
        let text = run::dry_run(&config).await?;
        // Nobody reads: nothing is lost.
        let _ = std::io::stdout().write_all(text.as_bytes());
        Ok(())
    })
}

fn failed(error: &dyn Error) -> ExitCode {
    let mut text = format!("margay-agent: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::FAILURE
}

const WORKERS: usize = 2;
