//! Capabilities (RFC 5492).

use margay_model::Family;
use margay_model::scalar::AsNumber;
use serde::Serialize;

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
