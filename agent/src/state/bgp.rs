//! BGP resources, as they are stored.

use std::collections::BTreeMap;

use margay_model::Kind;
use margay_model::resource::bgp::{
    BGPConfiguration, BGPConfigurationSpec, BGPFilter, BGPFilterSpec, BGPPeer, BGPPeerSpec,
};

/// What is said of BGP.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bgp {
    /// BGPConfigurations by name.
    pub configurations: BTreeMap<String, BGPConfigurationSpec>,
    /// BGPPeers by name.
    pub peers: BTreeMap<String, BGPPeerSpec>,
    /// BGPFilters by name.
    pub filters: BTreeMap<String, BGPFilterSpec>,
}

impl Bgp {
    /// Takes in an object. Whether it is of BGP and says something new.
    pub(super) fn put(&mut self, kind: Kind, name: &str, value: &[u8]) -> Result<bool, String> {
        match kind {
            Kind::BGPConfiguration => {
                let object = BGPConfiguration::decode(value).map_err(|error| error.to_string())?;
                Ok(replace(&mut self.configurations, name, object.spec))
            }
            Kind::BGPPeer => {
                let object = BGPPeer::decode(value).map_err(|error| error.to_string())?;
                Ok(replace(&mut self.peers, name, object.spec))
            }
            Kind::BGPFilter => {
                let object = BGPFilter::decode(value).map_err(|error| error.to_string())?;
                Ok(replace(&mut self.filters, name, object.spec))
            }
            _ => Ok(false),
        }
    }

    /// Takes in that an object is gone. Whether it was of BGP.
    pub(super) fn remove(&mut self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::BGPConfiguration => self.configurations.remove(name).is_some(),
            Kind::BGPPeer => self.peers.remove(name).is_some(),
            Kind::BGPFilter => self.filters.remove(name).is_some(),
            _ => false,
        }
    }
}

fn replace<T: PartialEq>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> bool {
    if map.get(name) == Some(&value) {
        return false;
    }
    map.insert(name.to_owned(), value);
    true
}
