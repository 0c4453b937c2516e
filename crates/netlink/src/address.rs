//! Addresses of interfaces.

use ipnetwork::IpNetwork;
use margay_endpoint::Address;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use crate::error::{Error, Result};
use crate::message;
use crate::socket::Netlink;

impl Netlink {
    /// Addresses with the index of their interface: all, or those of one interface.
    pub(crate) async fn addresses(&self, index: Option<u32>) -> Result<Vec<(u32, IpNetwork)>> {
        let failed = |source| Error::List {
            what: "addresses",
            source,
        };
        let answers = self
            .dump(message::list_addresses(index))
            .await
            .map_err(failed)?;
        let all = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => decode(address),
            _ => None,
        });
        Ok(all
            .filter(|(on, _)| index.is_none_or(|index| index == *on))
            .collect())
    }

    pub(crate) async fn add_address(
        &self,
        index: u32,
        ifname: &str,
        address: &Address,
    ) -> Result<()> {
        self.change(message::add_address(index, address))
            .await
            .map_err(|source| Error::AddAddress {
                address: address.network,
                ifname: ifname.to_owned(),
                source,
            })
    }
}

/// The interface's own address: `IFA_LOCAL`, or `IFA_ADDRESS` where the family has only that.
fn decode(message: &AddressMessage) -> Option<(u32, IpNetwork)> {
    let find = |local: bool| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) if local => Some(*ip),
                AddressAttribute::Address(ip) if !local => Some(*ip),
                _ => None,
            })
    };
    let ip = find(true).or_else(|| find(false))?;
    let network = IpNetwork::new(ip, message.header.prefix_len).ok()?;
    Some((message.header.index, network))
}
