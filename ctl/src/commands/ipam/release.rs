//! `ipam release`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use margay_ipam_core::audit::{self, Allocation, Finding};
use margay_ipam_core::release::Address;
use margay_ipam_core::{Allocator, audit::Inventory};
use margay_resources::Stamps as _;
use margay_store::Store;
use serde::Deserialize;

use crate::commands::Streams;
use crate::inventory;
use crate::stamps::SystemStamps;

/// Gives back an address that nothing uses, or any with `force`.
pub(super) async fn one<S: Store>(
    store: &S,
    address: IpAddr,
    force: bool,
    streams: &mut Streams<'_>,
) -> Result<()> {
    let stock = inventory::read(store).await?;
    if let Some(users) = stock.inventory.used.get(&address)
        && !force
    {
        let users = users.join(", ");
        bail!("{address} is used by {users}; delete that first, or add --force");
    }
    let held = audit::allocations(&stock.inventory.blocks)
        .find(|allocation| allocation.address == address);
    let Some(held) = held else {
        bail!("{address} is not assigned");
    };
    let done = Allocator::new(store)
        .release_addresses(&[wanted(held)], SystemStamps.now())
        .await?;
    if done.released.is_empty() {
        bail!("{address} was released or assigned anew meanwhile; nothing was done");
    }
    streams.say(&format!("Successfully released IP address {address}\n"))
}

/// Gives back the addresses that every report calls leaked and that are still assigned as they were then, and still
/// not used.
pub(super) async fn reported<S: Store>(
    store: &S,
    guid: Option<&str>,
    files: &[PathBuf],
    streams: &mut Streams<'_>,
) -> Result<()> {
    let mut leaked: Option<BTreeMap<IpAddr, Leak>> = None;
    for file in files {
        let report = Report::read(file)?;
        ensure!(
            report.cluster_guid.as_deref() == guid,
            "{}: the report is of another cluster (clusterGUID {}); nothing was released",
            file.display(),
            report.cluster_guid.as_deref().unwrap_or("unknown"),
        );
        let these = report.leaks();
        leaked = Some(match leaked {
            None => these,
            Some(mut all) => {
                all.retain(|address, leak| these.get(address) == Some(leak));
                all
            }
        });
    }
    let leaked = leaked.unwrap_or_default();
    let stock = inventory::read(store).await?;
    let still: Vec<Allocation> = leaks(&stock.inventory)
        .filter(|now| {
            let then = leaked.get(&now.address);
            then.is_some_and(|then| then.is(now))
        })
        .collect();
    let wanted: Vec<Address> = still.into_iter().map(wanted).collect();
    let done = Allocator::new(store)
        .release_addresses(&wanted, SystemStamps.now())
        .await?;
    for address in &done.released {
        streams.say(&format!("Successfully released IP address {address}\n"))?;
    }
    let others = leaked.len() - done.released.len();
    let mut text = format!("Released {} of {}", done.released.len(), leaked.len());
    text.push_str(" addresses that the reports call leaked.\n");
    if others > 0 {
        text.push_str("The others are used now, or have been released or assigned anew since.\n");
    }
    streams.say(&text)
}

/// Addresses that are assigned and used by nobody.
fn leaks(inventory: &Inventory) -> impl Iterator<Item = Allocation> {
    let found = audit::check(inventory).into_iter();
    found.filter_map(|finding| match finding {
        Finding::NotInUse(allocation) => Some(allocation),
        _ => None,
    })
}

fn wanted(held: Allocation) -> Address {
    Address {
        address: held.address,
        handle: held.handle,
        sequence_number: held.sequence_number,
    }
}

/// What is read of a report of `ipam check`.
#[derive(Debug, Deserialize)]
struct Report {
    #[serde(rename = "clusterGUID")]
    cluster_guid: Option<String>,
    findings: Vec<Reported>,
}

#[derive(Debug, Deserialize)]
struct Reported {
    problem: String,
    address: Option<IpAddr>,
    #[serde(flatten)]
    leak: Leak,
}

/// What an assignment was when it was found to be leaked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Leak {
    handle: Option<String>,
    sequence_number: Option<u64>,
}

impl Report {
    fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{}: no report of `margayctl ipam check -o FILE`",
                file.display()
            )
        })
    }

    fn leaks(self) -> BTreeMap<IpAddr, Leak> {
        let found = self.findings.into_iter();
        found
            .filter(|reported| reported.problem == NOT_IN_USE)
            .filter_map(|reported| Some((reported.address?, reported.leak)))
            .collect()
    }
}

impl Leak {
    /// Whether it is this assignment, and no later one of the address.
    fn is(&self, now: &Allocation) -> bool {
        self.handle == now.handle && self.sequence_number == now.sequence_number
    }
}

/// How a report calls [`Finding::NotInUse`].
const NOT_IN_USE: &str = "notInUse";
