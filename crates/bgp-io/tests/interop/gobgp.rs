//! GoBGP.

use std::sync::Arc;

use margay_bgp::Families;

use crate::lab::{Lab, Node, config, eventually, peer, run};

fn start(lab: &Lab, neighbour: &str) {
    let text = format!(
        "[global.config]
         as = 64512
         router-id = \"10.0.0.2\"
         port = 1790
         local-address-list = [\"10.0.0.2\"]
         [[neighbors]]
         [neighbors.config]
         neighbor-address = \"10.0.0.1\"
         peer-as = 64512
         [neighbors.timers.config]
         connect-retry = 1
         idle-hold-time-after-reset = 1
         [neighbors.transport.config]
         local-address = \"10.0.0.2\"
         remote-port = 1790
         {neighbour}
         [[neighbors.afi-safis]]
         [neighbors.afi-safis.config]
         afi-safi-name = \"ipv4-unicast\"
         [[neighbors.afi-safis]]
         [neighbors.afi-safis.config]
         afi-safi-name = \"ipv6-unicast\"
        "
    );
    let path = lab.write("gobgpd.toml", &text);
    lab.spawn(
        "gobgpd",
        "gobgpd",
        &["-f", &path, "--api-hosts", "127.0.0.1:50051"],
        &[],
    );
}

fn ask(lab: &Lab, question: &str) -> String {
    let output = lab.output("gobgp", &question.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn both_families_on_one_session() {
    run(|lab: Arc<Lab>| async move {
        start(&lab, "");
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
            eventually(wanted, || {
                let shown = ask(&lab, &format!("global rib -a {family}"));
                if shown.contains(wanted) {
                    Ok(())
                } else {
                    Err(shown)
                }
            })
            .await;
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
        start(&lab, "[neighbors.config.dummy]");
        let text = std::fs::read_to_string(lab.path("gobgpd.toml")).unwrap();
        lab.kill("gobgpd");
        let text = text.replace("[neighbors.config.dummy]", "");
        let text = text.replace(
            "peer-as = 64512",
            "peer-as = 64512\nauth-password = \"secret\"",
        );
        let path = lab.write("gobgpd.toml", &text);
        lab.spawn(
            "gobgpd",
            "gobgpd",
            &["-f", &path, "--api-hosts", "127.0.0.1:50051"],
            &[],
        );
        let mut ours = config(64512, 1);
        let mut gobgp = peer("10.0.0.2", "10.0.0.1", 64512);
        gobgp.password = Some(margay_bgp::Password::new("secret").unwrap());
        ours.peers.insert("gobgp".into(), gobgp);
        let node = Node::start(1, ours, false);
        node.up("gobgp").await;
    });
}
