//! DEL ends well whatever is missing, and what it could not give back the agent gives back later (R2, R4).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use margay_integration::process::eventually;
use margay_integration::{Agent, Etcd, Lab, Node, Output, Plugin, StoreKind};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The time that a DEL has.
const DEL_LIMIT: Duration = Duration::from_secs(10);

fn sqlite(lab: &Lab) -> (StoreKind, PathBuf) {
    let directory = lab.dir().join("store");
    (StoreKind::Sqlite(directory.join("store.db")), directory)
}

/// The files of a node's journal.
fn journal(node: Node<'_>) -> Vec<PathBuf> {
    let Ok(files) = fs::read_dir(node.dir().join("hints/releases")) else {
        return Vec::new();
    };
    files.map(|file| file.unwrap().path()).collect()
}

#[track_caller]
fn deleted(output: &Output) {
    assert!(output.success(), "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    assert!(output.took < DEL_LIMIT, "{output:?}");
}

/// Nothing is assigned, nothing used, and nothing inconsistent.
#[track_caller]
fn clean(node: Node<'_>, store: &StoreKind) {
    let inside = node.namespace();
    let checked = store.ctl(Some(&inside), &["ipam", "check"], "").ok();
    for words in ["found no problems", "0 handles", "Found 0 allocated"] {
        assert!(checked.contains(words), "{checked}");
    }
    let endpoints = ["get", "wep", "-A", "-o", "name"];
    assert_eq!(store.ctl(Some(&inside), &endpoints, "").ok().trim(), "");
}

fn links(node: Node<'_>) -> String {
    let links = node.run("ip -br link").ok();
    let ours = links.lines().filter(|line| line.starts_with("cali"));
    ours.collect::<Vec<_>>().join("\n")
}

#[test]
fn d05_del_ends_well_with_any_of_store_namespace_result_ipam_and_node_name_missing() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (store, directory) = sqlite(&lab);
    let away = lab.dir().join("away");
    let mut agent = Agent::start(node, &store, &[]);
    assert_eq!(agent.process.stop(), 0);
    let nodename = agent.state_dir.join("nodename");
    let plugin = Plugin::new(node, &store);
    for missing in 0..32u32 {
        let is_missing = |part: u32| missing & (1 << part) != 0;
        let (id, pod) = (format!("c{missing}"), lab.pod());
        let result = plugin.add(&id, &pod);
        let mut conf = plugin.conf.clone();
        conf.insert("prevResult".to_owned(), result);
        if is_missing(0) {
            fs::rename(&directory, &away).unwrap();
        }
        if is_missing(1) {
            pod.delete();
        }
        if is_missing(2) {
            conf.insert("prevResult".to_owned(), json!({"ips": "torn"}));
        }
        if is_missing(3) {
            conf.remove("ipam");
        }
        if is_missing(4) {
            fs::remove_file(&nodename).unwrap();
        }
        for _ in 0..2 {
            let conf = Value::Object(conf.clone());
            deleted(&plugin.call_with("DEL", &id, &pod.path(), &[], &conf));
            assert_eq!(links(node), "", "{missing:#b}");
        }
        let waits = is_missing(0) || is_missing(4);
        assert_eq!(journal(node).len(), usize::from(waits), "{missing:#b}");
        if is_missing(0) {
            assert!(!directory.exists(), "a DEL must not make a store");
            fs::rename(&away, &directory).unwrap();
        }
        fs::write(&nodename, "n1").unwrap();
        // The DEL that a runtime repeats, now that nothing is missing, finishes what waits.
        deleted(&plugin.call("DEL", &id, ""));
        assert!(journal(node).is_empty(), "{missing:#b}");
    }
    clean(node, &store);
}

#[test]
fn a_locked_datastore_refuses_add_and_takes_del() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (store, _) = sqlite(&lab);
    let _agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    let (pod, other) = (lab.pod(), lab.pod());
    plugin.add("c1", &pod);
    let get = ["get", "clusterinformation", "default", "-o", "json"];
    let mut cluster = store.ctl(None, &get, "").json();
    if let Some(first) = cluster.get_mut("items").map(|items| items[0].take()) {
        cluster = first;
    }
    cluster["spec"]["datastoreReady"] = json!(false);
    let replaced = store.ctl(None, &["replace", "-f", "-"], &cluster.to_string());
    assert!(replaced.success(), "{replaced:?}");
    assert_eq!(plugin.call("ADD", "c2", &other.path()).json()["code"], 11);
    deleted(&plugin.call("DEL", "c1", &pod.path()));
    assert!(journal(node).is_empty());
    clean(node, &store);
}

#[test]
fn r9_a_store_that_comes_back_empty_does_not_swallow_a_release() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (store, directory) = sqlite(&lab);
    let mut agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    let pod = lab.pod();
    plugin.add("c1", &pod);
    agent.process.kill();
    let away = lab.dir().join("away");
    fs::rename(&directory, &away).unwrap();
    // Whatever program comes first makes an empty one.
    let _ = store.ctl(None, &["get", "nodes"], "");
    assert!(directory.exists());
    deleted(&plugin.call("DEL", "c1", &pod.path()));
    assert_eq!(journal(node).len(), 1);
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&away, &directory).unwrap();
    let _agent = Agent::start(node, &store, &[]);
    eventually("the journal is empty", Duration::from_secs(20), || {
        journal(node).is_empty()
    });
    clean(node, &store);
}

#[test]
fn a_journal_that_cannot_be_written_is_told() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (store, directory) = sqlite(&lab);
    let mut agent = Agent::start(node, &store, &[]);
    assert_eq!(agent.process.stop(), 0);
    let file = lab.dir().join("file");
    fs::write(&file, "").unwrap();
    let plugin = Plugin::new(node, &store).with(json!({"state_dir": file}));
    let pod = lab.pod();
    plugin.add("c1", &pod);
    fs::rename(&directory, lab.dir().join("away")).unwrap();
    let refused = plugin.call("DEL", "c1", &pod.path());
    let error = refused.json();
    assert_eq!((refused.code, &error["code"]), (1, &json!(5)), "{error}");
    let told = error.to_string();
    for words in ["journalled", "state_dir", "store.db"] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(links(node), "");
}

/// A DEL of each plugin while etcd is away; then etcd is back, and the agent does what is due.
fn the_agent_gives_back_what_del_could_not(disturb: impl FnOnce(&mut Etcd), restore: Restore) {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let mut etcd = Etcd::start(&lab);
    let store = etcd.store();
    let _agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    let mut addresses_only = Plugin::new(node, &store).with(json!({"type": "bridge"}));
    addresses_only.program = "margay-ipam";
    let pods = [lab.pod(), lab.pod()];
    plugin.add("c1", &pods[0]);
    plugin.add("c2", &pods[1]);
    assert!(addresses_only.call("ADD", "c3", &pods[1].path()).success());
    disturb(&mut etcd);
    deleted(&plugin.call("DEL", "c1", &pods[0].path()));
    deleted(&plugin.call("DEL", "c2", ""));
    deleted(&addresses_only.call("DEL", "c3", ""));
    assert_eq!(links(node), "");
    assert_eq!(journal(node).len(), 3);
    restore(&lab, &mut etcd);
    eventually("the journal is empty", Duration::from_secs(30), || {
        journal(node).is_empty()
    });
    clean(node, &store);
}

type Restore = fn(&Lab, &mut Etcd);

#[test]
fn r4_a_killed_etcd_that_comes_back() {
    let kill = |etcd: &mut Etcd| etcd.process.kill();
    the_agent_gives_back_what_del_could_not(kill, |lab, etcd| *etcd = Etcd::start(lab));
}

#[test]
fn r4_an_etcd_that_does_not_answer_for_a_while() {
    let stop = |etcd: &mut Etcd| etcd.process.signal(Signal::SIGSTOP);
    let go_on: Restore = |_, etcd| etcd.process.signal(Signal::SIGCONT);
    the_agent_gives_back_what_del_could_not(stop, go_on);
}

#[test]
fn r4_an_embedded_store_that_is_moved_away_while_the_agent_is_down() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let (store, directory) = sqlite(&lab);
    let mut agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    let (gone, again) = (lab.pod(), lab.pod());
    plugin.add("gone", &gone);
    plugin.add("again", &again);
    agent.process.kill();
    let away = lab.dir().join("away");
    fs::rename(&directory, &away).unwrap();
    deleted(&plugin.call("DEL", "gone", &gone.path()));
    deleted(&plugin.call("DEL", "again", &again.path()));
    let newer = fs::read(&journal(node)[0]).unwrap();
    fs::write(node.dir().join("hints/releases/0.json"), &newer[..9]).unwrap();
    fs::rename(&away, &directory).unwrap();
    // A container that comes back under its old id is not taken for the one that is to be released.
    let result = plugin.add("again", &again);
    assert_eq!(journal(node).len(), 2);
    let agent = Agent::start(node, &store, &[]);
    eventually("the journal is empty", Duration::from_secs(20), || {
        let files = journal(node);
        files.len() == 1 && files[0].ends_with("0.damaged")
    });
    for words in ["testnet.gone", "finished a journalled release", "0.json"] {
        eventually(words, Duration::from_secs(20), || {
            agent.process.log().contains(words)
        });
    }
    let checked = plugin.call_after("CHECK", "again", &again.path(), &result);
    assert!(checked.success(), "{checked:?}");
    plugin.del("again", &again);
    clean(node, &store);
}

/// A container of the matrix, with what is missing when it is deleted.
struct Lost {
    id: String,
    pod: margay_integration::Pod,
    conf: Value,
}

/// D05, REL04: each subset of {etcd, agent, namespace, previous result, `ipam`} is missing, DEL comes three times
/// and succeeds each time; once all is back nothing is left.
#[test]
fn d05_del_with_each_subset_of_etcd_agent_namespace_result_and_ipam_missing() {
    let lab = Lab::new(1);
    let node = lab.node(1);
    let mut etcd = Etcd::start(&lab);
    let store = etcd.store();
    let mut agent = Agent::start(node, &store, &[]);
    let plugin = Plugin::new(node, &store);
    for (etcd_away, agent_away) in [(false, false), (true, false), (false, true), (true, true)] {
        let group: Vec<Lost> = (0..8u32)
            .map(|missing| {
                let is_missing = |part: u32| missing & (1 << part) != 0;
                let id = format!("c{missing}-{etcd_away}-{agent_away}");
                let pod = lab.pod();
                let result = plugin.add(&id, &pod);
                let mut conf = plugin.conf.clone();
                conf.insert("prevResult".to_owned(), result);
                if is_missing(0) {
                    pod.delete();
                }
                match (is_missing(1), agent_away) {
                    (true, true) => drop(conf.remove("prevResult")),
                    (true, false) => {
                        conf.insert(
                            "prevResult".to_owned(),
                            json!({"cniVersion": 7, "ips": "torn"}),
                        );
                    }
                    _ => {}
                }
                if is_missing(2) {
                    conf.remove("ipam");
                }
                Lost {
                    id,
                    pod,
                    conf: Value::Object(conf),
                }
            })
            .collect();
        if agent_away {
            agent.process.kill();
        }
        if etcd_away {
            etcd.process.kill();
        }
        for _ in 0..3 {
            for Lost { id, pod, conf } in &group {
                deleted(&plugin.call_with("DEL", id, &pod.path(), &[], conf));
            }
            assert_eq!(links(node), "");
        }
        let waits = if etcd_away { group.len() } else { 0 };
        assert_eq!(journal(node).len(), waits, "{etcd_away} {agent_away}");
        if etcd_away {
            etcd = Etcd::start(&lab);
        }
        if agent_away {
            agent = Agent::start(node, &store, &[]);
        }
        eventually("the journal is empty", Duration::from_secs(30), || {
            journal(node).is_empty()
        });
        clean(node, &store);
    }
}
