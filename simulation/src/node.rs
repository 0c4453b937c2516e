//! A node of ours: its kernel, its journal, and what its runtimes run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use margay_journal::Journal;
use margay_model::time::Timestamp;
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::kernel::Kernel;
use crate::world::{clock, lock};

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its journal, which a restart leaves.
    pub journal: Journal,
    /// Held by calls for attachments together, and by GC alone: so the specification has it.
    pub calls: RwLock<()>,
    kernel: Mutex<Kernel>,
    boots: AtomicU64,
    booted: Mutex<Timestamp>,
    cut_off: Mutex<Instant>,
    /// Attachments in use, as container and network.
    in_use: Mutex<BTreeSet<(String, String)>>,
}

impl Node {
    pub(crate) fn new(number: usize, folder: &Path) -> Self {
        let name = Self::name_of(number);
        Self {
            journal: Journal::new(folder.join(&name)),
            name,
            calls: RwLock::new(()),
            kernel: Mutex::default(),
            boots: AtomicU64::new(0),
            booted: Mutex::new(clock()),
            cut_off: Mutex::new(Instant::now()),
            in_use: Mutex::default(),
        }
    }

    /// The name of a node by its number.
    pub fn name_of(number: usize) -> String {
        format!("n{number}")
    }

    /// Its kernel.
    pub fn kernel(&self) -> std::sync::MutexGuard<'_, Kernel> {
        lock(&self.kernel)
    }

    /// How often it was restarted.
    pub fn boot(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }

    /// When it started last.
    pub fn booted(&self) -> Timestamp {
        *lock(&self.booted)
    }

    /// Restarts it: all that the kernel held is gone, and every process has ended.
    pub fn restart(&self) -> Vec<crate::kernel::Interface> {
        self.boots.fetch_add(1, Ordering::Relaxed);
        *lock(&self.booted) = clock();
        lock(&self.in_use).clear();
        self.kernel().clear()
    }

    /// Cuts it off from the store for a while.
    pub fn cut_off(&self, time: Duration) {
        *lock(&self.cut_off) = Instant::now() + time;
    }

    /// Whether it is cut off from the store.
    pub fn is_cut_off(&self) -> bool {
        *lock(&self.cut_off) > Instant::now()
    }

    /// A container uses its attachment from now on.
    pub fn use_begins(&self, container: &str, network: &str) {
        lock(&self.in_use).insert((container.to_owned(), network.to_owned()));
    }

    /// A container does not use its attachment any more.
    pub fn use_ends(&self, container: &str, network: &str) {
        lock(&self.in_use).remove(&(container.to_owned(), network.to_owned()));
    }

    /// The containers that use an attachment to a network.
    pub fn in_use(&self, network: &str) -> BTreeSet<String> {
        let used = lock(&self.in_use);
        let of_network = used.iter().filter(|(_, of)| of == network);
        of_network.map(|(container, _)| container.clone()).collect()
    }
}
