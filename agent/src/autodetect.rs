//! Which of the machine's addresses is the node's: Calico's methods, over a list of interfaces.
//!
//! An address once recorded is kept for as long as the machine bears it: a new interface, a
//! virtual address or another order of interfaces never moves a node.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_model::{Cidr, Family};
use regex::Regex;

use crate::config::NodeAddress;

/// How an address is found.
#[derive(Debug, Clone, Default)]
pub enum Method {
    /// The first address on the first interface that is not known to be virtual.
    #[default]
    FirstFound,
    /// The address from which this host is reached.
    CanReach(String),
    /// The first address on the first interface whose name matches one of these.
    Interface(Vec<Regex>),
    /// As [`Method::FirstFound`], without interfaces whose names match one of these.
    SkipInterface(Vec<Regex>),
    /// The first address within one of these prefixes.
    Cidr(Vec<Cidr>),
}

/// An interface as the methods see it, in the kernel's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses with prefix lengths.
    pub addresses: Vec<IpNetwork>,
}

/// What became of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The node has no address of this family.
    None,
    /// This one, which is also what is recorded, or nothing is recorded.
    Address(IpNetwork),
    /// What is recorded stays, although the method finds another, or nothing.
    Kept {
        /// What is recorded.
        recorded: IpNetwork,
        /// What the method finds.
        found: Option<IpNetwork>,
    },
    /// What is recorded is gone from the machine, so the node moves.
    Moved {
        /// What was recorded.
        from: IpNetwork,
        /// Where the node is now.
        to: IpNetwork,
    },
}

/// No address could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    /// The method finds nothing, and nothing is recorded.
    #[error(
        "no {family} address found by {method}; interfaces seen: {seen}. Give the address with {variable}, \
         or another method with {variable}_AUTODETECTION_METHOD"
    )]
    Nothing {
        /// The family.
        family: Family,
        /// The method, in its own words.
        method: String,
        /// The interfaces with their addresses.
        seen: String,
        /// The variable that gives the address.
        variable: &'static str,
    },
}

impl Method {
    /// Reads a method in Calico's words.
    ///
    /// # Errors
    /// The reason, in words for whoever wrote it.
    pub fn parse(text: &str, family: Family) -> Result<Self, String> {
        let (word, argument) = match text.split_once('=') {
            Some((word, argument)) => (word, argument.trim()),
            None => (text, ""),
        };
        match (word, argument) {
            ("first-found", "") => Ok(Self::FirstFound),
            ("can-reach", host) if !host.is_empty() => match host.parse::<IpAddr>() {
                Ok(address) if Family::of(address) != family => {
                    Err(format!("{host} is no {family} address"))
                }
                _ => Ok(Self::CanReach(host.to_owned())),
            },
            ("interface", list) if !list.is_empty() => regexes(list).map(Self::Interface),
            ("skip-interface", list) if !list.is_empty() => regexes(list).map(Self::SkipInterface),
            ("cidr", list) if !list.is_empty() => list
                .split(',')
                .map(|part| match part.trim().parse::<Cidr>() {
                    Ok(cidr) if cidr.family() == family => Ok(cidr),
                    Ok(cidr) => Err(format!("{cidr} is no {family} prefix")),
                    Err(error) => Err(error.to_string()),
                })
                .collect::<Result<_, _>>()
                .map(Self::Cidr),
            ("kubernetes-internal-ip", _) => Err(
                "this agent does not ask Kubernetes for node addresses; use cidr= or interface=, \
                 or give the address itself with IP"
                    .to_owned(),
            ),
            _ => Err(
                "give first-found, can-reach=HOST, interface=REGEX,…, skip-interface=REGEX,… or \
                 cidr=CIDR,…"
                    .to_owned(),
            ),
        }
    }

    /// The address that the method finds. `reached_from` is the machine's own address towards the
    /// host of [`Method::CanReach`].
    pub fn find(
        &self,
        family: Family,
        interfaces: &[Candidate],
        reached_from: Option<IpAddr>,
    ) -> Option<IpNetwork> {
        let named = |skip: &[Regex]| {
            let usable = |candidate: &&Candidate| {
                candidate.up
                    && !is_virtual(&candidate.name)
                    && !skip.iter().any(|regex| regex.is_match(&candidate.name))
            };
            interfaces
                .iter()
                .filter(usable)
                .find_map(|candidate| first(candidate, family))
        };
        match self {
            Self::FirstFound => named(&[]),
            Self::SkipInterface(skip) => named(skip),
            Self::Interface(regexes) => regexes.iter().find_map(|regex| {
                let matching =
                    |candidate: &&Candidate| candidate.up && regex.is_match(&candidate.name);
                interfaces
                    .iter()
                    .filter(matching)
                    .find_map(|candidate| first(candidate, family))
            }),
            Self::Cidr(cidrs) => {
                let up = interfaces.iter().filter(|candidate| candidate.up);
                up.flat_map(|candidate| usable(candidate, family))
                    .find(|network| cidrs.iter().any(|cidr| cidr.contains(network.ip())))
            }
            Self::CanReach(_) => on_machine(reached_from?, interfaces),
        }
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let join = |list: &[Regex]| list.iter().map(Regex::as_str).collect::<Vec<_>>().join(",");
        match self {
            Self::FirstFound => f.write_str("first-found"),
            Self::CanReach(host) => write!(f, "can-reach={host}"),
            Self::Interface(list) => write!(f, "interface={}", join(list)),
            Self::SkipInterface(list) => write!(f, "skip-interface={}", join(list)),
            Self::Cidr(list) => {
                let list: Vec<String> = list.iter().map(Cidr::to_string).collect();
                write!(f, "cidr={}", list.join(","))
            }
        }
    }
}

/// Chooses the node's address of one family from what is told, recorded and found.
///
/// # Errors
/// [`DetectError`] when an address is to be detected, none is recorded and none found.
pub fn choose(
    told: &NodeAddress,
    family: Family,
    recorded: Option<IpNetwork>,
    interfaces: &[Candidate],
    reached_from: Option<IpAddr>,
) -> Result<Choice, DetectError> {
    let method = match told {
        NodeAddress::None => return Ok(Choice::None),
        NodeAddress::Recorded => {
            return Ok(recorded.map_or(Choice::None, Choice::Address));
        }
        NodeAddress::Given(address, length) => {
            let on_interface = on_machine(*address, interfaces);
            let length = length
                .or_else(|| on_interface.map(|network| network.prefix()))
                .unwrap_or_else(|| family.width());
            // The length was checked against the family's width, so this is never the fallback.
            let network = IpNetwork::new(*address, length).unwrap_or_else(|_| (*address).into());
            return Ok(Choice::Address(network));
        }
        NodeAddress::Detected(method) => method,
    };
    let found = method.find(family, interfaces, reached_from);
    match (recorded, found) {
        (None, Some(found)) => Ok(Choice::Address(found)),
        (Some(recorded), found) => {
            // The prefix length may have been corrected on the interface; the address is what counts.
            match (on_machine(recorded.ip(), interfaces), found) {
                (Some(now), Some(found)) if now.ip() == found.ip() => Ok(Choice::Address(now)),
                (Some(now), found) => Ok(Choice::Kept {
                    recorded: now,
                    found,
                }),
                (None, Some(to)) => Ok(Choice::Moved { from: recorded, to }),
                (None, None) => Ok(Choice::Kept {
                    recorded,
                    found: None,
                }),
            }
        }
        (None, None) => Err(DetectError::Nothing {
            family,
            method: method.to_string(),
            seen: seen(interfaces, family),
            variable: match family {
                Family::V4 => "IP",
                Family::V6 => "IP6",
            },
        }),
    }
}

impl Choice {
    /// The address chosen.
    pub fn address(&self) -> Option<IpNetwork> {
        match self {
            Self::None => None,
            Self::Address(address) => Some(*address),
            Self::Kept { recorded, .. } => Some(*recorded),
            Self::Moved { to, .. } => Some(*to),
        }
    }
}

/// The address with the prefix length that it has on its interface, if the machine bears it.
pub fn on_machine(address: IpAddr, interfaces: &[Candidate]) -> Option<IpNetwork> {
    let mut all = interfaces.iter().flat_map(|candidate| &candidate.addresses);
    all.find(|network| network.ip() == address).copied()
}

/// Whether a name is one that virtual interfaces have: Calico's list.
fn is_virtual(name: &str) -> bool {
    VIRTUAL_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || VIRTUAL_NAMES.contains(&name)
}

fn first(candidate: &Candidate, family: Family) -> Option<IpNetwork> {
    usable(candidate, family).next()
}

/// Addresses that other nodes can reach.
fn usable(candidate: &Candidate, family: Family) -> impl Iterator<Item = IpNetwork> {
    let reachable = move |network: &&IpNetwork| {
        let global = match network.ip() {
            IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
        };
        Family::of(network.ip()) == family && global
    };
    candidate.addresses.iter().filter(reachable).copied()
}

fn seen(interfaces: &[Candidate], family: Family) -> String {
    let mut words = Vec::new();
    for candidate in interfaces {
        let of_family = candidate
            .addresses
            .iter()
            .filter(|a| Family::of(a.ip()) == family);
        let addresses: Vec<String> = of_family.map(IpNetwork::to_string).collect();
        let state = match (candidate.up, is_virtual(&candidate.name)) {
            (false, _) => ", down",
            (true, true) => ", virtual",
            (true, false) => "",
        };
        let addresses = if addresses.is_empty() {
            "none".to_owned()
        } else {
            addresses.join(" ")
        };
        words.push(format!("{} ({addresses}{state})", candidate.name));
    }
    words.join(", ")
}

fn regexes(list: &str) -> Result<Vec<Regex>, String> {
    let parse = |part: &str| {
        Regex::new(part.trim()).map_err(|error| format!("not a regular expression: {error}"))
    };
    list.split(',').map(parse).collect()
}

const VIRTUAL_PREFIXES: [&str; 18] = [
    "docker",
    "cbr",
    "dummy",
    "podman",
    "virbr",
    "lxcbr",
    "veth",
    "br-",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "vxlan.calico",
    "vxlan-v6.calico",
    "wireguard.cali",
    "wg-v6.cali",
    "nodelocaldns",
];

const VIRTUAL_NAMES: [&str; 1] = ["lo"];

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, up: bool, addresses: &[&str]) -> Candidate {
        Candidate {
            name: name.to_owned(),
            up,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    fn machine() -> Vec<Candidate> {
        vec![
            candidate("lo", true, &["127.0.0.1/8", "::1/128"]),
            candidate("docker0", true, &["172.17.0.1/16"]),
            candidate("eth2", false, &["10.9.0.1/24"]),
            candidate(
                "eth0",
                true,
                &["169.254.7.7/16", "10.0.0.5/24", "fe80::5/64", "fd00::5/64"],
            ),
            candidate("eth1", true, &["10.1.0.5/24", "10.1.0.200/32"]),
            candidate("nodelocaldns", true, &["169.254.20.10/32"]),
        ]
    }

    fn found(method: &str) -> Option<String> {
        let method = Method::parse(method, Family::V4).unwrap();
        let from = Some("10.1.0.5".parse().unwrap());
        method
            .find(Family::V4, &machine(), from)
            .map(|network| network.to_string())
    }

    #[test]
    fn every_method_finds_its_address() {
        for (method, address) in [
            ("first-found", Some("10.0.0.5/24")),
            ("can-reach=192.0.2.1", Some("10.1.0.5/24")),
            ("interface=eth1", Some("10.1.0.5/24")),
            ("interface=nope,^docker", Some("172.17.0.1/16")),
            ("interface=eth2", None),
            ("skip-interface=eth0", Some("10.1.0.5/24")),
            ("skip-interface=eth.*", None),
            ("cidr=10.1.0.0/16", Some("10.1.0.5/24")),
            ("cidr=10.1.0.128/25,192.0.2.0/24", Some("10.1.0.200/32")),
            ("cidr=192.0.2.0/24", None),
        ] {
            assert_eq!(found(method).as_deref(), address, "{method}");
        }
        let v6 = Method::FirstFound.find(Family::V6, &machine(), None);
        assert_eq!(v6.unwrap().to_string(), "fd00::5/64");
    }

    fn chosen(recorded: Option<&str>) -> Result<Choice, DetectError> {
        choose(
            &NodeAddress::Detected(Method::FirstFound),
            Family::V4,
            recorded.map(|text| text.parse().unwrap()),
            &machine(),
            None,
        )
    }

    #[test]
    fn a_recorded_address_stays_while_the_machine_bears_it() {
        let net = |text: &str| text.parse::<IpNetwork>().unwrap();
        assert_eq!(chosen(None), Ok(Choice::Address(net("10.0.0.5/24"))));
        assert_eq!(
            chosen(Some("10.0.0.5/24")),
            Ok(Choice::Address(net("10.0.0.5/24")))
        );
        assert_eq!(
            chosen(Some("10.1.0.5/24")),
            Ok(Choice::Kept {
                recorded: net("10.1.0.5/24"),
                found: Some(net("10.0.0.5/24"))
            })
        );
        // The record says an old prefix length.
        assert_eq!(
            chosen(Some("10.0.0.5/16")),
            Ok(Choice::Address(net("10.0.0.5/24")))
        );
        assert_eq!(
            chosen(Some("10.7.0.5/24")),
            Ok(Choice::Moved {
                from: net("10.7.0.5/24"),
                to: net("10.0.0.5/24")
            })
        );
    }

    #[test]
    fn nothing_found_is_an_error_only_where_nothing_is_recorded() {
        let told = NodeAddress::Detected(Method::parse("interface=nope", Family::V4).unwrap());
        let choose_with = |recorded| choose(&told, Family::V4, recorded, &machine(), None);
        let text = choose_with(None).unwrap_err().to_string();
        assert!(
            text.contains("interface=nope") && text.contains("docker0"),
            "{text}"
        );
        assert!(text.contains("IP_AUTODETECTION_METHOD"), "{text}");
        let recorded = "10.7.0.5/24".parse().unwrap();
        assert_eq!(
            choose_with(Some(recorded)),
            Ok(Choice::Kept {
                recorded,
                found: None
            })
        );
    }

    #[test]
    fn a_given_address_takes_its_length_from_the_interface() {
        let given = |address: &str| {
            let told = NodeAddress::Given(address.parse().unwrap(), None);
            let choice = choose(&told, Family::V4, None, &machine(), None).unwrap();
            choice.address().unwrap().to_string()
        };
        assert_eq!(given("10.1.0.5"), "10.1.0.5/24");
        assert_eq!(given("192.0.2.1"), "192.0.2.1/32");
    }
}
