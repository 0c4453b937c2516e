//! The kernel is as the store says, and stays so.

use std::thread::sleep;
use std::time::Duration;

use crate::fixture::{Lab, endpoint_key};

/// A deleted route is back within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

fn furnished() -> Lab {
    let mut lab = Lab::new();
    lab.pod("n1", "a", "192.168.0.1");
    lab.pod("n2", "b", "192.168.0.65");
    lab.block("n1", "192.168.0.0/26");
    lab.block("n2", "192.168.0.64/26");
    lab
}

const OF_N1: [&str; 4] = [
    "blackhole 192.168.0.0/26 proto 80",
    "192.168.0.1 dev calia scope link",
    "192.168.0.64/26 via 172.31.0.2 dev eth0 proto 80",
    "192.168.0.1 dev calia lladdr 02:00:00:00:00:01 PERMANENT",
];

#[test]
fn pods_of_two_nodes_reach_each_other() {
    let lab = furnished();
    let (one, two) = (lab.agent("n1"), lab.agent("n2"));
    for line in OF_N1 {
        one.until(line, || lab.has_route("n1", line));
    }
    two.until("n2's way to n1", || {
        lab.has_route("n2", "192.168.0.0/26 via 172.31.0.1 dev eth0 proto 80")
    });
    assert_eq!(lab.sysctl("n1", "net/ipv4/ip_forward"), "1");
    assert_eq!(lab.sysctl("n1", "net/ipv4/conf/calia/proxy_arp"), "1");
    // The nodes have no default route, and the pods ask for their gateway by ARP.
    one.until("a ping from a to b", || lab.pings("a", "192.168.0.65"));
    assert!(lab.pings("b", "192.168.0.1"));
    let status = one.status();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["endpoints"][0]["state"], "up", "{status}");
    assert_eq!(status["blocks"][0]["local"], true, "{status}");
    assert!(
        status["routes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|route| route["installed"] == true)
    );
    assert!(
        one.log().contains(
            "add route 192.168.0.64/26 via 172.31.0.2 dev eth0 proto 80: block of node n2"
        )
    );
}

#[test]
fn what_somebody_deletes_comes_back() {
    let lab = furnished();
    let (one, _two) = (lab.agent("n1"), lab.agent("n2"));
    let complete = || OF_N1.iter().all(|line| lab.has_route("n1", line));
    one.until("everything is there", complete);
    for command in [
        "route del 192.168.0.64/26",
        "route del blackhole 192.168.0.0/26",
        "route del 192.168.0.1",
        "neigh del 192.168.0.1 dev calia",
        "route flush proto 80",
    ] {
        lab.ip("n1", command);
        one.within(AT_ONCE, command, complete);
    }
    // Somebody else's routes on workloads' interfaces go, those elsewhere stay.
    sleep(Duration::from_secs(11));
    lab.ip("n1", "route add 10.7.7.7 dev calia proto static");
    lab.ip("n1", "route add 10.8.8.8 via 172.31.0.2 proto static");
    one.within(AT_ONCE, "the foreign route goes", || {
        !lab.has_route("n1", "10.7.7.7")
    });
    assert!(lab.has_route("n1", "10.8.8.8"));
}

#[test]
fn a_restart_changes_nothing() {
    let lab = furnished();
    let (one, _two) = (lab.agent("n1"), lab.agent("n2"));
    one.until("everything is there", || {
        OF_N1.iter().all(|line| lab.has_route("n1", line))
    });
    let before = lab.dump("n1");
    assert_eq!(one.stop(), Some(0));
    assert_eq!(lab.dump("n1"), before);
    let again = lab.agent("n1");
    sleep(AT_ONCE);
    assert_eq!(lab.dump("n1"), before);
    let log = again.log();
    for word in [
        "add route",
        "replace route",
        "delete route",
        "set neighbour",
        "delete neighbour",
    ] {
        assert!(!log.contains(word), "{log}");
    }
    let metrics = again.ask("/metrics");
    assert!(!metrics.contains("margay_plan_steps_total{"), "{metrics}");
    assert!(
        metrics.contains("felix_active_local_endpoints 1\n"),
        "{metrics}"
    );
}

#[test]
fn endpoints_and_blocks_that_go_take_their_routes_along() {
    let lab = furnished();
    let agent = lab.agent("n1");
    lab.agent("n2").stop();
    let file = lab
        .dir
        .path()
        .join("n1/run/endpoint-status/cni default%2Fa eth0");
    agent.until("the status file", || file.exists());
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        text,
        r#"{"ifaceName":"calia","mac":"02:00:00:00:00:01","ipv4Nets":["192.168.0.1/32"],"ipv6Nets":[]}"#
    );
    lab.delete(endpoint_key("n1", "a"));
    lab.ip("n1", "link del calia");
    agent.until("the status file goes", || !file.exists());
    assert!(!lab.has_route("n1", "192.168.0.1 "));
    lab.delete(margay_model::Key::Block("192.168.0.0/26".parse().unwrap()));
    agent.within(AT_ONCE, "the blackhole goes", || {
        !lab.has_route("n1", "blackhole")
    });
    let line = "192.168.0.64/26 via 172.31.0.2";
    agent.until(line, || lab.has_route("n1", line));
    lab.delete(margay_model::Key::resource(margay_model::Kind::Node, "n2"));
    agent.within(AT_ONCE, "the way to n2 goes", || !lab.has_route("n1", line));
    assert!(
        agent
            .log()
            .contains("node n2 cannot be reached: it has no record in the datastore")
    );
}

#[test]
fn an_interface_that_comes_late_is_set_up_when_it_comes() {
    let mut lab = Lab::new();
    lab.pod("n1", "a", "192.168.0.1");
    lab.ip("n1", "link set calia down");
    let agent = lab.agent("n1");
    assert!(!lab.has_route("n1", "192.168.0.1 "));
    assert_eq!(
        agent.status()["endpoints"][0]["state"],
        "waiting for calia to come up"
    );
    lab.ip("n1", "link set calia up");
    agent.within(AT_ONCE, "the route", || {
        lab.has_route("n1", "192.168.0.1 dev calia")
    });
    agent.until("a ping to the gateway's host", || {
        lab.pings("a", "172.31.0.1")
    });
}

#[test]
fn a_datastore_that_comes_back_empty_empties_nothing_without_a_word() {
    let lab = furnished();
    for last in 1..=12 {
        lab.block("n1", &format!("192.168.{last}.0/26"));
    }
    let agent = lab.agent("n1");
    agent.until("the last blackhole", || {
        lab.has_route("n1", "blackhole 192.168.12.0/26")
    });
    assert_eq!(agent.stop(), Some(0));
    for file in std::fs::read_dir(lab.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() && path.display().to_string().contains("store.db") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let agent = lab.agent("n1");
    // Beyond the time for which new interfaces are spared.
    sleep(Duration::from_secs(11));
    assert!(lab.has_route("n1", "blackhole 192.168.12.0/26"));
    assert!(lab.has_route("n1", "192.168.0.1 dev calia"));
    assert!(
        agent
            .log()
            .contains("SIGUSR1 tells this process that they may go")
    );
    assert!(
        agent
            .ask("/metrics")
            .contains("margay_withheld_deletions 15\n"),
        "{}",
        agent.ask("/metrics")
    );
    agent.signal("-USR1");
    agent.until("they go", || {
        !lab.has_route("n1", "blackhole") && !lab.has_route("n1", "192.168.0.1 ")
    });
    assert!(
        agent
            .ask("/metrics")
            .contains("margay_withheld_deletions 0\n")
    );
}

#[test]
fn ipv6_blocks_are_routed_where_nodes_have_ipv6_addresses() {
    let lab = Lab::new();
    lab.block("n2", "fd65::40/122");
    lab.block("n1", "fd65::/122");
    let start = |node| {
        let mut command = lab.command(node);
        command.env("IP6", "autodetect");
        lab.start(command, node)
    };
    assert_eq!(lab.sysctl("n1", "net/ipv6/conf/all/forwarding"), "0");
    let (one, _two) = (start("n1"), start("n2"));
    for line in [
        "fd65::40/122 via fd31::2 dev eth0 proto 80",
        "blackhole fd65::/122 dev lo proto 80",
    ] {
        one.until(line, || lab.has_route("n1", line));
    }
    one.until("forwarding", || {
        lab.sysctl("n1", "net/ipv6/conf/all/forwarding") == "1"
    });
    let before = lab.dump("n1");
    sleep(AT_ONCE);
    assert_eq!(lab.dump("n1"), before);
    assert_eq!(one.status()["last_error"], serde_json::Value::Null);
}
