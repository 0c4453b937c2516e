//! Interfaces: looked up, listed, brought up, deleted.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use margay_route::{InterfaceAddresses, Mac};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nix::errno::Errno;

use crate::error::{Error, RequestError, Result};
use crate::message;
use crate::socket::Netlink;
use crate::tunnel::{self, VxlanInfo};

/// An interface as the kernel reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its driver's kind (`veth`, `vxlan`); `None` for hardware and the loopback.
    pub kind: Option<String>,
    /// Its MAC, if it has one of six octets.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier and is up.
    pub running: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// For a pair, the other end's index in its own namespace; for a stacked interface, the lower
    /// one's.
    pub peer_index: Option<u32>,
    /// The number of the namespace of the other end, as this namespace counts them.
    pub peer_namespace: Option<i32>,
    /// What makes it a VXLAN device, if it is one.
    pub vxlan: Option<VxlanInfo>,
    /// Its alias.
    pub alias: Option<String>,
    /// Its addresses with their prefix lengths; empty unless addresses were asked for.
    pub addresses: Vec<IpNetwork>,
}

/// The interfaces of one namespace at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interfaces {
    by_index: BTreeMap<u32, Link>,
    by_name: BTreeMap<String, u32>,
}

impl Interfaces {
    /// All of them, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values()
    }

    /// The interface of a name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.by_name
            .get(name)
            .and_then(|index| self.by_index(*index))
    }

    /// The interface of an index.
    #[must_use]
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
    }

    /// The addresses on each, as [`margay_route::on_link`] takes them.
    #[must_use]
    pub fn addresses(&self) -> Vec<InterfaceAddresses> {
        let entry = |link: &Link| InterfaceAddresses {
            name: link.name.clone(),
            addresses: link.addresses.clone(),
        };
        self.iter().map(entry).collect()
    }

    /// The name of an index; one that is not known is shown as `#<index>`.
    pub(crate) fn name(&self, index: u32) -> String {
        self.by_index(index)
            .map_or_else(|| format!("#{index}"), |link| link.name.clone())
    }
}

impl FromIterator<Link> for Interfaces {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let by_index: BTreeMap<u32, Link> =
            links.into_iter().map(|link| (link.index, link)).collect();
        let by_name = by_index
            .values()
            .map(|link| (link.name.clone(), link.index))
            .collect();
        Self { by_index, by_name }
    }
}

impl Netlink {
    /// An interface by name, without its addresses; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::GetLink`].
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        let failed = |source| Error::GetLink {
            name: name.to_owned(),
            source,
        };
        match self.ask(message::get_link(name)).await.map_err(failed)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(Some(decode(&link))),
            Some(_) => Err(failed(RequestError::NoAnswer)),
            None => Ok(None),
        }
    }

    /// All interfaces with their addresses.
    ///
    /// # Errors
    /// [`Error::List`].
    pub async fn interfaces(&self) -> Result<Interfaces> {
        let failed = |source| Error::List {
            what: "interfaces",
            source,
        };
        let links = self.dump(message::list_links()).await.map_err(failed)?;
        let links = links.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(decode(link)),
            _ => None,
        });
        let mut interfaces: Interfaces = links.collect();
        for (index, network) in self.addresses(None).await? {
            if let Some(link) = interfaces.by_index.get_mut(&index) {
                link.addresses.push(network);
            }
        }
        Ok(interfaces)
    }

    /// Brings an interface up, and sets its alias if one is given.
    pub(crate) async fn set_up(&self, index: u32, name: &str, alias: Option<&str>) -> Result<()> {
        let failed = |source| Error::SetLink {
            name: name.to_owned(),
            source,
        };
        self.change(message::set_up(index, alias))
            .await
            .map_err(failed)
    }

    /// Takes an interface down.
    pub(crate) async fn set_down(&self, index: u32, name: &str) -> Result<()> {
        let failed = |source| Error::SetLink {
            name: name.to_owned(),
            source,
        };
        self.change(message::set_down(index)).await.map_err(failed)
    }

    /// Deletes an interface by index; one that is gone is as good. Returns whether it was there.
    pub(crate) async fn delete_link(&self, index: u32, name: &str) -> Result<bool> {
        match self.change(message::delete_link(index)).await {
            Ok(()) => Ok(true),
            Err(source) if source.errno() == Some(Errno::ENODEV) => Ok(false),
            Err(source) => Err(Error::DeleteLink {
                name: name.to_owned(),
                source,
            }),
        }
    }
}

/// An interface from `RTM_NEWLINK`.
pub(crate) fn decode(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        loopback: flags.contains(LinkFlags::Loopback),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(octets) => {
                link.mac = <[u8; 6]>::try_from(octets.as_slice()).ok().map(Mac);
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(peer) => link.peer_index = Some(*peer),
            LinkAttribute::LinkNetNsId(number) => link.peer_namespace = Some(*number),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                link.vxlan = tunnel::data(infos);
            }
            _ => {}
        }
    }
    link
}
