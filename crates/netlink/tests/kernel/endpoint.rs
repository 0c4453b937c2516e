//! Endpoints: they work at once, leave nothing, and harm nobody.

use std::time::{Duration, Instant};

use margay_endpoint::{End, EndpointPlan, EndpointSpec, Mark, Problem, verify};
use margay_netlink::endpoint::{Removal, observe, setup, setup_unplaced, teardown};
use margay_netlink::{Error, Interfaces, table};
use margay_route::{Desired, Observed, Ownership, PROTOCOL, gateway_answer};

use crate::fixture::{TestNamespace, plan, spec};

/// Two pods on one host, of the given families; each reaches the host and the other at once.
async fn two_pods(first: &[&str], second: &[&str], on_host: &[&str]) {
    let (host, one, two) = (
        TestNamespace::new(),
        TestNamespace::new(),
        TestNamespace::new(),
    );
    for address in on_host {
        host.ip(&format!("addr add {address} dev lo"));
    }
    // The agent's part: the kernel forwards IPv6 only if told so for all interfaces.
    host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let netlink = host.netlink();
    let before = Instant::now();
    let applied = setup(&plan(1, first), &netlink, &one.namespace)
        .await
        .unwrap();
    setup(&plan(2, second), &netlink, &two.namespace)
        .await
        .unwrap();
    // Duplicate address detection takes at least a second.
    assert!(
        before.elapsed() < Duration::from_millis(900),
        "{:?}",
        before.elapsed()
    );
    for address in second.iter().chain(on_host) {
        assert!(one.pings(address), "{address} from the first pod");
    }
    for address in first {
        assert!(two.pings(address), "{address} from the second pod");
        assert!(host.pings(address), "{address} from the host");
    }
    assert_eq!(host.ip("-6 addr show tentative"), "");
    // The container's own link-local address is the kernel's affair; ours wait for nothing.
    assert_eq!(one.ip("-6 addr show tentative scope global"), "");
    let inside = one.netlink().link("eth0").await.unwrap().unwrap();
    assert_eq!(inside.index, applied.container_ifindex);
    assert_eq!((inside.mac, inside.mtu), (Some(applied.mac), 1450));
    let outside = netlink.link("cali1").await.unwrap().unwrap();
    assert_eq!(outside.index, applied.host_ifindex);
    assert_eq!(
        outside.alias.as_deref(),
        Some("margay:test/container1/eth0")
    );
    assert_eq!(outside.mac.unwrap().to_string(), "ee:ee:ee:ee:ee:ee");
}

#[tokio::test]
async fn v4_pods_reach_the_host_and_each_other() {
    two_pods(&["10.65.0.2"], &["10.65.0.3"], &["192.0.2.1"]).await;
}

#[tokio::test]
async fn v6_pods_reach_the_host_and_each_other() {
    two_pods(&["2001:db8::2"], &["2001:db8::3"], &["2001:db8:1::1"]).await;
}

#[tokio::test]
async fn dual_stack_pods_reach_the_host_and_each_other() {
    let first = ["10.65.0.2", "2001:db8::2"];
    let second = ["10.65.0.3", "2001:db8::3"];
    two_pods(&first, &second, &["192.0.2.1", "2001:db8:1::1"]).await;
}

#[tokio::test]
async fn kernel_settings_are_those_of_the_plan_and_loopback_stays_closed() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    pod.set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let rp_filter = host.sysctl("net/ipv4/conf/default/rp_filter");
    let plan = plan(1, &["10.65.0.2", "2001:db8::2"]);
    setup(&plan, &host.netlink(), &pod.namespace).await.unwrap();
    for (side, namespace) in [(&plan.host, &host), (&plan.container, &pod)] {
        for sysctl in &side.sysctls {
            assert_eq!(
                namespace.sysctl(&sysctl.path),
                sysctl.value,
                "{}",
                sysctl.path
            );
        }
    }
    assert_eq!(host.sysctl("net/ipv4/conf/cali1/route_localnet"), "0");
    assert_eq!(host.sysctl("net/ipv4/conf/cali1/rp_filter"), rp_filter);
    let addresses = host.ip("-o -6 addr show dev cali1");
    assert_eq!(addresses.lines().count(), 1, "{addresses}");
    assert!(
        addresses.contains("fe80::ecee:eeff:feee:eeee/64 scope link nodad"),
        "{addresses}"
    );
}

#[tokio::test]
async fn a_v4_endpoint_leaves_the_host_end_without_ipv6() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    setup(&plan(1, &["10.65.0.2"]), &host.netlink(), &pod.namespace)
        .await
        .unwrap();
    assert_eq!(host.ip("-o -6 addr show dev cali1"), "");
    assert_eq!(host.sysctl("net/ipv6/conf/cali1/accept_ra"), "0");
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
}

#[tokio::test]
async fn forwarding_inside_is_set_as_asked() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let spec = EndpointSpec {
        allow_ip_forwarding: true,
        ..spec(1, &["10.65.0.2"])
    };
    let plan = EndpointPlan::new(&spec).unwrap();
    setup(&plan, &host.netlink(), &pod.namespace).await.unwrap();
    assert_eq!(pod.sysctl("net/ipv4/ip_forward"), "1");
}

#[tokio::test]
async fn teardown_leaves_nothing_and_can_be_repeated() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let (host_before, pod_before) = (host.snapshot(), pod.snapshot());
    let netlink = host.netlink();
    let plan = plan(1, &["10.65.0.2", "2001:db8::2"]);
    setup(&plan, &netlink, &pod.namespace).await.unwrap();
    assert_ne!(host.snapshot(), host_before);
    let mark = &plan.veth.mark;
    assert_eq!(
        teardown(&netlink, "cali1", mark).await.unwrap(),
        Removal::Removed
    );
    assert_eq!(
        teardown(&netlink, "cali1", mark).await.unwrap(),
        Removal::Absent
    );
    assert_eq!(host.snapshot(), host_before);
    assert_eq!(pod.snapshot(), pod_before);
}

#[tokio::test]
async fn teardown_spares_another_endpoints_interface() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let netlink = host.netlink();
    setup(&plan(1, &["10.65.0.2"]), &netlink, &pod.namespace)
        .await
        .unwrap();
    let earlier = Mark::new("test", "an-earlier-sandbox", "eth0");
    let alias = "margay:test/container1/eth0".to_owned();
    assert_eq!(
        teardown(&netlink, "cali1", &earlier).await.unwrap(),
        Removal::Foreign { alias }
    );
    assert!(pod.pings("10.65.0.2"));
}

#[tokio::test]
async fn a_foreign_container_interface_is_an_error_and_stays() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    pod.ip("link add eth0 type veth peer name other");
    pod.ip("addr add 192.0.2.7/24 dev eth0");
    let (host_before, pod_before) = (host.snapshot(), pod.snapshot());
    for _ in 0..2 {
        let result = setup(&plan(1, &["10.65.0.2"]), &host.netlink(), &pod.namespace).await;
        assert!(matches!(result, Err(Error::InterfaceExists { name }) if name == "eth0"));
    }
    assert_eq!(host.snapshot(), host_before);
    assert_eq!(pod.snapshot(), pod_before);
}

#[tokio::test]
async fn a_second_endpoint_in_the_same_container_is_an_error() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let netlink = host.netlink();
    setup(&plan(1, &["10.65.0.2"]), &netlink, &pod.namespace)
        .await
        .unwrap();
    let before = host.snapshot();
    let result = setup(&plan(2, &["10.65.0.3"]), &netlink, &pod.namespace).await;
    assert!(
        matches!(result, Err(Error::InterfaceExists { .. })),
        "{result:?}"
    );
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn another_endpoints_host_interface_is_an_error_and_stays() {
    let (host, one, two) = (
        TestNamespace::new(),
        TestNamespace::new(),
        TestNamespace::new(),
    );
    let netlink = host.netlink();
    setup(&plan(1, &["10.65.0.2"]), &netlink, &one.namespace)
        .await
        .unwrap();
    let before = host.snapshot();
    let mark = Mark::new("test", "someone-else", "eth0");
    let spec = EndpointSpec {
        mark,
        ..spec(1, &["10.65.0.3"])
    };
    let result = setup(&EndpointPlan::new(&spec).unwrap(), &netlink, &two.namespace).await;
    let Err(Error::HostInterfaceExists { name, alias }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(name, "cali1");
    assert_eq!(alias.as_deref(), Some("margay:test/container1/eth0"));
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn an_unmarked_interface_of_another_kind_or_name_stays() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    host.ip("link add tap1 type veth peer name tap2");
    let before = host.snapshot();
    let spec = EndpointSpec {
        host_name: "tap1".to_owned(),
        ..spec(1, &["10.65.0.2"])
    };
    let plan = EndpointPlan::new(&spec).unwrap();
    let result = setup(&plan, &host.netlink(), &pod.namespace).await;
    assert!(
        matches!(result, Err(Error::HostInterfaceExists { alias: None, .. })),
        "{result:?}"
    );
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn the_same_endpoint_can_be_set_up_again() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    host.ip("addr add 192.0.2.1 dev lo");
    host.ip("addr add 2001:db8:1::1 dev lo");
    let netlink = host.netlink();
    let plan = plan(1, &["10.65.0.2", "2001:db8::2"]);
    let first = setup(&plan, &netlink, &pod.namespace).await.unwrap();
    let second = setup(&plan, &netlink, &pod.namespace).await.unwrap();
    assert_ne!(first.host_ifindex, second.host_ifindex);
    assert!(host.pings("10.65.0.2") && host.pings("2001:db8::2"));
}

#[tokio::test]
async fn what_a_killed_attempt_or_calico_left_is_replaced() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    host.ip("addr add 192.0.2.1 dev lo");
    host.ip("addr add 2001:db8:1::1 dev lo");
    let netlink = host.netlink();
    // Killed between the creating message and the mark: both ends are there, unmarked.
    let path = pod.path().file_name().unwrap().to_str().unwrap().to_owned();
    host.ip(&format!(
        "link add cali1 type veth peer name eth0 netns {path}"
    ));
    setup(&plan(1, &["10.65.0.2"]), &netlink, &pod.namespace)
        .await
        .unwrap();
    assert!(host.pings("10.65.0.2"));
    // The same under another prefix: known by the gateway's MAC.
    let three = TestNamespace::new();
    let path = three
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    host.ip(&format!(
        "link add tap3 address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {path}"
    ));
    let spec = EndpointSpec {
        host_name: "tap3".to_owned(),
        ..spec(3, &["10.65.0.4"])
    };
    let tap = EndpointPlan::new(&spec).unwrap();
    setup(&tap, &netlink, &three.namespace).await.unwrap();
    assert!(host.pings("10.65.0.4"));
    // A stale pair whose other end is elsewhere.
    host.ip("link add cali2 type veth peer name stale");
    let two = TestNamespace::new();
    setup(&plan(2, &["10.65.0.3"]), &netlink, &two.namespace)
        .await
        .unwrap();
    assert!(host.pings("10.65.0.3"));
}

#[tokio::test]
async fn a_taken_host_route_names_its_holder_and_is_rolled_back() {
    let (host, one, two) = (
        TestNamespace::new(),
        TestNamespace::new(),
        TestNamespace::new(),
    );
    let netlink = host.netlink();
    setup(
        &plan(1, &["10.65.0.2", "2001:db8::2"]),
        &netlink,
        &one.namespace,
    )
    .await
    .unwrap();
    let (host_before, two_before) = (host.snapshot(), two.snapshot());
    for address in ["10.65.0.2", "2001:db8::2"] {
        // Once more than needed: the rollback leaves nothing that stands in the next one's way.
        let _ = setup(&plan(2, &[address]), &netlink, &two.namespace).await;
        let result = setup(&plan(2, &[address]), &netlink, &two.namespace).await;
        let Err(Error::RouteConflict {
            dst,
            ifname,
            holder,
        }) = result
        else {
            panic!("{result:?}");
        };
        assert_eq!(dst.ip().to_string(), address);
        assert_eq!((ifname.as_str(), holder.as_str()), ("cali2", "cali1"));
        assert_eq!(host.snapshot(), host_before);
        assert_eq!(two.snapshot(), two_before);
    }
}

#[tokio::test]
async fn a_host_route_without_an_interface_is_a_conflict_too() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    host.ip("route add blackhole 10.65.0.2");
    let before = host.snapshot();
    let result = setup(&plan(1, &["10.65.0.2"]), &host.netlink(), &pod.namespace).await;
    assert_eq!(
        result.unwrap_err().to_string(),
        "the host's route to 10.65.0.2/32 over cali1 cannot be added: a route without an \
         interface has it"
    );
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn a_failing_step_is_rolled_back() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let before = host.snapshot();
    let mut plan = plan(1, &["10.65.0.2"]);
    plan.host.sysctls[0].path = "net/ipv4/conf/cali1/no_such_setting".to_owned();
    let result = setup(&plan, &host.netlink(), &pod.namespace).await;
    assert!(matches!(result, Err(Error::Sysctl { .. })), "{result:?}");
    assert_eq!(host.snapshot(), before);
}

#[tokio::test]
async fn check_finds_what_is_missing() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let netlink = host.netlink();
    let plan = plan(1, &["10.65.0.2", "2001:db8::2"]);
    setup(&plan, &netlink, &pod.namespace).await.unwrap();
    let expected = plan.expected();
    let problems = async || {
        let observed = observe(&netlink, &pod.namespace, &expected).await.unwrap();
        verify(&expected, &observed)
    };
    assert_eq!(problems().await, Vec::new());
    host.ip("route del 10.65.0.2");
    host.ip("neigh del 2001:db8::2 dev cali1");
    pod.ip("-6 route del default");
    pod.ip("addr del 10.65.0.2/32 dev eth0");
    let found = problems().await;
    let count = |f: fn(&Problem) -> bool| found.iter().filter(|problem| f(problem)).count();
    let host_neighbour = Problem::NeighbourMissing {
        end: End::Host,
        name: "cali1".to_owned(),
        address: "2001:db8::2".parse().unwrap(),
    };
    assert!(found.contains(&host_neighbour), "{found:?}");
    // With its only IPv4 address the kernel takes the container's IPv4 routes away too.
    assert_eq!(
        count(|p| matches!(p, Problem::RouteMissing { .. })),
        4,
        "{found:?}"
    );
    assert_eq!(
        count(|p| matches!(p, Problem::AddressMissing { .. })),
        1,
        "{found:?}"
    );
    pod.ip("link del eth0");
    assert!(matches!(
        problems().await.as_slice(),
        [
            Problem::InterfaceMissing { .. },
            Problem::InterfaceMissing { .. }
        ]
    ));
}

/// What makes a host without a default route answer ARP for the gateway; see
/// [`margay_route::gateway_answer`].
#[tokio::test]
async fn the_gateway_answers_arp_with_its_route_and_without_a_default_route() {
    let (host, pod) = (TestNamespace::new(), TestNamespace::new());
    let netlink = host.netlink();
    setup(&plan(1, &["10.65.0.2"]), &netlink, &pod.namespace)
        .await
        .unwrap();
    let resolved = || {
        // The permanent entry has to go for the container to ask at all.
        pod.try_run("ip neigh del 169.254.1.1 dev eth0");
        pod.pings("169.254.1.1");
        pod.ip("neigh show 169.254.1.1")
            .contains("ee:ee:ee:ee:ee:ee")
    };
    assert!(!resolved(), "no route: silence");
    host.ip("route add blackhole 169.254.1.1");
    assert!(!resolved(), "a blackhole is not unicast: silence");
    host.ip("route del 169.254.1.1");
    host.ip("link add up0 type veth peer name up0p");
    host.ip("link set up0p up");
    host.ip("link set up0 up");
    host.ip("route add default dev up0");
    assert!(resolved(), "a default route elsewhere happens to do");
    host.ip("route del default");
    assert!(!resolved(), "specific routes elsewhere do not");
    let interfaces = netlink.interfaces().await.unwrap();
    apply_route(&netlink, &interfaces).await;
    assert!(resolved(), "{}", host.ip("route show"));
}

async fn apply_route(netlink: &margay_netlink::Netlink, interfaces: &Interfaces) {
    let mut desired = Desired::default();
    desired.insert_route(gateway_answer(PROTOCOL)).unwrap();
    let plan = margay_route::plan(&desired, &Observed::default(), &Ownership::default());
    let outcome = table::apply(netlink, &plan, interfaces).await;
    assert!(outcome.failures.is_empty(), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_endpoints_are_set_up_side_by_side() {
    let host = TestNamespace::new();
    host.ip("addr add 192.0.2.1 dev lo");
    let netlink = host.netlink();
    let pods: Vec<TestNamespace> = (0..8).map(|_| TestNamespace::new()).collect();
    let tasks: Vec<_> = (10_u8..)
        .zip(&pods)
        .map(|(number, pod)| {
            let (netlink, namespace) = (netlink.clone(), pod.namespace.clone());
            tokio::spawn(async move {
                let plan = plan(number, &[&format!("10.65.0.{number}")]);
                setup(&plan, &netlink, &namespace).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    for (number, pod) in (10..).zip(&pods) {
        assert!(pod.pings("192.0.2.1"), "pod {number}");
        assert!(host.pings(&format!("10.65.0.{number}")), "pod {number}");
    }
}

#[tokio::test]
async fn a_pair_may_wait_on_the_host_for_whoever_moves_its_end() {
    let (host, sandbox) = (TestNamespace::new(), TestNamespace::new());
    host.ip("addr add 192.0.2.1/32 dev lo");
    let netlink = host.netlink();
    let plan = plan(1, &["10.65.0.2"]);
    for _ in 0..2 {
        // What an earlier attempt left is replaced.
        let applied = setup_unplaced(&plan, &netlink).await.unwrap();
        let inner = netlink.link("eth0").await.unwrap().unwrap();
        assert_eq!(inner.index, applied.container_ifindex);
        assert!(!inner.up && inner.mac == Some(applied.mac));
    }
    let outer = netlink.link("cali1").await.unwrap().unwrap();
    assert_eq!(outer.alias.as_deref(), Some("margay:test/container1/eth0"));
    assert!(host.ip("route").contains("10.65.0.2 dev cali1"));
    let name = sandbox.path().file_name().unwrap().to_str().unwrap();
    host.ip(&format!("link set eth0 netns {name}"));
    for line in [
        "addr add 10.65.0.2/32 dev eth0",
        "link set eth0 up",
        "route add 192.0.2.1/32 dev eth0",
    ] {
        sandbox.ip(line);
    }
    let removed = teardown(&netlink, "cali1", &plan.veth.mark).await.unwrap();
    assert_eq!(removed, Removal::Removed);
    assert!(sandbox.netlink().link("eth0").await.unwrap().is_none());
}
