//! Small numbers: sorted sets of them, and values filed under them.

use std::ops::{Index, IndexMut};

/// A sorted set of numbers, 4 bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids(Vec<u32>);

impl Ids {
    pub(super) fn insert(&mut self, id: u32) {
        if let Err(at) = self.0.binary_search(&id) {
            self.0.insert(at, id);
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Ok(at) = self.0.binary_search(&id) {
            self.0.remove(at);
            if self.0.len() < self.0.capacity() / 4 {
                self.0.shrink_to(self.0.len() * 2);
            }
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u32> for Ids {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut ids: Vec<u32> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

/// Values filed under numbers, which are used again once they are free.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    /// The number that the next value will have.
    pub(super) fn next(&self) -> u32 {
        self.free.last().copied().unwrap_or_else(|| {
            // invariant: items are numbered with u32, and there are fewer values than that.
            u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
        })
    }

    pub(super) fn put(&mut self, value: T) -> u32 {
        let id = self.next();
        if self.free.pop().is_some() {
            self.slots[id as usize] = Some(value);
        } else {
            self.slots.push(Some(value));
        }
        id
    }

    pub(super) fn take(&mut self, id: u32) -> Option<T> {
        let value = self.slots.get_mut(id as usize)?.take();
        if value.is_some() {
            self.free.push(id);
        }
        value
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    /// The numbers in use.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.slots)
            .filter_map(|(id, slot)| slot.is_some().then_some(id))
    }
}

impl<T> Index<u32> for Slots<T> {
    type Output = T;

    /// # Panics
    /// The number is free.
    #[expect(
        clippy::expect_used,
        reason = "invariant: whoever keeps a number keeps its value"
    )]
    fn index(&self, id: u32) -> &T {
        self.slots[id as usize].as_ref().expect("a number in use")
    }
}

impl<T> IndexMut<u32> for Slots<T> {
    #[expect(
        clippy::expect_used,
        reason = "invariant: whoever keeps a number keeps its value"
    )]
    fn index_mut(&mut self, id: u32) -> &mut T {
        self.slots[id as usize].as_mut().expect("a number in use")
    }
}
