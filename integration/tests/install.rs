//! `margay-agent install`, `uninstall`, and an agent that keeps plugins and CNI configuration in place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use margay_integration::cni::{addresses, cni_path};
use margay_integration::process::{bin_dir, eventually, program};
use margay_integration::{Agent, Lab, Output, StoreKind, run};
use serde_json::Value;

/// Folders of a host, and how the installer is led to them.
struct Host {
    dir: tempfile::TempDir,
    more: Vec<(&'static str, String)>,
}

/// A plugin that does nothing but tell its versions; `text` makes one version differ from another.
fn plugin(text: &str) -> String {
    format!("#!/bin/sh\n# {text}\necho '{{\"supportedVersions\":[\"1.0.0\"]}}'\n")
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("programs")).unwrap();
        let host = Self {
            dir,
            more: Vec::new(),
        };
        host.release("1");
        host
    }

    /// Puts another release of the programs where they are installed from.
    fn release(&self, version: &str) {
        for name in ["margay", "margay-ipam"] {
            let file = self.path("programs").join(name);
            fs::write(&file, plugin(version)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut environment = vec![
            ("CNI_NET_DIR", path("net.d")),
            ("CNI_BIN_DIR", path("bin")),
            ("MARGAY_HOST_PREFIX", path("no-mounts")),
            ("MARGAY_PROGRAMS_DIR", path("programs")),
            ("MARGAY_INSTALL_RECORD", path("state/install.json")),
            ("MARGAY_RUN_DIR", path("run")),
            ("TLS_ASSETS_DIR", path("no-secrets")),
            ("NODENAME", "n1".to_owned()),
        ];
        environment.retain(|(name, _)| self.more.iter().all(|(other, _)| other != name));
        environment.extend(self.more.iter().cloned());
        environment
    }

    fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let installer = program("margay-agent");
        let mut command = match before {
            [] => Command::new(installer),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(installer);
                command
            }
        };
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap_or_default())
            .envs(self.environment());
        command
    }

    fn install(&self, arguments: &[&str]) -> Output {
        let all: Vec<&str> = ["install"].iter().chain(arguments).copied().collect();
        run(&mut self.command(&[], &all), b"")
    }

    fn uninstall(&self) -> Output {
        run(&mut self.command(&[], &["uninstall"]), b"")
    }

    /// Every file of the host with its permissions and content.
    fn files(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        let mut files = BTreeMap::new();
        for folder in ["bin", "net.d", "state"] {
            for entry in fs::read_dir(self.path(folder)).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                files.insert(name, (mode, fs::read(entry.path()).unwrap()));
            }
        }
        files
    }
}

#[test]
fn f02_the_configuration_waits_for_the_agent() {
    let host = Host::new();
    let refused = host.install(&["--wait", "0.3"]);
    assert!(!refused.success());
    assert!(
        refused.stderr.contains("the agent does not answer at")
            && refused.stderr.contains("--wait 0"),
        "{refused:?}"
    );
    let bin = host.path("bin");
    assert!(bin.join("margay").exists() && bin.join("margay-ipam").exists());
    assert!(!host.path("net.d/10-margay.conflist").exists());
    let _ = host.install(&["--wait", "0"]).ok();
    let text = fs::read_to_string(host.path("net.d/10-margay.conflist")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["cniVersion"], "1.0.0");
    assert_eq!(
        list["cniVersions"],
        serde_json::json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
    );
    let before = host.files();
    let again = host.install(&["--wait", "0"]);
    assert!(
        again.success() && !again.stderr.contains("put in place"),
        "{again:?}"
    );
    assert_eq!(host.files(), before);
    let gone = host.uninstall().ok();
    let order: Vec<&str> = gone
        .lines()
        .map(|line| line.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(order, ["10-margay.conflist", "margay", "margay-ipam"]);
    assert!(host.files().is_empty());
    assert!(host.uninstall().ok().contains("names nothing"));
}

/// Keys are in files that root alone reads; the configuration, which others may read, only names them.
#[test]
fn f03_secrets_stay_out_of_the_configuration() {
    let mut host = Host::new();
    let secrets = host.path("secrets");
    fs::create_dir(&secrets).unwrap();
    for name in ["etcd-ca", "etcd-cert", "etcd-key"] {
        fs::write(secrets.join(name), format!("secret {name}")).unwrap();
        fs::set_permissions(secrets.join(name), Permissions::from_mode(0o644)).unwrap();
    }
    host.more.extend([
        ("TLS_ASSETS_DIR", secrets.display().to_string()),
        ("ETCD_ENDPOINTS", "https://127.0.0.1:2379".to_owned()),
    ]);
    for (variable, name) in [
        ("ETCD_CA_CERT_FILE", "etcd-ca"),
        ("ETCD_CERT_FILE", "etcd-cert"),
        ("ETCD_KEY_FILE", "etcd-key"),
    ] {
        let file = secrets.join(name).display().to_string();
        host.more.push((variable, file));
    }
    let _ = host.install(&["--wait", "0"]).ok();
    let text = fs::read_to_string(host.path("net.d/10-margay.conflist")).unwrap();
    assert!(!text.contains("secret etcd"), "{text}");
    for name in ["etcd-ca", "etcd-cert", "etcd-key"] {
        let file = host.path("net.d/margay-tls").join(name);
        assert!(text.contains(&file.display().to_string()), "{name}: {text}");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("secret {name}"));
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    let _ = host.uninstall().ok();
    assert!(!host.path("net.d/margay-tls/etcd-key").exists());
}

#[test]
fn f01_a_runtime_never_reads_half_a_configuration_nor_one_without_programs() {
    let host = Host::new();
    fs::create_dir_all(host.path("net.d")).unwrap();
    let stop = AtomicBool::new(false);
    let (reads, found) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reads, mut found) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                reads += 1;
                found += u64::from(read_as_a_runtime(&host));
            }
            (reads, found)
        });
        for round in 0..15 {
            host.release(&"x".repeat(round * 1000));
            let mtu = format!("{}", 1400 + round);
            let _ = host.install(&["--wait", "0", "--mtu", &mtu]).ok();
            if round % 3 == 2 {
                let _ = host.uninstall().ok();
            }
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(
        reads > 100 && found > 10,
        "{reads} readings, {found} with a configuration"
    );
}

/// Reads configurations as libcni lists them; whether there was one.
fn read_as_a_runtime(host: &Host) -> bool {
    let is_configuration = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        matches!(ending, Some("conf" | "conflist" | "json"))
    };
    for entry in fs::read_dir(host.path("net.d")).unwrap() {
        let path = entry.unwrap().path();
        if !is_configuration(&path) {
            continue;
        }
        // It may be taken away between the listing and the reading.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let list: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        let plugin = &list["plugins"][0];
        for name in [&plugin["type"], &plugin["ipam"]["type"]] {
            let file = host.path("bin").join(name.as_str().unwrap());
            let whole = fs::read_to_string(&file).is_ok_and(|text| text.ends_with("]}'\n"));
            assert!(
                whole || !path.exists(),
                "{} names {}, which is not there",
                path.display(),
                file.display()
            );
        }
        return true;
    }
    false
}

#[test]
fn a_program_that_runs_is_replaced_and_runs_on() {
    let host = Host::new();
    let real = fs::read(program("margay-ipam")).unwrap();
    fs::write(host.path("programs/margay-ipam"), &real).unwrap();
    let _ = host.install(&["--wait", "0"]).ok();
    // It waits for the end of its input.
    let mut running = Command::new(host.path("bin/margay-ipam"))
        .env_clear()
        .envs([("CNI_COMMAND", "GC"), ("CNI_PATH", "/nowhere")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let in_place = fs::File::options()
        .write(true)
        .open(host.path("bin/margay-ipam"));
    assert!(
        in_place.is_err(),
        "nobody can write into a program that runs"
    );
    let newer: Vec<u8> = [&real[..], b"newer"].concat();
    fs::write(host.path("programs/margay-ipam"), &newer).unwrap();
    let _ = host.install(&["--wait", "0"]).ok();
    assert!(fs::read(host.path("bin/margay-ipam")).unwrap() == newer);
    let question = br#"{"cniVersion":"1.1.0","name":"n","type":"x","ipam":{"type":"margay-ipam"}}"#;
    running.stdin.take().unwrap().write_all(question).unwrap();
    let ended = running.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

/// The system calls by which the installer changes anything.
const MUTATING: &str = "openat,write,fchmod,fsync,renameat,renameat2,unlinkat,mkdir,mkdirat,flock";

/// How often each of them is called by the thread that calls it most.
fn calls(record: &str) -> BTreeMap<&str, usize> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in record.lines() {
        let (thread, rest) = line.split_once(' ').unwrap_or_default();
        if let Some((name, _)) = rest.trim_start().split_once('(') {
            *counts.entry((thread, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in counts {
        if MUTATING.split(',').any(|known| known == name) {
            let held = most.entry(name).or_insert(0);
            *held = count.max(*held);
        }
    }
    most
}

#[test]
fn an_installer_killed_at_any_call_is_completed_by_its_repetition() {
    let host = Host::new();
    let trace = host.path("trace").display().to_string();
    let traced = |options: &[&str], arguments: &[&str]| {
        let before: Vec<&str> = ["strace", "-f", "-qq", "-o", &trace]
            .iter()
            .chain(options)
            .copied()
            .collect();
        run(&mut host.command(&before, arguments), b"")
    };
    let only = format!("trace={MUTATING}");
    let install = ["install", "--wait", "0"];
    let mut points = 0;
    // From nothing, over an older release, and away.
    for (older, verb) in [
        (false, &install[..]),
        (true, &install[..]),
        (true, &["uninstall"][..]),
    ] {
        let prepare = || {
            let _ = host.uninstall().ok();
            if older {
                host.release("older");
                let _ = host.install(&["--wait", "0", "--mtu", "1300"]).ok();
            }
            host.release("new");
        };
        prepare();
        let _ = traced(&["-e", &only], verb).ok();
        let right = host.files();
        let counted = fs::read_to_string(&trace).unwrap();
        for (name, count) in calls(&counted) {
            for number in 1..=count {
                prepare();
                let inject = format!("inject={name}:signal=SIGKILL:when={number}");
                let _ = traced(&["-e", &inject], verb);
                points += 1;
                let repeated = run(&mut host.command(&[], verb), b"");
                assert!(repeated.success(), "{name} {number}: {repeated:?}");
                let now = host.files();
                assert!(
                    now == right,
                    "{verb:?} killed at {name} {number}: {:?}",
                    now.keys()
                );
                let _ = host.uninstall().ok();
                let left = host.files();
                assert!(left.is_empty(), "{name} {number}: {:?}", left.keys());
            }
        }
    }
    assert!(points > 60, "{points} points");
}

#[test]
fn f04_an_agent_keeps_what_it_installs() {
    let lab = Lab::new(1);
    let (node, store) = (lab.node(1), StoreKind::Sqlite(lab.dir().join("store.db")));
    let mut host = Host::new();
    host.more
        .push(("MARGAY_PROGRAMS_DIR", bin_dir().display().to_string()));
    host.more.push(("MARGAY_INSTALL_CNI", "true".to_owned()));
    let environment = host.environment();
    let more: Vec<(&str, &str)> = environment
        .iter()
        .filter(|(name, _)| *name != "MARGAY_RUN_DIR" && *name != "NODENAME")
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    fs::create_dir_all(host.path("net.d")).unwrap();
    fs::write(host.path("net.d/05-other.conflist"), "theirs").unwrap();
    let mut agent = Agent::start(node, &store, &more);
    let limit = Duration::from_secs(60);
    let conf = host.path("net.d/10-margay.conflist");
    eventually(
        &format!("the configuration is there: {}", agent.process.log()),
        limit,
        || conf.exists(),
    );
    let text = fs::read_to_string(&conf).unwrap();
    eventually("the other one is reported", limit, || {
        agent.process.log().contains("05-other.conflist")
    });

    // What it wrote is what the plugin wants.
    let list: Value = serde_json::from_str(&text).unwrap();
    let mut single = list["plugins"][0].clone();
    single["name"] = list["name"].clone();
    single["cniVersion"] = "1.0.0".into();
    let pod = lab.pod();
    let call = |verb: &str| {
        let mut command = node.command(host.path("bin/margay"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", cni_path());
        run(&mut command, single.to_string().as_bytes())
    };
    let added = call("ADD");
    assert!(added.success(), "{added:?}");
    let address = &addresses(&added.json())[0];
    assert!(node.run(&format!("ping -n -c 1 -W 2 {address}")).success());

    let real = fs::read(program("margay")).unwrap();
    fs::remove_file(&conf).unwrap();
    eventually("it comes back", limit, || conf.exists());
    fs::write(host.path("bin/margay-ipam"), "overwritten").unwrap();
    eventually("the program comes back", limit, || {
        fs::metadata(host.path("bin/margay-ipam")).is_ok_and(|it| it.len() > 1000)
    });
    assert_eq!(
        fs::read_to_string(host.path("net.d/05-other.conflist")).unwrap(),
        "theirs"
    );
    let refused = host.uninstall();
    assert!(
        !refused.success() && refused.stderr.contains("stop margay-agent"),
        "{refused:?}"
    );

    // U27: it is kept when the agent stops.
    assert_eq!(agent.process.stop(), 0);
    assert!(conf.exists() && fs::read(host.path("bin/margay")).unwrap() == real);
    let deleted = call("DEL");
    assert!(deleted.success(), "{deleted:?}");
    let written = fs::metadata(&conf).unwrap().modified().unwrap();
    let mut agent = Agent::start(node, &store, &more);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(fs::metadata(&conf).unwrap().modified().unwrap(), written);
    assert_eq!(agent.process.stop(), 0);
    let _ = host.uninstall().ok();
    assert_eq!(
        host.files().keys().collect::<Vec<_>>(),
        ["net.d/05-other.conflist"]
    );
}

#[test]
fn f04_two_who_want_the_same_file_do_not_wear_each_other_out() {
    let host = Host::new();
    let mut command = host.command(&[], &["install", "--watch", "--wait", "0"]);
    let log = host.path("log");
    let mut keeper = margay_integration::Running::start(&mut command, &log);
    let conf = host.path("net.d/10-margay.conflist");
    eventually("it is installed", Duration::from_secs(20), || conf.exists());
    let second = host.install(&["--wait", "0"]);
    assert!(
        !second.success() && second.stderr.contains("another process keeps"),
        "{second:?}"
    );
    let ours = fs::read(&conf).unwrap();
    let until = std::time::Instant::now() + Duration::from_secs(4);
    let mut fought = 0;
    while std::time::Instant::now() < until {
        if fs::read(&conf).is_ok_and(|text| text == ours) {
            fought += 1;
            fs::write(&conf, "{\"another\": \"one\"}").unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!((2..15).contains(&fought), "{fought}: {}", keeper.log());
    assert_eq!(keeper.stop(), 0);
}

#[test]
fn calicos_template_and_names_are_taken() {
    let lab = Lab::new(1);
    let (node, store) = (lab.node(1), StoreKind::Sqlite(lab.dir().join("store.db")));
    let agent = Agent::start(node, &store, &[]);
    let mut host = Host::new();
    host.more.extend([
        ("MARGAY_PROGRAMS_DIR", bin_dir().display().to_string()),
        ("MARGAY_RUN_DIR", agent.run_dir.display().to_string()),
        ("MARGAY_CALICO_NAMES", "true".to_owned()),
        ("KUBERNETES_NODE_NAME", "n1".to_owned()),
        ("CNI_MTU", "1440".to_owned()),
        ("CNI_NETWORK_CONFIG", TEMPLATE.to_owned()),
    ]);
    host.more.extend(store.environment());
    let installed = host.install(&[]);
    assert!(installed.success(), "{installed:?}");
    assert!(
        installed.stderr.contains("bandwidth"),
        "what is missing is told: {installed:?}"
    );
    let text = fs::read_to_string(host.path("net.d/10-calico.conflist")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    let mut single = list["plugins"][0].clone();
    assert_eq!(
        (&single["mtu"], &single["nodename"]),
        (&1440.into(), &"n1".into())
    );
    assert_eq!(single["datastore_type"], "sqlite");
    single["name"] = list["name"].clone();
    single["cniVersion"] = list["cniVersion"].clone();
    single["nodename_file"] = node
        .dir()
        .join("state/nodename")
        .display()
        .to_string()
        .into();
    single["state_dir"] = node.dir().join("hints").display().to_string().into();
    single.as_object_mut().unwrap().extend(store.conf());
    let pod = lab.pod();
    for verb in ["ADD", "DEL"] {
        let mut command = node.command(host.path("bin/calico"));
        command
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", host.path("bin"));
        let output = run(&mut command, single.to_string().as_bytes());
        assert!(output.success(), "{verb}: {output:?}");
    }
    let _ = host.uninstall().ok();
    assert!(host.files().is_empty());
}

/// As people who used Calico's installer with etcd have it.
const TEMPLATE: &str = r#"{
  "name": "k8s-pod-network",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "calico",
      "log_level": "__LOG_LEVEL__",
      "log_file_path": "__LOG_FILE_PATH__",
      "datastore_type": "__DATASTORE_TYPE__",
      "etcd_endpoints": "__ETCD_ENDPOINTS__",
      "etcd_key_file": "__ETCD_KEY_FILE__",
      "etcd_cert_file": "__ETCD_CERT_FILE__",
      "etcd_ca_cert_file": "__ETCD_CA_CERT_FILE__",
      "nodename": "__KUBERNETES_NODE_NAME__",
      "mtu": __CNI_MTU__,
      "ipam": {"type": "calico-ipam"},
      "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"}
    },
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}},
    {"type": "bandwidth", "capabilities": {"bandwidth": true}}
  ]
}"#;
