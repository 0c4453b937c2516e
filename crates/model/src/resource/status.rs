//! Reports on nodes.

mod report;

use serde_json::Value;

use super::{Resource, Spec};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;

pub use report::{
    AgentStatus, BgpStatus, DaemonState, DaemonStatus, LearnedFrom, NodeReport, PeerKind,
    PeerStatus, RouteKind, RouteSource, RouteStatus, RoutesStatus, SessionState,
};

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

impl CalicoNodeStatus {
    /// The report as found; `None` before the first.
    ///
    /// # Errors
    /// The status is no report.
    pub fn report(&self) -> Result<Option<NodeReport>, serde_json::Error> {
        let status = self.status.clone().map(Value::Object);
        status.map(serde_json::from_value).transpose()
    }

    /// Replaces the report.
    ///
    /// # Errors
    /// Only for extra fields that have no JSON form.
    pub fn set_report(&mut self, report: &NodeReport) -> Result<(), serde_json::Error> {
        self.status = match serde_json::to_value(report)? {
            Value::Object(status) => Some(status),
            _ => None,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_statuses() {
        let mut status = CalicoNodeStatus::default();
        assert_eq!(status.report().unwrap(), None);
        let report = NodeReport {
            last_updated: Some("2026-03-01T10:00:00Z".to_owned()),
            ..NodeReport::default()
        };
        status.set_report(&report).unwrap();
        assert_eq!(status.report().unwrap(), Some(report));
        let text = serde_json::to_string(&status.status).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"lastUpdated":"2026-03-01T10:00:00Z","agent":{"birdV4":{},"birdV6":{}},"#,
                r#""bgp":{"numberEstablishedV4":0,"numberNotEstablishedV4":0,"#,
                r#""numberEstablishedV6":0,"numberNotEstablishedV6":0},"routes":{}}"#
            )
        );
    }
}
