//! Who is meant by what the user writes.

use std::net::IpAddr;

use anyhow::{Result, bail};
use margay_model::names::EndpointName;
use margay_model::resource::cluster::NodeSpec;
use margay_model::{AnyResource, Cidr, Family, Key};
use margay_policy::EndpointId;
use serde::Serialize;

use super::World;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// What it is, for people: `prod/web-0`, `node n1`, …
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The node it is on, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The workload endpoint, `<namespace>/<name>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// Whether it is the node itself.
    pub host: bool,
}

/// Somebody with all addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    addresses: Vec<IpAddr>,
    end: End,
}

impl Ends {
    /// The end by its first address of a family.
    pub(super) fn of(&self, family: Family) -> Option<End> {
        let mut addresses = self.addresses.iter();
        let address = addresses.find(|address| Family::of(**address) == family)?;
        Some(End {
            address: *address,
            ..self.end.clone()
        })
    }
}

/// Who is meant: an address; `namespace/pod` or `namespace/endpoint`; `node/interface` of a host endpoint;
/// the name of a workload endpoint, a host endpoint, a node or a network set.
///
/// # Errors
/// Nobody, or several.
pub(super) fn find(world: &World, text: &str) -> Result<Ends> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(by_address(world, address));
    }
    let mut found: Vec<Ends> = Vec::new();
    for (key, resource) in &world.state.resources {
        found.extend(named(world, key, resource, text));
    }
    // A workload is meant before what else has its name.
    let workloads = |ends: &Ends| ends.end.endpoint.is_some();
    if found.iter().any(workloads) {
        found.retain(workloads);
    }
    let names: Vec<String> = found
        .iter()
        .map(|ends| match &ends.end.endpoint {
            Some(id) => id.to_string(),
            None => ends.end.name.clone(),
        })
        .collect();
    match found.len() {
        0 => bail!(
            "nothing is named {text:?}: give namespace/pod, the name of a workload endpoint, host \
             endpoint, node or network set, node/interface, or an address"
        ),
        1 => {
            let ends = found.remove(0);
            if ends.addresses.is_empty() {
                bail!(
                    "{} has no address in the datastore; give one",
                    ends.end.name
                );
            }
            Ok(ends)
        }
        _ => bail!("{text:?} may be any of {}; say which", names.join(", ")),
    }
}

fn named(world: &World, key: &Key, resource: &AnyResource, text: &str) -> Option<Ends> {
    let Key::Resource {
        namespace, name, ..
    } = key
    else {
        return None;
    };
    let (before, after) = match text.split_once('/') {
        Some((before, after)) => (Some(before), after),
        None => (None, text),
    };
    match resource {
        AnyResource::WorkloadEndpoint(endpoint) => {
            let in_place = before.is_none_or(|before| namespace.as_deref() == Some(before));
            let pod = endpoint.spec.pod.as_deref();
            let workload = EndpointName::parse(name).map(|parsed| parsed.workload);
            let meant = name == after
                || before.is_some() && (pod == Some(after) || workload.as_deref() == Some(after));
            (in_place && meant)
                .then(|| workload_end(key, endpoint))
                .flatten()
        }
        AnyResource::HostEndpoint(endpoint) => {
            let spec = &endpoint.spec;
            let meant = match before {
                None => name == after,
                Some(node) => spec.node == node && spec.interface_name == after,
            };
            if !meant {
                return None;
            }
            let mut addresses: Vec<IpAddr> = spec
                .expected_ips
                .iter()
                .filter_map(|ip| ip.parse().ok())
                .collect();
            if addresses.is_empty() {
                addresses = node_spec(world, &spec.node)
                    .map(addresses_of)
                    .unwrap_or_default();
            }
            Some(host(&spec.node, addresses))
        }
        AnyResource::Node(node) if before.is_none() && name == after => {
            Some(host(name, addresses_of(&node.spec)))
        }
        AnyResource::GlobalNetworkSet(set) if before.is_none() && name == after => {
            Some(network_set(&format!("network set {name}"), &set.spec.nets))
        }
        AnyResource::NetworkSet(set) if namespace.as_deref() == before && name == after => {
            Some(network_set(&format!("network set {text}"), &set.spec.nets))
        }
        _ => None,
    }
}

fn by_address(world: &World, address: IpAddr) -> Ends {
    let mut end = End {
        name: "an address outside".to_owned(),
        address,
        node: None,
        endpoint: None,
        host: false,
    };
    let addresses = vec![address];
    let mut sets = Vec::new();
    let mut owner = None;
    for (key, resource) in &world.state.resources {
        match resource {
            AnyResource::WorkloadEndpoint(endpoint) => {
                if let Some(ends) = workload_end(key, endpoint)
                    && ends.addresses.contains(&address)
                {
                    return Ends {
                        addresses,
                        end: ends.end,
                    };
                }
            }
            AnyResource::Node(node) if addresses_of(&node.spec).contains(&address) => {
                owner = owner.or_else(|| Some(node.metadata.name.clone()));
            }
            AnyResource::HostEndpoint(endpoint) => {
                let mut expected = endpoint.spec.expected_ips.iter();
                if expected.any(|ip| ip.parse() == Ok(address)) {
                    owner = owner.or_else(|| Some(endpoint.spec.node.clone()));
                }
            }
            AnyResource::GlobalNetworkSet(set) if holds(&set.spec.nets, address) => {
                sets.push(set.metadata.name.clone());
            }
            AnyResource::NetworkSet(set) if holds(&set.spec.nets, address) => {
                let Key::Resource { namespace, .. } = key else {
                    continue;
                };
                let namespace = namespace.as_deref().unwrap_or_default();
                sets.push(format!("{namespace}/{}", set.metadata.name));
            }
            _ => {}
        }
    }
    if let Some(node) = owner {
        return host(&node, addresses);
    }
    if !sets.is_empty() {
        end.name = format!("an address outside, of network set {}", sets.join(", "));
    }
    Ends { addresses, end }
}

fn workload_end(
    key: &Key,
    endpoint: &margay_model::resource::endpoint::WorkloadEndpoint,
) -> Option<Ends> {
    let id = EndpointId::of(key)?;
    let parsed = EndpointName::parse(&id.name);
    let workload = match (&endpoint.spec.pod, &parsed) {
        (Some(pod), _) if !pod.is_empty() => pod.clone(),
        (_, Some(parsed)) if parsed.orchestrator != "libnetwork" => parsed.workload.clone(),
        _ => id.name.clone(),
    };
    let addresses = single(&endpoint.spec.ip_networks);
    let address = addresses.first().copied();
    Some(Ends {
        end: End {
            name: format!("{}/{workload}", id.namespace),
            address: address.unwrap_or_else(|| IpAddr::from([0; 4])),
            node: endpoint
                .spec
                .node
                .clone()
                .or_else(|| parsed.map(|parsed| parsed.node)),
            endpoint: Some(id),
            host: false,
        },
        addresses,
    })
}

fn host(node: &str, addresses: Vec<IpAddr>) -> Ends {
    Ends {
        end: End {
            name: format!("node {node}"),
            address: addresses
                .first()
                .copied()
                .unwrap_or_else(|| IpAddr::from([0; 4])),
            node: Some(node.to_owned()),
            endpoint: None,
            host: true,
        },
        addresses,
    }
}

fn network_set(name: &str, nets: &[String]) -> Ends {
    let parsed = nets.iter().filter_map(|net| net.parse::<Cidr>().ok());
    let addresses: Vec<IpAddr> = parsed.map(|net| net.address()).collect();
    Ends {
        end: End {
            name: name.to_owned(),
            address: addresses
                .first()
                .copied()
                .unwrap_or_else(|| IpAddr::from([0; 4])),
            node: None,
            endpoint: None,
            host: false,
        },
        addresses,
    }
}

/// The addresses of a node, those of BGP first.
pub(super) fn addresses_of(spec: &NodeSpec) -> Vec<IpAddr> {
    let bgp = spec.bgp.iter();
    let bgp = bgp.flat_map(|bgp| [bgp.ipv4_address.clone(), bgp.ipv6_address.clone()]);
    let others = spec.addresses.iter().map(|address| address.address.clone());
    let texts = bgp.flatten().chain(others);
    let mut addresses = Vec::new();
    for text in texts {
        let bare = text.split('/').next().unwrap_or_default();
        if let Ok(address) = bare.parse()
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// A node's specification.
pub(super) fn node_spec<'w>(world: &'w World, node: &str) -> Option<&'w NodeSpec> {
    let key = Key::resource(margay_model::Kind::Node, node);
    match world.state.resources.get(&key) {
        Some(AnyResource::Node(node)) => Some(&node.spec),
        _ => None,
    }
}

fn holds(nets: &[String], address: IpAddr) -> bool {
    let mut parsed = nets.iter().filter_map(|net| net.parse::<Cidr>().ok());
    parsed.any(|net| net.contains(address))
}

fn single(nets: &[String]) -> Vec<IpAddr> {
    let parsed = nets.iter().filter_map(|net| net.parse::<Cidr>().ok());
    parsed.map(|net| net.address()).collect()
}
