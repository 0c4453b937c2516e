//! CHECK: the record, its addresses and the kernel agree with the result that ADD gave. Reads only.

use std::net::IpAddr;

use margay_call::{check_addresses, from_store, open};
use margay_cni::error::{Error, code};
use margay_cni::{Command, Request, ResultDoc};
use margay_ipam_core::detach::addresses_of;
use margay_model::Key;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_plugin::{Delegate, progress};
use margay_store::{Answer, Read, Store};

use crate::config::{Config, Ipam};
use crate::identity::Identity;
use crate::kernel::{Kernel, plan, recorded_mac};

/// Carries out a CHECK.
///
/// # Errors
/// The first thing that is not as it should be, with all of them in the details.
pub(crate) async fn run(config: &Config, call: &Request) -> Result<(), Error> {
    let previous = call.conf.required_prev_result()?;
    let node = config.shared.node.name()?;
    let identity = Identity::of(call, &node)?;
    let kernel = Kernel::open(call)?;
    let store = open(&config.shared)?;
    progress(format!("waiting for {}", store.describe()));
    let reads = [
        Read::Get(identity.endpoint_key()),
        Read::Get(Key::Handle(identity.handle.clone())),
    ];
    let snapshot = store
        .read_many(&reads)
        .await
        .map_err(|error| from_store(&error))?;
    let mut answers = snapshot.answers.into_iter();
    let endpoint = endpoint(&identity, answers.next())?;
    let addresses = addresses_of(&endpoint);
    check_result(&previous, &identity, &addresses)?;
    match &config.ipam {
        Ipam::Own => {
            let handle = answers.next();
            // Where pods may have addresses past IPAM, no handle means that this one has.
            let is_held = handle
                .as_ref()
                .is_some_and(|answer| !answer.entries.is_empty());
            if is_held || !config.kubernetes.addresses_without_ipam {
                check_addresses(&store, &identity.handle, handle, &addresses).await?;
            }
        }
        Ipam::Delegate(plugin) => {
            Delegate::find(plugin, call)?.call(call, Command::Check)?;
        }
    }
    let mac = recorded_mac(&endpoint).ok_or_else(|| {
        failed(format!(
            "endpoint {} records no MAC address",
            identity.stored_name
        ))
    })?;
    let host_name = endpoint.spec.interface_name.clone().unwrap_or_default();
    let routes: Vec<_> = match &config.ipam {
        Ipam::Own => Vec::new(),
        Ipam::Delegate(_) => previous.routes.iter().map(|route| route.dst).collect(),
    };
    let plan = plan(config, &identity, &host_name, mac, &addresses, &routes)?;
    progress("reading the interfaces");
    let problems = kernel
        .problems(&plan, final_mac(&previous, &identity))
        .await?;
    let Some(first) = problems.first() else {
        return Ok(());
    };
    let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Err(failed(first.to_string()).with_details(all.join("; ")))
}

fn endpoint(identity: &Identity, answer: Option<Answer>) -> Result<WorkloadEndpoint, Error> {
    let name = &identity.stored_name;
    let entry = answer
        .and_then(Answer::into_entry)
        .ok_or_else(|| failed(format!("endpoint {name} is not recorded in the datastore")))?;
    let endpoint = WorkloadEndpoint::decode(&entry.value)
        .map_err(|error| failed(format!("endpoint {name} is damaged: {error}")))?;
    match &endpoint.spec.container_id {
        Some(id) if *id != identity.container_id => Err(failed(format!(
            "endpoint {name} belongs to the container {id}"
        ))),
        _ => Ok(endpoint),
    }
}

/// The addresses recorded are those that the result gives the container's interface.
fn check_result(
    previous: &ResultDoc,
    identity: &Identity,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    let container = previous.interfaces.iter().position(|interface| {
        interface.name == identity.name.endpoint && interface.sandbox.is_some()
    });
    let told: Vec<IpAddr> = previous
        .ips
        .iter()
        .filter(|ip| ip.interface.is_none() || container.is_none() || ip.interface == container)
        .map(|ip| ip.address.ip())
        .collect();
    match addresses.iter().find(|address| !told.contains(address)) {
        Some(address) => Err(failed(format!(
            "prevResult does not have the recorded address {address}"
        ))),
        None => Ok(()),
    }
}

/// The container's MAC address as the whole chain left it.
fn final_mac(previous: &ResultDoc, identity: &Identity) -> Option<margay_route::Mac> {
    previous
        .interfaces
        .iter()
        .find(|interface| interface.name == identity.name.endpoint && interface.sandbox.is_some())
        .and_then(|interface| interface.mac.as_deref()?.parse().ok())
}

fn failed(what: String) -> Error {
    Error::new(code::CHECK_FAILED, what)
}
