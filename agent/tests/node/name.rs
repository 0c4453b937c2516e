//! One machine a node name.

use margay_model::Key;

use crate::fixture::Lab;

#[test]
fn a_name_that_another_machine_holds_is_refused() {
    let lab = Lab::new();
    let first = lab.agent("n1");
    let mut command = lab.command("n2");
    command.env("NODENAME", "n1");
    let mut second = lab.start(command, "n2");
    assert_eq!(second.end(), Some(1));
    let log = second.log();
    assert!(
        log.contains("node name n1 is held by another machine: machine id machine-of-n1"),
        "{log}"
    );
    assert!(!lab.dir.path().join("n2/state/nodename").exists());
    let holder = lab.get(&Key::NodeLease("n1".to_owned())).unwrap();
    assert_eq!(holder["machineId"], "machine-of-n1");
    // A stop gives the name back.
    assert_eq!(first.stop(), Some(0));
    assert_eq!(lab.get(&Key::NodeLease("n1".to_owned())), None);
    let mut command = lab.command("n2");
    command.env("NODENAME", "n1");
    let third = lab.start(command, "n2");
    third.until("it is ready", || {
        third.ask("/readiness").starts_with("HTTP/1.1 200")
    });
}

#[test]
fn the_same_machine_takes_over_after_a_crash() {
    let lab = Lab::new();
    drop(lab.agent("n1"));
    assert!(lab.get(&Key::NodeLease("n1".to_owned())).is_some());
    let again = lab.agent("n1");
    assert!(again.log().contains("right as it was"), "{}", again.log());
}

#[test]
fn a_second_agent_beside_the_first_is_refused() {
    let lab = Lab::new();
    let first = lab.agent("n1");
    let mut second = lab.start(lab.command("n1"), "n1");
    assert_eq!(second.end(), Some(1));
    assert!(second.log().contains("agent.sock"), "{}", second.log());
    assert!(first.ask("/readiness").starts_with("HTTP/1.1 200"));
}
