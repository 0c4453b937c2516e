//! What is wrong with a configuration.

use serde_json::Value;

/// A setting that cannot be used. Secrets are never in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}{}: {problem}; {remedy}", shown(.value.as_deref()))]
pub struct ConfigError {
    /// The setting, as the user wrote it.
    pub key: String,
    /// Its value; `None` where there is none, or it is secret.
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl ConfigError {
    pub(super) fn missing(key: &str, problem: &str, remedy: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: None,
            problem: format!("it is missing, and {problem}"),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn json(key: &str, value: Option<&Value>, problem: &str, remedy: String) -> Self {
        Self {
            key: key.to_owned(),
            value: value.map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            }),
            problem: problem.to_owned(),
            remedy,
        }
    }
}

/// The value between quotes, escaped and not too long.
fn shown(value: Option<&str>) -> String {
    let Some(value) = value else {
        return String::new();
    };
    let mut short: String = value.chars().take(LONGEST).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    format!(" {short:?}")
}

const LONGEST: usize = 80;
