//! A connection to the kernel's rtnetlink in one namespace.

use std::io;

use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NetlinkMessage, NetlinkPayload,
    NlaBuffer, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;
use tokio::runtime;

use crate::error::{Error, RequestError, Result};
use crate::namespace::Namespace;

/// A connection to rtnetlink in a certain namespace; clones share it, and it ends with the last.
///
/// The socket belongs to the namespace in which it was made, so a connection can be used from any
/// thread and task afterwards.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: Handle,
    namespace: Namespace,
}

impl Netlink {
    /// Connects inside a namespace.
    ///
    /// # Errors
    /// [`Error::Socket`], or that the namespace cannot be entered.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(namespace: &Namespace) -> Result<Self> {
        let runtime = runtime::Handle::current();
        let connect = || {
            let _entered = runtime.enter();
            let (mut connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
            let socket = connection.socket_mut();
            let socket = netlink_sys::AsyncSocket::socket_mut(socket);
            // Reasons in words; without the request repeated, they start right after its header.
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok((connection, handle))
        };
        let (connection, handle) = namespace
            .run_or_here(connect)?
            .map_err(|source: io::Error| Error::Socket { source })?;
        runtime.spawn(connection);
        Ok(Self {
            handle,
            namespace: namespace.clone(),
        })
    }

    /// Connects in the calling thread's namespace.
    ///
    /// # Errors
    /// As [`Netlink::open`].
    ///
    /// # Panics
    /// As [`Netlink::open`].
    pub fn current() -> Result<Self> {
        Self::open(&Namespace::current()?)
    }

    /// The namespace of this connection.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Sends a change and awaits the kernel's acknowledgement.
    pub(crate) async fn change(
        &self,
        mut message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<(), RequestError> {
        message.header.flags |= NLM_F_ACK;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| RequestError::Closed)?;
        while let Some(answer) = answers.next().await {
            refusal(&answer)?;
        }
        Ok(())
    }

    /// Sends a question that has one answer; `None` if the kernel says that there is no such
    /// object.
    pub(crate) async fn ask(
        &self,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Option<RouteNetlinkMessage>, RequestError> {
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| RequestError::Closed)?;
        let Some(answer) = answers.next().await else {
            return Err(RequestError::NoAnswer);
        };
        match refusal(&answer) {
            Err(RequestError::Refused {
                errno: Errno::ENODEV,
                ..
            }) => return Ok(None),
            other => other?,
        }
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => Ok(Some(inner)),
            _ => Err(RequestError::NoAnswer),
        }
    }

    /// Reads a whole table, again if it changed meanwhile (`NLM_F_DUMP_INTR`).
    pub(crate) async fn dump(
        &self,
        mut message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Vec<RouteNetlinkMessage>, RequestError> {
        message.header.flags |= NLM_F_DUMP;
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(items) = self.dump_once(message.clone()).await? {
                return Ok(items);
            }
        }
        Err(RequestError::Interrupted)
    }

    async fn dump_once(
        &self,
        message: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, RequestError> {
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).map_err(|_| RequestError::Closed)?;
        let mut items = Vec::new();
        let mut consistent = true;
        while let Some(answer) = answers.next().await {
            refusal(&answer)?;
            consistent &= answer.header.flags & NLM_F_DUMP_INTR == 0;
            match answer.payload {
                NetlinkPayload::InnerMessage(inner) => items.push(inner),
                NetlinkPayload::Overrun(_) => consistent = false,
                _ => {}
            }
        }
        Ok(consistent.then_some(items))
    }
}

/// The kernel's refusal, if the message is one.
pub(crate) fn refusal(answer: &NetlinkMessage<RouteNetlinkMessage>) -> Result<(), RequestError> {
    match &answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => {
            let errno = Errno::from_raw(error.raw_code().abs());
            let told = answer.header.flags & NLM_F_ACK_TLVS != 0;
            let message = told.then(|| explanation(error)).flatten();
            Err(RequestError::Refused { errno, message })
        }
        _ => Ok(()),
    }
}

/// `NLMSGERR_ATTR_MSG` of an extended acknowledgement.
fn explanation(error: &ErrorMessage) -> Option<String> {
    let attributes = error.header.get(NETLINK_HEADER_LEN..)?;
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == NLMSGERR_ATTR_MSG)
        .map(|attribute| {
            let text = attribute
                .value()
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        })
}

const DUMP_ATTEMPTS: usize = 8;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NETLINK_HEADER_LEN: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;
