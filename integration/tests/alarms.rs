//! CHECK raises no false alarm: right after ADD, again and again, with other calls beside it (C05, U28).
//!
//! `MARGAY_CHECKS` says how many ADDs are checked, 1,000 unless given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use margay_integration::Scene;

#[test]
fn c05_check_after_add_raises_no_false_alarm() {
    let wanted = std::env::var("MARGAY_CHECKS");
    let wanted: usize = wanted.map_or(1_000, |text| text.parse().unwrap());
    let scene = Scene::sqlite();
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (scene, plugin, made) = (&scene, &plugin, &made);
            scope.spawn(move || {
                // Namespaces are used again: making them costs more than the calls.
                let pod = scene.lab.pod();
                let path = pod.path();
                loop {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    if number >= wanted {
                        return;
                    }
                    let id = format!("{number}w{worker}");
                    let result = plugin.add(&id, &pod);
                    let checked = plugin.call_after("CHECK", &id, &path, &result);
                    assert!(
                        checked.success() && checked.stdout.is_empty(),
                        "ADD {number}: {checked:?}"
                    );
                    plugin.del(&id, &pod);
                }
            });
        }
    });
    let left = scene.traces();
    assert_eq!((left.links, left.routes), (rest.links, rest.routes));
    assert!(left.held.contains("found no problems"), "{}", left.held);
}

const WORKERS: usize = 4;
