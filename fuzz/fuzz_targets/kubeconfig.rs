//! A kubeconfig, read by the plugins' own YAML reader.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use margay_kube::Access;

fuzz_target!(|text: &str| {
    // A file that it names is somebody's, and may be a device.
    if text.contains("ile") || text.contains("authority:") || text.contains("client-") {
        return;
    }
    let file = margay_fuzz::scratch().join("kubeconfig");
    fs::write(&file, text).expect("the scratch folder can be written");
    if let Err(error) = Access::from_kubeconfig(&file) {
        assert!(!error.to_string().is_empty());
    }
});
