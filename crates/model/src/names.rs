//! Composite names of workload endpoints.

use std::fmt;

/// What identifies a workload endpoint, and makes its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointName {
    /// Node the workload runs on.
    pub node: String,
    /// `k8s`, `cni`, `libnetwork`, `openstack`, …
    pub orchestrator: String,
    /// Pod name (`k8s`), container id (`cni`), `libnetwork`, or the orchestrator's workload id.
    pub workload: String,
    /// Interface name in the container, or the orchestrator's endpoint id.
    pub endpoint: String,
}

/// A part of an endpoint name that the naming rule cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("workload endpoint {field} {value:?} must be neither empty nor begin or end with '-'")]
pub struct EndpointNameError {
    field: &'static str,
    value: String,
}

impl EndpointName {
    /// The stored name: the four segments joined by `-`, each `-` within a segment doubled.
    ///
    /// # Errors
    /// A segment is empty, or begins or ends with `-`.
    pub fn encode(&self) -> Result<String, EndpointNameError> {
        let segments = self.segments();
        for (field, value) in segments {
            if value.is_empty() || value.starts_with('-') || value.ends_with('-') {
                return Err(EndpointNameError {
                    field,
                    value: value.to_owned(),
                });
            }
        }
        Ok(segments
            .map(|(_, value)| value.replace('-', "--"))
            .join("-"))
    }

    /// The beginning that the names of all endpoints of this node, orchestrator and workload share, up to
    /// the first empty segment, ending in `-`. Other names can share it too: parse what a search finds.
    pub fn encode_prefix(&self) -> String {
        self.segments()
            .iter()
            .take_while(|(_, value)| !value.is_empty())
            .map(|(_, value)| value.replace('-', "--") + "-")
            .collect()
    }

    /// Reads [`EndpointName::encode`]; `None` when the text has not exactly four segments.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            if char != '-' {
                segments.last_mut()?.push(char);
            } else if chars.next_if_eq(&'-').is_some() {
                segments.last_mut()?.push('-');
            } else {
                segments.push(String::new());
            }
        }
        let [node, orchestrator, workload, endpoint] = <[String; 4]>::try_from(segments).ok()?;
        let parsed = Self {
            node,
            orchestrator,
            workload,
            endpoint,
        };
        (parsed.encode().as_deref() == Ok(text)).then_some(parsed)
    }

    fn segments(&self) -> [(&'static str, &str); 4] {
        [
            ("node", &self.node),
            ("orchestrator", &self.orchestrator),
            ("workload", &self.workload),
            ("endpoint", &self.endpoint),
        ]
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.node, self.orchestrator, self.workload, self.endpoint
        )
    }
}

/// Escapes an id for a status key: `%` becomes `%25`, then `/` becomes `%2f`.
pub fn escape_id(id: &str) -> String {
    id.replace('%', "%25").replace('/', "%2f")
}

/// Reads [`escape_id`].
pub fn unescape_id(id: &str) -> String {
    id.replace("%2f", "/").replace("%25", "%")
}

/// Name of the file in which a node's agent says that an endpoint's policy is in force: orchestrator,
/// `<namespace>/<workload>` and endpoint, each escaped as a URL path segment (RFC 3986 section 3.3), joined by
/// blanks.
pub fn status_file(orchestrator: &str, workload: &str, endpoint: &str) -> String {
    [orchestrator, workload, endpoint]
        .map(path_segment)
        .join(" ")
}

/// Percent-encodes what may not stand in a path segment, and `;` and `,`, as Go's `url.PathEscape` does.
fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(node: &str, orchestrator: &str, workload: &str, endpoint: &str) -> EndpointName {
        EndpointName {
            node: node.into(),
            orchestrator: orchestrator.into(),
            workload: workload.into(),
            endpoint: endpoint.into(),
        }
    }

    #[test]
    fn names_as_calico_builds_them() {
        let pod = name("node-1", "k8s", "web-0", "eth0");
        assert_eq!(pod.encode().unwrap(), "node--1-k8s-web--0-eth0");
        assert_eq!(EndpointName::parse("node--1-k8s-web--0-eth0"), Some(pod));
        assert_eq!(name("n", "k8s", "", "").encode_prefix(), "n-k8s-");
        assert_eq!(name("a-b", "", "", "").encode_prefix(), "a--b-");
        assert!(name("n", "cni", "-x", "eth0").encode().is_err());
        assert!(name("n", "cni", "", "eth0").encode().is_err());
        assert_eq!(EndpointName::parse("a-b-c"), None);
        assert_eq!(EndpointName::parse("a-b-c-d-e"), None);
    }

    #[test]
    fn status_files_are_named_as_recorded() {
        assert_eq!(
            status_file("cni", "default/ctr 1", "eth0"),
            "cni default%2Fctr%201 eth0"
        );
    }

    #[test]
    fn ids_are_escaped_in_order() {
        assert_eq!(escape_id("default/a%2fb"), "default%2fa%252fb");
        assert_eq!(unescape_id("default%2fa%252fb"), "default/a%2fb");
    }
}
