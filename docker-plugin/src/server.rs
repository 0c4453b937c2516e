//! The sockets on which Docker calls.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use margay_telemetry::{Listener, Stream};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::config::{IPAM_SUFFIX, Scope};
use crate::driver::Driver;
use crate::error::{DriverError, Result};
use crate::metrics::Metrics;

/// One of a driver's two roles, each with a socket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `NetworkDriver`.
    Network,
    /// `IpamDriver`.
    Ipam,
}

/// A driver and how it is measured.
#[derive(Clone, Debug)]
pub struct Server {
    driver: Arc<Driver>,
    metrics: Metrics,
}

impl Server {
    /// A server for a driver.
    pub fn new(driver: Arc<Driver>, metrics: Metrics) -> Self {
        Self { driver, metrics }
    }

    /// Answers on all sockets until `stop` resolves, then lets calls that have begun finish.
    ///
    /// # Errors
    /// A socket cannot be made.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<(), margay_telemetry::Error> {
        let (stopping, stopped) = watch::channel(());
        let mut sockets = JoinSet::new();
        let mut paths = Vec::new();
        for driver in &self.driver.config.drivers {
            for (suffix, role) in [("", Role::Network), (IPAM_SUFFIX, Role::Ipam)] {
                let path = self
                    .driver
                    .config
                    .plugin_dir
                    .join(format!("{driver}{suffix}.sock"));
                let listener = Listener::unix(&path).await?;
                paths.push(path);
                sockets.spawn(self.clone().serve(listener, role, stopped.clone()));
            }
        }
        drop(stopped);
        stop.await;
        remove(&paths);
        drop(stopping);
        while sockets.join_next().await.is_some() {}
        Ok(())
    }

    async fn serve(self, listener: Listener, role: Role, mut stopped: watch::Receiver<()>) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                _ = stopped.changed() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    let connection = self.clone().connection(stream, role, stopped.clone());
                    connections.spawn(connection);
                }
                Err(error) => {
                    warn!(%listener, %error, "no connection could be accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(
        self,
        stream: Box<dyn Stream>,
        role: Role,
        mut stopped: watch::Receiver<()>,
    ) {
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request, role).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Docker keeps a connection for its next call, however long that takes.
            .header_read_timeout(None)
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
            debug!(%error, "a connection broke off");
        }
    }

    /// Docker takes any status but 200 for an error, and shows what stands in `Err`.
    async fn answer(&self, request: Request<Incoming>, role: Role) -> Response<Full<Bytes>> {
        let begun = Instant::now();
        let call = request.uri().path().trim_start_matches('/').to_owned();
        let answered = match body(request).await {
            Ok(body) => self.call(&call, role, &body).await,
            Err(error) => Err(error),
        };
        let took = begun.elapsed();
        let (status, body) = match answered {
            Ok(body) => (StatusCode::OK, body),
            Err(error) => (status_of(&error), json!({"Err": error.to_string()})),
        };
        // Others' words are no labels.
        if !matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST) {
            let label = [("call", call.clone())];
            let calls = self.metrics.calls.get_or_create(&label);
            calls.observe(took.as_secs_f64());
            if status != StatusCode::OK {
                self.metrics.failures.get_or_create(&label).inc();
            }
        }
        match status {
            StatusCode::OK => debug!(call, ?took, "answered"),
            _ => warn!(call, error = body["Err"].as_str(), "refused"),
        }
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }

    async fn call(&self, call: &str, role: Role, body: &[u8]) -> Result<Value> {
        let driver = &self.driver;
        match (role, call) {
            (Role::Network, "Plugin.Activate") => Ok(json!({"Implements": ["NetworkDriver"]})),
            (Role::Ipam, "Plugin.Activate") => Ok(json!({"Implements": ["IpamDriver"]})),
            (Role::Ipam, _) => self.ipam_call(call, body).await,
            (Role::Network, "NetworkDriver.GetCapabilities") => {
                let scope = match driver.config.scope {
                    Scope::Local => "local",
                    Scope::Global => "global",
                };
                Ok(json!({"Scope": scope, "ConnectivityScope": "", "GwAllocChecker": true}))
            }
            (Role::Network, "NetworkDriver.GwAllocCheck") => {
                Ok(json!({"SkipIPv4": true, "SkipIPv6": true}))
            }
            (Role::Network, "NetworkDriver.CreateNetwork") => {
                let call: crate::protocol::CreateNetwork = read(body)?;
                driver.create_network(&call).await?;
                tokio::spawn(Arc::clone(driver).introduce(call.network_id));
                Ok(json!({}))
            }
            (Role::Network, "NetworkDriver.DeleteNetwork") => {
                driver.delete_network(&read(body)?).await.map(nothing)
            }
            (Role::Network, "NetworkDriver.CreateEndpoint") => {
                driver.create_endpoint(&read(body)?).await
            }
            (Role::Network, "NetworkDriver.DeleteEndpoint") => {
                driver.delete_endpoint(&read(body)?).await.map(nothing)
            }
            (Role::Network, "NetworkDriver.EndpointOperInfo") => driver.endpoint_info(&read(body)?),
            (Role::Network, "NetworkDriver.Join") => {
                let answer = driver.join(&read(body)?).await?;
                serde_json::to_value(answer)
                    .map_err(|error| DriverError::Malformed(error.to_string()))
            }
            (Role::Network, "NetworkDriver.Leave") => driver.leave(&read(body)?).await.map(nothing),
            (Role::Network, "NetworkDriver.ProgramExternalConnectivity") => {
                driver.publish(&read(body)?).await.map(nothing)
            }
            (Role::Network, "NetworkDriver.RevokeExternalConnectivity") => {
                driver.revoke(&read(body)?).await.map(nothing)
            }
            // Swarm's preparation of a network, and what other hosts tell: nothing follows from either.
            (
                Role::Network,
                "NetworkDriver.AllocateNetwork"
                | "NetworkDriver.FreeNetwork"
                | "NetworkDriver.DiscoverNew"
                | "NetworkDriver.DiscoverDelete",
            ) => read::<Value>(body).map(|_| json!({})),
            _ => Err(DriverError::UnknownCall(call.to_owned())),
        }
    }

    async fn ipam_call(&self, call: &str, body: &[u8]) -> Result<Value> {
        let driver = &self.driver;
        match call {
            "IpamDriver.GetCapabilities" => Ok(json!({})),
            "IpamDriver.GetDefaultAddressSpaces" => Ok(driver.address_spaces()),
            "IpamDriver.RequestPool" => {
                let answer = driver.request_pool(&read(body)?).await?;
                serde_json::to_value(answer)
                    .map_err(|error| DriverError::Malformed(error.to_string()))
            }
            "IpamDriver.ReleasePool" => driver.release_pool(&read(body)?).map(nothing),
            "IpamDriver.RequestAddress" => driver.request_address(&read(body)?).await,
            "IpamDriver.ReleaseAddress" => driver.release_address(&read(body)?).await.map(nothing),
            _ => Err(DriverError::UnknownCall(call.to_owned())),
        }
    }
}

fn nothing(_: ()) -> Value {
    json!({})
}

async fn body(request: Request<Incoming>) -> Result<Bytes> {
    if request.method() != Method::POST {
        let method = request.method();
        return Err(DriverError::Malformed(format!("method {method}, not POST")));
    }
    let body = Limited::new(request.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| DriverError::Malformed(format!("body: {error}")))?;
    Ok(body.to_bytes())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| DriverError::Malformed(error.to_string()))
}

fn status_of(error: &DriverError) -> StatusCode {
    match error {
        DriverError::UnknownCall(_) => StatusCode::NOT_FOUND,
        DriverError::Malformed(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Docker must not be led to sockets on which nobody answers.
fn remove(paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = std::fs::remove_file(path) {
            debug!(path = %path.display(), %error, "the socket stays");
        }
    }
}

/// Bytes of a request; Docker's are a few hundred.
const LARGEST: usize = 1 << 20;
const PAUSE: Duration = Duration::from_millis(100);
