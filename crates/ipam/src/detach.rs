//! Takes an attachment out of the store: its endpoint and its addresses, in one commit.

use std::net::IpAddr;

use margay_model::resource::endpoint::WorkloadEndpoint;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Key, Kind};
use margay_store::{Answer, Condition, Entry, Op, Read, Revision, Store, Write};

use crate::allocator::{Allocator, Companion, Proceed};
use crate::error::IpamError;
use crate::release::{Release, ReleaseCompanion};

/// What to take out, by record: nothing here depends on a network's configuration.
#[derive(Clone, Debug)]
pub struct Detach {
    /// Node on whose behalf.
    pub node: String,
    /// The container's id: an endpoint that belongs to a newer container stays.
    pub container_id: String,
    /// The interface in the container.
    pub ifname: String,
    /// The handle of the addresses.
    pub handle: String,
    /// The handle that old versions used.
    pub legacy_handle: Option<String>,
    /// The endpoint's key, where there may be an endpoint.
    pub endpoint: Option<Key>,
    /// The revision that the endpoint must still have; nothing is done where it has another or is gone.
    pub endpoint_at: Option<Revision>,
    /// Only addresses with this timestamp in their owner facts; all that the handle has where `None`.
    pub assigned_at: Option<String>,
    /// A key whose existence forbids it, up to the commit itself: nothing is done then.
    pub unless: Option<Key>,
    /// Blocks that will likely be needed.
    pub hints: Vec<Cidr>,
    /// The time.
    pub now: Timestamp,
}

/// What was taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// The addresses given back, in order.
    pub addresses: Vec<IpAddr>,
    /// The addresses that the attachment has no more: those given back, and those that its endpoint recorded, which
    /// another IPAM plugin may have assigned.
    pub vacated: Vec<IpAddr>,
    /// Whether the endpoint was there and was this container's.
    pub endpoint: bool,
}

impl<S: Store> Allocator<'_, S> {
    /// Takes an attachment out. What is not there is no error.
    ///
    /// `still_due` is asked after each read and before each commit. Once it says no nothing is changed any
    /// more: whoever takes the release over must say so before changing what has been read.
    ///
    /// # Errors
    /// The store failed or was emptied, an object is damaged, or others kept changing what was to be removed.
    pub async fn detach(
        &self,
        detach: &Detach,
        still_due: &(dyn Fn() -> bool + Sync),
    ) -> Result<Detached, IpamError> {
        let mut removal = Removal {
            detach,
            still_due,
            found: None,
            has_legacy_handle: false,
        };
        let mut release = Release {
            node: detach.node.clone(),
            handle: detach.handle.clone(),
            interface: Some(detach.ifname.clone()),
            timestamp: detach.assigned_at.clone(),
            hints: detach.hints.clone(),
            now: detach.now,
        };
        let mut addresses = self.release(&release, &mut removal).await?.addresses;
        let endpoint = removal.found.is_some();
        let mut vacated = removal.also();
        if let Some(legacy) = detach.legacy_handle.as_ref()
            && removal.has_legacy_handle
        {
            release.handle.clone_from(legacy);
            release.interface = None;
            addresses.extend(self.release(&release, &mut removal).await?.addresses);
        }
        vacated.extend(&addresses);
        vacated.sort_unstable();
        vacated.dedup();
        Ok(Detached {
            addresses,
            vacated,
            endpoint,
        })
    }
}

/// Removes the endpoint in the commit that gives its addresses back, unless it is a newer container's.
struct Removal<'a> {
    detach: &'a Detach,
    still_due: &'a (dyn Fn() -> bool + Sync),
    found: Option<(WorkloadEndpoint, Revision)>,
    has_legacy_handle: bool,
}

impl Removal<'_> {
    fn is_ours(&self, endpoint: &WorkloadEndpoint) -> bool {
        let holder = endpoint.spec.container_id.as_deref();
        holder.is_none_or(|id| id == self.detach.container_id)
    }
}

impl Companion for Removal<'_> {
    type Error = IpamError;

    fn reads(&self) -> Vec<Read> {
        let cluster = Key::resource(Kind::ClusterInformation, "default");
        let endpoint = self.detach.endpoint.clone();
        let legacy = self.detach.legacy_handle.clone().map(Key::Handle);
        let mut reads = vec![Read::Exists(cluster)];
        reads.extend(endpoint.map(Read::Get));
        reads.extend(legacy.map(Read::Exists));
        reads.extend(self.detach.unless.clone().map(Read::Exists));
        reads
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, IpamError> {
        let mut answers = answers.iter().map(|answer| answer.entries.first());
        if answers.next().flatten().is_none() {
            return Err(IpamError::Uninitialised);
        }
        let asked_for_endpoint = self.detach.endpoint.is_some();
        let endpoint = asked_for_endpoint.then(|| answers.next()).flatten();
        let asked_for_legacy = self.detach.legacy_handle.is_some();
        let legacy = asked_for_legacy.then(|| answers.next()).flatten();
        self.has_legacy_handle = legacy.flatten().is_some();
        let is_forbidden = answers.next().flatten().is_some();
        // A record that cannot be read cannot tell whose it is, and is left to people.
        let endpoint = endpoint.flatten().map(decode).transpose()?;
        self.found = endpoint.filter(|(held, _)| self.is_ours(held));
        let found_at = self.found.as_ref().map(|(_, revision)| *revision);
        let as_asked = self.detach.endpoint_at.is_none() || self.detach.endpoint_at == found_at;
        if as_asked && !is_forbidden && (self.still_due)() {
            return Ok(Proceed::Go);
        }
        self.found = None;
        self.has_legacy_handle = false;
        Ok(Proceed::Stop)
    }

    fn writes(&mut self, _addresses: &[IpAddr]) -> Result<Vec<Write>, IpamError> {
        let found = self.found.iter();
        let mut writes: Vec<Write> = found
            .map(|(held, revision)| Write::delete(held.key(), *revision))
            .collect();
        writes.extend(self.detach.unless.iter().map(|key| Write {
            key: key.clone(),
            condition: Condition::Absent,
            op: Op::Check,
        }));
        Ok(writes)
    }
}

impl ReleaseCompanion for Removal<'_> {
    fn also(&self) -> Vec<IpAddr> {
        let found = self.found.iter();
        found.flat_map(|(held, _)| addresses_of(held)).collect()
    }
}

/// The addresses that an endpoint records; texts that are none are passed over.
pub fn addresses_of(endpoint: &WorkloadEndpoint) -> Vec<IpAddr> {
    let networks = endpoint.spec.ip_networks.iter();
    networks
        .filter_map(|text| text.parse::<Cidr>().ok())
        .map(|cidr| cidr.address())
        .collect()
}

fn decode(entry: &Entry) -> Result<(WorkloadEndpoint, Revision), IpamError> {
    match WorkloadEndpoint::decode(&entry.value) {
        Ok(endpoint) => Ok((endpoint, entry.revision)),
        Err(error) => Err(IpamError::Damaged {
            key: Box::new(entry.key.clone()),
            reason: error.to_string(),
        }),
    }
}
