//! Our own speakers among each other, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use margay_bgp::{LocalRoute, Password, Stop};

use crate::lab::{Lab, Node, config, eventually, peer, run};

#[test]
fn many_routes_pass_a_slow_reader() {
    run(|_lab: Arc<Lab>| async move {
        let mut first = config(64512, 1);
        let mut towards = peer("10.0.0.2", "10.0.0.1", 64512);
        towards.password = Some(Password::new("secret").unwrap());
        first.peers.insert("second".into(), towards.clone());
        let mut second = config(64512, 2);
        let back = margay_bgp::PeerConfig {
            address: "10.0.0.1".parse().unwrap(),
            source: Some("10.0.0.2".parse().unwrap()),
            ..towards
        };
        second.peers.insert("first".into(), back);
        let first = Node::start(1, first, false);
        let second = Node::start(2, second, false);
        first.up("second").await;
        // Each with attributes of its own, so that each takes a message of its own.
        let routes = (0..50_000_u32).map(|number| {
            let address = std::net::Ipv4Addr::from(0x0b00_0000 + number * 256);
            let prefix = margay_model::Cidr::new(address.into(), 24).unwrap();
            LocalRoute {
                med: Some(number),
                ..LocalRoute::new(prefix)
            }
        });
        first.handle.announce(routes.collect()).await.unwrap();
        eventually("all routes", || {
            let count = second.told.lock().unwrap().fib.len();
            if count == 50_000 {
                Ok(())
            } else {
                Err(count.to_string())
            }
        })
        .await;
        first.handle.set_local_routes(Vec::new()).await.unwrap();
        eventually("no routes", || {
            let count = second.told.lock().unwrap().fib.len();
            if count == 0 {
                Ok(())
            } else {
                Err(count.to_string())
            }
        })
        .await;
        first
            .handle
            .stop(Stop::Withdraw("over".to_owned()))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let error = second.status("first").await.last_error.unwrap();
        let told = second.told.lock().unwrap();
        let heard = told
            .events
            .iter()
            .any(|event| format!("{event:?}").contains("Received"));
        assert!(heard, "{error}: {:?}", told.events);
    });
}

#[test]
fn listening_follows_the_settings() {
    run(|lab: Arc<Lab>| async move {
        let node = Node::start(1, config(64512, 1), false);
        let listening = |lab: &Lab| lab.command("ss", &["-ltnH"]);
        let before = listening(&lab);
        assert!(
            before.contains("10.0.0.1:1790") && before.contains("4096"),
            "{before}"
        );
        node.handle
            .listen(vec!["10.0.0.3:1791".parse().unwrap()])
            .await
            .unwrap();
        eventually("the new address alone", || {
            let after = listening(&lab);
            let right = after.contains("10.0.0.3:1791") && !after.contains("10.0.0.1:1790");
            if right { Ok(()) } else { Err(after) }
        })
        .await;
        let taken = std::net::TcpListener::bind("10.0.0.4:1792").unwrap();
        let error = node
            .handle
            .listen(vec![taken.local_addr().unwrap()])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("another BGP program"), "{error}");
    });
}
