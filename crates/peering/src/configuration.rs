//! What BGPConfigurations say of the node itself, and what of them does not hold.

use std::collections::BTreeSet;
use std::net::IpAddr;

use margay_model::resource::bgp::{BGPConfigurationSpec, BindMode, ProgramClusterRoutes};
use margay_model::scalar::Switch;
use margay_model::{Cidr, Family};

use crate::input::{DEFAULT, Input, OF_NODE};
use crate::routes::{LOAD_BALANCERS, only_single, width};
use crate::{Listen, PRIORITY, Problem};

/// Where connections are awaited.
pub(crate) fn listen(input: &Input<'_>) -> Listen {
    let cluster = input.configuration();
    let mode = cluster.and_then(|cluster| cluster.bind_mode.as_ref());
    Listen {
        port: input.listen_port(input.node),
        own_addresses_only: mode == Some(&BindMode::NodeIP),
        to_workloads: BTreeSet::new(),
    }
}

/// Kernel priority of routes that peers announced, IPv4 and IPv6.
pub(crate) fn priorities(input: &Input<'_>) -> (u32, u32) {
    let cluster = input.configuration();
    let told = |field: fn(&BGPConfigurationSpec) -> Option<i64>| {
        let told = cluster.and_then(field);
        told.and_then(priority).unwrap_or(PRIORITY)
    };
    (
        told(|cluster| cluster.ipv4_normal_route_priority),
        told(|cluster| cluster.ipv6_normal_route_priority),
    )
}

/// The address that the node presents to workloads with which it has sessions.
///
/// # Errors
/// The field that does not say, and what to do.
pub(crate) fn to_workloads(input: &Input<'_>, family: Family) -> Result<IpAddr, String> {
    let cluster = input.configuration();
    let (field, text) = match family {
        Family::V4 => (
            "localWorkloadPeeringIPV4",
            cluster.map(|cluster| &cluster.local_workload_peering_ipv4),
        ),
        Family::V6 => (
            "localWorkloadPeeringIPV6",
            cluster.map(|cluster| &cluster.local_workload_peering_ipv6),
        ),
    };
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| {
        format!(
            "{field} of BGPConfiguration default is missing: the address that workloads connect to"
        )
    })?;
    match text.parse::<IpAddr>() {
        Ok(address) if Family::of(address) == family => Ok(address),
        _ => Err(format!(
            "{field} {text:?} of BGPConfiguration default is no {family} address"
        )),
    }
}

/// What of the configurations does not hold.
pub(crate) fn problems(input: &Input<'_>, problems: &mut BTreeSet<Problem>) {
    let own = format!("{OF_NODE}{}", input.node);
    for (name, spec) in input.configurations {
        let mut complain = |reason: String| {
            problems.insert(Problem {
                object: format!("BGPConfiguration {name}"),
                reason,
            });
        };
        if name == DEFAULT {
            of_cluster(spec, &mut complain);
        } else if *name == own {
            of_node(spec, &mut complain);
        } else if !name.starts_with(OF_NODE) {
            complain("it is for nobody; name it default, or node.<node>".to_owned());
            continue;
        } else {
            continue;
        }
        if spec.listen_port == Some(0) {
            complain("listenPort 0 is no port; 179 is used".to_owned());
        }
        for field in spec.extra.keys() {
            complain(unknown_field(field));
        }
    }
}

/// That a field has no effect here.
pub(crate) fn unknown_field(field: &str) -> String {
    format!(
        "field {field} is not known here and has no effect; take it out, or use a version that has it"
    )
}

fn of_cluster(spec: &BGPConfigurationSpec, complain: &mut impl FnMut(String)) {
    if let Some(BindMode::Other(other)) = &spec.bind_mode {
        complain(format!(
            "bindMode {other:?} is not known; give None or NodeIP"
        ));
    }
    if let Some(ProgramClusterRoutes::Other(other)) = &spec.program_cluster_routes {
        complain(format!("programClusterRoutes {other:?} is not known"));
    }
    for (field, told) in [
        ("ipv4NormalRoutePriority", spec.ipv4_normal_route_priority),
        ("ipv6NormalRoutePriority", spec.ipv6_normal_route_priority),
    ] {
        if let Some(told) = told.filter(|told| priority(*told).is_none()) {
            complain(format!(
                "{field} {told} is not within 1 and {PRIORITY_MAX}; {PRIORITY} is used"
            ));
        }
    }
    let time = spec.node_mesh_max_restart_time;
    if time.is_some_and(|time| time.to_std().is_none()) {
        complain("nodeMeshMaxRestartTime is less than nothing; 120s is used".to_owned());
    }
    services(spec, complain);
}

fn services(spec: &BGPConfigurationSpec, complain: &mut impl FnMut(String)) {
    let mut withheld = Vec::new();
    for (name, blocks) in spec.service_blocks() {
        for block in blocks.iter().filter(|block| !block.cidr.is_empty()) {
            match block.cidr.parse::<Cidr>() {
                Ok(cidr) if name == LOAD_BALANCERS && cidr.length() < width(cidr) => {
                    withheld.push(cidr.to_string());
                }
                Ok(_) => {}
                Err(error) => complain(format!("{name} {:?}: {error}", block.cidr)),
            }
        }
    }
    match &spec.service_load_balancer_aggregation {
        Switch::Other(other) if !other.is_empty() => complain(format!(
            "serviceLoadBalancerAggregation {other:?} is not known; give Enabled or Disabled"
        )),
        _ if only_single(spec) && !withheld.is_empty() => complain(format!(
            "serviceLoadBalancerAggregation is Disabled, and the datastore knows of no services: {} of \
             {LOAD_BALANCERS} is not announced; list the single addresses (/32, /128), or set it to \
             Enabled",
            withheld.join(", ")
        )),
        _ => {}
    }
}

fn of_node(spec: &BGPConfigurationSpec, complain: &mut impl FnMut(String)) {
    let [balancers, external, cluster] = spec.service_blocks();
    let fields = [
        (
            "nodeToNodeMeshEnabled",
            spec.node_to_node_mesh_enabled.is_some(),
        ),
        ("asNumber", spec.as_number.is_some()),
        (balancers.0, !balancers.1.is_empty()),
        (external.0, !external.1.is_empty()),
        (cluster.0, !cluster.1.is_empty()),
        ("nodeMeshPassword", spec.node_mesh_password.is_some()),
        (
            "nodeMeshMaxRestartTime",
            spec.node_mesh_max_restart_time.is_some(),
        ),
        ("bindMode", spec.bind_mode.is_some()),
        (
            "localWorkloadPeeringIPV4",
            !spec.local_workload_peering_ipv4.is_empty(),
        ),
        (
            "localWorkloadPeeringIPV6",
            !spec.local_workload_peering_ipv6.is_empty(),
        ),
        (
            "ipv4NormalRoutePriority",
            spec.ipv4_normal_route_priority.is_some(),
        ),
        (
            "ipv6NormalRoutePriority",
            spec.ipv6_normal_route_priority.is_some(),
        ),
    ];
    let given: Vec<&str> = fields
        .iter()
        .filter(|(_, given)| *given)
        .map(|(name, _)| *name)
        .collect();
    if !given.is_empty() {
        complain(format!(
            "{} of one node has no effect; give it in BGPConfiguration default{}",
            given.join(", "),
            if given.contains(&"asNumber") {
                ", asNumber also in spec.bgp of the Node"
            } else {
                ""
            }
        ));
    }
}

fn priority(told: i64) -> Option<u32> {
    u32::try_from(told)
        .ok()
        .filter(|told| (1..=PRIORITY_MAX).contains(told))
}

/// The highest kernel priority of a route (Calico's bound: what LOCAL_PREF can carry).
pub(crate) const PRIORITY_MAX: u32 = 2_147_483_646;
