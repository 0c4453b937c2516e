//! The messages of GoBGP's API that are used (`api/gobgp.proto` and `api/attribute.proto` of GoBGP 3.10):
//! field numbers and types are those of the protocol, and fields that are not used are left out.

use prost_types::{Any, Timestamp};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident { $($(#[$note:meta])* [$($kind:tt)+] $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, prost::Message)]
            pub struct $name {
                $($(#[$note])* #[prost($($kind)+)] pub $field: $type,)*
            }
        )*
    };
}

messages! {
    /// No message at all.
    Empty {}
    /// Starts BGP.
    StartBgpRequest {
        /// How.
        [message, optional, tag = "1"] global: Option<Global>,
    }
    /// Ends all sessions and forgets everything.
    StopBgpRequest {}
    /// Asks how BGP was started.
    GetBgpRequest {}
    /// How BGP was started; AS 0 if it was not.
    GetBgpResponse {
        /// How.
        [message, optional, tag = "1"] global: Option<Global>,
    }
    /// What all peers have in common.
    Global {
        /// Our AS.
        [uint32, tag = "1"] asn: u32,
        /// Our BGP identifier.
        [string, tag = "2"] router_id: String,
        /// The TCP port that is listened on; -1 for none.
        [int32, tag = "3"] listen_port: i32,
        /// The addresses that are listened on; all where there are none.
        [string, repeated, tag = "4"] listen_addresses: Vec<String>,
        /// Whether several paths are used for a prefix.
        [bool, tag = "6"] use_multiple_paths: bool,
        /// What happens at a restart.
        [message, optional, tag = "10"] graceful_restart: Option<GracefulRestart>,
    }
    /// What a GoBGP was told; no message of its API, but kept for the next who takes it over.
    Applied {
        /// How BGP was started.
        [message, optional, tag = "1"] global: Option<Global>,
        /// The peers.
        [message, repeated, tag = "2"] peers: Vec<Peer>,
    }
    /// Adds a peer.
    AddPeerRequest {
        /// The peer.
        [message, optional, tag = "1"] peer: Option<Peer>,
    }
    /// Removes a peer.
    DeletePeerRequest {
        /// Its address.
        [string, tag = "1"] address: String,
    }
    /// Changes a peer.
    UpdatePeerRequest {
        /// The peer.
        [message, optional, tag = "1"] peer: Option<Peer>,
        /// Whether what it announced is weighed again.
        [bool, tag = "2"] do_soft_reset_in: bool,
    }
    /// What became of a change.
    UpdatePeerResponse {
        /// Whether what the peer announced must be weighed again.
        [bool, tag = "1"] needs_soft_reset_in: bool,
    }
    /// Asks for peers.
    ListPeerRequest {
        /// Only this one, where it is given.
        [string, tag = "1"] address: String,
        /// Whether announced prefixes are counted.
        [bool, tag = "2"] enable_advertised: bool,
    }
    /// One of the peers.
    ListPeerResponse {
        /// The peer.
        [message, optional, tag = "1"] peer: Option<Peer>,
    }
    /// Starts sessions anew, or has their routes weighed again.
    ResetPeerRequest {
        /// The peer's address; `all` for all.
        [string, tag = "1"] address: String,
        /// Whether the sessions stay.
        [bool, tag = "3"] soft: bool,
        /// 0 what was announced to us, 1 what we announce, 2 both.
        [int32, tag = "4"] direction: i32,
    }
    /// A peer.
    Peer {
        /// What is configured.
        [message, optional, tag = "2"] conf: Option<PeerConf>,
        /// How far it is.
        [message, optional, tag = "3"] ebgp_multihop: Option<EbgpMultihop>,
        /// Whether routes are reflected to it.
        [message, optional, tag = "4"] route_reflector: Option<RouteReflector>,
        /// How it is.
        [message, optional, tag = "5"] state: Option<PeerState>,
        /// Times.
        [message, optional, tag = "6"] timers: Option<Timers>,
        /// TCP.
        [message, optional, tag = "7"] transport: Option<Transport>,
        /// What happens at a restart.
        [message, optional, tag = "9"] graceful_restart: Option<GracefulRestart>,
        /// Families.
        [message, repeated, tag = "10"] afi_safis: Vec<AfiSafi>,
        /// TTL security.
        [message, optional, tag = "11"] ttl_security: Option<TtlSecurity>,
    }
    /// What is configured of a peer.
    PeerConf {
        /// Key of MD5 signatures.
        [string, tag = "1"] auth_password: String,
        /// A text for people.
        [string, tag = "2"] description: String,
        /// The AS we claim to be of.
        [uint32, tag = "3"] local_asn: u32,
        /// Its address.
        [string, tag = "4"] neighbor_address: String,
        /// Its AS.
        [uint32, tag = "5"] peer_asn: u32,
        /// How often our AS may stand in a path.
        [uint32, tag = "13"] allow_own_asn: u32,
        /// Whether it is shut down.
        [bool, tag = "15"] admin_down: bool,
    }
    /// How far an external peer may be.
    EbgpMultihop {
        /// Whether it may be beyond a link.
        [bool, tag = "1"] enabled: bool,
        /// The TTL.
        [uint32, tag = "2"] multihop_ttl: u32,
    }
    /// Reflection.
    RouteReflector {
        /// Whether the peer is a client.
        [bool, tag = "1"] route_reflector_client: bool,
        /// The cluster.
        [string, tag = "2"] route_reflector_cluster_id: String,
    }
    /// TTL security.
    TtlSecurity {
        /// Whether it is on.
        [bool, tag = "1"] enabled: bool,
        /// The least TTL that is taken.
        [uint32, tag = "2"] ttl_min: u32,
    }
    /// How a peer is.
    PeerState {
        /// Messages by direction.
        [message, optional, tag = "4"] messages: Option<Messages>,
        /// Its address.
        [string, tag = "5"] neighbor_address: String,
        /// Its AS.
        [uint32, tag = "6"] peer_asn: u32,
        /// 1 idle to 6 established.
        [int32, tag = "13"] session_state: i32,
        /// 0 up, 1 down, 2 too many prefixes.
        [int32, tag = "15"] admin_state: i32,
        /// Its BGP identifier.
        [string, tag = "20"] router_id: String,
    }
    /// Messages by direction.
    Messages {
        /// Received.
        [message, optional, tag = "1"] received: Option<Message>,
        /// Sent.
        [message, optional, tag = "2"] sent: Option<Message>,
    }
    /// Messages by type.
    Message {
        /// NOTIFICATION.
        [uint64, tag = "1"] notification: u64,
        /// UPDATE.
        [uint64, tag = "2"] update: u64,
        /// OPEN.
        [uint64, tag = "3"] open: u64,
        /// KEEPALIVE.
        [uint64, tag = "4"] keepalive: u64,
        /// ROUTE-REFRESH.
        [uint64, tag = "5"] refresh: u64,
    }
    /// Times of a session.
    Timers {
        /// What is wanted.
        [message, optional, tag = "1"] config: Option<TimersConfig>,
        /// What is.
        [message, optional, tag = "2"] state: Option<TimersState>,
    }
    /// What is wanted of times, in seconds.
    TimersConfig {
        /// Between two attempts.
        [uint64, tag = "1"] connect_retry: u64,
        /// The hold time.
        [uint64, tag = "2"] hold_time: u64,
        /// Between two signs of life.
        [uint64, tag = "3"] keepalive_interval: u64,
        /// The pause after an error.
        [uint64, tag = "5"] idle_hold_time_after_reset: u64,
    }
    /// What is of times.
    TimersState {
        /// Between two signs of life, in seconds.
        [uint64, tag = "3"] keepalive_interval: u64,
        /// The hold time that both agreed on, in seconds.
        [uint64, tag = "5"] negotiated_hold_time: u64,
        /// When the session came up last.
        [message, optional, tag = "6"] uptime: Option<Timestamp>,
        /// When it went down last.
        [message, optional, tag = "7"] downtime: Option<Timestamp>,
    }
    /// TCP.
    Transport {
        /// Our address.
        [string, tag = "1"] local_address: String,
        /// Whether the peer connects.
        [bool, tag = "4"] passive_mode: bool,
        /// The peer's port.
        [uint32, tag = "6"] remote_port: u32,
    }
    /// What happens at a restart.
    GracefulRestart {
        /// Whether the capability is announced.
        [bool, tag = "1"] enabled: bool,
        /// How long the peer is asked to keep our routes, in seconds.
        [uint32, tag = "2"] restart_time: u32,
        /// How long peers are waited for after a restart, in seconds.
        [uint32, tag = "4"] deferral_time: u32,
        /// Whether a NOTIFICATION does not end forwarding.
        [bool, tag = "5"] notification_enabled: bool,
        /// Whether routes are kept for long.
        [bool, tag = "6"] longlived_enabled: bool,
        /// How long a restarted peer's routes are kept, in seconds.
        [uint32, tag = "7"] stale_routes_time: u32,
        /// Whether the peer restarts.
        [bool, tag = "9"] peer_restarting: bool,
        /// Whether we have restarted.
        [bool, tag = "10"] local_restarting: bool,
    }
    /// A family of a peer.
    AfiSafi {
        /// Graceful restart.
        [message, optional, tag = "1"] mp_graceful_restart: Option<Enabled>,
        /// What is wanted.
        [message, optional, tag = "2"] config: Option<AfiSafiConfig>,
        /// What is.
        [message, optional, tag = "3"] state: Option<AfiSafiState>,
        /// How many prefixes are taken.
        [message, optional, tag = "7"] prefix_limits: Option<PrefixLimit>,
        /// Long-lived graceful restart.
        [message, optional, tag = "9"] long_lived_graceful_restart: Option<LongLived>,
        /// Several paths.
        [message, optional, tag = "10"] add_paths: Option<AddPaths>,
    }
    /// Something that is on or off: `MpGracefulRestart`.
    Enabled {
        /// What is wanted.
        [message, optional, tag = "1"] config: Option<EnabledConfig>,
    }
    /// Whether it is on.
    EnabledConfig {
        /// Whether it is.
        [bool, tag = "1"] enabled: bool,
    }
    /// Long-lived graceful restart.
    LongLived {
        /// What is wanted.
        [message, optional, tag = "1"] config: Option<LongLivedConfig>,
    }
    /// What is wanted of it.
    LongLivedConfig {
        /// Whether it is on.
        [bool, tag = "1"] enabled: bool,
        /// For how long, in seconds.
        [uint32, tag = "2"] restart_time: u32,
    }
    /// What is wanted of a family.
    AfiSafiConfig {
        /// The family.
        [message, optional, tag = "1"] family: Option<Family>,
        /// Whether it is on.
        [bool, tag = "2"] enabled: bool,
    }
    /// Numbers of a family.
    AfiSafiState {
        /// The family.
        [message, optional, tag = "1"] family: Option<Family>,
        /// Whether it is on.
        [bool, tag = "2"] enabled: bool,
        /// Prefixes received.
        [uint64, tag = "3"] received: u64,
        /// Prefixes taken.
        [uint64, tag = "4"] accepted: u64,
        /// Prefixes announced.
        [uint64, tag = "5"] advertised: u64,
    }
    /// How many prefixes are taken.
    PrefixLimit {
        /// The family.
        [message, optional, tag = "1"] family: Option<Family>,
        /// So many.
        [uint32, tag = "2"] max_prefixes: u32,
        /// A warning at so many per cent of them.
        [uint32, tag = "3"] shutdown_threshold_pct: u32,
    }
    /// Several paths.
    AddPaths {
        /// What is wanted.
        [message, optional, tag = "1"] config: Option<AddPathsConfig>,
    }
    /// What is wanted of them.
    AddPathsConfig {
        /// Whether several are received.
        [bool, tag = "1"] receive: bool,
        /// How many are sent.
        [uint32, tag = "2"] send_max: u32,
    }
    /// A family.
    Family {
        /// 1 IPv4, 2 IPv6.
        [int32, tag = "1"] afi: i32,
        /// 1 unicast.
        [int32, tag = "2"] safi: i32,
    }
    /// Adds a path.
    AddPathRequest {
        /// The table.
        [int32, tag = "1"] table_type: i32,
        /// The path.
        [message, optional, tag = "3"] path: Option<Path>,
    }
    /// A path was added.
    AddPathResponse {
        /// Its name.
        [bytes = "vec", tag = "1"] uuid: Vec<u8>,
    }
    /// Takes a path away.
    DeletePathRequest {
        /// The table.
        [int32, tag = "1"] table_type: i32,
        /// The family.
        [message, optional, tag = "3"] family: Option<Family>,
        /// The path.
        [message, optional, tag = "4"] path: Option<Path>,
    }
    /// Asks for paths.
    ListPathRequest {
        /// The table: see the constants.
        [int32, tag = "1"] table_type: i32,
        /// The peer's address.
        [string, tag = "2"] name: String,
        /// The family.
        [message, optional, tag = "3"] family: Option<Family>,
        /// Only of these prefixes, where there are any.
        [message, repeated, tag = "4"] prefixes: Vec<TableLookupPrefix>,
        /// Whether rejected ones are told too.
        [bool, tag = "6"] enable_filtered: bool,
    }
    /// A prefix to look for.
    TableLookupPrefix {
        /// The prefix.
        [string, tag = "1"] prefix: String,
        /// 0 exactly.
        [int32, tag = "2"] kind: i32,
    }
    /// One of the prefixes.
    ListPathResponse {
        /// The prefix.
        [message, optional, tag = "1"] destination: Option<Destination>,
    }
    /// A prefix with its paths, the best first.
    Destination {
        /// The prefix.
        [string, tag = "1"] prefix: String,
        /// The paths.
        [message, repeated, tag = "2"] paths: Vec<Path>,
    }
    /// A path.
    Path {
        /// The prefix.
        [message, optional, tag = "1"] nlri: Option<Any>,
        /// The attributes.
        [message, repeated, tag = "2"] pattrs: Vec<Any>,
        /// Whether it is the best.
        [bool, tag = "4"] best: bool,
        /// Whether it is withdrawn.
        [bool, tag = "5"] is_withdraw: bool,
        /// The family.
        [message, optional, tag = "9"] family: Option<Family>,
        /// Whether policy rejects it.
        [bool, tag = "12"] filtered: bool,
        /// Whether it outlived its session.
        [bool, tag = "13"] stale: bool,
        /// Whether it is from another AS.
        [bool, tag = "14"] is_from_external: bool,
        /// From whom it is; `<nil>` for our own.
        [string, tag = "15"] neighbor_ip: String,
        /// Whether its next hop cannot be reached.
        [bool, tag = "17"] is_nexthop_invalid: bool,
        /// The path identifier.
        [uint32, tag = "18"] identifier: u32,
    }
    /// Asks for events.
    WatchEventRequest {
        /// Of the table.
        [message, optional, tag = "2"] table: Option<WatchTable>,
    }
    /// Which events of the table.
    WatchTable {
        /// Any of these.
        [message, repeated, tag = "1"] filters: Vec<WatchFilter>,
    }
    /// A kind of events.
    WatchFilter {
        /// 0 the best paths.
        [int32, tag = "1"] kind: i32,
        /// Whether what is there already is told too.
        [bool, tag = "2"] init: bool,
    }
    /// An event.
    WatchEventResponse {
        /// Of the table.
        [message, optional, tag = "3"] table: Option<TableEvent>,
    }
    /// What is different in the table.
    TableEvent {
        /// These paths.
        [message, repeated, tag = "2"] paths: Vec<Path>,
    }
    /// Has these policies and no others.
    SetPoliciesRequest {
        /// Sets that they refer to.
        [message, repeated, tag = "1"] defined_sets: Vec<DefinedSet>,
        /// The policies.
        [message, repeated, tag = "2"] policies: Vec<Policy>,
    }
    /// Has these policies in force.
    SetPolicyAssignmentRequest {
        /// Which.
        [message, optional, tag = "1"] assignment: Option<PolicyAssignment>,
    }
    /// Policies in force.
    PolicyAssignment {
        /// Where: `global`.
        [string, tag = "1"] name: String,
        /// 1 import, 2 export.
        [int32, tag = "2"] direction: i32,
        /// Which.
        [message, repeated, tag = "4"] policies: Vec<Policy>,
        /// What happens where none decides: 1 accept, 2 reject.
        [int32, tag = "5"] default_action: i32,
    }
    /// A set.
    DefinedSet {
        /// Of what: see the constants.
        [int32, tag = "1"] defined_type: i32,
        /// Its name.
        [string, tag = "2"] name: String,
        /// Its members, but for prefixes.
        [string, repeated, tag = "3"] list: Vec<String>,
        /// Prefixes.
        [message, repeated, tag = "4"] prefixes: Vec<Prefix>,
    }
    /// Prefixes within another.
    Prefix {
        /// The other.
        [string, tag = "1"] ip_prefix: String,
        /// The shortest.
        [uint32, tag = "2"] mask_length_min: u32,
        /// The longest.
        [uint32, tag = "3"] mask_length_max: u32,
    }
    /// A policy.
    Policy {
        /// Its name.
        [string, tag = "1"] name: String,
        /// Its statements.
        [message, repeated, tag = "2"] statements: Vec<Statement>,
    }
    /// A statement: where all conditions hold, the actions happen.
    Statement {
        /// Its name.
        [string, tag = "1"] name: String,
        /// The conditions.
        [message, optional, tag = "2"] conditions: Option<Conditions>,
        /// The actions.
        [message, optional, tag = "3"] actions: Option<Actions>,
    }
    /// Conditions.
    Conditions {
        /// The prefix.
        [message, optional, tag = "1"] prefix_set: Option<MatchSet>,
        /// The peer.
        [message, optional, tag = "2"] neighbor_set: Option<MatchSet>,
        /// The AS path.
        [message, optional, tag = "4"] as_path_set: Option<MatchSet>,
        /// Communities.
        [message, optional, tag = "5"] community_set: Option<MatchSet>,
        /// 0 any, 3 our own.
        [int32, tag = "8"] route_type: i32,
        /// Large communities.
        [message, optional, tag = "9"] large_community_set: Option<MatchSet>,
        /// The next hop.
        [string, repeated, tag = "10"] next_hop_in_list: Vec<String>,
        /// The family.
        [message, repeated, tag = "11"] afi_safi_in: Vec<Family>,
    }
    /// How a set is to match.
    MatchSet {
        /// 0 any of it, 1 all of it, 2 none of it.
        [int32, tag = "1"] kind: i32,
        /// The set's name.
        [string, tag = "2"] name: String,
    }
    /// Actions.
    Actions {
        /// 0 go on, 1 accept, 2 reject.
        [int32, tag = "1"] route_action: i32,
        /// On communities.
        [message, optional, tag = "2"] community: Option<CommunityAction>,
        /// On MULTI_EXIT_DISC.
        [message, optional, tag = "3"] med: Option<MedAction>,
        /// On the AS path.
        [message, optional, tag = "4"] as_prepend: Option<AsPrependAction>,
        /// On the next hop.
        [message, optional, tag = "6"] nexthop: Option<NexthopAction>,
        /// On LOCAL_PREF.
        [message, optional, tag = "7"] local_pref: Option<LocalPrefAction>,
        /// On large communities.
        [message, optional, tag = "8"] large_community: Option<CommunityAction>,
    }
    /// On communities.
    CommunityAction {
        /// 0 add, 1 remove, 2 have these alone.
        [int32, tag = "1"] kind: i32,
        /// Which.
        [string, repeated, tag = "2"] communities: Vec<String>,
    }
    /// On MULTI_EXIT_DISC.
    MedAction {
        /// 0 add, 1 set.
        [int32, tag = "1"] kind: i32,
        /// What.
        [int64, tag = "2"] value: i64,
    }
    /// On the AS path.
    AsPrependAction {
        /// The AS.
        [uint32, tag = "1"] asn: u32,
        /// How often.
        [uint32, tag = "2"] repeat: u32,
    }
    /// On the next hop.
    NexthopAction {
        /// Ours.
        [bool, tag = "2"] self_: bool,
        /// What it was.
        [bool, tag = "3"] unchanged: bool,
    }
    /// On LOCAL_PREF.
    LocalPrefAction {
        /// The value.
        [uint32, tag = "1"] value: u32,
    }
    /// A prefix, of IPv4 or IPv6.
    IpAddressPrefix {
        /// Its length.
        [uint32, tag = "1"] prefix_len: u32,
        /// Its address.
        [string, tag = "2"] prefix: String,
    }
    /// ORIGIN.
    OriginAttribute {
        /// 0 IGP, 1 EGP, 2 incomplete.
        [uint32, tag = "1"] origin: u32,
    }
    /// AS_PATH.
    AsPathAttribute {
        /// Its segments.
        [message, repeated, tag = "1"] segments: Vec<AsSegment>,
    }
    /// A segment.
    AsSegment {
        /// 1 set, 2 sequence, 3 and 4 those of confederations.
        [int32, tag = "1"] kind: i32,
        /// The numbers.
        [uint32, repeated, tag = "2"] numbers: Vec<u32>,
    }
    /// NEXT_HOP.
    NextHopAttribute {
        /// The address.
        [string, tag = "1"] next_hop: String,
    }
    /// MP_REACH_NLRI.
    MpReachNlriAttribute {
        /// The family.
        [message, optional, tag = "1"] family: Option<Family>,
        /// Next hops: a global address, perhaps a link-local one.
        [string, repeated, tag = "2"] next_hops: Vec<String>,
        /// Prefixes.
        [message, repeated, tag = "3"] nlris: Vec<Any>,
    }
    /// An attribute of one number: MULTI_EXIT_DISC or LOCAL_PREF.
    NumberAttribute {
        /// The number.
        [uint32, tag = "1"] number: u32,
    }
    /// COMMUNITIES.
    CommunitiesAttribute {
        /// The communities.
        [uint32, repeated, tag = "1"] communities: Vec<u32>,
    }
    /// A large community.
    LargeCommunity {
        /// The first part.
        [uint32, tag = "1"] global_admin: u32,
        /// The second.
        [uint32, tag = "2"] local_data1: u32,
        /// The third.
        [uint32, tag = "3"] local_data2: u32,
    }
    /// LARGE_COMMUNITY.
    LargeCommunitiesAttribute {
        /// The communities.
        [message, repeated, tag = "1"] communities: Vec<LargeCommunity>,
    }
    /// ORIGINATOR_ID.
    OriginatorIdAttribute {
        /// The identifier.
        [string, tag = "1"] id: String,
    }
    /// CLUSTER_LIST.
    ClusterListAttribute {
        /// The clusters.
        [string, repeated, tag = "1"] ids: Vec<String>,
    }
}

/// The table of all best paths.
pub const TABLE_GLOBAL: i32 = 0;
/// What a peer announced.
pub const TABLE_ADJ_IN: i32 = 2;
/// What a peer is announced.
pub const TABLE_ADJ_OUT: i32 = 3;
/// The folder of the API's methods.
pub const SERVICE: &str = "/apipb.GobgpApi";

impl Family {
    /// A family, unicast.
    #[must_use]
    pub fn of(family: margay_model::Family) -> Self {
        Self {
            afi: match family {
                margay_model::Family::V4 => 1,
                margay_model::Family::V6 => 2,
            },
            safi: 1,
        }
    }

    /// What it is to us; `None` for any other than unicast of IPv4 or IPv6.
    #[must_use]
    pub fn read(&self) -> Option<margay_model::Family> {
        match (self.afi, self.safi) {
            (1, 1) => Some(margay_model::Family::V4),
            (2, 1) => Some(margay_model::Family::V6),
            _ => None,
        }
    }
}
