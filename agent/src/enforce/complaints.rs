//! What is wrong with the objects that policy is made of, told once while it lasts.

use std::collections::BTreeSet;

use margay_policy::{Calculator, Condition};
use tracing::{info, warn};

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: BTreeSet<Condition>,
}

impl Complaints {
    /// Logs what is new, and what is well again; how many there are.
    pub(super) fn tell(&mut self, calculator: &Calculator) -> usize {
        let conditions: BTreeSet<Condition> = calculator.conditions().into_iter().collect();
        for condition in conditions.difference(&self.told) {
            warn!("{}", words(condition));
        }
        for condition in self.told.difference(&conditions) {
            info!(key = %condition.key, "is well again");
        }
        self.told = conditions;
        self.told.len()
    }

    /// All of them, for people.
    pub(super) fn words(&self) -> impl Iterator<Item = String> {
        self.told.iter().map(words)
    }
}

fn words(condition: &Condition) -> String {
    format!("{}: {}", condition.key, condition.problem)
}
