//! The mark by which an interface is known to be a certain endpoint's.

use std::fmt;

use serde::Serialize;
use sha1::{Digest, Sha1};

/// Who owns a host interface: `margay:<network>/<container id>/<ifname>`, kept as its alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Mark(String);

impl Mark {
    /// The mark of the interface `ifname` of a container on a network.
    ///
    /// A mark longer than the kernel's limit of 255 bytes keeps its beginning and ends in a digest
    /// of the whole, so that it stays one endpoint's.
    #[must_use]
    pub fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        let mut mark = format!("{SCHEME}{network}/{container_id}/{ifname}");
        if mark.len() > MAX_ALIAS {
            let digest: String = Sha1::digest(mark.as_bytes())
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            let mut end = MAX_ALIAS - digest.len() - 1;
            while !mark.is_char_boundary(end) {
                end -= 1;
            }
            mark.truncate(end);
            mark.push('#');
            mark.push_str(&digest);
        }
        Self(mark)
    }

    /// The text, at most 255 bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The container's id in an alias that marks the interface `ifname` of one on a network; `None` for other
    /// aliases, and for marks that were too long to keep it.
    #[must_use]
    pub fn container_of<'a>(alias: &'a str, network: &str, ifname: &str) -> Option<&'a str> {
        let rest = alias.strip_prefix(SCHEME)?.strip_prefix(network)?;
        let id = rest.strip_prefix('/')?.strip_suffix(ifname)?;
        id.strip_suffix('/')
            .filter(|id| !id.is_empty() && !id.contains('/'))
    }

    /// Whether an interface's alias is any endpoint's mark.
    #[must_use]
    pub fn is_mark(alias: &str) -> bool {
        alias.starts_with(SCHEME)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const SCHEME: &str = "margay:";
/// `IFALIASZ` less the terminating zero.
const MAX_ALIAS: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_network_container_and_interface() {
        let mark = Mark::new("calinet", "0123", "eth0");
        assert_eq!(mark.as_str(), "margay:calinet/0123/eth0");
        assert!(Mark::is_mark(mark.as_str()));
        assert!(!Mark::is_mark("uplink to rack 7"));
    }

    #[test]
    fn a_mark_tells_its_container() {
        let of = |alias: &'static str| Mark::container_of(alias, "calinet", "eth0");
        assert_eq!(of("margay:calinet/0123/eth0"), Some("0123"));
        for other in [
            "margay:calinet/0123/eth1",
            "margay:calinet2/0123/eth0",
            "margay:calinet//eth0",
            "margay:calinet/eth0",
            "margay:calinet/0123/x/eth0",
            "uplink to rack 7",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn long_marks_are_cut_and_stay_distinct() {
        let network = "\u{e9}".repeat(200);
        let one = Mark::new(&network, "0123", "eth0");
        let two = Mark::new(&network, "0123", "eth1");
        assert!(one.as_str().len() <= 255 && one != two);
    }
}
