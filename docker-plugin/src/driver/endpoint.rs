//! Endpoints: made and recorded, joined, left, deleted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_ipam_core::allocator::Want;
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::release::Address;
use margay_ipam_core::{Allocator, Release};
use margay_model::names::status_file;
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::{Cidr, Kind, Prefix};
use margay_netlink::Netlink;
use margay_netlink::endpoint::{Removal as Removed, close, setup_unplaced, teardown};
use margay_route::Mac;
use margay_store::{Revision, Store};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{Driver, check_id, new_uid, now, parse_address};
use crate::error::{DriverError, Result};
use crate::kernel::{self, Names, mark};
use crate::network::Network;
use crate::ports::{self, HostPort};
use crate::protocol::{
    CONNECTED, EndpointCall, EndpointInterface, InterfaceName, JoinAnswer, NEXT_HOP, PORT_MAP,
    PortBinding, StaticRoute,
};
use crate::record::{self, NewEndpoint, ORCHESTRATOR, Recording, Removal};

impl Driver {
    /// `NetworkDriver.CreateEndpoint`: assigns the addresses that were chosen and records the endpoint, in one commit.
    ///
    /// # Errors
    /// An address has been taken meanwhile, the network is unknown, or the store failed.
    pub async fn create_endpoint(&self, call: &EndpointCall) -> Result<Value> {
        let network = check_id("NetworkID", &call.network_id)?;
        let id = check_id("EndpointID", &call.endpoint_id)?;
        let nothing = EndpointInterface::default();
        let interface = call.interface.as_ref().unwrap_or(&nothing);
        let mut addresses = Vec::new();
        for text in [&interface.address, &interface.address_ipv6] {
            if !text.is_empty() {
                addresses.push(parse_address("Address", text)?);
            }
        }
        if addresses.is_empty() {
            return Err(DriverError::NoAddress(id.to_owned()));
        }
        let asked_mac = requested_mac(interface)?;
        let mac = asked_mac.unwrap_or_else(|| mac_of(id));
        let network = self.network(network).await?;
        let network = self.named(network).await?;
        let bindings = bindings(call)?;
        let ports = if bindings.is_empty() {
            Vec::new()
        } else {
            ports::choose(&bindings, &self.taken_ports(id).await?)?
        };
        let mut recording = Recording::new(NewEndpoint {
            node: self.node.clone(),
            endpoint_id: id.to_owned(),
            network_id: network.id.clone(),
            interface: Names::of(id).host,
            mac: mac.to_string(),
            ports,
            addresses: addresses.clone(),
            uid: new_uid()?,
            created: now().rfc3339(),
            profile: self.profile_of(&network)?,
        })?;
        let wants = addresses.iter().map(|one| Want::Exact(*one)).collect();
        let name = network.name.as_deref().unwrap_or(&network.id);
        let owner = [("endpoint", id), ("network", name), ("type", "docker")];
        {
            let _turn = self.turn.lock().await;
            let request = self.request(record::handle(id), wants, &owner);
            Allocator::new(&self.store)
                .assign(&request, &mut recording)
                .await?;
            for address in &addresses {
                self.let_go(*address);
            }
        }
        debug!(endpoint = id, network = name, ?addresses, "endpoint made");
        Ok(match asked_mac {
            Some(_) => json!({"Interface": {}}),
            None => json!({"Interface": {"MacAddress": mac.to_string()}}),
        })
    }

    /// `NetworkDriver.Join`: makes the interfaces. Docker moves the container's end and configures it.
    ///
    /// # Errors
    /// The endpoint is unknown, or the kernel refused.
    pub async fn join(self: &Arc<Self>, call: &EndpointCall) -> Result<JoinAnswer> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        let network = self
            .network(check_id("NetworkID", &call.network_id)?)
            .await?;
        self.departed(id).await;
        let (endpoint, _) = self.endpoint(id).await?;
        let addresses = addresses_of(&endpoint);
        let mac = endpoint
            .spec
            .mac
            .as_deref()
            .and_then(|mac| mac.parse().ok());
        let mac = mac.unwrap_or_else(|| mac_of(id));
        let mtu = network.mtu.or_else(|| self.config.mtu());
        let plan = kernel::plan(&endpoint, id, &network, mac, &addresses, mtu)?;
        setup_unplaced(&plan, &self.host()?).await?;
        self.wait_for_policy(id).await;
        if self.docker.is_some() {
            tokio::spawn(Arc::clone(self).describe(id.to_owned()));
        }
        info!(
            endpoint = id,
            interface = plan.veth.host_name,
            ?addresses,
            "endpoint joined"
        );
        let prefix = network.interface_prefix.as_ref();
        let prefix = prefix.unwrap_or(&self.config.interface_prefix);
        let names = InterfaceName {
            src_name: plan.veth.container_name,
            dst_prefix: prefix.clone(),
        };
        let mut answer = answer(&network, &addresses, names);
        if network.internal {
            self.route_within(&network, &addresses, &mut answer).await?;
        }
        Ok(answer)
    }

    /// An internal network has no default route, but one to its pools.
    async fn route_within(
        &self,
        network: &Network,
        addresses: &[IpAddr],
        answer: &mut JoinAnswer,
    ) -> Result<()> {
        answer.disable_gateway_service = true;
        let v4 = std::mem::take(&mut answer.gateway);
        let v6 = std::mem::take(&mut answer.gateway_ipv6);
        let mut prefixes = network.subnets.clone();
        if prefixes.is_empty() {
            let page = self.store.list(&Prefix::Resources(Kind::IPPool)).await?;
            let pools = page.entries.iter().filter_map(|entry| {
                margay_model::resource::pool::IPPool::decode(&entry.value).ok()
            });
            prefixes.extend(pools.filter_map(|pool| pool.spec.cidr.parse::<Cidr>().ok()));
        }
        for prefix in prefixes {
            let is_v4 = prefix.address().is_ipv4();
            if !addresses.iter().any(|address| address.is_ipv4() == is_v4) {
                continue;
            }
            answer.static_routes.push(StaticRoute {
                destination: prefix.to_string(),
                route_type: NEXT_HOP,
                next_hop: if is_v4 { v4.clone() } else { v6.clone() },
            });
        }
        Ok(())
    }

    /// `NetworkDriver.Leave`: closes the endpoint's interfaces, and has the kernel remove them, which takes it longer
    /// than everything else that a container's end asks of the driver. That the container's sandbox may be gone already
    /// is no error.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn leave(&self, call: &EndpointCall) -> Result<()> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        self.departed(id).await;
        close(&self.host()?, &Names::of(id).host, &mark(id)).await?;
        let name = id.to_owned();
        let removal = tokio::spawn(async move {
            if let Err(error) = remove_pair(name.clone()).await {
                warn!(endpoint = name, %error, "the interfaces are removed later");
            }
        });
        let mut departures = self.departures();
        departures.retain(|_, removal| !removal.is_finished());
        departures.insert(id.to_owned(), removal);
        Ok(())
    }

    /// Removes the interfaces.
    pub(crate) async fn take_down(&self, id: &str) -> Result<()> {
        self.departed(id).await;
        remove_pair(id.to_owned()).await
    }

    /// Sees that nobody sends from the endpoint's addresses any more.
    async fn close(&self, id: &str) -> Result<()> {
        let removal = |removal: &JoinHandle<()>| !removal.is_finished();
        let is_closed = self.departures().get(id).is_some_and(removal);
        match is_closed {
            true => Ok(()),
            false => self.take_down(id).await,
        }
    }

    /// Waits until a removal that `Leave` began has ended.
    async fn departed(&self, id: &str) {
        let removal = self.departures().remove(id);
        if let Some(removal) = removal {
            // What it met has been told.
            let _ = removal.await;
        }
    }

    /// `NetworkDriver.DeleteEndpoint`: gives the addresses back and deletes the record, in one commit. With the store
    /// away the call succeeds all the same, so that the container can be removed; the clean-up does the rest, as for
    /// any endpoint whose interface is gone.
    ///
    /// # Errors
    /// The kernel or the store refused.
    pub async fn delete_endpoint(&self, call: &EndpointCall) -> Result<()> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        self.close(id).await?;
        match self.remove(id, None).await {
            Ok(Some(addresses)) => {
                // Docker gives each back once more, in a call that does not say whose it was.
                for address in addresses {
                    self.keep(address);
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) if error.is_store_away() => {
                warn!(endpoint = id, %error, "the endpoint is given back later");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Removes an endpoint from the store; its addresses, or `None` where it was not there (any more, at this
    /// revision).
    pub(crate) async fn remove(
        &self,
        id: &str,
        at: Option<Revision>,
    ) -> Result<Option<Vec<IpAddr>>> {
        let _turn = self.turn.lock().await;
        self.remove_in_turn(id, at).await
    }

    /// [`Driver::remove`], for a caller whose turn it is already.
    pub(crate) async fn remove_in_turn(
        &self,
        id: &str,
        at: Option<Revision>,
    ) -> Result<Option<Vec<IpAddr>>> {
        let mut removal = Removal::new(record::key(&self.node, id)?, at);
        let release = Release {
            node: self.node.clone(),
            handle: record::handle(id),
            interface: None,
            hints: self.hints(),
            timestamp: None,
            now: now(),
        };
        let allocator = Allocator::new(&self.store);
        let released = allocator.release(&release, &mut removal).await?.addresses;
        let Some((endpoint, _)) = removal.found else {
            return Ok(None);
        };
        let addresses = addresses_of(&endpoint);
        self.rest(&addresses);
        // Calico's plugin assigns without a handle.
        let other: Vec<IpAddr> = addresses
            .iter()
            .filter(|address| !released.contains(address))
            .copied()
            .collect();
        if !other.is_empty() {
            let holders = allocator.holders(&other).await?;
            let unhandled = holders
                .iter()
                .filter(|(_, holder)| holder.handle_id.is_none() && holder.released_at.is_none());
            let wanted: Vec<Address> = unhandled
                .map(|(address, _)| Address {
                    address: *address,
                    handle: None,
                    sequence_number: None,
                })
                .collect();
            allocator.release_addresses(&wanted, now()).await?;
        }
        info!(endpoint = id, ?addresses, "endpoint removed");
        Ok(Some(addresses))
    }

    /// `NetworkDriver.EndpointOperInfo`.
    ///
    /// # Errors
    /// The id is none.
    pub fn endpoint_info(&self, call: &EndpointCall) -> Result<Value> {
        let id = check_id("EndpointID", &call.endpoint_id)?;
        Ok(json!({"Value": {
            "margay.io/node": self.node,
            "margay.io/interface": Names::of(id).host,
        }}))
    }

    /// An endpoint of this node by its id.
    pub(crate) async fn endpoint(&self, id: &str) -> Result<(WorkloadEndpoint, Revision)> {
        let entry = self.store.get(&record::key(&self.node, id)?).await?;
        let entry = entry.ok_or_else(|| DriverError::UnknownEndpoint { id: id.to_owned() })?;
        record::decode(&entry)
    }

    /// All of Docker's endpoints on this node, with their ids.
    pub(crate) async fn endpoints(&self) -> Result<Vec<(String, WorkloadEndpoint, Revision)>> {
        let names = record::name(&self.node, "").encode_prefix();
        let prefix = Prefix::NamesFrom(Kind::WorkloadEndpoint, ORCHESTRATOR.to_owned(), names);
        let page = self.store.list(&prefix).await?;
        Ok(page
            .entries
            .iter()
            .filter_map(|entry| record::decode(entry).ok())
            .filter_map(|(endpoint, revision)| {
                let ours = endpoint.spec.node.as_deref() == Some(self.node.as_str());
                let id = endpoint.spec.endpoint.clone().filter(|_| ours)?;
                Some((id, endpoint, revision))
            })
            .collect())
    }

    /// The host ports of the node's endpoints but one.
    async fn taken_ports(&self, but: &str) -> Result<BTreeMap<HostPort, String>> {
        let endpoints = self.endpoints().await?;
        let others = endpoints.iter().filter(|(id, ..)| id != but);
        Ok(others
            .flat_map(|(id, endpoint, _)| {
                ports::published(endpoint).map(|(host, _)| (host, id.clone()))
            })
            .collect())
    }

    /// Waits until the agent has the endpoint's policy in force. When that takes too long the container starts all
    /// the same: the dataplane drops what it has no policy for.
    async fn wait_for_policy(&self, id: &str) {
        let Some(patience) = self.config.policy_timeout else {
            return;
        };
        let workload = format!("{ORCHESTRATOR}/{ORCHESTRATOR}");
        let name = status_file(ORCHESTRATOR, &workload, id);
        let file = self.config.status_dir.join(name);
        let until = Instant::now() + patience;
        while !file.exists() {
            if Instant::now() >= until {
                warn!(file = %file.display(), ?patience, "the endpoint's policy was not in force in time");
                return;
            }
            sleep(STATUS_POLL).await;
        }
    }
}

/// Removes an endpoint's pair of interfaces, on a thread of its own: the call to the kernel lasts until the kernel has
/// done it, and other calls of Docker's go on meanwhile.
async fn remove_pair(id: String) -> Result<()> {
    let removal = spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_io().build();
        let runtime = runtime.map_err(|source| DriverError::System {
            what: "epoll",
            source,
        })?;
        let names = Names::of(&id);
        let removal = runtime
            .block_on(async { teardown(&Netlink::current()?, &names.host, &mark(&id)).await })?;
        if let Removed::Foreign { alias } = removal {
            warn!(
                interface = names.host,
                alias, "the interface is another's; it stays"
            );
        }
        Ok(())
    });
    removal.await.map_err(|lost| DriverError::System {
        what: "the end of a removal",
        source: std::io::Error::other(lost),
    })?
}

/// What Docker is told of an endpoint's way out.
fn answer(network: &Network, addresses: &[IpAddr], interface_name: InterfaceName) -> JoinAnswer {
    let mut answer = JoinAnswer {
        interface_name,
        ..JoinAnswer::default()
    };
    let mut on_link = |gateway: IpAddr| {
        answer.static_routes.push(StaticRoute {
            destination: Cidr::host(gateway).to_string(),
            route_type: CONNECTED,
            next_hop: String::new(),
        });
        gateway.to_string()
    };
    // Docker switches IPv6 off in a sandbox without an IPv6 address; a route would be refused there.
    let has = |v4: bool| addresses.iter().any(|address| address.is_ipv4() == v4);
    let v4 = network.gateway.filter(|_| has(true));
    let v4 = v4.map(|gateway| on_link(gateway.into()));
    let v6 = network.gateway_v6().filter(|_| has(false));
    let v6 = v6.map(|gateway| on_link(gateway.into()));
    answer.gateway = v4.unwrap_or_default();
    answer.gateway_ipv6 = v6.unwrap_or_default();
    answer
}

fn requested_mac(interface: &EndpointInterface) -> Result<Option<Mac>> {
    let text = &interface.mac_address;
    if text.is_empty() {
        return Ok(None);
    }
    let mac: Option<Mac> = text.parse().ok();
    let mac = mac.filter(|mac| mac.0[0] & MULTICAST == 0 && mac.0 != [0; 6]);
    mac.map(Some).ok_or_else(|| {
        DriverError::Malformed(format!("MacAddress {text:?} is not one interface's"))
    })
}

/// A local unicast address that follows from the endpoint's id.
fn mac_of(id: &str) -> Mac {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [_, _, rest @ ..] = hash.to_be_bytes();
    Mac::local(rest)
}

fn bindings(call: &EndpointCall) -> Result<Vec<PortBinding>> {
    let options = call.options.as_ref();
    let Some(told) = options.and_then(|options| options.get(PORT_MAP)) else {
        return Ok(Vec::new());
    };
    if told.is_null() {
        return Ok(Vec::new());
    }
    serde_json::from_value(told.clone())
        .map_err(|error| DriverError::Malformed(format!("{PORT_MAP}: {error}")))
}

/// The bit that makes a MAC address a group's.
const MULTICAST: u8 = 1;
const STATUS_POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn network() -> Network {
        Network {
            gateway: Some([169, 254, 34, 155].into()),
            ..Network::default()
        }
    }

    #[test]
    fn docker_is_told_of_ipv6_only_where_the_endpoint_has_it() {
        let v4 = "192.168.0.1".parse().unwrap();
        let only = answer(&network(), &[v4], InterfaceName::default());
        assert_eq!(
            serde_json::to_value(only).unwrap(),
            json!({"InterfaceName": {"SrcName": "", "DstPrefix": ""}, "Gateway": "169.254.34.155",
                "StaticRoutes": [{"Destination": "169.254.34.155/32", "RouteType": 1, "NextHop": ""}]})
        );
        let both = answer(
            &network(),
            &[v4, "fd00::1".parse().unwrap()],
            InterfaceName::default(),
        );
        assert_eq!(both.gateway_ipv6, "fe80::a9fe:229b");
        assert_eq!(both.static_routes[1].destination, "fe80::a9fe:229b/128");
    }

    #[test]
    fn mac_addresses_follow_from_ids_and_are_local() {
        let (one, two) = (mac_of("6b727a5521310e98"), mac_of("6b727a5521310e99"));
        assert_ne!(one, two);
        assert_eq!(one.0[0] & 3, 2);
    }

    #[test]
    fn group_addresses_are_refused() {
        let asked = |text: &str| {
            requested_mac(&EndpointInterface {
                mac_address: text.to_owned(),
                ..EndpointInterface::default()
            })
        };
        assert_eq!(asked("").unwrap(), None);
        assert!(asked("02:42:de:ad:be:ef").unwrap().is_some());
        for bad in ["01:00:5e:00:00:01", "00:00:00:00:00:00", "x"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
