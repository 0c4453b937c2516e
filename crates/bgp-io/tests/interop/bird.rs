//! BIRD 2.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{AddPath, Families, Operation, Password, Policy, Rule, Stop, TtlMode, Verdict};
use margay_model::scalar::AsNumber;
use tokio::time::sleep;

use crate::lab::{Lab, Node, config, eventually, peer, reflecting, run};

/// BIRD at 10.0.0.2 and fd00::2, with a route of each family, and sessions as given.
fn start(lab: &Lab, sessions: &str, args: &[&str]) {
    let text = format!(
        "router id 10.0.0.2;
         log stderr all;
         protocol device {{}}
         protocol static s4 {{ ipv4; route 10.66.0.0/24 blackhole; }}
         protocol static s6 {{ ipv6; route fd00:66::/64 blackhole; }}
         template bgp usual {{
             strict bind yes; connect delay time 1; connect retry time 1; error wait time 1, 2;
         }}
         {sessions}"
    );
    let path = lab.write("bird.conf", &text);
    let socket = lab.path("bird.ctl");
    let mut all = vec!["-f", "-c", &path, "-s", socket.to_str().unwrap()];
    all.extend(args);
    lab.spawn("bird", "bird", &all, &[]);
}

fn ask(lab: &Lab, question: &str) -> String {
    let socket = lab.path("bird.ctl");
    let mut args = vec!["-s", socket.to_str().unwrap()];
    args.extend(question.split(' '));
    let output = lab.output("birdc", &args);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn shows(lab: &Lab, question: &str, wanted: &str) {
    lab.shows("bird", question, wanted, ask).await;
}

const INTERNAL: &str = "protocol bgp margay from usual {
    local 10.0.0.2 port 1790 as 64512; neighbor 10.0.0.1 port 1790 as 64512; multihop;
    ipv4 { import all; export all; };
}";

#[test]
fn internal_sessions_of_both_families() {
    run(|lab: Arc<Lab>| async move {
        let six = "protocol bgp margay6 from usual {
            local fd00::2 port 1790 as 64512; neighbor fd00::1 port 1790 as 64512; multihop;
            ipv6 { import all; export all; };
        }";
        start(&lab, &format!("{INTERNAL}{six}"), &[]);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("four".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        ours.peers
            .insert("six".into(), peer("fd00::2", "fd00::1", 64512));
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24", "fd00:65::/64"]).await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        node.learns("fd00:66::/64", &["fd00::2"]).await;
        shows(
            &lab,
            "show route 10.65.0.0/24 all",
            "BGP.next_hop: 10.0.0.1",
        )
        .await;
        shows(&lab, "show route fd00:65::/64 all", "BGP.next_hop: fd00::1").await;
        let prefix = "10.65.0.0/24".parse().unwrap();
        node.handle.withdraw(vec![prefix]).await.unwrap();
        shows(&lab, "show route 10.65.0.0/24", "Network not found").await;
        // BIRD's words for what both agreed on.
        let session = ask(&lab, "show protocols all margay");
        for words in ["Enhanced refresh", "4-octet AS numbers", "Graceful restart"] {
            assert!(session.contains(words), "{words}: {session}");
        }
        ask(&lab, "disable margay");
        node.loses("10.66.0.0/24").await;
        let error = node.status("four").await.last_error;
        assert!(
            error.as_deref().is_some_and(|e| e.contains("cease")),
            "{error:?}"
        );
    });
}

#[test]
fn external_sessions_with_password_and_ttl_security() {
    run(|lab: Arc<Lab>| async move {
        let session = "protocol bgp margay from usual {
            local 10.0.0.2 port 1790 as 65002; neighbor 10.0.0.1 port 1790 as 4200000001;
            multihop 1; ttl security on; password \"correct horse\";
            ipv4 { import all; export all; };
        }";
        start(&lab, session, &[]);
        let mut ours = config(4_200_000_001, 1);
        let mut bird = peer("10.0.0.2", "10.0.0.1", 65002);
        bird.ttl = TtlMode::Security(1);
        bird.password = Some(Password::new("battery staple").unwrap());
        ours.peers.insert("bird".into(), bird);
        let node = Node::start(1, ours.clone(), false);
        node.announce(&["10.65.0.0/24"]).await;
        sleep(Duration::from_secs(3)).await;
        assert_ne!(
            node.status("bird").await.state,
            margay_bgp::State::Established
        );
        // A new password, on the listening socket too.
        let right = Some(Password::new("correct horse").unwrap());
        ours.peers.get_mut("bird").unwrap().password = right;
        node.handle.configure(ours).await.unwrap();
        node.up("bird").await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        shows(
            &lab,
            "show route 10.65.0.0/24 all",
            "BGP.as_path: 4200000001",
        )
        .await;
    });
}

#[test]
fn as_numbers_of_two_octets() {
    run(|lab: Arc<Lab>| async move {
        let session = "protocol bgp margay from usual {
            local 10.0.0.2 port 1790 as 65002; neighbor 10.0.0.1 port 1790 as 64512;
            multihop 1; enable as4 off;
            ipv4 { import all; export all; };
        }";
        start(&lab, session, &[]);
        let mut ours = config(64512, 1);
        let mut bird = peer("10.0.0.2", "10.0.0.1", 65002);
        let long = Operation::PrependAs(vec![AsNumber(4_200_000_001)]);
        bird.export = Some(Arc::new(Policy {
            name: "long".to_owned(),
            rules: vec![Rule::change("prepend", Vec::new(), vec![long])],
            otherwise: Verdict::Accept,
        }));
        ours.peers.insert("bird".into(), bird);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24"]).await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        // It puts both paths together.
        shows(
            &lab,
            "show route 10.65.0.0/24 all",
            "BGP.as_path: 64512 4200000001",
        )
        .await;
    });
}

#[test]
fn bird_connects_with_a_password_for_a_range() {
    run(|lab: Arc<Lab>| async move {
        let session = INTERNAL.replace("multihop;", "multihop; password \"secret\";");
        start(&lab, &session, &[]);
        let mut template = peer("0.0.0.0", "10.0.0.1", 64512);
        template.source = None;
        template.reflector_client = true;
        template.password = Some(Password::new("secret").unwrap());
        let mut ours = config(64512, 1);
        let cidr = "10.0.0.0/24".parse().unwrap();
        ours.ranges.insert(
            "nodes".into(),
            margay_bgp::RangeConfig {
                cidr,
                limit: 10,
                template,
            },
        );
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        assert!(node.status("nodes-10.0.0.2").await.dynamic);
    });
}

#[test]
fn we_reflect_between_bird_and_a_node() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, INTERNAL, &[]);
        let mut reflector = config(64512, 1);
        for (name, address) in [("bird", "10.0.0.2"), ("node", "10.0.0.3")] {
            let mut client = peer(address, "10.0.0.1", 64512);
            client.reflector_client = true;
            reflector.peers.insert(name.into(), client);
        }
        let reflector = Node::start(1, reflector, false);
        let mut ours = config(64512, 3);
        ours.peers
            .insert("reflector".into(), peer("10.0.0.1", "10.0.0.3", 64512));
        let node = Node::start(3, ours, false);
        node.announce(&["10.65.3.0/24"]).await;
        reflector.up("node").await;
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        shows(
            &lab,
            "show route 10.65.3.0/24 all",
            "BGP.originator_id: 10.0.0.3",
        )
        .await;
        shows(
            &lab,
            "show route 10.65.3.0/24 all",
            "BGP.cluster_list: 10.0.0.1",
        )
        .await;
        shows(
            &lab,
            "show route 10.65.3.0/24 all",
            "BGP.next_hop: 10.0.0.3",
        )
        .await;
    });
}

#[test]
fn bird_reflects_between_our_nodes_and_sends_several_paths() {
    run(|lab: Arc<Lab>| async move {
        let mut sessions = String::new();
        for host in [1, 3, 4] {
            sessions += &format!(
                "protocol bgp n{host} from usual {{
                     local 10.0.0.2 port 1790 as 64512; neighbor 10.0.0.{host} port 1790 as 64512;
                     multihop; rr client; rr cluster id 2.2.2.2;
                     ipv4 {{ import all; export all; add paths on; }};
                 }}"
            );
        }
        start(&lab, &sessions, &[]);
        let mut nodes = Vec::new();
        for host in [1, 3, 4] {
            let mut ours = config(64512, host);
            ours.multipath = NonZeroUsize::new(4).unwrap();
            let mut bird = peer("10.0.0.2", &format!("10.0.0.{host}"), 64512);
            bird.add_path = AddPath {
                receive: true,
                send: 4,
            };
            ours.peers.insert("bird".into(), bird);
            nodes.push(Node::start(host, ours, false));
        }
        nodes[1].announce(&["10.96.0.1/32"]).await;
        nodes[2].announce(&["10.96.0.1/32"]).await;
        nodes[0]
            .learns("10.96.0.1/32", &["10.0.0.3", "10.0.0.4"])
            .await;
        nodes[0].learns("10.66.0.0/24", &["10.0.0.2"]).await;
    });
}

#[test]
fn we_send_several_paths() {
    run(|lab: Arc<Lab>| async move {
        let session = INTERNAL.replace("export all;", "export all; add paths on;");
        start(&lab, &session, &[]);
        let (_reflector, nodes) = reflecting("bird").await;
        shows(
            &lab,
            "show route 10.96.0.1/32 all",
            "BGP.next_hop: 10.0.0.3",
        )
        .await;
        shows(
            &lab,
            "show route 10.96.0.1/32 all",
            "BGP.next_hop: 10.0.0.4",
        )
        .await;
        let prefix = "10.96.0.1/32".parse().unwrap();
        nodes[0].handle.withdraw(vec![prefix]).await.unwrap();
        eventually("one path", || {
            let shown = ask(&lab, "show route 10.96.0.1/32 all");
            let one = shown.contains("10.0.0.4") && !shown.contains("next_hop: 10.0.0.3");
            if one { Ok(()) } else { Err(shown) }
        })
        .await;
    });
}

#[test]
fn ipv4_by_way_of_ipv6() {
    run(|lab: Arc<Lab>| async move {
        let session = "protocol bgp margay from usual {
            local fd00::2 port 1790 as 64512; neighbor fd00::1 port 1790 as 64512; multihop;
            ipv4 { import all; export all; extended next hop on; };
            ipv6 { import all; export all; };
        }";
        start(&lab, session, &[]);
        let mut ours = config(64512, 1);
        let mut bird = peer("fd00::2", "fd00::1", 64512);
        bird.families = Families::BOTH;
        bird.extended_next_hop = true;
        ours.peers.insert("bird".into(), bird);
        let node = Node::start(1, ours, false);
        node.announce(&["10.65.0.0/24", "fd00:65::/64"]).await;
        node.learns("10.66.0.0/24", &["fd00::2"]).await;
        node.learns("fd00:66::/64", &["fd00::2"]).await;
        shows(&lab, "show route 10.65.0.0/24 all", "BGP.next_hop: fd00::1").await;
    });
}

#[test]
fn bird_keeps_our_routes_while_we_restart() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, INTERNAL, &[]);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("bird".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        for round in 0..2 {
            let node = Node::start(1, ours.clone(), round > 0);
            node.announce(&["10.65.0.0/24"]).await;
            node.up("bird").await;
            let watch = Arc::clone(&lab);
            let held = async move {
                // From the second start on, the route is there all the time.
                for _ in 0..30 {
                    let shown = ask(&watch, "show route 10.65.0.0/24");
                    assert!(round == 0 || shown.contains("10.65.0.0/24"), "{shown}");
                    sleep(Duration::from_millis(100)).await;
                }
            };
            held.await;
            shows(
                &lab,
                "show route 10.65.0.0/24 all",
                "BGP.next_hop: 10.0.0.1",
            )
            .await;
            node.handle.stop(Stop::KeepForwarding).await.unwrap();
            sleep(Duration::from_millis(500)).await;
            let shown = ask(&lab, "show route 10.65.0.0/24");
            assert!(shown.contains("10.65.0.0/24"), "{shown}");
        }
    });
}

#[test]
fn we_keep_birds_routes_while_it_restarts() {
    run(|lab: Arc<Lab>| async move {
        let session = INTERNAL.replace("multihop;", "multihop; graceful restart on;");
        start(&lab, &session, &[]);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("bird".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        lab.kill("bird");
        sleep(Duration::from_secs(2)).await;
        assert_eq!(
            node.status("bird").await.restart.v4,
            margay_bgp::RestartState::Waiting
        );
        start(&lab, &session, &["-R"]);
        node.up("bird").await;
        for _ in 0..100 {
            if node.status("bird").await.restart.v4 == margay_bgp::RestartState::None {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        assert!(node.status("bird").await.end_of_rib.v4);
        assert_eq!(
            node.next_hops("10.66.0.0/24").as_deref(),
            Some(&["10.0.0.2".to_owned()][..])
        );
        assert!(node.told.lock().unwrap().losses.is_empty());
    });
}
