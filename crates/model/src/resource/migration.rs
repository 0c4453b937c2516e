//! Live migrations of virtual machines.

use super::{Resource, Spec};
use crate::kind::Kind;

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
}
