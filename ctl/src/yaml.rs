//! YAML, read within limits and written in the order of the fields.

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::Value;

/// Reads every document of a text, JSON included. Documents without content are left out.
///
/// # Errors
/// The text is no YAML, or exceeds the limits; with line and column.
pub fn parse(text: &str) -> Result<Vec<Value>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MOST_DEPTH,
            max_documents: MOST_DOCUMENTS,
            max_nodes: MOST_NODES,
            max_aliases: MOST_ALIASES,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| anyhow!("{error}"))
}

/// Writes one document, without the leading `---`.
///
/// # Errors
/// The value has no YAML form.
pub fn emit<T: Serialize>(value: &T) -> Result<String> {
    let options = serde_saphyr::ser_options! {
        indent_step: 2,
        compact_list_indent: true,
        prefer_block_scalars: false,
    };
    serde_saphyr::to_string_with_options(value, options).context("writing YAML")
}

const MOST_DEPTH: usize = 64;
const MOST_DOCUMENTS: usize = 100_000;
const MOST_NODES: usize = 1_000_000;
const MOST_ALIASES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_of_both_notations() {
        let text = "a: 1\nb: [x, \"2\"]\n---\n---\n{\"c\": null}\n";
        assert_eq!(
            parse(text).unwrap(),
            [json!({"a": 1, "b": ["x", "2"]}), json!({"c": null})]
        );
    }

    #[test]
    fn texts_that_look_like_numbers_stay_texts() {
        let value = json!({"a": "64512", "b": "true", "c": "", "d": {}, "e": [], "f": "1:2", "g": "role == 'db'"});
        assert_eq!(parse(&emit(&value).unwrap()).unwrap(), [value]);
    }

    #[test]
    fn order_and_layout() {
        let value = json!({"kind": "X", "apiVersion": "v", "spec": {"nets": ["10.0.0.0/8", "x"], "rules": [{"action": "Allow", "ports": [80, "1:2"]}], "none": {}}});
        assert_eq!(
            emit(&value).unwrap(),
            "kind: X\napiVersion: v\nspec:\n  nets:\n  - 10.0.0.0/8\n  - x\n  rules:\n  - action: Allow\n    ports:\n    - 80\n    - \"1:2\"\n  none: {}\n"
        );
    }

    #[test]
    fn errors_say_where() {
        let error = parse("a: 1\nb: [x\nc: 2\n").unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
        let error = parse("a: 1\na: 2\n").unwrap_err().to_string();
        assert!(error.contains("duplicate"), "{error}");
    }

    #[test]
    fn small_texts_cannot_become_large() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
        }
        assert!(parse(&text).is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
