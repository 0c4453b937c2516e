//! Calls that are killed, or fail, at their system calls, and what a repetition and a DEL leave of them: nothing.
//!
//! Each verb is first run to its end under strace, which counts the system calls by which it changes anything.
//! Then it is run again for points among them: killed on entering the N-th call of a kind, or with that call
//! failing. By default so many points are taken evenly that all tests stay short; `MARGAY_KILL_POINTS=all` takes
//! every one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use margay_integration::points::counting;
use margay_integration::{Fault, Output, Plugin, Pod, Point, Scene};
use serde_json::{Value, json};

/// What the verbs of a point are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Add,
    Del,
    Check,
}

/// Points of one verb and kind of fault, unless all are wanted.
const SAMPLE: usize = 24;
const WORKERS: usize = 4;

fn count(plugin: &Plugin<'_>, verb: &str, id: &str, pod: &Pod, conf: &Value) -> (Output, String) {
    let file = plugin.node.dir().join(format!("strace-{verb}"));
    let options = counting(&file);
    let output = plugin.call_traced(&options, verb, id, &pod.path(), conf);
    assert!(output.success(), "{verb}: {output:?}");
    (output, std::fs::read_to_string(file).unwrap())
}

/// Makes a call with a fault; whether the fault came to pass.
fn hit(plugin: &Plugin<'_>, point: &Point, verb: &str, id: &str, pod: &Pod, conf: &Value) -> bool {
    let file = plugin.node.dir().join(format!("strace-{}", pod.namespace));
    let options = point.options(&file);
    let output = plugin.call_traced(&options, verb, id, &pod.path(), conf);
    if point.fault.starts_with("signal") {
        // strace ends as its program did.
        return output.code == -1;
    }
    // It answers with a result or with an error; only the answer itself may be what could not be written.
    if !(point.syscall == "write" && output.stdout.is_empty()) {
        match (verb, output.code) {
            ("ADD", 0) => assert!(output.json()["ips"].is_array(), "{point:?}: {output:?}"),
            (_, 0) => assert!(output.stdout.is_empty(), "{point:?}: {output:?}"),
            _ => assert!(output.json()["code"].is_u64(), "{point:?}: {output:?}"),
        }
    }
    std::fs::read_to_string(file).unwrap().contains("INJECTED")
}

/// Runs a verb with the fault of each point, on several pods side by side, and cleans up after it.
fn every_point(scene: &Scene, plugin: &Plugin<'_>, verb: Verb, fault: Fault) {
    let conf = Value::Object(plugin.conf.clone());
    let rest = scene.at_rest();
    let pod = scene.lab.pod();
    let (added, record) = count(plugin, "ADD", "first", &pod, &conf);
    let after = |result: &Value| {
        let mut conf = plugin.conf.clone();
        conf.insert("prevResult".to_owned(), result.clone());
        Value::Object(conf)
    };
    let previous = after(&added.json());
    let (_, of_check) = count(plugin, "CHECK", "first", &pod, &previous);
    let (_, of_del) = count(plugin, "DEL", "first", &pod, &previous);
    let record = match verb {
        Verb::Add => record,
        Verb::Check => of_check,
        Verb::Del => of_del,
    };
    let points = Point::sample(Point::all(&record, fault), SAMPLE);
    assert!(points.len() > 3, "{points:?}");
    let (next, struck) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let pod = scene.lab.pod();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(point) = points.get(index) else {
                        return;
                    };
                    let id = format!("k{index}-{}", point.word());
                    if at_point(plugin, &pod, verb, point, &id) {
                        struck.fetch_add(1, Ordering::Relaxed);
                    }
                    let left = pod.run("ip -br link").ok();
                    assert_eq!(left.lines().count(), 1, "{verb:?} {point:?}: {left}");
                }
            });
        }
    });
    // To and from etcd the same bytes go in more or fewer pieces from run to run.
    let struck = struck.into_inner();
    assert!(struck * 3 > points.len(), "{struck} of {}", points.len());
    let left = scene.traces();
    assert_eq!(left.links, rest.links, "{}", left.held);
    assert_eq!(left.routes, rest.routes);
    assert_eq!(left.files, rest.files);
    assert!(left.holds_nothing(), "{}", left.held);
}

fn at_point(plugin: &Plugin<'_>, pod: &Pod, verb: Verb, point: &Point, id: &str) -> bool {
    let conf = Value::Object(plugin.conf.clone());
    let check = |result: &Value| {
        let checked = plugin.call_after("CHECK", id, &pod.path(), result);
        assert!(checked.success(), "{verb:?} {point:?}: {checked:?}");
    };
    let struck = match verb {
        Verb::Add => {
            hit(plugin, point, "ADD", id, pod, &conf);
            plugin.del(id, pod);
            assert_eq!(pod.run("ip -br link").ok().lines().count(), 1, "{point:?}");
            // A repetition finishes what was begun, as a DEL removes it.
            let struck = hit(plugin, point, "ADD", id, pod, &conf);
            check(&plugin.add(id, pod));
            struck
        }
        Verb::Del => {
            plugin.add(id, pod);
            hit(plugin, point, "DEL", id, pod, &conf)
        }
        Verb::Check => {
            let result = plugin.add(id, pod);
            let mut after = plugin.conf.clone();
            after.insert("prevResult".to_owned(), result.clone());
            let struck = hit(plugin, point, "CHECK", id, pod, &Value::Object(after));
            check(&result);
            struck
        }
    };
    plugin.del(id, pod);
    struck
}

#[test]
fn add_killed_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Add, Fault::Killed);
}

#[test]
fn add_killed_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Add, Fault::Killed);
}

#[test]
fn del_killed_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Del, Fault::Killed);
}

#[test]
fn del_killed_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Del, Fault::Killed);
}

#[test]
fn check_killed_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Check, Fault::Killed);
}

#[test]
fn check_killed_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Check, Fault::Killed);
}

#[test]
fn check_failing_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Check, Fault::Failing);
}

#[test]
fn check_failing_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Check, Fault::Failing);
}

#[test]
fn add_failing_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Add, Fault::Failing);
}

#[test]
fn add_failing_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Add, Fault::Failing);
}

#[test]
fn del_failing_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), Verb::Del, Fault::Failing);
}

#[test]
fn del_failing_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), Verb::Del, Fault::Failing);
}

/// The IPAM plugin alone, as another network plugin calls it.
fn addresses_only(scene: &Scene) {
    for verb in [Verb::Add, Verb::Del] {
        for fault in [Fault::Killed, Fault::Failing] {
            every_point(scene, &scene.ipam(), verb, fault);
        }
    }
}

#[test]
fn the_ipam_plugin_killed_and_failing_on_sqlite() {
    addresses_only(&Scene::sqlite());
}

#[test]
fn the_ipam_plugin_killed_and_failing_on_etcd() {
    addresses_only(&Scene::etcd());
}

fn gc(scene: &Scene) {
    let rest = scene.at_rest();
    let plugin = scene.plugin();
    let mut conf = plugin.conf.clone();
    conf.insert("cni.dev/valid-attachments".to_owned(), json!([]));
    let conf = Value::Object(conf);
    let pods = [scene.lab.pod(), scene.lab.pod()];
    let attach = || {
        for (n, pod) in pods.iter().enumerate() {
            plugin.add(&format!("{n}-stale"), pod);
        }
        // So that GC takes none for a newcomer.
        scene.age();
    };
    attach();
    let (_, record) = count(&plugin, "GC", "", &pods[0], &conf);
    assert_eq!(scene.traces(), rest, "GC by itself");
    let (mut struck, mut tried) = (0, 0);
    for fault in [Fault::Killed, Fault::Failing] {
        // GC has the node to itself, so its points come one after the other.
        for point in &Point::sample(Point::all(&record, fault), SAMPLE / 3) {
            attach();
            struck += usize::from(hit(&plugin, point, "GC", "", &pods[0], &conf));
            tried += 1;
            // The next GC, and DEL, finish what it began.
            let again = plugin.call_with("GC", "", "", &[], &conf);
            assert!(again.success(), "{point:?}: {again:?}");
            assert_eq!(scene.traces(), rest, "{point:?}");
            for (n, pod) in pods.iter().enumerate() {
                plugin.del(&format!("{n}-stale"), pod);
            }
        }
    }
    assert!(struck * 2 > tried, "{struck} of {tried}");
}

#[test]
fn gc_killed_and_failing_on_sqlite() {
    gc(&Scene::sqlite());
}

#[test]
fn gc_killed_and_failing_on_etcd() {
    gc(&Scene::etcd());
}
