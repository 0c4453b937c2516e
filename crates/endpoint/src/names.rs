//! Names of host interfaces: deterministic, at most 15 bytes, equal to Calico's where Calico has
//! a rule.

use sha1::{Digest, Sha1};

/// The prefix of host interface names where none is configured.
pub const DEFAULT_PREFIX: &str = "cali";

/// Whose interface it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload<'a> {
    /// A container of any orchestrator but Kubernetes.
    Container {
        /// The container's id.
        id: &'a str,
    },
    /// A Kubernetes pod.
    Pod {
        /// The pod's namespace.
        namespace: &'a str,
        /// The pod's name.
        name: &'a str,
        /// The id of its sandbox container.
        id: &'a str,
    },
}

/// The name of the host end for the interface `ifname` of a workload.
///
/// `eth0` follows Calico: the prefix and the first 11 characters of the container id, or for a pod
/// 11 hexadecimal digits of SHA-1 over `<namespace>.<pod>`. Calico has one interface a workload;
/// every further one gets 11 digits of SHA-1 over `<container id>/<ifname>`, which depends on both
/// and so collides with neither. A prefix longer than four bytes shortens the rest.
///
/// ```
/// use margay_endpoint::{Workload, host_interface};
///
/// let workload = Workload::Container { id: "cnitool-bad930507234c0c08a40" };
/// assert_eq!(host_interface("cali", &workload, "eth0")?, "calicnitool-bad");
/// # Ok::<(), margay_endpoint::NameError>(())
/// ```
///
/// # Errors
/// [`NameError`] if the prefix cannot begin an interface's name or leaves too little room.
pub fn host_interface(
    prefix: &str,
    workload: &Workload<'_>,
    ifname: &str,
) -> Result<String, NameError> {
    if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(is_legal) {
        return Err(NameError {
            prefix: prefix.to_owned(),
        });
    }
    let suffix = match *workload {
        Workload::Container { id } if ifname == FIRST_INTERFACE => id
            .chars()
            .take(SUFFIX)
            .map(|c| if is_legal(c) { c } else { '-' })
            .collect(),
        Workload::Pod {
            namespace, name, ..
        } if ifname == FIRST_INTERFACE => digest(&format!("{namespace}.{name}")),
        Workload::Container { id } | Workload::Pod { id, .. } => digest(&format!("{id}/{ifname}")),
    };
    let room = MAX_NAME - prefix.len();
    Ok(prefix.chars().chain(suffix.chars().take(room)).collect())
}

/// Whether the kernel takes `name` as an interface's name (`dev_valid_name`); `%`, which it reads
/// as a pattern, and anything but printable ASCII are refused too.
#[must_use]
pub fn is_valid_interface_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != "."
        && name != ".."
        && name.chars().all(is_legal)
}

/// A prefix that cannot begin the names of host interfaces.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "interface prefix \"{prefix}\" is unusable: use 1 to {MAX_PREFIX} printable characters \
     other than '/', ':' and '%'"
)]
pub struct NameError {
    prefix: String,
}

fn is_legal(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%')
}

fn digest(text: &str) -> String {
    let hex = Sha1::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut hex: String = hex;
    hex.truncate(SUFFIX);
    hex
}

/// `IFNAMSIZ` less the terminating zero.
const MAX_NAME: usize = 15;
const SUFFIX: usize = 11;
/// Leaves seven characters, 28 bits of a digest.
const MAX_PREFIX: usize = 8;
const FIRST_INTERFACE: &str = "eth0";

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, ifname: &str) -> String {
        host_interface(DEFAULT_PREFIX, &Workload::Container { id }, ifname).unwrap()
    }

    #[test]
    fn containers_use_their_id() {
        assert_eq!(
            container("cnitool-bad930507234c0c08a40", "eth0"),
            "calicnitool-bad"
        );
        assert_eq!(container("abc", "eth0"), "caliabc");
    }

    #[test]
    fn pods_use_the_digest_of_their_name() {
        let pod = Workload::Pod {
            namespace: "default",
            name: "web-0",
            id: "0123456789abcdef",
        };
        // printf default.web-0 | sha1sum
        assert_eq!(
            host_interface(DEFAULT_PREFIX, &pod, "eth0").unwrap(),
            "cali0d7763386da"
        );
    }

    #[test]
    fn further_interfaces_never_share_a_name() {
        let first = container("0123456789abcdef", "eth0");
        let second = container("0123456789abcdef", "eth1");
        let third = container("0123456789abcdef", "net1");
        // printf 0123456789abcdef/eth1 | sha1sum
        assert_eq!(second, "cali36068e00a27");
        assert!(first != second && second != third);
        let pod = Workload::Pod {
            namespace: "a",
            name: "b",
            id: "0123456789abcdef",
        };
        assert_eq!(
            host_interface(DEFAULT_PREFIX, &pod, "eth1").unwrap(),
            second
        );
    }

    #[test]
    fn illegal_characters_are_replaced() {
        let name = container("a/b:c d%\u{e9}\n0", "eth0");
        assert_eq!(name, "calia-b-c-d---0");
        assert!(is_valid_interface_name(&name));
    }

    #[test]
    fn long_prefixes_shorten_the_rest() {
        let workload = Workload::Container {
            id: "0123456789abcdef",
        };
        assert_eq!(
            host_interface("margay-", &workload, "eth0").unwrap(),
            "margay-01234567"
        );
        for prefix in ["", "ninechars", "a/b", "a b"] {
            assert!(
                host_interface(prefix, &workload, "eth0").is_err(),
                "{prefix}"
            );
        }
    }

    #[test]
    fn names_are_judged_as_the_kernel_does() {
        for name in ["eth0", "a", "0123456789abcde"] {
            assert!(is_valid_interface_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "eth%d",
            "0123456789abcdef",
        ] {
            assert!(!is_valid_interface_name(name), "{name}");
        }
    }
}
