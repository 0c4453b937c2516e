//! YAML documents as people give them to margayctl.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_model::AnyResource;

fuzz_target!(|text: &str| {
    let Ok(documents) = margayctl::yaml::parse(text) else {
        return;
    };
    for document in documents {
        let emitted = margayctl::yaml::emit(&document).expect("a value has a YAML form");
        let again = margayctl::yaml::parse(&emitted).expect("what is written is read");
        // Documents without content are left out.
        if let Some(again) = again.first() {
            assert_eq!(*again, document, "{emitted}");
        }
        if let Ok(mut resource) = AnyResource::from_value(document) {
            resource.set_defaults();
            let _ = resource.validate();
        }
    }
});
