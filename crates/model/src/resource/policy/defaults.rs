//! What policies say when their authors leave it out.

use super::{PolicyType, StagedAction};
use crate::metadata::Metadata;
use crate::policy_names::{DEFAULT_TIER, TIER_LABEL, annotate};

/// Names the tier, also in the label, and keeps the policy's name in its annotation.
pub(super) fn tier(metadata: &mut Metadata, tier: &mut String) {
    if tier.is_empty() {
        DEFAULT_TIER.clone_into(tier);
    }
    metadata.labels.insert(TIER_LABEL.to_owned(), tier.clone());
    annotate(metadata);
}

/// The directions that a policy with these rules decides.
pub(super) fn types<I, E>(types: &mut Vec<PolicyType>, ingress: &[I], egress: &[E]) {
    if !types.is_empty() {
        return;
    }
    *types = match (ingress.is_empty(), egress.is_empty()) {
        (_, true) => vec![PolicyType::Ingress],
        (true, false) => vec![PolicyType::Egress],
        (false, false) => vec![PolicyType::Ingress, PolicyType::Egress],
    };
}

/// A staged policy that says nothing else would be put in force.
pub(super) fn staged_action(action: &mut StagedAction) {
    if action.as_str().is_empty() {
        *action = StagedAction::Set;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_decide_the_directions() {
        use PolicyType::{Egress, Ingress};
        for (ingress, egress, expected) in [
            (0, 0, vec![Ingress]),
            (1, 0, vec![Ingress]),
            (0, 1, vec![Egress]),
            (1, 1, vec![Ingress, Egress]),
        ] {
            let mut found = Vec::new();
            types(&mut found, &vec![(); ingress], &vec![(); egress]);
            assert_eq!(found, expected);
        }
        let mut given = vec![Egress];
        types(&mut given, &[()], &[(); 0]);
        assert_eq!(given, [Egress]);
    }
}
