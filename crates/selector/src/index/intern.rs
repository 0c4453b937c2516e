//! Texts kept once, for as long as something refers to them.

use std::collections::HashMap;
use std::sync::Arc;

/// A text of an [`Interner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Sym(u32);

/// Texts by number and number by text, with the number of references to each.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<Arc<str>, Sym>,
    texts: Vec<(Arc<str>, u32)>,
    free: Vec<Sym>,
}

impl Interner {
    /// The number of a text, with one reference more.
    pub(super) fn acquire(&mut self, text: &str) -> Sym {
        if let Some(sym) = self.get(text) {
            self.texts[sym.0 as usize].1 += 1;
            return sym;
        }
        let entry = (Arc::<str>::from(text), 1);
        let key = Arc::clone(&entry.0);
        let sym = if let Some(sym) = self.free.pop() {
            self.texts[sym.0 as usize] = entry;
            sym
        } else {
            self.texts.push(entry);
            // invariant: each text has a reference in memory, and there are fewer of those.
            Sym(u32::try_from(self.texts.len() - 1).unwrap_or(u32::MAX))
        };
        self.numbers.insert(key, sym);
        sym
    }

    /// One reference less; without any the number is free.
    pub(super) fn release(&mut self, sym: Sym) {
        let (text, references) = &mut self.texts[sym.0 as usize];
        *references -= 1;
        if *references == 0 {
            self.numbers.remove(text);
            *text = Arc::from("");
            self.free.push(sym);
        }
    }

    pub(super) fn release_all(&mut self, syms: impl IntoIterator<Item = Sym>) {
        for sym in syms {
            self.release(sym);
        }
    }

    /// The number of a text that something refers to.
    pub(super) fn get(&self, text: &str) -> Option<Sym> {
        self.numbers.get(text).copied()
    }

    pub(super) fn text(&self, sym: Sym) -> &str {
        &self.texts[sym.0 as usize].0
    }

    /// Number of texts.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}
