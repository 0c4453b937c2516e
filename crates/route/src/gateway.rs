//! The gateway that every workload sees: its addresses, its MAC, and what makes a host answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use crate::{Mac, Route};

/// The IPv4 gateway of every workload; no interface bears it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The IPv6 gateway of every workload: the link-local address derived from [`GATEWAY_MAC`], which
/// the host end of each pair bears.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xecee, 0xeeff, 0xfeee, 0xeeee);

/// The MAC of the host end of every pair.
pub const GATEWAY_MAC: Mac = Mac([0xee; 6]);

/// The host route that makes `proxy_arp` answer for [`GATEWAY_V4`] whatever else is routed:
/// `169.254.1.1/32 dev lo scope link`.
///
/// The kernel (`arp_process`) proxies for an address only if its own route to it is unicast and
/// leaves through another interface than the one asked on. A host with a default route on an
/// uplink meets that by accident; one without (a fabric that hands out only specific routes, a
/// machine whose uplink is down) stays silent. Measured on Linux 6.18:
///
/// | the host's route to 169.254.1.1 | answer to ARP |
/// |---|---|
/// | none, or none but a proxy neighbour entry (`ip neigh add proxy`) | no |
/// | `blackhole` | no |
/// | a default route through an uplink | yes |
/// | `unicast … dev lo scope link` | yes |
/// | `local … dev lo` | yes, but the host's own services answer there too |
///
/// The ruleset must drop what is forwarded *to* [`GATEWAY_V4`]: nothing legitimate is, and a
/// packet routed to `lo` keeps its route when it comes back in, so it goes round until its time
/// to live is spent, up to 254 times the cost of one. (Without this route such packets leave by
/// the default route instead.)
///
/// Workloads set up by Margay hold a permanent neighbour entry for the gateway and never ask;
/// this serves those set up by others, and guests that flush their neighbour cache.
#[must_use]
pub fn gateway_answer(protocol: u8) -> Route {
    let dst = IpNetwork::V4(Ipv4Network::from(GATEWAY_V4));
    Route::on_link(dst, "lo", protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v6_gateway_is_the_eui64_address_of_the_gateway_mac() {
        let mac = GATEWAY_MAC.0;
        let eui64 = [
            mac[0] ^ 0x02,
            mac[1],
            mac[2],
            0xff,
            0xfe,
            mac[3],
            mac[4],
            mac[5],
        ];
        assert_eq!(GATEWAY_V6.octets()[..8], [0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
        assert_eq!(GATEWAY_V6.octets()[8..], eui64);
    }
}
