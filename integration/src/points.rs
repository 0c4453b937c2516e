//! The system calls by which a plugin changes anything, and faults at each of them, by strace.

use std::collections::BTreeMap;
use std::path::Path;

/// One place in a call, and what happens there.
#[derive(Debug, Clone)]
pub struct Point {
    /// The system call.
    pub syscall: &'static str,
    /// Which of a thread's calls of that kind, from 1.
    pub number: usize,
    /// What strace injects.
    pub fault: &'static str,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed as it enters the call.
    Killed,
    /// The call fails.
    Failing,
}

impl Point {
    /// The points of a call that ran to its end, by strace's record of it.
    pub fn all(record: &str, fault: Fault) -> Vec<Self> {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut loaded = 0;
        for line in record.lines() {
            let (thread, call) = line.split_once(' ').unwrap();
            let name = call.trim_start().split('(').next().unwrap();
            let count = counts.entry((thread, name)).or_default();
            *count += 1;
            // Without its libraries a program does not begin, and cannot answer.
            if name == "openat" && (call.contains(".so.") || call.contains("/ld.so")) {
                loaded = *count;
            }
        }
        let mut points = Vec::new();
        for (syscall, errors) in MUTATING {
            let most = counts
                .iter()
                .filter(|((_, name), _)| name == syscall)
                .map(|(_, count)| *count)
                .max()
                .unwrap_or_default();
            let first = if *syscall == "openat" { loaded + 1 } else { 1 };
            let faults: &[&'static str] = match fault {
                Fault::Killed => &["signal=SIGKILL"],
                Fault::Failing => errors,
            };
            for number in first..=most {
                points.extend(faults.iter().map(|fault| Self {
                    syscall,
                    number,
                    fault,
                }));
            }
        }
        points
    }

    /// All points, or `most` of them taken evenly: with `MARGAY_KILL_POINTS=all` a run takes every one.
    pub fn sample(points: Vec<Self>, most: usize) -> Vec<Self> {
        if std::env::var("MARGAY_KILL_POINTS").is_ok_and(|wanted| wanted == "all") {
            return points;
        }
        let step = points.len().div_ceil(most).max(1);
        points.into_iter().step_by(step).collect()
    }

    /// Options for strace that let the fault happen, and write what was called to `record`.
    pub fn options(&self, record: &Path) -> [String; 6] {
        [
            "-o".to_owned(),
            record.display().to_string(),
            "-e".to_owned(),
            format!("trace={}", self.syscall),
            "-e".to_owned(),
            format!(
                "inject={}:{}:when={}",
                self.syscall, self.fault, self.number
            ),
        ]
    }

    /// A word for container ids; without dashes, which endpoints' names double.
    pub fn word(&self) -> String {
        let fault = self.fault.rsplit('=').next().unwrap_or_default();
        format!("{}.{}.{fault}", self.syscall, self.number)
    }
}

/// Options for strace that only count.
pub fn counting(record: &Path) -> [String; 4] {
    let names: Vec<&str> = MUTATING.iter().map(|(name, _)| *name).collect();
    [
        "-o".to_owned(),
        record.display().to_string(),
        "-e".to_owned(),
        format!("trace={}", names.join(",")),
    ]
}

/// The system calls, with the errors that each is made to give.
const MUTATING: &[(&str, &[&str])] = &[
    ("sendto", &["error=ENOBUFS"]),
    ("sendmsg", &["error=ENOBUFS"]),
    ("write", &["error=ENOSPC", "error=EIO"]),
    ("writev", &["error=EIO"]),
    ("pwrite64", &["error=ENOSPC", "error=EIO"]),
    ("fsync", &["error=EIO"]),
    ("fdatasync", &["error=EIO"]),
    ("ftruncate", &["error=EIO"]),
    ("openat", &["error=ENOSPC", "error=EIO"]),
    ("mkdir", &["error=ENOSPC"]),
    ("rename", &["error=EIO"]),
    ("unlink", &["error=EIO"]),
    ("connect", &["error=ENOBUFS"]),
];
