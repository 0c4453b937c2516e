//! Capabilities (RFC 5492).

use margay_model::Family;
use margay_model::scalar::AsNumber;
use serde::Serialize;

use super::wire::{self, Reader};

/// What a speaker announces that it can do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Routes of a family (RFC 4760), code 1.
    Multiprotocol(Family),
    /// ROUTE-REFRESH (RFC 2918), code 2.
    RouteRefresh,
    /// IPv4 routes with IPv6 next hops (RFC 8950), code 5.
    ExtendedNextHop,
    /// Graceful restart (RFC 4724, RFC 8538), code 64.
    GracefulRestart {
        /// The R bit: the speaker has restarted.
        restarted: bool,
        /// The N bit: NOTIFICATION does not end forwarding either.
        notification: bool,
        /// The restart time in seconds, to 4095.
        time: u16,
        /// The families.
        families: Vec<GracefulFamily>,
    },
    /// AS numbers of four octets (RFC 6793), code 65.
    FourOctetAs(AsNumber),
    /// Several paths for a prefix (RFC 7911), code 69.
    AddPath(Vec<(Family, AddPathMode)>),
    /// Enhanced ROUTE-REFRESH (RFC 7313), code 70.
    EnhancedRefresh,
    /// Long-lived graceful restart (RFC 9494), code 71.
    LongLivedRestart(Vec<LongLivedFamily>),
    /// Any other, or one of the above for families that are not ours.
    Other {
        /// The code.
        code: u8,
        /// The value.
        value: Vec<u8>,
    },
}

/// A family in a graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct GracefulFamily {
    /// The family.
    pub family: Family,
    /// The F bit: forwarding went on during the restart.
    pub forwarding: bool,
}

/// A family in a long-lived graceful restart capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct LongLivedFamily {
    /// The family.
    pub family: Family,
    /// The F bit.
    pub forwarding: bool,
    /// The long-lived stale time in seconds, to 16777215.
    pub time: u32,
}

/// What a speaker can do with several paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddPathMode {
    /// Receive them.
    Receive,
    /// Send them.
    Send,
    /// Both.
    Both,
}

impl AddPathMode {
    /// Whether several paths are received.
    #[must_use]
    pub fn receives(self) -> bool {
        self != Self::Send
    }

    /// Whether several paths are sent.
    #[must_use]
    pub fn sends(self) -> bool {
        self != Self::Receive
    }
}

impl Capability {
    /// Reads all capabilities of an optional parameter; `None` if it is cut short.
    pub(super) fn decode_all(value: &[u8], into: &mut Vec<Self>) -> Option<()> {
        let mut reader = Reader::new(value);
        while !reader.is_empty() {
            let code = reader.u8()?;
            let length = usize::from(reader.u8()?);
            let value = reader.bytes(length)?;
            let capability = Self::decode(code, Reader::new(value));
            into.push(capability.unwrap_or_else(|| Self::Other {
                code,
                value: value.to_vec(),
            }));
        }
        Some(())
    }

    /// Reads a capability's value; `None` if it is not known or does not fit.
    fn decode(code: u8, mut reader: Reader<'_>) -> Option<Self> {
        let capability = match code {
            MULTIPROTOCOL => {
                let (afi, _, safi) = (reader.u16()?, reader.u8()?, reader.u8()?);
                Self::Multiprotocol(wire::family(afi, safi)?)
            }
            ROUTE_REFRESH => Self::RouteRefresh,
            EXTENDED_NEXT_HOP => {
                let mut found = false;
                while !reader.is_empty() {
                    let (afi, safi, hop) = (reader.u16()?, reader.u16()?, reader.u16()?);
                    found |= (afi, safi, hop) == (1, 1, 2);
                }
                found.then_some(Self::ExtendedNextHop)?
            }
            GRACEFUL_RESTART => {
                let head = reader.u16()?;
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
                    let forwarding = flags & FORWARDING != 0;
                    let family = wire::family(afi, safi);
                    families.extend(family.map(|family| GracefulFamily { family, forwarding }));
                }
                Self::GracefulRestart {
                    restarted: head & RESTARTED != 0,
                    notification: head & NOTIFICATION != 0,
                    time: head & RESTART_TIME_MAX,
                    families,
                }
            }
            FOUR_OCTET_AS => Self::FourOctetAs(AsNumber(reader.u32()?)),
            ADD_PATH => {
                let mut modes = Vec::new();
                while !reader.is_empty() {
                    let (afi, safi, mode) = (reader.u16()?, reader.u8()?, reader.u8()?);
                    let mode = match mode {
                        1 => Some(AddPathMode::Receive),
                        2 => Some(AddPathMode::Send),
                        3 => Some(AddPathMode::Both),
                        _ => None,
                    };
                    modes.extend(wire::family(afi, safi).zip(mode));
                }
                Self::AddPath(modes)
            }
            ENHANCED_REFRESH => Self::EnhancedRefresh,
            LONG_LIVED => {
                let mut families = Vec::new();
                while !reader.is_empty() {
                    let (afi, safi, flags) = (reader.u16()?, reader.u8()?, reader.u8()?);
                    let [high, middle, low] = reader.array::<3>()?;
                    let time = u32::from_be_bytes([0, high, middle, low]);
                    let forwarding = flags & FORWARDING != 0;
                    let family = wire::family(afi, safi);
                    families.extend(family.map(|family| LongLivedFamily {
                        family,
                        forwarding,
                        time,
                    }));
                }
                Self::LongLivedRestart(families)
            }
            _ => return None,
        };
        reader.is_empty().then_some(capability)
    }

    /// Writes the capability: code, length, value.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut value = Vec::new();
        let code = self.encode_value(&mut value);
        value.truncate(usize::from(u8::MAX));
        out.push(code);
        out.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        out.extend(value);
    }

    fn encode_value(&self, value: &mut Vec<u8>) -> u8 {
        match self {
            Self::Multiprotocol(family) => {
                value.extend(wire::afi(*family).to_be_bytes());
                value.extend([0, wire::UNICAST]);
                MULTIPROTOCOL
            }
            Self::RouteRefresh => ROUTE_REFRESH,
            Self::ExtendedNextHop => {
                value.extend([0, 1, 0, 1, 0, 2]);
                EXTENDED_NEXT_HOP
            }
            Self::GracefulRestart {
                restarted,
                notification,
                time,
                families,
            } => {
                let mut head = (*time).min(RESTART_TIME_MAX);
                head |= if *restarted { RESTARTED } else { 0 };
                head |= if *notification { NOTIFICATION } else { 0 };
                value.extend(head.to_be_bytes());
                for GracefulFamily { family, forwarding } in families {
                    value.extend(wire::afi(*family).to_be_bytes());
                    value.extend([wire::UNICAST, if *forwarding { FORWARDING } else { 0 }]);
                }
                GRACEFUL_RESTART
            }
            Self::FourOctetAs(asn) => {
                value.extend(asn.0.to_be_bytes());
                FOUR_OCTET_AS
            }
            Self::AddPath(modes) => {
                for (family, mode) in modes {
                    value.extend(wire::afi(*family).to_be_bytes());
                    let mode = match mode {
                        AddPathMode::Receive => 1,
                        AddPathMode::Send => 2,
                        AddPathMode::Both => 3,
                    };
                    value.extend([wire::UNICAST, mode]);
                }
                ADD_PATH
            }
            Self::EnhancedRefresh => ENHANCED_REFRESH,
            Self::LongLivedRestart(families) => {
                for LongLivedFamily {
                    family,
                    forwarding,
                    time,
                } in families
                {
                    value.extend(wire::afi(*family).to_be_bytes());
                    value.extend([wire::UNICAST, if *forwarding { FORWARDING } else { 0 }]);
                    let [_, time @ ..] = (*time).min(LONG_LIVED_TIME_MAX).to_be_bytes();
                    value.extend(time);
                }
                LONG_LIVED
            }
            Self::Other {
                code,
                value: octets,
            } => {
                value.extend_from_slice(octets);
                *code
            }
        }
    }
}

/// The longest restart time, in seconds: twelve bits.
pub(crate) const RESTART_TIME_MAX: u16 = 0x0fff;
/// The longest long-lived stale time, in seconds: three octets.
pub(crate) const LONG_LIVED_TIME_MAX: u32 = 0x00ff_ffff;
const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;
const RESTARTED: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const FORWARDING: u8 = 0x80;
