//! Route reflection (RFC 4456).

use crate::net::Net;

/// Reflectors 0 and 1 peer with each other; the others are clients of both.
fn two_reflectors(clients: usize, clusters: [&str; 2]) -> Net {
    let mut net = Net::new(7);
    for _ in 0..clients + 2 {
        net.add(64512);
    }
    for (reflector, cluster) in clusters.into_iter().enumerate() {
        net.configure(reflector, |config| {
            config.cluster_id = Some(cluster.parse().unwrap())
        });
    }
    net.link(0, 1);
    for client in 2..clients + 2 {
        for reflector in 0..2 {
            net.link_with(reflector, client, |here, peer| {
                peer.reflector_client = here == reflector;
            });
        }
    }
    net
}

#[test]
fn clients_learn_of_each_other() {
    for clusters in [["1.1.1.1", "1.1.1.1"], ["1.1.1.1", "2.2.2.2"]] {
        let mut net = two_reflectors(4, clusters);
        net.start_all();
        net.seconds(3);
        for client in 2..6 {
            net.announce(client, &format!("10.65.{client}.0/24"));
        }
        net.seconds(1);
        for node in 0..6 {
            for client in 2..6_usize {
                let prefix = format!("10.65.{client}.0/24");
                if node != client {
                    let expected = format!("10.0.0.{}", client + 1);
                    assert_eq!(net.next_hops(node, &prefix), [expected], "{node} {prefix}");
                }
            }
        }
        let best = &net.nodes[2].fib[&"10.65.3.0/24".parse().unwrap()];
        assert_eq!(
            best.attributes.originator_id,
            Some("10.0.0.4".parse().unwrap())
        );
        assert_eq!(best.attributes.cluster_list.len(), 1);
        // A client is not told its own route, not even to be told to forget it.
        assert!(
            net.speaker(2)
                .received_routes("n0")
                .unwrap()
                .iter()
                .all(|route| { route.prefix != "10.65.2.0/24".parse().unwrap() })
        );
        let same = clusters[0] == clusters[1];
        let reflected = net.speaker(0).received_routes("n1").unwrap();
        assert_eq!(reflected.len(), 4);
        let expected = same.then(|| "our cluster is in the cluster list".to_owned());
        assert!(reflected.iter().all(|route| route.rejected == expected));
        // One reflector goes: nothing is lost.
        net.kill(1);
        net.seconds(1);
        assert!((2..6).all(|node| net.nodes[node].fib.len() == 4));
        net.withdraw(3, "10.65.3.0/24");
        net.seconds(1);
        assert!(!net.has(2, "10.65.3.0/24") || net.status(2, 1).restart.v4 != Default::default());
    }
}

#[test]
fn routes_of_others_go_to_clients_only() {
    // 0 reflects for 1; 2 and 3 are ordinary peers.
    let mut net = Net::new(1);
    for _ in 0..4 {
        net.add(64512);
    }
    net.link_with(0, 1, |here, peer| peer.reflector_client = here == 0);
    net.link(0, 2);
    net.link(0, 3);
    net.start_all();
    net.seconds(2);
    net.announce(2, "10.65.2.0/24");
    net.announce(1, "10.65.1.0/24");
    net.seconds(1);
    assert!(net.has(1, "10.65.2.0/24"));
    assert!(!net.has(3, "10.65.2.0/24"));
    assert!(net.has(2, "10.65.1.0/24") && net.has(3, "10.65.1.0/24"));
    // A peer becomes a client without a new session.
    net.peer(0, 3, |peer| peer.reflector_client = true);
    net.seconds(1);
    assert!(net.has(3, "10.65.2.0/24"));
    assert_eq!(net.status(0, 3).counters.flaps, 0);
    net.announce(3, "10.65.3.0/24");
    net.peer(0, 3, |peer| peer.reflector_client = false);
    net.seconds(1);
    assert!(!net.has(3, "10.65.2.0/24"));
    assert!(!net.has(2, "10.65.3.0/24") && net.has(1, "10.65.3.0/24"));
}

#[test]
fn an_address_of_several_clients_changes_hands() {
    let mut net = Net::new(1);
    for _ in 0..4 {
        net.add(64512);
    }
    for client in 1..4 {
        net.link_with(0, client, |here, peer| peer.reflector_client = here == 0);
    }
    net.start_all();
    net.seconds(2);
    let address = "10.96.0.1/32";
    let heard = |net: &mut Net, client: usize| {
        let routes = net.speaker(client).received_routes("n0").unwrap();
        routes
            .iter()
            .map(|route| route.attributes.next_hop.to_string())
            .collect::<Vec<_>>()
    };
    net.announce(2, address);
    net.seconds(1);
    assert_eq!(heard(&mut net, 1), ["10.0.0.3"]);
    // The better one takes over; whose route it is must forget the other's.
    net.announce(1, address);
    net.seconds(1);
    assert_eq!(heard(&mut net, 2), ["10.0.0.2"]);
    assert_eq!(heard(&mut net, 3), ["10.0.0.2"]);
    assert!(heard(&mut net, 1).is_empty());
    net.withdraw(1, address);
    net.seconds(1);
    assert_eq!(heard(&mut net, 1), ["10.0.0.3"]);
    assert_eq!(heard(&mut net, 3), ["10.0.0.3"]);
    assert!(heard(&mut net, 2).is_empty());
}
