//! OPEN, as `netgauze-bgp-pkt` has it.

use margay_bgp::Capability;
use margay_bgp::message::{AddPathMode, GracefulFamily, LongLivedFamily, Open};
use margay_model::Family;
use margay_model::scalar::AsNumber;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::capabilities::{
    AddPathAddressFamily, AddPathCapability, BgpCapability, ExtendedNextHopEncoding,
    ExtendedNextHopEncodingCapability, FourOctetAsCapability, GracefulRestartAddressFamily,
    GracefulRestartCapability, LongLivedGracefulRestartAddressFamily,
    LongLivedGracefulRestartCapability, MultiProtocolExtensionsCapability, UnrecognizedCapability,
};
use netgauze_bgp_pkt::open::{BgpOpenMessage, BgpOpenMessageParameter};
use netgauze_iana::address_family::{AddressFamily, AddressType};

use super::{read, write};
use crate::{Session, two_octet_as};

/// Reads an OPEN.
///
/// # Errors
/// Its words, or what is no OPEN, or a capability that no test gives it.
pub fn read_open(octets: &[u8]) -> Result<Open, String> {
    let session = Session {
        four_octet_as: true,
        add_path: false,
    };
    let BgpMessage::Open(open) = read(octets, session)? else {
        return Err("no OPEN".to_owned());
    };
    let capabilities = open.capabilities().into_iter().map(capability);
    Ok(Open {
        asn: AsNumber(open.my_asn4()),
        hold_time: open.hold_time(),
        router_id: open.bgp_id(),
        capabilities: capabilities.collect::<Result<_, _>>()?,
    })
}

/// Writes an OPEN, each capability in a parameter of its own if they are to be `apart`.
///
/// # Errors
/// Its words.
pub fn write_open(open: &Open, apart: bool) -> Result<Vec<u8>, String> {
    let list: Vec<BgpCapability> = open.capabilities.iter().map(capability_to).collect();
    let size = if apart { 1 } else { list.len().max(1) };
    let parameters = list.chunks(size);
    let parameters =
        parameters.map(|list| BgpOpenMessageParameter::new_capabilities(list.to_vec()));
    let short = u16::try_from(two_octet_as(open.asn).0).map_err(|error| error.to_string())?;
    let parameters: Vec<_> = parameters.collect();
    let open = BgpOpenMessage::new(short, open.hold_time, open.router_id, parameters);
    write(&BgpMessage::Open(open))
}

fn capability(one: &BgpCapability) -> Result<Capability, String> {
    let capability = match one {
        BgpCapability::MultiProtocolExtensions(value) => {
            Capability::Multiprotocol(family(value.address_type())?)
        }
        BgpCapability::RouteRefresh => Capability::RouteRefresh,
        BgpCapability::EnhancedRouteRefresh => Capability::EnhancedRefresh,
        BgpCapability::GracefulRestartCapability(value) => {
            let families = value.address_families().iter().map(|one| {
                Ok(GracefulFamily {
                    family: family(one.address_type())?,
                    forwarding: one.forwarding_state(),
                })
            });
            Capability::GracefulRestart {
                restarted: value.restart(),
                notification: value.graceful_notification(),
                time: value.time(),
                families: families.collect::<Result<_, String>>()?,
            }
        }
        BgpCapability::LongLivedGracefulRestart(value) => {
            let families = value.address_families().iter().map(|one| {
                Ok(LongLivedFamily {
                    family: family(one.address_type())?,
                    forwarding: one.forwarding_state(),
                    time: one.stale_time(),
                })
            });
            Capability::LongLivedRestart(families.collect::<Result<_, String>>()?)
        }
        BgpCapability::AddPath(value) => {
            let families = value.address_families().iter().map(|one| {
                let mode = match (one.send(), one.receive()) {
                    (true, true) => AddPathMode::Both,
                    (true, false) => AddPathMode::Send,
                    _ => AddPathMode::Receive,
                };
                Ok((family(one.address_type())?, mode))
            });
            Capability::AddPath(families.collect::<Result<_, String>>()?)
        }
        BgpCapability::FourOctetAs(value) => Capability::FourOctetAs(AsNumber(value.asn4())),
        BgpCapability::ExtendedNextHopEncoding(value) if value.encodings() == [ipv4_by_ipv6()] => {
            Capability::ExtendedNextHop
        }
        BgpCapability::Unrecognized(value) => Capability::Other {
            code: *value.code(),
            value: value.value().to_vec(),
        },
        other => return Err(format!("{other:?}")),
    };
    Ok(capability)
}

fn capability_to(one: &Capability) -> BgpCapability {
    match one {
        Capability::Multiprotocol(family) => BgpCapability::MultiProtocolExtensions(
            MultiProtocolExtensionsCapability::new(address_type(*family)),
        ),
        Capability::RouteRefresh => BgpCapability::RouteRefresh,
        Capability::EnhancedRefresh => BgpCapability::EnhancedRouteRefresh,
        Capability::GracefulRestart {
            restarted,
            notification,
            time,
            families,
        } => {
            let families = families.iter().map(|one| {
                GracefulRestartAddressFamily::new(one.forwarding, address_type(one.family))
            });
            BgpCapability::GracefulRestartCapability(GracefulRestartCapability::new(
                *restarted,
                *notification,
                *time,
                families.collect::<Vec<_>>(),
            ))
        }
        Capability::LongLivedRestart(families) => {
            let families = families.iter().map(|one| {
                let family = address_type(one.family);
                LongLivedGracefulRestartAddressFamily::new(one.forwarding, family, one.time)
            });
            let families: Vec<_> = families.collect();
            let value = LongLivedGracefulRestartCapability::new(families);
            BgpCapability::LongLivedGracefulRestart(value)
        }
        Capability::AddPath(families) => {
            let families = families.iter().map(|(family, mode)| {
                AddPathAddressFamily::new(address_type(*family), mode.sends(), mode.receives())
            });
            BgpCapability::AddPath(AddPathCapability::new(families.collect::<Vec<_>>()))
        }
        Capability::FourOctetAs(asn) => {
            BgpCapability::FourOctetAs(FourOctetAsCapability::new(asn.0))
        }
        Capability::ExtendedNextHop => {
            let value = ExtendedNextHopEncodingCapability::new([ipv4_by_ipv6()]);
            BgpCapability::ExtendedNextHopEncoding(value)
        }
        Capability::Other { code, value } => {
            BgpCapability::Unrecognized(UnrecognizedCapability::new(*code, value.clone()))
        }
    }
}

fn ipv4_by_ipv6() -> ExtendedNextHopEncoding {
    ExtendedNextHopEncoding::new(AddressType::Ipv4Unicast, AddressFamily::IPv6)
}

fn family(address_type: AddressType) -> Result<Family, String> {
    match address_type {
        AddressType::Ipv4Unicast => Ok(Family::V4),
        AddressType::Ipv6Unicast => Ok(Family::V6),
        other => Err(format!("{other:?}")),
    }
}

fn address_type(family: Family) -> AddressType {
    match family {
        Family::V4 => AddressType::Ipv4Unicast,
        Family::V6 => AddressType::Ipv6Unicast,
    }
}
