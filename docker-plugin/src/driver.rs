//! The driver: what it needs for any call. The calls themselves stand in the modules below.

mod endpoint;
mod ipam;
mod network;
mod outside;
mod publish;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use margay_datastore::Datastore;
use margay_ipam_core::Request;
use margay_ipam_core::allocator::Want;
use margay_model::resource::pool::AllowedUse;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Family, uid};
use margay_netlink::Netlink;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::Config;
use crate::docker::Docker;
use crate::error::{DriverError, Result};
use crate::reservations::Reservations;

/// The driver of one node.
///
/// Between two calls it remembers only promises and hints: whatever is true of networks and endpoints is read from the
/// store each time, so that it can be ended at any moment.
#[derive(Debug)]
pub struct Driver {
    /// What it is told.
    pub config: Config,
    /// The node's name.
    pub node: String,
    /// The store.
    pub store: Datastore,
    /// Docker's API, where it may be asked.
    pub docker: Option<Docker>,
    memory: Mutex<Memory>,
    /// One assignment or release at a time, so that calls do not spoil each other's commits.
    turn: tokio::sync::Mutex<()>,
    /// Interfaces that are being removed, by their endpoints' ids.
    departures: Mutex<HashMap<String, JoinHandle<()>>>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Memory {
    reservations: Reservations,
    /// Blocks that were used last, to be read in the first round trip.
    hints: Vec<Cidr>,
}

impl Driver {
    /// A driver.
    pub fn new(config: Config, node: String, store: Datastore) -> Self {
        let docker = config.docker_socket.clone().map(Docker::new);
        Self {
            config,
            node,
            store,
            docker,
            memory: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            departures: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// The kernel, by a socket of the caller's own: on one socket the kernel does one listing at a time.
    fn host(&self) -> Result<Netlink> {
        Ok(Netlink::current()?)
    }

    /// Keeps an address from others.
    fn keep(&self, address: IpAddr) {
        let now = self.started.elapsed();
        self.memory().reservations.keep(address, now);
    }

    /// Lets go of an address; whether it was kept.
    fn let_go(&self, address: IpAddr) -> bool {
        self.memory().reservations.release(address)
    }

    /// Lets addresses rest that nobody has any more.
    fn rest(&self, addresses: &[IpAddr]) {
        let now = self.started.elapsed();
        let mut memory = self.memory();
        for address in addresses {
            memory.reservations.rest(*address, now);
        }
    }

    /// The addresses that are kept.
    fn kept(&self) -> Vec<IpAddr> {
        let now = self.started.elapsed();
        self.memory().reservations.kept(now)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it is held.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn departures(&self) -> MutexGuard<'_, HashMap<String, JoinHandle<()>>> {
        self.departures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn hints(&self) -> Vec<Cidr> {
        self.memory().hints.clone()
    }

    /// Remembers which blocks were used.
    fn used(&self, blocks: &[Cidr]) {
        let hints = &mut self.memory().hints;
        for block in blocks {
            hints.retain(|known| known != block);
            hints.insert(0, *block);
        }
        hints.truncate(MOST_HINTS);
    }

    /// A request for addresses under a handle.
    fn request(&self, handle: String, wants: Vec<Want>, owner: &[(&str, &str)]) -> Request {
        Request {
            node: self.node.clone(),
            handle,
            interface: "eth0".to_owned(),
            owner: owner
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            wants,
            purpose: AllowedUse::Workload,
            max_blocks: None,
            namespace_labels: None,
            hints: self.hints(),
            quarantine: self.memory().reservations.resting(self.started.elapsed()),
            now: now(),
        }
    }
}

/// The time.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_epoch(since.unwrap_or(Duration::ZERO))
}

/// A random UUID.
fn new_uid() -> Result<String> {
    let mut bytes = [0; 16];
    let filled = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    filled.map_err(|source| DriverError::System {
        what: "/dev/urandom",
        source,
    })?;
    Ok(uid::from_random(bytes))
}

/// Checks an id of Docker's: part of keys and names, so nothing but letters and digits.
fn check_id<'a>(what: &str, id: &'a str) -> Result<&'a str> {
    let fits = (11..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits {
        return Ok(id);
    }
    Err(DriverError::Malformed(format!(
        "{what} {id:?} is not 11 to 64 letters and digits"
    )))
}

/// Reads an address, with or without a prefix length.
fn parse_address(what: &str, text: &str) -> Result<IpAddr> {
    let address = text.split('/').next().unwrap_or_default();
    address
        .parse()
        .map_err(|_| DriverError::Malformed(format!("{what} {text:?} is not an address")))
}

/// The family that a request says it means.
fn family(v6: bool) -> Family {
    if v6 { Family::V6 } else { Family::V4 }
}

const MOST_HINTS: usize = 8;
