//! The agent's metrics. Those that replace one of Felix's keep its name.

mod bgp;

use std::sync::atomic::AtomicU64;

use margay_telemetry::prometheus_client::metrics::counter::Counter;
use margay_telemetry::prometheus_client::metrics::family::Family;
use margay_telemetry::prometheus_client::metrics::gauge::Gauge;
use margay_telemetry::prometheus_client::metrics::histogram::Histogram;
use margay_telemetry::prometheus_client::registry::{Metric, Registry};

pub use bgp::BgpMetrics;

/// All of them; clones share the values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// This node's endpoints.
    pub local_endpoints: Gauge,
    /// The cluster's nodes.
    pub hosts: Gauge,
    /// The cluster's endpoints.
    pub workload_endpoints: Gauge,
    /// Felix's number: 1 waiting, 2 listing, 3 in sync.
    pub resync_state: Gauge,
    /// How long a comparison and its changes took.
    pub apply_time: Histogram,
    /// Calculations of what BGP is to do.
    pub bgp_calculations: Counter,
    /// Steps applied, by kind.
    pub steps: Family<StepKind, Counter>,
    /// Steps that the kernel refused, and comparisons that broke off.
    pub failures: Counter,
    /// Routes kept.
    pub routes: Gauge,
    /// Routes known, by where from.
    pub rib_routes: Family<[(&'static str, &'static str); 1], Gauge>,
    /// Prefixes that peers announced whose next hops nothing leads to.
    pub unresolved: Gauge,
    /// Neighbours kept.
    pub neighbours: Gauge,
    /// Blocks of this node.
    pub own_blocks: Gauge,
    /// Nodes that cannot be reached.
    pub unreachable: Gauge,
    /// Routes that somebody else's stand in the way of.
    pub conflicts: Gauge,
    /// What people should look at.
    pub problems: Gauge,
    /// Objects in the store that cannot be used.
    pub bad_objects: Gauge,
    /// Deletions held back because they are suspiciously many.
    pub withheld: Gauge,
    /// How often the store was lost.
    pub store_losses: Counter,
    /// Whether updates from the store are held because it lost much or went backwards.
    pub store_held: Gauge,
    /// Notifications of the kernel that were lost.
    pub overruns: Counter,
    /// Status files that could not be written or removed.
    pub status_file_failures: Counter,
    /// How much later than it was due the last comparison began.
    pub lag: Gauge<f64, AtomicU64>,
    /// Whether the node's name is held.
    pub name_held: Gauge,
    /// The MTU in the file `mtu`.
    pub mtu: Gauge,
    /// Releases that wait in the journal.
    pub releases: Gauge,
    /// Files of the journal that make no sense.
    pub damaged_releases: Gauge,
    /// Releases of the journal that were finished.
    pub drained: Counter,
    /// Attempts at them that failed.
    pub release_failures: Counter,
    /// Tracked connections of vacated addresses that were deleted.
    pub forgotten: Counter,
    /// Attempts at them that failed.
    pub forget_failures: Counter,
    /// Endpoints of dead containers that were given back.
    pub cleaned_up: Counter,
    /// ADDs that were killed and whose leavings were given back.
    pub abandoned: Counter,
    /// Attempts at them, or at dead containers' endpoints, that failed.
    pub cleanup_failures: Counter,
    /// Whether suspiciously many of them are held back.
    pub cleanup_held: Gauge,
    /// Whether plugins and CNI configuration are in place.
    pub cni_installed: Gauge,
    /// Files of them that were placed, corrected or removed.
    pub cni_files_placed: Counter,
    /// Nodes of ours without an agent.
    pub silent_nodes: Gauge,
    /// Nodes that are gone and whose leavings were given back.
    pub reclaimed_nodes: Counter,
    /// Whether suspiciously many nodes that are gone are held back.
    pub gone_held: Gauge,
    /// Endpoints whose policy is in force.
    pub policy_endpoints: Gauge,
    /// Policies in force.
    pub policies: Gauge,
    /// Sets that their rules read.
    pub policy_sets: Gauge,
    /// Rules of other programs that can drop workloads' packets.
    pub other_rules: Gauge,
    /// Problems with the objects that policy is made of.
    pub policy_problems: Gauge,
    /// Rules in the table.
    pub policy_rules: Gauge,
    /// When policy was put in force last.
    pub policy_applied: Gauge<f64, AtomicU64>,
    /// Whether it is held back because the store does not know most of what has policy.
    pub policy_held: Gauge,
    /// Packets that policy has logged and a line tells of, by verdict and reason.
    pub logged_packets: Family<[(&'static str, String); 2], Counter>,
    /// Packets that policy has logged and no line tells of.
    pub lost_packets: Counter,
    /// Statuses of endpoints written to the store or removed.
    pub standing_writes: Counter,
    /// Attempts at them, or at the agent's own, that failed.
    pub standing_failures: Counter,
    /// Connections cut because policy no longer allows them.
    pub cut_connections: Counter,
    /// Attempts at that that failed.
    pub cut_failures: Counter,
    /// How long putting policy in force took.
    pub policy_time: Histogram,
    /// Times that the kernel refused it.
    pub policy_failures: Counter,
    /// Times that somebody else had changed the table.
    pub policy_repairs: Counter,
}

/// The label `step`: `add_route` and the like.
pub type StepKind = [(&'static str, &'static str); 1];

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        fn put<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
            registry.register(name, help, metric.clone());
            metric
        }
        let r = registry;
        Self {
            local_endpoints: put(
                r,
                "felix_active_local_endpoints",
                "Workload endpoints of this node",
                Gauge::default(),
            ),
            hosts: put(
                r,
                "felix_cluster_num_hosts",
                "Nodes of the cluster",
                Gauge::default(),
            ),
            workload_endpoints: put(
                r,
                "felix_cluster_num_workload_endpoints",
                "Workload endpoints of the cluster",
                Gauge::default(),
            ),
            resync_state: put(
                r,
                "felix_resync_state",
                "Datastore: 1 waiting for it, 2 listing, 3 in sync",
                Gauge::default(),
            ),
            bgp_calculations: put(
                r,
                "margay_bgp_calculations",
                "Times that sessions, policies and own routes of BGP were worked out, which is done when something that they depend on changed",
                Counter::default(),
            ),
            apply_time: put(
                r,
                "felix_int_dataplane_apply_time_seconds",
                "Time to compare and change the kernel",
                Histogram::new(BUCKETS),
            ),
            steps: put(
                r,
                "margay_plan_steps",
                "Steps applied to the kernel, by kind",
                Family::default(),
            ),
            failures: put(
                r,
                "margay_apply_failures",
                "Steps that the kernel refused, and comparisons that broke off",
                Counter::default(),
            ),
            routes: put(
                r,
                "margay_routes",
                "Routes kept in the kernel",
                Gauge::default(),
            ),
            rib_routes: put(
                r,
                "margay_rib_routes",
                "Routes wanted, by origin: own, store, vxlan or bgp",
                Family::default(),
            ),
            unresolved: put(
                r,
                "margay_bgp_unresolved_prefixes",
                "Prefixes that BGP peers announced whose next hops nothing leads to",
                Gauge::default(),
            ),
            neighbours: put(
                r,
                "margay_neighbours",
                "Neighbour entries kept in the kernel",
                Gauge::default(),
            ),
            own_blocks: put(
                r,
                "margay_own_blocks",
                "Address blocks of this node",
                Gauge::default(),
            ),
            unreachable: put(
                r,
                "margay_unreachable_nodes",
                "Nodes whose workloads cannot be reached from here",
                Gauge::default(),
            ),
            conflicts: put(
                r,
                "margay_route_conflicts",
                "Routes wanted whose place somebody else's route holds",
                Gauge::default(),
            ),
            problems: put(
                r,
                "margay_problems",
                "Contradictions that people should look at; the status tells them",
                Gauge::default(),
            ),
            bad_objects: put(
                r,
                "margay_bad_objects",
                "Objects in the datastore that cannot be used",
                Gauge::default(),
            ),
            withheld: put(
                r,
                "margay_withheld_deletions",
                "Deletions held back at start because they are suspiciously many",
                Gauge::default(),
            ),
            store_losses: put(
                r,
                "margay_datastore_losses",
                "Times the datastore was lost",
                Counter::default(),
            ),
            store_held: put(
                r,
                "margay_datastore_held",
                "1 while the datastore's word is not taken because it lost much or went backwards",
                Gauge::default(),
            ),
            overruns: put(
                r,
                "margay_kernel_overruns",
                "Times notifications of the kernel were lost",
                Counter::default(),
            ),
            status_file_failures: put(
                r,
                "margay_status_file_failures",
                "Endpoint-status files that could not be written or removed",
                Counter::default(),
            ),
            lag: put(
                r,
                "margay_loop_lag_seconds",
                "How much later than due the last comparison began",
                Gauge::default(),
            ),
            name_held: put(
                r,
                "margay_node_name_held",
                "1 while this machine holds the node's name",
                Gauge::default(),
            ),
            mtu: put(
                r,
                "margay_workload_mtu_bytes",
                "MTU written for network plugins",
                Gauge::default(),
            ),
            releases: put(
                r,
                "margay_journalled_releases",
                "Releases of plugins that wait in the journal",
                Gauge::default(),
            ),
            damaged_releases: put(
                r,
                "margay_damaged_releases",
                "Files of the journal that were set aside because they make no sense",
                Gauge::default(),
            ),
            drained: put(
                r,
                "margay_drained_releases",
                "Releases of the journal that were finished",
                Counter::default(),
            ),
            release_failures: put(
                r,
                "margay_release_failures",
                "Attempts at releases of the journal that failed",
                Counter::default(),
            ),
            forgotten: put(
                r,
                "margay_forgotten_connections",
                "Conntrack entries deleted because no endpoint of this node has their address any more",
                Counter::default(),
            ),
            forget_failures: put(
                r,
                "margay_forget_failures",
                "Attempts at deleting conntrack entries that failed",
                Counter::default(),
            ),
            cleaned_up: put(
                r,
                "margay_cleaned_up_endpoints",
                "Endpoints of containers gone without DEL that were given back",
                Counter::default(),
            ),
            abandoned: put(
                r,
                "margay_abandoned_adds",
                "ADDs that were killed without a DEL after them, and cleared away",
                Counter::default(),
            ),
            cleanup_failures: put(
                r,
                "margay_cleanup_failures",
                "Attempts at giving back what dead containers or killed ADDs left that failed",
                Counter::default(),
            ),
            cleanup_held: put(
                r,
                "margay_cleanup_held",
                "1 while endpoints are not given back because suspiciously many are without interface",
                Gauge::default(),
            ),
            cni_installed: put(
                r,
                "margay_cni_installed",
                "1 while plugins and CNI configuration are in place, where the agent keeps them",
                Gauge::default(),
            ),
            cni_files_placed: put(
                r,
                "margay_cni_files_placed",
                "Files of plugins and CNI configuration that were placed, corrected or removed",
                Counter::default(),
            ),
            silent_nodes: put(
                r,
                "margay_silent_nodes",
                "Nodes that Margay's agent has run on and has not now",
                Gauge::default(),
            ),
            reclaimed_nodes: put(
                r,
                "margay_reclaimed_nodes",
                "Nodes that are gone and of which this agent gave back what they held",
                Counter::default(),
            ),
            gone_held: put(
                r,
                "margay_gone_held",
                "1 while nothing of nodes that are gone is given back because they are suspiciously many",
                Gauge::default(),
            ),
            policy_endpoints: put(
                r,
                "margay_policy_endpoints",
                "Workload endpoints of this node whose policy is in force",
                Gauge::default(),
            ),
            policies: put(
                r,
                "felix_active_local_policies",
                "Policies in force on this node",
                Gauge::default(),
            ),
            policy_sets: put(
                r,
                "felix_active_local_selectors",
                "Sets of addresses and ports that the policies in force read",
                Gauge::default(),
            ),
            other_rules: put(
                r,
                "margay_other_rules",
                "Rules of other programs in nftables that can drop workloads' packets",
                Gauge::default(),
            ),
            policy_problems: put(
                r,
                "margay_policy_problems",
                "Problems with the objects that policy is made of",
                Gauge::default(),
            ),
            policy_rules: put(
                r,
                "margay_policy_rules",
                "Rules in the table of nftables",
                Gauge::default(),
            ),
            policy_applied: put(
                r,
                "margay_policy_last_apply_timestamp_seconds",
                "When policy was put in force last",
                Gauge::default(),
            ),
            policy_held: put(
                r,
                "margay_policy_held",
                "1 while policy stays as it was because the datastore does not know most interfaces that have it",
                Gauge::default(),
            ),
            logged_packets: put(
                r,
                "margay_logged_packets",
                "Packets that policy has logged and lines tell of, by verdict and reason",
                Family::default(),
            ),
            lost_packets: put(
                r,
                "margay_lost_log_packets",
                "Packets that policy has logged and no line tells of, because they were too many",
                Counter::default(),
            ),
            standing_writes: put(
                r,
                "margay_endpoint_status_writes",
                "Statuses of endpoints that were written to the datastore or removed",
                Counter::default(),
            ),
            standing_failures: put(
                r,
                "margay_endpoint_status_failures",
                "Attempts at writing the status of endpoints or of the agent to the datastore that failed",
                Counter::default(),
            ),
            cut_connections: put(
                r,
                "margay_cut_connections",
                "Connections cut because policy no longer allows them",
                Counter::default(),
            ),
            cut_failures: put(
                r,
                "margay_cut_failures",
                "Attempts at cutting connections that failed",
                Counter::default(),
            ),
            policy_time: put(
                r,
                "margay_policy_apply_seconds",
                "Time to calculate a change of policy and to put it in force",
                Histogram::new(BUCKETS),
            ),
            policy_failures: put(
                r,
                "margay_policy_failures",
                "Times that the kernel refused the policy",
                Counter::default(),
            ),
            policy_repairs: put(
                r,
                "margay_policy_repairs",
                "Times that somebody else had changed the table of nftables and it was put right",
                Counter::default(),
            ),
        }
    }
}

/// A figure as gauges take it.
pub(crate) fn figure(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Seconds.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];

#[cfg(test)]
mod tests {
    use margay_bgp::State;
    use margay_telemetry::metrics::{registry, text};

    use super::*;
    use crate::bgp::view::BgpStatus;

    #[test]
    fn the_guide_names_every_metric() {
        let mut registry = registry("0");
        let metrics = Metrics::register(&mut registry);
        let bgp = BgpMetrics::register(&mut registry);
        let peer = crate::bgp::view::tests::peer("Mesh_10_0_0_2", State::Established);
        bgp.show(&BgpStatus {
            peers: vec![peer],
            ..BgpStatus::default()
        });
        metrics.steps.get_or_create(&[("step", "add_route")]).inc();
        let guide = include_str!("../../docs/agent.md");
        let text = text(&registry).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for name in names.filter_map(|line| line.split(' ').next()) {
            assert!(
                guide.contains(&format!("| `{name}")),
                "docs/agent.md lacks {name}"
            );
        }
        assert!(text.contains("margay_plan_steps_total{step=\"add_route\"} 1"));
        let peer = "peer=\"Mesh_10_0_0_2\"";
        for line in [
            format!("bgp_peer_up{{{peer},type=\"node-to-node mesh\"}} 1"),
            format!("bgp_peer_established_seconds{{{peer}}} 300"),
            format!("bgp_peer_prefixes{{{peer},afi=\"ipv4\",kind=\"accepted\"}} 4"),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
    }
}
