//! An endpoint's interfaces, made for Docker to move into its sandbox.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_endpoint::{Address, EndpointPlan, EndpointSpec, Mark, SpecError};
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_route::{Mac, Scope};

use crate::network::Network;

/// The names of an endpoint's two interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The host's end.
    pub host: String,
    /// The container's end until Docker moves it.
    pub container: String,
}

impl Names {
    /// As Calico's plugin names them, after the first eleven digits of the endpoint's id.
    pub fn of(endpoint_id: &str) -> Self {
        let digits: String = endpoint_id.chars().take(11).collect();
        Self {
            host: format!("cali{digits}"),
            container: format!("temp{digits}"),
        }
    }
}

/// The mark on an endpoint's host interface.
pub fn mark(endpoint_id: &str) -> Mark {
    Mark::new(MARK_NETWORK, endpoint_id, "eth0")
}

/// The endpoint's id in an interface's alias, where it bears one of this driver's marks.
pub fn endpoint_of(alias: &str) -> Option<&str> {
    Mark::container_of(alias, MARK_NETWORK, "eth0")
}

/// What is set up of an endpoint; Docker does the container's side.
///
/// A container asks for its next hop by ARP, so the host must answer for it: the host's end bears it, with scope
/// `host`, so that it is never chosen as a source. It lives exactly as long as the interface.
///
/// # Errors
/// The MTU cannot be had.
pub fn plan(
    endpoint: &WorkloadEndpoint,
    endpoint_id: &str,
    network: &Network,
    mac: Mac,
    addresses: &[IpAddr],
    mtu: Option<u32>,
) -> Result<EndpointPlan, SpecError> {
    let names = Names::of(endpoint_id);
    let recorded = endpoint.spec.interface_name.clone();
    let mut plan = EndpointPlan::new(&EndpointSpec {
        host_name: recorded.unwrap_or(names.host),
        container_name: names.container,
        container_mac: mac,
        mtu,
        queues: 1,
        addresses: addresses.to_vec(),
        routes: Vec::new(),
        include_default_routes: false,
        allow_ip_forwarding: false,
        mark: mark(endpoint_id),
    })?;
    let on_host = |address: IpAddr, scope| Address {
        network: IpNetwork::from(address),
        scope,
        nodad: address.is_ipv6(),
    };
    let has = |v4: bool| addresses.iter().any(|address| address.is_ipv4() == v4);
    if let Some(gateway) = network.gateway.filter(|_| has(true)) {
        plan.host
            .addresses
            .push(on_host(gateway.into(), Scope::Host));
    }
    if let Some(gateway) = network.gateway_v6().filter(|_| has(false)) {
        plan.host
            .addresses
            .push(on_host(gateway.into(), Scope::Link));
    }
    Ok(plan)
}

const MARK_NETWORK: &str = "docker";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_host_end_bears_the_networks_next_hops() {
        let id = "6b727a5521310e98b03dc3915f5319209ac97270b03d7bef6e1235c4cba1d12e";
        let network = Network {
            gateway: Some([169, 254, 34, 155].into()),
            ..Network::default()
        };
        let addresses = ["192.168.0.1".parse().unwrap(), "fd80::1".parse().unwrap()];
        let endpoint = WorkloadEndpoint::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let plan = plan(&endpoint, id, &network, mac, &addresses, Some(1400)).unwrap();
        assert_eq!(plan.veth.host_name, "cali6b727a55213");
        assert_eq!(plan.veth.container_name, "temp6b727a55213");
        assert_eq!(endpoint_of(plan.veth.mark.as_str()), Some(id));
        let held: Vec<String> = plan
            .host
            .addresses
            .iter()
            .map(|address| format!("{} {:?}", address.network, address.scope))
            .collect();
        let expected = [
            "fe80::ecee:eeff:feee:eeee/64 Link",
            "169.254.34.155/32 Host",
            "fe80::a9fe:229b/128 Link",
        ];
        assert_eq!(held, expected);
    }

    #[test]
    fn an_endpoint_of_one_family_has_one_next_hop() {
        let network = Network {
            gateway: Some([169, 254, 34, 155].into()),
            ..Network::default()
        };
        let endpoint = WorkloadEndpoint::default();
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let only = ["192.168.0.1".parse().unwrap()];
        let plan = plan(&endpoint, "0123456789abcdef", &network, mac, &only, None).unwrap();
        assert_eq!(plan.host.addresses.len(), 1);
    }
}
