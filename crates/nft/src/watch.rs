//! Notifications: that somebody else has changed our table, coarse.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use margay_netlink::Namespace;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::runtime;

use crate::protocol::{
    NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, NFPROTO_INET, NFT_MSG_DELTABLE, NFT_MSG_NEWGEN,
    NFTA_TABLE_NAME,
};
use margay_netlink::netfilter::wire;
use margay_netlink::netfilter::{Error, Result};

/// What somebody else has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Our table has been deleted: nothing is protected.
    Deleted,
    /// Something in our table has been changed.
    Changed,
    /// Notifications were lost: observe the table anew.
    Resync,
}

/// A stream of what others do to our table.
///
/// The kernel tells of every transaction of the namespace, whoever made it. When the buffer is full
/// it says so once and drops what follows; then the stream empties the buffer and tells
/// [`Event::Resync`].
#[derive(Debug)]
pub struct Watch {
    socket: SocketDebug,
    table: String,
    own: Vec<u32>,
    buffer: Vec<u8>,
    /// What the transaction being told has done so far.
    seen: Option<Event>,
    pending: Option<Event>,
    lossy: bool,
}

impl Watch {
    /// Subscribes to the changes of a table of family `inet`, except those made through the
    /// sockets of these numbers ([`crate::Nft::port`]).
    ///
    /// # Errors
    /// [`Error::Socket`], or that the namespace cannot be entered.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(namespace: &Namespace, table: &str, own: &[u32]) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let subscribe = || {
            let _entered = runtime.enter();
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            let inner = socket.socket_mut();
            setsockopt(inner, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            inner.bind(&SocketAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
            Ok(socket)
        };
        let socket = namespace
            .run(subscribe)?
            .map_err(|source: io::Error| Error::Socket { source })?;
        Ok(Self {
            socket: SocketDebug(socket),
            table: table.to_owned(),
            own: own.to_owned(),
            buffer: Vec::with_capacity(DATAGRAM),
            seen: None,
            pending: None,
            lossy: false,
        })
    }

    fn decode(&mut self) {
        for message in wire::messages(&self.buffer) {
            if message.kind >> 8 != NFNL_SUBSYS_NFTABLES {
                continue;
            }
            let kind = message.kind & 0xff;
            // The last notification of a transaction.
            if kind == NFT_MSG_NEWGEN {
                if let Some(seen) = self.seen.take() {
                    self.pending = Some(match self.pending {
                        Some(Event::Deleted) => Event::Deleted,
                        _ => seen,
                    });
                }
                continue;
            }
            // The table's name is the first attribute of every kind of object.
            let ours = message.family() == Some(NFPROTO_INET)
                && message.attributes().text(NFTA_TABLE_NAME).as_deref() == Some(&*self.table);
            if ours && !self.own.contains(&message.port) {
                self.seen = Some(if kind == NFT_MSG_DELTABLE {
                    Event::Deleted
                } else {
                    self.seen.unwrap_or(Event::Changed)
                });
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.buffer.clear();
            match this.socket.0.poll_recv_from(cx, &mut this.buffer) {
                Poll::Ready(Ok(_)) if this.lossy => {}
                Poll::Ready(Ok(_)) => this.decode(),
                Poll::Ready(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    this.lossy = true;
                }
                Poll::Ready(Err(source)) => {
                    return Poll::Ready(Some(Err(Error::Socket { source })));
                }
                Poll::Pending if this.lossy => {
                    this.lossy = false;
                    this.seen = None;
                    this.pending = None;
                    return Poll::Ready(Some(Ok(Event::Resync)));
                }
                // What follows at once is one event.
                Poll::Pending => {
                    return match this.pending.take() {
                        Some(event) => Poll::Ready(Some(Ok(event))),
                        None => Poll::Pending,
                    };
                }
            }
            if this.pending == Some(Event::Deleted) {
                this.pending = None;
                return Poll::Ready(Some(Ok(Event::Deleted)));
            }
        }
    }
}

/// The socket has no `Debug` of its own.
struct SocketDebug(TokioSocket);

impl std::fmt::Debug for SocketDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokioSocket")
    }
}

const RECEIVE_BUFFER: usize = 16 << 20;
/// The kernel's largest datagram.
const DATAGRAM: usize = 64 << 10;
