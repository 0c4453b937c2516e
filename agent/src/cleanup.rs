//! Which of the node's endpoints belong to containers that are gone without a DEL; pure.
//!
//! The evidence is the kernel's: the host end of a container's interface vanishes with the container's
//! namespace. It must hold for a while, in every look, while the record stays as it is.
//!
//! An address without an endpoint is never judged: an IPAM plugin alone leaves nothing in the kernel by
//! which its living containers could be told from dead ones.

mod sweep;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use margay_endpoint::Mark;
use margay_model::Key;
use margay_model::time::Timestamp;
use margay_netlink::Interfaces;
use tokio::time::Instant;

pub use sweep::Sweep;

use crate::state::{Attachment, State};

/// One look at store and kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sighting {
    /// Endpoints without an interface.
    pub suspects: BTreeMap<Key, Suspect>,
    /// Number of the node's endpoints, suspects included.
    pub endpoints: usize,
}

/// An endpoint whose host interface is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// The record.
    pub attachment: Attachment,
    /// The interface that it names.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What has been suspect for how long.
#[derive(Debug)]
pub struct Watchlist {
    grace: Duration,
    /// When the machine started; nothing in the kernel is older.
    booted: Option<Timestamp>,
    since: BTreeMap<Key, (Suspect, Instant)>,
}

/// What is to be done after a look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// Endpoints to give back.
    pub release: Vec<(Key, Suspect)>,
    /// Why nothing is given back although it would be due.
    pub held: Option<String>,
}

impl Sighting {
    /// Looks. Only containers' endpoints count: those of the orchestrators `cni` and `k8s` that say which
    /// container they belong to and when they were made.
    pub fn of(state: &State, interfaces: &Interfaces) -> Self {
        let mut suspects = BTreeMap::new();
        for (key, attachment) in state.attachments() {
            let Some(endpoint) = state.endpoints().get(key) else {
                continue;
            };
            let marked = |alias: &str| {
                let owner = format!("/{}/{}", attachment.container_id, endpoint.name.endpoint);
                Mark::is_mark(alias) && alias.ends_with(&owner)
            };
            let alive = interfaces.iter().any(|link| {
                link.name == endpoint.interface || link.alias.as_deref().is_some_and(marked)
            });
            if !alive {
                let suspect = Suspect {
                    attachment: attachment.clone(),
                    interface: endpoint.interface.clone(),
                    addresses: endpoint.addresses.iter().copied().collect(),
                };
                suspects.insert(key.clone(), suspect);
            }
        }
        Self {
            suspects,
            endpoints: state.endpoints().len(),
        }
    }
}

impl Watchlist {
    /// An empty list. `grace` is how long an interface must be gone.
    pub fn new(grace: Duration, booted: Option<Timestamp>) -> Self {
        Self {
            grace,
            booted,
            since: BTreeMap::new(),
        }
    }

    /// Judges a look. Whoever is seen for the first time, or whose record was written since, begins anew.
    /// While suspiciously many are suspect nobody goes, unless `confirmed` by an operator.
    pub fn judge(
        &mut self,
        sighting: Sighting,
        now: Instant,
        clock: Timestamp,
        confirmed: bool,
    ) -> Verdict {
        // What was made before the machine started cannot have survived that, however many they are.
        let explained = |suspect: &&Suspect| self.is_of_earlier_boot(suspect);
        let explained = sighting.suspects.values().filter(explained).count();
        let unexplained = sighting.suspects.len() - explained;
        let rest = sighting.endpoints - explained;
        let mut before = std::mem::take(&mut self.since);
        let mut due = Vec::new();
        for (key, suspect) in sighting.suspects {
            let known = before.remove(&key).filter(|(known, _)| *known == suspect);
            let since = match known {
                Some((_, since)) => {
                    if now.duration_since(since) >= self.grace && self.is_old(&suspect, clock) {
                        due.push((key.clone(), suspect.clone()));
                    }
                    since
                }
                None => now,
            };
            self.since.insert(key, (suspect, since));
        }
        let many = unexplained >= FEWEST_HELD && unexplained * 2 > rest;
        if many && !confirmed && !due.is_empty() {
            return Verdict {
                release: Vec::new(),
                held: Some(format!(
                    "the interfaces of {unexplained} of {rest} endpoints of this node are gone"
                )),
            };
        }
        Verdict {
            release: due,
            held: None,
        }
    }

    /// Whether the record is no newcomer, whose interface is still to be made.
    fn is_old(&self, suspect: &Suspect, clock: Timestamp) -> bool {
        suspect.attachment.created.seconds + self.grace.as_secs() <= clock.seconds
    }

    fn is_of_earlier_boot(&self, suspect: &Suspect) -> bool {
        self.booted
            .is_some_and(|booted| suspect.attachment.created.seconds + CLOCK_ERROR < booted.seconds)
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        write!(
            f,
            "container {} (made {}, record at revision {}, {}): its interface {} is gone",
            self.attachment.container_id,
            self.attachment.created.rfc3339(),
            self.attachment.revision,
            addresses.join(", "),
            self.interface
        )
    }
}

/// So many endpoints at once are held back if they are more than half.
const FEWEST_HELD: usize = 5;
/// Seconds by which the clock may have been wrong when a record was made.
const CLOCK_ERROR: u64 = 300;

#[cfg(test)]
mod tests {
    use margay_model::Kind;
    use margay_netlink::Link;
    use margay_store::{Entry, Revision};
    use serde_json::json;

    use super::*;

    const MADE: &str = "2026-11-23T00:00:00Z";
    const GRACE: Duration = Duration::from_secs(60);

    fn clock() -> Timestamp {
        Timestamp::parse_rfc3339("2026-11-23T01:00:00Z").unwrap()
    }

    fn key(id: &str) -> Key {
        Key::namespaced(
            Kind::WorkloadEndpoint,
            "default",
            format!("n1-cni-{id}-eth0"),
        )
    }

    fn put(state: &mut State, id: &str, revision: i64, made: &str, orchestrator: &str) {
        let name = format!("n1-{orchestrator}-{id}-eth0");
        let value = json!({"kind": "WorkloadEndpoint",
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": made},
            "spec": {"orchestrator": orchestrator, "node": "n1", "containerID": id, "endpoint": "eth0",
                "interfaceName": format!("cali{id}"), "ipNetworks": ["10.0.0.1/32"]}});
        state.put(&Entry {
            key: Key::namespaced(Kind::WorkloadEndpoint, "default", name),
            value: value.to_string().into_bytes(),
            revision: Revision(revision),
            lease: None,
        });
    }

    fn links(links: &[(&str, Option<&str>)]) -> Interfaces {
        let link = |(index, (name, alias)): (usize, &(&str, Option<&str>))| Link {
            index: u32::try_from(index).unwrap() + 1,
            name: (*name).to_owned(),
            alias: alias.map(str::to_owned),
            ..Link::default()
        };
        links.iter().enumerate().map(link).collect()
    }

    fn released(verdict: &Verdict) -> Vec<&Key> {
        verdict.release.iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn r2_an_endpoint_goes_once_its_interface_has_been_gone_for_the_grace() {
        let mut state = State::new("n1");
        put(&mut state, "a", 7, MADE, "cni");
        put(&mut state, "b", 8, MADE, "cni");
        let there = links(&[("calia", None), ("other", Some("margay:net/b/eth0"))]);
        assert!(Sighting::of(&state, &there).suspects.is_empty());
        let gone = links(&[("other", Some("margay:net/b/eth0"))]);
        let start = Instant::now();
        let mut list = Watchlist::new(GRACE, None);
        let mut look = |state: &State, links: &Interfaces, seconds| {
            let now = start + Duration::from_secs(seconds);
            list.judge(Sighting::of(state, links), now, clock(), false)
        };
        assert_eq!(look(&state, &gone, 0), Verdict::default());
        assert_eq!(look(&state, &gone, 59), Verdict::default());
        assert_eq!(released(&look(&state, &gone, 60)), [&key("a")]);
        // Seen again in between, or written anew: the grace begins again.
        assert_eq!(look(&state, &there, 61), Verdict::default());
        assert_eq!(look(&state, &gone, 62), Verdict::default());
        assert_eq!(look(&state, &gone, 121), Verdict::default());
        put(&mut state, "a", 9, MADE, "cni");
        assert_eq!(look(&state, &gone, 130), Verdict::default());
        let verdict = look(&state, &gone, 190);
        assert_eq!(released(&verdict), [&key("a")]);
        let words = verdict.release[0].1.to_string();
        assert!(
            words.contains("container a") && words.contains("calia"),
            "{words}"
        );
    }

    #[test]
    fn newcomers_and_what_others_made_are_never_judged() {
        let mut state = State::new("n1");
        put(&mut state, "young", 1, "2026-11-23T00:59:30Z", "cni");
        put(&mut state, "undated", 2, "", "cni");
        put(&mut state, "stack", 3, MADE, "openstack");
        let mut list = Watchlist::new(GRACE, None);
        let start = Instant::now();
        for seconds in [0, 100, 200] {
            let now = start + Duration::from_secs(seconds);
            let verdict = list.judge(
                Sighting::of(&state, &Interfaces::default()),
                now,
                clock(),
                true,
            );
            assert_eq!(verdict, Verdict::default());
        }
    }

    #[test]
    fn r9_suspiciously_many_wait_for_an_operator_unless_the_machine_has_restarted() {
        let mut state = State::new("n1");
        for n in 0..9 {
            put(&mut state, &format!("c{n}"), n, MADE, "cni");
        }
        let there: Vec<String> = (5..9).map(|n| format!("calic{n}")).collect();
        let there: Vec<(&str, Option<&str>)> = there.iter().map(|name| (&**name, None)).collect();
        let start = Instant::now();
        let judge = |booted: Option<&str>, there: &[(&str, Option<&str>)], confirmed| {
            let booted = booted.and_then(Timestamp::parse_rfc3339);
            let mut list = Watchlist::new(GRACE, booted);
            list.judge(Sighting::of(&state, &links(there)), start, clock(), false);
            let later = start + GRACE;
            let sighting = Sighting::of(&state, &links(there));
            list.judge(sighting, later, clock(), confirmed)
        };
        let held = judge(None, &there, false);
        assert!(held.release.is_empty() && held.held.unwrap().contains("5 of 9"));
        assert_eq!(judge(None, &there, true).release.len(), 5);
        let mut one_more = there.clone();
        one_more.push(("calic4", None));
        assert_eq!(judge(None, &one_more, false).release.len(), 4);
        let earlier = judge(Some("2026-11-22T23:00:00Z"), &there, false);
        assert!(earlier.held.is_some(), "they were made since");
        let later = judge(Some("2026-11-23T00:30:00Z"), &[], false);
        assert_eq!(later.release.len(), 9);
    }
}
