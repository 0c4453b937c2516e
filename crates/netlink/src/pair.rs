//! Both ends of workloads' pairs that exist already.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::NsidAttribute;

use crate::error::{Error, Result};
use crate::link::Link;
use crate::message;
use crate::namespace::Namespace;
use crate::socket::Netlink;

/// The network namespaces that can be found on the machine, by the number under which one of them
/// knows them.
///
/// Processes lead to them, and the folders in which container runtimes keep them.
#[derive(Debug)]
pub struct Namespaces(BTreeMap<i32, Namespace>);

impl Namespaces {
    /// Looks for those that the namespace of `netlink` has a number for: each other end of a pair is
    /// in one.
    pub async fn find(netlink: &Netlink) -> Self {
        let mut found = BTreeMap::new();
        for namespace in all() {
            if let Some(number) = number(netlink, &namespace).await {
                found.insert(number, namespace);
            }
        }
        Self(found)
    }

    /// Sets the MTU of both ends of a pair, of whose ends `host` is the one in the namespace of
    /// `netlink`. The end that must not send what the other would drop is set first.
    ///
    /// # Errors
    /// The other end cannot be found, or the kernel refused.
    pub async fn set_mtu(&self, netlink: &Netlink, host: &Link, mtu: u32) -> Result<()> {
        let absent = || Error::PeerMissing {
            name: host.name.clone(),
        };
        let namespace = host.peer_namespace.and_then(|number| self.0.get(&number));
        let peer = host.peer_index.ok_or_else(absent)?;
        let inside = Netlink::open(namespace.ok_or_else(absent)?)?;
        let other = (&inside, peer);
        let own = (netlink, host.index);
        let order = if mtu < host.mtu {
            [other, own]
        } else {
            [own, other]
        };
        for (netlink, index) in order {
            let request = message::set_mtu(index, mtu);
            netlink
                .change(request)
                .await
                .map_err(|source| Error::SetLink {
                    name: host.name.clone(),
                    source,
                })?;
        }
        Ok(())
    }
}

/// Every namespace once.
fn all() -> Vec<Namespace> {
    let named = FOLDERS
        .into_iter()
        .filter_map(|path| std::fs::read_dir(path).ok());
    let named = named.flatten().flatten().map(|entry| entry.path());
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_processes = processes
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .map(|entry| entry.path().join("ns/net"));
    let mut seen = BTreeSet::new();
    let new = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino())))
    };
    named
        .chain(of_processes)
        .filter(new)
        .filter_map(|path| Namespace::open(path).ok())
        .collect()
}

/// The number of a namespace; `None` where it has none.
async fn number(netlink: &Netlink, namespace: &Namespace) -> Option<i32> {
    let answer = netlink.ask(message::get_nsid(namespace.as_fd())).await;
    let RouteNetlinkMessage::NewNsId(answer) = answer.ok()?? else {
        return None;
    };
    answer
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NsidAttribute::Id(number) if *number >= 0 => Some(*number),
            _ => None,
        })
}

/// Where runtimes and people keep namespaces by name.
const FOLDERS: [&str; 2] = ["/run/netns", "/run/docker/netns"];
