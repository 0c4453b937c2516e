//! Route plans on a real table.

use ipnetwork::IpNetwork;
use margay_netlink::{Netlink, RouteFilter, table};
use margay_route::{
    Desired, Mac, Neighbour, NextHop, Ownership, PROTOCOL, PROTOCOL_BOOT, Plan, Route, RouteKind,
    Step, TABLE_MAIN, plan,
};

use crate::fixture::TestNamespace;

/// A host with an uplink `up0` (192.0.2.1/24, 2001:db8:f::1/64) and two workload interfaces.
fn host() -> TestNamespace {
    let host = TestNamespace::new();
    for (name, peer) in [("up0", "up0p"), ("cali1", "cali1p"), ("cali2", "cali2p")] {
        host.ip(&format!("link add {name} type veth peer name {peer}"));
        host.set_sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0");
        host.ip(&format!("link set {peer} up"));
        host.ip(&format!("link set {name} up"));
    }
    host.ip("addr add 192.0.2.1/24 dev up0");
    host.ip("addr add 2001:db8:f::1/64 dev up0 nodad");
    host
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn hop(gateway: &str, interface: &str, onlink: bool, weight: u16) -> NextHop {
    NextHop {
        gateway: Some(gateway.parse().unwrap()),
        interface: interface.to_owned(),
        onlink,
        weight,
    }
}

fn desired() -> Desired {
    let mut desired = Desired::default();
    let up =
        |dst: &str, gateway: &str| Route::via(net(dst), gateway.parse().unwrap(), "up0", PROTOCOL);
    let routes = [
        Route::blackhole(net("10.65.0.0/26"), PROTOCOL),
        Route::blackhole(net("2001:db8:65::/122"), PROTOCOL),
        Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL),
        Route::on_link(net("2001:db8:65::2/128"), "cali1", PROTOCOL),
        up("10.66.0.0/26", "192.0.2.2"),
        up("2001:db8:66::/122", "2001:db8:f::2"),
        Route {
            metric: 7,
            ..up("10.66.0.0/26", "192.0.2.3")
        },
        Route {
            src: Some("192.0.2.1".parse().unwrap()),
            ..up("10.67.0.0/26", "192.0.2.2")
        },
        Route {
            table: 1000,
            ..up("10.68.0.0/26", "192.0.2.2")
        },
        Route {
            kind: RouteKind::Unreachable,
            ..Route::blackhole(net("10.69.0.0/26"), PROTOCOL)
        },
        // A gateway that no address puts on the link.
        Route::multipath(
            net("10.70.0.0/26"),
            vec![hop("203.0.113.9", "up0", true, 1)],
            PROTOCOL,
        ),
        Route::multipath(
            net("10.71.0.0/26"),
            vec![
                hop("192.0.2.2", "up0", false, 1),
                hop("192.0.2.3", "up0", false, 3),
            ],
            PROTOCOL,
        ),
        Route::multipath(
            net("2001:db8:71::/64"),
            vec![
                hop("2001:db8:f::2", "up0", false, 1),
                hop("2001:db8:f::3", "up0", false, 3),
            ],
            PROTOCOL,
        ),
        Route::multipath(
            net("2001:db8:70::/64"),
            vec![hop("2001:db8:e::9", "up0", true, 1)],
            PROTOCOL,
        ),
    ];
    for route in routes {
        desired.insert_route(route).unwrap();
    }
    let mac = Mac::local([0, 0, 0, 0, 0, 9]);
    for address in ["10.65.0.2", "2001:db8:65::2"] {
        desired.insert_neighbour(Neighbour::permanent(address.parse().unwrap(), mac, "cali1"));
        desired.insert_neighbour(Neighbour::proxy(address.parse().unwrap(), "cali2"));
    }
    desired
}

async fn planned(netlink: &Netlink, desired: &Desired) -> Plan {
    let interfaces = netlink.interfaces().await.unwrap();
    let observed = table::observe(netlink, None, &interfaces).await.unwrap();
    plan(desired, &observed, &Ownership::default())
}

async fn applied(netlink: &Netlink, desired: &Desired) -> usize {
    let interfaces = netlink.interfaces().await.unwrap();
    let plan = planned(netlink, desired).await;
    let outcome = table::apply(netlink, &plan, &interfaces).await;
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!(outcome.changes, plan.steps.len());
    outcome.changes
}

#[tokio::test]
async fn a_plan_applied_twice_changes_nothing_the_second_time() {
    let host = host();
    let netlink = host.netlink();
    let wanted = desired();
    let count = wanted.routes().count() + wanted.neighbours().count();
    assert_eq!(applied(&netlink, &wanted).await, count);
    let again = planned(&netlink, &wanted).await;
    assert_eq!(again, Plan::default());
    let shown = host.ip("route show proto 80");
    assert!(shown.contains("blackhole 10.65.0.0/26"), "{shown}");
    assert!(
        shown.contains("10.70.0.0/26 via 203.0.113.9 dev up0 onlink"),
        "{shown}"
    );
    assert!(host.ip("route show table 1000").contains("10.68.0.0/26"));
    assert!(host.ip("neigh show dev cali1").contains("PERMANENT"));
}

#[tokio::test]
async fn wanting_nothing_removes_ours_and_nothing_else() {
    let host = host();
    let netlink = host.netlink();
    host.ip("route add 10.80.0.0/16 via 192.0.2.9");
    host.ip("route add blackhole 10.81.0.0/16 proto static");
    host.ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:99 dev up0 nud permanent");
    let before = host.snapshot();
    applied(&netlink, &desired()).await;
    host.ip("route add 10.65.0.9 dev cali2 proto boot");
    applied(&netlink, &Desired::default()).await;
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn changed_routes_are_replaced_in_place() {
    let host = host();
    let netlink = host.netlink();
    applied(&netlink, &desired()).await;
    let mut changed = desired();
    for (dst, gateways) in [
        ("10.66.0.0/26", vec!["192.0.2.3", "192.0.2.4"]),
        ("10.71.0.0/26", vec!["192.0.2.5"]),
        ("10.65.0.0/26", vec!["192.0.2.5"]),
        ("2001:db8:66::/122", vec!["2001:db8:f::3", "2001:db8:f::4"]),
        ("2001:db8:71::/64", vec!["2001:db8:f::5"]),
        ("2001:db8:65::/122", vec!["2001:db8:f::5"]),
    ] {
        let hops = gateways
            .into_iter()
            .map(|gateway| hop(gateway, "up0", false, 1))
            .collect();
        changed
            .insert_route(Route::multipath(net(dst), hops, PROTOCOL))
            .unwrap();
    }
    let plan = planned(&netlink, &changed).await;
    assert_eq!(plan.steps.len(), 6);
    assert!(
        plan.steps
            .iter()
            .all(|step| matches!(step, Step::ReplaceRoute { .. })),
        "{plan:?}"
    );
    applied(&netlink, &changed).await;
    assert_eq!(planned(&netlink, &changed).await, Plan::default());
}

#[tokio::test]
async fn a_plugins_route_is_adopted() {
    let host = host();
    let netlink = host.netlink();
    host.ip("route add 10.65.0.2 dev cali1 proto boot scope link");
    let mut wanted = Desired::default();
    wanted
        .insert_route(Route::on_link(net("10.65.0.2/32"), "cali1", PROTOCOL))
        .unwrap();
    assert_eq!(applied(&netlink, &wanted).await, 1);
    assert_eq!(
        host.ip("route show 10.65.0.2").trim(),
        "10.65.0.2 dev cali1 proto 80 scope link"
    );
    assert_ne!(PROTOCOL, PROTOCOL_BOOT);
}

#[tokio::test]
async fn a_failing_step_does_not_stop_the_others() {
    let host = host();
    let netlink = host.netlink();
    let mut wanted = Desired::default();
    let unreachable = "198.51.100.1".parse().unwrap();
    wanted
        .insert_route(Route::via(
            net("10.65.1.0/24"),
            unreachable,
            "up0",
            PROTOCOL,
        ))
        .unwrap();
    wanted
        .insert_route(Route::on_link(net("10.65.2.0/24"), "nowhere", PROTOCOL))
        .unwrap();
    wanted
        .insert_route(Route::via(
            net("10.65.3.0/24"),
            "192.0.2.2".parse().unwrap(),
            "up0",
            PROTOCOL,
        ))
        .unwrap();
    let interfaces = netlink.interfaces().await.unwrap();
    let plan = planned(&netlink, &wanted).await;
    let outcome = table::apply(&netlink, &plan, &interfaces).await;
    assert_eq!(
        (outcome.changes, outcome.failures.len()),
        (1, 2),
        "{outcome:?}"
    );
    let messages: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
    assert!(
        messages.contains(&"interface nowhere does not exist".to_owned()),
        "{messages:?}"
    );
    let refused = outcome
        .failures
        .iter()
        .find(|error| error.errno().is_some())
        .unwrap();
    assert_eq!(
        refused.to_string(),
        "adding the route to 10.65.1.0/24 over up0"
    );
    let reason = std::error::Error::source(refused).unwrap().to_string();
    assert!(reason.contains("Nexthop has invalid gateway"), "{reason}");
}

#[tokio::test]
async fn listing_is_filtered_by_table_and_interface() {
    let host = host();
    let netlink = host.netlink();
    applied(&netlink, &desired()).await;
    let interfaces = netlink.interfaces().await.unwrap();
    let list = async |table, interface| {
        netlink
            .routes(RouteFilter { table, interface }, &interfaces)
            .await
            .unwrap()
    };
    let other = list(Some(1000), None).await;
    assert_eq!(other.len(), 1);
    assert_eq!(list(Some(4242), None).await, Vec::new());
    let cali1 = interfaces.by_name("cali1").unwrap().index;
    let ours = list(Some(TABLE_MAIN), Some(cali1)).await;
    assert_eq!(
        ours.iter()
            .filter(|route| route.protocol == PROTOCOL)
            .count(),
        2,
        "{ours:?}"
    );
    assert!(
        ours.iter()
            .all(|route| route.interfaces().all(|name| name == "cali1"))
    );
}

/// So many blocks by way of the uplink, as in a cluster of a thousand nodes and more.
fn blocks(count: u32) -> Desired {
    let mut desired = Desired::default();
    for number in 0..count {
        let address = std::net::Ipv4Addr::from(0x0a80_0000 + (number << 6));
        let dst = net(&format!("{address}/26"));
        let route = Route::via(dst, "192.0.2.2".parse().unwrap(), "up0", PROTOCOL);
        desired.insert_route(route).unwrap();
    }
    desired
}

#[tokio::test]
async fn forty_thousand_routes_go_in_and_out_in_one_plan() {
    const COUNT: u32 = 40_000;
    let host = host();
    let netlink = host.netlink();
    let interfaces = netlink.interfaces().await.unwrap();
    let ownership = Ownership::default();
    for desired in [blocks(COUNT), Desired::default()] {
        let observed = table::observe(&netlink, Some(TABLE_MAIN), &interfaces)
            .await
            .unwrap();
        let plan = plan(&desired, &observed, &ownership);
        assert_eq!(plan.steps.len(), COUNT as usize);
        let began = std::time::Instant::now();
        let outcome = table::apply(&netlink, &plan, &interfaces).await;
        println!("{} steps in {:?}", outcome.changes, began.elapsed());
        assert_eq!(outcome.changes, COUNT as usize);
        assert!(outcome.failures.is_empty());
    }
    let observed = table::observe(&netlink, Some(TABLE_MAIN), &interfaces)
        .await
        .unwrap();
    assert!(
        observed
            .routes
            .iter()
            .all(|route| route.protocol != PROTOCOL)
    );
}

#[tokio::test]
async fn refusals_amid_many_steps_are_told_one_by_one() {
    let host = host();
    let netlink = host.netlink();
    let interfaces = netlink.interfaces().await.unwrap();
    let mut steps = Vec::new();
    for route in blocks(300).routes() {
        steps.push(Step::AddRoute(route.clone()));
    }
    // No link leads to this gateway.
    let gateway = "203.0.113.1".parse().unwrap();
    let far = |text: &str| Step::AddRoute(Route::via(net(text), gateway, "up0", PROTOCOL));
    steps.insert(5, far("10.1.0.0/26"));
    steps.insert(200, far("10.1.0.64/26"));
    steps.push(far("10.1.0.128/26"));
    let plan = Plan {
        steps,
        conflicts: Vec::new(),
    };
    let outcome = table::apply(&netlink, &plan, &interfaces).await;
    assert_eq!(outcome.changes, 300);
    let told: Vec<String> = outcome.failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "adding the route to 10.1.0.0/26 over up0",
            "adding the route to 10.1.0.64/26 over up0",
            "adding the route to 10.1.0.128/26 over up0",
        ]
    );
}
