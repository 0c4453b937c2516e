//! GoBGP.

use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{Families, Password, RestartState, Stop, TtlMode};
use tokio::time::sleep;

use crate::lab::{Lab, Node, config, eventually, peer, reflected_by, reflecting, run};

/// A neighbour of GoBGP's: 10.0.0.HOST of an AS, with more lines of its own, and of each family's.
fn neighbour(host: u8, asn: u32, lines: &str, family_lines: &str) -> String {
    let mut text = format!(
        "[[neighbors]]
         [neighbors.config]
         neighbor-address = \"10.0.0.{host}\"
         peer-as = {asn}
         {lines}
         [neighbors.timers.config]
         connect-retry = 1
         idle-hold-time-after-reset = 1
         [neighbors.transport.config]
         local-address = \"10.0.0.2\"
         remote-port = 1790
        "
    );
    for family in ["ipv4", "ipv6"] {
        text += &format!(
            "[[neighbors.afi-safis]]
             [neighbors.afi-safis.config]
             afi-safi-name = \"{family}-unicast\"
             {family_lines}
            "
        );
    }
    text
}

/// GoBGP at 10.0.0.2, of an AS.
fn start(lab: &Lab, asn: u32, neighbours: &[String], args: &[&str]) {
    let text = format!(
        "[global.config]
         as = {asn}
         router-id = \"10.0.0.2\"
         port = 1790
         local-address-list = [\"10.0.0.2\"]
         {}",
        neighbours.concat()
    );
    let path = lab.write("gobgpd.toml", &text);
    let mut all = vec!["-f", &path, "--api-hosts", "127.0.0.1:50051"];
    all.extend(args);
    lab.spawn("gobgpd", "gobgpd", &all, &[]);
}

fn ask(lab: &Lab, question: &str) -> String {
    let output = lab.output("gobgp", &question.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

async fn shows(lab: &Lab, question: &str, wanted: &str) {
    lab.shows("gobgpd", question, wanted, ask).await;
}

#[test]
fn both_families_on_one_session() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, 64512, &[neighbour(1, 64512, "", "")], &[]);
        let mut ours = config(64512, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 64512);
        gobgp.families = Families::BOTH;
        ours.peers.insert("gobgp".into(), gobgp);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24", "fd00:65::/64"]).await;
        node.up("gobgp").await;
        ask(&lab, "global rib add 10.66.0.0/24 community 64512:7");
        ask(&lab, "global rib add -a ipv6 fd00:66::/64 nexthop fd00::2");
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        node.learns("fd00:66::/64", &["fd00::2"]).await;
        let prefix = "10.66.0.0/24".parse().unwrap();
        let best = node.told.lock().unwrap().fib.get(&prefix).cloned().unwrap();
        assert_eq!(best.attributes.communities, ["64512:7".parse().unwrap()]);
        for (family, wanted) in [("ipv4", "10.65.0.0/24"), ("ipv6", "fd00:65::/64")] {
            shows(&lab, &format!("global rib -a {family}"), wanted).await;
        }
        ask(&lab, "global rib del 10.66.0.0/24");
        node.loses("10.66.0.0/24").await;
        // A refresh asked for, and one asked of us.
        assert!(node.handle.refresh_in("gobgp").await.unwrap());
        ask(&lab, "neighbor 10.0.0.1 softresetin");
        node.up("gobgp").await;
        assert_eq!(node.status("gobgp").await.counters.flaps, 0);
    });
}

#[test]
fn with_a_password() {
    run(|lab: Arc<Lab>| async move {
        let password = "auth-password = \"secret\"";
        start(&lab, 64512, &[neighbour(1, 64512, password, "")], &[]);
        let mut ours = config(64512, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 64512);
        gobgp.password = Some(Password::new("secret").unwrap());
        ours.peers.insert("gobgp".into(), gobgp);
        let node = Node::start(1, ours, false);
        node.up("gobgp").await;
    });
}

#[test]
fn external_sessions_with_ttl_security() {
    run(|lab: Arc<Lab>| async move {
        let lines = "[neighbors.ttl-security.config]
         enabled = true
         ttl-min = 255";
        start(&lab, 65002, &[neighbour(1, 4_200_000_001, lines, "")], &[]);
        let mut ours = config(4_200_000_001, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 65002);
        gobgp.ttl = TtlMode::Security(1);
        ours.peers.insert("gobgp".into(), gobgp);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24"]).await;
        node.up("gobgp").await;
        ask(&lab, "global rib add 10.66.0.0/24");
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        shows(&lab, "global rib", "4200000001").await;
    });
}

#[test]
fn we_reflect_to_it_and_send_several_paths() {
    run(|lab: Arc<Lab>| async move {
        let receive = "[neighbors.afi-safis.add-paths.config]
             receive = true";
        start(&lab, 64512, &[neighbour(1, 64512, "", receive)], &[]);
        let (reflector, nodes) = reflecting("gobgp").await;
        reflector.up("gobgp").await;
        ask(&lab, "global rib add 10.66.0.0/24");
        nodes[0].learns("10.66.0.0/24", &["10.0.0.2"]).await;
        for origin in ["10.0.0.3", "10.0.0.4"] {
            let wanted = format!("{{Originator: {origin}}} {{ClusterList: [10.0.0.1]}}");
            shows(&lab, "global rib 10.96.0.1/32", &wanted).await;
        }
        let prefix = "10.96.0.1/32".parse().unwrap();
        nodes[0].handle.withdraw(vec![prefix]).await.unwrap();
        eventually("one path", || {
            let shown = ask(&lab, "global rib 10.96.0.1/32");
            let one = shown.contains("Originator: 10.0.0.4") && !shown.contains("10.0.0.3");
            if one { Ok(()) } else { Err(shown) }
        })
        .await;
    });
}

#[test]
fn it_reflects_to_us_and_sends_several_paths() {
    run(|lab: Arc<Lab>| async move {
        let client = "[neighbors.route-reflector.config]
         route-reflector-client = true
         route-reflector-cluster-id = \"2.2.2.2\"";
        let send = "[neighbors.afi-safis.add-paths.config]
             receive = true
             send-max = 8";
        let neighbours = [1, 3, 4].map(|host| neighbour(host, 64512, client, send));
        start(&lab, 64512, &neighbours, &[]);
        reflected_by("gobgp").await;
    });
}

const GRACEFUL: &str = "[neighbors.graceful-restart.config]
         enabled = true
         restart-time = 60";
const GRACEFUL_FAMILY: &str = "[neighbors.afi-safis.mp-graceful-restart.config]
             enabled = true";

#[test]
fn it_keeps_our_routes_while_we_restart() {
    run(|lab: Arc<Lab>| async move {
        start(
            &lab,
            64512,
            &[neighbour(1, 64512, GRACEFUL, GRACEFUL_FAMILY)],
            &[],
        );
        let mut ours = config(64512, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 64512);
        gobgp.families = Families::BOTH;
        ours.peers.insert("gobgp".into(), gobgp);
        for restarting in [false, true] {
            let node = Node::start(1, ours.clone(), restarting);
            node.announce(&["10.65.0.0/24"]).await;
            node.up("gobgp").await;
            for _ in 0..20 {
                // From the second start on, the route is there all the time.
                let shown = ask(&lab, "global rib");
                assert!(!restarting || shown.contains("10.65.0.0/24"), "{shown}");
                sleep(Duration::from_millis(100)).await;
            }
            shows(&lab, "global rib", "10.65.0.0/24").await;
            node.handle.stop(Stop::KeepForwarding).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            let shown = ask(&lab, "global rib");
            assert!(shown.contains("10.65.0.0/24"), "{shown}");
        }
    });
}

#[test]
fn we_keep_its_routes_while_it_restarts() {
    run(|lab: Arc<Lab>| async move {
        let neighbours = [neighbour(1, 64512, GRACEFUL, GRACEFUL_FAMILY)];
        start(&lab, 64512, &neighbours, &[]);
        let mut ours = config(64512, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 64512);
        gobgp.families = Families::BOTH;
        ours.peers.insert("gobgp".into(), gobgp);
        let node = Node::start(1, ours, false);
        node.up("gobgp").await;
        ask(&lab, "global rib add 10.66.0.0/24");
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        lab.kill("gobgpd");
        for _ in 0..100 {
            if node.status("gobgp").await.restart.v4 == RestartState::Waiting {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(node.status("gobgp").await.restart.v4, RestartState::Waiting);
        let kept = node.next_hops("10.66.0.0/24");
        assert_eq!(kept.as_deref(), Some(&["10.0.0.2".to_owned()][..]));
        assert!(node.told.lock().unwrap().losses.is_empty());
        // GoBGP forgets its own routes; what it does not tell again goes with its end of RIB.
        start(&lab, 64512, &neighbours, &["--graceful-restart"]);
        node.up("gobgp").await;
        node.loses("10.66.0.0/24").await;
        assert_eq!(node.status("gobgp").await.restart.v4, RestartState::None);
        ask(&lab, "global rib add 10.66.0.0/24");
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
    });
}
