//! The comparison's part that says how endpoints stand, for the datastore.

use std::collections::BTreeMap;

use margay_model::Key;
use margay_model::status::EndpointState;
use margay_netlink::{Interfaces, Link};
use margay_policy::{Host, HostInterface};

use super::Engine;
use crate::report::Stands;
use crate::standing::Standing;

impl Engine {
    /// Has it told how endpoints stand, where that differs from what is told.
    pub(super) fn publish(&self, stands: &Stands, refused: bool, interfaces: &Interfaces) {
        let region = &self.settings.standing.region;
        let mut endpoints: BTreeMap<Key, EndpointState> = stands
            .iter()
            .filter_map(|(key, (state, _))| {
                let endpoint = self.state.endpoints().get(key)?;
                let key = Key::WorkloadStatus {
                    region: region.clone(),
                    host: endpoint.name.node.clone(),
                    orchestrator: endpoint.name.orchestrator.clone(),
                    workload: format!("{}/{}", endpoint.namespace, endpoint.name.workload),
                    endpoint: endpoint.name.endpoint.clone(),
                };
                Some((key, state.clone()))
            })
            .collect();
        for (name, host) in self.enforcer.hosts() {
            let key = Key::HostEndpointStatus {
                host: self.state.node().to_owned(),
                name: name.to_owned(),
            };
            let state = match refused {
                true => EndpointState::Error,
                false if !self.enforcer.is_settled() => EndpointState::Down,
                false => self.of_host(host, interfaces),
            };
            endpoints.insert(key, state);
        }
        let standing = Some(Standing {
            settings: self.settings.standing.clone(),
            endpoints,
        });
        self.parts.standing.send_if_modified(|told| {
            let differs = *told != standing;
            *told = standing;
            differs
        });
    }

    /// As Felix: a host endpoint that claims no interface which is there is an error.
    fn of_host(&self, host: &Host, interfaces: &Interfaces) -> EndpointState {
        let prefixes = &self.settings.interface_prefixes;
        let own = |link: &&Link| {
            let workload = prefixes.iter().any(|prefix| link.name.starts_with(prefix));
            !link.loopback && !workload
        };
        let claims = |link: &&Link| {
            let addresses: Vec<_> = link.addresses.iter().map(|network| network.ip()).collect();
            host.interface == HostInterface::Every || host.governs(&link.name, &addresses)
        };
        let mut claimed = interfaces.iter().filter(own).filter(claims).peekable();
        if claimed.peek().is_none() {
            return EndpointState::Error;
        }
        match claimed.any(|link| link.up) {
            true => EndpointState::Up,
            false => EndpointState::Down,
        }
    }
}
