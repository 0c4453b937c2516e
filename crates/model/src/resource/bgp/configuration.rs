//! Settings of a cluster's or a node's BGP.

use super::peer::Password;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::resource::{Resource, Spec};
use crate::scalar::{AsNumber, GoDuration, LogSeverity, Switch};

/// Settings of BGP: `default`, or `node.<node>`.
pub type BGPConfiguration = Resource<BGPConfigurationSpec>;

words! {
    /// The addresses BGP listens on.
    pub enum BindMode {
        /// All.
        None = "None",
        /// The node's own.
        NodeIP = "NodeIP",
    }
}

words! {
    /// The pools whose routes BGP brings into the kernel.
    pub enum ProgramClusterRoutes {
        /// All.
        Enabled = "Enabled",
        /// None.
        Disabled = "Disabled",
        /// Those with IP-in-IP.
        EnabledIPIPOnly = "EnabledIPIPOnly",
        /// Those without encapsulation.
        EnabledNoEncapOnly = "EnabledNoEncapOnly",
    }
}

object! {
    /// Specification of a [`BGPConfiguration`].
    pub struct BGPConfigurationSpec {
        /// From which severity on is logged; `Info` when absent.
        "logSeverityScreen" => pub log_severity_screen: LogSeverity,
        /// Whether all nodes peer with each other; true when absent.
        "nodeToNodeMeshEnabled" => pub node_to_node_mesh_enabled: Option<bool>,
        /// AS number of nodes that have none of their own; 64512 when absent.
        "asNumber" => pub as_number: Option<AsNumber>,
        /// Load balancer addresses of services to announce.
        "serviceLoadBalancerIPs" => pub service_load_balancer_ips: Vec<CidrBlock>,
        /// External addresses of services to announce.
        "serviceExternalIPs" => pub service_external_ips: Vec<CidrBlock>,
        /// Cluster addresses of services to announce.
        "serviceClusterIPs" => pub service_cluster_ips: Vec<CidrBlock>,
        /// Whether load balancer addresses are announced as their whole block.
        "serviceLoadBalancerAggregation" => pub service_load_balancer_aggregation: Switch,
        /// Names for communities.
        "communities" => pub communities: Vec<Community>,
        /// Communities of announced prefixes.
        "prefixAdvertisements" => pub prefix_advertisements: Vec<PrefixAdvertisement>,
        /// TCP port; 179 when absent.
        "listenPort" => pub listen_port: Option<u16>,
        /// Password between all nodes.
        "nodeMeshPassword" => pub node_mesh_password: Option<Password>,
        /// How long routes outlive a restart; 120 s when absent.
        "nodeMeshMaxRestartTime" => pub node_mesh_max_restart_time: Option<GoDuration>,
        /// The addresses BGP listens on.
        "bindMode" => pub bind_mode: Option<BindMode>,
        /// Interfaces whose addresses are no routes, by name or pattern.
        "ignoredInterfaces" => pub ignored_interfaces: Vec<String>,
        /// IPv4 address the host presents to workloads.
        "localWorkloadPeeringIPV4" => pub local_workload_peering_ipv4: String,
        /// IPv6 address the host presents to workloads.
        "localWorkloadPeeringIPV6" => pub local_workload_peering_ipv6: String,
        /// The pools whose routes BGP brings into the kernel.
        "programClusterRoutes" => pub program_cluster_routes: Option<ProgramClusterRoutes>,
        /// Kernel priority of IPv4 routes; 1024 when absent.
        "ipv4NormalRoutePriority" => pub ipv4_normal_route_priority: Option<i64>,
        /// Kernel priority of IPv6 routes; 1024 when absent.
        "ipv6NormalRoutePriority" => pub ipv6_normal_route_priority: Option<i64>,
    }
}

object! {
    /// A prefix in a list of objects.
    pub struct CidrBlock {
        /// The prefix.
        "cidr" => pub cidr: String,
    }
}

object! {
    /// A name for a community.
    pub struct Community {
        /// The name.
        "name" => pub name: String,
        /// `aa:nn` or `aa:nn:mm`.
        "value" => pub value: String,
    }
}

object! {
    /// The communities of an announced prefix.
    pub struct PrefixAdvertisement {
        /// The prefix.
        "cidr" => pub cidr: String,
        /// Names or values of communities.
        "communities" => pub communities: Vec<String>,
    }
}

impl Spec for BGPConfigurationSpec {
    const KIND: Kind = Kind::BGPConfiguration;

    fn set_defaults(_metadata: &mut Metadata, spec: &mut Self) {
        if spec.log_severity_screen.as_str().is_empty() {
            spec.log_severity_screen = LogSeverity::Info;
        }
        if spec.service_load_balancer_aggregation.as_str().is_empty() {
            spec.service_load_balancer_aggregation = Switch::Enabled;
        }
    }
}
