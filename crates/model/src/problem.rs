//! What validation finds wrong.

use std::fmt;

use margay_selector::{GlobalUse, Selector};

use crate::cidr::{Cidr, Family};
use crate::scalar::{GoDuration, Word};

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.ingress[0].destination.ports[1]`.
    pub path: String,
    /// The value found there.
    pub value: String,
    /// What is allowed there.
    pub allowed: String,
}

/// Everything that is wrong with an object.
///
/// Rules report where they are: a rule enters a field with [`Problems::field`] or [`Problems::items`], so
/// that the same rule serves at every place of its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    path: String,
    found: Vec<Problem>,
}

impl Problems {
    /// Nothing found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was found, in the order of the rules.
    pub fn list(&self) -> &[Problem] {
        &self.found
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// `Ok` when nothing was found.
    ///
    /// # Errors
    /// Something was found.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }

    /// Applies rules inside a field; dots separate several steps.
    pub fn field(&mut self, name: &str, rules: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
        rules(self);
        self.path.truncate(length);
    }

    /// Applies rules to each item of the list in the field `name`.
    pub fn items<'a, T: 'a>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = &'a T>,
        rule: impl FnMut(&mut Self, &'a T),
    ) {
        self.field(name, |problems| problems.items_here(items, rule));
    }

    /// Applies rules to each item of the list at the current place.
    pub fn items_here<'a, T: 'a>(
        &mut self,
        items: impl IntoIterator<Item = &'a T>,
        mut rule: impl FnMut(&mut Self, &'a T),
    ) {
        for (index, item) in items.into_iter().enumerate() {
            let length = self.path.len();
            self.path.push_str(&format!("[{index}]"));
            rule(self, item);
            self.path.truncate(length);
        }
    }

    /// Reports the current place.
    pub fn refuse(&mut self, value: impl fmt::Display, allowed: impl Into<String>) {
        self.found.push(Problem {
            path: self.path.clone(),
            value: value.to_string(),
            allowed: allowed.into(),
        });
    }

    /// Reports a field of the current place.
    pub fn refuse_field(
        &mut self,
        name: &str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) {
        self.field(name, |problems| problems.refuse(value, allowed));
    }

    /// Reports a field unless the condition holds.
    pub fn require(
        &mut self,
        holds: bool,
        name: &str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) {
        if !holds {
            self.refuse_field(name, value, allowed);
        }
    }

    /// Requires a word of its set.
    pub fn word<W: Word>(&mut self, name: &str, word: &W) {
        if !W::ALLOWED.contains(&word.text()) {
            self.refuse_field(name, word.text(), W::ALLOWED.join(", "));
        }
    }

    /// Requires a word of its set, or none.
    pub fn optional_word<W: Word>(&mut self, name: &str, word: Option<&W>) {
        if let Some(word) = word {
            self.word(name, word);
        }
    }

    /// Requires words of their set, each at most once.
    pub fn distinct<W: Word + PartialEq>(&mut self, name: &str, words: &[W]) {
        let mut seen: Vec<&W> = Vec::new();
        self.items(name, words, |problems, word| {
            if !W::ALLOWED.contains(&word.text()) {
                problems.refuse(word.text(), W::ALLOWED.join(", "));
            } else if seen.contains(&word) {
                problems.refuse(word.text(), "each once");
            }
            seen.push(word);
        });
    }

    /// Requires a number within a range, or none.
    pub fn range<N: PartialOrd + fmt::Display>(
        &mut self,
        name: &str,
        value: Option<N>,
        range: std::ops::RangeInclusive<N>,
    ) {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            self.refuse_field(name, value, format!("{} to {}", range.start(), range.end()));
        }
    }

    /// Requires a duration that is not negative, or none.
    pub fn positive(&mut self, name: &str, duration: Option<GoDuration>) {
        if let Some(duration) = duration.filter(|duration| duration.as_nanos() < 0) {
            self.refuse_field(name, duration, "a duration of 0s or more");
        }
    }

    /// Requires at most so many items.
    pub fn at_most(&mut self, name: &str, count: usize, most: usize) {
        if count > most {
            self.refuse_field(name, format!("{count} items"), format!("at most {most}"));
        }
    }

    /// Requires a selector within the API's limits; gives it parsed.
    pub fn selector(&mut self, name: &str, text: &str, global: GlobalUse) -> Option<Selector> {
        match margay_selector::validate(text, global) {
            Ok(selector) => Some(selector),
            Err(error) => {
                self.refuse_field(name, text, error.to_string());
                None
            }
        }
    }

    /// Requires, at the current place, a prefix or an address; gives it masked.
    pub fn cidr_here(&mut self, text: &str) -> Option<Cidr> {
        let cidr = text.parse().ok();
        if cidr.is_none() {
            self.refuse(
                text,
                "an IP prefix such as 10.0.0.0/16 or fd00::/64, or an address",
            );
        }
        cidr
    }

    /// Requires an address of the family (either when `None`) in the field, when it is not empty.
    pub fn address(&mut self, name: &str, text: &str, family: Option<Family>) {
        let found = text.parse().ok().map(Family::of);
        let fits = found.is_some() && (family.is_none() || family == found);
        if !text.is_empty() && !fits {
            let allowed = match family {
                Some(family) => format!("an {family} address"),
                None => "an IP address".to_owned(),
            };
            self.refuse_field(name, text, allowed);
        }
    }

    /// Reports an update that changes a fixed field.
    pub fn unchanged<T: PartialEq + fmt::Debug>(&mut self, name: &str, old: &T, new: &T) {
        if old != new {
            self.refuse_field(
                name,
                format!("{new:?}"),
                format!("{old:?}: it cannot be changed once the object exists"),
            );
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:?} where allowed is: {}",
            self.path, self.value, self.allowed
        )
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_fields() {
        let mut problems = Problems::new();
        problems.field("spec", |problems| {
            problems.items("ports", &[1, 2], |problems, port| {
                problems.require(*port == 1, "port", port, "1");
            });
        });
        assert_eq!(problems.list()[0].path, "spec.ports[1].port");
        assert_eq!(
            problems.to_string(),
            "spec.ports[1].port: \"2\" where allowed is: 1"
        );
        assert!(problems.into_result().is_err());
    }
}
