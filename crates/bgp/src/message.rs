//! BGP's messages on the wire (RFC 4271 §4).
//!
//! [`frame`] finds the first message of a stream, [`decode`] reads it. Neither panics on any input,
//! and neither needs anything but octets and what the session agreed on.

mod capability;
mod encode;
mod notification;
mod open;
mod refresh;
mod update;
mod wire;

pub use capability::{AddPathMode, Capability, GracefulFamily, LongLivedFamily};
pub(crate) use capability::{LONG_LIVED_TIME_MAX, RESTART_TIME_MAX};
pub use encode::{
    EncodeError, announcements, end_of_rib, keepalive, notification as encode_notification,
    open as encode_open, refresh as encode_refresh, withdrawals,
};
pub(crate) use notification::cease;
pub use notification::{Code, Notification};
pub use open::{AS_TRANS, Open};
pub use refresh::{Refresh, RefreshKind};
pub use update::{Announcement, ErrorAction, Finding, Nlri, Update};

use crate::config::{Families, PerFamily};
use wire::Reader;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH; `None` for a family or a subtype that is not known.
    Refresh(Option<Refresh>),
}

/// What the session agreed on, as far as reading and writing depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// Whether the peer is of another AS.
    pub external: bool,
    /// Whether AS numbers have four octets (RFC 6793).
    pub four_octet_as: bool,
    /// The families in use; routes of others are passed over.
    pub families: Families,
    /// The families whose prefixes carry a path identifier (RFC 7911).
    pub add_path: PerFamily<bool>,
    /// Whether IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
}

/// Finds the first message of a stream: its length in octets, or `None` if there is not all of it
/// yet.
///
/// # Errors
/// What to tell a peer whose stream cannot be read further (RFC 4271 §6.1).
pub fn frame(stream: &[u8]) -> Result<Option<usize>, Notification> {
    let marker = stream
        .get(..MARKER_LEN.min(stream.len()))
        .unwrap_or_default();
    if marker.iter().any(|octet| *octet != 0xff) {
        return Err(Notification::new(Code::Header, 1));
    }
    let mut reader = Reader::new(stream.get(MARKER_LEN..).unwrap_or_default());
    let Some(length) = reader.u16() else {
        return Ok(None);
    };
    let bad_length = || Notification::with_data(Code::Header, 2, length.to_be_bytes());
    let size = usize::from(length);
    if !(HEADER_LEN..=MESSAGE_MAX).contains(&size) {
        return Err(bad_length());
    }
    let Some(kind) = reader.u8() else {
        return Ok(None);
    };
    let fits = match kind {
        OPEN => size >= HEADER_LEN + 10,
        UPDATE => size >= HEADER_LEN + 4,
        NOTIFICATION => size >= HEADER_LEN + 2,
        KEEPALIVE => size == HEADER_LEN,
        // RFC 7313 §5 has an error of its own for a ROUTE-REFRESH of a wrong length.
        REFRESH => true,
        _ => return Err(Notification::with_data(Code::Header, 3, [kind])),
    };
    if !fits {
        return Err(bad_length());
    }
    Ok((stream.len() >= size).then_some(size))
}

/// Reads one message that [`frame`] found.
///
/// # Errors
/// What to tell the peer before the session ends. Errors that RFC 7606 lets a session survive are
/// part of the [`Update`] instead.
pub fn decode(message: &[u8], context: &Context) -> Result<Message, Notification> {
    if frame(message)? != Some(message.len()) {
        return Err(Notification::new(Code::Header, 2));
    }
    let (header, body) = message
        .split_at_checked(HEADER_LEN)
        .unwrap_or((message, &[]));
    match header.last().copied() {
        Some(OPEN) => Open::decode(body).map(Message::Open),
        Some(UPDATE) => Update::decode(body, context).map(Message::Update),
        Some(NOTIFICATION) => {
            let mut reader = Reader::new(body);
            let (code, subcode) = (reader.u8().unwrap_or(0), reader.u8().unwrap_or(0));
            let notification =
                Notification::with_data(Code::from_octet(code), subcode, reader.rest());
            Ok(Message::Notification(notification))
        }
        Some(KEEPALIVE) => Ok(Message::Keepalive),
        Some(REFRESH) => Refresh::decode(message, body).map(Message::Refresh),
        kind => Err(Notification::with_data(Code::Header, 3, kind.as_slice())),
    }
}

impl Context {
    /// Before OPEN is read nothing is agreed on.
    pub const NONE: Self = Self {
        external: true,
        four_octet_as: false,
        families: Families::NONE,
        add_path: Families::NONE,
        extended_next_hop: false,
    };
}

/// The longest message (RFC 4271 §4.1).
pub const MESSAGE_MAX: usize = 4096;
/// The length of a message's header.
pub(crate) const HEADER_LEN: usize = 19;
const MARKER_LEN: usize = 16;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
const NOTIFICATION: u8 = 3;
const KEEPALIVE: u8 = 4;
const REFRESH: u8 = 5;
