//! The stored record of an endpoint, written in the same commit as its addresses.

use std::net::IpAddr;

use margay_call::{Failure, datastore_ready, from_store};
use margay_cni::error::{Error, code};
use margay_cni::{ResultDoc, Version};
use margay_ipam_core::Companion;
use margay_ipam_core::allocator::Proceed;
use margay_model::resource::endpoint::{QosControls, WorkloadEndpoint, WorkloadEndpointSpec};
use margay_model::resource::profile::Profile;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Key, Kind, Metadata, uid};
use margay_store::{Answer, Batch, Entry, Outcome, Read, Store, Write};

use crate::identity::Identity;
use crate::pod::Pod;

/// Writes a record as it is, before the interfaces it names are made again: whoever has seen it without them
/// since, and is about to remove it for that, is too late then.
///
/// # Errors
/// Code 11 when it has just been removed or written, or the store's failure.
pub(crate) async fn claim<S: Store>(
    store: &S,
    held: &WorkloadEndpoint,
    revision: margay_store::Revision,
) -> Result<(), Error> {
    let key = held.key();
    let value = encode(&key, held.encode())?;
    let batch = Batch::of([Write::update(key.clone(), value, revision)]);
    let outcome = store.commit(&batch).await;
    match outcome.map_err(|error| from_store(&error))? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict(_) => Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!("{key} has just been changed by others"),
        )),
    }
}

/// Writes the endpoint of an ADD.
#[derive(Debug)]
pub(crate) struct Recording<'a> {
    pub(crate) identity: &'a Identity,
    /// What Kubernetes says of the pod, where it was asked.
    pod: Option<&'a Pod>,
    /// Host interface.
    pub(crate) interface: &'a str,
    /// MAC address of the container's interface.
    pub(crate) mac: String,
    /// The time.
    pub(crate) now: Timestamp,
    /// Random bytes for the UIDs of the endpoint and its profile.
    pub(crate) random: [[u8; 16]; 2],
    /// The endpoint, where an earlier call recorded it for the same container.
    pub(crate) found: Option<(WorkloadEndpoint, margay_store::Revision)>,
    /// The endpoint, where it is that of an earlier container of the same pod.
    pub(crate) earlier: Option<(WorkloadEndpoint, margay_store::Revision)>,
    /// Limits on its traffic.
    pub(crate) limits: Option<QosControls>,
    /// What another IPAM plugin answered, to be answered again to a repeated call.
    pub(crate) delegated: Option<ResultDoc>,
    /// The endpoint, where it is nobody's that holds anything.
    replaced: Option<(WorkloadEndpoint, margay_store::Revision)>,
    has_profile: bool,
}

impl<'a> Recording<'a> {
    pub(crate) fn new(
        identity: &'a Identity,
        pod: Option<&'a Pod>,
        interface: &'a str,
        mac: String,
        now: Timestamp,
        random: [[u8; 16]; 2],
    ) -> Self {
        Self {
            identity,
            pod,
            interface,
            mac,
            now,
            random,
            found: None,
            earlier: None,
            limits: None,
            delegated: None,
            replaced: None,
            has_profile: false,
        }
    }

    fn endpoint(&self, addresses: &[IpAddr]) -> Result<WorkloadEndpoint, Error> {
        let identity = self.identity;
        let mut metadata =
            Metadata::namespaced(identity.namespace.clone(), identity.stored_name.clone());
        metadata.uid = Some(uid::from_random(self.random[0]));
        metadata.creation_timestamp = Some(self.now.rfc3339());
        if let Some((held, _)) = &self.replaced {
            metadata = held.metadata.clone();
        }
        let described = self.pod.cloned().unwrap_or_default();
        metadata.labels = described.labels;
        metadata.labels.extend(identity.labels.clone());
        metadata.generate_name = described.generate_name;
        metadata.annotations.remove(DELEGATED);
        let delegated = self.delegated.as_ref();
        if let Some(Ok(answered)) = delegated.map(|answered| answered.encode(Version::LATEST)) {
            metadata
                .annotations
                .insert(DELEGATED.to_owned(), answered.to_string());
        }
        let workload = identity.pod().map(str::to_owned);
        let profiles = match self.pod {
            Some(_) => described.profiles,
            None => vec![identity.profile.clone()],
        };
        let prefixes = described.wishes.source_prefixes.iter();
        let endpoint = WorkloadEndpoint::new(
            metadata,
            WorkloadEndpointSpec {
                service_account_name: described.service_account,
                ip_nats: translations(&described.wishes.floating, addresses)?,
                ports: described.ports,
                allow_spoofed_source_prefixes: prefixes.map(Cidr::to_string).collect(),
                orchestrator: Some(identity.name.orchestrator.clone()),
                node: Some(identity.name.node.clone()),
                container_id: Some(identity.container_id.clone()),
                pod: workload,
                endpoint: Some(identity.name.endpoint.clone()),
                ip_networks: addresses
                    .iter()
                    .map(|address| Cidr::host(*address).to_string())
                    .collect(),
                profiles,
                interface_name: Some(self.interface.to_owned()),
                mac: Some(self.mac.clone()),
                qos_controls: self.limits.clone(),
                ..WorkloadEndpointSpec::default()
            },
        );
        Ok(endpoint)
    }

    /// The network's profile: its members reach each other, and everybody they like.
    fn profile(&self) -> Result<Profile, Error> {
        let name = &self.identity.profile;
        let mut metadata = Metadata::named(name.clone());
        metadata.uid = Some(uid::from_random(self.random[1]));
        metadata.creation_timestamp = Some(self.now.rfc3339());
        let spec = serde_json::json!({
            "ingress": [{"action": "Allow", "source": {"selector": format!("has({name})")}}],
            "egress": [{"action": "Allow"}],
            "labelsToApply": {name: ""},
        });
        let spec = serde_json::from_value(spec).map_err(|error| {
            Error::new(
                code::INTERNAL,
                format!("profile {name} cannot be made: {error}"),
            )
        })?;
        Ok(Profile::new(metadata, spec))
    }
}

impl Companion for Recording<'_> {
    type Error = Failure;

    fn reads(&self) -> Vec<Read> {
        let mut reads = vec![
            Read::Get(Key::resource(Kind::ClusterInformation, "default")),
            Read::Get(self.identity.endpoint_key()),
        ];
        // Kubernetes' controllers make the profiles of a pod that is described.
        if self.pod.is_none() {
            let profile = self.identity.profile.clone();
            reads.push(Read::Exists(Key::resource(Kind::Profile, profile)));
        }
        reads
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, Failure> {
        let [cluster, endpoint, profile @ ..] = answers else {
            return Err(Error::new(
                code::INTERNAL,
                "the store answered fewer reads than were sent",
            )
            .into());
        };
        datastore_ready(cluster.entries.first())?;
        self.has_profile = profile.iter().all(|answer| !answer.entries.is_empty());
        self.replaced = None;
        self.found = None;
        self.earlier = None;
        if let Some((held, revision)) = endpoint.entries.first().map(decode).transpose()? {
            let holder = held.spec.container_id.as_deref();
            let same = holder == Some(&*self.identity.container_id);
            if !same && holder.is_some() {
                self.earlier = Some((held, revision));
                return Ok(Proceed::Stop);
            }
            if same && !held.spec.ip_networks.is_empty() {
                self.found = Some((held, revision));
                return Ok(Proceed::Stop);
            }
            self.replaced = Some((held, revision));
        }
        Ok(Proceed::Go)
    }

    fn writes(&mut self, addresses: &[IpAddr]) -> Result<Vec<Write>, Failure> {
        let endpoint = self.endpoint(addresses)?;
        let value = encode(&endpoint.key(), endpoint.encode())?;
        let mut writes = vec![match &self.replaced {
            None => Write::create(endpoint.key(), value),
            Some((_, revision)) => Write::update(endpoint.key(), value, *revision),
        }];
        if !self.has_profile {
            let profile = self.profile()?;
            let value = encode(&profile.key(), profile.encode())?;
            writes.push(Write::create(profile.key(), value));
        }
        Ok(writes)
    }
}

/// Each floating address with the endpoint's address of its family.
fn translations(
    floating: &[IpAddr],
    addresses: &[IpAddr],
) -> Result<Option<serde_json::Value>, Error> {
    let mut pairs = Vec::new();
    for outer in floating {
        let mut inner = addresses.iter();
        let Some(inner) = inner.find(|inner| inner.is_ipv4() == outer.is_ipv4()) else {
            return Err(Error::new(
                code::INVALID_CONFIG,
                format!(
                    "annotation cni.projectcalico.org/floatingIPs: the pod has no address of the family of \
                     {outer} that it could lead to; remove it, or give the pod one"
                ),
            ));
        };
        pairs.push(serde_json::json!({"internalIP": inner, "externalIP": outer}));
    }
    Ok((!pairs.is_empty()).then(|| pairs.into()))
}

/// Writes the endpoint alone, for addresses that another IPAM plugin assigned.
///
/// # Errors
/// The store's, or code 11 when others keep changing the endpoint.
pub(crate) async fn commit_alone<S: Store>(
    store: &S,
    recording: &mut Recording<'_>,
    addresses: &[IpAddr],
) -> Result<(), Error> {
    for _ in 0..MOST_ATTEMPTS {
        let snapshot = store
            .read_many(&recording.reads())
            .await
            .map_err(|error| from_store(&error))?;
        let proceed = recording.inspect(&snapshot.answers);
        if proceed.map_err(|Failure(error)| error)? == Proceed::Stop {
            break;
        }
        let writes = recording.writes(addresses);
        let writes = writes.map_err(|Failure(error)| error)?;
        if writes.is_empty() {
            return Ok(());
        }
        let outcome = store.commit(&Batch { writes }).await;
        if let Outcome::Committed(_) = outcome.map_err(|error| from_store(&error))? {
            return Ok(());
        }
    }
    Err(Error::new(
        code::TRY_AGAIN_LATER,
        "the endpoint's record is being changed by others; try again",
    ))
}

/// What another IPAM plugin answered when the endpoint was made.
pub(crate) fn delegated_to(endpoint: &WorkloadEndpoint) -> Option<ResultDoc> {
    let text = endpoint.metadata.annotations.get(DELEGATED)?;
    ResultDoc::decode(&serde_json::from_str(text).ok()?, None).ok()
}

fn decode(entry: &Entry) -> Result<(WorkloadEndpoint, margay_store::Revision), Error> {
    let endpoint = WorkloadEndpoint::decode(&entry.value)
        .map_err(|error| Error::new(code::IO, format!("{} is damaged: {error}", entry.key)))?;
    Ok((endpoint, entry.revision))
}

fn encode(key: &Key, value: Result<Vec<u8>, serde_json::Error>) -> Result<Vec<u8>, Error> {
    value.map_err(|error| Error::new(code::INTERNAL, format!("{key} cannot be written: {error}")))
}

/// Annotation of an endpoint whose addresses another IPAM plugin assigned: what that plugin answered.
const DELEGATED: &str = "margay.io/delegated-ipam-result";
const MOST_ATTEMPTS: u32 = 20;
