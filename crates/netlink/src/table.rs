//! The applier of route plans.

use margay_route::{Neighbour, Observed, Plan, Route, Step};
use nix::errno::Errno;

use crate::error::{Error, RequestError, Result};
use crate::link::Interfaces;
use crate::message::{self, Put, Request};
use crate::route::{RouteFilter, names};
use crate::socket::Netlink;
use crate::{batch, tunnel};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many steps changed the kernel's state.
    pub changes: usize,
    /// The steps that did not succeed; those after them were applied all the same.
    pub failures: Vec<Error>,
}

/// The routes of one table (all if `None`), the configured neighbour entries, and the forwarding
/// entries of our tunnels.
///
/// # Errors
/// [`Error::List`].
pub async fn observe(
    netlink: &Netlink,
    table: Option<u32>,
    interfaces: &Interfaces,
) -> Result<Observed> {
    let filter = RouteFilter {
        table,
        interface: None,
    };
    Ok(Observed {
        routes: netlink.routes(filter, interfaces).await?,
        neighbours: netlink.neighbours(None, interfaces).await?,
        fdb: tunnel::forwarding(netlink, interfaces).await?,
    })
}

/// Applies a plan in order. A step that fails does not keep the others from being applied: the next
/// comparison finds what is left.
pub async fn apply(netlink: &Netlink, plan: &Plan, interfaces: &Interfaces) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sent = Vec::new();
    let mut requests = Vec::new();
    for step in &plan.steps {
        match request(step, interfaces) {
            Ok(Some(request)) => {
                sent.push(step);
                requests.push(request);
            }
            Ok(None) => {}
            Err(error) => outcome.failures.push(error),
        }
    }
    let verdicts = match batch::send(netlink.namespace(), requests).await {
        Ok(verdicts) => verdicts,
        Err(error) => {
            outcome.failures.push(error);
            return outcome;
        }
    };
    for (step, verdict) in sent.into_iter().zip(verdicts) {
        match verdict {
            Ok(()) => outcome.changes += 1,
            // What is to be deleted and is gone is as good as deleted.
            Err(source) if is_deletion(step) && is_gone(&source) => {}
            Err(source) => outcome.failures.push(failure(step, source)),
        }
    }
    outcome
}

/// What asks the kernel for a step; `None` if there is nothing to ask for.
fn request(step: &Step, interfaces: &Interfaces) -> Result<Option<Request>> {
    let index = |name: &str| {
        let link = interfaces.by_name(name).map(|link| link.index);
        link.ok_or_else(|| Error::LinkMissing {
            name: name.to_owned(),
        })
    };
    let put = |route: &Route, put: Put| {
        let indexes: Result<Vec<u32>> = route.interfaces().map(index).collect();
        indexes.map(|indexes| message::put_route(route, &indexes, put))
    };
    Ok(Some(match step {
        Step::AddRoute(route) => put(route, Put::Add)?,
        Step::ReplaceRoute { to, .. } => put(to, Put::Replace)?,
        Step::DeleteRoute(route) => message::delete_route(route),
        Step::SetNeighbour(neighbour) => {
            message::set_neighbour(neighbour, index(&neighbour.interface)?)
        }
        Step::SetFdb(entry) => message::set_fdb(entry, index(&entry.interface)?),
        // What was on an interface has gone with it.
        Step::DeleteNeighbour(neighbour) => match index(&neighbour.interface) {
            Ok(index) => message::delete_neighbour(neighbour, index),
            Err(_) => return Ok(None),
        },
        Step::DeleteFdb(entry) => match index(&entry.interface) {
            Ok(index) => message::delete_fdb(entry, index),
            Err(_) => return Ok(None),
        },
    }))
}

fn is_deletion(step: &Step) -> bool {
    matches!(
        step,
        Step::DeleteRoute(_) | Step::DeleteNeighbour(_) | Step::DeleteFdb(_)
    )
}

fn is_gone(source: &RequestError) -> bool {
    matches!(
        source.errno(),
        Some(Errno::ESRCH | Errno::ENOENT | Errno::ENODEV)
    )
}

fn failure(step: &Step, source: RequestError) -> Error {
    let ends = |neighbour: &Neighbour| (neighbour.address, neighbour.interface.clone());
    match step {
        Step::AddRoute(route) | Step::ReplaceRoute { to: route, .. } => Error::AddRoute {
            dst: route.dst,
            ifname: names(route),
            source,
        },
        Step::DeleteRoute(route) => Error::DeleteRoute {
            dst: route.dst,
            ifname: names(route),
            source,
        },
        Step::SetNeighbour(neighbour) => {
            let (address, ifname) = ends(neighbour);
            Error::SetNeighbour {
                address,
                ifname,
                source,
            }
        }
        Step::DeleteNeighbour(neighbour) => {
            let (address, ifname) = ends(neighbour);
            Error::DeleteNeighbour {
                address,
                ifname,
                source,
            }
        }
        Step::SetFdb(entry) => Error::SetFdb {
            entry: entry.clone(),
            source,
        },
        Step::DeleteFdb(entry) => Error::DeleteFdb {
            entry: entry.clone(),
            source,
        },
    }
}
