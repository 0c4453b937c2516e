//! GC: what this node holds for the network and no attachment on the list needs.
//!
//! Evidence is read in this order: first what is held, then (from the runtime) what is alive. Something held
//! is removed only when it was assigned well before this call began, so that an ADD that runs beside it is
//! safe whatever the runtime promises.

use margay_cni::error::{Error, code};
use margay_cni::{Command, NetConf, Request, ValidAttachments};
use margay_ipam_core::audit::{Allocation, allocations};
use margay_ipam_core::{Allocator, NoCompanion, Release};
use margay_model::ipam::Block;
use margay_model::key::Owner;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::time::Timestamp;
use margay_model::{Key, Kind, Prefix};
use margay_plugin::{Delegate, Level, log, progress};
use margay_settings::{from_ipam, from_store, now};
use margay_store::{Answer, Read, Store};

use crate::config::{Config, Ipam};
use crate::del;
use crate::store::open;

/// Carries out a GC. Goes on after failures and reports them all at the end.
///
/// # Errors
/// What could not be removed.
pub(crate) async fn run(config: &Config, call: &Request) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let mut failures = Vec::new();
    if let Ipam::Delegate(plugin) = &config.ipam {
        let delegated = Delegate::find(plugin, call).and_then(|it| it.call(call, Command::Gc));
        failures.extend(delegated.err().map(|error| error.to_string()));
    }
    if valid != ValidAttachments::Unknown {
        let node = config.shared.node.name_or_guess();
        let store = open(&config.shared)?;
        progress(format!("waiting for {}", store.describe()));
        let began = now();
        for endpoint in endpoints(&store, &node).await? {
            if is_stale(&endpoint, &call.conf, began) {
                let gone = remove(config, call, &endpoint).await;
                failures.extend(gone.err().map(|error| error.to_string()));
            }
        }
        if config.ipam == Ipam::Own {
            for allocation in held(&store, &node).await? {
                if is_leaked(&allocation, &node, &call.conf, began) {
                    let gone = give_back(&store, &node, &allocation, began).await;
                    failures.extend(gone.err().map(|error| error.to_string()));
                }
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of the resources could not be removed: {}",
        failures.len(),
        failures[0]
    );
    Err(Error::new(code::IO, message).with_details(failures.join("; ")))
}

/// Endpoints of containers on this node.
async fn endpoints<S: Store>(store: &S, node: &str) -> Result<Vec<WorkloadEndpoint>, Error> {
    let page = store
        .list(&Prefix::Resources(Kind::WorkloadEndpoint))
        .await
        .map_err(|error| from_store(&error))?;
    Ok(page
        .entries
        .iter()
        .filter_map(|entry| WorkloadEndpoint::decode(&entry.value).ok())
        .filter(|endpoint| endpoint.spec.node.as_deref() == Some(node))
        .collect())
}

/// Whether an endpoint belongs to the network, is not on the list, and is no newcomer.
fn is_stale(endpoint: &WorkloadEndpoint, conf: &NetConf, began: Timestamp) -> bool {
    let spec = &endpoint.spec;
    let ours = matches!(spec.orchestrator.as_deref(), Some("cni" | "k8s"))
        && spec.profiles.iter().any(|profile| profile == conf.name());
    let (Some(container), Some(ifname)) = (&spec.container_id, &spec.endpoint) else {
        return false;
    };
    let created = endpoint
        .metadata
        .creation_timestamp
        .as_deref()
        .and_then(Timestamp::parse_rfc3339);
    ours && !conf.keeps(container, ifname) && created.is_some_and(|at| is_old(at, began))
}

/// Carries out the DEL that the runtime never sent.
async fn remove(config: &Config, call: &Request, endpoint: &WorkloadEndpoint) -> Result<(), Error> {
    let spec = &endpoint.spec;
    let mut gone = call.clone();
    gone.container_id = spec.container_id.clone().unwrap_or_default();
    gone.ifname = spec.endpoint.clone().unwrap_or_default();
    gone.netns = None;
    gone.args.pod_namespace = spec.pod.as_ref().and(endpoint.metadata.namespace.clone());
    gone.args.pod_name = spec.pod.clone();
    log(
        Level::Info,
        &format!("GC removes {}/{}", gone.container_id, gone.ifname),
    );
    del::run(Ok(config), &gone).await
}

/// What the node's blocks hold.
async fn held<S: Store>(store: &S, node: &str) -> Result<Vec<Allocation>, Error> {
    let affinities = store
        .list(&Prefix::Affinities(Owner::Host(node.to_owned())))
        .await
        .map_err(|error| from_store(&error))?;
    let reads: Vec<Read> = affinities
        .entries
        .iter()
        .filter_map(|entry| match &entry.key {
            Key::Affinity(_, cidr) => Some(Read::Get(Key::Block(*cidr))),
            _ => None,
        })
        .collect();
    let mut blocks = Vec::new();
    for reads in reads.chunks(margay_store::MAX_OPS) {
        let snapshot = store
            .read_many(reads)
            .await
            .map_err(|error| from_store(&error))?;
        let entries = snapshot.answers.into_iter().filter_map(Answer::into_entry);
        blocks
            .extend(entries.filter_map(|entry| serde_json::from_slice::<Block>(&entry.value).ok()));
    }
    Ok(allocations(&blocks).collect())
}

/// Whether an address is held for a container of the network that is on no list.
fn is_leaked(allocation: &Allocation, node: &str, conf: &NetConf, began: Timestamp) -> bool {
    let Some(container) = container_of(allocation, conf) else {
        return false;
    };
    let ifname = allocation
        .owner
        .get("ifname")
        .map_or("eth0", String::as_str);
    let at = allocation
        .owner
        .get("timestamp")
        .and_then(|text| Timestamp::parse_go_string(text));
    allocation.owner.get("node").map(String::as_str) == Some(node)
        && !conf.keeps(container, ifname)
        && at.is_some_and(|at| is_old(at, began))
}

async fn give_back<S: Store>(
    store: &S,
    node: &str,
    allocation: &Allocation,
    now: Timestamp,
) -> Result<(), Error> {
    let handle = allocation.handle.clone().unwrap_or_default();
    log(
        Level::Info,
        &format!("GC gives back {} of {handle}", allocation.address),
    );
    let ifname = allocation
        .owner
        .get("ifname")
        .map_or("eth0", String::as_str);
    let request = Release {
        node: node.to_owned(),
        handle,
        interface: Some(ifname.to_owned()),
        hints: vec![allocation.block],
        now,
    };
    let released = Allocator::new(store)
        .release(&request, &mut NoCompanion)
        .await;
    released.map(|_| ()).map_err(|error| from_ipam(&error))
}

fn container_of<'a>(allocation: &'a Allocation, conf: &NetConf) -> Option<&'a str> {
    let rest = allocation.handle.as_deref()?.strip_prefix(conf.name())?;
    rest.strip_prefix('.')
}

fn is_old(at: Timestamp, began: Timestamp) -> bool {
    at.seconds + NEWCOMER <= began.seconds
}

/// Seconds for which something assigned is left alone.
const NEWCOMER: u64 = 60;
