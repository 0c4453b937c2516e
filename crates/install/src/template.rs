//! Templates of configurations, with words such as `__KUBERNETES_NODE_NAME__` in them.

use std::collections::BTreeMap;

/// What the words of a template stand for, by word.
pub type Words = BTreeMap<&'static str, String>;

/// Every word that a template may have: those of Calico's installer.
pub const WORDS: &[&str] = &[
    "__CNI_MTU__",
    "__DATASTORE_TYPE__",
    "__ETCD_CA_CERT_FILE__",
    "__ETCD_CERT_FILE__",
    "__ETCD_DISCOVERY_SRV__",
    "__ETCD_ENDPOINTS__",
    "__ETCD_KEY_FILE__",
    "__KUBECONFIG_FILENAME__",
    "__KUBECONFIG_FILEPATH__",
    "__KUBERNETES_NODE_NAME__",
    "__KUBERNETES_SERVICE_HOST__",
    "__KUBERNETES_SERVICE_PORT__",
    "__LOG_FILE_MAX_AGE__",
    "__LOG_FILE_MAX_COUNT__",
    "__LOG_FILE_MAX_SIZE__",
    "__LOG_FILE_PATH__",
    "__LOG_LEVEL__",
    "__NODENAME__",
    "__SERVICEACCOUNT_TOKEN__",
];

/// Fills a template. A value is written as it stands within a JSON string; a number fits outside of one as
/// well.
///
/// # Errors
/// The first word that nothing is known of.
pub fn fill(template: &str, words: &Words) -> Result<String, String> {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("__") {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        match word(from) {
            Some(word) => {
                let value = words.get(word).ok_or_else(|| word.to_owned())?;
                let quoted = serde_json::Value::from(value.as_str()).to_string();
                filled.push_str(&quoted[1..quoted.len() - 1]);
                rest = &from[word.len()..];
            }
            None => {
                filled.push_str("__");
                rest = &from[2..];
            }
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

/// The word at the beginning of a text: upper-case letters, digits and single underscores between double ones.
fn word(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("__")?;
    let length = inner.find("__").filter(|length| *length > 0)?;
    let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    inner.as_bytes()[..length]
        .iter()
        .all(|byte| fits(*byte))
        .then(|| &text[..length + 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Words {
        let mut words: Words = WORDS.iter().map(|word| (*word, String::new())).collect();
        words.insert("__CNI_MTU__", "1440".to_owned());
        words.insert("__KUBERNETES_NODE_NAME__", "n\"1\\".to_owned());
        words.insert("__ETCD_ENDPOINTS__", "__CNI_MTU__".to_owned());
        words
    }

    #[test]
    fn words_are_filled_once_and_as_json() {
        for (template, filled) in [
            (r#"{"mtu": __CNI_MTU__}"#, r#"{"mtu": 1440}"#),
            (r#"{"n":"__KUBERNETES_NODE_NAME__"}"#, r#"{"n":"n\"1\\"}"#),
            ("__ETCD_ENDPOINTS__", "__CNI_MTU__"),
            ("__CNI_MTU____CNI_MTU__", "14401440"),
            ("\"__ETCD_CERT_FILE__\"", "\"\""),
            ("a __ b __x__ c_", "a __ b __x__ c_"),
            ("____", "____"),
        ] {
            assert_eq!(fill(template, &words()).unwrap(), filled, "{template}");
        }
    }

    #[test]
    fn a_word_that_nobody_knows_is_named() {
        assert_eq!(
            fill("{\"x\":\"__POD_SUBNET__\"}", &words()).unwrap_err(),
            "__POD_SUBNET__"
        );
    }
}
