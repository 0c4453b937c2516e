//! The applier of endpoint plans: set up, take down, observe.

use std::os::fd::AsFd;

use margay_endpoint::{DEFAULT_PREFIX, EndpointPlan, Expected, Interface, Mark, Observed, Side};
use margay_route::{GATEWAY_MAC, Mac, Route, TABLE_MAIN};
use nix::errno::Errno;

use crate::error::{Error, RequestError, Result};
use crate::link::{Interfaces, Link};
use crate::message::{self, Put};
use crate::namespace::Namespace;
use crate::route::RouteFilter;
use crate::shaping;
use crate::socket::Netlink;

/// An endpoint that is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The host end's index.
    pub host_ifindex: u32,
    /// The container end's index.
    pub container_ifindex: u32,
    /// The container end's MAC.
    pub mac: Mac,
}

/// What a take-down found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// The interface is deleted.
    Removed,
    /// There was none.
    Absent,
    /// There is one of the name, but it bears another owner's alias; it stays.
    Foreign {
        /// The alias.
        alias: String,
    },
}

/// Makes an endpoint: traffic flows when this returns.
///
/// An interface of the host end's name that an earlier attempt left is replaced if it bears this
/// endpoint's mark, or if it bears none and looks like Calico's (an attempt that died before it
/// could set the mark, or one of Calico's own). Whatever else is in the way is an error, and nothing
/// is changed. When a later step fails, the pair is deleted again, and with it its addresses,
/// routes and neighbour entries. Dropping the future half-way leaves what the next attempt
/// replaces and [`teardown`] removes.
///
/// # Errors
/// [`Error::InterfaceExists`], [`Error::HostInterfaceExists`], [`Error::RouteConflict`], or the
/// step that failed.
pub async fn setup(plan: &EndpointPlan, host: &Netlink, container: &Namespace) -> Result<Applied> {
    let inside = Netlink::open(container)?;
    make(plan, host, &inside, true).await
}

/// Makes an endpoint's pair with both ends in the host's namespace, and sets up the host end: for a runtime that
/// moves the container's end into its sandbox, names and configures it itself. Otherwise as [`setup`].
///
/// # Errors
/// As [`setup`].
pub async fn setup_unplaced(plan: &EndpointPlan, host: &Netlink) -> Result<Applied> {
    make(plan, host, host, false).await
}

async fn make(
    plan: &EndpointPlan,
    host: &Netlink,
    inside: &Netlink,
    placed: bool,
) -> Result<Applied> {
    create(plan, host, inside).await?;
    // Not looked up by name from here on, so that no one else's interface is ever touched.
    let created = match host.link(&plan.veth.host_name).await {
        // Once more: what was just made cannot be removed without its index.
        Err(_) => host.link(&plan.veth.host_name).await?,
        Ok(created) => created,
    };
    let pair = created.and_then(|link| Some((link.index, link.peer_index?)));
    let Some((host_ifindex, container_ifindex)) = pair else {
        return Err(Error::LinkMissing {
            name: plan.veth.host_name.clone(),
        });
    };
    let applied = Applied {
        host_ifindex,
        container_ifindex,
        mac: plan.veth.container_mac,
    };
    match configure(plan, applied, host, placed.then_some(inside)).await {
        Ok(()) => Ok(applied),
        Err(error) => {
            // The first failure is the one that matters; what remains is found by its name.
            let _ = host.delete_link(host_ifindex, &plan.veth.host_name).await;
            Err(error)
        }
    }
}

/// Takes the host end down, so that nothing passes the pair any more. That is quick, where [`teardown`] lasts until the
/// kernel has forgotten the pair. Nothing there is as good, and an interface of another's stays as it is.
///
/// # Errors
/// [`Error::GetLink`] and [`Error::SetLink`].
pub async fn close(host: &Netlink, host_name: &str, mark: &Mark) -> Result<()> {
    match host.link(host_name).await? {
        Some(link) if is_ours(&link, mark) => host.set_down(link.index, host_name).await,
        _ => Ok(()),
    }
}

/// Deletes the host end, and with it the pair, and the device of its bandwidth limits. Nothing there is as good.
///
/// # Errors
/// [`Error::GetLink`] and [`Error::DeleteLink`].
pub async fn teardown(host: &Netlink, host_name: &str, mark: &Mark) -> Result<Removal> {
    let Some(link) = host.link(host_name).await? else {
        shaping::forget(host, host_name).await?;
        return Ok(Removal::Absent);
    };
    if !is_ours(&link, mark) {
        return Ok(Removal::Foreign {
            alias: link.alias.unwrap_or_default(),
        });
    }
    let removed = host.delete_link(link.index, host_name).await?;
    shaping::forget(host, host_name).await?;
    Ok(if removed {
        Removal::Removed
    } else {
        Removal::Absent
    })
}

/// What is true of an endpoint, for [`margay_endpoint::verify`].
///
/// # Errors
/// That the kernel could not be asked; missing interfaces are no error.
pub async fn observe(
    host: &Netlink,
    container: &Namespace,
    expected: &Expected,
) -> Result<Observed> {
    let inside = Netlink::open(container)?;
    let (host_end, host_routes, host_neighbours) = observe_end(host, &expected.host.name).await?;
    let (container_end, container_routes, container_neighbours) =
        observe_end(&inside, &expected.container.name).await?;
    Ok(Observed {
        host: host_end,
        container: container_end,
        host_routes,
        container_routes,
        host_neighbours,
        container_neighbours,
    })
}

type ObservedEnd = (Option<Interface>, Vec<Route>, Vec<margay_route::Neighbour>);

async fn observe_end(netlink: &Netlink, name: &str) -> Result<ObservedEnd> {
    let Some(link) = netlink.link(name).await? else {
        return Ok((None, Vec::new(), Vec::new()));
    };
    let index = link.index;
    let addresses = netlink.addresses(Some(index)).await?;
    let interface = Interface {
        index,
        peer_index: link.peer_index,
        mac: link.mac,
        up: link.up,
        addresses: addresses.into_iter().map(|(_, network)| network).collect(),
    };
    let only = Interfaces::from_iter([link]);
    let filter = RouteFilter {
        table: Some(TABLE_MAIN),
        interface: Some(index),
    };
    let routes = netlink.routes(filter, &only).await?;
    let neighbours = netlink.neighbours(Some(index), &only).await?;
    Ok((Some(interface), routes, neighbours))
}

/// Creates the pair. The usual case costs one message; only when a name is taken does it look.
async fn create(plan: &EndpointPlan, host: &Netlink, inside: &Netlink) -> Result<()> {
    let request = || message::create_veth(&plan.veth, inside.namespace().as_fd());
    match host.change(request()).await {
        Err(source) if source.errno() == Some(Errno::EEXIST) => {
            clear_remains(plan, host, inside).await?;
        }
        other => return other.map_err(|source| create_failed(plan, source)),
    }
    host.change(request())
        .await
        .map_err(|source| create_failed(plan, source))
}

/// Deletes what an earlier attempt left, or says whose the names are.
async fn clear_remains(plan: &EndpointPlan, host: &Netlink, inside: &Netlink) -> Result<()> {
    let veth = &plan.veth;
    let outer = host.link(&veth.host_name).await?;
    let inner = inside.link(&veth.container_name).await?;
    let ours = outer.as_ref().is_some_and(|link| is_ours(link, &veth.mark));
    let paired = match (&outer, &inner) {
        (Some(outer), Some(inner)) => {
            outer.peer_index == Some(inner.index) && inner.peer_index == Some(outer.index)
        }
        _ => false,
    };
    if inner.is_some() && !(ours && paired) {
        return Err(Error::InterfaceExists {
            name: veth.container_name.clone(),
        });
    }
    match outer {
        Some(link) if ours => host.delete_link(link.index, &link.name).await.map(|_| ()),
        Some(link) => Err(Error::HostInterfaceExists {
            name: link.name,
            alias: link.alias,
        }),
        None => Ok(()),
    }
}

/// Whether a host interface may be deleted for this endpoint.
///
/// Without an alias it is what an attempt left that died between the creating message and the
/// mark, or one of Calico's; either is a veth with Calico's prefix or, whatever the prefix, with
/// the gateway's MAC.
fn is_ours(link: &Link, mark: &Mark) -> bool {
    match link.alias.as_deref() {
        Some(alias) if !alias.is_empty() => alias == mark.as_str(),
        _ => {
            let named = link.name.starts_with(DEFAULT_PREFIX);
            link.kind.as_deref() == Some("veth") && (named || link.mac == Some(GATEWAY_MAC))
        }
    }
}

fn create_failed(plan: &EndpointPlan, source: RequestError) -> Error {
    Error::CreateVeth {
        host_name: plan.veth.host_name.clone(),
        container_name: plan.veth.container_name.clone(),
        source,
    }
}

/// Sets up the host end, and the container's where `inside` says in which namespace it is.
async fn configure(
    plan: &EndpointPlan,
    applied: Applied,
    host: &Netlink,
    inside: Option<&Netlink>,
) -> Result<()> {
    let veth = &plan.veth;
    let outside = End {
        netlink: host,
        index: applied.host_ifindex,
        name: &veth.host_name,
        mark: Some(&veth.mark),
    };
    let within = inside.map(|netlink| End {
        netlink,
        index: applied.container_ifindex,
        name: &veth.container_name,
        mark: None,
    });
    // The host end first: the container's coming up gives both their carrier, and by then the
    // settings that act on it (no link-local address of the kernel's making) are in force.
    outside.prepare(&plan.host).await?;
    if let Some(within) = within {
        within.prepare(&plan.container).await?;
        within.fill(&plan.container).await?;
    }
    outside.fill(&plan.host).await?;
    // The host end came up before it had a carrier, and the kernel gives it its queue in a worker, which
    // may be late: until then it drops what is sent. RTM_GETLINK makes the kernel do that work at once
    // (`linkwatch_sync_dev` in rtnl_getlink, net/core/rtnetlink.c).
    host.link(&veth.host_name).await.map(|_| ())
}

/// Who has the route to a destination, for people.
async fn holder(host: &Netlink, dst: ipnetwork::IpNetwork) -> Result<String> {
    let filter = RouteFilter {
        table: Some(TABLE_MAIN),
        interface: None,
    };
    let interfaces = host.interfaces().await?;
    let routes = host.routes(filter, &interfaces).await?;
    let found = routes
        .iter()
        .find(|route| route.dst == dst)
        .map(crate::route::names);
    let named = found.filter(|names| !names.is_empty());
    Ok(named.unwrap_or_else(|| "a route without an interface".to_owned()))
}

/// One end of a pair, to be set up.
struct End<'a> {
    netlink: &'a Netlink,
    index: u32,
    name: &'a str,
    mark: Option<&'a Mark>,
}

impl End<'_> {
    async fn prepare(&self, side: &Side) -> Result<()> {
        self.netlink.namespace().write_sysctls(&side.sysctls)?;
        for name in &side.up {
            if name == self.name {
                let alias = self.mark.map(Mark::as_str);
                self.netlink.set_up(self.index, name, alias).await?;
            } else {
                self.netlink.set_up(LOOPBACK_INDEX, name, None).await?;
            }
        }
        Ok(())
    }

    async fn fill(&self, side: &Side) -> Result<()> {
        let link = Link {
            index: self.index,
            name: self.name.to_owned(),
            ..Link::default()
        };
        let interfaces = Interfaces::from_iter([link]);
        for address in &side.addresses {
            self.netlink
                .add_address(self.index, self.name, address)
                .await?;
        }
        for neighbour in &side.neighbours {
            self.netlink.set_neighbour(neighbour, &interfaces).await?;
        }
        for route in &side.routes {
            self.add_route(route, &interfaces).await?;
        }
        Ok(())
    }

    /// Adds a route. One over the same interface is as good: the agent may have seen the endpoint's record
    /// first.
    async fn add_route(&self, route: &Route, interfaces: &Interfaces) -> Result<()> {
        match self.netlink.put_route(route, interfaces, Put::Add).await {
            Err(Error::AddRoute {
                dst,
                ifname,
                source,
            }) if source.errno() == Some(Errno::EEXIST) => {
                let holder = holder(self.netlink, dst).await?;
                if holder == ifname {
                    return Ok(());
                }
                Err(Error::RouteConflict {
                    dst,
                    ifname,
                    holder,
                })
            }
            other => other,
        }
    }
}

/// `LOOPBACK_IFINDEX`: the kernel makes it first in every namespace.
const LOOPBACK_INDEX: u32 = 1;
