//! ADD: identify, assign and record in one commit, then make the endpoint.

use std::borrow::Cow;
use std::fs::{self, File, TryLockError};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use margay_call::{
    Adding, Failure, Hints, Releasing, Turn, adding, environment, from_ipam, from_store, now, open,
    random, request,
};
use margay_cni::error::{Error, code};
use margay_cni::{Interface, Ip, Request, ResultDoc, Route};
use margay_datastore::Datastore;
use margay_endpoint::EndpointPlan;
use margay_endpoint::shaping::Bandwidth;
use margay_ipam_core::allocator::Proceed;
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::{Allocator, Assignment, Companion, Detach};
use margay_model::names::status_file;
use margay_model::resource::endpoint::{QosControls, WorkloadEndpoint};
use margay_model::resource::pool::IPPool;
use margay_model::{Cidr, Kind, Prefix};
use margay_plugin::{Delegate, Level, log, progress};
use margay_route::Mac;
use margay_store::{Revision, Store};
use serde_json::Value;

use crate::config::{Config, Ipam};
use crate::del;
use crate::identity::Identity;
use crate::kernel::{Fault, Kernel, Predecessor, forget_connections, plan, recorded_mac};
use crate::limits;
use crate::pod::Pod;
use crate::podcidr;
use crate::record::{Recording, claim, commit_alone, delegated_to};

/// An endpoint whose addresses are assigned and recorded.
#[derive(Debug)]
struct Endpoint {
    host_name: String,
    mac: Mac,
    addresses: Vec<IpAddr>,
    /// Prefix length of each address's block, where our IPAM assigned it.
    block_lengths: Vec<Option<u8>>,
    /// What a delegate answered.
    delegated: Option<ResultDoc>,
    /// Limits of its bandwidth.
    bandwidth: Bandwidth,
    /// The record, where an earlier call made it.
    recorded: Option<(WorkloadEndpoint, Revision)>,
}

/// Carries out an ADD.
///
/// # Errors
/// What the runtime is told; nothing of this call is left then.
pub(crate) async fn run(config: &Config, call: &Request) -> Result<ResultDoc, Error> {
    let fence = Adding::begin(call, &adding(call)).await?;
    let done = attach(config, call).await;
    fence.end(done, async || del::remove(call).await).await
}

async fn attach(config: &Config, call: &Request) -> Result<ResultDoc, Error> {
    let node = config.shared.node.name()?;
    let identity = Identity::of(call, &node)?;
    let kernel = Kernel::open(call)?;
    let names = identity.host_interfaces(config.interface_prefix.as_deref())?;
    let previous = previous(call)?;
    let resolved = podcidr::resolve(call, &config.kubernetes, &node).await?;
    let pod = Pod::of(&resolved, &config.kubernetes).await?;
    let adjusted = match &pod {
        Some(pod) => Cow::Owned(pod.adjust(&resolved, &config.ipam)?),
        None => resolved,
    };
    let call = &*adjusted;
    let store = open(&config.shared)?;
    let releasing = Releasing::read(&call.conf, &environment);
    let released = releasing
        .finish(call, &store, &identity.release(Vec::new()))
        .await?;
    forget_connections(&released);
    let mut host_name = kernel.free_name(names.clone(), &identity).await?;
    loop {
        let endpoint = assign(
            config,
            call,
            &store,
            &releasing,
            &identity,
            pod.as_ref(),
            &kernel,
            &host_name,
        )
        .await?;
        let made = make(config, &kernel, &store, &identity, &endpoint).await;
        let fault = match made {
            Ok(plan) => {
                wait_for_policy(config, &identity, &endpoint.addresses).await;
                return Ok(result(call, previous, &plan, &endpoint));
            }
            Err(fault) => fault,
        };
        if endpoint.recorded.is_some() {
            return Err(fault.into());
        }
        undo(call, &releasing, &identity, &host_name).await;
        // Another container whose id begins alike was faster to take the interface's name.
        if !fault.is_taken_name() || host_name == names[1] {
            return Err(fault.into());
        }
        host_name.clone_from(&names[1]);
    }
}

/// Assigns addresses and records the endpoint. An earlier container of the same pod that nobody has sent a DEL
/// for has its DEL first.
#[expect(clippy::too_many_arguments, reason = "the parts of one call")]
async fn assign(
    config: &Config,
    call: &Request,
    store: &Datastore,
    releasing: &Releasing,
    identity: &Identity,
    pod: Option<&Pod>,
    kernel: &Kernel,
    host_name: &str,
) -> Result<Endpoint, Error> {
    for _ in 0..MOST_PREDECESSORS {
        let assigned = try_assign(config, call, store, releasing, identity, pod, host_name).await?;
        match assigned {
            Attempt::Done(endpoint) => return Ok(*endpoint),
            Attempt::Occupied(held, revision) => {
                hand_over(store, kernel, identity, host_name, &held, revision).await?;
            }
        }
    }
    Err(Error::new(
        code::TRY_AGAIN_LATER,
        format!(
            "{} is being changed by others; try again",
            identity.endpoint_key()
        ),
    ))
}

/// What came of an attempt to record the endpoint.
#[derive(Debug)]
enum Attempt {
    /// It is recorded.
    Done(Box<Endpoint>),
    /// An earlier container of the same pod is.
    Occupied(Box<WorkloadEndpoint>, Revision),
}

async fn try_assign(
    config: &Config,
    call: &Request,
    store: &Datastore,
    releasing: &Releasing,
    identity: &Identity,
    pod: Option<&Pod>,
    host_name: &str,
) -> Result<Attempt, Error> {
    let now = now();
    let mac = match requested_mac(call)? {
        Some(mac) => mac,
        None => Mac::local(random()?),
    };
    let randoms = [random()?, random()?];
    let mut recording = Recording::new(identity, pod, host_name, mac.to_string(), now, randoms);
    recording.limits = limits::merged(
        pod.map(|pod| pod.wishes.limits.clone()).unwrap_or_default(),
        call.conf.runtime_config()?.bandwidth,
    )?;
    let mut endpoint = Endpoint {
        host_name: host_name.to_owned(),
        mac,
        addresses: Vec::new(),
        block_lengths: Vec::new(),
        delegated: None,
        bandwidth: bandwidth(recording.limits.as_ref()),
        recorded: None,
    };
    let given = pod.map_or(&[][..], |pod| &pod.wishes.addresses_without_ipam);
    match &config.ipam {
        _ if !given.is_empty() => {
            if goes_on(&mut recording, store).await? {
                endpoint.addresses = given.to_vec();
                endpoint.block_lengths = vec![None; given.len()];
                commit_alone(store, &mut recording, given).await?;
            }
        }
        Ipam::Own => {
            progress("waiting for other calls on this node");
            let _turn = Turn::wait(call.conf.raw(), &identity.name.node).await;
            let hints = Hints::of(call.conf.raw(), &identity.name.node);
            let mut wanted = request(call, &identity.name.node, hints.read(), now)?;
            wanted.namespace_labels = pod.map(|pod| pod.namespace_labels.clone());
            progress(format!("waiting for {}", store.describe()));
            let assigned = Allocator::new(store)
                .assign(&wanted, &mut recording)
                .await
                .map_err(|Failure(error)| error)?;
            if let Assignment::Made {
                assigned,
                hints: used,
            } = assigned
            {
                hints.write(&used);
                for one in assigned {
                    endpoint.addresses.push(one.address);
                    endpoint.block_lengths.push(Some(one.block.length()));
                }
            }
        }
        Ipam::Delegate(plugin) => {
            let delegate = Delegate::find(plugin, call)?;
            if goes_on(&mut recording, store).await? {
                let answered =
                    margay_cni::delegate::require_addresses(plugin, delegate.add(call)?)?;
                endpoint.addresses = answered.ips.iter().map(|ip| ip.address.ip()).collect();
                endpoint.block_lengths = vec![None; endpoint.addresses.len()];
                recording.delegated = Some(answered.clone());
                endpoint.delegated = Some(answered);
                let recorded = commit_alone(store, &mut recording, &endpoint.addresses).await;
                if recorded.is_err() {
                    undo(call, releasing, identity, host_name).await;
                }
                recorded?;
            }
        }
    }
    if let Some((held, revision)) = recording.earlier.take() {
        return Ok(Attempt::Occupied(Box::new(held), revision));
    }
    if let Some(found) = recording.found.take() {
        endpoint = recorded(found, endpoint, store).await?;
    }
    Ok(Attempt::Done(Box::new(endpoint)))
}

/// Whether nobody has recorded the endpoint yet.
async fn goes_on(recording: &mut Recording<'_>, store: &Datastore) -> Result<bool, Error> {
    progress(format!("waiting for {}", store.describe()));
    let snapshot = store
        .read_many(&recording.reads())
        .await
        .map_err(|error| from_store(&error))?;
    let proceed = recording.inspect(&snapshot.answers);
    Ok(proceed.map_err(|Failure(error)| error)? == Proceed::Go)
}

/// Carries out the DEL of an earlier container of the same pod, which may never come: the interface goes first,
/// then the record with its addresses.
async fn hand_over(
    store: &Datastore,
    kernel: &Kernel,
    identity: &Identity,
    host_name: &str,
    held: &WorkloadEndpoint,
    revision: Revision,
) -> Result<(), Error> {
    let earlier = Predecessor::of(held, identity);
    kernel
        .take_over(identity, host_name, earlier.as_ref())
        .await?;
    let container_id = held.spec.container_id.clone().unwrap_or_default();
    let detach = Detach {
        node: identity.name.node.clone(),
        ifname: identity.name.endpoint.clone(),
        handle: identity.handle_of(&container_id),
        legacy_handle: None,
        endpoint: Some(held.key()),
        endpoint_at: Some(revision),
        assigned_at: None,
        unless: None,
        hints: Vec::new(),
        now: now(),
        container_id,
    };
    progress(format!("waiting for {}", store.describe()));
    let detached = Allocator::new(store).detach(&detach, &|| true).await;
    let detached = detached.map_err(|error| from_ipam(&error))?;
    log(
        Level::Info,
        &format!(
            "the pod's earlier container {} gave back {:?}",
            detach.container_id, detached.addresses
        ),
    );
    Ok(())
}

/// The endpoint as an earlier call for the same container recorded it.
async fn recorded(
    found: (WorkloadEndpoint, Revision),
    mut endpoint: Endpoint,
    store: &Datastore,
) -> Result<Endpoint, Error> {
    endpoint.addresses = addresses_of(&found.0);
    endpoint.mac = recorded_mac(&found.0).unwrap_or(endpoint.mac);
    endpoint.delegated = delegated_to(&found.0);
    endpoint.bandwidth = bandwidth(found.0.spec.qos_controls.as_ref());
    if let Some(name) = &found.0.spec.interface_name {
        endpoint.host_name.clone_from(name);
    }
    let pools = store.list(&Prefix::Resources(Kind::IPPool)).await;
    let pools: Vec<margay_ipam_core::pool::Pool> = pools
        .map_err(|error| from_store(&error))?
        .entries
        .iter()
        .filter_map(|entry| IPPool::decode(&entry.value).ok())
        .filter_map(|pool| margay_ipam_core::pool::Pool::from_resource(&pool))
        .collect();
    endpoint.block_lengths = endpoint
        .addresses
        .iter()
        .map(|address| pools.iter().find_map(|pool| pool.block_of(*address)))
        .map(|block| block.map(|block| block.length()))
        .collect();
    endpoint.recorded = Some(found);
    Ok(endpoint)
}

/// Makes the endpoint in the kernel. One that is there already, as recorded, stays as it is.
async fn make(
    config: &Config,
    kernel: &Kernel,
    store: &Datastore,
    identity: &Identity,
    endpoint: &Endpoint,
) -> Result<EndpointPlan, Fault> {
    let destinations: Vec<IpNetwork> = endpoint
        .delegated
        .iter()
        .flat_map(|answered| &answered.routes)
        .map(|route| route.dst)
        .collect();
    let plan = plan(
        config,
        identity,
        &endpoint.host_name,
        endpoint.mac,
        &endpoint.addresses,
        &destinations,
    )?;
    if let Some((held, revision)) = &endpoint.recorded {
        if kernel.problems(&plan, None).await?.is_empty() {
            kernel.limit(&plan, endpoint.bandwidth).await?;
            return Ok(plan);
        }
        claim(store, held, *revision).await?;
    }
    progress("setting up the interfaces");
    kernel
        .take_over(identity, &endpoint.host_name, None)
        .await?;
    kernel.set_up(&plan).await?;
    kernel.limit(&plan, endpoint.bandwidth).await?;
    Ok(plan)
}

fn bandwidth(limits: Option<&QosControls>) -> Bandwidth {
    limits.map(Bandwidth::of).unwrap_or_default()
}

/// Takes back what the call assigned and recorded. Failures are logged: DEL and clean-up come after.
async fn undo(call: &Request, releasing: &Releasing, identity: &Identity, host_name: &str) {
    let interfaces = vec![host_name.to_owned()];
    if let Err(error) = del::release(call, releasing, identity, interfaces).await {
        log(
            Level::Warning,
            &format!("taking back the failed ADD: {error}"),
        );
    }
}

/// Waits until the agent has the endpoint's policy in force. When that takes too long the call goes on, as
/// Calico's does: the dataplane drops what it has no policy for.
async fn wait_for_policy(config: &Config, identity: &Identity, addresses: &[IpAddr]) {
    let patience = match config.policy_timeout {
        Some(told) => told,
        None if is_locked(&config.status_dir) => POLICY_TIMEOUT,
        None => Duration::ZERO,
    };
    if patience.is_zero() {
        return;
    }
    let file = config.status_dir.join(status_file_name(identity));
    progress(format!("waiting for {}", file.display()));
    let until = Instant::now() + patience;
    while !fs::read(&file).is_ok_and(|text| tells_of(&text, addresses)) {
        if Instant::now() >= until {
            log(
                Level::Warning,
                &format!("{} did not appear within {patience:?}", file.display(),),
            );
            return;
        }
        tokio::time::sleep(STATUS_POLL).await;
    }
}

/// Whether a status file is not that of a predecessor with other addresses.
fn tells_of(text: &[u8], addresses: &[IpAddr]) -> bool {
    let status: Value = serde_json::from_slice(text).unwrap_or_default();
    let lists = ["ipv4Nets", "ipv6Nets"].map(|field| status[field].as_array());
    // One that lists no addresses, of whatever agent, tells by being there.
    if lists.iter().all(Option::is_none) {
        return true;
    }
    addresses.iter().all(|address| {
        let network = Cidr::host(*address).to_string();
        let mut listed = lists.iter().flatten().copied().flatten();
        listed.any(|listed| *listed == network)
    })
}

/// Whether somebody holds a lock of the folder: an agent does while it runs.
fn is_locked(folder: &Path) -> bool {
    let tried = File::open(folder).map(|folder| folder.try_lock_shared());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

fn status_file_name(identity: &Identity) -> String {
    let workload = format!("{}/{}", identity.namespace, identity.name.workload);
    status_file(
        &identity.name.orchestrator,
        &workload,
        &identity.name.endpoint,
    )
}

/// The MAC address that capability or `CNI_ARGS` ask for.
fn requested_mac(call: &Request) -> Result<Option<Mac>, Error> {
    let capability = call.conf.runtime_config()?.mac;
    let asked = capability.or(call.args.mac).map(|mac| Mac(mac.0));
    match asked {
        Some(mac) if mac.0[0] & MULTICAST != 0 || mac.0 == [0; 6] => Err(Error::new(
            code::INVALID_CONFIG,
            format!(
                "the MAC address {mac} that was asked for is not one interface's; ask for a unicast one"
            ),
        )),
        asked => Ok(asked),
    }
}

/// What the result begins with: that of the plugins before this one, and the configuration's `dns`. Read before
/// anything is done, for nothing would be left to undo by an error after it.
fn previous(call: &Request) -> Result<ResultDoc, Error> {
    let mut previous = call.conf.prev_result()?.unwrap_or_default();
    let configured = call.conf.dns()?;
    if previous.dns.is_empty() {
        previous.dns = configured;
    }
    Ok(previous)
}

/// The result, in the form Calico answers: the host's interface, the container's, addresses as /32 and /128,
/// and a route for each address with its block's prefix length.
fn result(
    call: &Request,
    previous: ResultDoc,
    plan: &EndpointPlan,
    endpoint: &Endpoint,
) -> ResultDoc {
    let mut result = previous;
    result.interfaces.push(Interface {
        name: plan.veth.host_name.clone(),
        ..Interface::default()
    });
    let container = result.interfaces.len();
    result.interfaces.push(Interface {
        name: plan.veth.container_name.clone(),
        mac: Some(endpoint.mac.to_string()),
        mtu: plan.veth.mtu,
        sandbox: call.netns.clone(),
        ..Interface::default()
    });
    for (address, length) in endpoint.addresses.iter().zip(&endpoint.block_lengths) {
        result.ips.push(Ip {
            address: Cidr::host(*address).network(),
            gateway: None,
            interface: Some(container),
        });
        let route = length.and_then(|length| IpNetwork::new(*address, length).ok());
        result.routes.extend(route.map(|dst| Route::new(dst, None)));
    }
    if let Some(answered) = &endpoint.delegated {
        result.routes.extend(answered.routes.iter().cloned());
        if !answered.dns.is_empty() {
            result.dns = answered.dns.clone();
        }
    }
    result
}

/// Earlier containers of one pod that have their DEL in one ADD.
const MOST_PREDECESSORS: u32 = 8;
/// The bit that makes a MAC address a group's.
const MULTICAST: u8 = 1;
const STATUS_POLL: Duration = Duration::from_millis(5);
/// How long an agent is waited for unless the configuration says.
const POLICY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessors_status_file_does_not_count() {
        let addresses: [IpAddr; 2] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        for (content, tells) in [
            (
                r#"{"ipv4Nets":["10.0.0.1/32"],"ipv6Nets":["fd00::1/128"]}"#,
                true,
            ),
            (r#"{"ipv4Nets":["10.0.0.1/32"],"ipv6Nets":[]}"#, false),
            (
                r#"{"ipv4Nets":["10.0.0.9/32"],"ipv6Nets":["fd00::1/128"]}"#,
                false,
            ),
            (r#"{"ifaceName":"cali1"}"#, true),
            ("", true),
        ] {
            let told = tells_of(content.as_bytes(), &addresses);
            assert_eq!(told, tells, "{content}");
        }
    }
}
