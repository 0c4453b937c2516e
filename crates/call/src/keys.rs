//! The keys of a configuration that the plugins understand.

use margay_cni::NetConf;
use margay_cni::error::{Error, code};
use margay_cni::keys::{Key, Kind, check as check_top, check_strict};
use serde_json::Value;

use crate::addresses::OWN_IPAM_TYPES;

/// Keys of the top level.
pub const KEYS: &[Key] = &[
    Key::new("nodename", STRING),
    Key::new("nodename_file", STRING),
    Key::new("nodename_file_optional", BOOL),
    Key::new("hostname", STRING),
    Key::new("mtu", NUMBER),
    Key::new("require_mtu_file", BOOL),
    Key::new("num_queues", NUMBER),
    Key::new("include_default_routes", BOOL),
    Key::new("datastore_type", STRING),
    Key::new("store_path", STRING),
    Key::new("etcd_endpoints", STRING),
    Key::new("etcd_discovery_srv", STRING),
    Key::new("etcd_scheme", STRING),
    Key::new("etcd_authority", STRING),
    Key::new("etcd_key_file", STRING),
    Key::new("etcd_cert_file", STRING),
    Key::new("etcd_ca_cert_file", STRING),
    Key::new("etcd_username", STRING),
    Key::secret("etcd_password", STRING),
    Key::new("log_level", STRING),
    Key::new("log_file_path", STRING),
    Key::new("log_file_max_size", NUMBER),
    Key::new("log_file_max_age", NUMBER),
    Key::new("log_file_max_count", NUMBER),
    Key::new("ipam_lock_file", STRING),
    Key::new("state_dir", STRING),
    Key::new("policy", OBJECT),
    Key::new("kubernetes", OBJECT),
    Key::new("container_settings", OBJECT),
    Key::new("feature_control", OBJECT),
    Key::new("device_type", STRING),
    Key::new("dataplane_options", OBJECT),
    Key::new("readiness_gates", STRINGS),
    Key::new("policy_setup_timeout_seconds", NUMBER),
    Key::new("endpoint_status_dir", STRING),
    Key::new("calico_api_group", STRING),
    Key::new("qps", NUMBER),
    Key::new("burst", NUMBER),
];

/// Keys of `ipam` where its type is our own.
pub const IPAM_KEYS: &[Key] = &[
    Key::new("type", STRING),
    Key::new("assign_ipv4", &[Kind::String, Kind::Bool]),
    Key::new("assign_ipv6", &[Kind::String, Kind::Bool]),
    Key::new("ipv4_pools", STRINGS),
    Key::new("ipv6_pools", STRINGS),
    Key::new("quarantine_seconds", NUMBER),
];

/// Keys of `container_settings`.
pub const CONTAINER_KEYS: &[Key] = &[Key::new("allow_ip_forwarding", BOOL)];

/// Keys of `kubernetes`.
pub const KUBERNETES_KEYS: &[Key] = &[
    Key::new("kubeconfig", STRING),
    Key::new("k8s_api_root", STRING),
    Key::new("node_name", STRING),
];

/// Keys of `feature_control`.
pub const FEATURE_KEYS: &[Key] = &[
    Key::new("ip_addrs_no_ipam", BOOL),
    Key::new("floating_ips", BOOL),
];

/// Keys of `policy`.
pub const POLICY_KEYS: &[Key] = &[
    Key::new("type", STRING),
    Key::new("k8s_api_root", STRING),
    Key::secret("k8s_auth_token", STRING),
    Key::new("k8s_client_certificate", STRING),
    Key::new("k8s_client_key", STRING),
    Key::new("k8s_certificate_authority", STRING),
];

/// Checks the whole configuration: types, misspellings, and values that name what is not there.
///
/// # Errors
/// Code 7 for what is wrong, code 2 for what is not supported, naming key and value.
pub fn check(conf: &NetConf) -> Result<(), Error> {
    let raw = conf.raw();
    check_top(raw, KEYS)?;
    if let Some(ipam) = conf.ipam()?
        && OWN_IPAM_TYPES.contains(&ipam.plugin)
    {
        check_strict(ipam.raw, "ipam", IPAM_KEYS)?;
    }
    for (name, keys) in [
        ("container_settings", CONTAINER_KEYS),
        ("policy", POLICY_KEYS),
        ("kubernetes", KUBERNETES_KEYS),
        ("feature_control", FEATURE_KEYS),
    ] {
        if let Some(Value::Object(object)) = raw.get(name) {
            check_strict(object, name, keys)?;
        }
    }
    let kubernetes = raw.get("policy").and_then(|policy| policy.get("type"));
    supported(
        "policy.type",
        kubernetes,
        &["", "k8s"],
        "use \"k8s\", or leave it out",
    )?;
    supported(
        "device_type",
        raw.get("device_type"),
        &["", "veth"],
        "use \"veth\"",
    )?;
    let dataplane = raw
        .get("dataplane_options")
        .and_then(|options| options.get("type"));
    supported("dataplane_options.type", dataplane, &[""], "leave it out")?;
    let gates = raw
        .get("readiness_gates")
        .filter(|gates| gates.as_array().is_some_and(|g| !g.is_empty()));
    if gates.is_some() {
        return Err(unsupported(
            "readiness_gates",
            gates,
            "use STATUS, which asks for the same",
        ));
    }
    Ok(())
}

fn supported(key: &str, value: Option<&Value>, values: &[&str], remedy: &str) -> Result<(), Error> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if values.contains(&text.as_str()) => Ok(()),
        other => Err(unsupported(key, other, remedy)),
    }
}

fn unsupported(key: &str, value: Option<&Value>, remedy: &str) -> Error {
    let value = value.map(Value::to_string).unwrap_or_default();
    Error::new(
        code::UNSUPPORTED_FIELD,
        format!("key \"{key}\": the value {value} is not supported; {remedy}"),
    )
}

const STRING: &[Kind] = &[Kind::String];
const STRINGS: &[Kind] = &[Kind::Strings];
const BOOL: &[Kind] = &[Kind::Bool];
const NUMBER: &[Kind] = &[Kind::Unsigned];
const OBJECT: &[Kind] = &[Kind::Object];
