//! Logging, metrics and health for the resident programs.
//!
//! The three answer different people. The log tells an operator what changed and why; the metrics
//! tell a monitoring system how much and how long; the health endpoints tell a supervisor whether
//! to wait or to restart. This crate decides nothing about any of them: programs say what they do,
//! and it carries the word to standard error and over HTTP.
//!
//! It never writes log files (the supervisor of the process owns standard error), never listens
//! unless asked, and never starts a thread.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use margay_telemetry::{Format, Health, Listener, Log, Site, metrics, serve};
//!
//! # async fn run() -> Result<(), margay_telemetry::Error> {
//! let log = Log::start("Info", Format::Text)?;
//! let health = Health::new();
//! let routes = health.register("routes", Duration::from_secs(90));
//! let registry = metrics::registry("0.1.0");
//!
//! let listener = Listener::tcp("localhost", 9099).await?;
//! let site = Site::new().health(health).metrics(registry);
//! let server = tokio::spawn(serve(listener, site, std::future::pending()));
//!
//! routes.ready(true, "all routes are as desired");
//! log.set_severity("Debug");
//! # server.abort();
//! # Ok(())
//! # }
//! ```

mod error;
mod health;
mod http;
mod log;
pub mod metrics;

pub use error::Error;
pub use health::{Check, Health, HealthBoard, HealthReport, Reporter, ReporterId};
pub use http::{Listener, Pending, Reply, Site, Stream, serve};
pub use log::{Format, Log, Severity};
/// The metrics library, re-exported so that every program registers with the version that encodes.
pub use prometheus_client;
