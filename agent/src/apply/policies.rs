//! What the comparison has to do with policy: it says what the node is, and hears what is enforced.

use std::collections::BTreeSet;

use margay_model::Key;
use margay_netlink::Interfaces;
use margay_policy::EndpointId;
use margay_route::{Ownership, RouteKey};
use tracing::warn;

use super::Engine;
use crate::calculate::Picture;
use crate::policy::Order;
use crate::state::Endpoint;

impl Engine {
    /// Tells the task that enforces policy what the node is, where that has changed.
    pub(super) fn order_policy(&self, interfaces: &Interfaces, ownership: &Ownership) {
        let order = Some(Order::new(
            &self.state,
            &self.settings,
            interfaces,
            ownership,
        ));
        self.parts.policy.send_if_modified(|told| {
            let differs = *told != order;
            *told = order;
            differs
        });
    }

    /// Writes the files of endpoints that have their routes and whose policy is in force, and removes those of
    /// others; what failed last.
    pub(super) fn write_status_files(&mut self) -> Option<String> {
        let enforced = self.parts.enforced.borrow_and_update();
        let files = self.files.as_mut()?;
        let is_enforced = |key: &Key, endpoint: &Endpoint| {
            let placed = id(key).and_then(|id| enforced.get(&id));
            placed.is_some_and(|placed| {
                placed.interface == endpoint.interface
                    && placed.addresses.iter().eq(&endpoint.addresses)
            })
        };
        let up = self.routed.iter().filter_map(|key| {
            let endpoint = self.state.endpoints().get(key)?;
            is_enforced(key, endpoint).then_some(endpoint)
        });
        let failures = files.set(up).err()?;
        let mut last = None;
        for (path, failed) in failures {
            warn!(path = %path.display(), error = %failed, "an endpoint-status file is not as it should be");
            self.parts.metrics.status_file_failures.inc();
            last = Some(format!("{}: {failed}", path.display()));
        }
        last
    }
}

/// The endpoints that have all their routes.
pub(super) fn routed(picture: &Picture, missing: &BTreeSet<RouteKey>) -> BTreeSet<Key> {
    let works = picture.endpoints.iter().filter(|(_, placed)| {
        !placed.routes.is_empty()
            && placed.hindrance.is_none()
            && !placed.routes.iter().any(|route| missing.contains(route))
    });
    works.map(|(key, _)| key.clone()).collect()
}

/// An endpoint as policy names it.
fn id(key: &Key) -> Option<EndpointId> {
    match key {
        Key::Resource {
            namespace, name, ..
        } => Some(EndpointId {
            namespace: namespace.clone().unwrap_or_default(),
            name: name.clone(),
        }),
        _ => None,
    }
}
