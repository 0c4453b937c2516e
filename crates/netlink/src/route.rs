//! Routes: listed, put, deleted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use margay_route::{NextHop, Route, RouteKind, Scope};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHopFlags, RouteType,
};
use nix::errno::Errno;

use crate::error::{Error, RequestError, Result};
use crate::link::Interfaces;
use crate::message::{self, Put};
use crate::socket::Netlink;

/// Which routes to list; the kernel filters, so that a large table is not copied for a few.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Those of one table.
    pub table: Option<u32>,
    /// Those over one interface, by index.
    pub interface: Option<u32>,
}

impl Netlink {
    /// Routes of both families in canonical form. Routes that [`Route`] cannot hold (multicast,
    /// local, encapsulated, by type of service) are left out: they are never ours.
    ///
    /// # Errors
    /// [`Error::List`].
    pub async fn routes(&self, filter: RouteFilter, interfaces: &Interfaces) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for v4 in [true, false] {
            let request = message::list_routes(v4, filter.table, filter.interface);
            let answers = match self.dump(request).await {
                Ok(answers) => answers,
                Err(source) if is_absent(&source) => continue,
                Err(source) => {
                    return Err(Error::List {
                        what: "routes",
                        source,
                    });
                }
            };
            routes.extend(answers.iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => decode(route, interfaces),
                _ => None,
            }));
        }
        // A kernel that does not filter sends everything.
        if let Some(table) = filter.table {
            routes.retain(|route| route.table == table);
        }
        if let Some(index) = filter.interface {
            let name = interfaces.name(index);
            routes.retain(|route| route.interfaces().any(|interface| interface == name));
        }
        Ok(routes)
    }

    pub(crate) async fn put_route(
        &self,
        route: &Route,
        interfaces: &Interfaces,
        put: Put,
    ) -> Result<()> {
        let failed = |source| Error::AddRoute {
            dst: route.dst,
            ifname: names(route),
            source,
        };
        let indexes = indexes(route, interfaces)?;
        self.change(message::put_route(route, &indexes, put))
            .await
            .map_err(failed)
    }
}

/// The names of a route's interfaces, for messages.
pub(crate) fn names(route: &Route) -> String {
    route.interfaces().collect::<Vec<_>>().join(",")
}

fn indexes(route: &Route, interfaces: &Interfaces) -> Result<Vec<u32>> {
    let index = |name: &str| match interfaces.by_name(name) {
        Some(link) => Ok(link.index),
        None => Err(Error::LinkMissing {
            name: name.to_owned(),
        }),
    };
    route.interfaces().map(index).collect()
}

/// A table that does not exist, or a family that is switched off.
fn is_absent(source: &RequestError) -> bool {
    matches!(
        source.errno(),
        Some(Errno::ENOENT | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP)
    )
}

/// A route from `RTM_NEWROUTE`; `None` if [`Route`] cannot hold it.
pub(crate) fn decode(message: &RouteMessage, interfaces: &Interfaces) -> Option<Route> {
    let header = &message.header;
    if header.tos != 0
        || header.source_prefix_length != 0
        || header.flags.contains(RouteFlags::Cloned)
    {
        return None;
    }
    let mut dst = None;
    let mut metric = 0;
    let mut table = u32::from(header.table);
    let mut src = None;
    let mut hop = Hop::default();
    let mut via = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = Some(ip(address)?),
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::Table(value) => table = *value,
            RouteAttribute::PrefSource(address) => src = Some(ip(address)?),
            RouteAttribute::Oif(index) => hop.index = Some(*index),
            RouteAttribute::Gateway(address) => hop.gateway = Some(ip(address)?),
            RouteAttribute::MultiPath(hops) => {
                for hop in hops {
                    via.push(next_hop(hop, interfaces)?);
                }
            }
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    let unspecified = match u8::from(header.address_family) {
        AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let kind = match header.kind {
        RouteType::Unicast => {
            if let Some(index) = hop.index {
                via.push(NextHop {
                    gateway: hop.gateway,
                    interface: interfaces.name(index),
                    onlink: header.flags.contains(RouteFlags::Onlink),
                    weight: 1,
                });
            }
            RouteKind::Unicast { via }
        }
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        _ => return None,
    };
    let dst = dst.unwrap_or(unspecified);
    let route = Route {
        dst: IpNetwork::new(dst, header.destination_prefix_length).ok()?,
        kind,
        protocol: header.protocol.into(),
        scope: Scope::from(u8::from(header.scope)),
        metric,
        table,
        src,
    };
    Some(route.canonical())
}

#[derive(Default)]
struct Hop {
    index: Option<u32>,
    gateway: Option<IpAddr>,
}

fn next_hop(
    hop: &netlink_packet_route::route::RouteNextHop,
    interfaces: &Interfaces,
) -> Option<NextHop> {
    let mut gateway = None;
    for attribute in &hop.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    Some(NextHop {
        gateway,
        interface: interfaces.name(hop.interface_index),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        weight: u16::from(hop.hops) + 1,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
