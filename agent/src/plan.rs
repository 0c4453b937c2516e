//! Between the planner and the kernel: what of a plan is withheld, and its words for the log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use margay_model::Cidr;
use margay_netlink::Interfaces;
use margay_route::{
    DeviceStep, FdbEntry, GATEWAY_V4, Neighbour, NeighbourKind, Observed, Ownership, PROTOCOL,
    PROTOCOL_KERNEL, Plan, Route, RouteKind, Step, VXLAN_V4, VXLAN_V6,
};

use crate::calculate::{Local, Picture};
use crate::mtu::Carrier;
use crate::state::Settings;

/// What of the machine decides, from what the kernel shows.
pub fn local(interfaces: &Interfaces, observed: &Observed, ownership: &Ownership) -> Local {
    let mut local = Local::default();
    for link in interfaces.iter() {
        local
            .addresses
            .extend(link.addresses.iter().map(ipnetwork::IpNetwork::ip));
    }
    for uplink in interfaces.addresses() {
        let Some(link) = interfaces.by_name(&uplink.name).filter(|link| link.up) else {
            continue;
        };
        if ownership.owns_interface(&link.name) {
            local.workloads.insert(link.name.clone());
        } else if !link.loopback && ![VXLAN_V4, VXLAN_V6].contains(&link.name.as_str()) {
            local.carriers.push(Carrier {
                name: link.name.clone(),
                mtu: link.mtu,
                addresses: link.addresses.clone(),
            });
            local.uplinks.push(uplink);
        }
    }
    let gateway = IpAddr::V4(GATEWAY_V4);
    let others = observed
        .routes
        .iter()
        .filter(|route| !ownership.owns_route(route));
    local.foreign = others
        .clone()
        .filter(|route| leads(route))
        .cloned()
        .collect();
    let used = others
        .filter(|route| route.dst.contains(gateway))
        .min_by_key(|route| (std::cmp::Reverse(route.dst.prefix()), route.metric));
    local.gateway_routed =
        used.is_some_and(|route| matches!(route.kind, RouteKind::Unicast { .. }));
    local
}

/// What is to be done about the addresses that the node presents to workloads: `wanted` by interface, `former`
/// all that were presented since the start. Other addresses are not touched.
pub fn present(
    wanted: &BTreeMap<String, BTreeSet<IpAddr>>,
    former: &BTreeSet<IpAddr>,
    interfaces: &Interfaces,
    is_workload: impl Fn(&str) -> bool,
) -> Vec<DeviceStep> {
    let nothing = BTreeSet::new();
    let mut steps = Vec::new();
    for link in interfaces.iter() {
        let wanted = wanted.get(&link.name).unwrap_or(&nothing);
        let single = |address: IpAddr| Cidr::host(address).network();
        let there = |address: IpAddr| link.addresses.contains(&single(address));
        let add = wanted.iter().filter(|address| !there(**address));
        steps.extend(add.map(|address| DeviceStep::AddAddress {
            name: link.name.clone(),
            address: single(*address),
        }));
        // A tunnel's device or an uplink may bear such an address by another's will.
        let ours = is_workload(&link.name);
        let gone = former.iter().filter(|address| ours && there(**address));
        let gone = gone.filter(|address| !wanted.contains(address));
        steps.extend(gone.map(|address| DeviceStep::RemoveAddress {
            name: link.name.clone(),
            address: single(*address),
        }));
    }
    steps
}

/// Whether a route is as BGP brings them.
pub fn goes_by_gateway(route: &Route) -> bool {
    match &route.kind {
        RouteKind::Unicast { via } => via.iter().any(|hop| hop.gateway.is_some()),
        _ => false,
    }
}

/// Whether a route may lead to next hops: it goes somewhere, and not to a single workload.
fn leads(route: &Route) -> bool {
    let host = if route.dst.is_ipv4() { 32 } else { 128 };
    matches!(route.kind, RouteKind::Unicast { .. })
        && (route.protocol != PROTOCOL_KERNEL || route.dst.prefix() < host)
        && !matches!(route.dst.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Names of tunnels' devices.
pub fn tunnels() -> BTreeSet<String> {
    [VXLAN_V4, VXLAN_V6].map(str::to_owned).into()
}

/// What is handled of what the kernel shows: without IPv6 where that is switched off.
pub fn handled(mut observed: Observed, settings: &Settings) -> Observed {
    if !settings.ipv6 {
        observed.routes.retain(|route| route.dst.is_ipv4());
        observed
            .neighbours
            .retain(|neighbour| neighbour.address.is_ipv4());
    }
    observed
}

/// Takes from a plan the deletions that are not to be made. Returns how many were taken because
/// they are suspiciously many.
///
/// Routes of others on workloads' interfaces stay where the settings say so. Until BGP has `converged`
/// after a start, routes by way of others stay: an earlier run may have learned them. A first comparison
/// that would delete most of what an earlier run installed points to a datastore that was emptied
/// or is another one: then nothing is deleted unless `trusted`.
pub fn restrain(
    plan: &mut Plan,
    observed: &Observed,
    ownership: &Ownership,
    settings: &Settings,
    trusted: bool,
    converged: bool,
) -> usize {
    if !converged {
        plan.steps.retain(|step| match step {
            Step::DeleteRoute(route) => !goes_by_gateway(route),
            _ => true,
        });
    }
    if !settings.remove_external_routes {
        let own = [PROTOCOL, settings.device_route_protocol];
        plan.steps.retain(|step| match step {
            Step::DeleteRoute(route) => own.contains(&route.protocol),
            _ => true,
        });
    }
    if trusted {
        return 0;
    }
    let ours = observed
        .routes
        .iter()
        .filter(|route| ownership.owns_route(route))
        .count();
    let is_deletion = |step: &Step| matches!(step, Step::DeleteRoute(_));
    let deletions = plan.steps.iter().filter(|step| is_deletion(step)).count();
    if deletions < SUSPICIOUS || deletions * 2 <= ours {
        return 0;
    }
    plan.steps.retain(|step| {
        !matches!(
            step,
            Step::DeleteRoute(_) | Step::DeleteNeighbour(_) | Step::DeleteFdb(_)
        )
    });
    deletions
}

/// A step in words: what is done, and why.
#[derive(Debug)]
pub struct Words<'a> {
    /// The step.
    pub step: &'a Step,
    /// Why routes are wanted.
    pub picture: &'a Picture,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |f: &mut fmt::Formatter<'_>, route: &Route| match self
            .picture
            .sources
            .get(&route.key())
        {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        };
        match self.step {
            Step::AddRoute(route) => {
                write!(f, "add route {}", RouteWords(route))?;
                why(f, route)
            }
            Step::ReplaceRoute { from, to } => {
                write!(
                    f,
                    "replace route {} by {}",
                    RouteWords(from),
                    RouteWords(to)
                )?;
                why(f, to)
            }
            Step::DeleteRoute(route) => {
                write!(f, "delete route {}: nothing wants it", RouteWords(route))
            }
            Step::SetNeighbour(neighbour) => {
                write!(f, "set neighbour {}", NeighbourWords(neighbour))
            }
            Step::DeleteNeighbour(neighbour) => {
                write!(
                    f,
                    "delete neighbour {}: nothing wants it",
                    NeighbourWords(neighbour)
                )
            }
            Step::SetFdb(entry) => write!(f, "forward {}", FdbWords(entry)),
            Step::DeleteFdb(entry) => {
                write!(f, "forward {} no more: nothing wants it", FdbWords(entry))
            }
        }
    }
}

/// A step of a tunnel's device in words.
#[derive(Debug)]
pub struct DeviceWords<'a>(pub &'a DeviceStep);

impl fmt::Display for DeviceWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DeviceStep::Create(vxlan) => write!(
                f,
                "make VXLAN device {} (network {}, port {}) over {}, from {}, MTU {}",
                vxlan.name, vxlan.vni, vxlan.port, vxlan.parent, vxlan.local, vxlan.mtu
            ),
            DeviceStep::Amend { name, mac, mtu } => {
                write!(f, "bring {name} up with MAC address {mac} and MTU {mtu}")
            }
            DeviceStep::AddAddress { name, address } => write!(f, "give {name} address {address}"),
            DeviceStep::RemoveAddress { name, address } => {
                write!(f, "take address {address} from {name}")
            }
            DeviceStep::Delete { name } => write!(f, "delete {name}: it is not as it should be"),
        }
    }
}

/// A route as `ip route` writes it.
#[derive(Debug)]
pub struct RouteWords<'a>(pub &'a Route);

impl fmt::Display for RouteWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = self.0;
        match &route.kind {
            RouteKind::Unicast { via } => {
                write!(f, "{}", route.dst)?;
                for hop in via {
                    if let Some(gateway) = hop.gateway {
                        write!(f, " via {gateway}")?;
                    }
                    write!(f, " dev {}", hop.interface)?;
                }
            }
            RouteKind::Blackhole => write!(f, "blackhole {}", route.dst)?,
            RouteKind::Unreachable => write!(f, "unreachable {}", route.dst)?,
            RouteKind::Prohibit => write!(f, "prohibit {}", route.dst)?,
            RouteKind::Throw => write!(f, "throw {}", route.dst)?,
        }
        write!(f, " proto {}", route.protocol)
    }
}

struct NeighbourWords<'a>(&'a Neighbour);

impl fmt::Display for NeighbourWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let neighbour = self.0;
        match neighbour.kind {
            NeighbourKind::Permanent(mac) => {
                write!(
                    f,
                    "{} dev {} lladdr {mac}",
                    neighbour.address, neighbour.interface
                )
            }
            NeighbourKind::Proxy => {
                write!(f, "proxy {} dev {}", neighbour.address, neighbour.interface)
            }
        }
    }
}

struct FdbWords<'a>(&'a FdbEntry);

impl fmt::Display for FdbWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FdbEntry {
            interface,
            mac,
            destination,
        } = self.0;
        write!(f, "{mac} on {interface} to {destination}")
    }
}

/// The names of interfaces that a plan's steps touch.
pub fn interfaces_of(steps: &[Step]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for step in steps {
        match step {
            Step::AddRoute(route)
            | Step::DeleteRoute(route)
            | Step::ReplaceRoute { to: route, .. } => {
                names.extend(route.interfaces());
            }
            Step::SetNeighbour(neighbour) | Step::DeleteNeighbour(neighbour) => {
                names.insert(neighbour.interface.as_str());
            }
            Step::SetFdb(entry) | Step::DeleteFdb(entry) => {
                names.insert(entry.interface.as_str());
            }
        }
    }
    names
}

/// Fewer deletions than this are never held back.
const SUSPICIOUS: usize = 10;

#[cfg(test)]
mod tests {
    use margay_netlink::Link;
    use margay_route::{Desired, plan};

    use super::*;

    fn net(text: &str) -> ipnetwork::IpNetwork {
        text.parse().unwrap()
    }

    fn link(index: u32, name: &str, up: bool, addresses: &[&str]) -> Link {
        Link {
            index,
            name: name.to_owned(),
            up,
            loopback: name == "lo",
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..Link::default()
        }
    }

    #[test]
    fn interfaces_are_sorted_into_uplinks_and_workloads() {
        let interfaces: Interfaces = [
            link(1, "lo", true, &["127.0.0.1/8"]),
            link(2, "eth0", true, &["10.0.0.1/24"]),
            link(3, "eth1", false, &["10.1.0.1/24"]),
            link(4, "cali1", true, &["fe80::ecee:eeff:feee:eeee/64"]),
            link(5, "cali2", false, &[]),
        ]
        .into_iter()
        .collect();
        let ownership = Ownership::default();
        let seen = |routes: &[Route]| {
            let observed = Observed {
                routes: routes.to_vec(),
                ..Observed::default()
            };
            local(&interfaces, &observed, &ownership)
        };
        let found = seen(&[]);
        assert_eq!(found.uplinks.len(), 1);
        assert_eq!(found.workloads, BTreeSet::from(["cali1".to_owned()]));
        assert!(found.addresses.contains(&"10.1.0.1".parse().unwrap()));
        assert!(!found.gateway_routed);
        let default = Route::via(net("0.0.0.0/0"), "10.0.0.254".parse().unwrap(), "eth0", 4);
        assert!(seen(std::slice::from_ref(&default)).gateway_routed);
        let blackhole = Route::blackhole(net("169.254.0.0/16"), 4);
        assert!(!seen(&[default, blackhole]).gateway_routed);
        assert!(!seen(&[margay_route::gateway_answer(PROTOCOL)]).gateway_routed);
    }

    #[test]
    fn addresses_are_presented_to_workloads_and_taken_again() {
        let interfaces: Interfaces = [
            link(2, "eth0", true, &["10.0.0.1/24", "169.254.0.178/32"]),
            link(4, "cali1", true, &["fe80::ecee:eeff:feee:eeee/64"]),
            link(5, "cali2", true, &["169.254.0.179/32"]),
            link(
                6,
                "cali3",
                true,
                &["169.254.0.178/32", "169.254.0.179/32", "169.254.0.1/32"],
            ),
        ]
        .into_iter()
        .collect();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (now, six) = (address("169.254.0.179"), address("fe80::179"));
        let former = BTreeSet::from([now, six, address("169.254.0.178")]);
        let wanted = ["cali1", "cali2"].map(|name| (name.to_owned(), BTreeSet::from([now, six])));
        let wanted = BTreeMap::from(wanted);
        let words = |wanted, former| {
            let steps = present(wanted, former, &interfaces, |name| name.starts_with("cali"));
            steps
                .iter()
                .map(|step| DeviceWords(step).to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(&wanted, &former),
            [
                "give cali1 address 169.254.0.179/32",
                "give cali1 address fe80::179/128",
                "give cali2 address fe80::179/128",
                "take address 169.254.0.178/32 from cali3",
                "take address 169.254.0.179/32 from cali3",
            ]
        );
        // What was never presented is nobody's to take.
        assert_eq!(words(&BTreeMap::new(), &BTreeSet::new()), [""; 0]);
    }

    fn kernel(count: u8) -> Observed {
        let route = |last| Route::blackhole(net(&format!("192.168.{last}.0/26")), PROTOCOL);
        Observed {
            routes: (0..count).map(route).collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn a_suspicious_sweep_is_held_until_it_is_trusted() {
        let ownership = Ownership::default();
        let settings = Settings::default();
        let sweep = |count, kept: usize, trusted| {
            let observed = kernel(count);
            let mut desired = Desired::default();
            for route in &observed.routes[..kept] {
                desired.insert_route(route.clone()).unwrap();
            }
            let mut plan = plan(&desired, &observed, &ownership);
            let held = restrain(&mut plan, &observed, &ownership, &settings, trusted, true);
            (held, plan.steps.len())
        };
        assert_eq!(sweep(20, 0, false), (20, 0));
        assert_eq!(sweep(20, 0, true), (0, 20));
        assert_eq!(sweep(20, 10, false), (0, 10));
        assert_eq!(sweep(9, 0, false), (0, 9));
    }

    #[test]
    fn routes_of_others_stay_where_the_settings_say_so() {
        let ownership = Ownership::default();
        let observed = Observed {
            routes: vec![
                Route::on_link(net("10.1.1.1/32"), "cali1", 4),
                Route::on_link(net("10.1.1.2/32"), "cali1", 3),
            ],
            ..Observed::default()
        };
        for (remove, steps) in [(true, 2), (false, 1)] {
            let settings = Settings {
                remove_external_routes: remove,
                ..Settings::default()
            };
            let mut plan = plan(&Desired::default(), &observed, &ownership);
            restrain(&mut plan, &observed, &ownership, &settings, true, true);
            assert_eq!(plan.steps.len(), steps);
        }
    }

    #[test]
    fn what_an_earlier_run_learned_stays_until_bgp_has_converged() {
        let ownership = Ownership::default();
        let settings = Settings::default();
        let gateway = "10.0.0.2".parse().unwrap();
        let observed = Observed {
            routes: vec![
                Route::via(net("192.168.1.0/26"), gateway, "eth0", PROTOCOL),
                Route::blackhole(net("192.168.2.0/26"), PROTOCOL),
            ],
            ..Observed::default()
        };
        for (converged, steps) in [(false, 1), (true, 2)] {
            let mut plan = plan(&Desired::default(), &observed, &ownership);
            restrain(&mut plan, &observed, &ownership, &settings, true, converged);
            assert_eq!(plan.steps.len(), steps);
        }
    }

    #[test]
    fn steps_say_what_and_why() {
        let route = Route::via(
            net("192.168.38.192/26"),
            "172.31.0.3".parse().unwrap(),
            "eth0",
            PROTOCOL,
        );
        let mut picture = Picture::default();
        picture
            .sources
            .insert(route.key(), crate::calculate::Source::block("n2"));
        let words = |step: Step| {
            Words {
                step: &step,
                picture: &picture,
            }
            .to_string()
        };
        assert_eq!(
            words(Step::AddRoute(route)),
            "add route 192.168.38.192/26 via 172.31.0.3 dev eth0 proto 80: block of node n2"
        );
        assert_eq!(
            words(Step::DeleteRoute(Route::blackhole(
                net("10.0.0.0/26"),
                PROTOCOL
            ))),
            "delete route blackhole 10.0.0.0/26 proto 80: nothing wants it"
        );
        let neighbour = Neighbour::permanent(
            "10.0.0.1".parse().unwrap(),
            "02:00:00:00:00:01".parse().unwrap(),
            "cali1",
        );
        assert_eq!(
            words(Step::SetNeighbour(neighbour)),
            "set neighbour 10.0.0.1 dev cali1 lladdr 02:00:00:00:00:01"
        );
    }
}
