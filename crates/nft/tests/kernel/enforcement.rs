//! What packets meet.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use margay_nft::{Event, Watch};
use margay_policy::{Action, Delta, HostInterface, Icmp, PortRange, Rule, TierDefault};
use margay_ruleset::compile::{EndpointToHost, Nat, Node, Pool, Settings};

use margay_ruleset::{Observed, closed, plan};

use crate::lab::{
    A, A6, B, B6, HOST, Lab, NET, endpoint, eventually, flows, host_endpoint, members, nets,
    policies, port_member, rule, set_id, tier, udp, v4_only, with_set,
};

#[test]
fn without_an_entry_an_interface_is_closed() {
    let lab = Lab::new();
    assert!(!lab.a.reaches(A, &lab.b, B, 5000));
    assert!(!lab.a.reaches(A, &lab.host, HOST, 5000));
    assert!(!lab.net.reaches(NET, &lab.b, B, 5000));
    // The host itself reaches its workloads.
    assert!(lab.host.reaches(HOST, &lab.b, B, 5000));
}

#[test]
fn open_workloads_reach_each_other_and_the_host_as_set() {
    for (action, expected) in [
        (EndpointToHost::Drop, false),
        (EndpointToHost::Accept, true),
    ] {
        let mut lab = Lab::with(Settings {
            endpoint_to_host: action,
            ..Settings::default()
        });
        lab.workloads(Vec::new(), Vec::new(), Delta::default());
        assert!(lab.a.reaches(A, &lab.b, B, 5000));
        assert!(lab.a.reaches(A6, &lab.b, B6, 5000));
        assert!(lab.net.reaches(NET, &lab.b, B, 5000));
        assert_eq!(lab.a.reaches(A, &lab.host, HOST, 5000), expected);
        // People can read it.
        let list = lab.host.run("nft list table inet margay");
        assert!(list.contains("iifname vmap @wl-from"), "{list}");
        // One leaves, and is closed again.
        let removed_workloads = [endpoint("a")].into();
        lab.update(Delta {
            removed_workloads,
            ..Delta::default()
        });
        assert!(!lab.a.reaches(A, &lab.b, B, 5000));
    }
}

#[test]
fn nothing_is_sent_from_others_addresses() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    lab.a.run("ip address add 10.65.0.9/32 dev eth0");
    lab.a.run("ip address add fd00:65::9/128 dev eth0 nodad");
    assert!(!lab.a.reaches("10.65.0.9", &lab.b, B, 5000));
    assert!(!lab.a.reaches("fd00:65::9", &lab.b, B6, 5000));
    assert!(lab.counted("spoofed source address") >= 2);
    // What the endpoint may use beside its own.
    let mut workload = lab.workload("a");
    workload.spoofable = vec![
        "10.65.0.8/31".parse().unwrap(),
        "10.65.0.9/32".parse().unwrap(),
    ];
    lab.update(Delta {
        workloads: [(endpoint("a"), workload)].into(),
        ..Delta::default()
    });
    assert!(lab.a.reaches("10.65.0.9", &lab.b, B, 5000));
    lab.a.run("ip link set eth0 address 02:00:00:00:00:77");
    lab.a
        .run("ip neigh replace 169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee");
    assert!(!lab.a.reaches(A, &lab.b, B, 5000));
    assert!(lab.counted("spoofed MAC") >= 1);
}

#[test]
fn neighbours_are_found_without_static_entries() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    lab.a.run("ip neigh del fe80::ecee:eeff:feee:eeee dev eth0");
    lab.host.run(&format!("ip neigh del {A6} dev cali1"));
    assert!(eventually(|| lab.a.reaches(A6, &lab.b, B6, 5000)));
    assert!(eventually(|| lab.b.reaches(B6, &lab.a, A6, 5000)));
}

#[test]
fn what_only_routers_and_servers_send_is_dropped() {
    let mut lab = Lab::with(Settings {
        endpoint_to_host: EndpointToHost::Accept,
        ..Settings::default()
    });
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let server = lab.a.udp(A, 67);
    server.send_to(b"offer", format!("{B}:68")).unwrap();
    server.send_to(b"tunnel", format!("{B}:4789")).unwrap();
    assert!(lab.counted("DHCP server") >= 1);
    assert!(eventually(|| lab.counted("VXLAN from a workload") >= 1));
    server.send_to(b"x", "169.254.1.1:9").unwrap();
    assert!(eventually(
        || lab.counted("gateway is nobody's address") >= 1
    ));
}

#[test]
fn sets_and_named_ports_allow_and_the_tier_ends_with_deny() {
    let mut lab = Lab::new();
    let mut by_set = udp(Action::Allow, 5000, 5000);
    by_set.source.sets.push(set_id("peers"));
    let mut by_name = rule(Action::Allow);
    by_name.destination.named_ports.push(set_id("dns"));
    let delta = policies(&[("p", &[by_set, by_name])]);
    let delta = with_set(delta, "peers", nets(&[]));
    let mut dns = nets(&[]);
    dns.kind = margay_policy::SetKind::Ports;
    let delta = with_set(delta, "dns", dns);
    lab.workloads(vec![tier("default", &["p"])], Vec::new(), delta);
    assert!(!lab.a.reaches(A, &lab.b, B, 5000));
    assert!(!lab.a.reaches(A, &lab.b, B, 5353));
    assert!(lab.counted("end of tier") >= 2);

    let peers = nets(&[A, A6]).members.into_iter().collect::<Vec<_>>();
    lab.update(members("peers", &peers, &[]));
    lab.update(members("dns", &[port_member(B, 17, 5353)], &[]));
    assert!(lab.a.reaches(A, &lab.b, B, 5000));
    assert!(lab.a.reaches(A6, &lab.b, B6, 5000));
    assert!(lab.a.reaches(A, &lab.b, B, 5353));
    assert!(!lab.a.reaches(A, &lab.b, B, 5001));
    assert!(!lab.net.reaches(NET, &lab.b, B, 5000));

    // A prefix among the members needs another kind of set.
    let network = nets(&["172.16.0.0/24", "172.16.0.0/28"]).members;
    let network: Vec<_> = network.into_iter().collect();
    lab.update(members("peers", &network, &peers[..1]));
    assert!(lab.net.reaches(NET, &lab.b, B, 5000));
    assert!(!lab.a.reaches(A, &lab.b, B, 5000));
    lab.update(members("peers", &[], &network[..1]));
    assert!(
        lab.net.reaches(NET, &lab.b, B, 5000),
        "the other prefix still holds it"
    );
    lab.update(members("peers", &[], &network[1..]));
    assert!(!lab.net.reaches(NET, &lab.b, B, 5000));
}

#[test]
fn passed_packets_meet_the_next_tiers_and_the_profiles() {
    let mut lab = Lab::new();
    let p1 = [udp(Action::Pass, 5000, 5001), udp(Action::Deny, 5002, 5002)];
    let p1_late = [udp(Action::Deny, 5000, 5001)];
    let p2 = [udp(Action::Deny, 5001, 5001), udp(Action::Pass, 5000, 5000)];
    let p3 = [udp(Action::Allow, 5000, 5000)];
    let delta = policies(&[("p1", &p1), ("p1-late", &p1_late), ("p2", &p2), ("p3", &p3)]);
    // As many tiers as one likes: a chain of gotos would meet the kernel's limit.
    let mut tiers = vec![tier("t1", &["p1", "p1-late"])];
    tiers.extend((0..20).map(|number| tier(&format!("m{number}"), &["p2"])));
    tiers.push(tier("last", &["p3"]));
    lab.workloads(tiers.clone(), tiers, delta);
    assert!(lab.a.reaches(A, &lab.b, B, 5000));
    assert!(!lab.a.reaches(A, &lab.b, B, 5001));
    assert!(!lab.a.reaches(A, &lab.b, B, 5002));
    assert!(!lab.a.reaches(A, &lab.b, B, 5003));
    // The last tier passes what it has no rule for: the profile is open.
    let mut open = tier("t1", &["p3"]);
    open.default = TierDefault::Pass;
    lab.workloads(vec![open], Vec::new(), Delta::default());
    assert!(lab.a.reaches(A, &lab.b, B, 5003));
}

#[test]
fn negations_hold_together() {
    let mut lab = Lab::new();
    let mut allow = rule(Action::Allow);
    allow.protocol = Some(17);
    allow.source.not_nets = vec![
        "172.16.0.0/16".parse().unwrap(),
        "10.99.0.0/16".parse().unwrap(),
    ];
    allow.source.nets = vec!["0.0.0.0/0".parse().unwrap()];
    allow.source.not_sets.push(set_id("bad"));
    allow.destination.not_ports = vec![
        PortRange {
            first: 5001,
            last: 5002,
        },
        PortRange {
            first: 5002,
            last: 5010,
        },
    ];
    let delta = with_set(policies(&[("p", &[allow])]), "bad", nets(&["10.66.0.0/16"]));
    lab.workloads(vec![tier("default", &["p"])], Vec::new(), delta);
    assert!(lab.a.reaches(A, &lab.b, B, 5000));
    assert!(!lab.a.reaches(A, &lab.b, B, 5002));
    assert!(!lab.a.reaches(A, &lab.b, B, 5010));
    assert!(lab.a.reaches(A, &lab.b, B, 5011));
    assert!(!lab.net.reaches(NET, &lab.b, B, 5000));
    assert!(
        !lab.a.reaches(A6, &lab.b, B6, 5000),
        "nets of one family match no other"
    );
    lab.update(members(
        "bad",
        &nets(&[A]).members.into_iter().collect::<Vec<_>>(),
        &[],
    ));
    assert!(!lab.a.reaches(A, &lab.b, B, 5000));
}

#[test]
fn icmp_by_type_and_code() {
    let mut lab = Lab::new();
    let echo = Icmp {
        kind: 8,
        code: Some(0),
    };
    let icmp = |icmp, not_icmp| {
        let mut rule = v4_only(rule(Action::Allow));
        rule.icmp = icmp;
        rule.not_icmp = not_icmp;
        rule
    };
    let ping = |lab: &Lab| {
        lab.a
            .start(&format!("ping -c1 -W1 {B}"), "")
            .status
            .success()
    };
    lab.workloads(
        vec![tier("default", &["p"])],
        Vec::new(),
        policies(&[("p", &[icmp(Some(echo), None)])]),
    );
    assert!(ping(&lab));
    lab.update(policies(&[("p", &[icmp(None, Some(echo))])]));
    assert!(!ping(&lab));
}

#[test]
fn what_is_established_goes_on_until_its_entry_is_forgotten() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut connection = lab.a.connect(&lab.b, B, 5000).unwrap();
    assert!(flows(&mut connection));
    let deny = policies(&[("p", &[rule(Action::Deny)])]);
    lab.workloads(vec![tier("default", &["p"])], Vec::new(), deny);
    assert!(flows(&mut connection));
    assert!(lab.a.connect(&lab.b, B, 5001).is_none());
    let mut conntrack = margay_nft::Conntrack::open(&lab.host.namespace).unwrap();
    assert!(conntrack.forget(&[B.parse().unwrap()]).unwrap() >= 1);
    assert!(!flows(&mut connection));
}

#[test]
fn long_lists_are_looked_up() {
    let mut lab = Lab::new();
    let count = 40_u16;
    let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
    let mut delta = Delta::default();
    for (number, name) in (0..).zip(&names) {
        let mut exact = udp(Action::Allow, 6000 + number, 6000 + number);
        exact.source.sets.push(set_id(name));
        let mut range = udp(Action::Allow, 7000 + number * 10, 7000 + number * 10 + 5);
        range.source.sets.push(set_id("all"));
        delta
            .policies
            .extend(policies(&[(name, &[exact, range])]).policies);
        delta = with_set(delta, name, nets(&[&format!("10.65.1.{number}")]));
    }
    delta = with_set(delta, "all", nets(&[]));
    let list: Vec<&str> = names.iter().map(String::as_str).collect();
    lab.workloads(vec![tier("default", &list)], Vec::new(), delta);
    let table = lab.compiler.table();
    assert!(table.sets().keys().any(|name| name.starts_with("li4-")));
    assert!(
        !table.chains().keys().any(|name| name.starts_with("pi-")),
        "none is asked"
    );
    assert!(!lab.a.reaches(A, &lab.b, B, 6003));
    let a: Vec<_> = nets(&[A]).members.into_iter().collect();
    lab.update(members("p3", &a, &[]));
    assert!(lab.a.reaches(A, &lab.b, B, 6003));
    let table = lab.compiler.table().name().to_owned();
    let counted = lab.nft.element_counters(&table).unwrap();
    let of_p3 = |counter: &&margay_nft::ElementCounter| {
        let comment = counter.comment.as_deref().unwrap_or_default();
        counter.set.starts_with("li4-") && comment.contains("/p3|")
    };
    // One for each address of the set; only A has sent.
    let mut of_p3 = counted.iter().filter(of_p3);
    let hit = of_p3.find(|counter| counter.packets >= 1);
    assert!(hit.is_some_and(|hit| hit.bytes >= 28), "{counted:?}");
    assert!(!lab.a.reaches(A, &lab.b, B, 6004));
    assert!(!lab.a.reaches(A, &lab.b, B, 7013));
    lab.update(members("all", &a, &[]));
    assert!(lab.a.reaches(A, &lab.b, B, 7013));
    assert!(lab.a.reaches(A, &lab.b, B, 6003));
    assert!(!lab.a.reaches(A, &lab.b, B, 7016));
    // A prefix among the members takes policies out of the lookup.
    let wide: Vec<_> = nets(&["172.16.0.0/24"]).members.into_iter().collect();
    lab.update(members("p4", &wide, &[]));
    assert!(lab.net.reaches(NET, &lab.b, B, 6004));
    assert!(lab.a.reaches(A, &lab.b, B, 6003));
    lab.update(members("all", &[], &a));
    lab.update(members("p3", &[], &a));
    assert!(!lab.a.reaches(A, &lab.b, B, 7013));
    assert!(!lab.a.reaches(A, &lab.b, B, 6003));
}

#[test]
fn host_endpoints_keep_failsafe_ports_open() {
    let mut lab = Lab::new();
    let mut host = host_endpoint(HostInterface::Named("eth0".to_owned()));
    host.normal.ingress = vec![tier("default", &["p"])];
    let mut delta = policies(&[("p", &[udp(Action::Allow, 5000, 5000)])]);
    delta.hosts.insert("eth0".to_owned(), host);
    lab.update(delta);
    assert!(lab.net.reaches(NET, &lab.host, HOST, 5000));
    assert!(!lab.net.reaches(NET, &lab.host, HOST, 5001));
    assert!(lab.net.reaches(NET, &lab.host, HOST, 68), "failsafe");
    // No egress policy and no profile: only failsafe ports and answers leave.
    assert!(!lab.host.reaches(HOST, &lab.net, NET, 5000));
    assert!(lab.host.reaches(HOST, &lab.net, NET, 53), "failsafe");
    assert!(lab.net.connect(&lab.host, HOST, 179).is_some(), "failsafe");
}

#[test]
fn a_host_endpoint_for_every_interface_spares_lo_and_workloads() {
    let mut lab = Lab::with(Settings {
        endpoint_to_host: EndpointToHost::Accept,
        ..Settings::default()
    });
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut delta = Delta::default();
    delta
        .hosts
        .insert("all".to_owned(), host_endpoint(HostInterface::Every));
    lab.update(delta);
    assert!(!lab.net.reaches(NET, &lab.host, HOST, 5000));
    assert!(lab.host.reaches("127.0.0.1", &lab.host, "127.0.0.1", 5000));
    assert!(lab.a.reaches(A, &lab.host, HOST, 5000));
    assert!(lab.host.reaches(HOST, &lab.b, B, 5000));
    // No policy applies to what is forwarded.
    assert!(lab.net.reaches(NET, &lab.b, B, 5000));
    let mut delta = Delta::default();
    delta.removed_hosts.insert("all".to_owned());
    lab.update(delta);
    assert!(lab.net.reaches(NET, &lab.host, HOST, 5000));
}

#[test]
fn apply_on_forward_decides_what_passes_through() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut host = host_endpoint(HostInterface::Addressed);
    host.addresses = vec![HOST.parse().unwrap()];
    host.forward.ingress = vec![tier("default", &["in"])];
    host.forward.egress = vec![tier("default", &["out"])];
    let allow = |port| [udp(Action::Allow, port, port)];
    let mut delta = policies(&[("in", &allow(5000)), ("out", &allow(5001))]);
    delta.hosts.insert("eth0".to_owned(), host);
    lab.update(delta);
    assert!(lab.net.reaches(NET, &lab.b, B, 5000));
    assert!(!lab.net.reaches(NET, &lab.b, B, 5001));
    assert!(lab.a.reaches(A, &lab.net, NET, 5001));
    assert!(!lab.a.reaches(A, &lab.net, NET, 5000));
    assert!(
        lab.a.reaches(A, &lab.b, B, 5002),
        "between workloads it has no say"
    );
}

#[test]
fn pre_dnat_policy_sees_the_first_destination_and_spares_later_policy() {
    let mut lab = Lab::new();
    lab.host.nft(
        "table ip others { chain translation { type nat hook prerouting priority dstnat;
            udp dport 30000-30001 dnat to 10.65.0.2:5000
        }
        }",
    );
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut host = host_endpoint(HostInterface::Named("eth0".to_owned()));
    host.pre_dnat = vec![tier("default", &["p"])];
    host.forward.ingress = vec![tier("default", &["none"])];
    let mut delta = policies(&[
        (
            "p",
            &[
                udp(Action::Allow, 30000, 30000),
                udp(Action::Deny, 30001, 30001),
            ],
        ),
        ("none", &[rule(Action::Deny)]),
    ]);
    delta.hosts.insert("eth0".to_owned(), host);
    lab.update(delta);
    let receiver = lab.b.udp(B, 5000);
    let sender = lab.net.udp(NET, 0);
    let arrives = |port: u16| {
        sender.send_to(b"x", format!("{HOST}:{port}")).unwrap();
        receiver.recv(&mut [0; 8]).is_ok()
    };
    assert!(arrives(30000));
    assert!(!arrives(30001));
    assert!(
        !lab.net.reaches(NET, &lab.b, B, 5001),
        "not accepted before, so denied"
    );
}

#[test]
fn untracked_policy_keeps_packets_from_connection_tracking() {
    let mut lab = Lab::new();
    let mut host = host_endpoint(HostInterface::Named("eth0".to_owned()));
    host.untracked.ingress = vec![tier("default", &["in"])];
    host.untracked.egress = vec![tier("default", &["out"])];
    host.untracked.ingress[0].default = TierDefault::Pass;
    host.untracked.egress[0].default = TierDefault::Pass;
    let mut answer = rule(Action::Allow);
    answer.protocol = Some(17);
    answer.source.ports.push(PortRange {
        first: 5000,
        last: 5000,
    });
    let mut delta = policies(&[
        ("in", &[udp(Action::Allow, 5000, 5000)]),
        ("out", &[answer]),
    ]);
    delta.hosts.insert("eth0".to_owned(), host);
    lab.update(delta);
    assert!(lab.net.reaches(NET, &lab.host, HOST, 5000));
    assert!(!lab.net.reaches(NET, &lab.host, HOST, 5001));
    let mut conntrack = margay_nft::Conntrack::open(&lab.host.namespace).unwrap();
    assert!(conntrack.flows(&[NET.parse().unwrap()]).unwrap().is_empty());
}

/// Whatever policy of host endpoints says, tunnels between nodes stay open, and to nobody else.
#[test]
fn tunnels_of_nodes_pass_every_policy_of_host_endpoints() {
    for interface in [
        HostInterface::Named("eth0".to_owned()),
        HostInterface::Every,
    ] {
        for kind in ["normal", "pre-DNAT", "untracked"] {
            let mut lab = Lab::new();
            let mut host = host_endpoint(interface.clone());
            let deny = || vec![tier("default", &["deny"])];
            match kind {
                "normal" => (host.normal.ingress, host.normal.egress) = (deny(), deny()),
                "pre-DNAT" => host.pre_dnat = deny(),
                _ => (host.untracked.ingress, host.untracked.egress) = (deny(), deny()),
            }
            let mut delta = policies(&[("deny", &[rule(Action::Deny)])]);
            delta.hosts.insert("eth0".to_owned(), host);
            lab.update(delta);
            let both = |lab: &Lab, port| {
                let to = lab.net.reaches(NET, &lab.host, HOST, port);
                (to, lab.host.reaches(HOST, &lab.net, NET, port))
            };
            let denied = (false, false);
            assert_eq!(both(&lab, 4789), denied, "{kind} {interface:?}");
            let interfaces = vec![("eth0".to_owned(), vec![HOST.parse().unwrap()])];
            lab.node(Node {
                interfaces,
                tunnel_peers: vec![NET.parse().unwrap()],
                ..Node::default()
            });
            assert_eq!(both(&lab, 4789), (true, true), "{kind} {interface:?}");
            assert_eq!(both(&lab, 4790), denied, "{kind} {interface:?}");
        }
    }
}

#[test]
fn what_leaves_the_pools_is_translated() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    lab.net.run("ip route del 10.65.0.0/16");
    let pool = |cidr: &str, nat_outgoing| Pool {
        cidr: cidr.parse().unwrap(),
        nat_outgoing,
    };
    let node = |pools, nat| Node {
        interfaces: vec![("eth0".to_owned(), vec![HOST.parse().unwrap()])],
        pools,
        nat,
        tunnel_peers: Vec::new(),
    };
    let source = |lab: &Lab| {
        let (receiver, sender) = (lab.net.udp(NET, 5000), lab.a.udp(A, 0));
        let arrived = (0..3).find_map(|_| {
            sender.send_to(b"x", (NET, 5000)).unwrap();
            receiver.recv_from(&mut [0; 8]).ok()
        });
        arrived.unwrap().1
    };
    let pools = vec![pool("10.65.0.0/16", true)];
    lab.node(node(pools.clone(), Nat::default()));
    assert_eq!(source(&lab).ip().to_string(), HOST);
    let nat = Nat {
        ports: Some((40_000, 40_010)),
        addresses: vec!["172.16.0.77".parse().unwrap()],
        excluded: Vec::new(),
    };
    lab.net.run("ip route add 172.16.0.77 dev eth0");
    lab.node(node(pools.clone(), nat));
    let found = source(&lab);
    assert_eq!(found.ip().to_string(), "172.16.0.77");
    assert!((40_000..=40_010).contains(&found.port()));
    let nat = Nat {
        excluded: vec!["172.16.0.0/24".parse().unwrap()],
        ..Nat::default()
    };
    lab.node(node(pools, nat));
    assert_eq!(source(&lab).ip().to_string(), A);
}

#[test]
fn limits_are_the_endpoints_own() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut workload = lab.workload("b");
    let mut qos = margay_model::resource::endpoint::QosControls {
        ingress_max_connections: Some(2),
        ..Default::default()
    };
    workload.qos = Some(qos.clone());
    let put = |lab: &mut Lab, workload| {
        lab.update(Delta {
            workloads: [(endpoint("b"), workload)].into(),
            ..Delta::default()
        });
    };
    put(&mut lab, workload.clone());
    let first = lab.a.connect(&lab.b, B, 5000);
    let second = lab.a.connect(&lab.b, B, 5001);
    assert!(first.is_some() && second.is_some());
    assert!(lab.a.connect(&lab.b, B, 5002).is_none());
    assert!(lab.counted("too many connections") >= 1);
    // Others are not concerned, nor is what the workload itself begins.
    let [third, back] = [
        lab.b.connect(&lab.a, A, 5003),
        lab.net.connect(&lab.a, A, 5004),
    ];
    assert!(third.is_some() && back.is_some());
    // One that ends makes room.
    drop((first, second));
    assert!(eventually(|| lab.a.connect(&lab.b, B, 5005).is_some()));

    qos.ingress_max_connections = None;
    qos.egress_max_connections = Some(1);
    workload.qos = Some(qos.clone());
    put(&mut lab, workload.clone());
    let counted = lab.counted("too many connections");
    let own = lab.b.connect(&lab.a, A, 5006);
    assert!(own.is_some());
    assert!(lab.b.connect(&lab.net, NET, 5007).is_none());
    assert!(lab.b.connect(&lab.host, HOST, 5008).is_none());
    assert!(lab.counted("too many connections") > counted);
    assert!(lab.a.connect(&lab.b, B, 5009).is_some(), "to the workload");
    drop(own);
    qos.egress_max_connections = None;

    qos.ingress_packet_rate = Some(1);
    qos.ingress_packet_burst = Some(2);
    workload.qos = Some(qos.clone());
    put(&mut lab, workload.clone());
    let sender = lab.a.udp(A, 0);
    let receiver = lab.b.udp(B, 5003);
    for _ in 0..20 {
        sender.send_to(b"x", format!("{B}:5003")).unwrap();
    }
    let mut arrived = 0;
    while receiver.recv(&mut [0; 8]).is_ok() {
        arrived += 1;
    }
    assert!((1..20).contains(&arrived), "{arrived}");
    assert!(lab.counted("too many packets") >= 1);
    assert!(lab.b.reaches(B, &lab.a, A, 5010), "from the workload");
    qos.ingress_packet_rate = None;
    qos.egress_packet_rate = Some(1);
    qos.egress_packet_burst = Some(2);
    workload.qos = Some(qos);
    put(&mut lab, workload.clone());
    let (sender, receiver) = (lab.b.udp(B, 0), lab.net.udp(NET, 5011));
    for _ in 0..20 {
        sender.send_to(b"x", format!("{NET}:5011")).unwrap();
    }
    let mut arrived = 0;
    while receiver.recv(&mut [0; 8]).is_ok() {
        arrived += 1;
    }
    assert!((1..20).contains(&arrived), "{arrived}");
    assert!(lab.counted("too many packets") > 0);
    assert!(lab.a.reaches(A, &lab.b, B, 5012), "to the workload");
    workload.qos = None;
    put(&mut lab, workload);
    let chains = lab.compiler.table().chains();
    assert!(!chains.keys().any(|name| name.ends_with("-cali2")));
}

#[test]
fn logs_reach_the_listener() {
    let mut lab = Lab::new();
    let rules = [rule(Action::Log), rule(Action::Allow)];
    lab.workloads(
        vec![tier("default", &["p"])],
        Vec::new(),
        policies(&[("p", &rules)]),
    );
    // tcpdump reads nflog groups too; what it writes has the prefix.
    let reader = lab.host.spawn("timeout 20 tcpdump -U -c1 -w - -i nflog:1");
    let begun = eventually(|| {
        lab.a.reaches(A, &lab.b, B, 5000);
        reader.has_ended()
    });
    let text = reader.output();
    assert!(begun, "{text}");
    assert!(
        text.contains("Li|default|GlobalNetworkPolicy/p|0"),
        "{text}"
    );
}

#[tokio::test]
async fn a_deleted_table_is_restored_closed_first() {
    let mut lab = Lab::new();
    lab.workloads(Vec::new(), Vec::new(), Delta::default());
    let mut connection = lab.a.connect(&lab.b, B, 5000).unwrap();
    let name = lab.compiler.table().name().to_owned();
    let own = [lab.nft.port()];
    let mut watch = Watch::open(&lab.host.namespace, &name, &own).unwrap();
    lab.host.nft("flush ruleset");
    let told = tokio::time::timeout(Duration::from_secs(20), watch.next());
    assert_eq!(told.await.unwrap().unwrap().unwrap(), Event::Deleted);
    let prefixes = ["cali".to_owned()];
    let small = closed(&name, lab.compiler.table().comment(), &prefixes);
    lab.nft.apply(&plan(&small, &Observed::default())).unwrap();
    assert!(!lab.a.reaches(A, &lab.b, B, 5001));
    assert!(!lab.a.reaches(A, &lab.host, HOST, 5001));
    assert!(flows(&mut connection), "what is established goes on");
    let whole = lab.nft.restore(lab.compiler.table(), &prefixes).unwrap();
    assert!(lab.a.reaches(A, &lab.b, B, 5001));
    assert_eq!(lab.nft.observe(&name).unwrap(), whole);
    // From nothing too.
    lab.host.nft("flush ruleset");
    lab.nft.restore(lab.compiler.table(), &prefixes).unwrap();
    assert!(lab.a.reaches(A, &lab.b, B, 5002));
    assert_eq!(lab.nft.observe(&name).unwrap(), whole);
}

/// Replaces a policy as fast as it can while packets of new connections come.
#[test]
fn replacement_under_traffic_loses_nothing_and_admits_nothing() {
    let mut lab = Lab::new();
    let rules = |filler: u16| -> Vec<Rule> {
        let mut rules = vec![udp(Action::Allow, 9, 9); 3];
        rules[0].destination.ports[0].last = filler;
        rules.push(udp(Action::Allow, 5000, 5000));
        rules
    };
    let tiers = || vec![tier("default", &["p"])];
    lab.workloads(tiers(), tiers(), policies(&[("p", &rules(10))]));
    let (open, closed) = (lab.b.udp(B, 5000), lab.b.udp(B, 5001));
    let receiving = thread::spawn(move || {
        let mut arrived = 0;
        let mut buffer = [0; 8];
        // A longer one says that all have been sent.
        while !open.recv(&mut buffer).is_ok_and(|length| length > 1) {
            arrived += usize::from(buffer[0] == b'x');
            buffer[0] = 0;
        }
        arrived
    });
    let from = lab.a.namespace.clone();
    let sending = thread::spawn(move || {
        let round = || {
            // New sockets, new ports: every packet begins a connection.
            for _ in 0..FLOWS {
                let sender = UdpSocket::bind((A, 0)).unwrap();
                sender.send_to(b"x", (B, 5001)).unwrap_or_default();
                sender.send_to(b"x", (B, 5000)).unwrap();
            }
        };
        for _ in 0..ROUNDS {
            from.run(round).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    });
    let mut updates = 0;
    while !sending.is_finished() {
        updates += 1;
        let delta = policies(&[("p", &rules(11 + updates % 50))]);
        lab.compiler.update(delta);
        lab.put_in_force();
    }
    sending.join().unwrap();
    lab.a.udp(A, 0).send_to(b"end", (B, 5000)).unwrap();
    let arrived = receiving.join().unwrap();
    assert!(updates >= 3, "{updates}");
    assert_eq!(arrived, ROUNDS * FLOWS);
    assert!(closed.recv(&mut [0; 8]).is_err());
}

const ROUNDS: usize = 200;
const FLOWS: usize = 20;
