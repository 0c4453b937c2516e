//! However ADDs, DELs and take-backs of one attachment interleave, nothing half-made is left (D07).
//!
//! The files are real; what the calls do beside is a model: a record that says who wrote it, and an
//! interface. A schedule says whose step is next.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use margay_journal::{Adding, Assignment, Attachment, Fence};
use proptest::prelude::*;

/// What the calls change.
#[derive(Debug, Default, PartialEq, Eq)]
struct World {
    record: bool,
    interface: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Until the file is had.
    Begin,
    Record,
    Interface,
    /// Whether a DEL came. If not, the call ends with the step after the removal.
    Decide,
    DropInterface,
    DropRecord,
    End,
    Overtake,
    OvertakeAgain,
    Clear,
}

const ADD: &[Step] = &[
    Step::Begin,
    Step::Record,
    Step::Interface,
    Step::Decide,
    Step::DropInterface,
    Step::DropRecord,
    Step::End,
];
const DEL: &[Step] = &[
    Step::Overtake,
    Step::DropInterface,
    Step::DropRecord,
    Step::OvertakeAgain,
    Step::Clear,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Failed,
    Killed,
}

/// One call, step by step.
#[derive(Debug)]
struct Call {
    steps: &'static [Step],
    /// Before which step it is killed.
    dies_at: Option<usize>,
    next: usize,
    fence: Option<Fence>,
    outcome: Option<Outcome>,
    /// When it began, once it had the file, and when it was decided how it ends, or when it was killed.
    began: usize,
    ended: usize,
}

impl Call {
    fn new(steps: &'static [Step], dies_at: Option<usize>) -> Self {
        Self {
            steps,
            dies_at,
            next: 0,
            fence: None,
            outcome: None,
            began: 0,
            ended: 0,
        }
    }

    fn advance(&mut self, world: &mut World, adding: &Adding, now: usize) {
        if self.next == self.steps.len() {
            return;
        }
        if self.outcome.is_none() {
            self.ended = now;
        }
        if self.dies_at == Some(self.next) {
            self.fence = None;
            self.outcome = Some(Outcome::Killed);
            self.ended = now;
            self.next = self.steps.len();
            return;
        }
        let step = self.steps[self.next];
        self.next += 1;
        match step {
            Step::Begin => {
                self.fence = adding.begin(&attachment()).unwrap();
                self.next = usize::from(self.fence.is_some());
                self.began = now;
            }
            Step::Record => world.record = true,
            Step::Interface => world.interface = true,
            Step::Decide => {
                let is_overtaken = self.fence.as_ref().unwrap().is_overtaken().unwrap();
                self.outcome = Some(if is_overtaken {
                    Outcome::Failed
                } else {
                    self.next = self.steps.len() - 1;
                    Outcome::Success
                });
            }
            Step::DropInterface => world.interface = false,
            Step::DropRecord => world.record = false,
            Step::End => self.fence.take().unwrap().end().unwrap(),
            Step::Overtake => {
                adding.overtake(&attachment()).unwrap();
                self.began = now;
            }
            Step::OvertakeAgain => {
                adding.overtake(&attachment()).unwrap();
                self.outcome = Some(Outcome::Success);
            }
            Step::Clear => adding.clear(&attachment()).unwrap(),
        }
    }
}

fn attachment() -> Attachment {
    Attachment {
        network: "net".to_owned(),
        container_id: "c1".to_owned(),
        ifname: "eth0".to_owned(),
    }
}

/// Runs calls in the order that the schedule says, then each to its end; how many files are left.
fn run(calls: &mut [Call], schedule: &[usize]) -> (World, usize) {
    let dir = tempfile::tempdir().unwrap();
    let adding = Adding::below(dir.path());
    let mut world = World::default();
    let rest = (0..calls.len()).flat_map(|call| [call; 40]);
    for (now, next) in schedule.iter().copied().chain(rest).enumerate() {
        let call = next % calls.len();
        calls[call].advance(&mut world, &adding, now);
    }
    let left = std::fs::read_dir(adding.directory()).map_or(0, Iterator::count);
    assert_eq!(left, adding.abandoned().unwrap().len(), "all are unlocked");
    (world, left)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d07_what_adds_and_dels_leave_is_whole_or_nothing(
        schedule in proptest::collection::vec(0..5usize, 0..48),
        dies_at in 0..7usize,
    ) {
        let mut calls = [
            Call::new(ADD, None),
            Call::new(ADD, None),
            Call::new(ADD, Some(dies_at)),
            Call::new(DEL, None),
            Call::new(DEL, None),
        ];
        let (world, left) = run(&mut calls, &schedule);
        let (adds, dels) = calls.split_at(3);
        // A runtime that begins an ADD in the middle of a DEL, and is answered before the DEL is done, gets what
        // it asked for.
        let contained = |add: &Call| dels.iter().any(|del| del.began < add.began && add.ended < del.ended);
        if adds.iter().any(contained) {
            return Ok(());
        }
        let killed = &adds[2];
        let last_del = dels.iter().map(|del| del.began).max().unwrap();
        let outlives = |add: &Call| add.outcome == Some(Outcome::Success) && add.ended > last_del;
        if adds.iter().any(outlives) {
            prop_assert_eq!(world, World { record: true, interface: true }, "{:#?}", calls);
        } else if killed.ended < last_del || killed.outcome != Some(Outcome::Killed) {
            prop_assert_eq!(world, World::default(), "{:#?}", calls);
            prop_assert_eq!(left, 0, "{:#?}", calls);
        } else {
            prop_assert!(left <= 1);
        }
    }
}

fn assignment(timestamp: &str) -> Assignment {
    Assignment {
        attachment: attachment(),
        node: "n1".to_owned(),
        handle: "net.c1".to_owned(),
        timestamp: timestamp.to_owned(),
    }
}

#[test]
fn what_a_killed_add_was_about_to_assign_is_found_once_nobody_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let adding = Adding::below(&dir.path().join("not/there"));
    assert!(adding.abandoned().unwrap().is_empty());
    let mut first = adding.begin(&attachment()).unwrap().unwrap();
    first.assigning(&assignment("1")).unwrap();
    assert!(adding.abandoned().unwrap().is_empty());
    drop(first);
    let mut again = adding.begin(&attachment()).unwrap().unwrap();
    again.assigning(&assignment("2")).unwrap();
    assert!(adding.abandoned().unwrap().is_empty());
    drop(again);
    let found = adding.abandoned().unwrap().pop().unwrap();
    assert_eq!(found.assignments, [assignment("1"), assignment("2")]);
    assert!(
        adding.begin(&attachment()).unwrap().is_none(),
        "no ADD begins while that is given back"
    );
    found.remove().unwrap();
    assert_eq!(std::fs::read_dir(adding.directory()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_add_left_goes_with_a_repetition_that_ends_or_a_del() {
    let dir = tempfile::tempdir().unwrap();
    let adding = Adding::below(dir.path());
    let begin = || adding.begin(&attachment()).unwrap();
    let files = || std::fs::read_dir(adding.directory()).unwrap().count();
    let mut killed = begin().unwrap();
    killed.assigning(&assignment("1")).unwrap();
    assert!(begin().is_none(), "one after another");
    drop(killed);
    begin().unwrap().end().unwrap();
    assert_eq!(files(), 0);
    drop(begin());
    assert!(adding.overtake(&attachment()).unwrap());
    assert!(
        !begin().unwrap().is_overtaken().unwrap(),
        "the mark was for the one that was killed"
    );
    assert!(adding.overtake(&attachment()).unwrap());
    adding.clear(&attachment()).unwrap();
    assert!(!adding.overtake(&attachment()).unwrap());
    assert_eq!(files(), 0);
}
