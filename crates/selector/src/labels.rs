//! Where a selector finds label values.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// A set of labels.
pub trait Labels {
    /// The value of this label; `None` when it is absent.
    fn label(&self, name: &str) -> Option<&str>;
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, name: &str) -> Option<&str> {
        (**self).label(name)
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl<S: BuildHasher> Labels for HashMap<String, String, S> {
    fn label(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl Labels for [(&str, &str)] {
    fn label(&self, name: &str) -> Option<&str> {
        self.iter()
            .find_map(|(label, value)| (*label == name).then_some(*value))
    }
}

impl<const N: usize> Labels for [(&str, &str); N] {
    fn label(&self, name: &str) -> Option<&str> {
        self.as_slice().label(name)
    }
}

/// An object's own labels over those it inherits: the first set wins.
impl<Own: Labels, Inherited: Labels> Labels for (Own, Inherited) {
    fn label(&self, name: &str) -> Option<&str> {
        self.0.label(name).or_else(|| self.1.label(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_labels_win() {
        let labels = ([("a", "own")], [("a", "inherited"), ("b", "inherited")]);
        assert_eq!(labels.label("a"), Some("own"));
        assert_eq!(labels.label("b"), Some("inherited"));
        assert_eq!(labels.label("c"), None);
    }
}
