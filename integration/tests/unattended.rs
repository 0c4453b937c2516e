//! What killed and failing calls leave when nobody repeats them and no DEL comes: nothing, after the agent's pass
//! (R2, R3). And a plugin that another one calls, killed where that one cannot see it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use margay_integration::cni::cni_path;
use margay_integration::points::counting;
use margay_integration::process::{bin_dir, eventually};
use margay_integration::{Fault, Pod, Point, Scene, run};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Waits until the agent has given back everything. All containers of the node are dead, which is held until
/// somebody says that it is so.
fn comes_to_rest(scene: &Scene, what: &str) {
    let mut confirmed = 0;
    eventually(what, Duration::from_secs(60), || {
        let held = scene.agent.process.log();
        if held.matches("suspiciously many").count() > confirmed {
            scene.agent.process.signal(Signal::SIGUSR1);
            confirmed += 1;
        }
        let left = scene.traces();
        left.holds_nothing() && left.routes.is_empty() && waiting(scene).is_empty()
    });
    let links = scene.node().run("ip -br link").ok();
    assert!(!links.contains("cali"), "{what}: {links}");
}

fn waiting(scene: &Scene) -> Vec<PathBuf> {
    let files = std::fs::read_dir(scene.node().dir().join("hints/releases"));
    let files = files.into_iter().flatten().flatten();
    files.map(|file| file.path()).collect()
}

/// One call of each verb, at each of a sample of its points; then the container vanishes.
fn nobody_comes_back(scene: &Scene) {
    let plugin = scene.plugin();
    let conf = Value::Object(plugin.conf.clone());
    let record = scene.node().dir().join("strace");
    let traced = |options: &[String], verb: &str, id: &str, pod: &Pod, conf: &Value| {
        plugin.call_traced(options, verb, id, &pod.path(), conf)
    };
    for verb in ["ADD", "DEL"] {
        let pod = scene.lab.pod();
        if verb == "DEL" {
            plugin.add("first", &pod);
        }
        let whole = traced(&counting(&record), verb, "first", &pod, &conf);
        assert!(whole.success(), "{verb}: {whole:?}");
        plugin.del("first", &pod);
        let calls = std::fs::read_to_string(&record).unwrap();
        let mut left = 0;
        for fault in [Fault::Killed, Fault::Failing] {
            for point in Point::sample(Point::all(&calls, fault), SAMPLE) {
                let (id, pod) = (format!("{verb}.{}", point.word()), scene.lab.pod());
                if verb == "DEL" {
                    plugin.add(&id, &pod);
                }
                let _ = traced(
                    &point.options(Path::new("/dev/null")),
                    verb,
                    &id,
                    &pod,
                    &conf,
                );
                pod.delete();
                left += usize::from(scene.traces().held.contains(&id));
            }
        }
        assert!(left > 0, "no {verb} left anything");
        comes_to_rest(scene, verb);
    }
    // A GC that ended half-way.
    let pods: Vec<Pod> = (0..4).map(|_| scene.lab.pod()).collect();
    let mut conf = plugin.conf.clone();
    conf.insert("cni.dev/valid-attachments".to_owned(), json!([]));
    let conf = Value::Object(conf);
    for syscall in ["sendto", "pwrite64", "write", "fdatasync"] {
        for (n, pod) in pods.iter().enumerate() {
            plugin.add(&format!("gc{n}"), pod);
        }
        scene.age();
        let point = Point {
            syscall,
            number: 3,
            fault: "signal=SIGKILL",
        };
        let _ = traced(
            &point.options(Path::new("/dev/null")),
            "GC",
            "",
            &pods[0],
            &conf,
        );
        for (n, pod) in pods.iter().enumerate() {
            if pod.run("ip -br link").ok().contains("eth0") {
                assert!(pod.run("ip link del eth0").success(), "gc{n}");
            }
        }
        comes_to_rest(scene, "GC");
    }
}

#[test]
fn r3_the_agent_clears_up_after_calls_that_nobody_repeats_on_sqlite() {
    nobody_comes_back(&Scene::sqlite_with(&[GRACE]));
}

#[test]
fn r3_the_agent_clears_up_after_calls_that_nobody_repeats_on_etcd() {
    nobody_comes_back(&Scene::etcd_with(&[GRACE]));
}

/// Calls a reference plugin as a runtime does, with our IPAM plugin behind strace.
struct Behind<'s> {
    scene: &'s Scene,
    kind: &'static str,
    conf: Value,
    folder: PathBuf,
}

impl<'s> Behind<'s> {
    fn new(scene: &'s Scene, kind: &'static str, more: Value) -> Self {
        let mut conf = scene.plugin().with(more).conf;
        conf.insert("type".to_owned(), kind.into());
        conf.insert("cniVersion".to_owned(), "1.0.0".into());
        let folder = scene.lab.dir().join("behind");
        std::fs::create_dir_all(&folder).unwrap();
        Self {
            scene,
            kind,
            conf: Value::Object(conf),
            folder,
        }
    }

    /// One call, in which the IPAM plugin runs under strace with these options.
    fn call(&self, verb: &str, id: &str, pod: &Pod, options: &[String]) -> bool {
        let program = self.folder.join("margay-ipam");
        let script = match options {
            [] => format!("#!/bin/sh\nexec {}/margay-ipam\n", bin_dir().display()),
            options => format!(
                "#!/bin/sh\nexec strace -f -qq {} {}/margay-ipam\n",
                options.join(" "),
                bin_dir().display()
            ),
        };
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut command = self
            .scene
            .node()
            .command(format!("/usr/lib/cni/{}", self.kind));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env(
                "CNI_PATH",
                format!("{}:{}", self.folder.display(), cni_path()),
            );
        run(&mut command, self.conf.to_string().as_bytes()).success()
    }
}

fn killed_behind(kind: &'static str, more: Value, scene: &Scene) {
    let rest = scene.at_rest();
    let behind = Behind::new(scene, kind, more);
    let record = scene.node().dir().join("strace");
    for verb in ["ADD", "DEL"] {
        let pod = scene.lab.pod();
        if verb == "DEL" {
            assert!(behind.call("ADD", "first", &pod, &[]), "{kind}");
        }
        assert!(
            behind.call(verb, "first", &pod, &counting(&record)),
            "{kind} {verb}"
        );
        assert!(behind.call("DEL", "first", &pod, &[]), "{kind}");
        let calls = std::fs::read_to_string(&record).unwrap();
        for fault in [Fault::Killed, Fault::Failing] {
            for point in Point::sample(Point::all(&calls, fault), SAMPLE) {
                let id = format!("{verb}.{}", point.word());
                if verb == "DEL" {
                    assert!(behind.call("ADD", &id, &pod, &[]), "{point:?}");
                }
                behind.call(verb, &id, &pod, &point.options(Path::new("/dev/null")));
                // The runtime's DEL, as after any failure.
                assert!(
                    behind.call("DEL", &id, &pod, &[]),
                    "{kind} {verb} {point:?}"
                );
                assert!(
                    behind.call("ADD", &id, &pod, &[]),
                    "{kind} {verb} {point:?}"
                );
                assert!(
                    behind.call("DEL", &id, &pod, &[]),
                    "{kind} {verb} {point:?}"
                );
            }
        }
    }
    let left = scene.traces();
    assert_eq!(
        (&left.held, &left.files),
        (&rest.held, &rest.files),
        "{kind}"
    );
}

#[test]
fn r3_our_ipam_killed_and_failing_under_bridge_on_sqlite() {
    let bridge = json!({"bridge": "br-other", "isGateway": false});
    killed_behind("bridge", bridge, &Scene::sqlite());
}

#[test]
fn r3_our_ipam_killed_and_failing_under_ptp_on_etcd() {
    killed_behind("ptp", json!({"ipMasq": false}), &Scene::etcd());
}

const GRACE: (&str, &str) = ("MARGAY_CLEANUP_GRACE", "1");
/// Points of one verb and kind of fault, unless all are wanted.
const SAMPLE: usize = 10;
