//! Which nodes of the cluster are gone, so that others may give back what they held; pure.
//!
//! Only a node is judged that an agent of Margay has run on: of others nobody here knows when they live. It
//! must have been without an agent in an unbroken watch, by this process's own clock, and there must be a
//! declaration: an operator's, the deletion of its Node resource, or a time of silence that an operator has
//! set. A node that is merely cut off goes on serving its containers; their addresses are not given away
//! because nobody hears of it.

mod reclaim;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::time::Duration;

use margay_model::membership::Membership;
use margay_model::{Key, Kind, Prefix};
use margay_store::Revision;
use margay_store::follow::Update;
use tokio::time::Instant;

pub use reclaim::{Reclaim, foretell};

/// What the store says of the cluster's nodes.
#[derive(Debug, Default)]
pub struct Members {
    memberships: BTreeMap<String, Membership>,
    /// Nodes whose agents live.
    held: BTreeSet<String>,
    /// Node resources.
    nodes: BTreeSet<String>,
    /// Nodes without an agent, since when in an unbroken watch.
    silent: BTreeMap<String, Silence>,
}

/// Since when a node is without an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// By this process's clock.
    pub since: Instant,
    /// Since when there has been a declaration beside.
    declared: Option<Instant>,
    /// The store's revision when it was noticed: what is written later shows life.
    pub revision: Revision,
}

/// A node that is gone, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The node.
    pub node: String,
    /// The machine that ran it last.
    pub machine_id: String,
    /// The declaration.
    pub declaration: Declaration,
    /// For how long it has been without an agent.
    pub silent: Duration,
    /// The store's revision when that was noticed.
    pub revision: Revision,
}

/// What, beside its silence, says that a node is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declaration {
    /// An operator said so, then.
    Operator(String),
    /// Its Node resource was deleted.
    Deleted,
    /// It has been silent for as long as an operator has set.
    Silence,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Nodes whose leavings are due, in order.
    pub due: Vec<Gone>,
    /// Why others are held back.
    pub held: Option<String>,
}

impl Members {
    /// The ranges of the store that matter.
    pub fn prefixes() -> [Prefix; 3] {
        [
            Prefix::NodeLeases,
            Prefix::Memberships,
            Prefix::Resources(Kind::Node),
        ]
    }

    /// Takes in changes; up to `revision` everything is told.
    pub fn update(&mut self, updates: &[Update], revision: Revision, now: Instant) {
        for update in updates {
            let (key, value) = match update {
                Update::Put(entry) => (&entry.key, Some(&entry.value)),
                Update::Delete(key) => (key, None),
            };
            match key {
                Key::NodeLease(node) => set(&mut self.held, node, value.is_some()),
                Key::Resource {
                    kind: Kind::Node,
                    name,
                    ..
                } => set(&mut self.nodes, name, value.is_some()),
                Key::Membership(node) => {
                    // One that cannot be read declares nothing.
                    let membership = value.and_then(|value| serde_json::from_slice(value).ok());
                    match membership {
                        Some(membership) => self.memberships.insert(node.clone(), membership),
                        None => self.memberships.remove(node),
                    };
                }
                _ => {}
            }
        }
        let before = std::mem::take(&mut self.silent);
        for (node, membership) in &self.memberships {
            if self.held.contains(node) {
                continue;
            }
            let known = before.get(node);
            let is_declared = membership.gone.is_some() || !self.nodes.contains(node);
            let silence = Silence {
                since: known.map_or(now, |known| known.since),
                declared: is_declared
                    .then(|| known.and_then(|known| known.declared).unwrap_or(now)),
                revision: known.map_or(revision, |known| known.revision),
            };
            self.silent.insert(node.clone(), silence);
        }
    }

    /// The watch was broken: nobody has been silent for any time.
    pub fn forget(&mut self) {
        self.silent.clear();
    }

    /// A node whose records were written since: it begins anew.
    pub fn restart(&mut self, node: &str, revision: Revision, now: Instant) {
        if let Some(silence) = self.silent.get_mut(node) {
            *silence = Silence {
                since: now,
                declared: silence.declared.map(|_| now),
                revision,
            };
        }
    }

    /// Whether this node is the one that gives back: the first by name whose agent lives. Should two think so
    /// for a moment, their commits exclude each other.
    pub fn is_first(&self, me: &str) -> bool {
        self.held.first().is_some_and(|first| first == me)
    }

    /// Judges. `patience` is how long a silent node is waited for without any declaration; never where `None`.
    /// While suspiciously many are gone of which no operator said so, those stay, unless `confirmed`.
    pub fn judge(&self, patience: Option<Duration>, now: Instant, confirmed: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut doubtful = Vec::new();
        for (node, silence) in &self.silent {
            let Some(membership) = self.memberships.get(node) else {
                continue;
            };
            let silent = now.duration_since(silence.since);
            let declared = silence.declared.map(|since| now.duration_since(since));
            let declaration = if declared.is_some_and(|span| span >= DECLARED) {
                match &membership.gone {
                    Some(at) => Declaration::Operator(at.clone()),
                    None => Declaration::Deleted,
                }
            } else if patience.is_some_and(|patience| silent >= patience) {
                Declaration::Silence
            } else {
                continue;
            };
            let gone = Gone {
                node: node.clone(),
                machine_id: membership.machine_id.clone(),
                declaration,
                silent,
                revision: silence.revision,
            };
            match gone.declaration {
                Declaration::Operator(_) => verdict.due.push(gone),
                Declaration::Deleted | Declaration::Silence => doubtful.push(gone),
            }
        }
        let (many, all) = (doubtful.len(), self.memberships.len());
        if many >= FEWEST_HELD && many * 2 > all && !confirmed {
            verdict.held = Some(format!("{many} of {all} nodes are gone"));
        } else {
            verdict.due.extend(doubtful);
        }
        verdict
    }

    /// Number of nodes of ours without an agent.
    pub fn silent(&self) -> usize {
        self.silent.len()
    }

    /// Nodes other than `me` that will be given back unless an agent runs there in time, in words.
    pub fn foretell(&self, me: &str, patience: Option<Duration>) -> String {
        let mut text = String::new();
        for (node, silence) in self.silent.iter().filter(|(node, _)| *node != me) {
            let within = silence.declared.map(|_| DECLARED).or(patience);
            if let Some(within) = within {
                let _ = writeln!(
                    text,
                    "give back what node {node} held, unless an agent runs there within {within:?}"
                );
            }
        }
        text
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            machine_id,
            declaration,
            silent,
            revision,
        } = self;
        write!(
            f,
            "node {node} (machine {machine_id}) is gone: no agent has held its name for {} s, since revision \
             {revision}, and {declaration}",
            silent.as_secs()
        )
    }
}

impl fmt::Display for Declaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator(at) => write!(f, "an operator declared it gone at {at}"),
            Self::Deleted => f.write_str("its Node resource was deleted"),
            Self::Silence => f.write_str("that is as long as MARGAY_NODE_GRACE says"),
        }
    }
}

fn set(names: &mut BTreeSet<String>, name: &str, present: bool) {
    if present {
        names.insert(name.to_owned());
    } else {
        names.remove(name);
    }
}

/// For how long declaration and silence must have held together: twice the time in which a hold lapses.
pub const DECLARED: Duration = Duration::from_secs(60);
/// So many nodes at once are held back if they are more than half.
const FEWEST_HELD: usize = 3;

#[cfg(test)]
mod tests {
    use margay_store::Entry;
    use serde_json::json;

    use super::*;

    fn put(key: Key, value: &serde_json::Value) -> Update {
        Update::Put(Entry {
            key,
            value: value.to_string().into_bytes(),
            revision: Revision(1),
            lease: None,
        })
    }

    fn node(name: &str) -> Update {
        put(Key::resource(Kind::Node, name), &json!({}))
    }

    fn lease(name: &str) -> Update {
        put(Key::NodeLease(name.to_owned()), &json!({}))
    }

    fn membership(name: &str, gone: Option<&str>) -> Update {
        let value = json!({"machineId": format!("m-{name}"), "gone": gone});
        put(Key::Membership(name.to_owned()), &value)
    }

    struct Clock(Members, Instant);

    impl Clock {
        /// A cluster of nodes, of which the first have agents.
        fn new(all: usize, held: usize) -> Self {
            let mut members = Members::default();
            let start = Instant::now();
            let updates: Vec<Update> = (0..all)
                .flat_map(|n| {
                    let name = format!("n{n}");
                    let mut updates = vec![node(&name), membership(&name, None)];
                    updates.extend((n < held).then(|| lease(&name)));
                    updates
                })
                .collect();
            members.update(&updates, Revision(7), start);
            Self(members, start)
        }

        fn tell(&mut self, seconds: u64, updates: &[Update]) {
            let at = self.1 + Duration::from_secs(seconds);
            self.0.update(updates, Revision(8), at);
        }

        fn due(&self, seconds: u64, patience: Option<u64>) -> Vec<String> {
            let at = self.1 + Duration::from_secs(seconds);
            let verdict = self.0.judge(patience.map(Duration::from_secs), at, false);
            verdict.due.into_iter().map(|gone| gone.node).collect()
        }
    }

    #[test]
    fn a_silent_node_is_waited_for_as_long_as_an_operator_says() {
        let clock = Clock::new(4, 3);
        assert!(clock.due(1_000_000, None).is_empty());
        assert!(clock.due(599, Some(600)).is_empty());
        assert_eq!(clock.due(600, Some(600)), ["n3"]);
    }

    #[test]
    fn a_declared_node_goes_when_it_has_been_silent_with_that_for_a_minute() {
        let mut clock = Clock::new(4, 3);
        clock.tell(1000, &[membership("n3", Some("then"))]);
        assert!(clock.due(1059, None).is_empty());
        assert_eq!(clock.due(1060, None), ["n3"]);
        let verdict = clock
            .0
            .judge(None, clock.1 + Duration::from_secs(1060), false);
        let words = verdict.due[0].to_string();
        for part in ["n3", "m-n3", "1060 s", "revision 7", "at then"] {
            assert!(words.contains(part), "{words}");
        }
        // Its agent is back, and gone again.
        clock.tell(1061, &[lease("n3")]);
        assert!(clock.due(5000, None).is_empty());
        clock.tell(2000, &[Update::Delete(Key::NodeLease("n3".to_owned()))]);
        assert!(clock.due(2059, None).is_empty());
        assert_eq!(clock.due(2060, None), ["n3"]);
        let now = clock.1 + Duration::from_secs(2060);
        clock.0.restart("n3", Revision(9), now);
        assert!(clock.due(2119, None).is_empty());
        clock.tell(2119, &[membership("n3", None)]);
        assert!(clock.due(9999, None).is_empty(), "taken back");
    }

    #[test]
    fn the_deletion_of_its_node_resource_declares_a_node_gone() {
        let mut clock = Clock::new(4, 3);
        let deleted = |name: &str| Update::Delete(Key::resource(Kind::Node, name));
        clock.tell(10, &[deleted("n3"), deleted("n0")]);
        assert_eq!(clock.due(70, None), ["n3"], "n0 has an agent");
        clock.0.forget();
        clock.tell(80, &[]);
        assert!(clock.due(139, None).is_empty(), "the watch was broken");
        assert_eq!(clock.due(140, None), ["n3"]);
    }

    #[test]
    fn a_node_that_no_agent_of_ours_ran_is_never_judged() {
        let mut clock = Clock::new(4, 4);
        clock.tell(0, &[node("foreign")]);
        clock.tell(1, &[Update::Delete(Key::resource(Kind::Node, "foreign"))]);
        assert!(clock.due(1_000_000, Some(60)).is_empty());
        clock.tell(
            2,
            &[put(Key::Membership("torn".to_owned()), &json!("torn"))],
        );
        assert!(clock.due(1_000_000, Some(60)).is_empty());
    }

    #[test]
    fn r9_suspiciously_many_wait_for_an_operator() {
        let mut clock = Clock::new(5, 2);
        let judge = |clock: &Clock, confirmed| {
            let at = clock.1 + Duration::from_secs(600);
            clock.0.judge(Some(Duration::from_secs(600)), at, confirmed)
        };
        let verdict = judge(&clock, false);
        assert!(verdict.due.is_empty() && verdict.held.unwrap().contains("3 of 5"));
        assert_eq!(judge(&clock, true).due.len(), 3);
        // What an operator said counts, however many it is.
        let gone = |name: &str| membership(name, Some("then"));
        clock.tell(0, &[gone("n2"), gone("n3"), gone("n4")]);
        assert_eq!(judge(&clock, false).due.len(), 3);
        assert!(clock.0.is_first("n0") && !clock.0.is_first("n1"));
    }
}
