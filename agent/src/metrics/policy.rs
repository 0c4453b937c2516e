//! Figures of policy.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use margay_telemetry::prometheus_client::metrics::counter::Counter;
use margay_telemetry::prometheus_client::metrics::family::Family;
use margay_telemetry::prometheus_client::metrics::gauge::Gauge;
use margay_telemetry::prometheus_client::metrics::histogram::Histogram;
use margay_telemetry::prometheus_client::registry::{Metric, Registry};

use super::{BUCKETS, figure};
use crate::policy::Done;

/// Figures of policy; clones share the values.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    endpoints: Gauge,
    host_endpoints: Gauge,
    policies: Gauge,
    rules: Gauge,
    sets: Gauge,
    apply_time: Histogram,
    last_apply: Gauge<f64, AtomicU64>,
    resyncs: Family<[(&'static str, &'static str); 1], Counter>,
    /// Attempts at putting policy in force that failed.
    pub failures: Counter,
    /// What is wrong with objects.
    pub problems: Gauge,
    /// Whether policy is left as it was because the store does not know most of what has it.
    pub held: Gauge,
}

impl PolicyMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        fn put<M: Metric + Clone>(r: &mut Registry, name: &str, help: &str, metric: M) -> M {
            r.register(name, help, metric.clone());
            metric
        }
        let r = registry;
        Self {
            endpoints: put(
                r,
                "margay_policy_endpoints",
                "Workload endpoints of this node whose policy is in force",
                Gauge::default(),
            ),
            host_endpoints: put(
                r,
                "margay_policy_host_endpoints",
                "Host endpoints of this node",
                Gauge::default(),
            ),
            policies: put(
                r,
                "felix_active_local_policies",
                "Policies that endpoints of this node have",
                Gauge::default(),
            ),
            rules: put(
                r,
                "margay_policy_rules",
                "Rules in the kernel's table",
                Gauge::default(),
            ),
            sets: put(
                r,
                "margay_policy_sets",
                "Sets and maps in the kernel's table",
                Gauge::default(),
            ),
            apply_time: put(
                r,
                "margay_policy_apply_time_seconds",
                "Time to calculate a change and put it in force; the count is that of changes",
                Histogram::new(BUCKETS),
            ),
            last_apply: put(
                r,
                "margay_policy_last_apply_timestamp_seconds",
                "When policy in the kernel was changed last",
                Gauge::default(),
            ),
            resyncs: put(
                r,
                "margay_policy_resyncs",
                "Comparisons of the whole table, by reason: deleted, changed, lost or refused",
                Family::default(),
            ),
            failures: put(
                r,
                "margay_policy_failures",
                "Attempts at putting policy in force that failed",
                Counter::default(),
            ),
            problems: put(
                r,
                "margay_policy_problems",
                "What is wrong with objects of policy; the status tells it",
                Gauge::default(),
            ),
            held: put(
                r,
                "margay_policy_held",
                "1 while policy stays as it was because the datastore does not know most of what has it",
                Gauge::default(),
            ),
        }
    }

    /// Notes why the whole table is compared.
    pub fn resync(&self, reason: &'static str) {
        self.resyncs.get_or_create(&[("reason", reason)]).inc();
    }

    /// Notes what is in force.
    pub fn done(&self, done: &Done) {
        self.endpoints.set(figure(done.workloads));
        self.host_endpoints.set(figure(done.hosts));
        self.policies.set(figure(done.policies));
        self.rules.set(figure(done.rules));
        self.sets.set(figure(done.sets));
        self.apply_time.observe(done.took.as_secs_f64());
        if let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
            self.last_apply.set(now.as_secs_f64());
        }
        self.held.set(0);
        if done.refused {
            self.resync("refused");
        }
    }
}
