//! Whether the store lets a call assign addresses, read in the allocator's own round trip.

use std::net::IpAddr;

use margay_cni::Request;
use margay_cni::error::Error;
use margay_datastore::Datastore;
use margay_ipam_core::allocator::{Companion, Proceed};
use margay_ipam_core::{Allocator, IpamError};
use margay_model::{Key, Kind};
use margay_plugin::progress;
use margay_store::{Answer, Read, Store, Write};

use crate::{Hints, datastore_ready, from_ipam, from_store, not_available, now, request};

/// Refuses while the store is locked or was never initialised; writes nothing of its own.
#[derive(Debug)]
pub struct Gate;

/// An error of a call, from whichever side.
#[derive(Debug)]
pub struct Failure(pub Error);

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        Self(from_ipam(&error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl Companion for Gate {
    type Error = Failure;

    fn reads(&self) -> Vec<Read> {
        vec![Read::Get(cluster())]
    }

    fn inspect(&mut self, answers: &[Answer]) -> Result<Proceed, Failure> {
        datastore_ready(answers.first().and_then(|answer| answer.entries.first()))?;
        Ok(Proceed::Go)
    }

    fn writes(&mut self, _addresses: &[IpAddr]) -> Result<Vec<Write>, Failure> {
        Ok(Vec::new())
    }
}

/// STATUS with our own IPAM: whether an ADD on this node would get its addresses now.
///
/// # Errors
/// Code 50 with the reason why not; code 7 for what the configuration asks for in vain.
pub async fn could_assign(call: &Request, store: &Datastore, node: &str) -> Result<(), Error> {
    let hints = Hints::of(call.conf.raw(), node).read();
    let wanted = request(call, node, hints, now())?;
    progress(format!("waiting for {}", store.describe()));
    let could = Allocator::new(store).could_assign(&wanted, &mut Gate).await;
    could.map_err(|Failure(error)| not_available(error))
}

/// STATUS with another IPAM plugin: whether the store takes records of endpoints now.
///
/// # Errors
/// Code 50 with the reason why not.
pub async fn could_record(store: &Datastore) -> Result<(), Error> {
    progress(format!("waiting for {}", store.describe()));
    let read = store.get(&cluster()).await;
    let read = read.map_err(|error| not_available(from_store(&error)))?;
    datastore_ready(read.as_ref()).map_err(not_available)
}

fn cluster() -> Key {
    Key::resource(Kind::ClusterInformation, "default")
}
