//! Delegation seen from outside: what the delegate is given, and what becomes of its answer.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::call::Call;

const RESULT: &str = r#"echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"}]}'"#;

fn delegating(command: &str, script: &str) -> Call {
    let call = Call::new(command).told("delegate");
    call.install("stub", script);
    call
}

#[test]
fn l02_delegate_gets_stdin_byte_for_byte_and_the_environment() {
    let mut call = delegating(
        "ADD",
        &format!("cat > \"$OUT/stdin\"; env > \"$OUT/env\"; {RESULT}"),
    );
    // Numbers and spacing that no parser gives back as they were.
    call.stdin =
        call.conf("delegate")
            .replacen('{', "{ \"n\": 1.50e0 ,\t\"n\":12345678901234567890123,", 1);
    call.set("OUT", &call.marks());
    call.set("TRACEPARENT", "00-1-2-03");
    let ended = call.run();
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert_eq!(ended.document()["ips"][0]["address"], "10.9.0.7/24");
    assert_eq!(fs::read_to_string(call.file("stdin")).unwrap(), call.stdin);
    let env = fs::read_to_string(call.file("env")).unwrap();
    for line in [
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        "TRACEPARENT=00-1-2-03",
    ] {
        assert!(env.lines().any(|known| known == line), "{line} in {env}");
    }
}

#[test]
fn l03_stderr_is_passed_through() {
    let ended = delegating("ADD", &format!("echo words of a stub >&2; {RESULT}")).run();
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("words of a stub\n"));
}

#[test]
fn a04_failed_add_is_followed_by_del_and_keeps_its_error() {
    let script = r#"echo $CNI_COMMAND >> "$OUT/calls"
        [ $CNI_COMMAND = DEL ] && { echo '{"code":5,"msg":"del too"}'; exit 1; }
        echo '{"code":11,"msg":"busy"}'; exit 1"#;
    let mut call = delegating("ADD", script);
    call.set("OUT", &call.marks());
    let ended = call.run();
    assert_eq!(ended.error_code(), 11);
    assert_eq!(ended.document()["msg"], "stub: busy");
    assert_eq!(
        fs::read_to_string(call.file("calls")).unwrap(),
        "ADD\nDEL\n"
    );
}

#[test]
fn l03_failure_without_answer_shows_stderr() {
    let ended = delegating("ADD", "echo segfault >&2; exit 3").run();
    assert_eq!(ended.error_code(), 999);
    let document = ended.document();
    assert_eq!(document["details"], "segfault");
    assert!(document["msg"].to_string().contains("exit status: 3"));
}

#[test]
fn l06_hanging_delegate_is_ended_with_its_group() {
    let script = r#"[ $CNI_COMMAND = DEL ] && exit 0
        sleep 600 & echo $! > "$OUT/child"; wait"#;
    let mut call = delegating("ADD", script);
    call.set("OUT", &call.marks());
    call.set("MARGAY_DEADLINE_MS", "1500");
    let begin = Instant::now();
    let ended = call.run();
    assert!(begin.elapsed() < Duration::from_secs(8));
    assert_eq!(ended.error_code(), 108);
    assert!(ended.document()["msg"].to_string().contains("stub: ADD"));
    let child = fs::read_to_string(call.file("child")).unwrap();
    assert!(is_gone(child.trim()), "process {child} lives on");
}

#[test]
fn l06_a_daemon_left_behind_does_not_hold_the_answer_up() {
    let mut call = delegating("ADD", &format!("sleep 4 & {RESULT}"));
    call.set("MARGAY_DEADLINE_MS", "20000");
    let begin = Instant::now();
    assert_eq!(call.run_with_stderr_dropped().code, Some(0));
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn l06_null_stdout_and_junk_are_errors() {
    for script in ["exit 0", "echo junk", &format!("{RESULT}; {RESULT}")] {
        assert_eq!(delegating("ADD", script).run().error_code(), 6, "{script}");
    }
}

#[test]
fn l04_del_is_forwarded_with_its_error() {
    let ended = delegating(
        "DEL",
        r#"echo '{"code":102,"msg":"etcd not found"}'; exit 1"#,
    )
    .run();
    assert_eq!(ended.error_code(), 102);
    assert!(!ended.stdout.contains("not found"));
    assert_eq!(delegating("DEL", "exit 0").run().code, Some(0));
}

#[test]
fn l01_a_missing_delegate_is_code_7() {
    let call = Call::new("ADD").told("delegate");
    let ended = call.run();
    assert_eq!(ended.error_code(), 7);
    assert!(ended.document()["details"].to_string().contains("CNI_PATH"));
    fs::write(call.file("stub"), "not executable").unwrap();
    assert_eq!(call.run().error_code(), 7);
}

/// Whether the process ended, or does within a moment.
fn is_gone(pid: &str) -> bool {
    let stat = format!("/proc/{pid}/stat");
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        // A zombie waits for its new parent only.
        let zombie = || fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z "));
        if !Path::new(&stat).exists() || zombie() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}
