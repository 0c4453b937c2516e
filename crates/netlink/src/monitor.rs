//! Notifications of changes, coarse: what to look at again, not what it now is.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteAttribute;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tokio::runtime;

use crate::error::{Error, Result};
use crate::link;
use crate::namespace::Namespace;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An interface appeared or changed.
    LinkChanged {
        /// Its index.
        index: u32,
        /// Its name.
        name: String,
        /// Whether it is administratively up.
        up: bool,
    },
    /// An interface is gone.
    LinkRemoved {
        /// The index that it had.
        index: u32,
        /// The name that it had.
        name: String,
    },
    /// An interface's addresses changed.
    AddressChanged {
        /// The interface's index.
        index: u32,
    },
    /// A route changed.
    RouteChanged {
        /// Its table.
        table: u32,
        /// Its protocol number: the agent need not look at the echo of its own changes.
        protocol: u8,
    },
    /// A neighbour entry changed.
    NeighbourChanged {
        /// The interface's index.
        index: u32,
    },
    /// Events were lost: read everything again.
    Resync,
}

/// A stream of events of one namespace.
///
/// Notifications wait in the kernel's buffer until the stream is polled. When that is full the
/// kernel says so once (`ENOBUFS`) and then drops every further one in silence until the buffer
/// has been emptied. So the stream empties it first, and tells [`Event::Resync`] after that:
/// whatever changes later is told again.
#[derive(Debug)]
pub struct Monitor {
    socket: SocketDebug,
    buffer: Vec<u8>,
    pending: VecDeque<Event>,
    /// Events were lost, and the kernel's buffer is not empty yet.
    lossy: bool,
}

impl Monitor {
    /// Subscribes to interfaces, addresses, routes and neighbours of both families.
    ///
    /// # Errors
    /// [`Error::Socket`], or that the namespace cannot be entered.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        Self::with_buffer(namespace, RECEIVE_BUFFER)
    }

    /// As [`Monitor::open`], with a receive buffer of `bytes`, which the kernel may cap.
    ///
    /// # Errors
    /// As [`Monitor::open`].
    ///
    /// # Panics
    /// As [`Monitor::open`].
    pub fn with_buffer(namespace: &Namespace, bytes: usize) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let subscribe = || {
            let _entered = runtime.enter();
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let mask = GROUPS.iter().fold(0, |mask, group| mask | 1 << (group - 1));
            let inner = socket.socket_mut();
            inner.set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX))?;
            inner.bind(&SocketAddr::new(0, mask))?;
            Ok(socket)
        };
        let socket = namespace
            .run_or_here(subscribe)?
            .map_err(|source: io::Error| Error::Socket { source })?;
        Ok(Self {
            socket: SocketDebug(socket),
            buffer: Vec::with_capacity(DATAGRAM),
            pending: VecDeque::new(),
            lossy: false,
        })
    }

    fn decode(&mut self) {
        let mut rest = self.buffer.as_slice();
        while let Ok(header) = NetlinkBuffer::new_checked(rest) {
            // Messages are aligned to four bytes.
            let length = usize::try_from(header.length()).unwrap_or(rest.len());
            if let Some(event) = decode(&rest[..length.min(rest.len())]) {
                // One change often brings several notifications in a row.
                if self.pending.back() != Some(&event) {
                    self.pending.push_back(event);
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

impl Stream for Monitor {
    type Item = Result<Event>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.pending.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
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
                    return Poll::Ready(Some(Ok(Event::Resync)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Event> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
    let NetlinkPayload::InnerMessage(inner) = message.payload else {
        return None;
    };
    match inner {
        RouteNetlinkMessage::NewLink(message) => {
            let link = link::decode(&message);
            Some(Event::LinkChanged {
                index: link.index,
                name: link.name,
                up: link.up,
            })
        }
        RouteNetlinkMessage::DelLink(message) => {
            let link = link::decode(&message);
            Some(Event::LinkRemoved {
                index: link.index,
                name: link.name,
            })
        }
        RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message) => {
            Some(Event::AddressChanged {
                index: message.header.index,
            })
        }
        RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message) => {
            let table = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RouteAttribute::Table(table) => Some(*table),
                    _ => None,
                });
            Some(Event::RouteChanged {
                table: table.unwrap_or_else(|| message.header.table.into()),
                protocol: message.header.protocol.into(),
            })
        }
        RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message) => {
            Some(Event::NeighbourChanged {
                index: message.header.ifindex,
            })
        }
        _ => None,
    }
}

/// The socket has no `Debug` of its own.
struct SocketDebug(TokioSocket);

impl std::fmt::Debug for SocketDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokioSocket")
    }
}

/// `RTNLGRP_LINK`, `NEIGH`, `IPV4_IFADDR`, `IPV4_ROUTE`, `IPV6_IFADDR`, `IPV6_ROUTE`.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
const RECEIVE_BUFFER: usize = 4 << 20;
/// The kernel's largest datagram.
const DATAGRAM: usize = 64 << 10;
