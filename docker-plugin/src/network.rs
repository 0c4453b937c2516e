//! What is kept of a network of Docker's.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use margay_model::resource::profile::Profile;
use margay_model::time::Timestamp;
use margay_model::{Cidr, Metadata};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{DriverError, Result};
use crate::ports::PUBLISHED;
use crate::protocol::{CreateNetwork, ENABLE_IPV6, GENERIC, INTERNAL, IpamData};

/// A network, as stored under `/margay/v1/docker/networks/<id>`.
///
/// Docker tells of a network once. It never says so again: not after a restart of either side, and not at all on the
/// other hosts of a network with global scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Docker's id.
    pub id: String,
    /// The node on which Docker knows it; `None` where all do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Docker's name for it, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The profile of its endpoints, once decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The next hop of its containers.
    pub gateway: Option<Ipv4Addr>,
    /// `--subnet`; none for any pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<Cidr>,
    /// `--internal`.
    #[serde(default)]
    pub internal: bool,
    /// The MTU of its containers in bytes, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How its interfaces are called in containers, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface_prefix: Option<String>,
    /// `--gateway` and `--aux-address`: addresses that no container gets.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reserved: BTreeSet<IpAddr>,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Network {
    /// What a `CreateNetwork` says. `ipam` is the IPAM driver that must have given the pools.
    ///
    /// # Errors
    /// Another IPAM driver gave them, or an option cannot be used.
    pub fn from_call(call: &CreateNetwork, ipam: &str, now: Timestamp) -> Result<Self> {
        let mut network = Self {
            id: call.network_id.clone(),
            created: now.rfc3339(),
            ..Self::default()
        };
        let empty = Map::new();
        let options = call.options.as_ref().unwrap_or(&empty);
        network.internal = options.get(INTERNAL).is_some_and(is_true);
        if let Some(generic) = options.get(GENERIC).and_then(Value::as_object) {
            network.read_options(generic)?;
        }
        let with_v6 = options.get(ENABLE_IPV6).is_none_or(is_true);
        let v6 = call.ipv6.iter().flatten().filter(|_| with_v6);
        for data in call.ipv4.iter().flatten().chain(v6) {
            network.read_pool(data, ipam)?;
        }
        Ok(network)
    }

    /// What Docker's API says of a network that the store does not know. Its addresses are not reserved anew.
    pub fn from_inspection(id: &str, told: &Value, now: Timestamp) -> Self {
        let mut network = Self {
            id: id.to_owned(),
            name: told["Name"].as_str().map(str::to_owned),
            internal: told["Internal"] == true,
            created: now.rfc3339(),
            ..Self::default()
        };
        let configs = told["IPAM"]["Config"].as_array().into_iter().flatten();
        let subnets = configs.filter_map(|config| config["Subnet"].as_str());
        network.subnets = subnets
            .filter_map(|subnet| subnet.parse().ok())
            .filter(|subnet: &Cidr| subnet.length() > 0)
            .collect();
        if let Some(options) = told["Options"].as_object() {
            // They were accepted when the network was made.
            let _ = network.read_options(options);
        }
        network
    }

    fn read_options(&mut self, options: &Map<String, Value>) -> Result<()> {
        for (key, value) in options {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            match key.as_str() {
                "mtu" | "com.docker.network.driver.mtu" => {
                    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                    self.mtu = Some(mtu.ok_or_else(|| DriverError::OptionValue {
                        key: key.clone(),
                        value: text,
                        allowed: "a number of bytes from 68 to 65535",
                    })?);
                }
                "com.docker.network.container_iface_prefix" => {
                    if !is_interface_prefix(&text) {
                        return Err(DriverError::OptionValue {
                            key: key.clone(),
                            value: text,
                            allowed: "1 to 12 letters, digits, '-', '_' and '.'",
                        });
                    }
                    self.interface_prefix = Some(text);
                }
                "profile" => {
                    if !margay_model::syntax::is_dns_subdomain(&text) {
                        return Err(DriverError::OptionValue {
                            key: key.clone(),
                            value: text,
                            allowed: "a profile's name: small letters, digits, '-' and '.'",
                        });
                    }
                    self.profile = Some(text);
                }
                _ => {
                    return Err(DriverError::UnknownOption {
                        key: key.clone(),
                        known: OPTIONS,
                    });
                }
            }
        }
        Ok(())
    }

    fn read_pool(&mut self, data: &IpamData, ipam: &str) -> Result<()> {
        if ![LOCAL_SPACE, GLOBAL_SPACE].contains(&data.address_space.as_str()) {
            return Err(DriverError::ForeignIpam {
                address_space: data.address_space.clone(),
                ipam: ipam.to_owned(),
            });
        }
        let bad = |what: &str, text: &str| DriverError::Malformed(format!("{what} {text:?}"));
        let pool: Cidr = data.pool.parse().map_err(|_| bad("Pool", &data.pool))?;
        if pool.length() > 0 {
            self.subnets.push(pool);
        }
        let aux = data
            .aux_addresses
            .iter()
            .flatten()
            .map(|(_, address)| address);
        for text in aux.chain([&data.gateway]).filter(|text| !text.is_empty()) {
            let address = text.split('/').next().unwrap_or_default();
            let address: IpAddr = address.parse().map_err(|_| bad("address", text))?;
            if !address.is_unspecified() {
                self.reserved.insert(address);
            }
        }
        Ok(())
    }

    /// The next hop of its containers: `169.254.A.B`, another for each network, so that a container can be on several
    /// (two routes to one next hop would be in each other's way). It begins with the network's id and passes over
    /// those of `others`.
    pub fn choose_gateway(&mut self, others: &BTreeSet<Ipv4Addr>) {
        let seed = self.id.bytes().take(16).fold(0_u32, |seed, byte| {
            seed.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let candidates = (0..GATEWAYS).map(|step| gateway(seed.wrapping_add(step) % GATEWAYS));
        let free = candidates.into_iter().find(|one| !others.contains(one));
        self.gateway = Some(free.unwrap_or_else(|| gateway(seed % GATEWAYS)));
    }

    /// The IPv6 next hop that goes with [`Network::gateway`].
    pub fn gateway_v6(&self) -> Option<Ipv6Addr> {
        let [_, _, a, b] = self.gateway?.octets();
        Some(Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            0,
            0,
            0xa9fe,
            u16::from_be_bytes([a, b]),
        ))
    }

    /// The name of the profile that goes with the network's name, and where that is not known, with its id.
    pub fn profile_name(&self) -> String {
        if let Some(profile) = &self.profile {
            return profile.clone();
        }
        let Some(name) = &self.name else {
            return format!("docker-{}", self.id.chars().take(12).collect::<String>());
        };
        let mut plain: String = name
            .chars()
            .map(|c| match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9' | '-') => c,
                _ => '-',
            })
            .take(LONGEST_NAME)
            .collect();
        plain = plain.trim_matches('-').to_owned();
        if plain == *name {
            return plain;
        }
        // Two names that look alike in small letters are two networks.
        let digest = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        format!("{plain}-{digest:08x}")
            .trim_start_matches('-')
            .to_owned()
    }

    /// The profile as it is made: the network's containers reach each other and, unless the network is internal,
    /// whom they like, and their published ports are reached by all.
    pub fn make_profile(&self, uid: String, now: Timestamp) -> Result<Profile, serde_json::Error> {
        let name = self.profile_name();
        let members = format!("{NETWORK_LABEL} == '{name}'");
        let egress = if self.internal {
            json!([{"action": "Allow", "destination": {"selector": members}}])
        } else {
            json!([{"action": "Allow"}])
        };
        let mut ingress = vec![json!({"action": "Allow", "source": {"selector": members}})];
        if !self.internal {
            let published = ["TCP", "UDP", "SCTP"].map(|protocol| {
                json!({"action": "Allow", "protocol": protocol,
                    "destination": {"ports": [PUBLISHED]}})
            });
            ingress.extend(published);
        }
        let spec = serde_json::from_value(json!({
            "ingress": ingress,
            "egress": egress,
            "labelsToApply": {NETWORK_LABEL: name},
        }))?;
        let mut metadata = Metadata::named(name);
        metadata.uid = Some(uid);
        metadata.creation_timestamp = Some(now.rfc3339());
        Ok(Profile::new(metadata, spec))
    }
}

/// 169.254.1.1 is the gateway of other workloads, and 169.254.169 and .170 belong to clouds' own services.
fn gateway(index: u32) -> Ipv4Addr {
    let octet = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    Ipv4Addr::new(169, 254, octet(2 + index / 254), octet(1 + index % 254))
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::String(text) => text == "true",
        _ => false,
    }
}

/// Docker adds a number of up to three digits.
pub(crate) fn is_interface_prefix(text: &str) -> bool {
    (1..=12).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && text != "."
        && text != ".."
}

/// The address space of networks that one host knows; Calico's name, because Docker keeps it.
pub const LOCAL_SPACE: &str = "CalicoLocalAddressSpace";
/// The address space of networks that all hosts know.
pub const GLOBAL_SPACE: &str = "CalicoGlobalAddressSpace";
/// The label by which the containers of a network are known.
pub const NETWORK_LABEL: &str = "margay.io/docker-network";

const OPTIONS: &str =
    "mtu (com.docker.network.driver.mtu), com.docker.network.container_iface_prefix, profile";
/// 166 third octets from 2 on, of 254 addresses each.
const GATEWAYS: u32 = 166 * 254;
/// A profile's name becomes a label's value, of at most 63 characters.
const LONGEST_NAME: usize = 50;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const NOW: Timestamp = Timestamp {
        seconds: 1_790_000_000,
        nanos: 0,
    };

    fn call(json: Value) -> CreateNetwork {
        serde_json::from_value(json).unwrap()
    }

    fn read(json: Value) -> Result<Network> {
        Network::from_call(&call(json), "margay-ipam", NOW)
    }

    #[test]
    fn everything_docker_says_is_kept() {
        let network = read(json!({
            "NetworkID": "1170d6",
            "Options": {ENABLE_IPV6: true, INTERNAL: true,
                GENERIC: {"mtu": "1400", "com.docker.network.container_iface_prefix": "net"}},
            "IPv4Data": [{"AddressSpace": LOCAL_SPACE, "Gateway": "192.168.0.1/32",
                "Pool": "192.168.0.0/16", "AuxAddresses": {"h": "192.168.0.9/32"}}],
            "IPv6Data": [{"AddressSpace": LOCAL_SPACE, "Gateway": "::/0", "Pool": "fd80::/64"}],
        }))
        .unwrap();
        let subnets: Vec<String> = network.subnets.iter().map(Cidr::to_string).collect();
        assert_eq!(subnets, ["192.168.0.0/16", "fd80::/64"]);
        let reserved: Vec<String> = network.reserved.iter().map(IpAddr::to_string).collect();
        assert_eq!(reserved, ["192.168.0.1", "192.168.0.9"]);
        assert!(network.internal && network.mtu == Some(1400));
        assert_eq!(network.interface_prefix.as_deref(), Some("net"));
        let stored = serde_json::to_vec(&network).unwrap();
        assert_eq!(serde_json::from_slice::<Network>(&stored).unwrap(), network);
    }

    #[test]
    fn a_network_without_subnet_has_any_pool() {
        let network = read(json!({
            "NetworkID": "a23001",
            "Options": {ENABLE_IPV6: false, GENERIC: {}, "com.docker.network.enable_ipv4": true},
            "IPv4Data": [{"AddressSpace": GLOBAL_SPACE, "Gateway": "0.0.0.0/0", "Pool": "0.0.0.0/0"}],
            "IPv6Data": [],
        }))
        .unwrap();
        assert!(network.subnets.is_empty() && network.reserved.is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let pool = json!([{"AddressSpace": LOCAL_SPACE, "Pool": "0.0.0.0/0"}]);
        for (options, ipv4, words) in [
            (
                json!({}),
                json!([{"AddressSpace": "LocalDefault", "Pool": "172.18.0.0/16"}]),
                "margay-ipam",
            ),
            (json!({"foo": "bar"}), pool.clone(), "foo"),
            (json!({"mtu": "12"}), pool.clone(), "68"),
            (json!({"profile": "No Such"}), pool.clone(), "profile"),
            (
                json!({"com.docker.network.container_iface_prefix": "a/b"}),
                pool,
                "letters",
            ),
            (
                json!({}),
                json!([{"AddressSpace": LOCAL_SPACE, "Pool": "x"}]),
                "Pool",
            ),
        ] {
            let error =
                read(json!({"NetworkID": "n", "Options": {GENERIC: options}, "IPv4Data": ipv4}));
            let text = error.unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn networks_have_different_next_hops_and_none_of_others() {
        let mut taken = BTreeSet::new();
        for n in 0..2000 {
            let mut network = Network {
                id: format!("{n:064x}"),
                ..Network::default()
            };
            network.choose_gateway(&taken);
            let gateway = network.gateway.unwrap();
            assert!(taken.insert(gateway), "{gateway} twice");
            let [_, _, a, b] = gateway.octets();
            assert!(
                (2..=167).contains(&a) && (1..=254).contains(&b),
                "{gateway}"
            );
        }
    }

    #[test]
    fn profiles_are_named_after_networks() {
        let named = |name: &str| {
            let name = Some(name.to_owned());
            Network {
                name,
                ..Network::default()
            }
            .profile_name()
        };
        assert_eq!(named("net1"), "net1");
        let (one, two) = (named("shop_default"), named("shop.default"));
        assert!(one.starts_with("shop-default-") && two.starts_with("shop-default-"));
        assert_ne!(one, two);
        for odd in ["_", "A".repeat(200).as_str(), "x_", "9.9"] {
            assert!(
                margay_model::syntax::is_dns_label(&named(odd)),
                "{odd}: {}",
                named(odd)
            );
        }
        let unnamed = Network {
            id: "a230012d26c0bf22".to_owned(),
            ..Network::default()
        };
        assert_eq!(unnamed.profile_name(), "docker-a230012d26c0");
    }

    #[test]
    fn profiles_are_valid_and_internal_ones_closed() {
        for internal in [false, true] {
            let network = Network {
                name: Some("net1".to_owned()),
                internal,
                ..Network::default()
            };
            let profile = network.make_profile("u".to_owned(), NOW).unwrap();
            profile.validate().unwrap();
            let open = profile.spec.egress[0].destination.selector.is_empty();
            assert_eq!(open, !internal);
        }
    }
}
