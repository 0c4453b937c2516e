//! A value in the store: the first byte says which kind of object it is taken for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use margay_ipam_core::block;
use margay_model::ipam::{Affinity, Attribute, Block, Handle, IpamConfig};
use margay_model::time::Timestamp;
use margay_model::{AnyResource, Kind, json};
use serde_json::{Map, Value, json};

fuzz_target!(|data: &[u8]| {
    let Some((choice, value)) = data.split_first() else {
        return;
    };
    match usize::from(*choice) % (Kind::ALL.len() + 4) {
        0 => {
            check(value, &[""], |value| {
                let block: Block = serde_json::from_slice(value).ok()?;
                if block.cidr.size() <= 4096 {
                    algebra(block.clone());
                }
                json::encode(&block).ok()
            });
        }
        1 => check(value, &[""], |value| {
            json::encode(&serde_json::from_slice::<Handle>(value).ok()?).ok()
        }),
        2 => check(value, &[""], |value| {
            json::encode(&serde_json::from_slice::<IpamConfig>(value).ok()?).ok()
        }),
        3 => check(value, &[""], |value| {
            json::encode(&Affinity::decode(value).ok()?).ok()
        }),
        kind => {
            let kind = Kind::ALL[kind - 4];
            check(value, &["", "/metadata", "/spec"], |value| {
                let resource = AnyResource::decode(kind, value).ok()?;
                let _ = resource.validate();
                resource.encode().ok()
            });
        }
    }
});

/// What is read and written is read and written the same again, and a field that nobody knows survives, in each of
/// these places of the object.
fn check(value: &[u8], places: &[&str], rewrite: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(written) = rewrite(value) else {
        return;
    };
    let again = rewrite(&written).expect("what was written is read");
    assert_eq!(
        String::from_utf8_lossy(&again),
        String::from_utf8_lossy(&written)
    );
    for place in places {
        let mut marked: Value = serde_json::from_slice(&written).expect("it is JSON");
        let Some(Value::Object(object)) = marked.pointer_mut(place) else {
            continue;
        };
        object.insert(UNKNOWN.to_owned(), mark());
        let Some(kept) = rewrite(marked.to_string().as_bytes()) else {
            panic!("a field that nobody knows makes {marked} unreadable");
        };
        let kept: Value = serde_json::from_slice(&kept).expect("it is JSON");
        let kept = kept.pointer(place).and_then(|kept| kept.get(UNKNOWN));
        assert_eq!(kept, Some(&mark()), "at {place:?} of {marked}");
    }
}

fn mark() -> Value {
    json!({"a": [1, 2.5, null, {"b": "c"}], "d": Map::new()})
}

/// A sound block stays sound whatever is done to it.
fn algebra(mut block: Block) {
    if !block::faults(&block).is_empty() {
        return;
    }
    let attribute = Attribute {
        handle_id: Some("fuzz".to_owned()),
        ..Attribute::default()
    };
    let now = Timestamp {
        seconds: 1_795_393_566,
        nanos: 0,
    };
    let held = block::allocated(&block).count();
    let given = block::assign_next(&mut block, &attribute, |_| false);
    block::written(&mut block);
    assert_eq!(block::faults(&block), Vec::<String>::new());
    assert_eq!(
        block::allocated(&block).count(),
        held + usize::from(given.is_some())
    );
    block::release(&mut block, 0, now, |address, _| Some(address) == given);
    assert_eq!(block::faults(&block), Vec::<String>::new());
    block::release(&mut block, 60, now, |_, _| true);
    block::collect(&mut block, 0, now);
    assert_eq!(block::faults(&block), Vec::<String>::new());
    assert!(block::is_empty(&block));
}

const UNKNOWN: &str = "x-nobody-knows";
