//! host-local with the prefixes that Kubernetes gave the node: `usePodCidr` and `usePodCidrIPv6` in place of
//! a subnet.

use std::borrow::Cow;

use margay_call::{Kubernetes, from_kube};
use margay_cni::Request;
use margay_cni::error::{Error, code};
use margay_kube::Node;
use margay_model::{Cidr, Family};
use margay_plugin::progress;
use serde_json::{Map, Value};

use crate::pod::reconfigure;

/// The call with the node's prefixes in place of the words. The API server is asked only where a word is there.
///
/// # Errors
/// What the API server refused, or code 7 when the node has no prefix of the family.
pub(crate) async fn resolve<'a>(
    call: &'a Request,
    settings: &Kubernetes,
    node: &str,
) -> Result<Cow<'a, Request>, Error> {
    if words(call.conf.raw()).is_empty() {
        return Ok(Cow::Borrowed(call));
    }
    let name = settings.node_name.as_deref().unwrap_or(node);
    let mut client = settings.client()?;
    progress("waiting for the Kubernetes API server");
    let described = client.node(name).await.map_err(|error| from_kube(&error))?;
    replace(call, |family| prefix(&described, name, family))
}

/// The call for verbs that give nothing: there host-local finds what a container holds by the container's id,
/// and the words need only be prefixes that it can read. So no DEL waits for an API server.
///
/// # Errors
/// Code 999: the configuration is a changed copy of one that was read.
pub(crate) fn any(call: &Request) -> Result<Cow<'_, Request>, Error> {
    replace(call, |family| {
        Ok(match family {
            Family::V4 => ANY_IPV4.to_owned(),
            Family::V6 => ANY_IPV6.to_owned(),
        })
    })
}

fn replace<'a>(
    call: &'a Request,
    prefix: impl Fn(Family) -> Result<String, Error>,
) -> Result<Cow<'a, Request>, Error> {
    let families = words(call.conf.raw());
    if families.is_empty() {
        return Ok(Cow::Borrowed(call));
    }
    let mut conf = call.conf.raw().clone();
    for subnet in subnets(&mut conf) {
        if let Some(family) = word(subnet) {
            *subnet = prefix(family)?.into();
        }
    }
    reconfigure(call, conf).map(Cow::Owned)
}

/// The families whose words a configuration uses.
fn words(conf: &Map<String, Value>) -> Vec<Family> {
    let ipam = conf.get("ipam").and_then(Value::as_object);
    if ipam.and_then(|ipam| ipam.get("type")) != Some(&Value::from("host-local")) {
        return Vec::new();
    }
    let mut conf = conf.clone();
    subnets(&mut conf)
        .into_iter()
        .filter_map(|subnet| word(subnet))
        .collect()
}

/// Every `subnet` of `ipam`: its own, and those of its ranges.
fn subnets(conf: &mut Map<String, Value>) -> Vec<&mut Value> {
    let Some(Value::Object(ipam)) = conf.get_mut("ipam") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, value) in ipam {
        match (key.as_str(), value) {
            ("subnet", value) => found.push(value),
            ("ranges", Value::Array(sets)) => {
                let ranges = sets.iter_mut().filter_map(Value::as_array_mut).flatten();
                found.extend(ranges.filter_map(|range| range.get_mut("subnet")));
            }
            _ => {}
        }
    }
    found
}

fn word(subnet: &Value) -> Option<Family> {
    match subnet.as_str()?.to_ascii_lowercase().as_str() {
        "usepodcidr" => Some(Family::V4),
        "usepodcidripv6" => Some(Family::V6),
        _ => None,
    }
}

/// The node's first prefix of a family.
fn prefix(node: &Node, name: &str, family: Family) -> Result<String, Error> {
    let cidrs = node.spec.pod_cidrs.iter().chain([&node.spec.pod_cidr]);
    let mut of_family = cidrs.filter(|text| {
        let cidr = text.parse::<Cidr>();
        cidr.is_ok_and(|cidr| Family::of(cidr.address()) == family)
    });
    of_family.next().cloned().ok_or_else(|| {
        let word = match family {
            Family::V4 => "usePodCidr",
            Family::V6 => "usePodCidrIPv6",
        };
        Error::new(
            code::INVALID_CONFIG,
            format!(
                "\"ipam.subnet\" is \"{word}\", but node {name} has no such prefix in spec.podCIDRs; let the \
                 controller manager allocate node CIDRs, or give a prefix"
            ),
        )
    })
}

/// Prefixes for documentation (RFC 5737, RFC 3849), which are nobody's.
const ANY_IPV4: &str = "192.0.2.0/24";
const ANY_IPV6: &str = "2001:db8::/64";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(ipam: Value) -> Request {
        let env = |name: &str| match name {
            "CNI_COMMAND" => Some("DEL".to_owned()),
            "CNI_CONTAINERID" => Some("c1".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_PATH" => Some("/bin".to_owned()),
            _ => None,
        };
        let conf = json!({"name": "n", "type": "margay", "ipam": ipam});
        Request::parse(env, conf.to_string().into_bytes()).unwrap()
    }

    #[test]
    fn words_are_replaced_wherever_they_stand() {
        let node = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["fd00:1::/80", "10.244.1.0/24"]}});
        let node: Node = serde_json::from_value(node).unwrap();
        for (given, wanted) in [
            (
                json!({"type": "host-local", "subnet": "usePodCidr"}),
                json!({"type": "host-local", "subnet": "10.244.1.0/24"}),
            ),
            (
                json!({"type": "host-local", "ranges": [[{"subnet": "UsePodCIDR", "gateway": "x"}], [{"subnet": "usePodCidrIPv6"}]]}),
                json!({"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24", "gateway": "x"}], [{"subnet": "fd00:1::/80"}]]}),
            ),
        ] {
            let given = call(given);
            let call = replace(&given, |family| prefix(&node, "n1", family)).unwrap();
            assert_eq!(call.conf.raw()["ipam"], wanted);
            assert_eq!(
                call.stdin,
                Value::Object(call.conf.raw().clone())
                    .to_string()
                    .into_bytes()
            );
            assert_ne!(
                any(&given).unwrap().conf.raw()["ipam"],
                given.conf.raw()["ipam"]
            );
        }
    }

    #[test]
    fn other_configurations_stay_as_they_are() {
        for ipam in [
            json!({"type": "margay-ipam", "subnet": "usePodCidr"}),
            json!({"type": "host-local", "subnet": "10.0.0.0/24", "ranges": null}),
        ] {
            let given = call(ipam);
            assert!(matches!(any(&given).unwrap(), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn a_node_without_the_prefix_is_named() {
        let node = Node::default();
        let error = prefix(&node, "n1", Family::V6).unwrap_err();
        assert!(
            error.msg.contains("n1") && error.msg.contains("usePodCidrIPv6"),
            "{error}"
        );
    }
}
