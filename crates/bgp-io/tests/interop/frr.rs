//! FRR's bgpd, without zebra.

use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{
    Families, Operation, Password, Policy, RestartState, Rule, Stop, TtlMode, Verdict,
};
use margay_model::scalar::AsNumber;
use tokio::time::sleep;

use crate::lab::{Lab, Node, config, peer, reflected_by, reflecting, run};

/// FRR at 10.0.0.2 with the given lines for its neighbour, which is ours.
fn start(lab: &Lab, asn: u32, remote: u32, lines: &str) {
    let text = format!(
        "hostname frr
         router bgp {asn}
          bgp router-id 10.0.0.2
          no bgp ebgp-requires-policy
          no bgp network import-check
          bgp graceful-restart
          neighbor 10.0.0.1 remote-as {remote}
          neighbor 10.0.0.1 port 1790
          neighbor 10.0.0.1 update-source 10.0.0.2
          neighbor 10.0.0.1 timers connect 1
          {lines}
          address-family ipv4 unicast
           network 10.66.0.0/24
          exit-address-family
         "
    );
    let path = lab.write("bgpd.conf", &text);
    let pid = lab.path("bgpd.pid");
    let sockets = lab.dir.path().to_str().unwrap();
    let args = [
        "-f",
        &path,
        "-i",
        pid.to_str().unwrap(),
        "--vty_socket",
        sockets,
        "-l",
        "10.0.0.2",
        "-p",
        "1790",
        "-Z",
        "-S",
        "-P",
        "0",
        "-u",
        "root",
        "-g",
        "root",
        "--log",
        "stdout",
    ];
    lab.spawn("bgpd", "/usr/lib/frr/bgpd", &args, &[]);
}

fn ask(lab: &Lab, question: &str) -> String {
    let sockets = lab.dir.path().to_str().unwrap();
    let output = lab.output(
        "vtysh",
        &["--vty_socket", sockets, "-d", "bgpd", "-c", question],
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn shows(lab: &Lab, question: &str, wanted: &str) {
    lab.shows("bgpd", question, wanted, ask).await;
}

#[test]
fn internal_and_external_sessions() {
    for asn in [64512, 65002] {
        run(move |lab: Arc<Lab>| async move {
            let lines = if asn == 64512 {
                ""
            } else {
                "neighbor 10.0.0.1 disable-connected-check"
            };
            start(&lab, asn, 64512, lines);
            let mut ours = config(64512, 1);
            ours.peers
                .insert("frr".into(), peer("10.0.0.2", "10.0.0.1", asn));
            let node = Node::start(1, ours, false);
            node.announce(&["10.65.0.0/24"]).await;
            node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
            shows(&lab, "show bgp ipv4 unicast 10.65.0.0/24", "10.0.0.1").await;
            node.handle
                .withdraw(vec!["10.65.0.0/24".parse().unwrap()])
                .await
                .unwrap();
            shows(&lab, "show bgp ipv4 unicast 10.65.0.0/24", "not in table").await;
        });
    }
}

#[test]
fn both_families_on_one_session() {
    run(|lab: Arc<Lab>| async move {
        let lines = "address-family ipv6 unicast
                       neighbor 10.0.0.1 activate
                       neighbor 10.0.0.1 route-map six out
                       network fd00:66::/64
                      exit-address-family";
        start(&lab, 64512, 64512, lines);
        let mut ours = config(64512, 1);
        let mut frr = peer("10.0.0.2", "10.0.0.1", 64512);
        frr.families = Families::BOTH;
        ours.peers.insert("frr".into(), frr);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24", "fd00:65::/64"]).await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        shows(&lab, "show bgp ipv6 unicast fd00:65::/64", "fd00::1").await;
    });
}

/// FRR without any capability: AS numbers of two octets, IPv4 only.
#[test]
fn a_speaker_of_old() {
    run(|lab: Arc<Lab>| async move {
        let lines = "neighbor 10.0.0.1 dont-capability-negotiate
          neighbor 10.0.0.1 disable-connected-check";
        start(&lab, 65002, 64512, lines);
        let mut ours = config(64512, 1);
        let mut frr = peer("10.0.0.2", "10.0.0.1", 65002);
        let long = Operation::PrependAs(vec![AsNumber(4_200_000_001)]);
        frr.export = Some(Arc::new(Policy {
            name: "long".to_owned(),
            rules: vec![Rule::change("prepend", Vec::new(), vec![long])],
            otherwise: Verdict::Accept,
        }));
        ours.peers.insert("frr".into(), frr);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24"]).await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        let status = node.status("frr").await;
        assert!(
            status.remote_capabilities.is_empty(),
            "{:?}",
            status.remote_capabilities
        );
        // It reads two octets, but passes over AS4_PATH from a speaker that has the capability.
        let path = "64512 23456";
        shows(&lab, "show bgp ipv4 unicast 10.65.0.0/24", path).await;
    });
}

#[test]
fn we_keep_its_routes_while_it_restarts() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, 64512, 64512, "bgp graceful-restart preserve-fw-state");
        let mut ours = config(64512, 1);
        ours.peers
            .insert("frr".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        lab.kill("bgpd");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(node.status("frr").await.restart.v4, RestartState::Waiting);
        start(&lab, 64512, 64512, "bgp graceful-restart preserve-fw-state");
        node.up("frr").await;
        sleep(Duration::from_secs(3)).await;
        assert!(node.told.lock().unwrap().losses.is_empty());
    });
}

#[test]
fn external_sessions_with_password_and_ttl_security() {
    run(|lab: Arc<Lab>| async move {
        let lines = "neighbor 10.0.0.1 disable-connected-check
          neighbor 10.0.0.1 ttl-security hops 1
          neighbor 10.0.0.1 password secret";
        start(&lab, 65002, 64512, lines);
        let mut ours = config(64512, 1);
        let mut frr = peer("10.0.0.2", "10.0.0.1", 65002);
        frr.ttl = TtlMode::Security(1);
        frr.password = Some(Password::new("secret").unwrap());
        ours.peers.insert("frr".into(), frr);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24"]).await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        shows(&lab, "show bgp ipv4 unicast 10.65.0.0/24", "10.0.0.1").await;
    });
}

#[test]
fn a_session_over_ipv6() {
    run(|lab: Arc<Lab>| async move {
        let lines = "neighbor fd00::1 remote-as 64512
          neighbor fd00::1 port 1790
          neighbor fd00::1 update-source fd00::2
          neighbor fd00::1 timers connect 1
          address-family ipv6 unicast
           neighbor fd00::1 activate
           network fd00:66::/64
          exit-address-family";
        start(&lab, 64512, 64512, lines);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("frr".into(), peer("fd00::2", "fd00::1", 64512));
        let node = Node::start(1, ours, false);
        node.announce(&["fd00:65::/64"]).await;
        node.learns("fd00:66::/64", &["fd00::2"]).await;
        shows(&lab, "show bgp ipv6 unicast fd00:65::/64", "fd00::1").await;
    });
}

#[test]
fn we_reflect_to_it_and_send_several_paths() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, 64512, 64512, "");
        let (_reflector, nodes) = reflecting("frr").await;
        nodes[0].learns("10.66.0.0/24", &["10.0.0.2"]).await;
        for origin in ["10.0.0.3", "10.0.0.4"] {
            let wanted = format!("Originator: {origin}, Cluster list: 10.0.0.1");
            shows(&lab, "show bgp ipv4 unicast 10.96.0.1/32", &wanted).await;
        }
        let prefix = "10.96.0.1/32".parse().unwrap();
        nodes[0].handle.withdraw(vec![prefix]).await.unwrap();
        let one = "(1 available";
        shows(&lab, "show bgp ipv4 unicast 10.96.0.1/32", one).await;
        shows(&lab, "show bgp ipv4 unicast 10.96.0.1/32", "10.0.0.4").await;
    });
}

#[test]
fn it_reflects_to_us_and_sends_several_paths() {
    run(|lab: Arc<Lab>| async move {
        let mut lines = String::from("bgp cluster-id 2.2.2.2\n");
        for host in [3, 4] {
            lines += &format!(
                "neighbor 10.0.0.{host} remote-as 64512
                 neighbor 10.0.0.{host} port 1790
                 neighbor 10.0.0.{host} update-source 10.0.0.2
                 neighbor 10.0.0.{host} timers connect 1\n"
            );
        }
        lines += "address-family ipv4 unicast\n";
        for host in [1, 3, 4] {
            lines += &format!(
                "neighbor 10.0.0.{host} route-reflector-client
                 neighbor 10.0.0.{host} addpath-tx-all-paths\n"
            );
        }
        lines += "exit-address-family";
        start(&lab, 64512, 64512, &lines);
        reflected_by("frr").await;
    });
}

#[test]
fn it_keeps_our_routes_while_we_restart() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, 64512, 64512, "");
        let mut ours = config(64512, 1);
        ours.peers
            .insert("frr".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        let question = "show bgp ipv4 unicast 10.65.0.0/24";
        for restarting in [false, true] {
            let node = Node::start(1, ours.clone(), restarting);
            node.announce(&["10.65.0.0/24"]).await;
            node.up("frr").await;
            for _ in 0..20 {
                // From the second start on, the route is there all the time.
                let shown = ask(&lab, question);
                assert!(!restarting || shown.contains("10.0.0.1"), "{shown}");
                sleep(Duration::from_millis(100)).await;
            }
            shows(&lab, question, "10.0.0.1").await;
            node.handle.stop(Stop::KeepForwarding).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            let shown = ask(&lab, question);
            assert!(shown.contains("10.0.0.1"), "{shown}");
        }
    });
}
