//! Requests and answers as values: one function a request.

mod encode;
#[cfg(test)]
mod golden;

use netlink_packet_core::{
    DecodeError, Emitable, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, Parseable,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::RouteMessage;

pub(crate) use encode::*;

/// A message about one of the four kinds of object that concern us.
///
/// `RouteNetlinkMessage` would do the same, but brings the parsers of traffic control, rules and
/// statistics into programs that are started once a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    NewLink(LinkMessage),
    DelLink(LinkMessage),
    GetLink(LinkMessage),
    SetLink(LinkMessage),
    NewAddress(AddressMessage),
    DelAddress(AddressMessage),
    GetAddress(AddressMessage),
    NewRoute(RouteMessage),
    DelRoute(RouteMessage),
    GetRoute(RouteMessage),
    NewNeighbour(NeighbourMessage),
    DelNeighbour(NeighbourMessage),
    GetNeighbour(NeighbourMessage),
}

impl Message {
    fn content(&self) -> &dyn Emitable {
        match self {
            Self::NewLink(link)
            | Self::DelLink(link)
            | Self::GetLink(link)
            | Self::SetLink(link) => link,
            Self::NewAddress(address) | Self::DelAddress(address) | Self::GetAddress(address) => {
                address
            }
            Self::NewRoute(route) | Self::DelRoute(route) | Self::GetRoute(route) => route,
            Self::NewNeighbour(neighbour)
            | Self::DelNeighbour(neighbour)
            | Self::GetNeighbour(neighbour) => neighbour,
        }
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Self::NewLink(_) => RTM_NEWLINK,
            Self::DelLink(_) => RTM_DELLINK,
            Self::GetLink(_) => RTM_GETLINK,
            Self::SetLink(_) => RTM_SETLINK,
            Self::NewAddress(_) => RTM_NEWADDR,
            Self::DelAddress(_) => RTM_DELADDR,
            Self::GetAddress(_) => RTM_GETADDR,
            Self::NewRoute(_) => RTM_NEWROUTE,
            Self::DelRoute(_) => RTM_DELROUTE,
            Self::GetRoute(_) => RTM_GETROUTE,
            Self::NewNeighbour(_) => RTM_NEWNEIGH,
            Self::DelNeighbour(_) => RTM_DELNEIGH,
            Self::GetNeighbour(_) => RTM_GETNEIGH,
        }
    }

    fn buffer_len(&self) -> usize {
        self.content().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        self.content().emit(buffer);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    /// What the kernel sends: what there is, and that it has gone.
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        match header.message_type {
            RTM_NEWLINK => LinkMessage::parse(payload).map(Self::NewLink),
            RTM_DELLINK => LinkMessage::parse(payload).map(Self::DelLink),
            RTM_NEWADDR => AddressMessage::parse(payload).map(Self::NewAddress),
            RTM_DELADDR => AddressMessage::parse(payload).map(Self::DelAddress),
            RTM_NEWROUTE => RouteMessage::parse(payload).map(Self::NewRoute),
            RTM_DELROUTE => RouteMessage::parse(payload).map(Self::DelRoute),
            RTM_NEWNEIGH => NeighbourMessage::parse(payload).map(Self::NewNeighbour),
            RTM_DELNEIGH => NeighbourMessage::parse(payload).map(Self::DelNeighbour),
            other => Err(DecodeError::from(format!("message of type {other}"))),
        }
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
