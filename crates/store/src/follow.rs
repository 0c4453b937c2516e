//! Following ranges of the store: a list, then watches, and what to do when they break.
//!
//! A [`Follower`] lists its ranges at one revision and watches each from there. When the connection is
//! lost it comes back with growing pauses and resumes where it was. When what it missed is compacted it
//! lists again, after a jitter, and hands on the differences only. It hands on nothing doubtful: a store
//! whose revision went backwards, another store that lacks anything of what was there, and a new list that
//! lacks much of it, are reported and held until the store is right again or [`Follower::accept`] says that
//! this is how it shall be. Deletions that a watch delivers are never held; somebody made them.
//!
//! Within one range updates come in the store's order; between ranges they do not.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use margay_model::{Key, Prefix};

use crate::Store;
use crate::error::StoreError;
use crate::random::Random;
use crate::types::{Change, Changes, Entry, Page, Revision, StoreId, Watch};

/// Follows ranges of a store; see the module's documentation.
pub struct Follower<S> {
    store: Arc<S>,
    options: Options,
    random: Random,
    ranges: Vec<Range>,
    /// The store that was listed last.
    known_store: Option<StoreId>,
    phase: Phase,
    failures: u32,
    /// What was reported and holds the updates back.
    held: Option<Event>,
    accepted: bool,
    down: bool,
}

/// How a [`Follower`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Decides the jitter; should differ between nodes.
    pub seed: u64,
    /// A list after a compaction waits up to so long, so that not all nodes list at once.
    pub jitter: Duration,
    /// The pause after the first failure; it doubles with each further one.
    pub first_pause: Duration,
    /// The longest pause after a failure, and between looks at a store that is held.
    pub longest_pause: Duration,
    /// A new list that lacks more than this part of a range's entries, in percent, is held.
    pub shrink_percent: u8,
    /// A new list that lacks fewer entries than this is not held.
    pub shrink_entries: usize,
}

/// What a follower reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The ranges were listed, or watched again after an outage. All before this revision is told once
    /// these updates are applied; they are the differences to what was told before.
    Synced {
        /// The list's revision.
        revision: Revision,
        /// The differences.
        updates: Vec<Update>,
    },
    /// Changes of one commit, or of several, in one range.
    Changed {
        /// Up to where the range is told.
        revision: Revision,
        /// The changes, in order.
        updates: Vec<Update>,
    },
    /// The store was lost; said once, until the next [`Event::Synced`].
    Lost(StoreError),
    /// The store's revision is older than what it has shown. Nothing more is told until it is not, or
    /// [`Follower::accept`].
    Regressed {
        /// The newest revision seen.
        known: Revision,
        /// The store's revision now.
        found: Revision,
    },
    /// Another store answers than the one that was followed, as after a restored backup, and it lacks some of
    /// what was there. Nothing more is told until it does not, or [`Follower::accept`].
    Replaced {
        /// How many entries it lacks.
        lacking: usize,
    },
    /// A new list lacks much of what was there. Nothing more is told until it does not, or
    /// [`Follower::accept`].
    Shrunk {
        /// The range.
        prefix: Prefix,
        /// Entries before.
        before: usize,
        /// How many of them are still there.
        after: usize,
    },
}

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// An entry is new or changed.
    Put(Entry),
    /// An entry is gone.
    Delete(Key),
}

#[derive(Debug)]
struct Range {
    prefix: Prefix,
    known: BTreeMap<Key, Revision>,
    revision: Revision,
    watch: Option<Watch>,
}

enum Phase {
    /// Lists everything.
    Listing(Pending<Vec<Page>>),
    /// Opens the watches that are not open.
    Opening(Pending<Opened>),
    /// All watches are open.
    Watching,
}

enum Opened {
    Watches(Vec<(usize, Watch)>),
    Regressed(Revision),
    Replaced,
}

type Pending<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            jitter: Duration::from_secs(5),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(10),
            shrink_percent: 50,
            shrink_entries: 10,
        }
    }
}

impl<S: Store + 'static> Follower<S> {
    /// Follows ranges that do not overlap.
    pub fn new(store: S, prefixes: impl IntoIterator<Item = Prefix>, options: Options) -> Self {
        let ranges = prefixes.into_iter().map(|prefix| Range {
            prefix,
            known: BTreeMap::new(),
            revision: Revision(0),
            watch: None,
        });
        let mut follower = Self {
            store: Arc::new(store),
            random: Random::new(options.seed),
            options,
            ranges: ranges.collect(),
            known_store: None,
            phase: Phase::Watching,
            failures: 0,
            held: None,
            accepted: false,
            down: false,
        };
        follower.list_after(Duration::ZERO);
        follower
    }

    /// Begins from what was known in an earlier life, so that the first list is compared with that.
    #[must_use]
    pub fn with_known(
        mut self,
        revision: Revision,
        known: impl IntoIterator<Item = (Key, Revision)>,
    ) -> Self {
        for (key, at) in known {
            if let Some(range) = self
                .ranges
                .iter_mut()
                .find(|range| range.prefix.contains(&key))
            {
                range.known.insert(key, at);
            }
        }
        for range in &mut self.ranges {
            range.revision = revision;
        }
        self
    }

    /// Takes the store as it is, for the operator who knows that it was restored or emptied. Without a
    /// report that holds updates back it does nothing.
    pub fn accept(&mut self) {
        if self.held.is_some() {
            self.accepted = true;
            self.list_after(Duration::ZERO);
        }
    }

    /// The newest revision that was told.
    pub fn revision(&self) -> Revision {
        let newest = self.ranges.iter().map(|range| range.revision).max();
        newest.unwrap_or_default()
    }

    /// The next event. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Event {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            let event = match &mut self.phase {
                Phase::Listing(pending) => {
                    match std::task::ready!(pending.as_mut().poll(context)) {
                        Ok(pages) => self.listed(pages),
                        Err(StoreError::Compacted { .. }) => {
                            let pause = self.jitter();
                            self.list_after(pause);
                            None
                        }
                        Err(error) => {
                            let pause = self.pause();
                            self.list_after(pause);
                            self.lost(error)
                        }
                    }
                }
                Phase::Opening(pending) => {
                    match std::task::ready!(pending.as_mut().poll(context)) {
                        Ok(Opened::Watches(watches)) => self.opened(watches),
                        Ok(Opened::Regressed(found)) => {
                            let pause = self.options.longest_pause;
                            self.list_after(pause);
                            self.regressed(found)
                        }
                        Ok(Opened::Replaced) => {
                            self.list_after(Duration::ZERO);
                            None
                        }
                        Err(error) => {
                            let pause = self.pause();
                            self.open_after(pause);
                            self.lost(error)
                        }
                    }
                }
                Phase::Watching => std::task::ready!(self.poll_watches(context)),
            };
            if let Some(event) = event {
                return Poll::Ready(event);
            }
        }
    }

    fn poll_watches(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        for index in 0..self.ranges.len() {
            let Some(watch) = &mut self.ranges[index].watch else {
                continue;
            };
            let Poll::Ready(told) = watch.poll_next(context) else {
                continue;
            };
            return Poll::Ready(match told {
                Some(Ok(changes)) => self.changed(index, changes),
                Some(Err(StoreError::Compacted { .. })) => {
                    let pause = self.jitter();
                    self.list_after(pause);
                    None
                }
                // What broke one watch has broken the others too, or soon will: all are opened anew, each from
                // where it was, in one go and not one outage after another.
                Some(Err(error)) => {
                    for range in &mut self.ranges {
                        range.watch = None;
                    }
                    let pause = self.pause();
                    self.open_after(pause);
                    self.lost(error)
                }
                // A watch that ends without a word has met a reader who was too late.
                None => {
                    self.ranges[index].watch = None;
                    let pause = self.pause();
                    self.open_after(pause);
                    None
                }
            });
        }
        Poll::Pending
    }

    /// Compares a list with what is known.
    fn listed(&mut self, pages: Vec<Page>) -> Option<Event> {
        let (store, found) = match pages.first() {
            Some(page) => (page.store, page.revision),
            None => Default::default(),
        };
        // Half of one store and half of another is neither.
        if pages.iter().any(|page| page.store != store) {
            let pause = self.pause();
            self.list_after(pause);
            return None;
        }
        let replaced = self.known_store.is_some_and(|known| known != store);
        if !self.accepted {
            let lists = self.ranges.iter().zip(&pages);
            let lacking: usize = lists.map(|(range, page)| range.lacking(page)).sum();
            if replaced && lacking > 0 {
                let pause = self.options.longest_pause;
                self.list_after(pause);
                return self.hold(Event::Replaced { lacking });
            }
            if found < self.revision() && !replaced {
                let pause = self.options.longest_pause;
                self.list_after(pause);
                return self.regressed(found);
            }
            let shrunk = self.ranges.iter().zip(&pages);
            if let Some(event) = shrunk
                .filter_map(|(range, page)| self.shrunk(range, page))
                .next()
            {
                let pause = self.options.longest_pause;
                self.list_after(pause);
                return self.hold(event);
            }
        }
        let mut updates = Vec::new();
        for (range, page) in self.ranges.iter_mut().zip(pages) {
            let mut gone = std::mem::take(&mut range.known);
            for entry in page.entries {
                let before = gone.remove(&entry.key);
                range.known.insert(entry.key.clone(), entry.revision);
                // Equal revisions of two stores say nothing.
                if replaced || before != Some(entry.revision) {
                    updates.push(Update::Put(entry));
                }
            }
            updates.extend(gone.into_keys().map(Update::Delete));
            range.revision = page.revision;
            range.watch = None;
        }
        self.known_store = Some(store);
        self.held = None;
        self.accepted = false;
        self.down = false;
        self.failures = 0;
        self.open_after(Duration::ZERO);
        Some(Event::Synced {
            revision: found,
            updates,
        })
    }

    fn opened(&mut self, watches: Vec<(usize, Watch)>) -> Option<Event> {
        for (index, watch) in watches {
            self.ranges[index].watch = Some(watch);
        }
        self.phase = Phase::Watching;
        if !std::mem::take(&mut self.down) {
            return None;
        }
        Some(Event::Synced {
            revision: self.revision(),
            updates: Vec::new(),
        })
    }

    fn changed(&mut self, index: usize, changes: Changes) -> Option<Event> {
        let range = &mut self.ranges[index];
        if changes.revision < range.revision {
            let pause = self.options.longest_pause;
            self.list_after(pause);
            return self.regressed(changes.revision);
        }
        self.failures = 0;
        range.revision = changes.revision;
        let updates: Vec<_> = changes
            .changes
            .into_iter()
            .map(|change| match change {
                Change::Put(entry) => {
                    range.known.insert(entry.key.clone(), entry.revision);
                    Update::Put(entry)
                }
                Change::Delete(key, _) => {
                    range.known.remove(&key);
                    Update::Delete(key)
                }
            })
            .collect();
        (!updates.is_empty()).then_some(Event::Changed {
            revision: changes.revision,
            updates,
        })
    }

    fn shrunk(&self, range: &Range, page: &Page) -> Option<Event> {
        let before = range.known.len();
        let lost = range.lacking(page);
        let after = before - lost;
        let share = usize::from(self.options.shrink_percent);
        let too_many = lost * 100 > before * share && lost >= self.options.shrink_entries;
        too_many.then(|| Event::Shrunk {
            prefix: range.prefix.clone(),
            before,
            after,
        })
    }

    fn regressed(&mut self, found: Revision) -> Option<Event> {
        let known = self.revision();
        self.hold(Event::Regressed { known, found })
    }

    /// Reports what holds the updates back, once while it stays the same.
    fn hold(&mut self, event: Event) -> Option<Event> {
        let same = self
            .held
            .as_ref()
            .is_some_and(|held| std::mem::discriminant(held) == std::mem::discriminant(&event));
        self.held = Some(event.clone());
        (!same).then_some(event)
    }

    fn lost(&mut self, error: StoreError) -> Option<Event> {
        let first = !std::mem::replace(&mut self.down, true);
        first.then_some(Event::Lost(error))
    }

    fn list_after(&mut self, pause: Duration) {
        for range in &mut self.ranges {
            range.watch = None;
        }
        let store = Arc::clone(&self.store);
        let prefixes: Vec<_> = self
            .ranges
            .iter()
            .map(|range| range.prefix.clone())
            .collect();
        self.phase = Phase::Listing(Box::pin(async move {
            sleep(pause).await;
            list(&*store, &prefixes).await
        }));
    }

    fn open_after(&mut self, pause: Duration) {
        let store = Arc::clone(&self.store);
        let (known, known_store) = (self.revision(), self.known_store);
        let ranges = self.ranges.iter().enumerate();
        let missing: Vec<_> = ranges
            .filter(|(_, range)| range.watch.is_none())
            .map(|(index, range)| (index, range.prefix.clone(), range.revision))
            .collect();
        self.phase = Phase::Opening(Box::pin(async move {
            sleep(pause).await;
            let found = store.read_many(&[]).await?;
            if known_store.is_some_and(|known| known != found.store) {
                return Ok(Opened::Replaced);
            }
            if found.revision < known {
                return Ok(Opened::Regressed(found.revision));
            }
            let mut watches = Vec::new();
            for (index, prefix, after) in missing {
                watches.push((index, store.watch(&prefix, after).await?));
            }
            Ok(Opened::Watches(watches))
        }));
    }

    fn jitter(&mut self) -> Duration {
        self.up_to(self.options.jitter)
    }

    /// The pause after another failure: twice the one before, of which half is left to chance.
    fn pause(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let pause = self.options.first_pause.saturating_mul(factor);
        let pause = pause.min(self.options.longest_pause);
        self.failures = self.failures.saturating_add(1);
        pause / 2 + self.up_to(pause / 2)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.random.below(most.saturating_add(1)))
    }
}

impl Range {
    /// How many known entries a list does not have.
    fn lacking(&self, page: &Page) -> usize {
        let kept = page
            .entries
            .iter()
            .filter(|entry| self.known.contains_key(&entry.key));
        self.known.len() - kept.count()
    }
}

impl<S> fmt::Debug for Follower<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("ranges", &self.ranges)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

/// Lists ranges at one revision.
async fn list(store: &impl Store, prefixes: &[Prefix]) -> Result<Vec<Page>, StoreError> {
    let mut lists: Vec<Page> = Vec::new();
    for prefix in prefixes {
        let at = lists.first().map(|list| list.revision);
        lists.push(store.list_at(prefix, at).await?);
    }
    Ok(lists)
}

async fn sleep(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
