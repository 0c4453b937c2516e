//! What policies may say.

use margay_selector::GlobalUse;

use super::{PerformanceHint, PolicyType, StagedAction};
use crate::kind::Kind;
use crate::metadata::Metadata;
use crate::problem::Problems;
use crate::syntax::{is_dns_label, is_dns_subdomain};

/// Checks a policy's name: one DNS label, two around a dot, or what other programs make from Kubernetes.
pub(super) fn name(kind: Kind, metadata: &Metadata, problems: &mut Problems) {
    let name = &metadata.name;
    let made = kind.namespaced()
        && MADE
            .iter()
            .filter_map(|prefix| name.strip_prefix(prefix))
            .any(is_dns_subdomain);
    let plain = name.split('.').count() <= 2 && name.split('.').all(is_dns_label);
    if !(made || plain) {
        problems.refuse_field("name", name, NAMES);
    }
}

/// Checks what all policies have.
pub(super) fn common(
    tier: &str,
    selector: &str,
    types: &[PolicyType],
    hints: &[PerformanceHint],
    problems: &mut Problems,
) {
    let fits = tier.is_empty() || is_dns_label(tier);
    problems.require(fits, "tier", tier, "the name of a Tier");
    problems.selector("selector", selector, GlobalUse::Forbidden);
    problems.distinct("types", types);
    problems.distinct("performanceHints", hints);
}

/// Checks the switches of global policies against each other.
pub(super) fn switches(
    do_not_track: bool,
    pre_dnat: bool,
    apply_on_forward: bool,
    has_egress: bool,
    types: &[PolicyType],
    problems: &mut Problems,
) {
    if do_not_track && pre_dnat {
        problems.refuse_field("preDNAT", true, "false where doNotTrack is true");
    }
    if (do_not_track || pre_dnat) && !apply_on_forward {
        let allowed = "true where doNotTrack or preDNAT is true";
        problems.refuse_field("applyOnForward", false, allowed);
    }
    if pre_dnat {
        problems.require(!has_egress, "egress", "given", "none where preDNAT is true");
        let egress = types.contains(&PolicyType::Egress);
        problems.require(!egress, "types", "Egress", "Ingress where preDNAT is true");
    }
}

/// Checks a staged action; a policy that would delete another says nothing else.
pub(super) fn staged(action: &StagedAction, says_more: bool, problems: &mut Problems) {
    if action.as_str().is_empty() {
        return;
    }
    problems.word("stagedAction", action);
    if *action == StagedAction::Delete && says_more {
        let allowed = "Set, Learn, Ignore, or Delete with no other field than tier";
        problems.refuse_field("stagedAction", action, allowed);
    }
}

/// Beginnings of names that are made from Kubernetes and OpenStack objects.
const MADE: [&str; 2] = ["knp.default.", "ossg.default."];

const NAMES: &str = "a name of at most 63 of a-z, 0-9 and -, beginning and ending alphanumerically, or \
                     two such names around a dot";
