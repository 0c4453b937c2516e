//! The driver is killed at its system calls, in each of its calls; Docker then repeats the call, and cleans up.
//!
//! Each call is first made of a driver under strace, which counts the system calls by which it changes anything. Then it
//! is made again for points among them, with the driver killed on entering one. `MARGAY_KILL_POINTS=all` takes every
//! point.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use margay_integration::Driver;
use margay_integration::process::eventually;
use serde_json::{Value, json};

use crate::stage::{Stage, create_network, creation, id, joining};

/// The system calls by which the driver changes anything outside of itself.
const MUTATING: &[&str] = &[
    "sendto",
    "sendmsg",
    "writev",
    "pwrite64",
    "fdatasync",
    "ftruncate",
];

/// Points of each call, unless all are wanted.
const SAMPLE: usize = 5;

fn record(stage: &Stage) -> PathBuf {
    stage.lab.node(1).dir().join("strace")
}

/// A driver under strace with these options.
fn traced(stage: &Stage, options: &[&str]) -> Driver {
    let file = record(stage);
    let _ = fs::remove_file(&file);
    let strace = ["strace", "-f", "-qq", "-o", file.to_str().unwrap()];
    // The driver ends with strace, which otherwise lets go of it.
    let by = [&strace[..], options, &["setpriv", "--pdeathsig", "KILL"]].concat();
    Driver::start_by(stage.lab.node(1), &stage.store, &by, &["--docker", "none"])
}

fn count(stage: &Stage, name: &str) -> usize {
    let record = fs::read_to_string(record(stage)).unwrap_or_default();
    record
        .lines()
        .filter(|line| line.contains(&format!(" {name}(")))
        .count()
}

/// A container's life, one call after the other.
fn life(number: usize, address: &str) -> Vec<(&'static str, Value)> {
    let (network, endpoint) = (id(1), id(number));
    let both = json!({"NetworkID": network, "EndpointID": endpoint});
    let bare = address.split('/').next().unwrap();
    vec![
        (
            "IpamDriver.RequestAddress",
            json!({"PoolID": "CalicoPoolIPv4", "Address": bare}),
        ),
        (
            "NetworkDriver.CreateEndpoint",
            creation(&network, &endpoint, address),
        ),
        ("NetworkDriver.Join", joining(&network, &endpoint)),
        ("NetworkDriver.Leave", both.clone()),
        ("NetworkDriver.DeleteEndpoint", both),
        (
            "IpamDriver.ReleaseAddress",
            json!({"PoolID": "CalicoPoolIPv4", "Address": bare}),
        ),
    ]
}

#[test]
fn r3_a_driver_killed_in_any_call_leaves_nothing() {
    let stage = Stage::new(1);
    let address = "192.168.44.4/32";
    let mut points: Vec<(usize, &str, usize)> = Vec::new();
    {
        let trace = format!("trace={}", MUTATING.join(","));
        let driver = traced(&stage, &["-e", &trace]);
        create_network(&driver, &id(1), "");
        let life = life(100, address);
        for (step, (call, request)) in life.iter().enumerate() {
            let before: Vec<usize> = MUTATING.iter().map(|name| count(&stage, name)).collect();
            driver.ok(call, request);
            for (name, before) in MUTATING.iter().zip(before) {
                let after = count(&stage, name);
                // The last is the answer itself.
                points.extend((1..=after - before).map(|number| (step, *name, number)));
            }
        }
    }
    assert!(points.len() > 20, "{points:?}");
    let all = std::env::var("MARGAY_KILL_POINTS").is_ok_and(|wanted| wanted == "all");
    let mut struck = 0;
    for step in 0..6 {
        let of_step: Vec<_> = points.iter().filter(|(of, ..)| *of == step).collect();
        let stride = if all {
            1
        } else {
            of_step.len().div_ceil(SAMPLE).max(1)
        };
        for (_, name, number) in of_step.into_iter().step_by(stride) {
            struck += usize::from(strike(&stage, step, name, *number, address));
        }
    }
    assert!(struck > 8, "{struck}");
    let driver = stage.driver(1, &["--docker", "none"]);
    driver.ok("NetworkDriver.DeleteNetwork", &json!({"NetworkID": id(1)}));
    assert_eq!(stage.leftovers(), "");
}

/// Kills the driver in one call of a container's life; whether it came to that.
fn strike(stage: &Stage, step: usize, name: &str, number: usize, address: &str) -> bool {
    let calls = life(200 + step * 100 + number, address);
    let context = format!("{} {name} {number}", calls[step].0);
    let driver = stage.driver(1, &["--docker", "none"]);
    for (call, request) in &calls[..step] {
        driver.ok(call, request);
    }
    drop(driver);
    // Counted from the driver's start: so many system calls are made before the call begins.
    let idle = {
        let driver = traced(stage, &["-e", &format!("trace={name}")]);
        let _ = driver.try_call("NetworkDriver.EndpointOperInfo", &calls[2].1);
        std::thread::sleep(Duration::from_millis(50));
        count(stage, name)
    };
    let inject = format!("inject={name}:signal=SIGKILL:when={}", idle + number);
    let mut driver = traced(stage, &["-e", &format!("trace={name}"), "-e", &inject]);
    let _ = driver.try_call("NetworkDriver.EndpointOperInfo", &calls[2].1);
    let (call, request) = &calls[step];
    let answered = driver.try_call(call, request);
    let struck = answered.is_none();
    if struck {
        driver.process.wait(Duration::from_secs(5));
    }
    drop(driver);
    // Docker says it again to the driver that was started anew, and goes on.
    let driver = stage.driver(1, &["--docker", "none"]);
    for (call, request) in &calls[step..] {
        let (status, answer) = driver.call(call, request);
        assert_eq!(status, 200, "{context}: {call}: {answer}");
    }
    eventually(
        &format!("{context}: nothing is left"),
        Duration::from_secs(5),
        || stage.endpoints().is_empty() && stage.interfaces(1).is_empty(),
    );
    struck
}
