//! The kernel's side of a call, with failures as CNI errors.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_cni::Request;
use margay_cni::error::{Error, code};
use margay_endpoint::shaping::{self, Bandwidth, Desired};
use margay_endpoint::{EndpointPlan, EndpointSpec, Mark, Problem, verify};
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_netlink::netfilter::Conntrack;
use margay_netlink::{Error as KernelError, Link, Namespace, Netlink, endpoint};
use margay_plugin::{Level, log, progress};
use margay_route::Mac;

use crate::config::{Config, netns};
use crate::identity::Identity;

/// What keeps an endpoint from being made.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The kernel's side refused.
    Kernel(KernelError),
    /// Something else.
    Other(Error),
}

impl Fault {
    /// Whether the host interface's name belongs to another endpoint.
    pub(crate) fn is_taken_name(&self) -> bool {
        matches!(self, Self::Kernel(KernelError::HostInterfaceExists { .. }))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Kernel(error) => from_kernel(&error),
            Fault::Other(error) => error,
        }
    }
}

/// An earlier container of the same pod, as the stored endpoint has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Predecessor {
    /// The earlier container's id.
    pub(crate) container_id: String,
    /// The host interface.
    pub(crate) host_name: String,
    /// Its mark.
    pub(crate) mark: Mark,
}

impl Predecessor {
    /// What a stored endpoint says of a container other than the identity's; `None` where it is the same.
    pub(crate) fn of(held: &WorkloadEndpoint, identity: &Identity) -> Option<Self> {
        let container_id = held.spec.container_id.clone()?;
        if container_id == identity.container_id {
            return None;
        }
        Some(Self {
            host_name: held.spec.interface_name.clone()?,
            mark: identity.mark_of(&container_id),
            container_id,
        })
    }
}

/// Both ends of a call.
#[derive(Debug)]
pub(crate) struct Kernel {
    host: Netlink,
    container: Namespace,
}

impl Kernel {
    /// Opens the container's namespace, once and for all, and a socket on the host.
    ///
    /// # Errors
    /// Code 8 when the namespace is none, 107 for what the kernel refuses.
    pub(crate) fn open(call: &Request) -> Result<Self, Error> {
        let container = Namespace::open(netns(call)?).map_err(|error| from_kernel(&error))?;
        let host = Netlink::current().map_err(|error| from_kernel(&error))?;
        Ok(Self { host, container })
    }

    /// The first of the names that no other endpoint's interface has. That of an earlier container of the same
    /// pod is not in the way: it goes before the new one is made.
    ///
    /// # Errors
    /// Code 107 when the kernel cannot be asked.
    pub(crate) async fn free_name(
        &self,
        names: [String; 2],
        identity: &Identity,
    ) -> Result<String, Error> {
        let [preferred, other] = names;
        let held = self
            .host
            .link(&preferred)
            .await
            .map_err(|error| from_kernel(&error))?;
        let ours = match held {
            None => true,
            Some(link) => match link.alias.as_deref() {
                Some(alias) if !alias.is_empty() => {
                    alias == identity.mark.as_str() || identity.earlier_container(alias).is_some()
                }
                _ => self.is_remains(&link, identity).await?,
            },
        };
        Ok(if ours { preferred } else { other })
    }

    /// Whether a host interface without a mark is what an attempt left that ended before it could set one: then
    /// its other end is the container's interface.
    async fn is_remains(&self, outer: &Link, identity: &Identity) -> Result<bool, Error> {
        let inside = Netlink::open(&self.container).map_err(|error| from_kernel(&error))?;
        let inner = inside
            .link(&identity.name.endpoint)
            .await
            .map_err(|error| from_kernel(&error))?;
        Ok(inner.is_some_and(|inner| {
            outer.peer_index == Some(inner.index) && inner.peer_index == Some(outer.index)
        }))
    }

    /// Deletes the interfaces of earlier containers of the same pod: the one that was recorded, and the one that
    /// has the name `host_name`. The record is this container's already, so nobody needs them.
    ///
    /// # Errors
    /// Code 107 for what the kernel refuses; a missing interface is no error, and others' are left alone.
    pub(crate) async fn take_over(
        &self,
        identity: &Identity,
        host_name: &str,
        recorded: Option<&Predecessor>,
    ) -> Result<(), Error> {
        if identity.pod().is_none() {
            return Ok(());
        }
        let link = self.host.link(host_name).await;
        let link = link.map_err(|error| from_kernel(&error))?;
        let alias = link.and_then(|link| link.alias).unwrap_or_default();
        let named = identity
            .earlier_container(&alias)
            .map(|id| (host_name, identity.mark_of(id)));
        let recorded = recorded.map(|it| (&*it.host_name, it.mark.clone()));
        for (name, mark) in named.into_iter().chain(recorded) {
            endpoint::teardown(&self.host, name, &mark)
                .await
                .map_err(|error| from_kernel(&error))?;
        }
        Ok(())
    }

    /// Makes the endpoint; traffic flows when this returns.
    ///
    /// # Errors
    /// Code 105 when an interface is in the way, 107 for what the kernel refuses.
    pub(crate) async fn set_up(&self, plan: &EndpointPlan) -> Result<(), Fault> {
        endpoint::setup(plan, &self.host, &self.container)
            .await
            .map(|_| ())
            .map_err(Fault::Kernel)
    }

    /// Limits an endpoint's bandwidth where it is to be limited: from its first packet on, and without an agent.
    ///
    /// # Errors
    /// Code 107 for what the kernel refuses or lacks.
    pub(crate) async fn limit(
        &self,
        plan: &EndpointPlan,
        bandwidth: Bandwidth,
    ) -> Result<(), Fault> {
        if bandwidth.is_unlimited() {
            return Ok(());
        }
        let interface = plan.veth.host_name.clone();
        let desired = Desired {
            bandwidth,
            mtu: plan.veth.mtu.unwrap_or(DEFAULT_MTU),
        };
        let desired = BTreeMap::from([(interface.clone(), desired)]);
        // As if nothing were there: what is, is changed in place.
        let steps = shaping::plan(&desired, &[interface].into(), &shaping::Observed::default());
        for step in &steps {
            margay_netlink::shaping::apply(&self.host, step)
                .await
                .map_err(Fault::Kernel)?;
        }
        Ok(())
    }

    /// What differs between the plan and the kernel. `mac` is the container's, where a later plugin
    /// changed it.
    ///
    /// # Errors
    /// Code 107 when the kernel cannot be asked.
    pub(crate) async fn problems(
        &self,
        plan: &EndpointPlan,
        mac: Option<Mac>,
    ) -> Result<Vec<Problem>, Error> {
        let mut expected = plan.expected();
        if let Some(mac) = mac {
            expected = expected.with_final_mac(mac);
        }
        let observed = endpoint::observe(&self.host, &self.container, &expected)
            .await
            .map_err(|error| from_kernel(&error))?;
        Ok(verify(&expected, &observed))
    }
}

/// Deletes the endpoint's interfaces, under whichever of its names.
///
/// # Errors
/// Code 107 for what the kernel refuses; missing interfaces are no error, and others' are left alone.
pub(crate) async fn take_down(names: &[String], identity: &Identity) -> Result<(), Error> {
    let host = Netlink::current().map_err(|error| from_kernel(&error))?;
    for name in names {
        let removal = endpoint::teardown(&host, name, &identity.mark)
            .await
            .map_err(|error| from_kernel(&error))?;
        if let endpoint::Removal::Foreign { alias } = removal {
            log(
                Level::Debug,
                &format!("interface {name} belongs to {alias}; it stays"),
            );
        }
    }
    Ok(())
}

/// Deletes what the host tracks of connections of addresses that nobody has any more: the next to get one is not
/// to be taken for its predecessor (D11). What cannot be deleted is left to the agent.
pub(crate) fn forget_connections(addresses: &[IpAddr]) {
    if addresses.is_empty() {
        return;
    }
    progress("clearing connection tracking");
    match Conntrack::current().and_then(|mut conntrack| conntrack.forget(addresses)) {
        Ok(entries) => log(
            Level::Debug,
            &format!("{entries} tracked connections of {addresses:?} deleted"),
        ),
        Err(error) => log(
            Level::Warning,
            &format!(
                "the tracked connections of {addresses:?} stay until margay-agent deletes them: {}",
                chain(&error)
            ),
        ),
    }
}

/// The plan of an endpoint.
///
/// # Errors
/// Code 7 when the kernel could not hold what the configuration asks.
pub(crate) fn plan(
    config: &Config,
    identity: &Identity,
    host_name: &str,
    mac: Mac,
    addresses: &[IpAddr],
    routes: &[ipnetwork::IpNetwork],
) -> Result<EndpointPlan, Error> {
    EndpointPlan::new(&EndpointSpec {
        host_name: host_name.to_owned(),
        container_name: identity.name.endpoint.clone(),
        container_mac: mac,
        mtu: config.mtu()?,
        queues: config.queues,
        addresses: addresses.to_vec(),
        routes: routes.to_vec(),
        include_default_routes: config.include_default_routes,
        allow_ip_forwarding: config.allow_ip_forwarding,
        mark: identity.mark.clone(),
    })
    .map_err(|error| Error::new(code::INVALID_CONFIG, error.to_string()))
}

/// The MAC address that an endpoint records; `None` where there is none that can be read.
pub(crate) fn recorded_mac(endpoint: &WorkloadEndpoint) -> Option<Mac> {
    endpoint.spec.mac.as_deref()?.parse().ok()
}

/// The CNI error for what the kernel's side refuses.
pub(crate) fn from_kernel(error: &KernelError) -> Error {
    let code = match error {
        KernelError::NamespaceAbsent { .. }
        | KernelError::NotNamespace { .. }
        | KernelError::OpenNamespace { .. } => code::INVALID_NETNS,
        KernelError::InterfaceExists { .. }
        | KernelError::HostInterfaceExists { .. }
        | KernelError::RouteConflict { .. } => code::INTERFACE_EXISTS,
        _ => code::KERNEL,
    };
    let details = error
        .errno()
        .map(|errno| format!("errno {}", errno as i32))
        .unwrap_or_default();
    Error::new(code, chain(error)).with_details(details)
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A pair's, where the configuration gives none.
const DEFAULT_MTU: u32 = 1_500;
