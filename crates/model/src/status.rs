//! What node agents report under `/calico/felix/`.

use serde::{Deserialize, Serialize};

use crate::json::Extra;

words! {
    /// How far an endpoint's dataplane is.
    pub enum EndpointState {
        /// Programmed, and its interface is up.
        Up = "up",
        /// Its interface is down.
        Down = "down",
        /// It could not be programmed.
        Error = "error",
    }
}

/// Status of a workload or host endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The state.
    pub status: EndpointState,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Liveness report of a node's agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentReport {
    /// When the report was made, RFC 3339, UTC.
    pub time: String,
    /// Seconds since the agent started.
    pub uptime: f64,
    /// Whether it is the first since the agent started.
    #[serde(default)]
    pub first_update: bool,
    /// Fields of other writers.
    #[serde(flatten)]
    pub extra: Extra,
}

impl EndpointStatus {
    /// A status of this state.
    pub fn new(status: EndpointState) -> Self {
        Self {
            status,
            extra: Extra::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_round_trip() {
        let text = r#"{"time":"2026-03-01T10:00:30Z","uptime":123.4,"first_update":false}"#;
        let report: AgentReport = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&report).unwrap(), text);
    }
}
