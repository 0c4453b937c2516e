//! The server as its clients see it, on a loopback port and on a unix socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use margay_telemetry::{Error, Health, Listener, Reply, Site, metrics, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// A folder of this test alone, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("margay-telemetry-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sends one request and reads to the end: status line, headers, body.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> (u16, String) {
    let head = format!("{request} HTTP/1.1\r\nHost: test\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_tcp_client_reads_metrics_and_health() {
    let health = Health::new();
    let routes = health.register("routes", Duration::MAX);
    let gone = health.register("syncer", Duration::ZERO);
    let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
    let address = listener.address().unwrap();
    let site = Site::new()
        .health(health)
        .metrics(metrics::registry("9.9.9"));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, site, async { drop(stopped.await) }));
    let connect = || async { TcpStream::connect(address).await.unwrap() };

    let (status, answer) = ask(connect().await, "GET /metrics").await;
    assert_eq!(status, 200);
    assert!(
        answer.contains("content-type: application/openmetrics-text"),
        "{answer}"
    );
    assert!(
        answer.contains("margay_build_info{version=\"9.9.9\"} 1"),
        "{answer}"
    );

    tokio::time::sleep(Duration::from_millis(5)).await;
    let (status, answer) = ask(connect().await, "GET /liveness").await;
    assert_eq!(status, 503);
    let report = body(&answer);
    assert_eq!(report["ok"], false);
    assert_eq!(
        report["checks"][0],
        json!({"name": "routes", "ok": true, "reason": "reports in time"})
    );
    assert_eq!(report["checks"][1]["name"], "syncer");
    assert!(
        report["checks"][1]["reason"]
            .as_str()
            .unwrap()
            .contains("silent"),
        "{answer}"
    );

    gone.retire();
    routes.ready(false, "waiting for the store");
    let (status, answer) = ask(connect().await, "GET /readiness").await;
    assert_eq!(status, 503);
    assert_eq!(
        body(&answer)["checks"][0]["reason"],
        "waiting for the store"
    );

    routes.ready(true, "as desired");
    let (status, answer) = ask(connect().await, "HEAD /readiness").await;
    assert_eq!(status, 200);
    assert!(answer.ends_with("\r\n\r\n"), "HEAD has no body: {answer}");

    stop.send(()).unwrap();
    timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap();
    assert!(
        TcpStream::connect(address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_unix_client_reads_the_programs_own_routes() {
    let scratch = Scratch::new();
    let path = scratch.0.join("agent.sock");
    let listener = Listener::unix(&path).await.unwrap();
    assert_eq!(listener.address(), None);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let site = Site::new()
        .routes(|path, query| (path == "/routes").then(|| Reply::from(json!({ "family": query }))));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, site, async { drop(stopped.await) }));

    let client = UnixStream::connect(&path).await.unwrap();
    let (status, answer) = ask(client, "GET /routes?4").await;
    assert_eq!((status, body(&answer)), (200, json!({ "family": "4" })));
    let client = UnixStream::connect(&path).await.unwrap();
    let (status, answer) = ask(client, "GET /nothing").await;
    assert_eq!(status, 404);
    assert!(answer.contains("/nothing"), "{answer}");

    assert!(matches!(
        Listener::unix(&path).await,
        Err(Error::SocketInUse { .. })
    ));
    stop.send(()).unwrap();
    timeout(Duration::from_secs(5), server)
        .await
        .unwrap()
        .unwrap();

    assert!(UnixStream::connect(&path).await.is_err());
    let again = Listener::unix(&path).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(&scratch.0).unwrap().collect();
    assert_eq!(files.len(), 1, "only the socket itself lies there");
    drop(again);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.0.join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = Listener::unix(&path).await.unwrap_err();
    assert!(error.to_string().contains("precious"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Listener::tcp("127.0.0.1", 0).await.unwrap();
    let port = first.address().unwrap().port();
    let error = Listener::tcp("127.0.0.1", port).await.unwrap_err();
    assert!(
        error.to_string().contains(&format!("127.0.0.1:{port}")),
        "{error}"
    );
}

/// Silent clients fill every slot; the next one waits, and is served when they give up.
#[tokio::test]
async fn connections_are_bounded_and_stopping_closes_idle_ones() {
    let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
    let address = listener.address().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let site = Site::new().health(Health::new());
    let server = tokio::spawn(serve(listener, site, async { drop(stopped.await) }));

    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let waiting = TcpStream::connect(address).await.unwrap();
    let waiting = tokio::spawn(async move { ask(waiting, "GET /liveness").await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished(), "65 connections are one too many");
    silent.pop();
    let (status, _) = timeout(Duration::from_secs(5), waiting)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status, 200);

    stop.send(()).unwrap();
    timeout(Duration::from_secs(5), server)
        .await
        .expect("idle clients do not delay the end")
        .unwrap();
}

#[tokio::test]
async fn rubbish_gets_no_panic_and_the_server_lives_on() {
    let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
    let address = listener.address().unwrap();
    let site = Site::new().health(Health::new());
    let server = tokio::spawn(serve(listener, site, std::future::pending()));
    for rubbish in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"GET\r\n\r\n",
        &[b'a'; 20_000],
    ] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let _ = client.write_all(rubbish).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(5), client.read_to_end(&mut answer))
            .await
            .unwrap();
    }
    let client = TcpStream::connect(address).await.unwrap();
    let (status, _) = ask(client, "GET /liveness").await;
    assert_eq!(status, 200);
    server.abort();
}
