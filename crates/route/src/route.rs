//! A route as the kernel keeps it, with interfaces by name.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

/// The protocol number on routes that Margay's agent installs.
pub const PROTOCOL: u8 = 80;

/// `RTPROT_BOOT`: routes that the network plugin leaves until the agent adopts them.
pub const PROTOCOL_BOOT: u8 = 3;

/// `RTPROT_KERNEL`: routes that follow from addresses.
pub const PROTOCOL_KERNEL: u8 = 2;

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;

/// The metric the kernel gives an IPv6 route that names none (`IP6_RT_PRIO_USER`).
const DEFAULT_METRIC_V6: u32 = 1024;

/// How far a route's destination is (`rtm_scope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Scope {
    /// Anywhere, through a gateway.
    Universe,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Any other value.
    Other(u8),
}

impl From<u8> for Scope {
    fn from(value: u8) -> Self {
        match value {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }
}

impl From<Scope> for u8 {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Universe => 0,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Other(other) => other,
        }
    }
}

/// One way out of a unicast route.
///
/// The interface is always named: the planner compares values, so no choice is left to the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NextHop {
    /// The gateway; `None` if the destination is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The outgoing interface's name.
    pub interface: String,
    /// Take the gateway to be on the link although no address says so (`RTNH_F_ONLINK`).
    pub onlink: bool,
    /// Share of traffic among the next hops, 1 to 256.
    pub weight: u16,
}

/// What becomes of a packet that matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum RouteKind {
    /// It leaves by one of these; never empty.
    Unicast {
        /// The next hops.
        via: Vec<NextHop>,
    },
    /// It is dropped in silence.
    Blackhole,
    /// It is dropped with ICMP "unreachable".
    Unreachable,
    /// It is dropped with ICMP "prohibited".
    Prohibit,
    /// The look-up goes on in the next table.
    Throw,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// The destination; host bits are zero in canonical form.
    pub dst: IpNetwork,
    /// What becomes of a packet.
    pub kind: RouteKind,
    /// Who installed it (`rtm_protocol`).
    pub protocol: u8,
    /// How far the destination is; the kernel keeps none for IPv6.
    pub scope: Scope,
    /// Lower wins; 0 means the family's default.
    pub metric: u32,
    /// The routing table.
    pub table: u32,
    /// The preferred source address of the host's own packets.
    pub src: Option<IpAddr>,
}

impl Route {
    /// `<dst> dev <interface> scope link` in the main table.
    #[must_use]
    pub fn on_link(dst: IpNetwork, interface: &str, protocol: u8) -> Self {
        let hop = NextHop {
            gateway: None,
            interface: interface.to_owned(),
            onlink: false,
            weight: 1,
        };
        Self::new(
            dst,
            RouteKind::Unicast { via: vec![hop] },
            protocol,
            Scope::Link,
        )
    }

    /// `<dst> via <gateway> dev <interface>` in the main table.
    #[must_use]
    pub fn via(dst: IpNetwork, gateway: IpAddr, interface: &str, protocol: u8) -> Self {
        let hop = NextHop {
            gateway: Some(gateway),
            interface: interface.to_owned(),
            onlink: false,
            weight: 1,
        };
        Self::new(
            dst,
            RouteKind::Unicast { via: vec![hop] },
            protocol,
            Scope::Universe,
        )
    }

    /// `<dst>` over several next hops at once, in the main table.
    #[must_use]
    pub fn multipath(dst: IpNetwork, via: Vec<NextHop>, protocol: u8) -> Self {
        Self::new(dst, RouteKind::Unicast { via }, protocol, Scope::Universe)
    }

    /// `blackhole <dst>` in the main table.
    #[must_use]
    pub fn blackhole(dst: IpNetwork, protocol: u8) -> Self {
        Self::new(dst, RouteKind::Blackhole, protocol, Scope::Universe)
    }

    fn new(dst: IpNetwork, kind: RouteKind, protocol: u8, scope: Scope) -> Self {
        Self {
            dst,
            kind,
            protocol,
            scope,
            metric: 0,
            table: TABLE_MAIN,
            src: None,
        }
        .canonical()
    }

    /// The same route in the one form in which the kernel reports it, so that equal routes are
    /// equal values.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        if let Ok(dst) = IpNetwork::new(self.dst.network(), self.dst.prefix()) {
            self.dst = dst;
        }
        if self.dst.is_ipv6() {
            self.scope = Scope::Universe;
            if self.metric == 0 {
                self.metric = DEFAULT_METRIC_V6;
            }
        }
        match &mut self.kind {
            RouteKind::Unicast { via } => {
                via.sort();
                via.dedup();
                if let [only] = via.as_mut_slice() {
                    only.weight = 1;
                }
                for hop in via {
                    hop.weight = hop.weight.clamp(1, 256);
                }
            }
            RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => self.scope = Scope::Universe,
        }
        self
    }

    /// Refuses a route that the kernel could not hold.
    ///
    /// # Errors
    /// [`RouteError`] names the destination and the reason.
    pub fn validate(&self) -> Result<(), RouteError> {
        let dst = self.dst;
        let foreign = |address: &IpAddr| address.is_ipv4() != dst.is_ipv4();
        if let Some(address) = self.src.filter(foreign) {
            return Err(RouteError::Family { dst, address });
        }
        let RouteKind::Unicast { via } = &self.kind else {
            return Ok(());
        };
        if via.is_empty() {
            return Err(RouteError::NoNextHop { dst });
        }
        match via.iter().filter_map(|hop| hop.gateway).find(foreign) {
            Some(address) => Err(RouteError::Family { dst, address }),
            None => Ok(()),
        }
    }

    /// What the kernel holds at most one of, as far as we add routes.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey {
            table: self.table,
            dst: self.dst,
            metric: self.metric,
        }
    }

    /// The names of the interfaces by which it leaves.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let via = match &self.kind {
            RouteKind::Unicast { via } => via.as_slice(),
            _ => &[],
        };
        via.iter().map(|hop| hop.interface.as_str())
    }
}

/// The identity of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteKey {
    /// The routing table.
    pub table: u32,
    /// The destination.
    pub dst: IpNetwork,
    /// The metric, never 0 for IPv6.
    pub metric: u32,
}

/// A route that the kernel could not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// A unicast route without a way out.
    #[error("route to {dst} has no next hop")]
    NoNextHop {
        /// The destination.
        dst: IpNetwork,
    },
    /// A gateway or source address of the other family.
    #[error("route to {dst} names {address}, an address of the other family")]
    Family {
        /// The destination.
        dst: IpNetwork,
        /// The gateway or source address.
        address: IpAddr,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_is_what_the_kernel_reports() {
        let route = Route {
            dst: "2001:db8::1/64".parse().unwrap(),
            kind: RouteKind::Unicast {
                via: vec![NextHop {
                    gateway: None,
                    interface: "eth0".to_owned(),
                    onlink: false,
                    weight: 7,
                }],
            },
            protocol: PROTOCOL,
            scope: Scope::Link,
            metric: 0,
            table: TABLE_MAIN,
            src: None,
        }
        .canonical();
        assert_eq!(route.dst, "2001:db8::/64".parse().unwrap());
        assert_eq!(route.scope, Scope::Universe);
        assert_eq!(route.metric, 1024);
        assert_eq!(route.clone().canonical(), route);
    }

    #[test]
    fn impossible_routes_are_refused() {
        let dst = "10.0.0.0/24".parse().unwrap();
        let empty = Route::multipath(dst, Vec::new(), PROTOCOL);
        assert_eq!(empty.validate(), Err(RouteError::NoNextHop { dst }));
        let address = "2001:db8::1".parse().unwrap();
        let mixed = Route::via(dst, address, "eth0", PROTOCOL);
        assert_eq!(mixed.validate(), Err(RouteError::Family { dst, address }));
    }
}
