//! A netlink socket of netfilter, in one namespace.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};

use crate::netfilter::error::{Error, Result};
use crate::netfilter::wire::{
    self, Message, NLM_F_ACK_TLVS, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSGHDR,
};
use crate::{Namespace, RequestError};

/// A connection; the kernel answers a request before `send` returns.
pub struct Connection {
    socket: Socket,
    /// The socket's number, which notifications of its requests bear.
    port: u32,
    sequence: u32,
    datagram: Vec<u8>,
}

/// An answer that carries no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The request's sequence number.
    pub sequence: u32,
    /// The kernel's refusal, or that it did as asked.
    pub outcome: Result<(), RequestError>,
}

impl Connection {
    /// Connects inside a namespace.
    ///
    /// # Errors
    /// [`Error::Socket`], or that the namespace cannot be entered.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let connect = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            // Reasons in words; without the request repeated, they start right after its header.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // The whole of a batch is one datagram, and every refusal in it is one more.
            setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER)?;
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            let port = socket.bind_auto()?.port_number();
            Ok((socket, port))
        };
        let (socket, port) = namespace
            .run_or_here(connect)?
            .map_err(|source: io::Error| Error::Socket { source })?;
        Ok(Self {
            socket,
            port,
            sequence: 0,
            datagram: Vec::with_capacity(DATAGRAM),
        })
    }

    /// The socket's number, which notifications of its requests bear.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// A sequence number that no request has had, with `count - 1` free ones behind it.
    pub fn sequences(&mut self, count: u32) -> u32 {
        // 0 is what the kernel itself uses.
        if self.sequence.checked_add(count).is_none() {
            self.sequence = 0;
        }
        let first = self.sequence + 1;
        self.sequence += count;
        first
    }

    /// Sends requests; `what` they are, for an error.
    ///
    /// # Errors
    /// [`Error::Send`].
    pub fn send(&self, bytes: &[u8], what: impl FnOnce() -> String) -> Result<()> {
        match self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Send {
                what: what(),
                bytes: bytes.len(),
                source,
            }),
        }
    }

    /// Reads a dump to its end. `None` if the table changed meanwhile (`NLM_F_DUMP_INTR`).
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses.
    pub fn dump(
        &mut self,
        request: &[u8],
        sequence: u32,
        what: impl Fn() -> String,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<Option<()>> {
        self.send(request, &what)?;
        let mut consistent = true;
        loop {
            self.receive(&what)?;
            for message in wire::messages(&self.datagram) {
                // What an abandoned request left behind.
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => {
                        refusal(&message).map_err(|source| Error::Request {
                            what: what(),
                            source,
                        })?;
                        return Ok(consistent.then_some(()));
                    }
                    NLMSG_ERROR => match refusal(&message) {
                        Ok(()) => {}
                        Err(RequestError::Refused {
                            errno: Errno::EINTR,
                            ..
                        }) => return Ok(None),
                        Err(source) => {
                            let what = what();
                            return Err(Error::Request { what, source });
                        }
                    },
                    _ => each(message),
                }
            }
        }
    }

    /// Asks for one object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Request`] if the kernel refuses.
    pub fn ask<T>(
        &mut self,
        request: &[u8],
        sequence: u32,
        what: impl Fn() -> String,
        decode: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<T>> {
        self.send(request, &what)?;
        loop {
            self.receive(&what)?;
            for message in wire::messages(&self.datagram) {
                if message.sequence != sequence {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    return Ok(decode(message));
                }
                match refusal(&message) {
                    Err(RequestError::Refused {
                        errno: Errno::ENOENT,
                        ..
                    }) => return Ok(None),
                    Err(source) => {
                        let what = what();
                        return Err(Error::Request { what, source });
                    }
                    Ok(()) => {}
                }
            }
        }
    }

    /// The verdicts that are there already: the kernel has given them all when `send` returns.
    pub fn pending(&mut self) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, MSG_DONTWAIT) {
                Ok(_) => {}
                // So many refusals that they did not fit: those read before tell enough.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return verdicts,
            }
            for message in wire::messages(&self.datagram) {
                if message.kind == NLMSG_ERROR {
                    verdicts.push(Verdict {
                        sequence: message.sequence,
                        outcome: refusal(&message),
                    });
                }
            }
        }
    }

    /// Waits for the answer to the request `last`; returns the verdicts from `first` to it.
    ///
    /// # Errors
    /// [`Error::Request`] if no answer can be read.
    pub fn verdicts(
        &mut self,
        first: u32,
        last: u32,
        what: impl Fn() -> String,
    ) -> Result<Vec<Verdict>> {
        let mut verdicts = Vec::new();
        loop {
            self.receive(&what)?;
            let mut complete = false;
            for message in wire::messages(&self.datagram) {
                if message.kind != NLMSG_ERROR || !(first..=last).contains(&message.sequence) {
                    continue;
                }
                complete |= message.sequence == last;
                verdicts.push(Verdict {
                    sequence: message.sequence,
                    outcome: refusal(&message),
                });
            }
            if complete {
                return Ok(verdicts);
            }
        }
    }

    fn receive(&mut self, what: impl Fn() -> String) -> Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, 0) {
                Ok(_) => return Ok(()),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let errno = Errno::from_raw(source.raw_os_error().unwrap_or_default());
                    return Err(Error::Request {
                        what: what(),
                        source: RequestError::Refused {
                            errno,
                            message: None,
                        },
                    });
                }
            }
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The refusal that an error message or the end of a dump carries, if its number is not 0.
pub(super) fn refusal(message: &Message<'_>) -> Result<(), RequestError> {
    let code = message.body.get(..4).and_then(|code| code.try_into().ok());
    let code = code.map_or(0, i32::from_ne_bytes);
    if code == 0 {
        return Ok(());
    }
    let told = message.flags & NLM_F_ACK_TLVS != 0;
    // The number and the request's header, then attributes.
    let attributes = message.body.get(4 + NLMSGHDR..).unwrap_or_default();
    let words = wire::attributes(attributes).text(NLMSGERR_ATTR_MSG);
    Err(RequestError::Refused {
        errno: Errno::from_raw(code.abs()),
        message: words.filter(|_| told),
    })
}

const MSG_DONTWAIT: i32 = 0x40;
const NLMSGERR_ATTR_MSG: u16 = 1;
const SEND_BUFFER: usize = 256 << 20;
const RECEIVE_BUFFER: usize = 16 << 20;
/// The kernel's largest datagram.
const DATAGRAM: usize = 64 << 10;
