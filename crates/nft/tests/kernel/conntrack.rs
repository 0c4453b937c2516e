use std::net::{IpAddr, SocketAddr, UdpSocket};

use margay_nft::Conntrack;

use crate::fixture::TestNamespace;

/// Tracks connections, and translates one destination.
const TRACKING: &str = "
    table inet t {
        chain c { type filter hook output priority 0; ct state new accept; }
        chain n {
            type nat hook output priority -100;
            ip daddr 10.9.9.9 dnat ip to 127.0.0.3
        }
    }";

fn tracking() -> TestNamespace {
    let namespace = TestNamespace::new();
    namespace.nft(TRACKING);
    namespace.run("ip address add 10.9.9.9/32 dev lo");
    namespace.run("ip address add 2001:db8::2/128 dev lo nodad");
    namespace
}

/// Sends a datagram, so that there is an entry.
fn send(namespace: &TestNamespace, from: &str, to: &str) {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let send = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0)).unwrap();
        socket.send_to(b"x", SocketAddr::new(to, 4000)).unwrap();
    };
    namespace.namespace.run(send).unwrap();
}

fn addresses(addresses: &[&str]) -> Vec<IpAddr> {
    addresses
        .iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

#[test]
fn entries_of_an_address_are_forgotten_in_whatever_place_it_stands() {
    let namespace = tracking();
    send(&namespace, "127.0.0.1", "127.0.0.2");
    send(&namespace, "127.0.0.2", "127.0.0.4");
    send(&namespace, "127.0.0.1", "127.0.0.4");
    let mut conntrack = Conntrack::open(&namespace.namespace).unwrap();
    assert_eq!(conntrack.forget(&addresses(&["127.0.0.2"])).unwrap(), 2);
    assert_eq!(conntrack.forget(&addresses(&["127.0.0.2"])).unwrap(), 0);
    let left = conntrack.flows(&addresses(&["127.0.0.4"])).unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].original.source, addresses(&["127.0.0.1"])[0]);
    assert_eq!(left[0].original.protocol, 17);
    assert_eq!(left[0].original.destination_port, Some(4000));
}

#[test]
fn a_translated_connection_is_found_by_either_address() {
    let namespace = tracking();
    let mut conntrack = Conntrack::open(&namespace.namespace).unwrap();
    for address in ["10.9.9.9", "127.0.0.3"] {
        send(&namespace, "127.0.0.1", "10.9.9.9");
        let flows = conntrack.flows(&addresses(&[address])).unwrap();
        assert_eq!(flows.len(), 1, "{address}");
        assert_eq!(flows[0].reply.source, addresses(&["127.0.0.3"])[0]);
        assert_eq!(conntrack.delete(&flows).unwrap(), 1);
        assert_eq!(conntrack.delete(&flows).unwrap(), 0);
    }
}

#[test]
fn both_families_and_long_lists() {
    let namespace = tracking();
    send(&namespace, "2001:db8::2", "::1");
    let mut gone = addresses(&["2001:db8::2"]);
    for last in 10..60 {
        let address = format!("127.0.0.{last}");
        send(&namespace, "127.0.0.1", &address);
        gone.push(address.parse().unwrap());
    }
    send(&namespace, "127.0.0.1", "127.0.0.99");
    let mut conntrack = Conntrack::open(&namespace.namespace).unwrap();
    assert_eq!(conntrack.forget(&gone).unwrap(), 51);
    assert_eq!(
        conntrack.flows(&addresses(&["127.0.0.1"])).unwrap().len(),
        1
    );
}

/// Of a long table only what is asked for is read, wherever the address stands.
#[test]
fn a_long_table() {
    let namespace = tracking();
    let fill = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in 10_000..15_000 {
            // Nobody listens; the answers to what was sent before are errors of this socket.
            while socket.send_to(b"x", ("127.0.0.5", port)).is_err() {}
        }
    };
    namespace.namespace.run(fill).unwrap();
    send(&namespace, "127.0.0.1", "127.0.0.2");
    send(&namespace, "127.0.0.2", "127.0.0.4");
    send(&namespace, "127.0.0.1", "10.9.9.9");
    let mut conntrack = Conntrack::open(&namespace.namespace).unwrap();
    assert_eq!(conntrack.forget(&addresses(&["127.0.0.2"])).unwrap(), 2);
    assert_eq!(conntrack.forget(&addresses(&["127.0.0.3"])).unwrap(), 1);
    assert_eq!(conntrack.forget(&addresses(&["127.0.0.2"])).unwrap(), 0);
    let left = conntrack.flows(&addresses(&["127.0.0.5"])).unwrap();
    assert_eq!(left.len(), 5_000);
}
