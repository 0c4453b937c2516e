//! Host endpoints.

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::scalar::Protocol;

/// Interfaces of a node that policies apply to.
pub type HostEndpoint = Resource<HostEndpointSpec>;

object! {
    /// Specification of a [`HostEndpoint`].
    pub struct HostEndpointSpec {
        /// The node.
        "node" => pub node: String,
        /// The interface; `*` for all that lead to no workload.
        "interfaceName" => pub interface_name: String,
        /// Addresses that identify the interface.
        "expectedIPs" => pub expected_ips: Vec<String>,
        /// Profiles, in order.
        "profiles" => pub profiles: Vec<String>,
        /// Named ports.
        "ports" => pub ports: Vec<EndpointPort>,
    }
}

object! {
    /// A port with a name that rules can use.
    pub struct EndpointPort {
        /// The name.
        "name" => pub name: String,
        /// The protocol.
        "protocol" => pub protocol: Option<Protocol>,
        /// The port.
        "port" => pub port: Option<u16>,
    }
}

impl Spec for HostEndpointSpec {
    const KIND: Kind = Kind::HostEndpoint;
}
