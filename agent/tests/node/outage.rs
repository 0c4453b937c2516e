//! The datastore is late, goes and comes back.

use std::thread::sleep;
use std::time::Duration;

use crate::fixture::{Background, Lab};

fn etcd(lab: &Lab) -> Background {
    let dir = lab.dir.path().join("etcd").display().to_string();
    lab.spawn(
        "n1",
        "etcd",
        &[
            "--data-dir",
            &dir,
            "--listen-client-urls",
            "http://127.0.0.1:2379",
            "--advertise-client-urls",
            "http://127.0.0.1:2379",
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        ],
    )
}

fn put(lab: &Lab, cidr: &str) {
    let key = format!(
        "/calico/ipam/v2/assignment/ipv4/block/{}",
        cidr.replace('/', "-")
    );
    let value = format!(
        r#"{{"cidr":"{cidr}","affinity":"host:n1","allocations":[null,null,null,null],"unallocated":[0,1,2,3],"attributes":[]}}"#
    );
    assert!(
        lab.inside("n1", "etcdctl", &["put", &key, &value])
            .contains("OK")
    );
}

#[test]
fn an_outage_changes_nothing_and_passes() {
    let lab = Lab::new();
    let mut command = lab.command("n1");
    command
        .env("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
        .env("MARGAY_STORE_TIMEOUT_MS", "1000")
        .env_remove("MARGAY_STORE_PATH");
    let agent = lab.start(command, "n1");
    agent.until("it waits for the datastore", || {
        agent.log().contains("the node cannot be registered yet")
    });
    assert!(agent.ask("/liveness").starts_with("HTTP/1.1 200"));
    assert!(agent.ask("/readiness").starts_with("HTTP/1.1 503"));

    let server = etcd(&lab);
    let ready = || agent.ask("/readiness").starts_with("HTTP/1.1 200");
    agent.within(Duration::from_secs(30), "it is ready", ready);
    put(&lab, "192.168.0.0/30");
    let first = || lab.has_route("n1", "blackhole 192.168.0.0/30");
    agent.until("the first block", first);

    drop(server);
    agent.until("the outage is noticed", || {
        agent.log().contains("the datastore is lost")
    });
    lab.ip("n1", "route del blackhole 192.168.0.0/30");
    agent.within(Duration::from_secs(1), "the route comes back", first);
    sleep(Duration::from_secs(2));
    assert!(first() && ready());
    assert!(
        agent
            .ask("/metrics")
            .contains("margay_datastore_losses_total 1\n")
    );

    let _server = etcd(&lab);
    agent.within(
        Duration::from_secs(30),
        "the datastore is followed again",
        || agent.status()["datastore"] == "in sync",
    );
    put(&lab, "192.168.0.4/30");
    agent.until("the second block", || {
        lab.has_route("n1", "blackhole 192.168.0.4/30")
    });
    assert!(first());
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_stop_while_the_datastore_is_away_is_clean() {
    let lab = Lab::new();
    let mut command = lab.command("n1");
    command.env("ETCD_ENDPOINTS", "http://127.0.0.1:2379");
    let agent = lab.start(command, "n1");
    agent.until("it answers", || {
        agent.ask("/liveness").starts_with("HTTP/1.1 200")
    });
    assert_eq!(agent.stop(), Some(0));
}
