//! A selector.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use margay_selector::Selector;

fuzz_target!(|text: &str| {
    let Ok(selector) = Selector::parse(text) else {
        return;
    };
    let printed = selector.to_string();
    let again = Selector::parse(&printed).expect("what is printed is read");
    assert_eq!(again.to_string(), printed);
    let names = selector.label_names();
    let labels: BTreeMap<String, String> = names
        .iter()
        .enumerate()
        .map(|(number, name)| ((*name).to_owned(), number.to_string()))
        .collect();
    for labels in [BTreeMap::new(), labels] {
        assert_eq!(
            selector.matches(&labels),
            again.matches(&labels),
            "{printed}"
        );
    }
});
