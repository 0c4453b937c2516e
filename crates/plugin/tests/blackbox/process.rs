//! The process seen from outside: what it writes, when it ends, what it leaves.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::call::{Call, aborting_probe, documents};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

#[test]
fn p01_unknown_command_is_code_4() {
    let mut call = Call::new("UPDATE");
    call.stdin = r#"{"cniVersion":"0.4.0","name":"n"}"#.to_owned();
    let ended = call.run();
    assert_eq!(ended.error_code(), 4);
    assert_eq!(ended.document()["cniVersion"], "0.4.0");
}

#[test]
fn p02_without_command_it_explains_itself_on_stderr() {
    let ended = Call::new("").run();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("does as it is told") && ended.stderr.contains("1.1.0"));
}

#[test]
fn p04_all_missing_variables_are_named() {
    let mut call = Call::new("ADD");
    call.env.retain(|(name, _)| name == "CNI_COMMAND");
    let ended = call.run();
    assert_eq!(ended.error_code(), 4);
    let msg = ended.document()["msg"].to_string();
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        assert!(msg.contains(name), "{msg}");
    }
}

#[test]
fn p08_oversize_stdin_is_code_6() {
    let mut call = Call::new("ADD");
    call.stdin = format!("{}{}", call.conf("ok"), " ".repeat(2 << 20));
    assert_eq!(call.run().error_code(), 6);
    call.stdin = "{".to_owned();
    assert_eq!(call.run().error_code(), 6);
}

#[test]
fn p10_success_is_one_document_and_nothing_for_del() {
    let ended = Call::new("ADD").run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.document()["ips"][0]["address"], "10.0.0.5/32");
    let ended = Call::new("DEL").run();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
}

#[test]
fn p10_stray_output_does_not_reach_stdout() {
    let ended = Call::new("ADD").told("print").run();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.document()["ips"][0]["address"], "10.0.0.5/32");
    assert!(ended.stderr.contains("stray words"));
}

#[test]
fn p11_failure_is_one_error_object_in_the_configurations_version() {
    let ended = Call::new("ADD").told("fail").run();
    assert_eq!(ended.error_code(), 100);
    assert_eq!(ended.document()["cniVersion"], "1.1.0");
    assert_eq!(Call::new("STATUS").run().error_code(), 50);
    assert_eq!(Call::new("CHECK").run().error_code(), 7);
}

#[test]
fn p13_panic_is_an_error_object() {
    for behaviour in ["panic", "panic-elsewhere"] {
        tells_of_its_panic(Call::new("ADD").told(behaviour));
    }
}

#[test]
fn p13_panic_that_aborts_is_an_error_object() {
    let probe = aborting_probe();
    for behaviour in ["panic", "panic-elsewhere"] {
        tells_of_its_panic(Call::new("ADD").told(behaviour).of(probe.clone()));
    }
}

fn tells_of_its_panic(call: Call) {
    let ended = call.run();
    assert_eq!(ended.error_code(), 999);
    let msg = ended.document()["msg"].to_string();
    assert!(msg.contains("probe.rs:"), "{msg}");
    assert!(!ended.stdout.contains("hunter2") && !ended.stderr.contains("hunter2"));
}

#[test]
fn p13_deadline_tells_where_it_waited() {
    let mut call = Call::new("ADD").told("hang");
    call.set("MARGAY_DEADLINE_MS", "300");
    let begin = Instant::now();
    let ended = call.run();
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(begin.elapsed() < PROMPT);
    assert_eq!(ended.error_code(), 108);
    let msg = ended.document()["msg"].to_string();
    assert!(
        msg.contains("ADD") && msg.contains("etcd at 192.0.2.1:2379"),
        "{msg}"
    );
}

#[test]
fn p13_deadline_covers_a_stdin_that_stays_open() {
    let mut call = Call::new("ADD");
    call.set("MARGAY_DEADLINE_MS", "300");
    let (ended, _open) = call.run_with_open_stdin();
    assert_eq!(ended.error_code(), 108);
    assert!(ended.document()["msg"].to_string().contains("stdin"));
}

#[test]
fn p13_many_faults_at_once_give_one_document() {
    for round in 0..20 {
        let mut call = Call::new("ADD").told("stampede");
        call.set("MARGAY_DEADLINE_MS", "30");
        let ended = call.run();
        let documents = documents(&ended.stdout);
        assert_eq!(documents.len(), 1, "round {round}: {}", ended.stdout);
        let failed = documents[0].get("code").is_some();
        assert_eq!(
            failed,
            ended.code != Some(0),
            "round {round}: {}",
            ended.stdout
        );
    }
}

#[test]
fn p14_add_is_taken_back_when_nobody_reads() {
    let call = Call::new("ADD");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let ended = call.run_into(writer.into());
    assert_eq!(ended.code, Some(1));
    assert!(call.has_mark("add") && call.has_mark("undo"));
}

#[test]
fn p14_add_is_taken_back_when_stdout_has_no_room() {
    let call = Call::new("ADD");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = call.run_into(full.into());
    assert_eq!(ended.code, Some(1));
    assert!(call.has_mark("undo"));
}

#[test]
fn p14_add_is_taken_back_when_the_pipe_stays_full() {
    let mut call = Call::new("ADD");
    call.set("MARGAY_DEADLINE_MS", "400");
    let (_reader, writer) = full_pipe();
    let begin = Instant::now();
    let ended = call.run_into(writer);
    assert!(begin.elapsed() < PROMPT);
    assert_eq!(ended.code, Some(1));
    assert!(call.has_mark("undo"));
}

#[test]
fn p14_panic_while_taking_back_still_ends() {
    let call = Call::new("ADD").told("panic-in-undo");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let begin = Instant::now();
    let ended = call.run_into(writer.into());
    assert_eq!(ended.code, Some(1));
    assert!(begin.elapsed() < PROMPT);
}

#[test]
fn p14_del_needs_no_stdout() {
    let call = Call::new("DEL");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    assert_eq!(call.run_into(writer.into()).code, Some(0));
    assert!(call.has_mark("del-with-netns"));
}

#[test]
fn p14_deadline_ends_a_process_whose_pipe_is_full() {
    let mut call = Call::new("ADD").told("hang");
    call.set("MARGAY_DEADLINE_MS", "200");
    let (_reader, writer) = full_pipe();
    let begin = Instant::now();
    assert_eq!(call.run_into(writer).code, Some(1));
    assert!(begin.elapsed() < PROMPT);
}

#[test]
fn p16_own_namespace_is_refused_before_any_effect() {
    let mut call = Call::new("ADD");
    call.set("CNI_NETNS", "/proc/self/ns/net");
    assert_eq!(call.run().error_code(), 8);
    assert!(!call.has_mark("add"));
    call.set("CNI_NETNS_OVERRIDE", "1");
    assert_eq!(call.run().code, Some(0));
    assert!(call.has_mark("add"));
}

#[test]
fn p16_del_goes_on_without_its_own_namespace() {
    let mut call = Call::new("DEL");
    call.set("CNI_NETNS", "/proc/self/ns/net");
    assert_eq!(call.run().code, Some(0));
    assert!(call.has_mark("del") && !call.has_mark("del-with-netns"));
}

#[test]
fn v01_version_does_not_wait_for_stdin() {
    let call = Call::new("VERSION");
    let begin = Instant::now();
    let (ended, _open) = call.run_with_open_stdin();
    assert!(begin.elapsed() < Duration::from_secs(3));
    assert_eq!(ended.code, Some(0));
    assert_eq!(
        ended.document()["supportedVersions"]
            .as_array()
            .unwrap()
            .len(),
        7
    );
}

#[test]
fn v01_version_echoes_what_is_supported() {
    let mut call = Call::new("VERSION");
    call.env.retain(|(name, _)| name == "CNI_COMMAND");
    for (given, answered) in [("0.4.0", "0.4.0"), ("9.9.9", "1.1.0")] {
        call.stdin = format!(r#"{{"cniVersion":"{given}"}}"#);
        assert_eq!(call.run().document()["cniVersion"], answered);
    }
}

#[test]
fn v03_result_without_version_is_0_1_0() {
    let mut call = Call::new("ADD");
    call.stdin = r#"{"name":"n","type":"probe"}"#.to_owned();
    let document = call.run().document();
    assert_eq!(document["cniVersion"], "0.1.0");
    assert_eq!(document["ip4"]["ip"], "10.0.0.5/32");
}

#[test]
fn e06_del_error_never_says_not_found() {
    let ended = Call::new("DEL").told("fail").run();
    assert_eq!(ended.error_code(), 5);
    assert!(!ended.stdout.contains("not found"));
}

#[test]
fn log_level_is_taken_from_the_configuration() {
    let mut call = Call::new("GC");
    assert!(call.run().stderr.contains("level=info"));
    call.stdin = r#"{"cniVersion":"1.1.0","name":"n","log_level":"error"}"#.to_owned();
    assert_eq!(call.run().stderr, "");
}

/// A pipe without room, and its reading end to keep.
fn full_pipe() -> (io::PipeReader, Stdio) {
    let (reader, writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut file = File::from(std::os::fd::OwnedFd::from(writer));
    let fault = loop {
        if let Err(fault) = file.write(&[b'x'; 4096]) {
            break fault;
        }
    };
    assert_eq!(fault.kind(), io::ErrorKind::WouldBlock);
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, file.into())
}

/// More than any deadline in these tests, less than a hang.
const PROMPT: Duration = Duration::from_secs(8);
