//! The stored record of an endpoint: written in the commit that assigns its addresses, deleted in the one that gives
//! them back.

use std::net::IpAddr;

use margay_ipam_core::allocator::Proceed;
use margay_ipam_core::detach::addresses_of;
use margay_ipam_core::{Companion, IpamError, ReleaseCompanion};
use margay_model::names::EndpointName;
use margay_model::resource::cluster::ClusterInformation;
use margay_model::resource::endpoint::{WorkloadEndpoint, WorkloadEndpointSpec, WorkloadPort};
use margay_model::resource::profile::Profile;
use margay_model::{Cidr, Key, Kind, Metadata};
use margay_store::{Answer, Entry, Read, Revision, Write};

use crate::error::{DriverError, Result};

/// The name of an endpoint on a node, as Calico's plugin makes it.
pub fn name(node: &str, endpoint_id: &str) -> EndpointName {
    EndpointName {
        node: node.to_owned(),
        orchestrator: ORCHESTRATOR.to_owned(),
        workload: ORCHESTRATOR.to_owned(),
        endpoint: endpoint_id.to_owned(),
    }
}

/// The key of an endpoint's record.
///
/// # Errors
/// The node's name or the id cannot be part of a name.
pub fn key(node: &str, endpoint_id: &str) -> Result<Key> {
    let name = name(node, endpoint_id).encode();
    let name = name.map_err(|error| DriverError::Malformed(error.to_string()))?;
    Ok(Key::namespaced(Kind::WorkloadEndpoint, ORCHESTRATOR, name))
}

/// The handle of an endpoint's addresses.
pub fn handle(endpoint_id: &str) -> String {
    format!("docker.{endpoint_id}")
}

/// Reads a record.
///
/// # Errors
/// It is damaged.
pub fn decode(entry: &Entry) -> Result<(WorkloadEndpoint, Revision)> {
    match WorkloadEndpoint::decode(&entry.value) {
        Ok(endpoint) => Ok((endpoint, entry.revision)),
        Err(error) => Err(damaged(&entry.key, &error)),
    }
}

pub(crate) fn damaged(key: &Key, error: &serde_json::Error) -> DriverError {
    DriverError::Damaged {
        key: Box::new(key.clone()),
        reason: error.to_string(),
    }
}

/// Writes an endpoint, and its network's profile where there is none.
#[derive(Debug)]
pub struct Recording {
    /// Its key.
    pub key: Key,
    /// Docker's id for it.
    pub endpoint_id: String,
    /// The node.
    pub node: String,
    /// Docker's id for its network.
    pub network_id: String,
    /// Its host interface.
    pub interface: String,
    /// The MAC address of its container's interface.
    pub mac: String,
    /// The ports of the host that lead to it.
    pub ports: Vec<WorkloadPort>,
    /// Its addresses; those that are asked for.
    pub addresses: Vec<IpAddr>,
    /// For the record's metadata.
    pub uid: String,
    /// For the record's metadata, RFC 3339.
    pub created: String,
    /// The network's profile as it is made.
    pub profile: Profile,
    has_profile: bool,
    /// The endpoint, where an earlier call recorded it.
    pub found: bool,
}

/// What a [`Recording`] begins with.
#[derive(Debug)]
pub struct NewEndpoint {
    /// See [`Recording::node`].
    pub node: String,
    /// See [`Recording::endpoint_id`].
    pub endpoint_id: String,
    /// See [`Recording::network_id`].
    pub network_id: String,
    /// See [`Recording::interface`].
    pub interface: String,
    /// See [`Recording::mac`].
    pub mac: String,
    /// See [`Recording::ports`].
    pub ports: Vec<WorkloadPort>,
    /// See [`Recording::addresses`].
    pub addresses: Vec<IpAddr>,
    /// See [`Recording::uid`].
    pub uid: String,
    /// See [`Recording::created`].
    pub created: String,
    /// See [`Recording::profile`].
    pub profile: Profile,
}

impl Recording {
    /// A record to be written.
    ///
    /// # Errors
    /// As [`key`].
    pub fn new(new: NewEndpoint) -> Result<Self> {
        Ok(Self {
            key: key(&new.node, &new.endpoint_id)?,
            endpoint_id: new.endpoint_id,
            node: new.node,
            network_id: new.network_id,
            interface: new.interface,
            mac: new.mac,
            ports: new.ports,
            addresses: new.addresses,
            uid: new.uid,
            created: new.created,
            profile: new.profile,
            has_profile: false,
            found: false,
        })
    }

    fn endpoint(&self, addresses: &[IpAddr]) -> WorkloadEndpoint {
        let Key::Resource {
            namespace, name, ..
        } = &self.key
        else {
            return WorkloadEndpoint::default();
        };
        let namespace = namespace.clone().unwrap_or_default();
        let mut metadata = Metadata::namespaced(namespace, name.clone());
        metadata.uid = Some(self.uid.clone());
        metadata.creation_timestamp = Some(self.created.clone());
        metadata
            .annotations
            .insert(NETWORK_ANNOTATION.to_owned(), self.network_id.clone());
        let mut endpoint = WorkloadEndpoint::new(
            metadata,
            WorkloadEndpointSpec {
                orchestrator: Some(ORCHESTRATOR.to_owned()),
                workload: Some(ORCHESTRATOR.to_owned()),
                node: Some(self.node.clone()),
                endpoint: Some(self.endpoint_id.clone()),
                ip_networks: addresses
                    .iter()
                    .map(|address| Cidr::host(*address).to_string())
                    .collect(),
                profiles: vec![self.profile.metadata.name.clone()],
                interface_name: Some(self.interface.clone()),
                mac: Some(self.mac.clone()),
                ports: self.ports.clone(),
                ..WorkloadEndpointSpec::default()
            },
        );
        endpoint.set_defaults();
        endpoint
    }
}

impl Companion for Recording {
    type Error = DriverError;

    fn reads(&self) -> Vec<Read> {
        let profile = self.profile.metadata.name.clone();
        vec![
            Read::Get(Key::resource(Kind::ClusterInformation, "default")),
            Read::Get(self.key.clone()),
            Read::Exists(Key::resource(Kind::Profile, profile)),
        ]
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed> {
        let mut answers = answers.iter().map(|answer| answer.entries.first());
        let cluster = answers.next().flatten();
        let endpoint = answers.next().flatten();
        self.has_profile = answers.next().flatten().is_some();
        is_ready(cluster)?;
        self.found = false;
        let Some((held, _)) = endpoint.map(decode).transpose()? else {
            return Ok(Proceed::Go);
        };
        let mut wanted = self.addresses.clone();
        let mut had = addresses_of(&held);
        wanted.sort();
        had.sort();
        if wanted != had {
            return Err(DriverError::EndpointDiffers {
                id: self.endpoint_id.clone(),
                held: had,
            });
        }
        self.found = true;
        Ok(Proceed::Stop)
    }

    fn writes(&mut self, addresses: &[IpAddr]) -> Result<Vec<Write>> {
        let endpoint = self.endpoint(addresses);
        let value = endpoint.encode();
        let value = value.map_err(|error| damaged(&self.key, &error))?;
        let mut writes = vec![Write::create(self.key.clone(), value)];
        if !self.has_profile {
            let key = self.profile.key();
            let value = self.profile.encode();
            let value = value.map_err(|error| damaged(&key, &error))?;
            writes.push(Write::create(key, value));
        }
        Ok(writes)
    }
}

/// Deletes an endpoint's record in the commit that gives its addresses back.
#[derive(Debug)]
pub struct Removal {
    key: Key,
    at: Option<Revision>,
    /// The record, where it was there.
    pub found: Option<(WorkloadEndpoint, Revision)>,
}

impl Removal {
    /// Of the record of this key; only while it has this revision, where one is given.
    pub fn new(key: Key, at: Option<Revision>) -> Self {
        Self {
            key,
            at,
            found: None,
        }
    }
}

impl Companion for Removal {
    type Error = DriverError;

    fn reads(&self) -> Vec<Read> {
        vec![
            Read::Exists(Key::resource(Kind::ClusterInformation, "default")),
            Read::Get(self.key.clone()),
        ]
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed> {
        let mut answers = answers.iter().map(|answer| answer.entries.first());
        if answers.next().flatten().is_none() {
            return Err(IpamError::Uninitialised.into());
        }
        self.found = answers.next().flatten().map(decode).transpose()?;
        let at = self.found.as_ref().map(|(_, revision)| *revision);
        if self.at.is_some() && self.at != at {
            self.found = None;
            return Ok(Proceed::Stop);
        }
        Ok(Proceed::Go)
    }

    fn writes(&mut self, _addresses: &[IpAddr]) -> Result<Vec<Write>> {
        let found = self.found.iter();
        Ok(found
            .map(|(_, revision)| Write::delete(self.key.clone(), *revision))
            .collect())
    }
}

impl ReleaseCompanion for Removal {}

/// Whether the cluster may be changed.
fn is_ready(entry: Option<&Entry>) -> Result<()> {
    let Some(entry) = entry else {
        return Err(DriverError::NotReady(
            "the datastore is not initialised (no ClusterInformation); start margay-agent on a node",
        ));
    };
    let cluster = ClusterInformation::decode(&entry.value);
    let cluster = cluster.map_err(|error| damaged(&entry.key, &error))?;
    if cluster.spec.datastore_ready == Some(true) {
        return Ok(());
    }
    Err(DriverError::NotReady(
        "the datastore is locked (datastoreReady is not true); a migration is going on, try again later",
    ))
}

/// Orchestrator, namespace and workload of Docker's endpoints, as Calico has them.
pub const ORCHESTRATOR: &str = "libnetwork";
/// The annotation that says to which network an endpoint belongs.
pub const NETWORK_ANNOTATION: &str = "margay.io/docker-network-id";
/// The annotation that says how Docker calls the container.
pub const CONTAINER_ANNOTATION: &str = "margay.io/docker-container";
