//! Bandwidth limits: token bucket filters and redirections, observed and changed.

use margay_endpoint::shaping::{Observed, Step, TokenBucket, device, is_device};
use netlink_packet_core::NlasIterator;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcActionAttribute, TcActionMirrorOption, TcActionOption, TcAttribute, TcFilterU32Option,
    TcHandle, TcMessage, TcOption,
};
use nix::errno::Errno;

use crate::error::{Error, Facility, RequestError, Result};
use crate::link::Interfaces;
use crate::message;
use crate::socket::Netlink;

/// What there is of limits in the kernel.
///
/// # Errors
/// [`Error::List`].
pub async fn observe(netlink: &Netlink, interfaces: &Interfaces) -> Result<Observed> {
    let mut observed = Observed::default();
    let ifbs = interfaces
        .iter()
        .filter(|link| link.kind.as_deref() == Some("ifb") && is_device(&link.name));
    observed.devices = ifbs.map(|link| link.name.clone()).collect();
    let disciplines = netlink.dump(message::list_disciplines()).await;
    let disciplines = disciplines.map_err(|source| Error::List {
        what: "queueing disciplines",
        source,
    })?;
    for answer in &disciplines {
        let RouteNetlinkMessage::NewQueueDiscipline(discipline) = answer else {
            continue;
        };
        let index = discipline.header.index.cast_unsigned();
        let Some(link) = interfaces.by_index(index) else {
            continue;
        };
        if discipline.header.parent == TcHandle::INGRESS {
            let target = redirection(netlink, index).await?;
            let target = target.and_then(|index| interfaces.by_index(index));
            if let Some(target) = target {
                let entry = (link.name.clone(), target.name.clone());
                observed.redirects.extend([entry]);
            }
        } else if discipline.header.handle == message::TOKEN_BUCKET
            && let Some(bucket) = token_bucket(discipline)
        {
            observed.filters.insert(link.name.clone(), bucket);
        }
    }
    Ok(observed)
}

/// Carries out one step. What it is about may be there already, or be gone.
///
/// # Errors
/// [`Error::Shape`], which names what the kernel lacks where it lacks something, or the interface is missing.
pub async fn apply(netlink: &Netlink, step: &Step) -> Result<()> {
    let failed = |interface: &str, facility| {
        let interface = interface.to_owned();
        move |source| Error::Shape {
            interface,
            facility,
            source,
        }
    };
    match step {
        Step::Create { device, mtu } => {
            let made = netlink.change(message::create_ifb(device, *mtu)).await;
            unless(made, &[Errno::EEXIST]).map_err(failed(device, Facility::Ifb))
        }
        Step::Limit { interface, bucket } => {
            let index = index(netlink, interface).await?;
            let put = message::put_token_bucket(index, bucket);
            let put = netlink.change(put).await;
            put.map_err(failed(interface, Facility::TokenBucket))
        }
        Step::Redirect { interface, device } => {
            let from = index(netlink, interface).await?;
            let to = index(netlink, device).await?;
            let place = netlink.change(message::create_ingress(from)).await;
            unless(place, &[Errno::EEXIST]).map_err(failed(interface, Facility::Ingress))?;
            remove_redirect(netlink, from)
                .await
                .map_err(failed(interface, Facility::Redirect))?;
            let put = netlink.change(message::create_redirect(from, to)).await;
            // Where agent and plugin do the same at a time, either's is as good.
            unless(put, &[Errno::EEXIST]).map_err(failed(interface, Facility::Redirect))
        }
        Step::Unlimit { interface } => {
            let Some(link) = netlink.link(interface).await? else {
                return Ok(());
            };
            let gone = netlink
                .change(message::delete_token_bucket(link.index))
                .await;
            unless(gone, ABSENT).map_err(failed(interface, Facility::TokenBucket))
        }
        Step::Unredirect { interface } => {
            let Some(link) = netlink.link(interface).await? else {
                return Ok(());
            };
            remove_redirect(netlink, link.index)
                .await
                .map_err(failed(interface, Facility::Redirect))?;
            if !filters(netlink, link.index).await?.is_empty() {
                return Ok(());
            }
            let gone = netlink.change(message::delete_ingress(link.index)).await;
            unless(gone, ABSENT).map_err(failed(interface, Facility::Ingress))
        }
        Step::Delete { device } => remove_device(netlink, device).await,
    }
}

/// Deletes the device that the packets of an interface which is gone were redirected to, if there is one.
///
/// # Errors
/// [`Error::GetLink`] and [`Error::DeleteLink`].
pub async fn forget(netlink: &Netlink, interface: &str) -> Result<()> {
    remove_device(netlink, &device(interface)).await
}

async fn remove_device(netlink: &Netlink, name: &str) -> Result<()> {
    match netlink.link(name).await? {
        Some(link) if link.kind.as_deref() == Some("ifb") => {
            netlink.delete_link(link.index, name).await.map(|_| ())
        }
        _ => Ok(()),
    }
}

async fn remove_redirect(netlink: &Netlink, index: u32) -> Result<(), RequestError> {
    let removed = netlink.change(message::delete_redirect(index)).await;
    unless(removed, ABSENT)
}

async fn index(netlink: &Netlink, name: &str) -> Result<u32> {
    let link = netlink.link(name).await?;
    link.map(|link| link.index)
        .ok_or_else(|| Error::LinkMissing {
            name: name.to_owned(),
        })
}

/// Where the first filter on what comes in by an interface redirects it.
async fn redirection(netlink: &Netlink, index: u32) -> Result<Option<u32>> {
    let filters = filters(netlink, index).await?;
    Ok(filters.iter().find_map(mirror))
}

async fn filters(netlink: &Netlink, index: u32) -> Result<Vec<TcMessage>> {
    let answers = match netlink.dump(message::list_filters(index)).await {
        Ok(answers) => answers,
        // The interface has just gone.
        Err(source) if source.errno().is_some_and(|errno| ABSENT.contains(&errno)) => Vec::new(),
        Err(source) => {
            return Err(Error::List {
                what: "traffic filters",
                source,
            });
        }
    };
    let filters = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewTrafficFilter(filter) => Some(filter),
        _ => None,
    });
    Ok(filters.collect())
}

/// The index of the interface that a filter redirects to.
fn mirror(filter: &TcMessage) -> Option<u32> {
    let options = filter.attributes.iter().filter_map(|one| match one {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let actions = options.flatten().filter_map(|one| match one {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|action| &action.attributes);
    let options = attributes.filter_map(|one| match one {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().find_map(|one| match one {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror.ifindex),
        _ => None,
    })
}

/// A token bucket filter as the kernel reports it.
fn token_bucket(discipline: &TcMessage) -> Option<TokenBucket> {
    let options = discipline.attributes.iter().find_map(|one| match one {
        TcAttribute::Options(options) => options.first(),
        _ => None,
    })?;
    let TcOption::Other(options) = options else {
        return None;
    };
    let mut octets = vec![0; netlink_packet_core::Nla::value_len(options)];
    netlink_packet_core::Nla::emit_value(options, &mut octets);
    decode(&octets)
}

/// From the attributes of a token bucket filter.
fn decode(octets: &[u8]) -> Option<TokenBucket> {
    let mut parameters = None;
    let (mut rate, mut peak) = (None, None);
    for attribute in NlasIterator::new(octets).filter_map(std::result::Result::ok) {
        let value = attribute.value();
        match attribute.kind() {
            message::TCA_TBF_PARMS => parameters = Some(value.to_vec()),
            message::TCA_TBF_RATE64 => rate = value.try_into().ok().map(u64::from_ne_bytes),
            message::TCA_TBF_PRATE64 => peak = value.try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    let parameters = parameters?;
    let word = |at: usize| {
        let octets = parameters.get(at..at + 4)?;
        octets.try_into().ok().map(u32::from_ne_bytes)
    };
    let rate = rate.unwrap_or(u64::from(word(8)?));
    let peak = peak.unwrap_or(u64::from(word(20)?));
    let (limit, buffer, peak_buffer) = (word(24)?, word(28)?, word(32)?);
    let size = |rate: u64, ticks: u32| {
        let octets = u128::from(ticks) * u128::from(rate) * TICK_NANOSECONDS / NANOSECONDS;
        u32::try_from(octets).unwrap_or(u32::MAX)
    };
    Some(TokenBucket {
        rate,
        burst: size(rate, buffer),
        limit,
        peak: (peak > 0).then(|| (peak, size(peak, peak_buffer))),
    })
}

/// An answer in which some refusals are as good as none.
fn unless(answer: Result<(), RequestError>, good: &[Errno]) -> Result<(), RequestError> {
    match answer {
        Err(source) if source.errno().is_some_and(|errno| good.contains(&errno)) => Ok(()),
        answer => answer,
    }
}

/// What the kernel says of a discipline, filter or interface that is not there.
const ABSENT: &[Errno] = &[Errno::ENOENT, Errno::EINVAL, Errno::ENODEV];
/// `PSCHED_TICKS2NS` (include/net/pkt_sched.h).
const TICK_NANOSECONDS: u128 = 64;
const NANOSECONDS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_as_the_kernel_reports_them() {
        // TCA_TBF_PARMS of 1 Mbit/s, burst 16 KiB, as Linux 6.18 answers; ticks of 64 ns.
        let mut octets = vec![40, 0, 1, 0];
        octets.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        octets.extend(125_000_u32.to_ne_bytes());
        octets.extend([0; 12]);
        octets.extend(131_072_u32.to_ne_bytes());
        octets.extend(2_048_000_u32.to_ne_bytes());
        octets.extend([0; 4]);
        let bucket = decode(&octets).unwrap();
        assert_eq!((bucket.rate, bucket.burst), (125_000, 16_384));
        assert_eq!((bucket.limit, bucket.peak), (131_072, None));
        assert_eq!(decode(&octets[..20]), None);
        assert_eq!(decode(&[]), None);
    }
}
