//! The guide names every problem by the words that are reported.

use margay_policy::Problem;

#[test]
fn every_problem_is_explained() {
    let guide =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/policy.md"));
    let guide = guide.unwrap().replace('\n', " ");
    let text = || "…".to_owned();
    for problem in [
        Problem::Unreadable { reason: text() },
        Problem::Unselective { reason: text() },
        Problem::Denies { reason: text() },
        Problem::LeftOut { reason: text() },
        Problem::Unsupported {
            path: text(),
            denies: true,
        },
        Problem::UnknownTier { tier: text() },
        Problem::UnknownProfile { profile: text() },
        Problem::UnknownService { service: text() },
        Problem::InterfaceTaken {
            interface: text(),
            holder: text(),
        },
        Problem::Lacks { what: "…" },
        Problem::UntrackedEverywhere { policy: text() },
    ] {
        let message = problem.to_string();
        let words: Vec<&str> = guide
            .split('`')
            .filter(|words| words.contains(' '))
            .collect();
        assert!(
            words.iter().any(|words| message.contains(words)),
            "docs/policy.md does not explain: {message}"
        );
    }
}
