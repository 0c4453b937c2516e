//! The CNI IPAM plugin: addresses out of the store for any network plugin.
//!
//! It never enters a container's namespace, and keeps no state but what the store holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;

use ipnetwork::IpNetwork;
use margay_call::{
    Adding, Failure, Gate, Hints, Releasing, Settings, Turn, adding_addresses, attachment,
    block_on, check_addresses, could_assign, environment, from_store, give_back_leaks,
    not_available, now, open, overtaking, quarantine, request, steady,
};
use margay_cni::error::{Error, code};
use margay_cni::{Ip, Request, ResultDoc, Route, ValidAttachments};
use margay_ipam_core::{Allocator, Assigned, Assignment};
use margay_journal as journal;
use margay_model::Key;
use margay_plugin::{Level, Plugin, log, progress};
use margay_store::{Read, Store};

/// The plugin.
#[derive(Debug)]
struct Ipam;

impl Plugin for Ipam {
    fn name(&self) -> &str {
        "margay-ipam"
    }

    fn about(&self) -> String {
        format!("Margay IPAM plugin {}", env!("CARGO_PKG_VERSION"))
    }

    fn add(&self, call: &Request) -> Result<ResultDoc, Error> {
        block_on(add(call))
    }

    fn undo(&self, call: &Request) {
        if let Err(error) = self.del(call) {
            log(
                Level::Error,
                &format!("undoing an ADD nobody heard of: {error}"),
            );
        }
    }

    fn del(&self, call: &Request) -> Result<(), Error> {
        block_on(del(call)).map_err(Error::for_del)
    }

    fn check(&self, call: &Request) -> Result<(), Error> {
        block_on(check(call))
    }

    fn gc(&self, call: &Request) -> Result<(), Error> {
        block_on(gc(call))
    }

    fn status(&self, call: &Request) -> Result<(), Error> {
        steady("margay-ipam", call, block_on(status(call)))
    }
}

/// musl's allocator maps memory for every other request, and unmaps it soon after.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    margay_plugin::run(&Ipam)
}

async fn add(call: &Request) -> Result<ResultDoc, Error> {
    let mut adding = Adding::begin(call, &adding_addresses(call)).await?;
    let done = assign(call, &mut adding).await;
    adding.end(done, async || release(call).await).await
}

async fn assign(call: &Request, adding: &mut Adding) -> Result<ResultDoc, Error> {
    let settings = Settings::read(&call.conf, &environment)?;
    let node = settings.node.name()?;
    let store = open(&settings)?;
    let releasing = Releasing::read(&call.conf, &environment);
    releasing
        .finish(call, &store, &to_release(call, &node))
        .await?;
    progress("waiting for other calls on this node");
    let _turn = Turn::wait(call.conf.raw(), &node).await;
    let hints = Hints::of(call.conf.raw(), &node);
    let wanted = request(call, &node, hints.read(), now())?;
    adding.assigning(&node, &wanted.handle, &wanted.timestamp())?;
    progress(format!("waiting for {}", store.describe()));
    let made = Allocator::new(&store)
        .assign(&wanted, &mut Gate)
        .await
        .map_err(|Failure(error)| error)?;
    let Assignment::Made {
        assigned,
        hints: used,
    } = made
    else {
        return Err(Error::new(
            code::INTERNAL,
            "the assignment stopped without a reason",
        ));
    };
    hints.write(&used);
    Ok(result(call, &assigned))
}

/// Each address with its block's prefix length. Calico's network plugin, and ours, also wants it as a route: to
/// them a result without routes means that the host shall have none. `ptp` gives the gateway's address to its
/// end on the host and cannot do without one.
fn result(call: &Request, assigned: &[Assigned]) -> ResultDoc {
    let mut result = ResultDoc::default();
    for one in assigned {
        let Ok(address) = IpNetwork::new(one.address, one.block.length()) else {
            continue;
        };
        let mut ip = Ip {
            address,
            gateway: None,
            interface: None,
        };
        match call.conf.plugin_type() {
            Some("margay" | "calico") => result.routes.push(Route::new(address, None)),
            Some("ptp") => ip.gateway = Some(gateway(one.address)),
            _ => {}
        }
        result.ips.push(ip);
    }
    result
}

fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

async fn del(call: &Request) -> Result<(), Error> {
    let directory = adding_addresses(call);
    overtaking(call, &directory, async || release(call).await).await
}

/// The DEL itself, also of an ADD that a DEL overtook.
async fn release(call: &Request) -> Result<(), Error> {
    let releasing = Releasing::read(&call.conf, &environment);
    let node = releasing.node.name_or_guess();
    let _turn = Turn::wait(call.conf.raw(), &node).await;
    let release = to_release(call, &node);
    releasing.release(call, release).await.map(drop)
}

/// What a DEL gives back.
fn to_release(call: &Request, node: &str) -> journal::Release {
    let network = call.conf.name();
    journal::Release {
        attachment: attachment(call),
        node: Some(node.to_owned()),
        handle: format!("{network}.{}", call.container_id),
        legacy_handle: Some(match call.args.pod() {
            Some((namespace, pod)) => format!("{namespace}.{pod}"),
            None => call.container_id.clone(),
        }),
        endpoint: None,
        interfaces: Vec::new(),
        mark: None,
        when: String::new(),
        why: String::new(),
    }
}

async fn check(call: &Request) -> Result<(), Error> {
    let settings = Settings::read(&call.conf, &environment)?;
    let store = open(&settings)?;
    let handle = format!("{}.{}", settings.network, call.container_id);
    let previous = call.conf.required_prev_result()?;
    let addresses: Vec<IpAddr> = previous.ips.iter().map(|ip| ip.address.ip()).collect();
    progress(format!("waiting for {}", store.describe()));
    let reads = [Read::Get(Key::Handle(handle.clone()))];
    let snapshot = store
        .read_many(&reads)
        .await
        .map_err(|error| from_store(&error))?;
    check_addresses(
        &store,
        &handle,
        snapshot.answers.into_iter().next(),
        &addresses,
    )
    .await
}

async fn gc(call: &Request) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    if valid == ValidAttachments::Unknown {
        return Ok(());
    }
    let settings = Settings::read(&call.conf, &environment)?;
    let node = settings.node.name_or_guess();
    let store = open(&settings)?;
    progress(format!("waiting for {}", store.describe()));
    let rest = quarantine(call.conf.raw());
    let network = &settings.network;
    let failures = give_back_leaks(&store, &node, network, &valid, now(), &rest).await?;
    match failures.first() {
        None => Ok(()),
        Some(first) => {
            let all: Vec<String> = failures.iter().map(ToString::to_string).collect();
            let message = format!(
                "{} of the addresses could not be given back: {first}",
                all.len()
            );
            Err(Error::new(code::IO, message).with_details(all.join("; ")))
        }
    }
}

async fn status(call: &Request) -> Result<(), Error> {
    let settings = Settings::read(&call.conf, &environment)?;
    let node = settings.node.name().map_err(not_available)?;
    let store = open(&settings)?;
    could_assign(call, &store, &node).await
}

/// Link-local, so that it stands on every interface of the host and nobody routes it.
const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
