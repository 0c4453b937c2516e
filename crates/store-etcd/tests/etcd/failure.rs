//! Members that die, swallow requests or lose answers.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use margay_model::{Key, Prefix};
use margay_store::{Batch, Outcome, Store, StoreError, Write};
use margay_store_etcd::{Etcd, Options};

use crate::server::Cluster;

fn key(number: usize) -> Key {
    Key::Handle(format!("h{number}"))
}

fn create(number: usize) -> Batch {
    Batch::of([Write::create(key(number), number.to_string().into_bytes())])
}

#[tokio::test]
async fn calls_go_on_when_a_member_dies() {
    let mut cluster = Cluster::start(3).await;
    let store = cluster.client();
    let start = store.read_many(&[]).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::Handles, start).await.unwrap();
    for number in 0..3 {
        let done = store.commit(&create(number)).await;
        assert!(matches!(done, Ok(Outcome::Committed(_))), "{done:?}");
    }
    // The client has stayed with the first endpoint so far.
    cluster.members[0].kill();
    for number in 3..8 {
        let done = store.commit(&create(number)).await;
        assert!(matches!(done, Ok(Outcome::Committed(_))), "{done:?}");
    }
    assert_eq!(store.list(&Prefix::Handles).await.unwrap().entries.len(), 8);
    // A watch of the dead member ends; another one resumes from what was seen.
    let (mut seen, mut last) = (0, start);
    while seen < 8 {
        match tokio::time::timeout(PATIENCE, watch.next()).await.unwrap() {
            Some(Ok(changes)) => {
                seen += changes.changes.len();
                last = changes.revision;
            }
            Some(Err(error)) => {
                assert!(error.is_transient(), "{error:?}");
                watch = store.watch(&Prefix::Handles, last).await.unwrap();
            }
            None => panic!("the watch ended without a word"),
        }
    }
    cluster.members[1].kill();
    let quick = Etcd::new(Options {
        deadline: Duration::from_millis(1500),
        ..cluster.options()
    });
    let start = Instant::now();
    let error = quick.commit(&create(9)).await.unwrap_err();
    assert!(error.is_transient(), "without a majority: {error:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    cluster.members[1].start();
    cluster.wait(&store).await;
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}");
    let store = Etcd::new(Options {
        endpoints: vec![url.clone()],
        tls: Default::default(),
        user: Some(("somebody".to_owned(), "pass-phrase".to_owned())),
        deadline: Duration::from_secs(20),
    });
    let start = Instant::now();
    for error in [
        store.get(&key(1)).await.unwrap_err(),
        store.commit(&create(1)).await.unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(&url), "{error}");
        assert!(!format!("{error:?} {store:?}").contains("pass-phrase"));
    }
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_endpoint_that_swallows_costs_its_share_only() {
    let cluster = Cluster::start(1).await;
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoints = vec![format!("http://{}", hole.local_addr().unwrap())];
    endpoints.extend(cluster.endpoints());
    let store = Etcd::new(Options {
        endpoints,
        deadline: Duration::from_secs(4),
        ..cluster.options()
    });
    let start = Instant::now();
    // The first commit may have been applied for all the client knows, and is read back.
    let done = store.commit(&create(1)).await;
    assert!(matches!(done, Ok(Outcome::Committed(_))), "{done:?}");
    assert!(start.elapsed() < Duration::from_secs(4));
    let start = Instant::now();
    assert!(store.get(&key(1)).await.unwrap().is_some());
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "the good endpoint is kept"
    );
}

#[tokio::test]
async fn all_endpoints_swallowing_end_at_the_deadline() {
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = Etcd::new(Options {
        endpoints: vec![format!("http://{}", hole.local_addr().unwrap())],
        tls: Default::default(),
        user: None,
        deadline: Duration::from_millis(800),
    });
    let start = Instant::now();
    let error = store.get(&key(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Deadline { .. }), "{error:?}");
    let error = store.commit(&create(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unknown { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn two_clusters_are_two_stores() {
    let (one, other) = (Cluster::start(1).await, Cluster::start(1).await);
    let seen = |cluster: &Cluster| {
        let client = cluster.client();
        async move { client.read_many(&[]).await.unwrap() }
    };
    let (before, foreign, again) = (seen(&one).await, seen(&other).await, seen(&one).await);
    assert_ne!(before.store, foreign.store);
    assert_eq!(before.store, again.store);
    assert_ne!(before.store, margay_store::StoreId::default());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_applied() {
    let cluster = Cluster::start(1).await;
    let proxy = Proxy::start(
        cluster.endpoints()[0]
            .trim_start_matches("http://")
            .to_owned(),
    );
    let direct = cluster.client();
    let through_proxy = Options {
        endpoints: vec![
            format!("http://{}", proxy.address),
            cluster.endpoints()[0].clone(),
        ],
        deadline: Duration::from_secs(6),
        ..cluster.options()
    };
    let store = Etcd::new(through_proxy.clone());
    let first = match store.commit(&create(1)).await.unwrap() {
        Outcome::Committed(revision) => revision,
        other => panic!("{other:?}"),
    };
    proxy.lose_answers.store(true, Ordering::SeqCst);
    let update = Batch::of([
        Write::update(key(1), b"mine".to_vec(), first),
        Write::create(key(2), b"also mine".to_vec()),
    ]);
    let outcome = store.commit(&update).await.unwrap();
    let entry = direct.get(&key(1)).await.unwrap().unwrap();
    assert_eq!(entry.value, b"mine");
    assert_eq!(outcome, Outcome::Committed(entry.revision));
    let revision = direct.list(&Prefix::Handles).await.unwrap().revision;
    assert_eq!(revision, entry.revision, "it was applied once");

    // Creations and deletions, which no earlier revision tells about.
    for (batch, kept) in [
        (
            Batch::of([
                Write::create(key(3), b"3".to_vec()),
                Write::put(key(4), b"4".to_vec()),
            ]),
            4,
        ),
        (
            Batch::of([Write::delete_any(key(3)), Write::delete_any(key(4))]),
            2,
        ),
    ] {
        proxy.lose_answers.store(false, Ordering::SeqCst);
        let store = Etcd::new(through_proxy.clone());
        let before = store.list(&Prefix::Handles).await.unwrap().revision;
        proxy.lose_answers.store(true, Ordering::SeqCst);
        let outcome = store.commit(&batch).await.unwrap();
        let after = direct.list(&Prefix::Handles).await.unwrap();
        assert_eq!(after.entries.len(), kept);
        assert_eq!(after.revision.0, before.0 + 1, "it was applied once");
        assert_eq!(outcome, Outcome::Committed(after.revision));
    }
}

#[tokio::test]
async fn a_stale_commit_that_is_swallowed_is_a_conflict() {
    let cluster = Cluster::start(1).await;
    let direct = cluster.client();
    let put = |value: &[u8]| Batch::of([Write::put(key(1), value.to_vec())]);
    let Outcome::Committed(stale) = direct.commit(&put(b"first")).await.unwrap() else {
        panic!("a put has no conditions");
    };
    direct.commit(&put(b"theirs")).await.unwrap();
    direct.commit(&put(b"theirs again")).await.unwrap();
    let newest = direct.get(&key(1)).await.unwrap();
    let hole = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoints = vec![format!("http://{}", hole.local_addr().unwrap())];
    endpoints.extend(cluster.endpoints());
    let options = Options {
        endpoints,
        deadline: Duration::from_secs(4),
        ..cluster.options()
    };
    let mine = Batch::of([Write::update(key(1), b"mine".to_vec(), stale)]);
    let outcome = Etcd::new(options.clone()).commit(&mine).await.unwrap();
    assert_eq!(outcome, Outcome::Conflict(vec![newest]));

    direct
        .commit(&Batch::of([Write::delete_any(key(1))]))
        .await
        .unwrap();
    let outcome = Etcd::new(options.clone()).commit(&mine).await.unwrap();
    assert_eq!(
        outcome,
        Outcome::Conflict(vec![None]),
        "history is read behind a deletion too"
    );

    // Nobody can tell any more whether the second value was this client's.
    let mut raw = cluster.raw().await;
    let now = direct.read_many(&[]).await.unwrap().revision;
    raw.compact(now.0, None).await.unwrap();
    let unclear = Etcd::new(options).commit(&mine).await;
    assert!(
        matches!(unclear, Err(StoreError::Unknown { .. })),
        "{unclear:?}"
    );
}

#[tokio::test]
async fn compaction_during_a_watch_is_survived_or_told() {
    let cluster = Cluster::start(1).await;
    let store = cluster.client();
    let start = store.read_many(&[]).await.unwrap().revision;
    let mut watch = store.watch(&Prefix::Handles, start).await.unwrap();
    let mut raw = cluster.raw().await;
    let mut last = start;
    for number in 0..200 {
        if let Outcome::Committed(revision) = store.commit(&create(number)).await.unwrap() {
            last = revision;
        }
        if number % 50 == 49 {
            raw.compact(last.0, None).await.unwrap();
        }
    }
    // The watch ran beside the compactions; it has either everything, in order, or says what it lost.
    let mut expected = 0;
    while expected < 200 {
        match tokio::time::timeout(PATIENCE, watch.next()).await.unwrap() {
            Some(Ok(changes)) => {
                for change in changes.changes {
                    assert_eq!(*change.key(), key(expected));
                    expected += 1;
                }
            }
            Some(Err(StoreError::Compacted { .. })) => return,
            other => panic!("{other:?}"),
        }
    }
    let mut late = store.watch(&Prefix::Handles, start).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, late.next()).await.unwrap();
    let Some(Err(StoreError::Compacted { asked, oldest })) = told else {
        panic!("{told:?}");
    };
    assert_eq!((asked, oldest), (start, last));
}

/// Passes bytes on, and can keep the answers to itself.
struct Proxy {
    address: std::net::SocketAddr,
    lose_answers: Arc<AtomicBool>,
}

impl Proxy {
    fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let lose_answers = Arc::new(AtomicBool::new(false));
        let lose = Arc::clone(&lose_answers);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(&target).unwrap();
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pump(from, to, None));
                let lose = Arc::clone(&lose);
                std::thread::spawn(move || pump(server, client, Some(lose)));
            }
        });
        Self {
            address,
            lose_answers,
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, lose: Option<Arc<AtomicBool>>) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if lose
            .as_ref()
            .is_some_and(|lose| lose.load(Ordering::SeqCst))
        {
            continue;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    to.shutdown(Shutdown::Both).ok();
}

const PATIENCE: Duration = Duration::from_secs(30);
