//! The node introduces itself to the cluster.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnetwork::IpNetwork;
use margay_model::Family;
use margay_netlink::Netlink;
use margay_store::Store;
use tracing::{info, warn};

use crate::autodetect::{Candidate, Choice, Method, choose, on_machine};
use crate::config::{Config, NodeAddress};
use crate::error::AgentError;
use crate::identity;
use crate::initialise::initialise;
use crate::register::{Facts, Recorded, Registered, recorded, register};

/// Initialises the cluster where it is new, and makes the node's record right.
pub(super) async fn introduce(
    store: &impl Store,
    config: &Config,
    name: &str,
) -> Result<(), AgentError> {
    initialise(store, &config.default_pools, &config.cluster_type).await?;
    let known = recorded(store, name).await?;
    let interfaces = candidates().await?;
    let v4 = address(&config.ip, Family::V4, known.as_ref(), &interfaces).await?;
    let v6 = address(&config.ip6, Family::V6, known.as_ref(), &interfaces).await?;
    let facts = Facts {
        v4,
        v6,
        as_number: config.as_number,
    };
    let text =
        |network: Option<IpNetwork>| network.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let done = register(store, name, &facts, identity::now(), identity::random()).await?;
    let verb = match done {
        Registered::Created => "created",
        Registered::Updated => "updated",
        Registered::Unchanged => "right as it was",
    };
    info!(
        node = name,
        ipv4 = text(v4),
        ipv6 = text(v6),
        "the node's record is {verb}"
    );
    Ok(())
}

async fn address(
    told: &NodeAddress,
    family: Family,
    known: Option<&Recorded>,
    interfaces: &[Candidate],
) -> Result<Option<IpNetwork>, AgentError> {
    let reached_from = match told {
        NodeAddress::Detected(Method::CanReach(host)) => source_towards(host, family).await,
        _ => None,
    };
    let recorded = known.and_then(|known| known.address(family));
    let choice = choose(told, family, recorded, interfaces, reached_from)?;
    match &choice {
        Choice::Kept {
            recorded,
            found: Some(found),
        } => warn!(
            "the node keeps its recorded {family} address {recorded}, although autodetection finds {found}; \
             to move it, give the address itself"
        ),
        Choice::Kept {
            recorded,
            found: None,
        } => warn!(
            "the node keeps its recorded {family} address {recorded}, although autodetection finds none"
        ),
        Choice::Moved { from, to } => warn!(
            "the node's {family} address changes from {from}, which is on no interface any more, to {to}"
        ),
        Choice::Address(address) if on_machine(address.ip(), interfaces).is_none() => {
            warn!("the node's {family} address {address} is on no interface of this machine");
        }
        Choice::Address(_) | Choice::None => {}
    }
    Ok(choice.address())
}

async fn candidates() -> Result<Vec<Candidate>, AgentError> {
    let interfaces = Netlink::current()?.interfaces().await?;
    let candidate = |link: &margay_netlink::Link| Candidate {
        name: link.name.clone(),
        up: link.up,
        addresses: link.addresses.clone(),
    };
    Ok(interfaces.iter().map(candidate).collect())
}

/// The machine's own address on the way to a host; nothing is sent there.
async fn source_towards(host: &str, family: Family) -> Option<IpAddr> {
    let target = match tokio::net::lookup_host((host, PORT)).await {
        Ok(mut found) => found.find(|target| Family::of(target.ip()) == family)?,
        Err(error) => {
            warn!(host, %error, "the host of can-reach= cannot be resolved");
            return None;
        }
    };
    let any: IpAddr = match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    match socket.connect(target).and_then(|()| socket.local_addr()) {
        Ok(own) => Some(own.ip()),
        Err(error) => {
            warn!(host, %error, "there is no route to the host of can-reach=");
            None
        }
    }
}

/// Any port does: connecting a UDP socket only looks the route up.
const PORT: u16 = 9;
