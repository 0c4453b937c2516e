//! The program `margay-docker`.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use margay_datastore::Datastore;
use margay_docker::config::Config;
use margay_docker::driver::Driver;
use margay_docker::error::chain;
use margay_docker::metrics::Metrics;
use margay_docker::server::Server;
use margay_telemetry::{Listener, Log, Site, metrics, serve};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "margay-docker: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> Result<(), Box<dyn Error>> {
    let _log = Log::start(&config.log_level.to_string(), config.log_format())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(config))
}

async fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let store = Datastore::open(&config.datastore()?)?;
    let node = config.node()?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let mut registry = metrics::registry(env!("CARGO_PKG_VERSION"));
    let measured = Metrics::register(&mut registry);
    if let Some((host, port)) = &config.metrics {
        let listener = Listener::tcp(host, *port).await?;
        let site = Site::new().metrics(registry);
        tokio::spawn(serve(listener, site, std::future::pending()));
    }
    info!(
        node,
        store = store.describe(),
        drivers = ?config.drivers,
        scope = ?config.scope,
        "answering Docker"
    );
    let driver = Arc::new(Driver::new(config, node, store));
    let clean_up = tokio::spawn(Arc::clone(&driver).clean_up());
    Server::new(driver, measured).run(stop).await?;
    clean_up.abort();
    info!("ended");
    Ok(())
}
