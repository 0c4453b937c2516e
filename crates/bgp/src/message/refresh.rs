//! ROUTE-REFRESH: asking for routes again (RFC 2918, RFC 7313).

use margay_model::Family;

use super::wire::{self, Reader};
use super::{Code, Notification};

/// A ROUTE-REFRESH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// The family.
    pub family: Family,
    /// What is said about it.
    pub kind: RefreshKind,
}

/// What a ROUTE-REFRESH says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshKind {
    /// Send all your routes again.
    Request,
    /// All my routes begin here.
    Begin,
    /// All my routes end here.
    End,
}

impl Refresh {
    pub(super) fn decode(message: &[u8], body: &[u8]) -> Result<Option<Self>, Notification> {
        let mut reader = Reader::new(body);
        let (Some(afi), Some(subtype), Some(safi)) = (reader.u16(), reader.u8(), reader.u8())
        else {
            return Err(Notification::with_data(Code::Refresh, 1, message));
        };
        let kind = match subtype {
            0 => RefreshKind::Request,
            1 => RefreshKind::Begin,
            2 => RefreshKind::End,
            _ => return Ok(None),
        };
        // A request may carry filters (RFC 5291), which were not agreed on; the others may not.
        if kind != RefreshKind::Request && !reader.is_empty() {
            return Err(Notification::with_data(Code::Refresh, 1, message));
        }
        Ok(wire::family(afi, safi).map(|family| Self { family, kind }))
    }
}

impl RefreshKind {
    pub(super) fn octet(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Begin => 1,
            Self::End => 2,
        }
    }
}
