//! Limits on an endpoint's traffic: what the runtime and the record ask for holds, and nothing of it stays.

use std::time::{Duration, Instant};

use margay_integration::process::{eventually, inside};
use margay_integration::{Plugin, Pod, Running};
use serde_json::{Value, json};

use crate::town::{Town, WAIT};

/// What is transferred, in bytes.
const LOAD: usize = 1_500_000;
/// Bits per second, and bits at once.
const RATE: u64 = 8_000_000;
const BURST: u64 = 400_000;
/// No limited transfer takes less, however fast the machine is: the rate, less one burst and what TCP sends in
/// one piece.
const LEAST: f64 = (LOAD as f64 - 50_000.0 - 65_536.0) / 1_000_000.0 * 0.95;

#[test]
fn bandwidth_is_limited_by_whoever_is_there_and_as_the_record_says() {
    // Filters tell nobody when somebody removes them: they are looked at now and then.
    let mut town = Town::with(&[("FELIX_ROUTEREFRESHINTERVAL", "2")]);
    std::fs::write(town.lab.dir().join("load"), vec![0; LOAD]).unwrap();
    let server = town.house(2, "server");
    let mut httpd = inside(&server.pod.namespace, "busybox");
    let folder = town.lab.dir().display().to_string();
    httpd.args(["httpd", "-f", "-p", "[::]:8000", "-h", &folder]);
    let _httpd = Running::start(&mut httpd, &town.lab.dir().join("load.log"));

    // Without an agent the plugin sees to it, and the agent then finds nothing to change.
    town.agents[0].process.kill();
    let client = town.lab.pod();
    let result = limited(&town).add("client", &client);
    let interface = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    let namespace = town.lab.node(1).namespace();
    let run = |line: &str| {
        let mut words = line.split_whitespace();
        let mut command = inside(&namespace, words.next().unwrap());
        margay_integration::process::run(command.args(words), b"").ok()
    };
    let filters = || run("tc qdisc show");
    let devices = || run("ip -o link show type ifb");
    assert_eq!(filters().matches("qdisc tbf").count(), 2, "{}", filters());
    assert_eq!(devices().matches("bwcali").count(), 1, "{}", devices());
    let before = devices();
    town.restart(1);
    let took = eventually_transfer(&client, &server.address);
    assert!(took > LEAST, "{took} s under the runtime's limit");
    let log = town.agents[0].process.log();
    assert!(!log.contains(&format!("limit {interface}")), "{log}");

    // As the record changes, so do the limits; no restart, and nobody else is concerned.
    let store = town.store.clone();
    let record = |controls: Value| {
        let patch = json!({"spec": {"qosControls": controls}}).to_string();
        let arguments = [
            "patch",
            "workloadendpoint",
            "n1-cni-client-eth0",
            "-n",
            "default",
            "-p",
            &patch,
        ];
        let _ = store.ctl(None, &arguments, "").ok();
    };
    record(json!({"ingressBandwidth": null, "ingressBurst": null}));
    eventually("the download is not limited", WAIT, || {
        transfer(&client, &server.address).is_some_and(|took| took < LEAST / 2.0)
    });
    assert_eq!(filters().matches("qdisc tbf").count(), 1, "{}", filters());
    assert_eq!(devices(), before);
    record(json!({"ingressBandwidth": RATE, "ingressBurst": BURST}));
    eventually("the limit is back", WAIT, || {
        filters().matches("qdisc tbf").count() == 2
    });
    let took = eventually_transfer(&client, &server.address);
    assert!(took > LEAST, "{took} s under the record's limit");

    // What somebody else removes comes back.
    let device = before.split_whitespace().nth(1).unwrap();
    let device = device.trim_end_matches(':').to_owned();
    for command in [
        format!("tc qdisc delete dev {interface} root"),
        format!("tc qdisc delete dev {interface} ingress"),
        format!("ip link delete {device}"),
    ] {
        let _ = run(&command);
        eventually(&command, WAIT, || {
            let filters = filters();
            filters.matches("qdisc tbf").count() == 2 && filters.contains("qdisc ingress")
        });
    }
    let took = eventually_transfer(&client, &server.address);
    assert!(took > LEAST, "{took} s after the repair");

    // A namespace that goes takes its interface along: the agent removes what is left, and so does a DEL.
    client.delete();
    eventually("the device is gone", WAIT, || !devices().contains("bwcali"));
    let _ = limited(&town).call("DEL", "client", "").ok();
    let again = town.lab.pod();
    let _ = limited(&town).add("again", &again);
    town.agents[0].process.kill();
    assert!(devices().contains("bwcali"));
    limited(&town).del("again", &again);
    assert!(!devices().contains("bwcali"), "{}", devices());
    assert!(!filters().contains("tbf"), "{}", filters());
}

/// The plugin as a runtime calls it that passes a pod's limits on.
fn limited(town: &Town) -> Plugin<'_> {
    town.plugin(1).with(json!({"runtimeConfig": {"bandwidth": {
        "ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST,
    }}}))
}

/// How long a download takes, in seconds; `None` where it fails.
fn transfer(pod: &Pod, address: &str) -> Option<f64> {
    let script = format!(
        "exec 3<>/dev/tcp/{address}/8000 && printf 'GET /load HTTP/1.0\\r\\n\\r\\n' >&3 && wc -c <&3"
    );
    let mut command = inside(&pod.namespace, "timeout");
    command.args(["20", "bash", "-c", &script]);
    let begun = Instant::now();
    let fetched = margay_integration::process::run(&mut command, b"");
    let took = begun.elapsed().as_secs_f64();
    let count: usize = fetched.stdout.trim().parse().ok()?;
    (count > LOAD).then_some(took)
}

/// The first download that succeeds: policy and routes take a moment.
#[track_caller]
fn eventually_transfer(pod: &Pod, address: &str) -> f64 {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(took) = transfer(pod, address) {
            return took;
        }
        assert!(Instant::now() < deadline, "{address} gives nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
}
