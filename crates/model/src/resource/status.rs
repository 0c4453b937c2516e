//! Reports on nodes.

use super::{Resource, Spec};
use crate::kind::Kind;

/// A request for a report on a node, and the report.
pub type CalicoNodeStatus = Resource<CalicoNodeStatusSpec>;

words! {
    /// What a report contains.
    pub enum StatusClass {
        /// The state of the routing daemon.
        Agent = "Agent",
        /// Its sessions.
        Bgp = "BGP",
        /// Its routes.
        Routes = "Routes",
    }
}

object! {
    /// Specification of a [`CalicoNodeStatus`].
    pub struct CalicoNodeStatusSpec {
        /// The node.
        "node" => pub node: String,
        /// What the report contains.
        "classes" => pub classes: Vec<StatusClass>,
        /// Seconds between reports, to 86400; 0 for none.
        "updatePeriodSeconds" => pub update_period_seconds: Option<u32>,
    }
}

impl Spec for CalicoNodeStatusSpec {
    const KIND: Kind = Kind::CalicoNodeStatus;
}
