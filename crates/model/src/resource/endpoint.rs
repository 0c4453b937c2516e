//! Workload endpoints.

mod qos;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hostendpoint::{named_port, port_number, profiles};
use super::{Resource, Spec};
use crate::cidr::{Cidr, Family};
use crate::json::Extra;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::names::EndpointName;
use crate::problem::Problems;
use crate::scalar::Protocol;
use crate::syntax::{is_interface_name, is_mac};

pub use qos::QosControls;

/// One interface of one workload.
pub type WorkloadEndpoint = Resource<WorkloadEndpointSpec>;

object! {
    /// Specification of a [`WorkloadEndpoint`].
    pub struct WorkloadEndpointSpec {
        /// `k8s`, `cni`, `libnetwork`, `openstack`, …
        "orchestrator" => pub orchestrator: Option<String>,
        /// Workload id, where neither a pod nor a container id says it.
        "workload" => pub workload: Option<String>,
        /// Node the workload runs on.
        "node" => pub node: Option<String>,
        /// Id of the current container or sandbox.
        "containerID" => pub container_id: Option<String>,
        /// Pod name.
        "pod" => pub pod: Option<String>,
        /// Interface name in the container, or the orchestrator's endpoint id.
        "endpoint" => pub endpoint: Option<String>,
        /// Kubernetes service account.
        "serviceAccountName" => pub service_account_name: Option<String>,
        /// Addresses as /32 and /128 prefixes.
        "ipNetworks" => pub ip_networks: Vec<String>,
        /// Floating addresses.
        "ipNATs" => pub ip_nats: Option<Value>,
        /// IPv4 gateway of the workload (OpenStack).
        "ipv4Gateway" => pub ipv4_gateway: Option<String>,
        /// IPv6 gateway of the workload (OpenStack).
        "ipv6Gateway" => pub ipv6_gateway: Option<String>,
        /// Profiles, in order.
        "profiles" => pub profiles: Vec<String>,
        /// Host-side interface.
        "interfaceName" => pub interface_name: Option<String>,
        /// MAC address of the container's interface.
        "mac" => pub mac: Option<String>,
        /// Named ports.
        "ports" => pub ports: Vec<WorkloadPort>,
        /// Prefixes the workload may use as source beside its own addresses.
        "allowSpoofedSourcePrefixes" => pub allow_spoofed_source_prefixes: Vec<String>,
        /// Bandwidth, packet rate and connection limits.
        "qosControls" => pub qos_controls: Option<QosControls>,
    }
}

/// A port of a workload: one with a name that rules can use, or one that the host forwards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkloadPort {
    /// The name; may be empty where the host forwards the port.
    pub name: String,
    /// The protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The port.
    pub port: u16,
    /// The host's port; 0 for none.
    pub host_port: u16,
    /// The host's address; any when empty.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl WorkloadEndpointSpec {
    /// The identity that makes the endpoint's name; `None` where a part is missing.
    pub fn identity(&self) -> Option<EndpointName> {
        let orchestrator = self.orchestrator.clone()?;
        let workload = match orchestrator.as_str() {
            "k8s" => self.pod.clone(),
            "cni" => self.container_id.clone(),
            "libnetwork" => Some("libnetwork".to_owned()),
            _ => self.workload.clone(),
        };
        Some(EndpointName {
            node: self.node.clone()?,
            orchestrator,
            workload: workload?,
            endpoint: self.endpoint.clone()?,
        })
    }
}

impl WorkloadEndpointSpec {
    fn has_address(&self, wanted: impl Fn(&Cidr) -> bool) -> bool {
        let mut networks = self
            .ip_networks
            .iter()
            .filter_map(|network| network.parse().ok());
        networks.any(|cidr| wanted(&cidr))
    }

    /// Floating addresses lead to addresses of the endpoint.
    fn nats_fit(&self, problems: &mut Problems) {
        let nats = self.ip_nats.as_ref().and_then(Value::as_array);
        problems.items("ipNATs", nats.into_iter().flatten(), |problems, nat| {
            let address = |field: &str| nat[field].as_str().unwrap_or_default();
            for field in ["internalIP", "externalIP"] {
                let text = address(field);
                let fits = text.parse::<std::net::IpAddr>().is_ok();
                problems.require(fits, field, text, "an IP address");
            }
            let internal = address("internalIP");
            if let Ok(ip) = internal.parse::<std::net::IpAddr>()
                && !self.has_address(|cidr| cidr.address() == ip)
            {
                problems.refuse_field("internalIP", internal, "an address of ipNetworks");
            }
        });
    }
}

impl Spec for WorkloadEndpointSpec {
    const KIND: Kind = Kind::WorkloadEndpoint;

    fn set_defaults(metadata: &mut Metadata, spec: &mut Self) {
        let forced = [
            (NAMESPACE_LABEL, metadata.namespace.clone()),
            (ORCHESTRATOR_LABEL, spec.orchestrator.clone()),
        ];
        for (label, value) in forced {
            if let Some(value) = value {
                metadata.labels.insert(label.to_owned(), value);
            }
        }
    }

    fn validate_name(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let name = &metadata.name;
        match spec.identity().map(|identity| identity.encode()) {
            Some(Ok(expected)) => {
                let allowed = format!("{expected}, as the specification says");
                problems.require(*name == expected, "name", name, allowed);
            }
            Some(Err(error)) => problems.refuse_field("name", name, error.to_string()),
            None => problems.refuse_field(
                "name",
                name,
                "a specification with orchestrator, node, endpoint and the workload's id",
            ),
        }
    }

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        problems.items("ipNetworks", &spec.ip_networks, |problems, network| {
            let cidr: Option<Cidr> = network.parse().ok();
            if cidr.is_none_or(|cidr| cidr.length() != cidr.family().width()) {
                problems.refuse(network, "an address as a prefix of /32 or /128");
            }
        });
        for (name, gateway, family) in [
            ("ipv4Gateway", &spec.ipv4_gateway, Family::V4),
            ("ipv6Gateway", &spec.ipv6_gateway, Family::V6),
        ] {
            let Some(gateway) = gateway else { continue };
            problems.address(name, gateway, Some(family));
            if !spec.has_address(|cidr| cidr.family() == family) {
                let allowed = format!("none where ipNetworks has no {family} address");
                problems.refuse_field(name, gateway, allowed);
            }
        }
        spec.nats_fit(problems);
        profiles(&spec.profiles, problems);
        if let Some(interface) = &spec.interface_name {
            let allowed = "a name of at most 15 of A-Z, a-z, 0-9, _, . and -";
            problems.require(
                is_interface_name(interface),
                "interfaceName",
                interface,
                allowed,
            );
        }
        if let Some(mac) = &spec.mac {
            problems.require(
                is_mac(mac),
                "mac",
                mac,
                "a MAC address such as 02:00:00:00:00:01",
            );
        }
        problems.items("ports", &spec.ports, |problems, port| {
            let protocol = port.protocol.as_ref();
            if port.name.is_empty() && port.host_port != 0 {
                port_number(protocol, port.port, problems);
            } else {
                named_port(&port.name, protocol, port.port, problems);
            }
            problems.address("hostIP", &port.host_ip, None);
        });
        let prefixes = &spec.allow_spoofed_source_prefixes;
        problems.items(
            "allowSpoofedSourcePrefixes",
            prefixes,
            |problems, prefix| {
                problems.cidr_here(prefix);
            },
        );
        if let Some(controls) = &spec.qos_controls {
            problems.field("qosControls", |problems| controls.check(problems));
        }
    }
}

/// The label that holds an endpoint's namespace.
pub const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// The label that holds an endpoint's orchestrator.
pub const ORCHESTRATOR_LABEL: &str = "projectcalico.org/orchestrator";
