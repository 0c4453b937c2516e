//! Many changes at a time: packed into few datagrams, each acknowledged once.
//!
//! One request and one answer at a time costs a wake-up of this program for each change; a node that
//! starts in a large cluster has tens of thousands. Here the kernel works through a datagram of
//! requests and answers only those that it refuses, and the last.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tokio::runtime;

use crate::error::{Error, RequestError, Result};
use crate::message::Request;
use crate::namespace::Namespace;
use crate::socket::refusal;

/// Sends changes in order and returns what became of each, in the same order.
///
/// # Errors
/// No socket can be had; nothing has been sent then.
pub(crate) async fn send(
    namespace: &Namespace,
    requests: Vec<Request>,
) -> Result<Vec<Result<(), RequestError>>> {
    let mut verdicts = Vec::with_capacity(requests.len());
    if requests.is_empty() {
        return Ok(verdicts);
    }
    let socket = open(namespace)?;
    let mut requests = requests.into_iter().peekable();
    let mut sequence = 0_u32;
    while requests.peek().is_some() {
        let chunk: Vec<Request> = requests.by_ref().take(CHUNK).collect();
        verdicts.extend(exchange(&socket, chunk, &mut sequence).await);
    }
    Ok(verdicts)
}

fn open(namespace: &Namespace) -> Result<TokioSocket> {
    let runtime = runtime::Handle::current();
    let connect = || {
        let _entered = runtime.enter();
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        inner.bind_auto()?;
        inner.connect(&SocketAddr::new(0, 0))?;
        Ok(socket)
    };
    namespace
        .run_or_here(connect)?
        .map_err(|source: io::Error| Error::Socket { source })
}

/// One datagram and its answers.
async fn exchange(
    socket: &TokioSocket,
    mut chunk: Vec<Request>,
    sequence: &mut u32,
) -> Vec<Result<(), RequestError>> {
    let first = *sequence;
    let mut datagram = Vec::new();
    let last = chunk.len() - 1;
    for (number, request) in chunk.iter_mut().enumerate() {
        request.header.sequence_number = *sequence;
        *sequence = sequence.wrapping_add(1);
        if number == last {
            request.header.flags |= NLM_F_ACK;
        }
        request.finalize();
        // Messages are aligned to four bytes.
        let length = request.buffer_len();
        let start = datagram.len();
        datagram.resize(start + length.next_multiple_of(4), 0);
        request.serialize(&mut datagram[start..start + length]);
    }
    let mut verdicts: Vec<Result<(), RequestError>> = vec![Ok(()); chunk.len()];
    if socket.send(&datagram).await.is_err() {
        return vec![Err(RequestError::Closed); chunk.len()];
    }
    loop {
        let mut buffer = Vec::with_capacity(ANSWERS);
        match socket.recv(&mut buffer).await {
            Ok(()) => {}
            // Refusals were lost: nothing is known of those not told yet.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                return vec![Err(RequestError::NoAnswer); chunk.len()];
            }
            Err(_) => return vec![Err(RequestError::Closed); chunk.len()],
        }
        let mut rest = buffer.as_slice();
        while let Ok(header) = NetlinkBuffer::new_checked(rest) {
            let length = usize::try_from(header.length()).unwrap_or(rest.len());
            let bytes = &rest[..length.min(rest.len())];
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            let Ok(answer) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
                continue;
            };
            let number = answer.header.sequence_number.wrapping_sub(first);
            let number = usize::try_from(number).unwrap_or(usize::MAX);
            if let Some(verdict) = verdicts.get_mut(number) {
                *verdict = refusal(&answer);
            }
            if number == last {
                return verdicts;
            }
        }
    }
}

/// Requests to a datagram: few enough that all their refusals fit into the receive buffer.
const CHUNK: usize = 128;
const RECEIVE_BUFFER: i32 = 1 << 20;
const ANSWERS: usize = 64 << 10;
