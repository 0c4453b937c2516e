//! What selectors match: endpoints and network sets, each with all its labels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_model::names::EndpointName;
use margay_model::{AnyResource, Cidr, Key, Kind};

use super::State;

/// An endpoint or a network set.
pub(super) struct Item<'a> {
    pub(super) key: &'a Key,
    pub(super) resource: &'a AnyResource,
    /// Its own labels and those it inherits.
    pub(super) labels: BTreeMap<String, String>,
    /// The prefixes it stands for.
    pub(super) nets: Vec<Cidr>,
    /// Its named ports: name, protocol number, port.
    pub(super) ports: Vec<(String, u8, u16)>,
}

impl Item<'_> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Its profiles, in order.
    pub(super) fn profiles(&self) -> &[String] {
        match self.resource {
            AnyResource::WorkloadEndpoint(endpoint) => &endpoint.spec.profiles,
            AnyResource::HostEndpoint(endpoint) => &endpoint.spec.profiles,
            _ => &[],
        }
    }

    /// Whether it is a host endpoint for every interface.
    pub(super) fn claims_everything(&self) -> bool {
        matches!(self.resource, AnyResource::HostEndpoint(e) if e.spec.interface_name == "*")
    }

    pub(super) fn holds(&self, address: IpAddr) -> bool {
        self.nets.iter().any(|net| net.contains(address))
    }

    /// Whether a port of this name and protocol is this port of this address.
    pub(super) fn names(&self, name: &str, protocol: u8, address: IpAddr, port: u16) -> bool {
        self.nets.contains(&Cidr::host(address))
            && self
                .ports
                .iter()
                .any(|(n, proto, number)| n == name && *proto == protocol && *number == port)
    }
}

/// Everything that selectors can match.
pub(super) fn items(state: &State) -> Vec<Item<'_>> {
    let all = state.resources.iter();
    all.filter_map(|(key, resource)| item(state, key, resource))
        .collect()
}

fn item<'a>(state: &State, key: &'a Key, resource: &'a AnyResource) -> Option<Item<'a>> {
    let Key::Resource {
        namespace, name, ..
    } = key
    else {
        return None;
    };
    let mut labels = resource.metadata().labels.clone();
    if let Some(namespace) = namespace {
        labels.retain(|label, _| !label.starts_with("pcns.") && !label.starts_with("pcsa."));
        labels.insert("projectcalico.org/namespace".to_owned(), namespace.clone());
    }
    let mut ports = Vec::new();
    let (parents, nets) = match resource {
        AnyResource::WorkloadEndpoint(endpoint) => {
            EndpointName::parse(name)?;
            let spec = &endpoint.spec;
            if let Some(account) = spec.service_account_name.as_ref().filter(|a| !a.is_empty()) {
                let label = "projectcalico.org/serviceaccount".to_owned();
                labels.insert(label, account.clone());
            }
            for port in &spec.ports {
                if let Some(protocol) = port.protocol.as_ref().and_then(|p| p.number()) {
                    ports.push((port.name.clone(), protocol, port.port));
                }
            }
            let nets = parsed(&spec.ip_networks);
            if nets.is_empty() {
                return None;
            }
            (spec.profiles.clone(), nets)
        }
        AnyResource::HostEndpoint(endpoint) => {
            let spec = &endpoint.spec;
            for port in &spec.ports {
                if let Some(protocol) = port.protocol.as_ref().and_then(|p| p.number()) {
                    ports.push((port.name.clone(), protocol, port.port.unwrap_or(0)));
                }
            }
            let ips = spec.expected_ips.iter();
            let ips = ips.filter_map(|ip| ip.parse().ok()).map(Cidr::host);
            (spec.profiles.clone(), ips.collect())
        }
        AnyResource::NetworkSet(set) => {
            let namespace = namespace.as_deref().unwrap_or_default();
            (vec![format!("kns.{namespace}")], parsed(&set.spec.nets))
        }
        AnyResource::GlobalNetworkSet(set) => (Vec::new(), parsed(&set.spec.nets)),
        _ => return None,
    };
    for parent in parents {
        let profile = state.resources.get(&Key::resource(Kind::Profile, parent));
        if let Some(AnyResource::Profile(profile)) = profile {
            for (label, value) in &profile.spec.labels_to_apply {
                labels.entry(label.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    Some(Item {
        key,
        resource,
        labels,
        nets,
        ports,
    })
}

fn parsed(texts: &[String]) -> Vec<Cidr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
