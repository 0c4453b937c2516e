//! The path attributes of an UPDATE, read one by one, each error weighed as RFC 7606 §7 says.

use std::net::Ipv4Addr;

use margay_model::Family;
use margay_model::scalar::AsNumber;

use super::codes::*;
use super::path::{merge, read_path};
use super::{ErrorAction, Finding, Nlri, Reach, nlri};
use crate::attribute::{
    Aggregator, AsPath, Attributes, Community, ExtendedCommunity, LargeCommunity, Origin,
    UnknownAttribute,
};
use crate::message::open::AS_TRANS;
use crate::message::wire::{self, Reader};
use crate::message::{Code, Context, Notification};

/// What the attributes of an UPDATE say, before it is known whether they are complete.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// NEXT_HOP of the prefixes at the UPDATE's end.
    pub(super) next_hop: Option<Ipv4Addr>,
    /// MP_REACH_NLRI of a family in use.
    pub(super) reach: Option<Reach>,
    /// The prefixes of MP_UNREACH_NLRI.
    pub(super) unreach: Vec<Nlri>,
    /// The family of an MP_UNREACH_NLRI without prefixes.
    pub(super) end_of_rib: Option<Family>,
    /// Whether there is one attribute and no more.
    pub(super) single: bool,
    /// What is wrong.
    pub(super) findings: Vec<Finding>,
    origin: Option<Origin>,
    as_path: Option<AsPath>,
    med: Option<u32>,
    local_pref: Option<u32>,
    atomic_aggregate: bool,
    aggregator: Option<Aggregator>,
    communities: Vec<Community>,
    large_communities: Vec<LargeCommunity>,
    extended_communities: Vec<ExtendedCommunity>,
    originator_id: Option<Ipv4Addr>,
    cluster_list: Vec<Ipv4Addr>,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    unknown: Vec<UnknownAttribute>,
    /// The type codes that occurred, a bit each.
    seen: [u128; 2],
}

/// What an attribute's error leads to.
enum Fault {
    Discard(&'static str),
    Withdraw(&'static str),
    Reset,
}

impl Collected {
    /// Reads all attributes.
    ///
    /// # Errors
    /// What to tell the peer where prefixes cannot be made out.
    pub(super) fn read(attributes: &[u8], context: &Context) -> Result<Self, Notification> {
        let mut collected = Self::default();
        let mut count = 0_usize;
        let mut reader = Reader::new(attributes);
        while !reader.is_empty() {
            let start = reader.rest();
            count += 1;
            let Some((flags, code, value)) = header(&mut reader) else {
                let code = start.get(1).copied().unwrap_or(0);
                if matches!(code, MP_REACH | MP_UNREACH) {
                    // Its prefixes are lost (RFC 7606 §3 j).
                    return Err(Notification::with_data(Code::Update, 9, start));
                }
                let what = "attribute is longer than what is left";
                collected.find(ErrorAction::TreatAsWithdraw, code, what, start);
                break;
            };
            let octets = start.get(..start.len() - reader.len()).unwrap_or(start);
            if collected.saw(code) {
                if matches!(code, MP_REACH | MP_UNREACH) {
                    return Err(Notification::new(Code::Update, 1));
                }
                collected.find(ErrorAction::Discard, code, "attribute is repeated", octets);
                continue;
            }
            collected.seen[usize::from(code >> 7)] |= 1 << (code & 127);
            match collected.attribute(flags, code, value, context) {
                Ok(()) => {}
                Err(Fault::Discard(what)) => {
                    collected.find(ErrorAction::Discard, code, what, octets);
                }
                Err(Fault::Withdraw(what)) => {
                    collected.find(ErrorAction::TreatAsWithdraw, code, what, octets);
                }
                Err(Fault::Reset) => {
                    return Err(Notification::with_data(Code::Update, 9, octets));
                }
            }
        }
        collected.single = count == 1;
        Ok(collected)
    }

    /// Notes that an attribute that must be there is not, unless it is there with an error.
    pub(super) fn missing(&mut self, code: u8, what: &'static str) {
        if !self.saw(code) {
            self.find(ErrorAction::TreatAsWithdraw, code, what, &[]);
        }
    }

    /// Whether an attribute of this type occurred, right or wrong.
    pub(super) fn saw(&self, code: u8) -> bool {
        self.seen[usize::from(code >> 7)] & (1 << (code & 127)) != 0
    }

    /// Whether MP_REACH_NLRI announces prefixes; those of a family that is not in use are not
    /// counted, but presumed.
    pub(super) fn reaches(&self) -> bool {
        match &self.reach {
            Some(reach) => !reach.nlri.is_empty(),
            None => self.saw(MP_REACH),
        }
    }

    /// The attributes of announced prefixes, but for the next hop, and all findings; no attributes
    /// where one that must be there is not.
    pub(super) fn finish(mut self, context: &Context) -> (Option<Attributes>, Vec<Finding>) {
        if self.origin.is_none() {
            self.missing(ORIGIN, "ORIGIN is missing");
        }
        if self.as_path.is_none() {
            self.missing(AS_PATH, "AS_PATH is missing");
        }
        let (Some(origin), Some(mut as_path)) = (self.origin, self.as_path) else {
            return (None, self.findings);
        };
        let mut aggregator = self.aggregator;
        if !context.four_octet_as {
            // RFC 6793 §4.2.3: a real AS in AGGREGATOR shows that the four-octet twins are old.
            let outdated = aggregator.is_some_and(|aggregator| aggregator.asn != AS_TRANS)
                && self.as4_aggregator.is_some();
            if !outdated {
                aggregator = aggregator.map(|short| self.as4_aggregator.unwrap_or(short));
                if let Some(long) = self.as4_path {
                    as_path = merge(as_path, long);
                }
            }
        }
        let mut attributes = Attributes {
            origin,
            as_path,
            med: self.med,
            local_pref: self.local_pref,
            atomic_aggregate: self.atomic_aggregate,
            aggregator,
            communities: self.communities,
            large_communities: self.large_communities,
            extended_communities: self.extended_communities,
            originator_id: self.originator_id,
            cluster_list: self.cluster_list,
            unknown: self.unknown,
            ..Attributes::local(Ipv4Addr::UNSPECIFIED.into())
        };
        attributes.canonicalize();
        (Some(attributes), self.findings)
    }

    fn find(&mut self, action: ErrorAction, code: u8, what: &'static str, octets: &[u8]) {
        self.findings.push(Finding {
            action,
            code,
            what,
            octets: octets.to_vec(),
        });
    }

    fn attribute(
        &mut self,
        flags: u8,
        code: u8,
        value: &[u8],
        context: &Context,
    ) -> Result<(), Fault> {
        if context.external && matches!(code, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST) {
            return Err(Fault::Discard("attribute is for internal peers only"));
        }
        if context.four_octet_as && matches!(code, AS4_PATH | AS4_AGGREGATOR) {
            return Err(Fault::Discard(
                "attribute is for peers with two-octet AS numbers only",
            ));
        }
        let flags_fit = wanted_flags(code).is_none_or(|wanted| flags & KIND_FLAGS == wanted);
        let mut reader = Reader::new(value);
        match code {
            // These name prefixes, which are needed whatever else is wrong.
            MP_REACH => self.reach = Reach::decode(value, context).map_err(|()| Fault::Reset)?,
            MP_UNREACH => self.unreach(reader, context).ok_or(Fault::Reset)?,
            AS4_PATH | AS4_AGGREGATOR if !flags_fit => {
                return Err(Fault::Discard("attribute's flags are wrong"));
            }
            _ => {}
        }
        if !flags_fit {
            return Err(Fault::Withdraw("attribute's flags are wrong"));
        }
        match code {
            MP_REACH | MP_UNREACH => {}
            ORIGIN => self.origin = Some(origin(value)?),
            AS_PATH => self.as_path = Some(as_path(value, context)?),
            NEXT_HOP => self.next_hop = Some(whole(reader.ipv4(), reader)?),
            MED => self.med = Some(whole(reader.u32(), reader)?),
            LOCAL_PREF => self.local_pref = Some(whole(reader.u32(), reader)?),
            ATOMIC_AGGREGATE if value.is_empty() => self.atomic_aggregate = true,
            ATOMIC_AGGREGATE => return Err(Fault::Discard("ATOMIC_AGGREGATE is not empty")),
            AGGREGATOR => self.aggregator = Some(aggregator(reader, context.four_octet_as)?),
            COMMUNITIES => {
                self.communities = list(value, |octets| Community(u32::from_be_bytes(octets)))?
            }
            ORIGINATOR_ID => {
                self.originator_id = Some(whole(reader.ipv4(), reader)?);
            }
            CLUSTER_LIST => self.cluster_list = list(value, <Ipv4Addr as From<[u8; 4]>>::from)?,
            EXTENDED_COMMUNITIES => self.extended_communities = list(value, ExtendedCommunity)?,
            LARGE_COMMUNITY => self.large_communities = list(value, large_community)?,
            AS4_PATH => self.as4_path = Some(as4_path(value)?),
            AS4_AGGREGATOR => self.as4_aggregator = Some(aggregator(reader, true)?),
            _ if flags & OPTIONAL == 0 => {
                return Err(Fault::Withdraw("well-known attribute is not known"));
            }
            _ if flags & TRANSITIVE != 0 => self.unknown.push(UnknownAttribute {
                code,
                flags: OPTIONAL | TRANSITIVE | PARTIAL,
                value: value.to_vec(),
            }),
            _ => {}
        }
        Ok(())
    }

    fn unreach(&mut self, mut reader: Reader<'_>, context: &Context) -> Option<()> {
        let (afi, safi) = (reader.u16()?, reader.u8()?);
        let Some(family) = wire::family(afi, safi).filter(|f| context.families.has(*f)) else {
            return Some(());
        };
        self.unreach = nlri(reader.rest(), family, context)?;
        if reader.is_empty() {
            self.end_of_rib = Some(family);
        }
        Some(())
    }
}

/// Reads an attribute's flags, code and value.
fn header<'a>(reader: &mut Reader<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, code) = (reader.u8()?, reader.u8()?);
    let length = if flags & EXTENDED_LENGTH == 0 {
        reader.u8().map(u16::from)
    } else {
        reader.u16()
    };
    Some((flags, code, reader.bytes(usize::from(length?))?))
}

/// A value that must fill its attribute exactly.
fn whole<T>(value: Option<T>, rest: Reader<'_>) -> Result<T, Fault> {
    let fits = value.filter(|_| rest.is_empty());
    fits.ok_or(Fault::Withdraw("attribute has a wrong length"))
}

fn origin(value: &[u8]) -> Result<Origin, Fault> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err(Fault::Withdraw("ORIGIN has an unknown value")),
        _ => Err(Fault::Withdraw("ORIGIN has a wrong length")),
    }
}

fn as_path(value: &[u8], context: &Context) -> Result<AsPath, Fault> {
    let path = read_path(value, context.four_octet_as);
    let path = path.ok_or(Fault::Withdraw("AS_PATH is malformed"))?;
    if path.count(AsNumber(0)) > 0 {
        return Err(Fault::Withdraw("AS_PATH has AS 0 (RFC 7607)"));
    }
    if context.external && path.has_confederation() {
        return Err(Fault::Withdraw(
            "AS_PATH has a confederation's segment (RFC 5065)",
        ));
    }
    Ok(path)
}

/// Reads an AS4_PATH, but for a confederation's segments (RFC 6793 §6).
fn as4_path(value: &[u8]) -> Result<AsPath, Fault> {
    let path = read_path(value, true).filter(|path| !path.is_empty());
    let mut path = path.ok_or(Fault::Discard("AS4_PATH is malformed"))?;
    if path.count(AsNumber(0)) > 0 {
        return Err(Fault::Discard("AS4_PATH has AS 0 (RFC 7607)"));
    }
    path.remove_confederation();
    Ok(path)
}

fn aggregator(mut reader: Reader<'_>, four_octet_as: bool) -> Result<Aggregator, Fault> {
    let asn = if four_octet_as {
        reader.u32()
    } else {
        reader.u16().map(u32::from)
    };
    let (Some(asn), Some(router), true) = (asn, reader.ipv4(), reader.is_empty()) else {
        return Err(Fault::Discard("aggregator has a wrong length"));
    };
    if asn == 0 {
        return Err(Fault::Discard("aggregator has AS 0 (RFC 7607)"));
    }
    Ok(Aggregator {
        asn: AsNumber(asn),
        router,
    })
}

/// A list of items of `N` octets, at least one.
fn list<T, const N: usize>(value: &[u8], make: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Fault> {
    let (items, rest) = value.as_chunks::<N>();
    if items.is_empty() || !rest.is_empty() {
        return Err(Fault::Withdraw("list has a wrong length"));
    }
    Ok(items.iter().map(|item| make(*item)).collect())
}

fn large_community(octets: [u8; 12]) -> LargeCommunity {
    let (words, _) = octets.as_chunks::<4>();
    let mut numbers = [0; 3];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u32::from_be_bytes(*word);
    }
    LargeCommunity(numbers)
}

/// Which of optional and transitive a known attribute must have.
fn wanted_flags(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => Some(OPTIONAL),
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | AS4_PATH | AS4_AGGREGATOR
        | LARGE_COMMUNITY => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}

const KIND_FLAGS: u8 = OPTIONAL | TRANSITIVE;
