//! Which endpoints belong to containers that ended without a word; pure.
//!
//! A living container's endpoint has its host interface, and the other end is in the container's sandbox. That goes
//! with the sandbox: on a crash of the container, of Docker, of the machine. The evidence is the kernel's; where many
//! are gone at once, Docker is asked too, lest the driver have been started in the wrong network namespace.

use std::collections::BTreeSet;
use std::time::Duration;

use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::time::Timestamp;
use margay_netlink::Interfaces;

use crate::kernel::Names;

/// What is known of the node at one time.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The host's interfaces.
    pub interfaces: &'a Interfaces,
    /// The endpoints of running containers, where Docker answers.
    pub docker: Option<&'a BTreeSet<&'a str>>,
    /// Whether so many are gone that the kernel's word alone is not taken.
    pub suspicious: bool,
}

/// What follows for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its interfaces are there.
    Alive,
    /// They are not, but its record is so new that they may be about to be made.
    Young,
    /// It is to be given back.
    Dead,
    /// It would be, were it not for the others.
    Held,
}

/// Judges an endpoint.
pub fn judge(
    id: &str,
    endpoint: &WorkloadEndpoint,
    evidence: &Evidence<'_>,
    now: Timestamp,
    grace: Duration,
) -> Verdict {
    if is_alive(id, endpoint, evidence.interfaces) {
        return Verdict::Alive;
    }
    let created = endpoint.metadata.creation_timestamp.as_deref();
    if is_young(created.unwrap_or_default(), now, grace) {
        return Verdict::Young;
    }
    match evidence.docker {
        Some(known) if known.contains(id) => Verdict::Held,
        Some(_) => Verdict::Dead,
        None if evidence.suspicious => Verdict::Held,
        None => Verdict::Dead,
    }
}

/// Whether the host's end is there and the container's end has been moved into a sandbox.
pub fn is_alive(id: &str, endpoint: &WorkloadEndpoint, interfaces: &Interfaces) -> bool {
    let names = Names::of(id);
    let host = endpoint.spec.interface_name.as_ref().unwrap_or(&names.host);
    interfaces.by_name(host).is_some() && interfaces.by_name(&names.container).is_none()
}

/// Whether something was made less than `grace` ago. What bears no date is old.
pub fn is_young(created: &str, now: Timestamp, grace: Duration) -> bool {
    let created = Timestamp::parse_rfc3339(created);
    // Dates are of whole seconds.
    created.is_some_and(|created| created.seconds + grace.as_secs() >= now.seconds)
}

/// From `CreateEndpoint` to `Join` Docker needs milliseconds.
pub const FLEETING: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use margay_model::Metadata;
    use margay_netlink::Link;

    use super::*;

    const ID: &str = "6b727a5521310e98b03dc3915f5319209ac97270b03d7bef6e1235c4cba1d12e";
    const GRACE: Duration = Duration::from_secs(60);

    fn at(time: &str) -> Timestamp {
        Timestamp::parse_rfc3339(time).unwrap()
    }

    fn endpoint() -> WorkloadEndpoint {
        let metadata = Metadata {
            creation_timestamp: Some("2026-11-25T01:00:00Z".to_owned()),
            ..Metadata::default()
        };
        WorkloadEndpoint::new(metadata, Default::default())
    }

    fn links(names: &[&str]) -> Interfaces {
        let link = |(index, name): (usize, &&str)| Link {
            index: u32::try_from(index).unwrap() + 1,
            name: (*name).to_owned(),
            ..Link::default()
        };
        names.iter().enumerate().map(link).collect()
    }

    #[test]
    fn r2_an_endpoint_without_its_interfaces_goes_after_the_grace() {
        let late = at("2026-11-25T02:00:00Z");
        let verdict = |links: &Interfaces, docker: Option<&BTreeSet<&str>>, suspicious, now| {
            let evidence = Evidence {
                interfaces: links,
                docker,
                suspicious,
            };
            judge(ID, &endpoint(), &evidence, now, GRACE)
        };
        let there = links(&["eth0", "cali6b727a55213"]);
        let unmoved = links(&["cali6b727a55213", "temp6b727a55213"]);
        let gone = links(&["eth0", "cali00000000000"]);
        assert_eq!(verdict(&there, None, true, late), Verdict::Alive);
        assert_eq!(verdict(&gone, None, false, late), Verdict::Dead);
        assert_eq!(verdict(&unmoved, None, false, late), Verdict::Dead);
        let soon = at("2026-11-25T01:00:30Z");
        assert_eq!(verdict(&unmoved, None, false, soon), Verdict::Young);
        assert_eq!(verdict(&gone, None, true, late), Verdict::Held);
        let (none, known) = (BTreeSet::new(), BTreeSet::from([ID]));
        assert_eq!(verdict(&gone, Some(&none), true, late), Verdict::Dead);
        assert_eq!(verdict(&gone, Some(&known), false, late), Verdict::Held);
    }

    #[test]
    fn what_bears_no_date_is_old() {
        assert!(!is_young("", at("2026-11-25T01:00:00Z"), GRACE));
        assert!(!is_young("yesterday", at("2026-11-25T01:00:00Z"), GRACE));
    }
}
