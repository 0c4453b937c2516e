//! The contract of the crate: what is put in place, in which order, and what is left alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use margay_install::{
    Configuration, InstallError, Keeper, Program, SecretFile, Wanted, apply, uninstall,
};

const PLUGIN: &str = "#!/bin/sh\necho '{\"supportedVersions\":[\"1.0.0\"]}'\n";

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(host.path("source")).unwrap();
        for name in ["margay", "margay-ipam"] {
            host.program(name, PLUGIN);
        }
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let file = self.path("source").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    }

    fn wanted(&self) -> Wanted {
        let program = |name: &str| Program {
            name: name.to_owned(),
            source: self.path("source").join(name),
        };
        Wanted {
            record: self.path("state/install.json"),
            bin_dirs: vec![self.path("bin")],
            programs: vec![program("margay"), program("margay-ipam")],
            update_programs: true,
            secrets: vec![SecretFile {
                path: self.path("net.d/margay-kubeconfig"),
                content: b"token".to_vec(),
            }],
            net_dir: self.path("net.d"),
            configuration: Some(list("one")),
            old_name: None,
        }
    }

    fn mode(&self, name: &str) -> u32 {
        fs::symlink_metadata(self.path(name)).unwrap().mode() & 0o7777
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn list(network: &str) -> Configuration {
    let text = format!(
        r#"{{"name":"{network}","plugins":[{{"type":"margay","ipam":{{"type":"margay-ipam"}}}}]}}"#
    );
    Configuration::new("10-margay.conflist", text, false).unwrap()
}

fn ready() -> Result<(), String> {
    Ok(())
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn everything_is_placed_with_its_permissions_and_a_repetition_changes_nothing() {
    let host = Host::new();
    let done = apply(&host.wanted(), &ready).unwrap();
    let placed = [
        "bin/margay",
        "bin/margay-ipam",
        "net.d/margay-kubeconfig",
        "net.d/10-margay.conflist",
    ];
    assert_eq!(done.changed, placed.map(|name| host.path(name)));
    for (name, mode) in placed.into_iter().zip([0o755, 0o755, 0o600, 0o644]) {
        assert_eq!(host.mode(name), mode, "{name}");
    }
    let about = |name: &str| {
        let about = fs::metadata(host.path(name)).unwrap();
        (about.ino(), about.mtime_nsec(), about.ctime_nsec())
    };
    let before = placed.map(about);
    let again = apply(&host.wanted(), &ready).unwrap();
    assert!(
        again.changed.is_empty() && again.waiting.is_none(),
        "{again:?}"
    );
    assert_eq!(placed.map(about), before);
    assert_eq!(
        about("state/install.json").0,
        fs::metadata(host.path("state/install.json")).unwrap().ino()
    );
}

#[test]
fn f02_the_configuration_waits_for_the_agent_and_then_stays() {
    let host = Host::new();
    let wanted = host.wanted();
    let asked = Cell::new(0);
    let not_ready = || {
        asked.set(asked.get() + 1);
        Err("the agent is not ready".to_owned())
    };
    let done = apply(&wanted, &not_ready).unwrap();
    assert_eq!(done.waiting.as_deref(), Some("the agent is not ready"));
    assert_eq!(host.files("net.d"), ["margay-kubeconfig"]);
    assert_eq!(host.files("bin"), ["margay", "margay-ipam"]);
    apply(&wanted, &ready).unwrap();
    assert_eq!(asked.get(), 1);
    // It is right: nobody is asked, whatever the agent does.
    assert!(apply(&wanted, &not_ready).unwrap().waiting.is_none());
    assert_eq!(asked.get(), 1);
    // A new one waits again, and the old one stays meanwhile.
    let new = Wanted {
        configuration: Some(list("two")),
        ..wanted
    };
    assert!(apply(&new, &not_ready).unwrap().waiting.is_some());
    assert!(read(host.path("net.d/10-margay.conflist")).contains("one"));
    apply(&new, &ready).unwrap();
    assert!(read(host.path("net.d/10-margay.conflist")).contains("two"));
}

#[test]
fn a_configuration_that_says_the_same_is_kept_as_it_is_written() {
    let host = Host::new();
    fs::create_dir(host.path("net.d")).unwrap();
    let text = "{ \"plugins\": [ {\"ipam\": {\"type\":\"margay-ipam\"}, \"type\": \"margay\"} ],\n  \"name\": \"one\" }\n";
    fs::write(host.path("net.d/10-margay.conflist"), text).unwrap();
    fs::set_permissions(
        host.path("net.d/10-margay.conflist"),
        Permissions::from_mode(0o666),
    )
    .unwrap();
    apply(&host.wanted(), &ready).unwrap();
    assert_eq!(read(host.path("net.d/10-margay.conflist")), text);
    assert_eq!(host.mode("net.d/10-margay.conflist"), 0o644);
    let gone = uninstall(&host.wanted().record).unwrap();
    assert!(gone.changed.is_empty() && host.files("net.d").is_empty());
}

#[test]
fn sec05_no_program_keeps_the_set_user_id_bit() {
    let host = Host::new();
    let wanted = host.wanted();
    apply(&wanted, &ready).unwrap();
    for mode in [0o4755, 0o2755, 0o777] {
        fs::set_permissions(host.path("bin/margay"), Permissions::from_mode(mode)).unwrap();
        let done = apply(&wanted, &ready).unwrap();
        assert_eq!(done.changed, [host.path("bin/margay")]);
        assert_eq!(host.mode("bin/margay"), 0o755);
    }
    // Not even one that is not to be replaced.
    fs::write(host.path("bin/margay"), "another").unwrap();
    fs::set_permissions(host.path("bin/margay"), Permissions::from_mode(0o6755)).unwrap();
    let keeping = Wanted {
        update_programs: false,
        ..host.wanted()
    };
    apply(&keeping, &ready).unwrap();
    assert_eq!(
        (host.mode("bin/margay"), read(host.path("bin/margay"))),
        (0o755, "another".to_owned())
    );
    // The source's own bits are not copied.
    fs::set_permissions(host.path("source/margay"), Permissions::from_mode(0o4755)).unwrap();
    apply(&wanted, &ready).unwrap();
    assert_eq!(host.mode("bin/margay"), 0o755);
}

#[test]
fn a_program_that_does_not_run_replaces_nothing() {
    let host = Host::new();
    apply(&host.wanted(), &ready).unwrap();
    host.program("margay", "#!/bin/sh\nexit 1\n");
    let wanted = Wanted {
        configuration: Some(list("two")),
        ..host.wanted()
    };
    let error = apply(&wanted, &ready).unwrap_err();
    assert!(matches!(error, InstallError::Program { .. }), "{error}");
    assert_eq!(read(host.path("bin/margay")), PLUGIN);
    assert!(read(host.path("net.d/10-margay.conflist")).contains("one"));
    assert_eq!(host.files("bin"), ["margay", "margay-ipam"]);
    uninstall(&wanted.record).unwrap();
    assert!(host.files("bin").is_empty());
}

#[test]
fn links_in_place_of_files_are_replaced() {
    let host = Host::new();
    for folder in ["bin", "net.d"] {
        fs::create_dir(host.path(folder)).unwrap();
    }
    fs::write(host.path("victim"), "victim").unwrap();
    for name in [
        "bin/margay",
        "net.d/margay-kubeconfig",
        "net.d/10-margay.conflist",
    ] {
        symlink(host.path("victim"), host.path(name)).unwrap();
    }
    apply(&host.wanted(), &ready).unwrap();
    assert_eq!(read(host.path("victim")), "victim");
    assert_eq!(read(host.path("net.d/margay-kubeconfig")), "token");
    assert!(
        fs::symlink_metadata(host.path("bin/margay"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn what_is_deleted_or_overwritten_comes_back_and_others_files_stay() {
    let host = Host::new();
    let wanted = host.wanted();
    apply(&wanted, &ready).unwrap();
    fs::write(host.path("net.d/00-other.conf"), "theirs").unwrap();
    fs::write(host.path("net.d/90-other.conf"), "theirs").unwrap();
    fs::remove_file(host.path("bin/margay")).unwrap();
    fs::write(host.path("net.d/10-margay.conflist"), "{}").unwrap();
    let done = apply(&wanted, &ready).unwrap();
    assert_eq!(
        done.changed,
        ["bin/margay", "net.d/10-margay.conflist"].map(|name| host.path(name))
    );
    assert_eq!(done.before, ["00-other.conf"]);
    assert_eq!(read(host.path("net.d/00-other.conf")), "theirs");
}

#[test]
fn programs_that_are_named_and_not_there_are_told() {
    let host = Host::new();
    let text = r#"{"name":"n","plugins":[{"type":"margay","ipam":{"type":"host-local"}},{"type":"portmap"}]}"#;
    let wanted = Wanted {
        configuration: Some(
            Configuration::new("10-margay.conflist", text.to_owned(), true).unwrap(),
        ),
        ..host.wanted()
    };
    let done = apply(&wanted, &ready).unwrap();
    assert_eq!(done.missing, ["host-local", "portmap"]);
    assert_eq!(host.mode("net.d/10-margay.conflist"), 0o600);
}

#[test]
fn a_configuration_of_another_name_takes_the_place_of_the_old_one() {
    let host = Host::new();
    apply(&host.wanted(), &ready).unwrap();
    fs::write(host.path("net.d/10-calico.conflist"), "theirs").unwrap();
    let text = list("one").text().to_owned();
    let named = |old_name: Option<&str>| Wanted {
        configuration: Some(Configuration::new("05-margay.conflist", text.clone(), false).unwrap()),
        old_name: old_name.map(str::to_owned),
        ..host.wanted()
    };
    apply(&named(None), &ready).unwrap();
    assert_eq!(
        host.files("net.d"),
        [
            "05-margay.conflist",
            "10-calico.conflist",
            "margay-kubeconfig"
        ]
    );
    apply(&named(Some("10-calico.conflist")), &ready).unwrap();
    assert_eq!(
        host.files("net.d"),
        ["05-margay.conflist", "margay-kubeconfig"]
    );
    // One that others changed since is theirs.
    fs::write(host.path("net.d/05-margay.conflist"), "theirs now").unwrap();
    apply(&host.wanted(), &ready).unwrap();
    assert_eq!(
        host.files("net.d"),
        [
            "05-margay.conflist",
            "10-margay.conflist",
            "margay-kubeconfig"
        ]
    );
}

#[test]
fn removal_takes_what_was_installed_and_nothing_else() {
    let host = Host::new();
    let wanted = host.wanted();
    apply(&wanted, &ready).unwrap();
    fs::write(host.path("bin/portmap"), "theirs").unwrap();
    fs::write(host.path("bin/margay-ipam"), "another version").unwrap();
    let keeper = Keeper::take(&wanted.record).unwrap();
    assert!(matches!(
        Keeper::take(&wanted.record),
        Err(InstallError::Kept { .. })
    ));
    let refused = uninstall(&wanted.record).unwrap_err().to_string();
    assert!(refused.contains("stop margay-agent"), "{refused}");
    drop(keeper);
    let gone = uninstall(&wanted.record).unwrap();
    let removed = [
        "net.d/10-margay.conflist",
        "net.d/margay-kubeconfig",
        "bin/margay",
    ];
    assert_eq!(gone.removed, removed.map(|name| host.path(name)));
    assert_eq!(gone.changed, [host.path("bin/margay-ipam")]);
    assert_eq!(host.files("bin"), ["margay-ipam", "portmap"]);
    assert!(host.files("net.d").is_empty() && host.files("state").is_empty());
    assert_eq!(uninstall(&wanted.record).unwrap(), Default::default());
}

#[test]
fn secrets_come_before_the_configuration_that_names_them() {
    let host = Host::new();
    fs::create_dir_all(host.path("net.d/margay-kubeconfig")).unwrap();
    let error = apply(&host.wanted(), &ready).unwrap_err().to_string();
    assert!(
        error.contains("margay-kubeconfig") && error.contains("move it away"),
        "{error}"
    );
    assert_eq!(host.files("net.d"), ["margay-kubeconfig"]);
    assert_eq!(host.files("bin"), ["margay", "margay-ipam"]);
}
