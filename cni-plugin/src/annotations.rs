//! What the annotations of a pod and its namespace ask for (`cni.projectcalico.org/…`, `qos.projectcalico.org/…`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_call::Kubernetes;
use margay_cni::MacAddress;
use margay_cni::error::{Error, code};
use margay_model::resource::endpoint::QosControls;
use margay_model::{Cidr, Family};

use crate::limits;

/// What a pod asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    /// The only IPv4 pools.
    pub(crate) ipv4_pools: Option<Vec<String>>,
    /// The only IPv6 pools.
    pub(crate) ipv6_pools: Option<Vec<String>>,
    /// The address families.
    pub(crate) families: Option<Vec<Family>>,
    /// Addresses to be had from IPAM, at most one of each family.
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses to be used without asking IPAM, at most one of each family.
    pub(crate) addresses_without_ipam: Vec<IpAddr>,
    /// Floating addresses that lead to the pod.
    pub(crate) floating: Vec<IpAddr>,
    /// The MAC address of the container's interface.
    pub(crate) mac: Option<MacAddress>,
    /// Prefixes that the pod may use as source.
    pub(crate) source_prefixes: Vec<Cidr>,
    /// Limits on its traffic.
    pub(crate) limits: QosControls,
}

/// Annotations by name.
type Annotations = BTreeMap<String, String>;

impl Wishes {
    /// Reads annotations. Pools and families may stand at the namespace, and the pod's count before them;
    /// everything else is the pod's alone.
    ///
    /// # Errors
    /// Code 7 naming the annotation: a value that cannot be used, two that exclude each other, or one whose
    /// feature is not switched on.
    pub(crate) fn read(
        namespace: &Annotations,
        pod: &Annotations,
        settings: &Kubernetes,
    ) -> Result<Self, Error> {
        let either = |name| find(pod, name).or_else(|| find(namespace, name));
        let wishes = Self {
            ipv4_pools: list(
                either(IPV4_POOLS),
                "the name or prefix of a pool",
                some_text,
            )?,
            ipv6_pools: list(
                either(IPV6_POOLS),
                "the name or prefix of a pool",
                some_text,
            )?,
            families: list(either(FAMILIES), "\"IPv4\" or \"IPv6\"", family)?,
            addresses: addresses(find(pod, ADDRESSES))?,
            addresses_without_ipam: addresses(find(pod, WITHOUT_IPAM))?,
            floating: list(find(pod, FLOATING), "an address", address)?.unwrap_or_default(),
            mac: find(pod, MAC)
                .map(|given| {
                    let parsed = given.value.parse();
                    parsed.map_err(|_| given.unusable("give a MAC address, as 02:00:5e:10:00:01"))
                })
                .transpose()?,
            source_prefixes: list(
                find(pod, SOURCE_PREFIXES),
                "a prefix, as 10.0.0.0/8",
                prefix,
            )?
            .unwrap_or_default(),
            limits: limits::annotated(pod)?,
        };
        wishes.permitted(pod, settings)?;
        Ok(wishes)
    }

    fn permitted(&self, pod: &Annotations, settings: &Kubernetes) -> Result<(), Error> {
        if find(pod, ADDRESSES).is_some() && find(pod, WITHOUT_IPAM).is_some() {
            return Err(fault(format!(
                "annotations {PREFIX}{ADDRESSES} and {PREFIX}{WITHOUT_IPAM} exclude each other; remove one"
            )));
        }
        for (name, allowed, key) in [
            (
                WITHOUT_IPAM,
                settings.addresses_without_ipam,
                "ip_addrs_no_ipam",
            ),
            (FLOATING, settings.floating_addresses, "floating_ips"),
        ] {
            if find(pod, name).is_some() && !allowed {
                return Err(fault(format!(
                    "annotation {PREFIX}{name} is not permitted here; remove it, or set \
                     \"feature_control.{key}\": true"
                )));
            }
        }
        if self.families.as_ref().is_some_and(Vec::is_empty) {
            return Err(fault(format!(
                "annotation {PREFIX}{FAMILIES} names no family; name \"IPv4\" or \"IPv6\", or remove it"
            )));
        }
        Ok(())
    }
}

/// One annotation that is there.
#[derive(Clone, Copy, Debug)]
struct Given<'a> {
    name: &'static str,
    value: &'a str,
}

impl Given<'_> {
    fn unusable(&self, remedy: &str) -> Error {
        fault(format!(
            "annotation {PREFIX}{}: {:?} cannot be used; {remedy}",
            self.name, self.value
        ))
    }
}

fn find<'a>(annotations: &'a Annotations, name: &'static str) -> Option<Given<'a>> {
    let value = annotations.get(&format!("{PREFIX}{name}"))?;
    (!value.is_empty()).then_some(Given { name, value })
}

/// A JSON list of texts, each of which `read` understands.
fn list<T>(
    given: Option<Given<'_>>,
    each: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, Error> {
    let Some(given) = given else {
        return Ok(None);
    };
    let texts: Result<Vec<String>, _> = serde_json::from_str(given.value);
    let items = texts.ok().and_then(|texts| {
        let items = texts.iter().map(|text| read(text.trim()));
        items.collect::<Option<Vec<T>>>()
    });
    match items {
        Some(items) => Ok(Some(items)),
        None => Err(given.unusable(&format!("give a JSON list, each item {each}"))),
    }
}

/// A list of at most one address of each family.
fn addresses(given: Option<Given<'_>>) -> Result<Vec<IpAddr>, Error> {
    let addresses = list(given, "an address", address)?.unwrap_or_default();
    for family in [Family::V4, Family::V6] {
        let of_family = addresses.iter().filter(|one| Family::of(**one) == family);
        if let Some(given) = given
            && of_family.count() > 1
        {
            return Err(given.unusable("give at most one address of each family"));
        }
    }
    match given {
        Some(given) if addresses.is_empty() => Err(given.unusable("give an address, or remove it")),
        _ => Ok(addresses),
    }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn prefix(text: &str) -> Option<Cidr> {
    text.parse().ok()
}

fn family(text: &str) -> Option<Family> {
    match text.to_ascii_lowercase().as_str() {
        "ipv4" => Some(Family::V4),
        "ipv6" => Some(Family::V6),
        _ => None,
    }
}

fn fault(text: String) -> Error {
    Error::new(code::INVALID_CONFIG, text)
}

const PREFIX: &str = "cni.projectcalico.org/";
const IPV4_POOLS: &str = "ipv4pools";
const IPV6_POOLS: &str = "ipv6pools";
const FAMILIES: &str = "ipFamilies";
const ADDRESSES: &str = "ipAddrs";
const WITHOUT_IPAM: &str = "ipAddrsNoIpam";
const FLOATING: &str = "floatingIPs";
const MAC: &str = "hwAddr";
const SOURCE_PREFIXES: &str = "allowedSourcePrefixes";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs
            .iter()
            .map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned()))
            .collect()
    }

    fn read(namespace: &[(&str, &str)], pod: &[(&str, &str)], on: bool) -> Result<Wishes, Error> {
        let conf = json!({"feature_control": {"ip_addrs_no_ipam": on, "floating_ips": on}});
        let settings = Kubernetes::read(conf.as_object().unwrap());
        Wishes::read(&annotations(namespace), &annotations(pod), &settings)
    }

    #[test]
    fn the_pod_counts_before_its_namespace() {
        let namespace = [
            ("ipv4pools", r#"["a","b"]"#),
            ("ipv6pools", r#"["fd00::/64"]"#),
            ("ipAddrs", r#"["10.0.0.1"]"#),
            ("hwAddr", "02:00:00:00:00:01"),
        ];
        let pod = [
            ("ipv4pools", r#"["c"]"#),
            ("ipFamilies", r#"["IPv4","IPv6"]"#),
        ];
        let wishes = read(&namespace, &pod, false).unwrap();
        assert_eq!(wishes.ipv4_pools.unwrap(), ["c"]);
        assert_eq!(wishes.ipv6_pools.unwrap(), ["fd00::/64"]);
        assert_eq!(wishes.families.unwrap(), [Family::V4, Family::V6]);
        assert!(wishes.addresses.is_empty() && wishes.mac.is_none());
    }

    #[test]
    fn everything_that_is_understood() {
        let pod = [
            ("ipAddrsNoIpam", r#"["10.0.0.1","fd00::1"]"#),
            ("floatingIPs", r#"["203.0.113.4"]"#),
            ("hwAddr", "02:00:00:00:00:01"),
            ("allowedSourcePrefixes", r#"["10.1.0.0/16"]"#),
        ];
        let wishes = read(&[], &pod, true).unwrap();
        assert_eq!(wishes.addresses_without_ipam.len(), 2);
        assert_eq!(wishes.floating, ["203.0.113.4".parse::<IpAddr>().unwrap()]);
        assert!(wishes.mac.is_some());
        assert_eq!(wishes.source_prefixes[0].to_string(), "10.1.0.0/16");
        assert_eq!(
            read(&[], &[("ipAddrs", "")], false).unwrap(),
            Wishes::default()
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name() {
        for (pod, on, word) in [
            (&[("ipv4pools", "a")][..], true, "ipv4pools"),
            (&[("ipv4pools", r#"[""]"#)], true, "ipv4pools"),
            (&[("ipFamilies", r#"["ipx"]"#)], true, "ipFamilies"),
            (&[("ipFamilies", "[]")], true, "ipFamilies"),
            (
                &[("ipAddrs", r#"["10.0.0.1","10.0.0.2"]"#)],
                true,
                "at most one",
            ),
            (&[("ipAddrs", "[]")], true, "ipAddrs"),
            (&[("ipAddrs", "10.0.0.1")], true, "JSON list"),
            (&[("hwAddr", "2:3")], true, "hwAddr"),
            (
                &[("allowedSourcePrefixes", r#"["x"]"#)],
                true,
                "allowedSourcePrefixes",
            ),
            (
                &[("floatingIPs", r#"["10.0.0.1"]"#)],
                false,
                "feature_control.floating_ips",
            ),
            (
                &[("ipAddrsNoIpam", r#"["10.0.0.1"]"#)],
                false,
                "feature_control.ip_addrs_no_ipam",
            ),
            (
                &[
                    ("ipAddrs", r#"["10.0.0.1"]"#),
                    ("ipAddrsNoIpam", r#"["10.0.0.1"]"#),
                ],
                true,
                "exclude each other",
            ),
        ] {
            let error = read(&[], pod, on).unwrap_err();
            assert_eq!(error.code, code::INVALID_CONFIG);
            assert!(error.msg.contains(word), "{pod:?}: {error}");
        }
    }
}
