//! A plugin's call: its variables and its standard input.
//!
//! The input is the values of `CNI_COMMAND`, `CNI_CONTAINERID`, `CNI_NETNS`, `CNI_IFNAME`, `CNI_ARGS` and
//! `CNI_PATH`, each ended by a newline, and then stdin.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_call::{AddressSettings, Settings};
use margay_cni::error::Error;
use margay_cni::{Request, Version};
use margay_datastore::Config;
use serde_json::Value;

const VARIABLES: [&str; 6] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
];

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let mut values = Vec::new();
    for _ in VARIABLES {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (value, left) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + 1..]));
        values.push(String::from_utf8_lossy(value).into_owned());
        rest = left;
    }
    let env = |name: &str| {
        let index = VARIABLES.iter().position(|known| *known == name)?;
        values.get(index).cloned()
    };
    let version = Version::of_answer(rest);
    let _ = Version::report(rest);
    let request = match Request::parse(env, rest.to_vec()) {
        Ok(request) => request,
        Err(error) => return answerable(&error, version),
    };
    assert_eq!(
        request.stdin, rest,
        "a delegate gets what came, byte for byte"
    );
    assert!(!request.container_id.contains('/') && request.container_id != "..");
    assert!(!request.ifname.contains('/'));
    let conf = &request.conf;
    let lenient = conf.prev_result_if_readable();
    match conf.prev_result() {
        Ok(found) => assert_eq!(found, lenient),
        Err(error) => answerable(&error, version),
    }
    let results = [
        conf.runtime_config().map(|_| ()),
        conf.args_ips().map(|_| ()),
        conf.dns().map(|_| ()),
        conf.valid_attachments().map(|_| ()),
        conf.ipam().map(|_| ()),
        request.requested_addresses().map(|_| ()),
        Settings::read(conf, &|_| None).map(|_| ()),
    ];
    for error in results.into_iter().filter_map(Result::err) {
        answerable(&error, version);
    }
    let _ = conf.mesos();
    // Whatever else is wrong, a DEL looks for its store.
    let _ = Config::from_cni(conf.raw(), &|_| None);
    if let Ok(Some(ipam)) = conf.ipam()
        && let Err(error) = AddressSettings::read(ipam.raw)
    {
        answerable(&error, version);
    }
});

/// The runtime can read the error, and a person can: one short line, no control characters.
fn answerable(error: &Error, version: Version) {
    assert!(error.code > 0);
    let document = error.encode(version);
    let again: Value = serde_json::from_str(&document.to_string()).expect("it is JSON");
    assert_eq!(again["code"], document["code"]);
    let message = |document: &Value| document["msg"].as_str().expect("it has one").to_owned();
    let told = message(&document);
    assert!(told.len() <= 256, "{} bytes: {told}", told.len());
    assert!(!told.chars().any(char::is_control), "{told:?}");
    let deleted = message(&error.clone().for_del().encode(version)).to_lowercase();
    for words in ["not found", "no such file or directory"] {
        assert!(!deleted.contains(words), "{deleted}");
    }
}
