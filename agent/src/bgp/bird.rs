//! The control sockets of BIRD, for programs that ask a node's BIRD for its peers, such as
//! `calicoctl node status`: `bird.ctl` for IPv4 and `bird6.ctl` for IPv6.
//!
//! Commands are lines. `show protocols` and `show status` are answered in BIRD's form, with its reply
//! codes; anything else is a syntax error.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_bgp::State;
use margay_model::Family;
use margay_model::time::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::view::{BgpStatus, PeerView};
use crate::identity;

/// Answers on both sockets below `directory` until `stop` changes, and removes them.
///
/// A socket on which somebody answers already, a real BIRD, is left alone.
pub async fn serve(
    directory: PathBuf,
    status: watch::Receiver<BgpStatus>,
    mut stop: watch::Receiver<bool>,
) {
    let one = |family, name: &str| {
        let (path, status) = (directory.join(name), status.clone());
        async move { listen(&path, family, &status).await }
    };
    tokio::select! {
        () = one(Family::V4, "bird.ctl") => {}
        () = one(Family::V6, "bird6.ctl") => {}
        _ = stop.changed() => {}
    }
}

async fn listen(path: &Path, family: Family, status: &watch::Receiver<BgpStatus>) {
    let listener = match bind(path).await {
        Ok(listener) => listener,
        Err(error) => {
            let path = path.display();
            warn!(%error, "{path} is not answered; calicoctl node status shows no peers there");
            return std::future::pending().await;
        }
    };
    info!(path = %path.display(), "peers are told in BIRD's form");
    let _removed = Removed(path.to_owned());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let status = status.clone();
        tokio::spawn(async move {
            // A client that says nothing is not waited for.
            let _ = timeout(PATIENCE, converse(stream, family, &status)).await;
        });
    }
}

async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program, BIRD perhaps, answers there",
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

async fn converse(
    stream: UnixStream,
    family: Family,
    status: &watch::Receiver<BgpStatus>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    write.write_all(GREETING.as_bytes()).await?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let told = status.borrow().clone();
        let text = answer(&line, &told, family, identity::now());
        write.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

/// What BIRD would say to a command.
fn answer(line: &str, status: &BgpStatus, family: Family, now: Timestamp) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["show", "protocols"] => protocols(status, family, now),
        ["show", "status"] => daemon(status, now),
        _ => "9001 syntax error\n".to_owned(),
    }
}

fn protocols(status: &BgpStatus, family: Family, now: Timestamp) -> String {
    let mut text = String::from("2002-name     proto    table    state  since       info\n");
    for (number, peer) in status.of(family).enumerate() {
        // Only the first row bears the code; the others go on.
        let code = if number == 0 { "1002-" } else { " " };
        let state = match peer.state {
            State::Established => "up",
            _ => "start",
        };
        let since = since(peer, now);
        let error = match (&peer.state, &peer.last_error) {
            (State::Established, _) | (_, None) => "",
            (_, Some(error)) => error.as_str(),
        };
        let _ = writeln!(
            text,
            "{code}{:<8} BGP      master   {state:<6} {since:<11} {:<13} {error}",
            peer.name,
            format!("{:?}", peer.state),
        );
    }
    text.push_str("0000 \n");
    text
}

fn daemon(status: &BgpStatus, now: Timestamp) -> String {
    let router = status.router_id.as_deref().unwrap_or("0.0.0.0");
    format!(
        "1000-BIRD as margay-agent {}\n1011-Router ID is {router}\n Current server time is {}\n\
         0013 Daemon is up and running\n",
        env!("CARGO_PKG_VERSION"),
        date_and_time(now).replace('T', " ")
    )
}

/// The time of today, or the date of an earlier day.
fn since(peer: &PeerView, now: Timestamp) -> String {
    let (then, now) = (date_and_time(peer.since_time), date_and_time(now));
    match (then.split_once('T'), now.split_once('T')) {
        (Some((day, time)), Some((today, _))) if day == today => time.to_owned(),
        (Some((day, _)), _) => day.to_owned(),
        (None, _) => then,
    }
}

fn date_and_time(time: Timestamp) -> String {
    time.rfc3339().trim_end_matches('Z').to_owned()
}

/// Removes a socket's file at the end.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

const GREETING: &str = concat!(
    "0001 BIRD as margay-agent ",
    env!("CARGO_PKG_VERSION"),
    " ready.\n"
);
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bgp::view::tests::peer;

    fn status() -> BgpStatus {
        let mut down = peer("Node_10_0_0_3", State::Active);
        down.last_error = Some("TCP: no route to host".to_owned());
        down.since_time.seconds -= 200_000;
        let mut six = peer("Mesh_fd00__2", State::Idle);
        six.address = "fd00::2".parse().unwrap();
        BgpStatus {
            router_id: Some("10.0.0.1".to_owned()),
            peers: vec![peer("Mesh_10_0_0_2", State::Established), down, six],
            ..BgpStatus::default()
        }
    }

    const NOW: Timestamp = crate::bgp::view::tests::NOW;

    #[test]
    fn peers_are_told_as_bird_tells_them() {
        assert_eq!(
            answer("show protocols", &status(), Family::V4, NOW),
            "2002-name     proto    table    state  since       info\n\
             1002-Mesh_10_0_0_2 BGP      master   up     08:25:00    Established   \n \
             Node_10_0_0_3 BGP      master   start  2026-11-21  Active        TCP: no route to host\n\
             0000 \n"
        );
        let six = answer("show protocols", &status(), Family::V6, NOW);
        assert!(six.contains("1002-Mesh_fd00__2 BGP"), "{six}");
        let none = answer("show  protocols", &BgpStatus::default(), Family::V6, NOW);
        assert_eq!(none.lines().count(), 2);
        assert_eq!(
            answer("down", &status(), Family::V4, NOW),
            "9001 syntax error\n"
        );
        let daemon = answer("show status", &status(), Family::V4, NOW);
        assert!(daemon.contains("1011-Router ID is 10.0.0.1"), "{daemon}");
    }

    #[tokio::test]
    async fn the_sockets_answer_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let (_told, shown) = watch::channel(status());
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(directory.path().to_owned(), shown, stopped));
        let path = directory.path().join("bird.ctl");
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&path).await {
                break stream;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let (read, mut write) = stream.into_split();
        write.write_all(b"show protocols\n").await.unwrap();
        let mut lines = BufReader::new(read).lines();
        let mut told = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            let end = line.starts_with("0000");
            told.push(line);
            if end {
                break;
            }
        }
        assert!(told[0].starts_with("0001 BIRD ") && told[0].ends_with(" ready."));
        assert_eq!(told.len(), 5, "{told:?}");
        stop.send(true).unwrap();
        server.await.unwrap();
        assert!(!path.exists());
    }
}
