//! GC: what this node holds for the network and no attachment on the list needs.
//!
//! Evidence is read in this order: first what is held, then (from the runtime) what is alive. Something held
//! is removed only when it was assigned well before this call began, so that an ADD that runs beside it is
//! safe whatever the runtime promises.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use margay_call::{
    attachment_of, block_on, from_store, give_back_leaks, is_old, now, open, quarantine, recorded,
};
use margay_cni::error::{Error, code};
use margay_cni::{Command, Request, ValidAttachments};
use margay_model::Key;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::time::Timestamp;
use margay_plugin::{Delegate, Level, log, progress};
use margay_store::Store;

use crate::config::{Config, Ipam};
use crate::del;

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
        let mut stale = Vec::new();
        for endpoint in recorded(&store, &node).await? {
            if is_stale(&endpoint, &valid, began)
                && is_of(&store, &endpoint, call.conf.name()).await?
            {
                stale.push(endpoint);
            }
        }
        failures.extend(remove_all(call, &stale));
        if config.ipam == Ipam::Own {
            // What a record names goes with the record, and not before it.
            let left = recorded(&store, &node).await?;
            let valid = valid.and(left.iter().filter_map(attachment_of));
            let rest = quarantine(call.conf.raw());
            let network = call.conf.name();
            let failed = give_back_leaks(&store, &node, network, &valid, began, &rest).await?;
            failures.extend(failed.iter().map(ToString::to_string));
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

/// Whether an endpoint is a network plugin's, is not on the list, and is no newcomer.
fn is_stale(endpoint: &WorkloadEndpoint, valid: &ValidAttachments, began: Timestamp) -> bool {
    let spec = &endpoint.spec;
    let ours = matches!(spec.orchestrator.as_deref(), Some("cni" | "k8s"));
    let Some(attached) = attachment_of(endpoint) else {
        return false;
    };
    let created = endpoint
        .metadata
        .creation_timestamp
        .as_deref()
        .and_then(Timestamp::parse_rfc3339);
    ours && !valid.keeps(&attached.container_id, &attached.ifname)
        && created.is_some_and(|at| is_old(at, began))
}

/// Whether an endpoint belongs to the network: it lists the network's profile or, as a pod that Kubernetes
/// describes lists others, its addresses are held under the network's handle.
async fn is_of<S: Store>(
    store: &S,
    endpoint: &WorkloadEndpoint,
    network: &str,
) -> Result<bool, Error> {
    let spec = &endpoint.spec;
    if spec.profiles.iter().any(|profile| profile == network) {
        return Ok(true);
    }
    let container = spec.container_id.as_deref().unwrap_or_default();
    let handle = Key::Handle(format!("{network}.{container}"));
    let held = store.get(&handle).await;
    Ok(held.map_err(|error| from_store(&error))?.is_some())
}

/// Carries out DELs, several at a time: each waits most of its time for the kernel (G08). Returns what failed.
fn remove_all(call: &Request, stale: &[WorkloadEndpoint]) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some(endpoint) = stale.get(next.fetch_add(1, Ordering::Relaxed)) {
            let gone = block_on(remove(call, endpoint));
            failures.extend(gone.err().map(|error| error.to_string()));
        }
        failures
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS.min(stale.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let ended = workers.into_iter().map(thread::ScopedJoinHandle::join);
        ended
            .flat_map(|ended| ended.unwrap_or_else(|_| vec!["a DEL broke off".to_owned()]))
            .collect()
    })
}

/// Carries out the DEL that the runtime never sent.
async fn remove(call: &Request, endpoint: &WorkloadEndpoint) -> Result<(), Error> {
    let spec = &endpoint.spec;
    let mut gone = call.clone();
    gone.container_id = spec.container_id.clone().unwrap_or_default();
    gone.ifname = spec.endpoint.clone().unwrap_or_default();
    gone.netns = None;
    gone.args.pod_namespace = spec
        .pod
        .as_ref()
        .and_then(|_| endpoint.metadata.namespace.clone());
    gone.args.pod_name = spec.pod.clone();
    log(
        Level::Info,
        &format!("GC removes {}/{}", gone.container_id, gone.ifname),
    );
    del::run(&gone).await
}

/// DELs that are carried out at a time: the kernel's work is one after another in part.
const WORKERS: usize = 8;
