//! Routing by BGP.

mod configuration;
mod filter;
mod peer;

pub use configuration::{
    BGPConfiguration, BGPConfigurationSpec, BindMode, CidrBlock, Community, PrefixAdvertisement,
    ProgramClusterRoutes,
};
pub use filter::{
    AddCommunity, BGPFilter, BGPFilterSpec, CommunityMatch, FilterAction, FilterOperation,
    FilterRule, FilterSource, MatchOperator, PeerType, PrefixLengths, PrependAsPath, SetPriority,
};
pub use peer::{
    BGPPeer, BGPPeerSpec, NextHopMode, Password, ReversePeering, SecretKeyRef, SourceAddress,
};
