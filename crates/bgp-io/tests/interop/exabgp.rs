//! ExaBGP, which says what no other would.

use std::num::NonZeroUsize;
use std::sync::Arc;

use margay_bgp::{Event, Families, Password, TtlMode};

use crate::lab::{Lab, Node, config, eventually, peer, run};

fn start(lab: &Lab, asn: u32, capability: &str, routes: &str) {
    start_with(lab, asn, "", capability, routes);
}

/// The same with lines of the session's own.
fn start_with(lab: &Lab, asn: u32, lines: &str, capability: &str, routes: &str) {
    let text = format!(
        "neighbor 10.0.0.1 {{
             router-id 10.0.0.2; local-address 10.0.0.2; local-as {asn}; peer-as 64512;
             connect 1790; hold-time 90; {lines}
             capability {{ {capability} }}
             static {{ {routes} }}
         }}"
    );
    let path = lab.write("exabgp.conf", &text);
    let env = [
        ("exabgp.daemon.user", "root"),
        ("exabgp.api.cli", "false"),
        ("exabgp.tcp.once", "false"),
    ];
    lab.spawn("exabgp", "exabgp", &[&path], &env);
}

#[test]
fn attribute_errors_cost_no_session() {
    run(|lab: Arc<Lab>| async move {
        let routes = "route 10.66.0.0/24 next-hop 10.0.0.2;
                      route 10.66.1.0/24 next-hop 10.0.0.2 attribute [ 0x20 0xc0 0x000000 ];
                      route 10.66.2.0/24 next-hop 10.0.0.2 attribute [ 0xc8 0xc0 0x010203 ];";
        start(&lab, 64512, "", routes);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("exa".into(), peer("10.0.0.2", "10.0.0.1", 64512));
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        node.learns("10.66.2.0/24", &["10.0.0.2"]).await;
        eventually("the error", || {
            let told = node.told.lock().unwrap();
            let seen = |event: &Event| match event {
                Event::AttributeError { detail, .. } => detail.contains("attribute 32"),
                _ => false,
            };
            if told.events.iter().any(seen) {
                Ok(())
            } else {
                Err(lab.log("exabgp"))
            }
        })
        .await;
        assert!(node.next_hops("10.66.1.0/24").is_none());
        let status = node.status("exa").await;
        assert_eq!(
            (status.counters.flaps, status.counters.treated_as_withdraw),
            (0, 1)
        );
        let told = node.told.lock().unwrap();
        let passed = &told.fib[&"10.66.2.0/24".parse().unwrap()]
            .attributes
            .unknown;
        assert_eq!(
            (passed[0].code, passed[0].value.as_slice()),
            (200, &[1, 2, 3][..])
        );
    });
}

#[test]
fn two_octet_as_numbers() {
    run(|lab: Arc<Lab>| async move {
        let route = "route 10.66.0.0/24 next-hop 10.0.0.2 as-path [ 65002 70000 ];";
        start(&lab, 65002, "asn4 disable;", route);
        let mut ours = config(64512, 1);
        ours.peers
            .insert("exa".into(), peer("10.0.0.2", "10.0.0.1", 65002));
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        let told = node.told.lock().unwrap();
        let path = told.fib[&"10.66.0.0/24".parse().unwrap()]
            .attributes
            .as_path
            .to_string();
        assert_eq!(path, "65002 70000");
    });
}

#[test]
fn external_sessions_of_both_families_with_password_and_ttl_security() {
    run(|lab: Arc<Lab>| async move {
        let lines = "md5-password 'secret'; outgoing-ttl 255; incoming-ttl 255;
             family { ipv4 unicast; ipv6 unicast; }";
        let routes = "route 10.66.0.0/24 next-hop 10.0.0.2;
                      route fd00:66::/64 next-hop fd00::2;";
        start_with(&lab, 65002, lines, "", routes);
        let mut ours = config(64512, 1);
        let mut exa = peer("10.0.0.2", "10.0.0.1", 65002);
        exa.families = Families::BOTH;
        exa.ttl = TtlMode::Security(1);
        exa.password = Some(Password::new("secret").unwrap());
        ours.peers.insert("exa".into(), exa);
        let node = Node::start(1, ours, false);
        node.learns("10.66.0.0/24", &["10.0.0.2"]).await;
        node.learns("fd00:66::/64", &["fd00::2"]).await;
    });
}

#[test]
fn several_paths() {
    run(|lab: Arc<Lab>| async move {
        let routes = "route 10.96.0.1/32 next-hop 10.0.0.3 path-information 0.0.0.1;
                      route 10.96.0.1/32 next-hop 10.0.0.4 path-information 0.0.0.2;";
        start(&lab, 64512, "add-path send/receive;", routes);
        let mut ours = config(64512, 1);
        ours.multipath = NonZeroUsize::new(4).unwrap();
        let mut exa = peer("10.0.0.2", "10.0.0.1", 64512);
        exa.add_path.receive = true;
        ours.peers.insert("exa".into(), exa);
        let node = Node::start(1, ours, false);
        let both = ["10.0.0.3", "10.0.0.4"];
        node.learns("10.96.0.1/32", &both).await;
    });
}
