//! Which parts of a program are alive and which are ready.
//!
//! [`HealthBoard`] is the pure logic, with the time passed in; [`Health`] shares one board between
//! the parts of a program and takes the time from the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// The state of every reporter, without clock and without lock.
#[derive(Clone, Debug, Default)]
pub struct HealthBoard {
    reporters: BTreeMap<ReporterId, State>,
    next: u64,
}

impl HealthBoard {
    /// Adds a reporter, not ready yet, which fails liveness after `timeout` without a report.
    pub fn register(&mut self, name: &str, timeout: Duration, now: Instant) -> ReporterId {
        let id = ReporterId(self.next);
        self.next += 1;
        let state = State {
            name: name.to_owned(),
            timeout,
            heard: now,
            ready: false,
            reason: NO_REPORT.to_owned(),
        };
        self.reporters.insert(id, state);
        id
    }

    /// Notes a sign of life.
    pub fn live(&mut self, id: ReporterId, now: Instant) {
        if let Some(state) = self.reporters.get_mut(&id) {
            state.heard = now;
        }
    }

    /// Notes whether a reporter does its work, and why; this is a sign of life too.
    pub fn ready(&mut self, id: ReporterId, ready: bool, reason: &str, now: Instant) {
        if let Some(state) = self.reporters.get_mut(&id) {
            state.heard = now;
            state.ready = ready;
            reason.clone_into(&mut state.reason);
        }
    }

    /// Forgets a reporter whose work has ended as it should.
    pub fn retire(&mut self, id: ReporterId) {
        self.reporters.remove(&id);
    }

    /// Whether every reporter has been heard within its timeout.
    pub fn liveness(&self, now: Instant) -> HealthReport {
        self.report(|state| match state.silence(now) {
            Some(reason) => (false, reason),
            None => (true, "reports in time".to_owned()),
        })
    }

    /// Whether every reporter is ready; the word of one that has fallen silent does not count.
    pub fn readiness(&self, now: Instant) -> HealthReport {
        self.report(|state| match state.silence(now) {
            Some(reason) => (false, reason),
            None => (state.ready, state.reason.clone()),
        })
    }

    fn report(&self, judge: impl Fn(&State) -> (bool, String)) -> HealthReport {
        let checks: Vec<Check> = self
            .reporters
            .values()
            .map(|state| {
                let (ok, reason) = judge(state);
                Check {
                    name: state.name.clone(),
                    ok,
                    reason,
                }
            })
            .collect();
        HealthReport {
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

/// One board shared by the parts of a program.
#[derive(Clone, Debug, Default)]
pub struct Health {
    board: Arc<Mutex<HealthBoard>>,
}

impl Health {
    /// A board without reporters: alive and ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reporter, not ready yet, which fails liveness after `timeout` without a report.
    ///
    /// `Duration::MAX` is for parts that only work when asked. When the reporter is dropped it
    /// falls silent, as a part that has died should; see [`Reporter::retire`] for one that is done.
    pub fn register(&self, name: &str, timeout: Duration) -> Reporter {
        let id = self.board().register(name, timeout, Instant::now());
        Reporter {
            health: self.clone(),
            id,
        }
    }

    /// Whether every reporter has been heard within its timeout.
    pub fn liveness(&self) -> HealthReport {
        self.board().liveness(Instant::now())
    }

    /// Whether every reporter is ready and alive.
    pub fn readiness(&self) -> HealthReport {
        self.board().readiness(Instant::now())
    }

    /// A reporter that panicked elsewhere leaves the board whole: each change is one assignment.
    fn board(&self) -> MutexGuard<'_, HealthBoard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The voice of one part of a program.
#[derive(Debug)]
pub struct Reporter {
    health: Health,
    id: ReporterId,
}

impl Reporter {
    /// Gives a sign of life.
    pub fn live(&self) {
        self.health.board().live(self.id, Instant::now());
    }

    /// Says whether the part does its work, and why; this is a sign of life too.
    pub fn ready(&self, ready: bool, reason: &str) {
        self.health
            .board()
            .ready(self.id, ready, reason, Instant::now());
    }

    /// Leaves the board: the part has ended as it should.
    pub fn retire(self) {
        self.health.board().retire(self.id);
    }
}

/// Which reporter on its board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReporterId(u64);

/// The answer to one question about the whole program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthReport {
    /// Whether every check holds.
    pub ok: bool,
    /// One check a reporter, in order of registration.
    pub checks: Vec<Check>,
}

impl fmt::Display for HealthReport {
    /// Names who fails and why, or says `ok`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ok {
            return f.write_str("ok");
        }
        let mut separator = "";
        for check in self.checks.iter().filter(|check| !check.ok) {
            write!(f, "{separator}{}: {}", check.name, check.reason)?;
            separator = "; ";
        }
        Ok(())
    }
}

/// What one reporter's state says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The reporter's name.
    pub name: String,
    /// Whether the check holds.
    pub ok: bool,
    /// Why.
    pub reason: String,
}

#[derive(Clone, Debug)]
struct State {
    name: String,
    timeout: Duration,
    heard: Instant,
    ready: bool,
    reason: String,
}

impl State {
    /// The complaint about a silence that has lasted too long.
    fn silence(&self, now: Instant) -> Option<String> {
        let silent = now.saturating_duration_since(self.heard);
        (silent > self.timeout)
            .then(|| format!("silent for {silent:.1?}, longer than {:.1?}", self.timeout))
    }
}

const NO_REPORT: &str = "has not reported yet";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn an_empty_board_is_alive_and_ready() {
        let (board, now) = (HealthBoard::default(), Instant::now());
        assert!(board.liveness(now).ok);
        assert!(board.readiness(now).ok);
    }

    #[test]
    fn a_new_reporter_is_alive_but_not_ready() {
        let (mut board, now) = (HealthBoard::default(), Instant::now());
        board.register("syncer", LIMIT, now);
        assert!(board.liveness(now).ok);
        let report = board.readiness(now);
        assert!(!report.ok);
        assert_eq!(report.to_string(), "syncer: has not reported yet");
    }

    #[test]
    fn silence_is_measured_from_the_last_report_and_the_limit_itself_is_allowed() {
        let (mut board, start) = (HealthBoard::default(), Instant::now());
        let id = board.register("routes", LIMIT, start);
        assert!(board.liveness(start + LIMIT).ok);
        assert!(!board.liveness(start + LIMIT + Duration::from_millis(1)).ok);

        board.live(id, start + LIMIT);
        assert!(board.liveness(start + LIMIT * 2).ok);
        let report = board.liveness(start + LIMIT * 2 + Duration::from_secs(1));
        assert_eq!(
            report.to_string(),
            "routes: silent for 11.0s, longer than 10.0s"
        );
    }

    #[test]
    fn readiness_is_a_sign_of_life_and_keeps_its_reason() {
        let (mut board, start) = (HealthBoard::default(), Instant::now());
        let id = board.register("store", LIMIT, start);
        board.ready(id, true, "in sync at revision 7", start + LIMIT);
        let now = start + LIMIT * 2;
        assert!(board.liveness(now).ok);
        let check = Check {
            name: "store".to_owned(),
            ok: true,
            reason: "in sync at revision 7".to_owned(),
        };
        assert_eq!(
            board.readiness(now),
            HealthReport {
                ok: true,
                checks: vec![check]
            }
        );

        board.ready(id, false, "etcd does not answer", now);
        assert_eq!(
            board.readiness(now).to_string(),
            "store: etcd does not answer"
        );
        assert!(board.liveness(now).ok, "not ready is no reason to restart");
    }

    #[test]
    fn the_word_of_a_silent_reporter_does_not_count() {
        let (mut board, start) = (HealthBoard::default(), Instant::now());
        let id = board.register("store", LIMIT, start);
        board.ready(id, true, "in sync", start);
        assert!(!board.readiness(start + LIMIT * 2).ok);
    }

    #[test]
    fn only_those_who_fail_are_named() {
        let (mut board, start) = (HealthBoard::default(), Instant::now());
        let quiet = board.register("a", Duration::MAX, start);
        board.register("b", LIMIT, start);
        board.register("b", LIMIT / 2, start);
        let now = start + Duration::from_secs(60);
        let report = board.liveness(now);
        assert_eq!(report.checks.len(), 3);
        assert_eq!(
            report.to_string(),
            "b: silent for 60.0s, longer than 10.0s; b: silent for 60.0s, longer than 5.0s"
        );
        board.retire(quiet);
        assert_eq!(board.liveness(now).checks.len(), 2);
    }

    #[test]
    fn a_clock_reading_older_than_the_report_is_no_silence() {
        let (mut board, start) = (HealthBoard::default(), Instant::now());
        board.register("a", Duration::ZERO, start + LIMIT);
        assert!(board.liveness(start).ok);
    }

    #[test]
    fn a_dropped_reporter_stays_and_a_retired_one_goes() {
        let health = Health::new();
        drop(health.register("died", Duration::ZERO));
        health.register("done", Duration::ZERO).retire();
        std::thread::sleep(Duration::from_millis(2));
        let names: Vec<String> = health
            .liveness()
            .checks
            .into_iter()
            .map(|check| check.name)
            .collect();
        assert_eq!(names, ["died"]);
        assert!(!health.liveness().ok);
    }
}
