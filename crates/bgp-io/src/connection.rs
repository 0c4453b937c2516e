//! A connection: its reading task, and what waits to be written.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::ConnectionId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// What tasks tell the shell.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Somebody connected.
    Accepted(TcpStream),
    /// Somebody connected too often, and is refused for a while.
    Throttled(IpAddr),
    /// A connection we asked for is there.
    Connected(ConnectionId, TcpStream),
    /// Octets came.
    Octets(ConnectionId, Box<[u8]>),
    /// The socket takes octets again.
    Writable(ConnectionId),
    /// The connection is closed, or was not made.
    Closed(ConnectionId, String),
}

/// A connection of the speaker.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The socket; `None` while it connects.
    stream: Option<Arc<TcpStream>>,
    task: JoinHandle<()>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
}

/// How far writing got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All is written.
    Done,
    /// The socket takes no more; the shell will be told when it does.
    Blocked,
    /// The connection is broken; the reading task will tell.
    Broken,
}

impl Connection {
    /// A connection that a task is making.
    pub(crate) fn connecting(task: JoinHandle<()>) -> Self {
        Self {
            stream: None,
            task,
            unsent: Vec::new(),
        }
    }

    /// A connection that is there; it is read from now on.
    pub(crate) fn open(id: ConnectionId, stream: TcpStream, to: mpsc::Sender<Incoming>) -> Self {
        let stream = Arc::new(stream);
        let task = tokio::spawn(read(id, Arc::clone(&stream), to));
        Self {
            stream: Some(stream),
            task,
            unsent: Vec::new(),
        }
    }

    /// Whether the socket has not taken all yet.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Writes octets; not while it is blocked.
    pub(crate) fn write(
        &mut self,
        id: ConnectionId,
        octets: &[u8],
        to: &mpsc::Sender<Incoming>,
    ) -> Progress {
        let Some(stream) = &self.stream else {
            return Progress::Broken;
        };
        match write_some(stream, octets) {
            Ok(written) if written == octets.len() => Progress::Done,
            Ok(written) => {
                self.unsent = octets.get(written..).unwrap_or_default().to_vec();
                tokio::spawn(await_room(id, Arc::clone(stream), to.clone()));
                Progress::Blocked
            }
            Err(_) => Progress::Broken,
        }
    }

    /// Goes on writing what the socket did not take.
    pub(crate) fn resume(&mut self, id: ConnectionId, to: &mpsc::Sender<Incoming>) -> Progress {
        let unsent = std::mem::take(&mut self.unsent);
        self.write(id, &unsent, to)
    }

    /// Writes a last word as far as the socket takes it, and closes. The returned task ends when
    /// the peer has closed too, or soon.
    pub(crate) fn close(mut self, last: &[u8]) -> Option<JoinHandle<()>> {
        self.task.abort();
        let stream = self.stream.take()?;
        if last.is_empty() {
            return None;
        }
        let mut rest = std::mem::take(&mut self.unsent);
        rest.extend_from_slice(last);
        write_some(&stream, &rest).ok()?;
        socket2::SockRef::from(&*stream)
            .shutdown(Shutdown::Write)
            .ok()?;
        // A socket closed with octets unread resets the connection, and the last word is lost.
        Some(tokio::spawn(async move {
            let _ = timeout(LINGER, drain(&stream)).await;
        }))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(id: ConnectionId, stream: Arc<TcpStream>, to: mpsc::Sender<Incoming>) {
    let why = loop {
        if let Err(error) = stream.readable().await {
            break error.to_string();
        }
        // The buffer lives on the stack for the length of the call only.
        let read = {
            let mut buffer = [0; READ_MAX];
            stream.try_read(&mut buffer).map(|size| {
                buffer
                    .get(..size)
                    .unwrap_or_default()
                    .to_vec()
                    .into_boxed_slice()
            })
        };
        match read {
            Ok(octets) if octets.is_empty() => break "closed by the peer".to_owned(),
            Ok(octets) => {
                if to.send(Incoming::Octets(id, octets)).await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break error.to_string(),
        }
    };
    let _ = to.send(Incoming::Closed(id, why)).await;
}

async fn await_room(id: ConnectionId, stream: Arc<TcpStream>, to: mpsc::Sender<Incoming>) {
    if stream.writable().await.is_ok() {
        let _ = to.send(Incoming::Writable(id)).await;
    }
}

async fn drain(stream: &TcpStream) {
    let mut buffer = [0; 1024];
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Writes until the socket takes no more; returns how much it took.
fn write_some(stream: &TcpStream, octets: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = octets.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.try_write(rest) {
            Ok(size) => written += size,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

const READ_MAX: usize = 16 * 1024;
const LINGER: Duration = Duration::from_secs(1);
