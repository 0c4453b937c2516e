//! Start, files, first pool, health over TCP, dry run, wrong settings.

use std::fs;
use std::time::Duration;

use margay_model::{Key, Kind};

use crate::fixture::Lab;

#[test]
fn the_first_agent_makes_the_cluster_and_the_second_finds_it() {
    let lab = Lab::new();
    let mut command = lab.command("n1");
    command
        .env("CALICO_IPV4POOL_CIDR", "10.65.0.0/16")
        .env("CLUSTER_TYPE", "test");
    let one = lab.start(command, "n1");
    one.until("it is ready", || {
        one.ask("/readiness").starts_with("HTTP/1.1 200")
    });
    let pool = Key::resource(Kind::IPPool, "default-ipv4-ippool");
    let made = lab.get(&pool).unwrap();
    assert_eq!(made["spec"]["cidr"], "10.65.0.0/16");
    let two = lab.agent("n2");
    assert_eq!(lab.get(&pool).unwrap(), made);
    let information = lab
        .get(&Key::resource(Kind::ClusterInformation, "default"))
        .unwrap();
    assert_eq!(information["spec"]["clusterType"], "test");
    assert_eq!(information["spec"]["datastoreReady"], true);
    assert!(lab.get(&Key::resource(Kind::Tier, "default")).is_some());
    let node = lab.get(&Key::resource(Kind::Node, "n2")).unwrap();
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "172.31.0.2/24");
    let state = lab.dir.path().join("n1/state");
    assert_eq!(fs::read_to_string(state.join("nodename")).unwrap(), "n1");
    one.until("the MTU", || {
        fs::read_to_string(state.join("mtu")).is_ok_and(|mtu| mtu == "1400")
    });
    lab.ip("n1", "link set eth0 mtu 1300");
    one.until("the new MTU", || {
        fs::read_to_string(state.join("mtu")).unwrap() == "1300"
    });
    // A pool that somebody deletes stays deleted.
    assert_eq!(two.stop(), Some(0));
    lab.delete(pool.clone());
    lab.agent("n2");
    assert_eq!(lab.get(&pool), None);
}

#[test]
fn an_address_moves_only_when_it_is_gone() {
    let lab = Lab::new();
    let address =
        || lab.get(&Key::resource(Kind::Node, "n1")).unwrap()["spec"]["bgp"]["ipv4Address"].clone();
    assert_eq!(lab.agent("n1").stop(), Some(0));
    lab.ip("n1", "addr add 172.31.9.1/24 dev eth0");
    lab.ip("n1", "addr del 172.31.0.1/24 dev eth0");
    lab.ip("n1", "addr add 172.31.0.1/24 dev eth0");
    let agent = lab.agent("n1");
    assert_eq!(address(), "172.31.0.1/24");
    assert!(
        agent
            .log()
            .contains("although autodetection finds 172.31.9.1/24"),
        "{}",
        agent.log()
    );
    assert_eq!(agent.stop(), Some(0));
    lab.ip("n1", "addr del 172.31.0.1/24 dev eth0");
    let agent = lab.agent("n1");
    assert_eq!(address(), "172.31.9.1/24");
    assert!(
        agent.log().contains("changes from 172.31.0.1/24"),
        "{}",
        agent.log()
    );
}

#[test]
fn health_and_metrics_are_told_over_tcp_where_they_are_wanted() {
    let lab = Lab::new();
    let mut command = lab.command("n1");
    command
        .env("FELIX_HEALTHENABLED", "true")
        .env("FELIX_PROMETHEUSMETRICSENABLED", "true");
    let agent = lab.start(command, "n1");
    let ask = |port: &str, path: &str| {
        let path = format!("http://localhost:{port}{path}");
        lab.inside(
            "n1",
            "curl",
            &["-s", "-m", "2", "-w", "%{http_code}", &path],
        )
    };
    agent.until("ready over TCP", || {
        ask("9099", "/readiness").ends_with("200")
    });
    assert!(ask("9099", "/liveness").ends_with("200"));
    assert!(ask("9091", "/metrics").contains("margay_node_name_held 1"));
}

#[test]
fn a_dry_run_tells_the_plan_and_changes_nothing() {
    let mut lab = Lab::new();
    lab.pod("n1", "a", "192.168.0.1");
    lab.block("n1", "192.168.0.0/26");
    let before = lab.dump("n1");
    let output = lab.command("n1").arg("--dry-run").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(
        text.contains("add route blackhole 192.168.0.0/26 proto 80: block of this node\n"),
        "{text}"
    );
    assert!(
        text.contains("set neighbour 192.168.0.1 dev calia lladdr 02:00:00:00:00:01\n"),
        "{text}"
    );
    assert_eq!(lab.dump("n1"), before);
    assert_eq!(lab.get(&Key::resource(Kind::Node, "n1")), None);
}

#[test]
fn wrong_settings_end_the_agent_at_once_with_a_reason() {
    let lab = Lab::new();
    for (variable, value, reason) in [
        (
            "FELIX_HEALTHPORT",
            "http",
            "FELIX_HEALTHPORT=http: give a port",
        ),
        (
            "IP_AUTODETECTION_METHOD",
            "kubernetes-internal-ip",
            "does not ask Kubernetes",
        ),
        (
            "IP_AUTODETECTION_METHOD",
            "interface=nope",
            "no IPv4 address found by interface=nope",
        ),
        ("MARGAY_CONFIG", "/no/such/file", "/no/such/file"),
        ("ETCD_ENDPOINTS", "127.0.0.1:2379", "127.0.0.1:2379"),
    ] {
        let mut command = lab.command("n1");
        command.env(variable, value);
        let mut agent = lab.start(command, "n1");
        assert_eq!(agent.end(), Some(1), "{variable}={value}");
        assert!(
            agent.log().contains(reason),
            "{variable}={value}: {}",
            agent.log()
        );
    }
    assert_eq!(lab.get(&Key::NodeLease("n1".to_owned())), None);
}

#[test]
fn bad_objects_are_told_and_harm_nothing_else() {
    let mut lab = Lab::new();
    lab.pod("n1", "a", "192.168.0.1");
    let key = Key::resource(Kind::Node, "broken");
    lab.put(key.clone(), &serde_json::json!({"kind": "Node", "metadata": {"name": "broken"}, "spec": {"bgp": {"ipv4Address": "x"}}}));
    let agent = lab.agent("n1");
    agent.until("the route", || lab.has_route("n1", "192.168.0.1 dev calia"));
    assert!(
        agent.status()["bad_objects"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("ipv4Address")
    );
    assert!(agent.ask("/metrics").contains("margay_bad_objects 1\n"));
    lab.delete(key);
    agent.within(Duration::from_secs(1), "it is forgotten", || {
        agent.ask("/metrics").contains("margay_bad_objects 0\n")
    });
}
