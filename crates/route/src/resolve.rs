//! Next-hop tracking: by which hops an address is reached.

use std::net::IpAddr;

use crate::{InterfaceAddresses, NextHop, Route, RouteKind, on_link};

/// The hops by which `address` is reached: itself where it is on a link, else those of the longest
/// of `routes` that leads there. `None` if nothing does.
///
/// `routes` are to be those that do not themselves depend on what is being resolved: the host's, and
/// others that have been resolved already. A default route leads everywhere.
#[must_use]
pub fn resolve(
    address: IpAddr,
    uplinks: &[InterfaceAddresses],
    routes: &[&Route],
) -> Option<Vec<NextHop>> {
    if let Some(uplink) = on_link(address, uplinks) {
        return Some(vec![hop(address, &uplink.name)]);
    }
    let leads_there = routes
        .iter()
        .filter(|route| route.dst.contains(address))
        .min_by_key(|route| (std::cmp::Reverse(route.dst.prefix()), route.metric))?;
    let RouteKind::Unicast { via } = &leads_there.kind else {
        return None;
    };
    let mut hops = Vec::new();
    for way in via {
        match way.gateway {
            Some(_) => hops.push(way.clone()),
            // The destination is on the link itself.
            None => hops.push(hop(address, &way.interface)),
        }
    }
    (!hops.is_empty()).then_some(hops)
}

fn hop(gateway: IpAddr, interface: &str) -> NextHop {
    NextHop {
        gateway: Some(gateway),
        interface: interface.to_owned(),
        onlink: false,
        weight: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PROTOCOL_BOOT;

    fn net(text: &str) -> ipnetwork::IpNetwork {
        text.parse().unwrap()
    }

    fn found(address: &str, routes: &[Route]) -> Option<Vec<String>> {
        let uplinks = [InterfaceAddresses {
            name: "eth0".to_owned(),
            addresses: vec![net("10.0.0.1/24")],
        }];
        let routes: Vec<&Route> = routes.iter().collect();
        let hops = resolve(address.parse().unwrap(), &uplinks, &routes)?;
        let text = |hop: &NextHop| format!("{} {}", hop.gateway.unwrap(), hop.interface);
        Some(hops.iter().map(text).collect())
    }

    #[test]
    fn links_first_then_the_longest_route() {
        let via = |dst: &str, gateway: &str, metric| Route {
            metric,
            ..Route::via(net(dst), gateway.parse().unwrap(), "eth0", PROTOCOL_BOOT)
        };
        let routes = [
            via("0.0.0.0/0", "10.0.0.254", 0),
            via("10.9.0.0/16", "10.0.0.253", 100),
            via("10.9.0.0/16", "10.0.0.252", 50),
            Route::on_link(net("10.8.0.7/32"), "ppp0", PROTOCOL_BOOT),
            Route::blackhole(net("10.7.0.0/16"), PROTOCOL_BOOT),
        ];
        let one = |text: &str| Some(vec![text.to_owned()]);
        assert_eq!(found("10.0.0.9", &routes), one("10.0.0.9 eth0"));
        assert_eq!(found("10.9.1.1", &routes), one("10.0.0.252 eth0"));
        assert_eq!(found("10.8.0.7", &routes), one("10.8.0.7 ppp0"));
        assert_eq!(found("192.0.2.1", &routes), one("10.0.0.254 eth0"));
        assert_eq!(found("10.7.1.1", &routes), None);
        assert_eq!(found("192.0.2.1", &[]), None);
        assert_eq!(found("fd00::1", &routes), None);
    }

    #[test]
    fn several_hops_stay_several() {
        let hops = ["10.0.0.2", "10.0.0.3"].map(|gateway| hop(gateway.parse().unwrap(), "eth0"));
        let route = Route::multipath(net("10.9.0.0/16"), hops.to_vec(), PROTOCOL_BOOT);
        let hops = found("10.9.1.1", &[route]).unwrap();
        assert_eq!(hops, ["10.0.0.2 eth0", "10.0.0.3 eth0"]);
    }
}
