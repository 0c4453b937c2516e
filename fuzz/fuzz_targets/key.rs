//! A key of the store, the name of an endpoint, and the other texts that stand in objects.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_model::Cidr;
use margay_model::Key;
use margay_model::key::Owner;
use margay_model::names::EndpointName;
use margay_model::time::Timestamp;

fuzz_target!(|text: &str| {
    if let Some(key) = Key::parse(text) {
        assert_eq!(Key::parse(&key.path()), Some(key));
    }
    if let Some(name) = EndpointName::parse(text) {
        let encoded = name.encode().expect("what was read is written");
        assert_eq!(EndpointName::parse(&encoded), Some(name));
    }
    if let Some(owner) = Owner::from_affinity(text) {
        assert_eq!(Owner::from_affinity(&owner.affinity()), Some(owner));
    }
    if let Ok(cidr) = text.parse::<Cidr>() {
        assert_eq!(cidr.to_string().parse(), Ok(cidr));
        assert_eq!(Cidr::from_key_form(&cidr.key_form()), Some(cidr));
        let last = cidr.nth(cidr.size().saturating_sub(1));
        assert!(last.is_none_or(|last| cidr.contains(last)));
    }
    if let Some(time) = Timestamp::parse_rfc3339(text) {
        assert!(time.nanos < 1_000_000_000);
        let _ = time.unix_nanos();
        let written = Timestamp::parse_go_string(&time.go_string());
        assert_eq!(written, Some(time));
    }
});
