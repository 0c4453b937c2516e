//! What is wrong with objects.

use margay_selector::ItemId;

use super::Calculator;
use super::local::{Local, Subject};
use crate::compile::Stage;
use crate::condition::{Condition, Problem};
use crate::output::HostInterface;

impl Calculator {
    pub(super) fn all_conditions(&self) -> Vec<Condition> {
        let mut conditions: Vec<Condition> = Vec::new();
        for (key, problems) in &self.problems {
            conditions.extend(problems.iter().cloned().map(|problem| Condition {
                key: key.clone(),
                problem,
            }));
        }
        self.policies_conditions(&mut conditions);
        for (subject, local) in self.locals.endpoints() {
            let problems = self.endpoint_problems(subject, local);
            conditions.extend(problems.into_iter().map(|problem| Condition {
                key: subject.key(),
                problem,
            }));
        }
        conditions.sort_unstable();
        conditions
    }

    fn policies_conditions(&self, conditions: &mut Vec<Condition>) {
        for (key, id) in self.policies.stored() {
            let Some(policy) = self.policies.get(id) else {
                continue;
            };
            let mut add = |problem| {
                conditions.push(Condition {
                    key: key.clone(),
                    problem,
                });
            };
            if !self.tiers.knows(&policy.tier) {
                add(Problem::UnknownTier {
                    tier: policy.tier.clone(),
                });
            }
            if self.told.has_policy(id) {
                let services = policy.sets.values().filter_map(|spec| spec.service());
                for service in services.filter(|service| !self.services.contains_key(*service)) {
                    add(Problem::UnknownService {
                        service: service.to_owned(),
                    });
                }
            }
        }
    }

    fn endpoint_problems(&self, subject: &Subject, local: &Local) -> Vec<Problem> {
        let mut problems = Vec::new();
        for profile in local.profiles() {
            if !self.profiles.contains_key(profile) {
                problems.push(Problem::UnknownProfile {
                    profile: profile.clone(),
                });
            }
        }
        match (subject, local) {
            (Subject::Workload(id), Local::Workload { interface, .. }) => {
                if let Some(holder) = self.locals.holder(interface).filter(|holder| *holder != id) {
                    problems.push(Problem::InterfaceTaken {
                        interface: interface.clone(),
                        holder: holder.to_string(),
                    });
                }
            }
            (
                _,
                Local::Host {
                    interface: HostInterface::Every,
                    ..
                },
            ) => {
                let policies = self.locals.number(subject).into_iter();
                let policies = policies.flat_map(|number: ItemId| self.policies_of(number));
                let untracked =
                    policies.filter(|p| p.stage == Stage::Untracked && p.staged.is_none());
                problems.extend(untracked.map(|policy| Problem::UntrackedEverywhere {
                    policy: policy.id.to_string(),
                }));
            }
            _ => {}
        }
        problems
    }
}
