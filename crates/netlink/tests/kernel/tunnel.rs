//! Tunnels' devices and forwarding entries in a real kernel; MTUs of pairs.

use margay_netlink::{Namespaces, Netlink, endpoint, table, tunnel};
use margay_route::{
    Desired, FdbEntry, Mac, Neighbour, NextHop, Ownership, PROTOCOL, Route, TABLE_MAIN, VXLAN_V4,
    VXLAN_V6, Vxlan, plan, plan_vxlan, vtep_mac,
};

use crate::fixture::{self, TestNamespace};

fn host() -> TestNamespace {
    let host = TestNamespace::new();
    host.ip("link add up0 type veth peer name up0p");
    host.ip("link set up0p up");
    host.ip("link set up0 up");
    host.ip("addr add 192.0.2.1/24 dev up0");
    host.ip("addr add 2001:db8:f::1/64 dev up0 nodad");
    host
}

fn devices() -> Vec<Vxlan> {
    let device = |name: &str, local: &str, address: &str| Vxlan {
        name: name.to_owned(),
        vni: 4096,
        port: 4789,
        parent: "up0".to_owned(),
        local: local.parse().unwrap(),
        mac: vtep_mac("n1", name == VXLAN_V4),
        mtu: 1400,
        address: address.parse().unwrap(),
    };
    vec![
        device(VXLAN_V4, "192.0.2.1", "10.65.0.1"),
        device(VXLAN_V6, "2001:db8:f::1", "2001:db8:65::1"),
    ]
}

async fn reach(netlink: &Netlink, wanted: &[Vxlan]) -> usize {
    let observed = tunnel::observe(&netlink.interfaces().await.unwrap());
    let steps = plan_vxlan(wanted, &observed);
    for step in &steps {
        tunnel::apply(netlink, step).await.unwrap();
    }
    steps.len()
}

#[tokio::test]
async fn devices_are_made_changed_and_removed() {
    let host = host();
    let netlink = host.netlink();
    let mut wanted = devices();
    assert_eq!(reach(&netlink, &wanted).await, 4);
    assert_eq!(reach(&netlink, &wanted).await, 0);
    let shown = host.ip("-d link show vxlan.calico");
    for part in [
        "vxlan id 4096 local 192.0.2.1 dev up0",
        "dstport 4789",
        "nolearning",
        "mtu 1400",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    // In place: MTU, MAC address, address.
    wanted[0].mtu = 1300;
    wanted[0].mac = Mac([0x66, 9, 9, 9, 9, 9]);
    wanted[1].address = "2001:db8:65::9".parse().unwrap();
    let index = |shown: &str| shown.split(':').next().unwrap().to_owned();
    assert_eq!(reach(&netlink, &wanted).await, 3);
    assert_eq!(reach(&netlink, &wanted).await, 0);
    let changed = host.ip("-d link show vxlan.calico");
    assert_eq!(index(&shown), index(&changed));
    // Anew: the port.
    wanted[0].port = 8472;
    assert_eq!(reach(&netlink, &wanted).await, 3);
    assert_ne!(index(&shown), index(&host.ip("-d link show vxlan.calico")));
    assert_eq!(reach(&netlink, &[]).await, 2);
    assert!(!host.ip("link").contains("vxlan"));
}

#[tokio::test]
async fn entries_lead_to_the_other_node() {
    let host = host();
    let netlink = host.netlink();
    reach(&netlink, &devices()).await;
    let interfaces = netlink.interfaces().await.unwrap();
    let mut desired = Desired::default();
    for (name, vtep, node, block) in [
        (VXLAN_V4, "10.65.1.1", "192.0.2.2", "10.65.1.0/26"),
        (
            VXLAN_V6,
            "2001:db8:66::1",
            "2001:db8:f::2",
            "2001:db8:66::/122",
        ),
    ] {
        let mac = vtep_mac("n2", name == VXLAN_V4);
        let gateway = vtep.parse().unwrap();
        desired.insert_neighbour(Neighbour::permanent(gateway, mac, name));
        desired.insert_fdb(FdbEntry {
            interface: name.to_owned(),
            mac,
            destination: node.parse().unwrap(),
        });
        let hop = NextHop {
            gateway: Some(gateway),
            interface: name.to_owned(),
            onlink: true,
            weight: 1,
        };
        let route = Route::multipath(block.parse().unwrap(), vec![hop], PROTOCOL);
        desired.insert_route(route).unwrap();
    }
    let ownership = Ownership {
        tunnels: [VXLAN_V4, VXLAN_V6].map(str::to_owned).into(),
        ..Ownership::default()
    };
    let pass = async |desired: &Desired| {
        let observed = table::observe(&netlink, Some(TABLE_MAIN), &interfaces)
            .await
            .unwrap();
        let steps = plan(desired, &observed, &ownership);
        let outcome = table::apply(&netlink, &steps, &interfaces).await;
        assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
        steps.steps.len()
    };
    assert_eq!(pass(&desired).await, 6);
    assert_eq!(pass(&desired).await, 0);
    let (_, fdb) = host.try_run("bridge fdb show dev vxlan.calico");
    let mac = vtep_mac("n2", true);
    assert!(
        fdb.contains(&format!("{mac} dst 192.0.2.2 self permanent")),
        "{fdb}"
    );
    let (_, fdb) = host.try_run("bridge fdb show dev vxlan-v6.calico");
    assert!(fdb.contains("dst 2001:db8:f::2 self permanent"), "{fdb}");
    let route = host.ip("route get 10.65.1.9");
    assert!(
        route.contains("via 10.65.1.1 dev vxlan.calico src 10.65.0.1"),
        "{route}"
    );
    assert_eq!(pass(&Desired::default()).await, 6);
    let (_, fdb) = host.try_run("bridge fdb show dev vxlan.calico");
    assert!(!fdb.contains("192.0.2.2"), "{fdb}");
}

#[tokio::test]
async fn the_mtu_of_a_pair_is_set_at_both_ends() {
    let (host, container) = (TestNamespace::new(), TestNamespace::new());
    let netlink = host.netlink();
    let plan = fixture::plan(1, &["10.65.0.2"]);
    endpoint::setup(&plan, &netlink, &container.namespace)
        .await
        .unwrap();
    for mtu in [1400, 1430] {
        let link = netlink.link("cali1").await.unwrap().unwrap();
        let namespaces = Namespaces::find(&netlink).await;
        namespaces.set_mtu(&netlink, &link, mtu).await.unwrap();
        for shown in [host.ip("link show cali1"), container.ip("link show eth0")] {
            assert!(shown.contains(&format!("mtu {mtu}")), "{shown}");
        }
    }
}
