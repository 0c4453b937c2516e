//! Reports on nodes.

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

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

    fn validate(_metadata: &Metadata, spec: &Self, problems: &mut Problems) {
        let node = &spec.node;
        problems.require(!node.is_empty(), "node", node, "the name of a node");
        problems.distinct("classes", &spec.classes);
        let given = !spec.classes.is_empty();
        problems.require(given, "classes", "", "at least one of Agent, BGP, Routes");
        match spec.update_period_seconds {
            None => problems.refuse_field("updatePeriodSeconds", "", "0 to 86400"),
            period => problems.range("updatePeriodSeconds", period, 0..=86_400),
        }
    }
}
