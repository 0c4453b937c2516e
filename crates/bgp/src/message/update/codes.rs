//! The flags and type codes of path attributes (RFC 4271 §4.3 and IANA's registry).

pub(in crate::message) const OPTIONAL: u8 = 0x80;
pub(in crate::message) const TRANSITIVE: u8 = 0x40;
pub(in crate::message) const PARTIAL: u8 = 0x20;
pub(in crate::message) const EXTENDED_LENGTH: u8 = 0x10;

pub(in crate::message) const ORIGIN: u8 = 1;
pub(in crate::message) const AS_PATH: u8 = 2;
pub(in crate::message) const NEXT_HOP: u8 = 3;
pub(in crate::message) const MED: u8 = 4;
pub(in crate::message) const LOCAL_PREF: u8 = 5;
pub(in crate::message) const ATOMIC_AGGREGATE: u8 = 6;
pub(in crate::message) const AGGREGATOR: u8 = 7;
pub(in crate::message) const COMMUNITIES: u8 = 8;
pub(in crate::message) const ORIGINATOR_ID: u8 = 9;
pub(in crate::message) const CLUSTER_LIST: u8 = 10;
pub(in crate::message) const MP_REACH: u8 = 14;
pub(in crate::message) const MP_UNREACH: u8 = 15;
pub(in crate::message) const EXTENDED_COMMUNITIES: u8 = 16;
pub(in crate::message) const AS4_PATH: u8 = 17;
pub(in crate::message) const AS4_AGGREGATOR: u8 = 18;
pub(in crate::message) const LARGE_COMMUNITY: u8 = 32;
