//! What the CNI specification and its callers demand, shown on the real programs.
//!
//! Each test begins with the number of its requirement: P process and environment, V versions, R results,
//! E errors, A ADD, D DEL, C CHECK, S STATUS, G GC, L delegation, I the IPAM plugin, K chains and capabilities,
//! X `CNI_ARGS`. What needs no kernel and no store is shown beside the code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

mod add;
mod calls;
mod check;
mod del;
mod gc;
mod ipam;

use margay_integration::{Output, Plugin};
use serde_json::Value;

/// The code of an error, after a look at its form: one object with the version, a code and a message.
#[track_caller]
fn refusal(output: &Output) -> u64 {
    assert_eq!(output.code, 1, "{output:?}");
    let error = output.json();
    assert!(error["cniVersion"].is_string(), "{error}");
    let message = error["msg"].as_str().unwrap();
    assert!(
        !message.is_empty() && message.len() <= 256 && !message.contains('\n'),
        "{error}"
    );
    error["code"].as_u64().unwrap()
}

/// A plugin's configuration with changes; `null` removes a key.
fn changed(plugin: &Plugin<'_>, change: &Value) -> Value {
    let mut conf = plugin.conf.clone();
    for (key, value) in change.as_object().unwrap() {
        if value.is_null() {
            conf.remove(key);
        } else {
            conf.insert(key.clone(), value.clone());
        }
    }
    Value::Object(conf)
}
