//! Turns: calls on one node change its blocks one after another.
//!
//! All of a node's assignments go to the same block. A hundred at once would each read it, and all but
//! one find it changed when they write, again and again. The store decides in any case; taking turns only
//! keeps calls from working in vain.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::hints::state_dir;

/// This process's turn on its node, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Turn {
    _lock: Option<Flock<File>>,
}

impl Turn {
    /// Waits for the turn on this node; `state_dir` of the configuration says where turns are taken. Who
    /// has waited for a fortieth of the call's time, or finds no place to wait, goes on without.
    pub async fn wait(conf: &Map<String, Value>, node: &str) -> Self {
        let name = format!("turn-{}", node.replace('/', "_"));
        let patience = margay_plugin::remaining() / 40;
        Self::at(&Path::new(state_dir(conf)).join(name), patience).await
    }

    async fn at(path: &Path, patience: Duration) -> Self {
        let Some(file) = open(path) else {
            return Self { _lock: None };
        };
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(lock),
            Err((file, Errno::EWOULDBLOCK)) => wait(file, patience).await,
            Err(_) => None,
        };
        Self { _lock: lock }
    }
}

/// The kernel wakes whoever waits for a file lock, and knows no limit of time: a thread waits, and
/// what it gets when nobody wants it any more is given back at once.
async fn wait(file: File, patience: Duration) -> Option<Flock<File>> {
    let (give, taken) = oneshot::channel();
    thread::Builder::new()
        .name("turn".to_owned())
        .spawn(move || drop(give.send(Flock::lock(file, FlockArg::LockExclusive).ok())))
        .ok()?;
    tokio::time::timeout(patience, taken).await.ok()?.ok()?
}

fn open(path: &Path) -> Option<File> {
    let open = || File::options().create(true).append(true).open(path);
    open()
        .or_else(|_| {
            fs::create_dir_all(path.parent().map_or_else(PathBuf::new, Path::to_owned))?;
            open()
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn turns_are_taken_one_after_another() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not/there/yet");
        crate::block_on(async {
            let first = Turn::at(&path, LONG).await;
            assert!(first._lock.is_some());
            let begun = Instant::now();
            let impatient = Turn::at(&path, Duration::from_millis(20)).await;
            assert!(impatient._lock.is_none() && begun.elapsed() >= Duration::from_millis(20));
            let giver = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                drop(first);
            });
            let second = Turn::at(&path, LONG).await;
            assert!(second._lock.is_some());
            giver.join().unwrap();
            // The one that gave up has given its lock back, or will as soon as it gets it.
            drop(second);
            assert!(Turn::at(&path, LONG).await._lock.is_some());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn without_a_place_to_wait_nobody_waits() {
        let path = Path::new("/proc/no/such/place");
        crate::block_on(async {
            assert!(Turn::at(path, LONG).await._lock.is_none());
            Ok(())
        })
        .unwrap();
    }

    const LONG: Duration = Duration::from_secs(10);
}
