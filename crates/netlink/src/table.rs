//! The applier of route plans.

use margay_route::{Observed, Plan, Step};

use crate::error::{Error, Result};
use crate::link::Interfaces;
use crate::message::Put;
use crate::route::RouteFilter;
use crate::socket::Netlink;
use crate::tunnel;

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

/// Applies a plan step by step. A step that fails does not keep the others from being applied:
/// the next comparison finds what is left.
pub async fn apply(netlink: &Netlink, plan: &Plan, interfaces: &Interfaces) -> Outcome {
    let mut outcome = Outcome::default();
    for step in &plan.steps {
        match apply_step(netlink, step, interfaces).await {
            Ok(changed) => outcome.changes += usize::from(changed),
            Err(error) => outcome.failures.push(error),
        }
    }
    outcome
}

async fn apply_step(netlink: &Netlink, step: &Step, interfaces: &Interfaces) -> Result<bool> {
    match step {
        Step::AddRoute(route) => netlink
            .put_route(route, interfaces, Put::Add)
            .await
            .map(|()| true),
        Step::ReplaceRoute { to, .. } => netlink
            .put_route(to, interfaces, Put::Replace)
            .await
            .map(|()| true),
        Step::DeleteRoute(route) => netlink.delete_route(route).await,
        Step::SetNeighbour(neighbour) => netlink
            .set_neighbour(neighbour, interfaces)
            .await
            .map(|()| true),
        Step::DeleteNeighbour(neighbour) => netlink.delete_neighbour(neighbour, interfaces).await,
        Step::SetFdb(entry) => netlink.set_fdb(entry, interfaces).await.map(|()| true),
        Step::DeleteFdb(entry) => netlink.delete_fdb(entry, interfaces).await,
    }
}
