//! Rules of other programs that can drop workloads' packets, for people.

use margay_ruleset::others::Finding;

use crate::table::plain;

/// The findings for people.
pub fn text(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "No other program's rules in nftables drop what workloads forward.\n".to_owned();
    }
    let rows = findings.iter().map(|finding| {
        let what = finding.what.to_owned();
        vec![finding.table.clone(), what, finding.remedy.clone()]
    });
    plain(&HEADER, &rows.collect::<Vec<_>>())
}

const HEADER: [&str; 3] = ["TABLE", "FOUND", "REMEDY"];
