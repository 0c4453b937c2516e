//! What a client makes of an API server's answers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use margay_kube::{Access, Client, Error, Secret};

/// A server that gives each request on its only connection the next of these answers, and tells what it
/// was asked.
fn server(answers: Vec<String>) -> (Access, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let access = Access {
        server: format!("http://{}/base/", listener.local_addr().unwrap()),
        token: Some(Secret::new("secret-token\n")),
        ..Access::default()
    };
    let asked = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut asked = Vec::new();
        for answer in answers {
            let head: Vec<String> = lines
                .by_ref()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            asked.push(head.join("\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (access, asked)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

#[test]
fn two_objects_come_over_one_connection() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        f\r\n{\"metadata\":{\"l\r\n15\r\nabels\":{\"team\":\"a\"}}}\r\n0\r\n\r\n";
    let pod = r#"{"metadata":{"generateName":null,"labels":{"app":"web"}},"spec":{"containers":[
        {"name":"c","ports":[{"containerPort":80}]}],"initContainers":null}}"#;
    let (access, asked) = server(vec![chunked.to_owned(), answer("200 OK", pod)]);
    run(async {
        let mut client = Client::new(&access, Duration::from_secs(5)).unwrap();
        let namespace = client.namespace("prod").await.unwrap();
        assert_eq!(namespace.metadata.labels["team"], "a");
        let pod = client.pod("prod", "web/0").await.unwrap();
        assert_eq!(pod.metadata.labels["app"], "web");
        assert_eq!(pod.spec.containers[0].ports[0].container_port, 80);
    });
    let asked = asked.join().unwrap();
    assert!(
        asked[0].starts_with("GET /base/api/v1/namespaces/prod HTTP/1.1\n"),
        "{asked:?}"
    );
    assert!(
        asked[1].starts_with("GET /base/api/v1/namespaces/prod/pods/web%2F0 "),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .all(|head| head.contains("authorization: Bearer secret-token\n")
                || head.ends_with("authorization: Bearer secret-token")),
        "{asked:?}"
    );
}

#[test]
fn every_refusal_names_the_object() {
    let forbidden = r#"{"kind":"Status","message":"nodes \"n1\" is forbidden"}"#;
    for (given, wanted) in [
        (
            answer("403 Forbidden", forbidden),
            "Denied: nodes \"n1\" is forbidden (403 Forbidden)",
        ),
        (answer("401 Unauthorized", "no"), "Denied: 401 Unauthorized"),
        (answer("404 Not Found", "{}"), "Absent: does not exist"),
        (answer("503 Service Unavailable", "{}"), "passing: 503"),
        (answer("400 Bad Request", "{}"), "lasting: 400"),
        (answer("200 OK", "<html>"), "lasting: it cannot be read"),
        ("no HTTP\r\n\r\n".to_owned(), "Unreachable: "),
        (String::new(), "Unreachable: "),
    ] {
        let (access, asked) = server(vec![given]);
        let error = run(async {
            let mut client = Client::new(&access, Duration::from_secs(5)).unwrap();
            client.node("n1").await.unwrap_err()
        });
        let kind = match &error {
            Error::Denied { .. } => "Denied",
            Error::Absent { .. } => "Absent",
            Error::Unreachable { .. } => "Unreachable",
            Error::Answer { passing: true, .. } => "passing",
            Error::Answer { .. } => "lasting",
            Error::Settings { .. } | Error::Deadline { .. } => "other",
        };
        let (kind_wanted, words) = wanted.split_once(": ").unwrap();
        let text = error.to_string();
        assert_eq!(kind, kind_wanted, "{text}");
        assert!(text.contains(words) && text.contains("node n1"), "{text}");
        assert!(!text.contains("secret-token"), "{text}");
        asked.join().unwrap();
    }
}

#[test]
fn a_server_that_is_silent_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let access = Access {
        server: format!("http://{}", listener.local_addr().unwrap()),
        ..Access::default()
    };
    let began = Instant::now();
    let error = run(async {
        let mut client = Client::new(&access, Duration::from_millis(100)).unwrap();
        client.ping().await.unwrap_err()
    });
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}
