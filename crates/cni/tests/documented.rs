//! The documentation explains every code, in the words of the table.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;

use margay_cni::error::CODES;

#[test]
fn e02_and_e03_every_code_is_documented() {
    let text = page();
    for entry in CODES {
        let heading = format!("\n## {} {}\n", entry.code, entry.name);
        let (_, rest) = text
            .split_once(&heading)
            .unwrap_or_else(|| panic!("docs/errors.md has no section {heading:?}"));
        let section = rest.split("\n## ").next().unwrap();
        let said = section.split_whitespace().collect::<Vec<_>>().join(" ");
        for sentence in [entry.meaning, entry.remedy] {
            assert!(
                said.contains(sentence),
                "docs/errors.md, code {}: {sentence:?} is missing",
                entry.code
            );
        }
        assert!(
            said.contains("Example"),
            "docs/errors.md, code {}: there is no example",
            entry.code
        );
    }
}

#[test]
fn e02_reserved_codes_are_not_used() {
    let reserved = |code: &u32| matches!(code, 0 | 9 | 10 | 12..=49 | 52..=99);
    let used: Vec<u32> = CODES.iter().map(|entry| entry.code).collect();
    assert!(!used.iter().any(reserved), "{used:?}");
}

#[test]
fn no_other_code_is_documented() {
    for heading in page().lines().filter_map(|line| line.strip_prefix("## ")) {
        let number = heading.split(' ').next().and_then(|word| word.parse().ok());
        let known = |code: u32| CODES.iter().any(|entry| entry.code == code);
        assert!(number.is_none_or(known), "docs/errors.md: {heading}");
    }
}

fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join("docs/errors.md")).unwrap()
}
