//! The driver's metrics.

use margay_telemetry::prometheus_client::metrics::counter::Counter;
use margay_telemetry::prometheus_client::metrics::family::Family;
use margay_telemetry::prometheus_client::metrics::histogram::Histogram;
use margay_telemetry::prometheus_client::registry::Registry;

/// All of them; clones share the values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// How long calls took.
    pub calls: Family<Call, Histogram>,
    /// Calls that were refused.
    pub failures: Family<Call, Counter>,
}

/// The label `call`, such as `NetworkDriver.Join`.
pub type Call = [(&'static str, String); 1];

impl Metrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            calls: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            failures: Family::default(),
        };
        registry.register(
            "margay_docker_call_seconds",
            "Time to answer Docker's calls, by call",
            metrics.calls.clone(),
        );
        registry.register(
            "margay_docker_call_failures",
            "Calls of Docker's that were refused, by call",
            metrics.failures.clone(),
        );
        metrics
    }
}

const BUCKETS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
