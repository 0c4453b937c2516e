//! A result of a delegate, or of the plugin before in a chain.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_cni::{ResultDoc, Version};

fuzz_target!(|data: &[u8]| {
    for assumed in [None, Some(Version::V0_1_0), Some(Version::LATEST)] {
        let Ok(result) = ResultDoc::from_bytes(data, assumed) else {
            continue;
        };
        for version in Version::ALL {
            // A version that cannot say it refuses; what it does say, it says again.
            let Ok(document) = result.encode(version) else {
                continue;
            };
            let read = ResultDoc::decode(&document, None).expect("what was written is read");
            let again = read.encode(version).expect("and written again");
            assert_eq!(again, document, "{version}");
        }
    }
});
