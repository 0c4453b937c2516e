//! Networks: made, named, found again, removed.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_ipam_core::allocator::Want;
use margay_ipam_core::{Allocator, IpamError, NoCompanion, Release};
use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::resource::pool::IPPool;
use margay_model::resource::profile::Profile;
use margay_model::{Key, Kind, Prefix, json};
use margay_store::{Batch, Entry, Outcome, Read, Revision, Store, Write};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{Driver, check_id, new_uid, now};
use crate::config::Scope;
use crate::error::{DriverError, Result};
use crate::network::Network;
use crate::protocol::{CreateNetwork, NetworkCall};
use crate::record::{ORCHESTRATOR, damaged};

impl Driver {
    /// `NetworkDriver.CreateNetwork`.
    ///
    /// # Errors
    /// An option cannot be used, an address to keep is taken, or the store failed.
    pub async fn create_network(&self, call: &CreateNetwork) -> Result<()> {
        check_id("NetworkID", &call.network_id)?;
        let mut network = Network::from_call(call, &self.config.ipam_name(), now())?;
        network.node = (self.config.scope == Scope::Local).then(|| self.node.clone());
        self.put_new(&mut network).await?;
        if let Err(error) = self.hold_reserved(&network).await {
            // Docker does not take back what was refused.
            self.forget_network(&network.id).await?;
            return Err(error);
        }
        info!(network = %network.id, "network made");
        Ok(())
    }

    /// Writes a network that is not there yet. One that is stays as it is: Docker repeats a call whose answer it did
    /// not hear.
    async fn put_new(&self, network: &mut Network) -> Result<()> {
        let key = Key::DockerNetwork(network.id.clone());
        if self.store.get(&key).await?.is_some() {
            return Ok(());
        }
        let others = self.networks().await?;
        let taken = others
            .iter()
            .filter_map(|(other, _)| other.gateway)
            .collect();
        network.choose_gateway(&taken);
        let batch = Batch::of([Write::create(key.clone(), encode(&key, network)?)]);
        self.store.commit(&batch).await?;
        Ok(())
    }

    /// Assigns the addresses that no container of the network may get to nobody. Other networks of the same pool may
    /// name the same addresses, as the same network on another host does.
    pub(crate) async fn hold_reserved(&self, network: &Network) -> Result<()> {
        if network.reserved.is_empty() {
            return Ok(());
        }
        let wanted: Vec<IpAddr> = network.reserved.iter().copied().collect();
        let holders = Allocator::new(&self.store).holders(&wanted).await?;
        for address in &wanted {
            let handle = reserved_handle(*address);
            let holder = holders.get(address);
            if holder.is_some_and(|holder| holder.handle_id.as_ref() == Some(&handle)) {
                self.let_go(*address);
                continue;
            }
            let _turn = self.turn.lock().await;
            let owner = [("type", "dockerReserved")];
            let request = self.request(handle, vec![Want::Exact(*address)], &owner);
            let assigned = Allocator::new(&self.store)
                .assign(&request, &mut NoCompanion)
                .await;
            match assigned {
                // A gateway outside of all pools can be given to nobody.
                Ok(_) | Err(IpamError::AddressInNoPool { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            self.let_go(*address);
        }
        Ok(())
    }

    /// `NetworkDriver.DeleteNetwork`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn delete_network(&self, call: &NetworkCall) -> Result<()> {
        let id = check_id("NetworkID", &call.network_id)?;
        self.forget_network(id).await?;
        info!(network = id, "network removed");
        Ok(())
    }

    pub(crate) async fn forget_network(&self, id: &str) -> Result<()> {
        let key = Key::DockerNetwork(id.to_owned());
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(());
        };
        let (network, _) = decode(&entry)?;
        let others: Vec<Network> = self
            .networks()
            .await?
            .into_iter()
            .map(|(other, _)| other)
            .filter(|other| other.id != id)
            .collect();
        let shared: BTreeSet<&IpAddr> = others.iter().flat_map(|other| &other.reserved).collect();
        for address in network.reserved.iter().filter(|one| !shared.contains(one)) {
            let _turn = self.turn.lock().await;
            let release = Release {
                node: self.node.clone(),
                handle: reserved_handle(*address),
                interface: None,
                hints: self.hints(),
                timestamp: None,
                now: now(),
            };
            Allocator::new(&self.store)
                .release(&release, &mut NoCompanion)
                .await?;
        }
        let mut batch = Batch::of([Write::delete_any(key)]);
        let profile = network.profile_name();
        if !others.iter().any(|other| other.profile_name() == profile) {
            batch.writes.extend(self.unused_profile(&network).await?);
        }
        self.store.commit(&batch).await?;
        Ok(())
    }

    /// The end of a network's profile, where it is still as it was made and nobody uses it.
    async fn unused_profile(&self, network: &Network) -> Result<Option<Write>> {
        let made = network.make_profile(String::new(), now());
        let Ok(made) = made else { return Ok(None) };
        let key = made.key();
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(None);
        };
        let unchanged = Profile::decode(&entry.value).is_ok_and(|held| held.spec == made.spec);
        let name = &made.metadata.name;
        if !unchanged {
            return Ok(None);
        }
        let prefix = Prefix::Namespace(Kind::WorkloadEndpoint, ORCHESTRATOR.to_owned());
        let endpoints = self.store.list(&prefix).await?.entries;
        let used = endpoints
            .iter()
            .filter_map(|entry| WorkloadEndpoint::decode(&entry.value).ok())
            .any(|endpoint| endpoint.spec.profiles.contains(name));
        Ok((!used).then(|| Write::delete(key, entry.revision)))
    }

    /// All networks.
    pub(crate) async fn networks(&self) -> Result<Vec<(Network, Revision)>> {
        let page = self.store.list(&Prefix::DockerNetworks).await?;
        Ok(page
            .entries
            .iter()
            .filter_map(|entry| decode(entry).ok())
            .collect())
    }

    /// A network that Docker names. One that the store does not know was made by Calico's plugin, or the store lost
    /// it: it is taken over as pools and Docker describe it.
    pub(crate) async fn network(&self, id: &str) -> Result<Network> {
        let key = Key::DockerNetwork(id.to_owned());
        if let Some(entry) = self.store.get(&key).await? {
            return Ok(decode(&entry)?.0);
        }
        let told = match &self.docker {
            Some(docker) => docker.network(id).await,
            None => None,
        };
        let mut network = match (&told, self.annotated(id).await?) {
            (Some(told), annotated) => {
                let mut network = Network::from_inspection(id, told, now());
                network.profile = annotated.and_then(|annotated| annotated.profile);
                network
            }
            (None, Some(annotated)) => annotated,
            (None, None) => return Err(DriverError::UnknownNetwork { id: id.to_owned() }),
        };
        network.node = (self.config.scope == Scope::Local).then(|| self.node.clone());
        self.put_new(&mut network).await?;
        info!(network = id, name = network.name, "network taken over");
        let stored = self.store.get(&key).await?;
        stored.map_or(Ok(network), |entry| Ok(decode(&entry)?.0))
    }

    /// What Calico's plugin left of a network: an annotation on its pool, whose name is also its profile's.
    async fn annotated(&self, id: &str) -> Result<Option<Network>> {
        let page = self.store.list(&Prefix::Resources(Kind::IPPool)).await?;
        let pools: Vec<IPPool> = page
            .entries
            .iter()
            .filter_map(|entry| IPPool::decode(&entry.value).ok())
            .filter(|pool| {
                let noted = pool.metadata.annotations.get(CALICO_ANNOTATION);
                noted.is_some_and(|noted| noted == id)
            })
            .collect();
        let Some(first) = pools.first() else {
            return Ok(None);
        };
        Ok(Some(Network {
            id: id.to_owned(),
            profile: Some(first.metadata.name.clone()),
            subnets: pools
                .iter()
                .filter_map(|pool| pool.spec.cidr.parse().ok())
                .collect(),
            created: now().rfc3339(),
            ..Network::default()
        }))
    }

    /// Asks Docker for a network's name and makes its profile, so that it is there to be seen and edited before the
    /// first container. Docker knows the name only once `CreateNetwork` is answered.
    pub async fn introduce(self: Arc<Self>, id: String) {
        let Some(docker) = &self.docker else { return };
        for _ in 0..INTRODUCTIONS {
            if let Some(told) = docker.network(&id).await
                && let Some(name) = told["Name"].as_str()
            {
                match self.name_network(&id, name).await {
                    Ok(_) => {}
                    Err(error) => warn!(network = id, %error, "the network's profile is not made"),
                }
                return;
            }
            sleep(BETWEEN).await;
        }
        debug!(network = id, "Docker does not tell the network's name");
    }

    /// Notes a network's name, decides its profile, and makes that where there is none.
    async fn name_network(&self, id: &str, name: &str) -> Result<Option<Network>> {
        let key = Key::DockerNetwork(id.to_owned());
        for _ in 0..MOST_ATTEMPTS {
            let Some(entry) = self.store.get(&key).await? else {
                return Ok(None);
            };
            let (mut network, revision) = decode(&entry)?;
            if network.name.is_some() {
                return Ok(Some(network));
            }
            network.name = Some(name.to_owned());
            network.profile = Some(network.profile_name());
            let mut batch = Batch::of([Write::update(
                key.clone(),
                encode(&key, &network)?,
                revision,
            )]);
            let profile = self.profile_of(&network)?;
            let at = profile.key();
            let there = self.store.read_many(&[Read::Exists(at.clone())]).await?;
            if there.answers.iter().all(|answer| answer.entries.is_empty()) {
                let value = profile.encode().map_err(|error| damaged(&at, &error))?;
                batch.push(Write::create(at, value));
            }
            if let Outcome::Committed(_) = self.store.commit(&batch).await? {
                return Ok(Some(network));
            }
        }
        Err(DriverError::Contention(Box::new(key)))
    }

    /// The network with its profile decided, at the latest for its first endpoint.
    pub(crate) async fn named(&self, network: Network) -> Result<Network> {
        if network.profile.is_some() {
            return Ok(network);
        }
        let told = match &self.docker {
            Some(docker) => docker.network(&network.id).await,
            None => None,
        };
        let name = told.and_then(|told| told["Name"].as_str().map(str::to_owned));
        if let Some(name) = name {
            let named = self.name_network(&network.id, &name).await?;
            return Ok(named.unwrap_or(network));
        }
        warn!(
            network = network.id,
            profile = network.profile_name(),
            "Docker does not tell the network's name; its containers reach those of the same network on other hosts \
             only with a policy"
        );
        Ok(network)
    }

    pub(crate) fn profile_of(&self, network: &Network) -> Result<Profile> {
        let made = network.make_profile(new_uid()?, now());
        made.map_err(|error| {
            damaged(
                &Key::resource(Kind::Profile, network.profile_name()),
                &error,
            )
        })
    }
}

/// The handle of an address that is kept from containers, for however many networks.
pub(crate) fn reserved_handle(address: IpAddr) -> String {
    format!("docker-reserved.{address}")
}

fn decode(entry: &Entry) -> Result<(Network, Revision)> {
    match serde_json::from_slice(&entry.value) {
        Ok(network) => Ok((network, entry.revision)),
        Err(error) => Err(damaged(&entry.key, &error)),
    }
}

fn encode(key: &Key, network: &Network) -> Result<Vec<u8>> {
    json::encode(network).map_err(|error| damaged(key, &error))
}

/// What Calico's plugin writes on the pools of a network.
const CALICO_ANNOTATION: &str = "org.projectcalico.label.network.ID";
const INTRODUCTIONS: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);
const MOST_ATTEMPTS: u32 = 20;
