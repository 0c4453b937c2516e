//! Requests for queueing disciplines, the filters that redirect packets, and the devices they lead to.

use margay_endpoint::shaping::TokenBucket;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::encode::{Request, request};

/// Names our filters among others': no other program counts this high of itself.
pub(crate) const TOKEN_BUCKET: TcHandle = TcHandle {
    major: 0x4d67,
    minor: 0,
};

/// `RTM_NEWLINK`: a device of kind `ifb`, up.
pub(crate) fn create_ifb(name: &str, mtu: u32) -> Request {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]),
    ];
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_NEWQDISC`: a token bucket filter at an interface's root, in the place of what is there. One of ours is
/// changed, and what waits in it goes on waiting.
pub(crate) fn put_token_bucket(index: u32, bucket: &TokenBucket) -> Request {
    let (peak, peak_burst) = bucket.peak.unwrap_or_default();
    // struct tc_tbf_qopt (include/uapi/linux/pkt_sched.h). Bursts follow in bytes, so the fields that would
    // have them in the scheduler's ticks stay zero.
    let mut parameters = rate_specification(bucket.rate);
    parameters.extend(rate_specification(peak));
    parameters.extend(bucket.limit.to_ne_bytes());
    parameters.extend([0; 8]);
    let mut options = attribute(TCA_TBF_PARMS, &parameters);
    options.extend(attribute(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes()));
    options.extend(attribute(TCA_TBF_BURST, &bucket.burst.to_ne_bytes()));
    if bucket.peak.is_some() {
        options.extend(attribute(TCA_TBF_PRATE64, &peak.to_ne_bytes()));
        options.extend(attribute(TCA_TBF_PBURST, &peak_burst.to_ne_bytes()));
    }
    let mut message = discipline(index, TOKEN_BUCKET, TcHandle::ROOT);
    message.attributes = kind("tbf", options);
    request(
        RouteNetlinkMessage::NewQueueDiscipline(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

/// `RTM_DELQDISC`: our filter at an interface's root, and no other.
pub(crate) fn delete_token_bucket(index: u32) -> Request {
    let message = discipline(index, TOKEN_BUCKET, TcHandle::ROOT);
    request(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// `RTM_NEWQDISC`: the place for filters on what comes in by an interface.
pub(crate) fn create_ingress(index: u32) -> Request {
    let mut message = discipline(index, INGRESS_DISCIPLINE, TcHandle::INGRESS);
    message.attributes = vec![TcAttribute::Kind("ingress".to_owned())];
    request(
        RouteNetlinkMessage::NewQueueDiscipline(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_DELQDISC` for that place.
pub(crate) fn delete_ingress(index: u32) -> Request {
    let message = discipline(index, INGRESS_DISCIPLINE, TcHandle::INGRESS);
    request(RouteNetlinkMessage::DelQueueDiscipline(message), 0)
}

/// `RTM_GETQDISC`, to be dumped: of all interfaces.
pub(crate) fn list_disciplines() -> Request {
    request(
        RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default()),
        0,
    )
}

/// `RTM_NEWTFILTER`: everything that comes in by an interface goes to another instead.
///
/// A `u32` filter with one key that matches anything: it is there where nothing newer is.
pub(crate) fn create_redirect(index: u32, device: u32) -> Request {
    // struct tc_u32_sel (pkt_cls.h): terminal, one key of no bits.
    let mut selector = vec![TC_U32_TERMINAL, 0, 1];
    selector.resize(SELECTOR_LENGTH, 0);
    // struct tc_mirred (tc_act/tc_mirred.h): index, capabilities, action, two counts, what to do, where.
    let mut mirror = vec![0; 8];
    mirror.extend(TC_ACT_STOLEN.to_ne_bytes());
    mirror.extend([0; 8]);
    mirror.extend(TCA_EGRESS_REDIR.to_ne_bytes());
    mirror.extend(device.to_ne_bytes());
    let mut action = attribute(TCA_ACT_KIND, b"mirred\0");
    action.extend(attribute(
        TCA_ACT_OPTIONS,
        &attribute(TCA_MIRRED_PARMS, &mirror),
    ));
    let mut options = attribute(TCA_U32_ACT, &attribute(FIRST_ACTION, &action));
    options.extend(attribute(TCA_U32_SEL, &selector));
    let mut message = redirect(index);
    message.attributes = kind("u32", options);
    request(
        RouteNetlinkMessage::NewTrafficFilter(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

/// `RTM_DELTFILTER`: the filters in the place of [`create_redirect`].
pub(crate) fn delete_redirect(index: u32) -> Request {
    request(RouteNetlinkMessage::DelTrafficFilter(redirect(index)), 0)
}

/// `RTM_GETTFILTER`, to be dumped: of what comes in by an interface.
pub(crate) fn list_filters(index: u32) -> Request {
    let message = discipline(index, TcHandle::UNSPEC, INGRESS_FILTERS);
    request(RouteNetlinkMessage::GetTrafficFilter(message), 0)
}

fn discipline(index: u32, handle: TcHandle, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(index.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message
}

fn redirect(index: u32) -> TcMessage {
    let mut message = discipline(index, TcHandle::UNSPEC, INGRESS_FILTERS);
    message.header.info = FIRST_PRIORITY << 16 | u32::from(ETH_P_ALL.to_be());
    message
}

fn kind(name: &str, options: Vec<u8>) -> Vec<TcAttribute> {
    vec![
        TcAttribute::Kind(name.to_owned()),
        TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, options)),
    ]
}

/// `struct tc_ratespec`: cell size, link layer, overhead, cell alignment, least size, rate. Rates that need more
/// than 32 bits are in an attribute of their own.
fn rate_specification(rate: u64) -> Vec<u8> {
    let linklayer = if rate > 0 { TC_LINKLAYER_ETHERNET } else { 0 };
    let mut octets = vec![0, linklayer, 0, 0, 0, 0, 0, 0];
    octets.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    octets
}

/// `struct nlattr` with its value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut octets = Vec::with_capacity(value.len() + 7);
    octets.extend(length.to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// The handle of an ingress discipline is always this.
const INGRESS_DISCIPLINE: TcHandle = TcHandle {
    major: 0xffff,
    minor: 0,
};
/// Of the disciplines `ingress` and `clsact` alike.
const INGRESS_FILTERS: TcHandle = TcHandle {
    major: 0xffff,
    minor: TcHandle::MIN_INGRESS,
};
const FIRST_PRIORITY: u32 = 1;
const ETH_P_ALL: u16 = 3;
const TCA_OPTIONS: u16 = 2;
pub(crate) const TCA_TBF_PARMS: u16 = 1;
pub(crate) const TCA_TBF_RATE64: u16 = 4;
pub(crate) const TCA_TBF_PRATE64: u16 = 5;
const TCA_TBF_BURST: u16 = 6;
const TCA_TBF_PBURST: u16 = 7;
const TC_LINKLAYER_ETHERNET: u8 = 1;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TC_U32_TERMINAL: u8 = 1;
/// `struct tc_u32_sel` with one `struct tc_u32_key`.
const SELECTOR_LENGTH: usize = 32;
const FIRST_ACTION: u16 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: i32 = 4;
const TCA_EGRESS_REDIR: i32 = 1;
