//! A DEL that comes while the ADD is still under way, its runtime long gone: nothing is left of either (D07).
//!
//! strace stops the ADD on entering a certain system call; then the DEL runs to its end, and the ADD goes on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use margay_integration::process::{bin_dir, eventually};
use margay_integration::{Plugin, Pod, Scene, Traces};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// System calls at which an ADD is stopped: those by which it talks to others, or changes anything.
const CALLS: &[&str] = &[
    "openat",
    "flock",
    "ftruncate",
    "pwrite64",
    "fdatasync",
    "sendto",
    "sendmsg",
    "write",
    "writev",
    "unlink",
];

/// So many places are taken evenly from all there are.
const SAMPLE: usize = 20;

/// A system call, and which of a thread's calls of that kind, from 1.
type Place = (&'static str, usize);

/// Where an ADD can be stopped once it has begun, by strace's record of one that ran to its end.
fn places(plugin: &Plugin<'_>, pod: &Pod) -> Vec<Place> {
    let record = plugin.node.dir().join("record");
    let trace = format!("trace={}", CALLS.join(","));
    let options = ["-o", record.to_str().unwrap(), "-e", &trace].map(str::to_owned);
    let conf = Value::Object(plugin.conf.clone());
    let output = plugin.call_traced(&options, "ADD", "first", &pod.path(), &conf);
    assert!(output.success(), "{output:?}");
    plugin.del("first", pod);
    let (mut counts, mut begun) = (BTreeMap::new(), false);
    let mut places: Vec<Place> = Vec::new();
    for line in std::fs::read_to_string(record).unwrap().lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let name = call.trim_start().split('(').next().unwrap();
        let Some(name) = CALLS.iter().find(|known| **known == name) else {
            continue;
        };
        let count = counts.entry((thread.to_owned(), *name)).or_insert(0);
        *count += 1;
        let place = (*name, *count);
        if begun && !places.contains(&place) {
            places.push(place);
        }
        begun |= call.contains("/adding/");
    }
    let step = places.len().div_ceil(SAMPLE).max(1);
    places.into_iter().step_by(step).collect()
}

/// An ADD that is stopped somewhere.
struct Stopped {
    child: Child,
    plugin: Pid,
    answer: PathBuf,
}

impl Stopped {
    /// Starts an ADD and waits until it is stopped; `None` where it never makes that many calls of the kind.
    fn at(plugin: &Plugin<'_>, id: &str, pod: &Pod, call: &str, when: usize) -> Option<Self> {
        let dir = plugin.node.dir();
        let file = |name: &str| dir.join(format!("{name}-{id}"));
        let conf = file("conf");
        std::fs::write(&conf, Value::Object(plugin.conf.clone()).to_string()).unwrap();
        let answer = file("answer");
        let mut command = plugin.node.command("strace");
        command
            .args(["-f", "-qq", "-o"])
            .arg(file("record"))
            .arg("-e")
            .arg(format!("trace={call}"))
            .arg("-e")
            .arg(format!("inject={call}:signal=SIGSTOP:when={when}"))
            .arg(bin_dir().join(plugin.program))
            .envs([
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", id),
                ("CNI_NETNS", &pod.path()),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", &margay_integration::cni::cni_path()),
            ])
            .stdin(Stdio::from(std::fs::File::open(&conf).unwrap()))
            .stdout(Stdio::from(std::fs::File::create(&answer).unwrap()))
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut stopped = None;
        eventually(
            "the ADD is stopped or ends",
            Duration::from_secs(60),
            || {
                stopped = stopped_child(child.id());
                stopped.is_some() || child.try_wait().unwrap().is_some()
            },
        );
        stopped.map(|plugin| Self {
            child,
            plugin,
            answer,
        })
    }

    /// Lets it go on to its end; what it answers.
    fn go_on(mut self) -> Value {
        kill(self.plugin, Signal::SIGCONT).unwrap();
        let mut ended = false;
        eventually("the ADD ends", Duration::from_secs(90), || {
            // Each thread has its own count of calls, and may be stopped, too.
            let _ = kill(self.plugin, Signal::SIGCONT);
            ended = ended || self.child.try_wait().unwrap().is_some();
            ended
        });
        let answer = std::fs::read_to_string(&self.answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = kill(self.plugin, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// The child of this process that is stopped by a signal, if there is one.
fn stopped_child(parent: u32) -> Option<Pid> {
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|pid| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let is_stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            // The program's name, in brackets, comes before its state.
            let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
            state.starts_with('T') || state.starts_with('t')
        };
        let all = tasks.flatten().all(|task| is_stopped(&task.path()));
        let stopped = all && settled(pid);
        stopped.then(|| Pid::from_raw(pid.parse().unwrap()))
    })
}

/// Whether a process is still stopped a moment later: under strace threads are stopped at each call.
fn settled(pid: &str) -> bool {
    (0..5).all(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.contains("State:\tt") || status.contains("State:\tT")
    })
}

/// Stops an ADD at each of many points, lets a DEL run, and then the ADD go on. With `again` the runtime sends
/// another ADD before that.
fn every_point(scene: &Scene, plugin: &Plugin<'_>, again: bool) {
    let rest = scene.at_rest();
    let (mut stops, mut overtaken) = (0, 0);
    let first = scene.lab.pod();
    for (call, when) in places(plugin, &first) {
        let (id, pod) = (format!("{call}{when}"), scene.lab.pod());
        let Some(stopped) = Stopped::at(plugin, &id, &pod, call, when) else {
            plugin.del(&id, &pod);
            continue;
        };
        stops += 1;
        plugin.del(&id, &pod);
        let answer = std::thread::scope(|scope| {
            let later = again.then(|| scope.spawn(|| plugin.add(&id, &pod)));
            // Long enough for the later one to meet the earlier one's file.
            std::thread::sleep(Duration::from_millis(if again { 100 } else { 0 }));
            let answer = stopped.go_on();
            later.map(|later| later.join().unwrap());
            answer
        });
        let place = format!("{call} {when}: {answer}");
        overtaken += usize::from(answer["code"] == 112);
        if again {
            // The later ADD was answered well; it is whole, whatever became of the earlier one.
            let held = scene.traces().held;
            assert!(held.contains("Found 1 allocated"), "{place}: {held}");
            let has_interface = pod.run("ip -br link show eth0").success();
            assert!(has_interface || plugin.program == "margay-ipam", "{place}");
        } else if answer["code"].is_u64() {
            clean(scene, &rest, &pod, &place);
        } else {
            // Stopped after it had ended, as far as a DEL can tell.
            assert!(answer["ips"].is_array(), "{place}");
        }
        plugin.del(&id, &pod);
        clean(scene, &rest, &pod, &place);
        pod.delete();
    }
    assert!(
        stops > 8 && overtaken * 3 > stops,
        "{overtaken} of {stops} were overtaken"
    );
}

#[track_caller]
fn clean(scene: &Scene, rest: &Traces, pod: &Pod, place: &str) {
    // Where the stopped ADD kept the store locked, the agent finishes what the DEL journalled.
    eventually(
        &format!("nothing is left, {place}"),
        Duration::from_secs(30),
        || {
            let left = scene.traces();
            left.holds_nothing()
                && left
                    == Traces {
                        held: left.held.clone(),
                        ..rest.clone()
                    }
        },
    );
    assert_eq!(pod.run("ip -br link").ok().lines().count(), 1, "{place}");
}

#[test]
fn d07_a_del_overtakes_an_add_on_sqlite() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.plugin(), false);
}

#[test]
fn d07_a_del_overtakes_an_add_on_etcd() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), false);
}

#[test]
fn d07_a_del_overtakes_an_add_of_addresses_alone() {
    let scene = Scene::sqlite();
    every_point(&scene, &scene.ipam(), false);
}

#[test]
fn d07_a_later_add_waits_for_an_overtaken_one_and_outlives_it() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.plugin(), true);
}

#[test]
fn d07_a_later_add_of_addresses_alone_outlives_an_overtaken_one() {
    let scene = Scene::etcd();
    every_point(&scene, &scene.ipam(), true);
}
