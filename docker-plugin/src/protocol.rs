//! Docker's plugin protocol as types: what it asks and what it is told.
//!
//! Sources: moby `daemon/libnetwork/drivers/remote/api` and `ipams/remote/api`, `pkg/plugins`. Fields that are not
//! used here are passed over; a later engine may send more.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `IpamDriver.RequestPool`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RequestPool {
    /// One of the driver's own two.
    pub address_space: String,
    /// `--subnet`; empty without one.
    pub pool: String,
    /// `--ip-range`; empty without one.
    pub sub_pool: String,
    /// `--ipam-opt`.
    pub options: Option<BTreeMap<String, String>>,
    /// Whether IPv6 is meant.
    pub v6: bool,
}

/// `IpamDriver.ReleasePool`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ReleasePool {
    /// As it was answered to `RequestPool`.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
}

/// `IpamDriver.RequestAddress` and `IpamDriver.ReleaseAddress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PoolAddress {
    /// As it was answered to `RequestPool`.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// Without a prefix length; empty for any.
    #[serde(rename = "Address")]
    pub address: String,
    /// What the address is for.
    #[serde(rename = "Options")]
    pub options: Option<BTreeMap<String, String>>,
}

/// `NetworkDriver.CreateNetwork`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CreateNetwork {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// Docker's own options, and those of `--opt` below [`GENERIC`].
    #[serde(rename = "Options")]
    pub options: Option<Map<String, Value>>,
    /// IPv4 pools.
    #[serde(rename = "IPv4Data")]
    pub ipv4: Option<Vec<IpamData>>,
    /// IPv6 pools.
    #[serde(rename = "IPv6Data")]
    pub ipv6: Option<Vec<IpamData>>,
}

/// A pool of a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpamData {
    /// Whose pool it is.
    pub address_space: String,
    /// Its prefix.
    pub pool: String,
    /// The gateway with a prefix length.
    pub gateway: String,
    /// `--aux-address`: names and addresses with a prefix length.
    pub aux_addresses: Option<BTreeMap<String, String>>,
}

/// Calls that name a network alone: `DeleteNetwork`, `FreeNetwork`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetworkCall {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
}

/// Calls that name an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointCall {
    /// 64 hexadecimal digits.
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    /// 64 hexadecimal digits.
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    /// `CreateEndpoint`: what the IPAM driver gave.
    #[serde(rename = "Interface")]
    pub interface: Option<EndpointInterface>,
    /// Ports and the like.
    #[serde(rename = "Options")]
    pub options: Option<Map<String, Value>>,
}

/// Addresses of an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointInterface {
    /// IPv4 with a prefix length, or empty.
    #[serde(rename = "Address")]
    pub address: String,
    /// IPv6 with a prefix length, or empty.
    #[serde(rename = "AddressIPv6")]
    pub address_ipv6: String,
    /// Empty where the driver may choose.
    #[serde(rename = "MacAddress")]
    pub mac_address: String,
}

/// A port of `-p`, as `com.docker.network.portmap` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortBinding {
    /// The IP protocol's number: 6, 17 or 132.
    pub proto: u8,
    /// The container's port.
    pub port: u16,
    /// The host's address; empty for all.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// First of the host's ports to choose from; 0 for any.
    pub host_port: u16,
    /// Last of the host's ports to choose from.
    pub host_port_end: u16,
}

/// Answer to `RequestPool`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PoolAnswer {
    /// By which Docker asks for addresses.
    #[serde(rename = "PoolID")]
    pub pool_id: String,
    /// Its prefix.
    #[serde(rename = "Pool")]
    pub pool: String,
    /// More to tell: the gateway.
    #[serde(rename = "Data")]
    pub data: BTreeMap<&'static str, String>,
}

/// Answer to `Join`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JoinAnswer {
    /// The interface to move.
    pub interface_name: InterfaceName,
    /// The IPv4 gateway.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// The IPv6 gateway.
    #[serde(rename = "GatewayIPv6", skip_serializing_if = "String::is_empty")]
    pub gateway_ipv6: String,
    /// Routes beside the default route.
    pub static_routes: Vec<StaticRoute>,
    /// Whether Docker must not add a bridge of its own as a way out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disable_gateway_service: bool,
}

/// How an interface is called before and in the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    /// On the host.
    pub src_name: String,
    /// In the sandbox, where Docker adds a number.
    pub dst_prefix: String,
}

/// A route of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StaticRoute {
    /// A prefix.
    pub destination: String,
    /// [`NEXT_HOP`] or [`CONNECTED`].
    pub route_type: u8,
    /// The next hop; empty for [`CONNECTED`].
    pub next_hop: String,
}

/// `types.NEXTHOP`.
pub const NEXT_HOP: u8 = 0;
/// `types.CONNECTED`.
pub const CONNECTED: u8 = 1;

/// The option that holds those of `--opt`.
pub const GENERIC: &str = "com.docker.network.generic";
/// The option of `--ipv6`.
pub const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";
/// The option of `--internal`.
pub const INTERNAL: &str = "com.docker.network.internal";
/// The option of `-p`.
pub const PORT_MAP: &str = "com.docker.network.portmap";
/// The option of an address request that says what the address is for.
pub const ADDRESS_TYPE: &str = "RequestAddressType";
/// The value of [`ADDRESS_TYPE`] for `--gateway`, and the key of a pool's gateway.
pub const GATEWAY: &str = "com.docker.network.gateway";
