//! Host endpoints.

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::scalar::Protocol;
use crate::syntax::{is_dns_subdomain, is_interface_name, is_port_name};

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

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let (node, interface) = (&spec.node, &spec.interface_name);
        problems.require(!node.is_empty(), "node", node, "the name of a node");
        let fits = interface.is_empty() || interface == "*" || is_interface_name(interface);
        problems.require(
            fits,
            "interfaceName",
            interface,
            "the name of an interface, or *",
        );
        if interface.is_empty() && spec.expected_ips.is_empty() {
            let allowed = "an interface, where expectedIPs is empty";
            problems.refuse_field("interfaceName", interface, allowed);
        }
        problems.items("expectedIPs", &spec.expected_ips, |problems, ip| {
            if ip.parse::<std::net::IpAddr>().is_err() {
                problems.refuse(ip, "an IP address");
            }
        });
        profiles(&spec.profiles, problems);
        problems.items("ports", &spec.ports, |problems, port| {
            named_port(
                &port.name,
                port.protocol.as_ref(),
                port.port.unwrap_or(0),
                problems,
            );
        });
    }
}

/// Checks the profiles of an endpoint.
pub(super) fn profiles(profiles: &[String], problems: &mut Problems) {
    problems.items("profiles", profiles, |problems, profile| {
        if !is_dns_subdomain(profile) {
            problems.refuse(profile, "the name of a Profile");
        }
    });
}

/// Checks a port that rules can name.
pub(super) fn named_port(
    name: &str,
    protocol: Option<&Protocol>,
    port: u16,
    problems: &mut Problems,
) {
    problems.require(
        is_port_name(name),
        "name",
        name,
        "at most 128 of A-Z, a-z, 0-9, _, . and -",
    );
    port_number(protocol, port, problems);
}

/// Checks protocol and number of a port.
pub(super) fn port_number(protocol: Option<&Protocol>, port: u16, problems: &mut Problems) {
    if !protocol.is_some_and(Protocol::has_ports) {
        let found = protocol.map(Protocol::to_string).unwrap_or_default();
        problems.refuse_field("protocol", found, "TCP, UDP, SCTP");
    }
    problems.range("port", Some(port), 1..=u16::MAX);
}
