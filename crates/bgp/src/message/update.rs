//! UPDATE: routes, and what RFC 7606 makes of errors in them.

mod attributes;
pub(super) mod codes;
mod path;

use std::net::{IpAddr, Ipv6Addr};

use margay_model::{Cidr, Family};

use super::wire::{self, Reader};
use super::{Code, Context, Notification};
use crate::attribute::{Attributes, NextHop};
use attributes::Collected;

/// A prefix with its path identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Cidr,
    /// The path identifier (RFC 7911); 0 without add-path.
    pub path_id: u32,
}

/// An UPDATE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// Prefixes that are withdrawn, or taken as withdrawn because of an error.
    pub withdrawn: Vec<Nlri>,
    /// Prefixes that are announced; one item for each next hop.
    pub announced: Vec<Announcement>,
    /// The family whose routes have all been sent (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
    /// What is wrong with it.
    pub findings: Vec<Finding>,
}

/// Prefixes with the attributes they are announced with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The attributes.
    pub attributes: Attributes,
    /// The prefixes.
    pub nlri: Vec<Nlri>,
}

/// An error that the session survives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was done about it.
    pub action: ErrorAction,
    /// The attribute's type code.
    pub code: u8,
    /// What is wrong.
    pub what: &'static str,
    /// The attribute as received, from its flags on.
    pub octets: Vec<u8>,
}

/// What is done about an error (RFC 7606 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorAction {
    /// The attribute is passed over.
    Discard,
    /// The UPDATE's routes are taken as withdrawn.
    TreatAsWithdraw,
}

/// The prefixes of an MP_REACH_NLRI.
#[derive(Debug)]
struct Reach {
    next_hop: NextHop,
    nlri: Vec<Nlri>,
}

impl Update {
    pub(super) fn decode(body: &[u8], context: &Context) -> Result<Self, Notification> {
        let malformed = || Notification::new(Code::Update, 1);
        let mut reader = Reader::new(body);
        let length = usize::from(reader.u16().ok_or_else(malformed)?);
        let withdrawn = reader.bytes(length).ok_or_else(malformed)?;
        let length = usize::from(reader.u16().ok_or_else(malformed)?);
        let attributes = reader.bytes(length).ok_or_else(malformed)?;
        let announced = reader.rest();

        let mut update = Self::default();
        let bad_field = || Notification::new(Code::Update, 10);
        let withdrawn = nlri(withdrawn, Family::V4, context).ok_or_else(bad_field)?;
        let announced = nlri(announced, Family::V4, context).ok_or_else(bad_field)?;
        if body.len() == MINIMAL {
            update.end_of_rib = context.families.v4.then_some(Family::V4);
            return Ok(update);
        }
        let collected = Collected::read(attributes, context)?;
        if let Some(family) = collected.end_of_rib
            && withdrawn.is_empty()
            && announced.is_empty()
            && collected.single
        {
            update.end_of_rib = context.families.has(family).then_some(family);
        }
        if context.families.v4 {
            update.withdrawn = withdrawn;
        }
        update.withdrawn.extend(collected.unreach.iter().copied());
        if announced.is_empty() && !collected.reaches() {
            let alone = collected.single && collected.saw(codes::MP_UNREACH);
            let doubtful = collected.findings.iter().any(Finding::withdraws);
            if doubtful && !alone {
                // RFC 7606 §5.2: the error may hide the prefixes that it is about.
                return Err(malformed());
            }
            update.findings = collected.findings;
            return Ok(update);
        }
        update.announce(collected, announced, context);
        Ok(update)
    }

    /// Brings announced prefixes and their attributes together, or withdraws them.
    fn announce(&mut self, mut collected: Collected, announced: Vec<Nlri>, context: &Context) {
        let announced = if context.families.v4 {
            announced
        } else {
            Vec::new()
        };
        let reach = collected.reach.take();
        if announced.is_empty() && reach.is_none() {
            // All that is announced is of families that are not in use.
            self.findings = collected.findings;
            return;
        }
        if !announced.is_empty() && collected.next_hop.is_none() {
            collected.missing(codes::NEXT_HOP, "NEXT_HOP is missing");
        }
        let next_hop = collected.next_hop;
        let (attributes, findings) = collected.finish(context);
        self.findings = findings;
        let withdraw = self.findings.iter().any(Finding::withdraws);
        let legacy = next_hop.map(|address| (NextHop::new(IpAddr::V4(address)), announced.clone()));
        let groups = legacy
            .into_iter()
            .chain(reach.map(|reach| (reach.next_hop, reach.nlri)));
        let groups = groups.filter(|(_, nlri)| !nlri.is_empty());
        match attributes {
            Some(attributes) if !withdraw => {
                self.announced = groups
                    .map(|(next_hop, nlri)| Announcement {
                        attributes: Attributes {
                            next_hop,
                            ..attributes.clone()
                        },
                        nlri,
                    })
                    .collect();
            }
            _ => {
                if next_hop.is_none() {
                    self.withdrawn.extend(announced);
                }
                self.withdrawn.extend(groups.flat_map(|(_, nlri)| nlri));
            }
        }
    }
}

impl Finding {
    /// Whether the UPDATE's routes are taken as withdrawn.
    pub(crate) fn withdraws(&self) -> bool {
        self.action == ErrorAction::TreatAsWithdraw
    }
}

/// Reads prefixes up to the end; `None` if one does not fit.
fn nlri(octets: &[u8], family: Family, context: &Context) -> Option<Vec<Nlri>> {
    let add_path = context.families.has(family) && *context.add_path.get(family);
    let mut reader = Reader::new(octets);
    let mut list = Vec::new();
    while !reader.is_empty() {
        let path_id = if add_path { reader.u32()? } else { 0 };
        let prefix = reader.prefix(family)?;
        list.push(Nlri { prefix, path_id });
    }
    Some(list)
}

impl Reach {
    /// Reads an MP_REACH_NLRI; `Ok(None)` for a family that is not in use.
    ///
    /// An error leaves the prefixes unknown, so that only the end of the session remains
    /// (RFC 7606 §5.3, §7.11).
    fn decode(value: &[u8], context: &Context) -> Result<Option<Self>, ()> {
        let mut reader = Reader::new(value);
        let (afi, safi) = (reader.u16().ok_or(())?, reader.u8().ok_or(())?);
        let length = reader.u8().ok_or(())?;
        let hop = reader.bytes(usize::from(length)).ok_or(())?;
        // An octet that once counted SNPAs.
        reader.u8().ok_or(())?;
        let family = wire::family(afi, safi).filter(|family| context.families.has(*family));
        let Some(family) = family else {
            return Ok(None);
        };
        let mut hop = Reader::new(hop);
        let address = match length {
            4 if family == Family::V4 => IpAddr::V4(hop.ipv4().ok_or(())?),
            16 | 32 if family == Family::V6 || context.extended_next_hop => {
                IpAddr::V6(hop.ipv6().ok_or(())?)
            }
            _ => return Err(()),
        };
        let link_local = hop.ipv6().filter(Ipv6Addr::is_unicast_link_local);
        // Some send no global address beside the link-local one.
        let next_hop = match (address, link_local) {
            (IpAddr::V6(global), Some(local)) if global.is_unspecified() => NextHop {
                address: IpAddr::V6(local),
                link_local: None,
            },
            _ => NextHop {
                address,
                link_local,
            },
        };
        let nlri = nlri(reader.rest(), family, context).ok_or(())?;
        Ok(Some(Self { next_hop, nlri }))
    }
}

/// The length of an UPDATE that says nothing: End-of-RIB of IPv4.
const MINIMAL: usize = 4;
