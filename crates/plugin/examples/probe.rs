//! A plugin that behaves as the key `probe` of its configuration says; the black-box tests run it.
#![expect(
    clippy::print_stdout,
    reason = "whether stray output reaches stdout is under test"
)]

use std::fs;
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use margay_cni::{Error, Ip, Request, ResultDoc, code};
use margay_plugin::{Delegate, Level, Plugin, deadline, log, progress, run};

struct Probe;

impl Plugin for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn about(&self) -> String {
        "probe: does as it is told".to_owned()
    }

    fn add(&self, request: &Request) -> Result<ResultDoc, Error> {
        mark(request, "add");
        match text(request, "probe") {
            "print" => println!("stray words"),
            "panic" => panic!("told to,\nwith token http://u:hunter2@h/"),
            "panic-elsewhere" => {
                let ended = thread::spawn(|| panic!("on another thread")).join();
                unreachable!("the process outlived a panic: {ended:?}");
            }
            "hang" => {
                progress("waiting for etcd at 192.0.2.1:2379");
                thread::sleep(Duration::from_secs(600));
            }
            "fail" => return Err(Error::new(code::POOL_EXHAUSTED, "no address left")),
            "stampede" => stampede(),
            "delegate" => return delegate(request)?.add(request),
            _ => {}
        }
        Ok(result())
    }

    fn undo(&self, request: &Request) {
        mark(request, "undo");
        if text(request, "probe") == "panic-in-undo" {
            panic!("told to");
        }
    }

    fn del(&self, request: &Request) -> Result<(), Error> {
        mark(
            request,
            if request.netns.is_some() {
                "del-with-netns"
            } else {
                "del"
            },
        );
        match text(request, "probe") {
            "fail" => Err(Error::new(code::IO, "journal not found")),
            "delegate" => delegate(request)?.call(request, request.command).map(drop),
            _ => Ok(()),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Error> {
        request.conf.required_prev_result().map(drop)
    }

    fn gc(&self, request: &Request) -> Result<(), Error> {
        log(
            Level::Info,
            &format!("{:?}", request.conf.valid_attachments()?),
        );
        Ok(())
    }

    fn status(&self, _request: &Request) -> Result<(), Error> {
        Err(Error::new(code::NOT_AVAILABLE, "agent is down"))
    }
}

fn main() -> ExitCode {
    run(&Probe)
}

fn delegate(request: &Request) -> Result<Delegate, Error> {
    let ipam = request
        .conf
        .ipam()?
        .ok_or_else(|| Error::new(code::INVALID_CONFIG, "no ipam"))?;
    Delegate::find(ipam.plugin, request)
}

/// Panics on several threads at the very moment of the deadline and of the result.
fn stampede() {
    let barrier: &'static Barrier = Box::leak(Box::new(Barrier::new(5)));
    for _ in 0..4 {
        thread::spawn(|| {
            barrier.wait();
            thread::sleep(deadline().saturating_duration_since(Instant::now()));
            panic!("stampede");
        });
    }
    barrier.wait();
    thread::sleep(deadline().saturating_duration_since(Instant::now()));
}

fn result() -> ResultDoc {
    let address = std::net::Ipv4Addr::new(10, 0, 0, 5);
    let ip = Ip {
        address: std::net::IpAddr::from(address).into(),
        gateway: None,
        interface: None,
    };
    ResultDoc {
        ips: vec![ip],
        ..ResultDoc::default()
    }
}

fn text<'a>(request: &'a Request, key: &str) -> &'a str {
    request
        .conf
        .raw()
        .get(key)
        .and_then(|value| value.as_str())
        .unwrap_or_default()
}

/// Leaves a file that tells which method ran.
fn mark(request: &Request, what: &str) {
    let directory = text(request, "marks");
    if !directory.is_empty()
        && let Err(error) = fs::write(format!("{directory}/{what}"), what)
    {
        log(Level::Error, &error.to_string());
    }
}
