//! The planner's contract: plan and apply reach the desired state, once, and touch nothing else.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use margay_route::{
    Desired, FdbEntry, Mac, Neighbour, NextHop, Observed, Ownership, PROTOCOL, PROTOCOL_BOOT,
    PROTOCOL_KERNEL, Plan, Route, RouteKind, Scope, Step, TABLE_MAIN, VXLAN_V4, plan,
};
use proptest::prelude::*;

/// The kernel's part, as far as the planner relies on it.
fn apply(plan: &Plan, observed: &Observed) -> Observed {
    let mut state = observed.clone();
    for step in &plan.steps {
        match step {
            Step::AddRoute(route) => {
                assert!(
                    state.routes.iter().all(|r| r.key() != route.key()),
                    "NLM_F_EXCL"
                );
                state.routes.push(route.clone());
            }
            Step::ReplaceRoute { from, to } => {
                let first = state
                    .routes
                    .iter()
                    .position(|r| r.key() == to.key())
                    .unwrap();
                assert_eq!(&state.routes[first], from, "the kernel replaces the first");
                state.routes[first] = to.clone();
            }
            Step::DeleteRoute(route) => {
                let position = state.routes.iter().position(|r| r == route).unwrap();
                state.routes.remove(position);
            }
            Step::SetNeighbour(neighbour) => {
                state.neighbours.retain(|n| n.key() != neighbour.key());
                state.neighbours.push(neighbour.clone());
            }
            Step::DeleteNeighbour(neighbour) => {
                let position = state
                    .neighbours
                    .iter()
                    .position(|n| n == neighbour)
                    .unwrap();
                state.neighbours.remove(position);
            }
            Step::SetFdb(entry) => {
                let same = |e: &FdbEntry| (&e.interface, e.mac) == (&entry.interface, entry.mac);
                state.fdb.retain(|e| !same(e));
                state.fdb.push(entry.clone());
            }
            Step::DeleteFdb(entry) => {
                let position = state.fdb.iter().position(|e| e == entry).unwrap();
                state.fdb.remove(position);
            }
        }
    }
    state
}

fn interface() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["cali1", "cali2", "eth0", "lo"]).prop_map(str::to_owned)
}

fn destination() -> impl Strategy<Value = IpNetwork> {
    prop::sample::select(vec![
        "10.65.0.1/32",
        "10.65.0.2/32",
        "10.65.0.0/26",
        "2001:db8::1/128",
        "2001:db8::/64",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn kind(v4: bool) -> impl Strategy<Value = RouteKind> {
    let gateway = move |last: u8| -> IpAddr {
        if v4 {
            IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
        } else {
            format!("2001:db8:1::{last:x}").parse().unwrap()
        }
    };
    let hop = (
        prop::option::of(1_u8..4),
        interface(),
        any::<bool>(),
        1_u16..3,
    )
        .prop_map(move |(last, interface, onlink, weight)| NextHop {
            gateway: last.map(gateway),
            interface,
            onlink,
            weight,
        });
    prop_oneof![
        4 => prop::collection::vec(hop, 1..3).prop_map(|via| RouteKind::Unicast { via }),
        1 => Just(RouteKind::Blackhole),
        1 => Just(RouteKind::Unreachable),
    ]
}

fn route(protocols: Vec<u8>) -> impl Strategy<Value = Route> {
    let scope = prop::sample::select(vec![Scope::Universe, Scope::Link]);
    (
        destination(),
        prop::sample::select(protocols),
        scope,
        0_u32..2,
    )
        .prop_flat_map(|(dst, protocol, scope, metric)| {
            kind(dst.is_ipv4()).prop_map(move |kind| Route {
                dst,
                kind,
                protocol,
                scope,
                metric,
                table: TABLE_MAIN,
                src: None,
            })
        })
        .prop_map(Route::canonical)
}

fn neighbour(interfaces: Vec<&'static str>) -> impl Strategy<Value = Neighbour> {
    let interface = prop::sample::select(interfaces);
    (1_u8..4, interface, 1_u8..3, any::<bool>()).prop_map(|(last, interface, mac, proxy)| {
        let address = IpAddr::V4(Ipv4Addr::new(10, 65, 0, last));
        if proxy {
            Neighbour::proxy(address, interface)
        } else {
            Neighbour::permanent(address, Mac::local([mac; 6]), interface)
        }
    })
}

fn fdb() -> impl Strategy<Value = FdbEntry> {
    (1_u8..4, 1_u8..3).prop_map(|(mac, last)| FdbEntry {
        interface: VXLAN_V4.to_owned(),
        mac: Mac::local([mac; 6]),
        destination: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
    })
}

/// With a tunnel of ours.
fn ours() -> Ownership {
    Ownership {
        tunnels: BTreeSet::from([VXLAN_V4.to_owned()]),
        ..Ownership::default()
    }
}

fn desired() -> impl Strategy<Value = Desired> {
    (
        prop::collection::vec(route(vec![PROTOCOL]), 0..8),
        prop::collection::vec(neighbour(vec!["cali1", "cali2", VXLAN_V4]), 0..4),
        prop::collection::vec(fdb(), 0..3),
    )
        .prop_map(|(routes, neighbours, fdb)| {
            let mut desired = Desired::default();
            for route in routes {
                desired.insert_route(route).unwrap();
            }
            for neighbour in neighbours {
                desired.insert_neighbour(neighbour);
            }
            for entry in fdb {
                desired.insert_fdb(entry);
            }
            desired
        })
}

fn observed() -> impl Strategy<Value = Observed> {
    let protocols = vec![PROTOCOL, PROTOCOL_BOOT, PROTOCOL_KERNEL, 4];
    (
        prop::collection::btree_set(route(protocols), 0..10),
        prop::collection::vec(neighbour(vec!["cali1", "cali2", "eth0", VXLAN_V4]), 0..6),
        prop::collection::vec(fdb(), 0..3),
    )
        .prop_map(|(routes, neighbours, fdb)| {
            let mut keys = BTreeSet::new();
            Observed {
                routes: routes.into_iter().collect(),
                neighbours: neighbours
                    .into_iter()
                    .filter(|n| keys.insert(n.key()))
                    .collect(),
                fdb: fdb
                    .into_iter()
                    .map(|entry| (entry.mac, entry))
                    .collect::<BTreeMap<_, _>>()
                    .into_values()
                    .collect(),
            }
        })
}

proptest! {
    #[test]
    fn the_desired_state_is_reached(desired in desired(), observed in observed()) {
        let ownership = ours();
        let plan = plan(&desired, &observed, &ownership);
        let after = apply(&plan, &observed);
        let blocked: BTreeSet<_> = plan.conflicts.iter().map(|c| c.desired.key()).collect();
        let expected: BTreeSet<_> =
            desired.routes().filter(|route| !blocked.contains(&route.key())).collect();
        let ours: BTreeSet<_> =
            after.routes.iter().filter(|route| ownership.owns_route(route)).collect();
        prop_assert_eq!(ours, expected);
        let wanted: BTreeSet<_> = desired.neighbours().collect();
        let ours: BTreeSet<_> =
            after.neighbours.iter().filter(|n| ownership.owns_neighbour(n)).collect();
        prop_assert_eq!(ours, wanted);
        let there: BTreeSet<_> = after.fdb.iter().collect();
        prop_assert_eq!(there, desired.fdb().collect::<BTreeSet<_>>());
    }

    #[test]
    fn nothing_foreign_is_touched(desired in desired(), observed in observed()) {
        let ownership = ours();
        let after = apply(&plan(&desired, &observed, &ownership), &observed);
        let foreign = |state: &Observed| -> (Vec<Route>, Vec<Neighbour>) {
            (
                state.routes.iter().filter(|r| !ownership.owns_route(r)).cloned().collect(),
                state.neighbours.iter().filter(|n| !ownership.owns_neighbour(n)).cloned().collect(),
            )
        };
        prop_assert_eq!(foreign(&after), foreign(&observed));
    }

    #[test]
    fn a_second_plan_is_empty(desired in desired(), observed in observed()) {
        let ownership = ours();
        let after = apply(&plan(&desired, &observed, &ownership), &observed);
        let again = plan(&desired, &after, &ownership);
        prop_assert!(again.is_empty(), "{:?}", again);
    }

    #[test]
    fn the_desired_state_needs_no_plan(desired in desired()) {
        let same = Observed {
            routes: desired.routes().cloned().collect(),
            neighbours: desired.neighbours().cloned().collect(),
            fdb: desired.fdb().cloned().collect(),
        };
        prop_assert_eq!(plan(&desired, &same, &ours()), Plan::default());
    }
}
