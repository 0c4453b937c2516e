//! Settings of a cluster's or a node's BGP.

use super::peer::Password;
use crate::cidr::Family;
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::resource::{Resource, Spec};
use crate::scalar::{AsNumber, GoDuration, LogSeverity, Switch, Word};
use crate::syntax::{is_community, is_interface_pattern};

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

impl BGPConfigurationSpec {
    /// The lists of prefixes of services, with their names.
    pub fn service_blocks(&self) -> [(&'static str, &[CidrBlock]); 3] {
        [
            ("serviceLoadBalancerIPs", &self.service_load_balancer_ips),
            ("serviceExternalIPs", &self.service_external_ips),
            ("serviceClusterIPs", &self.service_cluster_ips),
        ]
    }

    fn only_what_nodes_have(&self, problems: &mut Problems) {
        let mesh = self.node_to_node_mesh_enabled.is_some();
        let cluster_wide = [
            ("nodeToNodeMeshEnabled", mesh),
            ("asNumber", self.as_number.is_some()),
            ("nodeMeshPassword", self.node_mesh_password.is_some()),
            (
                "nodeMeshMaxRestartTime",
                self.node_mesh_max_restart_time.is_some(),
            ),
        ];
        let services = self
            .service_blocks()
            .map(|(name, blocks)| (name, !blocks.is_empty()));
        for (name, given) in cluster_wide.into_iter().chain(services) {
            problems.require(
                !given,
                name,
                "given",
                "none but in the object named default",
            );
        }
    }

    fn words(&self, problems: &mut Problems) {
        let severity = self.log_severity_screen.as_str();
        let known = LogSeverity::ALLOWED
            .iter()
            .any(|word| word.eq_ignore_ascii_case(severity));
        let allowed = LogSeverity::ALLOWED.join(", ");
        problems.require(
            severity.is_empty() || known,
            "logSeverityScreen",
            severity,
            allowed,
        );
        if !self.service_load_balancer_aggregation.as_str().is_empty() {
            let aggregation = &self.service_load_balancer_aggregation;
            problems.word("serviceLoadBalancerAggregation", aggregation);
        }
        problems.optional_word("bindMode", self.bind_mode.as_ref());
        problems.optional_word("programClusterRoutes", self.program_cluster_routes.as_ref());
    }

    /// Communities are given by name or value, and no name is without use.
    fn communities_fit(&self, problems: &mut Problems) {
        problems.at_most("communities", self.communities.len(), MOST_NAMES);
        problems.items("communities", &self.communities, |problems, community| {
            let (name, value) = (&community.name, &community.value);
            problems.require(!name.is_empty(), "name", name, "a name");
            problems.require(is_community(value), "value", value, COMMUNITY);
            let used = self
                .prefix_advertisements
                .iter()
                .flat_map(|prefix| &prefix.communities);
            if !used.into_iter().any(|used| used == name) {
                problems.refuse_field("name", name, "a name that prefixAdvertisements use");
            }
        });
        let prefixes = &self.prefix_advertisements;
        problems.at_most("prefixAdvertisements", prefixes.len(), MOST_NAMES);
        problems.items("prefixAdvertisements", prefixes, |problems, prefix| {
            problems.field("cidr", |problems| {
                problems.cidr_here(&prefix.cidr);
            });
            problems.at_most("communities", prefix.communities.len(), MOST_PER_PREFIX);
            problems.items("communities", &prefix.communities, |problems, community| {
                let named = self
                    .communities
                    .iter()
                    .any(|known| known.name == *community);
                if !named && !is_community(community) {
                    let allowed = format!("a name of spec.communities, or {COMMUNITY}");
                    problems.refuse(community, allowed);
                }
            });
        });
    }
}

impl CidrBlock {
    fn check(&self, problems: &mut Problems) {
        problems.field("cidr", |problems| {
            problems.cidr_here(&self.cidr);
        });
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

    fn validate(metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        if metadata.name != "default" {
            spec.only_what_nodes_have(problems);
        }
        spec.words(problems);
        spec.communities_fit(problems);
        for (name, blocks) in spec.service_blocks() {
            problems.items(name, blocks, |problems, block| block.check(problems));
        }
        problems.range("listenPort", spec.listen_port, 1..=u16::MAX);
        if spec.node_to_node_mesh_enabled == Some(false) {
            let allowed = "none where nodeToNodeMeshEnabled is false";
            let password = spec.node_mesh_password.is_none();
            problems.require(password, "nodeMeshPassword", "given", allowed);
            let time = spec.node_mesh_max_restart_time.is_none();
            problems.require(time, "nodeMeshMaxRestartTime", "given", allowed);
        }
        problems.positive("nodeMeshMaxRestartTime", spec.node_mesh_max_restart_time);
        problems.items(
            "ignoredInterfaces",
            &spec.ignored_interfaces,
            |problems, name| {
                if !is_interface_pattern(name) {
                    problems.refuse(name, "at most 15 of A-Z, a-z, 0-9, _, ., - and *");
                }
            },
        );
        for (name, address, family) in [
            (
                "localWorkloadPeeringIPV4",
                &spec.local_workload_peering_ipv4,
                Family::V4,
            ),
            (
                "localWorkloadPeeringIPV6",
                &spec.local_workload_peering_ipv6,
                Family::V6,
            ),
        ] {
            problems.address(name, address, Some(family));
        }
        for (name, priority) in [
            ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
            ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
        ] {
            problems.range(name, priority, 1..=2_147_483_646);
        }
    }
}

/// The form of a community.
pub(super) const COMMUNITY: &str = "aa:nn of 0 to 65535 each, or aa:nn:mm of 0 to 4294967295 each";
const MOST_NAMES: usize = 500;
const MOST_PER_PREFIX: usize = 50;
