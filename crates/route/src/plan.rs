//! The planner: from a difference to steps in a safe order.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Desired, FdbEntry, Neighbour, NeighbourKey, Observed, Ownership, Route, RouteKey, RouteKind,
    Scope,
};

/// One change of the kernel's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Step {
    /// Add a route where none with its key is.
    AddRoute(Route),
    /// Put a route in the place of another with its key, in one message.
    ReplaceRoute {
        /// What is there.
        from: Route,
        /// What takes its place.
        to: Route,
    },
    /// Delete a route of ours.
    DeleteRoute(Route),
    /// Add a neighbour entry or replace the one with its key.
    SetNeighbour(Neighbour),
    /// Delete a neighbour entry of ours.
    DeleteNeighbour(Neighbour),
    /// Add a forwarding entry of a tunnel or replace the one for its MAC address.
    SetFdb(FdbEntry),
    /// Delete a forwarding entry of a tunnel.
    DeleteFdb(FdbEntry),
}

/// A wish that somebody else's route stands in the way of; nothing is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The route wanted.
    pub desired: Route,
    /// The route, not ours, that holds its key.
    pub holder: Route,
}

/// What to do, in order, and what cannot be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps, to be applied in this order.
    pub steps: Vec<Step>,
    /// Wishes that foreign routes stand in the way of.
    pub conflicts: Vec<Conflict>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// The steps from `observed` to `desired`, changing nothing but what `ownership` claims.
///
/// Order: blackholes first, since they must stand before what they back is announced; then
/// neighbour and forwarding entries, so that no packet waits for resolution; then on-link routes before the gateways
/// behind them; deletions last and in reverse, so that a route whose metric changes is made before
/// it is broken. A route whose key stays is replaced in one message.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, ownership: &Ownership) -> Plan {
    let mut ranked = Vec::new();
    let conflicts = plan_routes(desired, observed, ownership, &mut ranked);
    plan_neighbours(desired, observed, ownership, &mut ranked);
    plan_fdb(desired, observed, ownership, &mut ranked);
    ranked.sort_by_key(|(rank, _)| *rank);
    Plan {
        steps: ranked.into_iter().map(|(_, step)| step).collect(),
        conflicts,
    }
}

fn plan_routes(
    desired: &Desired,
    observed: &Observed,
    ownership: &Ownership,
    ranked: &mut Vec<(u8, Step)>,
) -> Vec<Conflict> {
    let mut present: BTreeMap<RouteKey, Vec<&Route>> = BTreeMap::new();
    for route in &observed.routes {
        present.entry(route.key()).or_default().push(route);
    }
    let mut conflicts = Vec::new();
    for (key, wanted) in &desired.routes {
        let mut there = present.remove(key).unwrap_or_default();
        if let Some(position) = there.iter().position(|route| *route == wanted) {
            there.remove(position);
        } else if let Some(holder) = there.iter().find(|route| !ownership.owns_route(route)) {
            // NLM_F_REPLACE takes the first route with the key, whoever installed it.
            conflicts.push(Conflict {
                desired: wanted.clone(),
                holder: (*holder).clone(),
            });
        } else if there.is_empty() {
            ranked.push((rank(wanted), Step::AddRoute(wanted.clone())));
        } else {
            let from = there.remove(0).clone();
            ranked.push((
                rank(wanted),
                Step::ReplaceRoute {
                    from,
                    to: wanted.clone(),
                },
            ));
        }
        delete_routes(there, ownership, ranked);
    }
    for there in present.into_values() {
        delete_routes(there, ownership, ranked);
    }
    conflicts
}

fn delete_routes(routes: Vec<&Route>, ownership: &Ownership, ranked: &mut Vec<(u8, Step)>) {
    for route in routes
        .into_iter()
        .filter(|route| ownership.may_delete_route(route))
    {
        ranked.push((LAST - rank(route), Step::DeleteRoute(route.clone())));
    }
}

fn plan_neighbours(
    desired: &Desired,
    observed: &Observed,
    ownership: &Ownership,
    ranked: &mut Vec<(u8, Step)>,
) {
    let mut present: BTreeMap<NeighbourKey, &Neighbour> = observed
        .neighbours
        .iter()
        .map(|neighbour| (neighbour.key(), neighbour))
        .collect();
    for (key, wanted) in &desired.neighbours {
        let there = present.remove(key);
        if there != Some(wanted) && there.is_none_or(|n| ownership.owns_neighbour(n)) {
            ranked.push((NEIGHBOUR, Step::SetNeighbour(wanted.clone())));
        }
    }
    for neighbour in present.into_values() {
        if ownership.may_delete_neighbour(neighbour) {
            ranked.push((LAST - NEIGHBOUR, Step::DeleteNeighbour(neighbour.clone())));
        }
    }
}

fn plan_fdb(
    desired: &Desired,
    observed: &Observed,
    ownership: &Ownership,
    ranked: &mut Vec<(u8, Step)>,
) {
    let mut present: BTreeMap<_, &FdbEntry> = observed
        .fdb
        .iter()
        .filter(|entry| ownership.tunnels.contains(&entry.interface))
        .map(|entry| ((entry.interface.clone(), entry.mac), entry))
        .collect();
    for (key, wanted) in &desired.fdb {
        if present.remove(key) != Some(wanted) {
            ranked.push((NEIGHBOUR, Step::SetFdb(wanted.clone())));
        }
    }
    for entry in present.into_values() {
        ranked.push((LAST - NEIGHBOUR, Step::DeleteFdb(entry.clone())));
    }
}

/// Where the making of a route stands; its deletion stands at `LAST` less that.
fn rank(route: &Route) -> u8 {
    match &route.kind {
        RouteKind::Unicast { via } => {
            let direct = route.scope == Scope::Link || via.iter().all(|hop| hop.gateway.is_none());
            if direct { 2 } else { 3 }
        }
        _ => 0,
    }
}

const NEIGHBOUR: u8 = 1;
const LAST: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mac, PROTOCOL, PROTOCOL_BOOT};

    fn wanting(routes: &[Route]) -> Desired {
        let mut desired = Desired::default();
        for route in routes {
            desired.insert_route(route.clone()).unwrap();
        }
        desired
    }

    fn seeing(routes: &[Route]) -> Observed {
        Observed {
            routes: routes.to_vec(),
            ..Observed::default()
        }
    }

    fn net(text: &str) -> ipnetwork::IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn blackholes_come_first_and_gateways_after_links() {
        let gateway = "10.0.0.9".parse().unwrap();
        let far = Route::via(net("10.1.0.0/16"), gateway, "eth0", PROTOCOL);
        let near = Route::on_link(net("10.0.0.9/32"), "eth0", PROTOCOL);
        let hole = Route::blackhole(net("10.9.0.0/26"), PROTOCOL);
        let routes = [far.clone(), near.clone(), hole.clone()];
        let made = plan(
            &wanting(&routes),
            &Observed::default(),
            &Ownership::default(),
        );
        let order = [&hole, &near, &far].map(|route| Step::AddRoute(route.clone()));
        assert_eq!(made.steps, order);
        let unmade = plan(&Desired::default(), &seeing(&routes), &Ownership::default());
        let order = [&far, &near, &hole].map(|route| Step::DeleteRoute(route.clone()));
        assert_eq!(unmade.steps, order);
    }

    #[test]
    fn a_plugins_route_is_adopted_in_place() {
        let from = Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL_BOOT);
        let to = Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL);
        let made = plan(
            &wanting(std::slice::from_ref(&to)),
            &seeing(std::slice::from_ref(&from)),
            &Ownership::default(),
        );
        assert_eq!(made.steps, vec![Step::ReplaceRoute { from, to }]);
    }

    #[test]
    fn a_foreign_route_in_the_way_is_reported_and_kept() {
        let holder = Route::on_link(net("10.65.0.2/32"), "eth0", 4);
        let desired = Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL);
        let made = plan(
            &wanting(std::slice::from_ref(&desired)),
            &seeing(std::slice::from_ref(&holder)),
            &Ownership::default(),
        );
        assert_eq!(
            made,
            Plan {
                steps: Vec::new(),
                conflicts: vec![Conflict { desired, holder }]
            }
        );
    }

    #[test]
    fn a_new_interface_is_spared() {
        let route = Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL_BOOT);
        let neighbour =
            Neighbour::permanent("10.65.0.2".parse().unwrap(), Mac::local([1; 6]), "cali1");
        let observed = Observed {
            routes: vec![route],
            neighbours: vec![neighbour],
            ..Observed::default()
        };
        let mut ownership = Ownership::default();
        assert_eq!(
            plan(&Desired::default(), &observed, &ownership).steps.len(),
            2
        );
        ownership.spared.insert("cali1".to_owned());
        assert_eq!(
            plan(&Desired::default(), &observed, &ownership),
            Plan::default()
        );
    }

    #[test]
    fn a_changed_metric_is_made_before_it_is_broken() {
        let old = Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL);
        let new = Route {
            metric: 5,
            ..old.clone()
        };
        let made = plan(
            &wanting(std::slice::from_ref(&new)),
            &seeing(std::slice::from_ref(&old)),
            &Ownership::default(),
        );
        assert_eq!(
            made.steps,
            vec![Step::AddRoute(new), Step::DeleteRoute(old)]
        );
    }
}
