//! From plans to requests.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use margay_endpoint::{Address, VethPair};
use margay_route::{Mac, Neighbour, NeighbourKind, NextHop, Route, RouteKind};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

pub(crate) type Request = NetlinkMessage<RouteNetlinkMessage>;

/// `RTM_NEWLINK`: both ends of a pair, the peer inside `container`.
///
/// The peer cannot be brought up by the same message (the kernel answers `ENOTCONN`), and an alias
/// is only taken by `RTM_SETLINK`.
pub(crate) fn create_veth(pair: &VethPair, container: BorrowedFd<'_>) -> Request {
    let end = |name: &str, mac: Mac| {
        let mut attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::NumTxQueues(pair.queues),
            LinkAttribute::NumRxQueues(pair.queues),
        ];
        attributes.extend(pair.mtu.map(LinkAttribute::Mtu));
        attributes
    };
    let mut peer = LinkMessage::default();
    peer.attributes = end(&pair.container_name, pair.container_mac);
    peer.attributes
        .push(LinkAttribute::NetNsFd(container.as_raw_fd()));
    let mut message = LinkMessage::default();
    message.attributes = end(&pair.host_name, pair.host_mac);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_SETLINK`: an interface up, and its alias if one is given.
pub(crate) fn set_up(index: u32, alias: Option<&str>) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
        .attributes
        .extend(alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// `RTM_SETLINK`: an interface down.
pub(crate) fn set_down(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(message), 0)
}

/// `RTM_GETLINK` for one interface by name.
pub(crate) fn get_link(name: &str) -> Request {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request(RouteNetlinkMessage::GetLink(message), 0)
}

/// `RTM_GETLINK` for all interfaces, to be dumped.
pub(crate) fn list_links() -> Request {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    request(RouteNetlinkMessage::GetLink(message), 0)
}

/// `RTM_DELLINK` by index.
pub(crate) fn delete_link(index: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    request(RouteNetlinkMessage::DelLink(message), 0)
}

/// `RTM_NEWADDR`.
pub(crate) fn add_address(index: u32, address: &Address) -> Request {
    let ip = address.network.ip();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = address.network.prefix();
    message.header.scope = AddressScope::from(u8::from(address.scope));
    message.header.index = index;
    if address.nodad {
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    request(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_GETADDR`, to be dumped: all addresses, or those of one interface.
pub(crate) fn list_addresses(index: Option<u32>) -> Request {
    let mut message = AddressMessage::default();
    message.header.index = index.unwrap_or_default();
    request(RouteNetlinkMessage::GetAddress(message), 0)
}

/// How a route is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Where none with its key may be.
    Add,
    /// In the place of the first with its key.
    Replace,
}

/// `RTM_NEWROUTE`. Next hops are given by index, in the order of the route's.
pub(crate) fn put_route(route: &Route, indexes: &[u32], put: Put) -> Request {
    let flags = match put {
        Put::Add => NLM_F_CREATE | NLM_F_EXCL,
        Put::Replace => NLM_F_CREATE | NLM_F_REPLACE,
    };
    let mut message = route_head(route);
    if let Some(src) = route.src {
        message
            .attributes
            .push(RouteAttribute::PrefSource(src.into()));
    }
    if let RouteKind::Unicast { via } = &route.kind {
        match (via.as_slice(), indexes) {
            ([hop], [index]) => {
                message.attributes.push(RouteAttribute::Oif(*index));
                if let Some(gateway) = hop.gateway {
                    message
                        .attributes
                        .push(RouteAttribute::Gateway(gateway.into()));
                }
                if hop.onlink {
                    message.header.flags = RouteFlags::Onlink;
                }
            }
            (hops, indexes) => {
                let hops = hops
                    .iter()
                    .zip(indexes)
                    .map(|(hop, index)| next_hop(hop, *index));
                message
                    .attributes
                    .push(RouteAttribute::MultiPath(hops.collect()));
            }
        }
    }
    request(RouteNetlinkMessage::NewRoute(message), flags)
}

/// `RTM_DELROUTE` for the route with this key, protocol and kind.
pub(crate) fn delete_route(route: &Route) -> Request {
    request(RouteNetlinkMessage::DelRoute(route_head(route)), 0)
}

/// `RTM_GETROUTE`, to be dumped: of one family, table and interface, where given.
pub(crate) fn list_routes(v4: bool, table: Option<u32>, index: Option<u32>) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = if v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    message.attributes.extend(table.map(RouteAttribute::Table));
    message.attributes.extend(index.map(RouteAttribute::Oif));
    request(RouteNetlinkMessage::GetRoute(message), 0)
}

/// `RTM_NEWNEIGH`: a permanent or proxy entry, in the place of any with its key.
pub(crate) fn set_neighbour(neighbour: &Neighbour, index: u32) -> Request {
    let mut message = neighbour_head(neighbour, index);
    message.header.state = NeighbourState::Permanent;
    if let NeighbourKind::Permanent(mac) = neighbour.kind {
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    }
    request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// `RTM_DELNEIGH`.
pub(crate) fn delete_neighbour(neighbour: &Neighbour, index: u32) -> Request {
    request(
        RouteNetlinkMessage::DelNeighbour(neighbour_head(neighbour, index)),
        0,
    )
}

/// `RTM_GETNEIGH`, to be dumped: the cache or the proxy table, of one interface if given.
pub(crate) fn list_neighbours(v4: bool, proxy: bool, index: Option<u32>) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = if v4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    if proxy {
        // The kernel refuses to filter the proxy table.
        message.header.flags = NeighbourFlags::Proxy;
    } else {
        message
            .attributes
            .extend(index.map(NeighbourAttribute::IfIndex));
    }
    request(RouteNetlinkMessage::GetNeighbour(message), 0)
}

pub(super) fn request(message: RouteNetlinkMessage, flags: u16) -> Request {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    request
}

/// What names a route: enough to add it after completion, and to delete it and no other.
fn route_head(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.dst.ip());
    header.destination_prefix_length = route.dst.prefix();
    header.protocol = route.protocol.into();
    header.scope = u8::from(route.scope).into();
    header.kind = match route.kind {
        RouteKind::Unicast { .. } => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
    };
    // The header has room for eight bits of the table's number.
    match u8::try_from(route.table) {
        Ok(table) => header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(route.table)),
    }
    if route.dst.prefix() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(route.dst.ip().into()));
    }
    if route.metric > 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn next_hop(hop: &NextHop, index: u32) -> RouteNextHop {
    let mut encoded = RouteNextHop::default();
    encoded.interface_index = index;
    // The kernel counts from 0 what everybody else counts from 1.
    encoded.hops = u8::try_from(hop.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    if hop.onlink {
        encoded.flags = RouteNextHopFlags::Onlink;
    }
    encoded.attributes.extend(
        hop.gateway
            .map(|gateway| RouteAttribute::Gateway(gateway.into())),
    );
    encoded
}

fn neighbour_head(neighbour: &Neighbour, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(neighbour.address);
    message.header.ifindex = index;
    if neighbour.kind == NeighbourKind::Proxy {
        message.header.flags = NeighbourFlags::Proxy;
    }
    message
        .attributes
        .push(NeighbourAttribute::Destination(neighbour.address.into()));
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

#[cfg(test)]
mod tests {
    use margay_route::Scope;

    use super::*;

    #[test]
    fn scopes_have_the_kernels_numbers() {
        assert_eq!(
            AddressScope::from(u8::from(Scope::Link)),
            AddressScope::Link
        );
        assert_eq!(
            AddressScope::from(u8::from(Scope::Universe)),
            AddressScope::Universe
        );
    }
}
