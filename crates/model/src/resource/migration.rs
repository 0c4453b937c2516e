//! Live migrations of virtual machines.

use margay_selector::GlobalUse;

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

/// A live migration under way.
pub type LiveMigration = Resource<LiveMigrationSpec>;

object! {
    /// Specification of a [`LiveMigration`].
    pub struct LiveMigrationSpec {
        /// What moves.
        #[serde(alias = "Source")]
        "source" => pub source: Option<MigrationSource>,
        /// Where it goes.
        #[serde(alias = "Target")]
        "target" => pub target: Option<MigrationTarget>,
    }
}

object! {
    /// What moves: one of the two.
    pub struct MigrationSource {
        /// A workload with all its endpoints (KubeVirt).
        "workload" => pub workload: Option<WorkloadIdentity>,
        /// One endpoint (OpenStack).
        "workloadEndpoint" => pub workload_endpoint: Option<EndpointIdentity>,
    }
}

object! {
    /// Where it goes: one of the two.
    pub struct MigrationTarget {
        /// A selector that the new endpoints match.
        "selector" => pub selector: Option<String>,
        /// The new endpoint.
        "workloadEndpoint" => pub workload_endpoint: Option<EndpointIdentity>,
    }
}

object! {
    /// What identifies a workload.
    pub struct WorkloadIdentity {
        /// The node.
        "hostname" => pub hostname: String,
        /// The orchestrator.
        "orchestratorID" => pub orchestrator_id: String,
        /// The workload, with its namespace.
        "workloadID" => pub workload_id: String,
    }
}

object! {
    /// What identifies an endpoint of a workload.
    pub struct EndpointIdentity {
        /// The node.
        "hostname" => pub hostname: String,
        /// The orchestrator.
        "orchestratorID" => pub orchestrator_id: String,
        /// The workload, with its namespace.
        "workloadID" => pub workload_id: String,
        /// The endpoint.
        "endpointID" => pub endpoint_id: String,
    }
}

impl Spec for LiveMigrationSpec {
    const KIND: Kind = Kind::LiveMigration;

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let source = spec.source.clone().unwrap_or_default();
        if source.workload.is_some() == source.workload_endpoint.is_some() {
            problems.refuse_field("source", "", "one of workload and workloadEndpoint");
        }
        let target = spec.target.clone().unwrap_or_default();
        if target.selector.is_some() == target.workload_endpoint.is_some() {
            problems.refuse_field("target", "", "one of selector and workloadEndpoint");
        }
        if let Some(selector) = &target.selector {
            problems.field("target", |problems| {
                problems.selector("selector", selector, GlobalUse::Forbidden);
            });
        }
    }
}
