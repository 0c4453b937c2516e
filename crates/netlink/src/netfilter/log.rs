//! Packets that rules log (`nfnetlink_log`), as a stream of one group.

pub mod message;

use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::runtime;

use self::message::Packet;
use crate::netfilter::connection::refusal;
use crate::netfilter::error::{Error, Result};
use crate::netfilter::wire::{self, Encoder, NLMSG_ERROR};
use crate::{Namespace, RequestError};

/// A listener to one group of logged packets.
///
/// The kernel gathers packets for a moment and sends them together. What nobody reads in time it drops, and counts
/// on: the numbers of the packets that come tell how many are missing.
pub struct PacketLog {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// The number of the last packet.
    last: Option<u32>,
}

/// What a reading brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// The packets, in order.
    pub packets: Vec<Packet>,
    /// Packets that were logged before them and are missing.
    pub lost: u64,
}

impl PacketLog {
    /// Listens to a group inside a namespace.
    ///
    /// # Errors
    /// [`Error::Socket`], that the namespace cannot be entered, or [`Error::Request`]: the kernel refuses, with
    /// `EBUSY` or `EPERM` where another program listens to that group.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn open(namespace: &Namespace, group: u16) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let connect = || {
            let _entered = runtime.enter();
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            let inner = socket.socket_mut();
            setsockopt(inner, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            inner.bind_auto()?;
            Ok(socket)
        };
        let socket = namespace
            .run_or_here(connect)?
            .map_err(|source: io::Error| Error::Socket { source })?;
        let mut log = Self {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
            last: None,
        };
        let what = || format!("listening to group {group} of nfnetlink_log");
        let mut request = Encoder::default();
        message::bind(&mut request, BINDING, group);
        let kernel = SocketAddr::new(0, 0);
        let sent = log.socket.send_to(request.as_bytes(), &kernel);
        sent.await.map_err(|source| Error::Send {
            what: what(),
            bytes: request.len(),
            source,
        })?;
        let answered = tokio::time::timeout(PATIENCE, log.bound()).await;
        let outcome = answered.unwrap_or(Err(RequestError::NoAnswer));
        outcome.map_err(|source| Error::Request {
            what: what(),
            source,
        })?;
        Ok(log)
    }

    /// Waits for packets.
    ///
    /// # Errors
    /// [`Error::Socket`]: nothing can be read any more.
    pub async fn read(&mut self) -> Result<Read> {
        loop {
            match self.receive().await {
                Ok(()) => {}
                // What did not fit is missing among the numbers.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => continue,
                Err(source) => return Err(Error::Socket { source }),
            }
            let mut read = Read::default();
            for message in wire::messages(&self.buffer) {
                let Some(found) = message::decode(message) else {
                    continue;
                };
                if let Some(number) = found.number {
                    let missing = self
                        .last
                        .map_or(0, |last| number.wrapping_sub(last).wrapping_sub(1));
                    self.last = Some(number);
                    read.lost += u64::from(missing);
                }
                read.packets.extend(found.packet);
            }
            if read != Read::default() {
                return Ok(read);
            }
        }
    }

    /// Waits for the kernel's word about the binding.
    async fn bound(&mut self) -> Result<(), RequestError> {
        loop {
            self.receive().await.map_err(|_| RequestError::NoAnswer)?;
            let verdict = wire::messages(&self.buffer)
                .find(|message| message.kind == NLMSG_ERROR && message.sequence == BINDING)
                .map(|message| refusal(&message));
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.buffer.clear();
        self.socket.recv_from(&mut self.buffer).await.map(drop)
    }
}

impl std::fmt::Debug for PacketLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketLog")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

/// The sequence number of the only request.
const BINDING: u32 = 1;
/// What the kernel may keep for a reader that is busy elsewhere, in bytes.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel's largest datagram.
const DATAGRAM: usize = 64 << 10;
/// The kernel answers before the request has been sent.
const PATIENCE: Duration = Duration::from_secs(10);
