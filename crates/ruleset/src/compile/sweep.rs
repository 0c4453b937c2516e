//! What nothing leads to any longer.

use std::collections::BTreeSet;

use super::Compiler;
use super::class::ClassKey;
use super::lookup::{self, LookupKey};

impl Compiler {
    /// Takes out what nothing leads to any longer.
    pub(super) fn sweep(&mut self) {
        let placed = self.workloads.values();
        let used: BTreeSet<&ClassKey> = placed
            .flat_map(|placed| [&placed.ingress, &placed.egress])
            .chain(&self.hosts.classes)
            .collect();
        self.classes.retain(|key, _| used.contains(key));
        let lookups = self.classes.values().flat_map(|parts| &parts.lookups);
        let lookups: BTreeSet<LookupKey> = lookups.cloned().collect();
        self.lookups.retain(|key, _| lookups.contains(key));

        let limits = self
            .workloads
            .values()
            .flat_map(|placed| placed.own.chains());
        let roots = self.classes.keys().map(ClassKey::name);
        let mut found: BTreeSet<String> = roots.chain(limits.map(str::to_owned)).collect();
        let mut sets = BTreeSet::new();
        let mut open: Vec<String> = found.iter().cloned().collect();
        while let Some(name) = open.pop() {
            let Some(chain) = self.table.chains().get(&name) else {
                continue;
            };
            for statement in chain.rules.iter().flat_map(|rule| &rule.statements) {
                let mut next: Vec<&str> = statement.chain().into_iter().collect();
                for set in statement.sets() {
                    if !self.fixed.contains(set) && sets.insert(set.to_owned()) {
                        let set = self.table.sets().get(set);
                        let elements = set.into_iter().flat_map(|set| set.elements.values());
                        next.extend(elements.filter_map(lookup::group));
                    }
                }
                for name in next {
                    if !self.fixed.contains(name) && found.insert(name.to_owned()) {
                        open.push(name.to_owned());
                    }
                }
            }
        }
        self.owned.retain(|name, _| found.contains(name));
        let kept = |name: &&String| !self.fixed.contains(*name);
        let chains = self.table.chains().keys().filter(kept);
        let chains: Vec<_> = chains
            .filter(|name| !found.contains(*name))
            .cloned()
            .collect();
        let gone = self.table.sets().keys().filter(kept);
        let gone: Vec<_> = gone.filter(|name| !sets.contains(*name)).cloned().collect();
        for name in chains {
            self.table.remove_chain(&name);
        }
        for name in gone {
            self.table.remove_set(&name);
        }
    }
}
