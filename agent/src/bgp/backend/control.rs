//! A conversation with a BIRD on its control socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use margay_bird::{Replies, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A conversation. One question at a time.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    replies: Replies,
    /// Whether a question has no answer yet: who asked has gone, and what comes next is not for others.
    asked: bool,
}

impl Control {
    /// Begins one.
    pub(super) async fn open(path: &Path) -> io::Result<Self> {
        let stream = timeout(PATIENCE, UnixStream::connect(path)).await??;
        let mut control = Self {
            stream,
            replies: Replies::default(),
            asked: true,
        };
        // The greeting is a reply to nobody.
        timeout(PATIENCE, control.hear()).await??;
        control.asked = false;
        Ok(control)
    }

    /// Whether it is of use for another question.
    pub(super) fn is_free(&self) -> bool {
        !self.asked
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&mut self, words: &str) -> io::Result<Reply> {
        self.asked = true;
        let answer = async {
            let line = format!("{words}\n");
            self.stream.write_all(line.as_bytes()).await?;
            self.hear().await
        };
        let reply = timeout(PATIENCE, answer).await??;
        self.asked = false;
        Ok(reply)
    }

    async fn hear(&mut self) -> io::Result<Reply> {
        let mut octets = [0; 16 * 1024];
        loop {
            let count = self.stream.read(&mut octets).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let replies = self.replies.push(octets.get(..count).unwrap_or_default());
            let mut replies = replies.map_err(io::Error::other)?;
            if let Some(reply) = replies.pop() {
                return Ok(reply);
            }
        }
    }
}

/// How long BIRD may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
