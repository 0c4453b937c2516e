//! OPEN, as `bgpkit-parser` has it.

use bgpkit_parser::models::capabilities::{
    AddPathAddressFamily, AddPathCapability, AddPathSendReceive, BgpCapabilityType,
    ExtendedNextHopCapability, ExtendedNextHopEntry, FourOctetAsCapability,
    GracefulRestartAddressFamily, GracefulRestartCapability, MultiprotocolExtensionsCapability,
    RouteRefreshCapability,
};
use bgpkit_parser::models::{
    Afi, Asn, BgpMessage, BgpOpenMessage, Capability as Theirs, CapabilityValue, OptParam,
    ParamValue, Safi,
};
use margay_bgp::Capability;
use margay_bgp::message::{AddPathMode, GracefulFamily, Open};
use margay_model::Family;
use margay_model::scalar::AsNumber;

use super::{afi, read, write};
use crate::{Session, two_octet_as};

/// Reads an OPEN. What it does not know is [`Capability::Other`].
///
/// # Errors
/// Its words, or what is no OPEN.
pub fn read_open(octets: &[u8]) -> Result<Open, String> {
    let BgpMessage::Open(open) = read(octets, ANY)? else {
        return Err("no OPEN".to_owned());
    };
    let mut capabilities = Vec::new();
    for parameter in &open.opt_params {
        let ParamValue::Capacities(list) = &parameter.param_value else {
            return Err(format!("parameter {}", parameter.param_type));
        };
        capabilities.extend(list.iter().map(capability));
    }
    let long = capabilities.iter().find_map(|one| match one {
        Capability::FourOctetAs(asn) => Some(*asn),
        _ => None,
    });
    Ok(Open {
        asn: long.unwrap_or(AsNumber(open.asn.into())),
        hold_time: open.hold_time,
        router_id: open.bgp_identifier,
        capabilities,
    })
}

/// Writes an OPEN, each capability in a parameter of its own if they are to be `apart`.
///
/// # Errors
/// Its words, or a capability that it does not know.
pub fn write_open(open: &Open, apart: bool) -> Result<Vec<u8>, String> {
    let list = open.capabilities.iter().map(capability_to);
    let list: Vec<Theirs> = list.collect::<Result<_, _>>()?;
    let size = if apart { 1 } else { list.len().max(1) };
    let parameters = list.chunks(size).map(|list| OptParam {
        param_type: 2,
        param_value: ParamValue::Capacities(list.to_vec()),
    });
    let open = BgpOpenMessage {
        version: 4,
        asn: Asn::new_32bit(two_octet_as(open.asn).0),
        hold_time: open.hold_time,
        bgp_identifier: open.router_id,
        extended_length: false,
        opt_params: parameters.collect(),
    };
    write(&BgpMessage::Open(open), ANY)
}

fn capability(one: &Theirs) -> Capability {
    let code = u8::from(one.ty);
    let other = |value: &[u8]| Capability::Other {
        code,
        value: value.to_vec(),
    };
    match &one.value {
        CapabilityValue::MultiprotocolExtensions(value) => match family(value.afi, value.safi) {
            Some(family) => Capability::Multiprotocol(family),
            None => other(&value.encode()),
        },
        CapabilityValue::RouteRefresh(_) => Capability::RouteRefresh,
        CapabilityValue::ExtendedNextHop(value) => {
            if value.supports(Afi::Ipv4, Safi::Unicast, Afi::Ipv6) {
                Capability::ExtendedNextHop
            } else {
                other(&value.encode())
            }
        }
        CapabilityValue::GracefulRestart(value) => Capability::GracefulRestart {
            restarted: value.restart_state,
            notification: false,
            time: value.restart_time,
            families: value
                .address_families
                .iter()
                .filter_map(|one| {
                    Some(GracefulFamily {
                        family: family(one.afi, one.safi)?,
                        forwarding: one.forwarding_state,
                    })
                })
                .collect(),
        },
        CapabilityValue::FourOctetAs(value) => Capability::FourOctetAs(AsNumber(value.asn)),
        CapabilityValue::AddPath(value) => {
            let families = value.address_families.iter().filter_map(|one| {
                let mode = match one.send_receive {
                    AddPathSendReceive::Receive => AddPathMode::Receive,
                    AddPathSendReceive::Send => AddPathMode::Send,
                    AddPathSendReceive::SendReceive => AddPathMode::Both,
                };
                Some((family(one.afi, one.safi)?, mode))
            });
            Capability::AddPath(families.collect())
        }
        CapabilityValue::Raw(value) => other(value),
        CapabilityValue::BgpRole(value) => other(&value.encode()),
        CapabilityValue::BgpExtendedMessage(value) => other(&value.encode()),
    }
}

fn capability_to(one: &Capability) -> Result<Theirs, String> {
    let (ty, value) = match one {
        Capability::Multiprotocol(family) => (
            BgpCapabilityType::MULTIPROTOCOL_EXTENSIONS_FOR_BGP_4,
            CapabilityValue::MultiprotocolExtensions(MultiprotocolExtensionsCapability::new(
                afi(*family),
                Safi::Unicast,
            )),
        ),
        Capability::RouteRefresh => (
            BgpCapabilityType::ROUTE_REFRESH_CAPABILITY_FOR_BGP_4,
            CapabilityValue::RouteRefresh(RouteRefreshCapability::new()),
        ),
        Capability::ExtendedNextHop => (
            BgpCapabilityType::EXTENDED_NEXT_HOP_ENCODING,
            CapabilityValue::ExtendedNextHop(ExtendedNextHopCapability::new(vec![
                ExtendedNextHopEntry {
                    nlri_afi: Afi::Ipv4,
                    nlri_safi: Safi::Unicast,
                    nexthop_afi: Afi::Ipv6,
                },
            ])),
        ),
        Capability::GracefulRestart {
            restarted,
            notification: false,
            time,
            families,
        } => {
            let families = families.iter().map(|one| GracefulRestartAddressFamily {
                afi: afi(one.family),
                safi: Safi::Unicast,
                forwarding_state: one.forwarding,
            });
            let value = GracefulRestartCapability::new(*restarted, *time, families.collect());
            (
                BgpCapabilityType::GRACEFUL_RESTART_CAPABILITY,
                CapabilityValue::GracefulRestart(value),
            )
        }
        Capability::FourOctetAs(asn) => (
            BgpCapabilityType::SUPPORT_FOR_4_OCTET_AS_NUMBER_CAPABILITY,
            CapabilityValue::FourOctetAs(FourOctetAsCapability::new(asn.0)),
        ),
        Capability::AddPath(families) => {
            let families = families.iter().map(|(family, mode)| AddPathAddressFamily {
                afi: afi(*family),
                safi: Safi::Unicast,
                send_receive: match mode {
                    AddPathMode::Receive => AddPathSendReceive::Receive,
                    AddPathMode::Send => AddPathSendReceive::Send,
                    AddPathMode::Both => AddPathSendReceive::SendReceive,
                },
            });
            let value = AddPathCapability::new(families.collect());
            (
                BgpCapabilityType::ADD_PATH_CAPABILITY,
                CapabilityValue::AddPath(value),
            )
        }
        Capability::Other { code, value } => (
            BgpCapabilityType::from(*code),
            CapabilityValue::Raw(value.clone()),
        ),
        unknown => return Err(format!("{unknown:?} is not known")),
    };
    Ok(Theirs { ty, value })
}

fn family(afi: Afi, safi: Safi) -> Option<Family> {
    match (afi, safi) {
        (Afi::Ipv4, Safi::Unicast) => Some(Family::V4),
        (Afi::Ipv6, Safi::Unicast) => Some(Family::V6),
        _ => None,
    }
}

/// OPEN depends on no session.
const ANY: Session = Session {
    four_octet_as: true,
    add_path: false,
};
