//! Which columns the tables of each kind have.

use margay_model::Kind;
use serde_json::Value;

/// A column: its title, and the cell of a resource.
pub type Column = (&'static str, fn(&Value) -> String);

/// The columns of a kind; more of them when `wide`. `spaces` puts the namespace first.
pub fn columns(kind: Kind, wide: bool, spaces: bool) -> Vec<Column> {
    let mut columns: Vec<Column> = Vec::new();
    if spaces && kind.namespaced() {
        columns.push(("NAMESPACE", |r| text(r, "/metadata/namespace")));
    }
    if kind == Kind::WorkloadEndpoint && !wide {
        columns.extend(WORKLOAD);
        return columns;
    }
    columns.push(("NAME", |r| text(r, "/metadata/name")));
    columns.extend(match (kind, wide) {
        (Kind::WorkloadEndpoint, _) => [&WORKLOAD[..], &WORKLOAD_WIDE].concat(),
        (Kind::IPPool, false) => vec![CIDR, POOL_SELECTOR],
        (Kind::IPPool, true) => POOL_WIDE.to_vec(),
        (Kind::IPReservation, true) => vec![RESERVED],
        (Kind::BGPConfiguration, _) => BGP_CONFIGURATION.to_vec(),
        (Kind::BGPPeer, _) => BGP_PEER.to_vec(),
        (Kind::BlockAffinity, _) => AFFINITY.to_vec(),
        (Kind::CalicoNodeStatus, _) => vec![NODE],
        (Kind::ClusterInformation, _) => CLUSTER.to_vec(),
        (Kind::FelixConfiguration, true) => {
            vec![SEVERITY]
        }
        (Kind::GlobalNetworkPolicy | Kind::NetworkPolicy, false) => vec![TIER],
        (Kind::GlobalNetworkPolicy | Kind::NetworkPolicy, true) => vec![TIER, ORDER, SELECTOR],
        (Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy, false) => vec![TIER],
        (Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy, true) => {
            vec![TIER, ORDER, SELECTOR, ACTION]
        }
        (Kind::GlobalNetworkSet | Kind::NetworkSet, true) => {
            vec![NETS]
        }
        (Kind::HostEndpoint, false) => vec![NODE],
        (Kind::HostEndpoint, true) => [&[NODE][..], &HOST_WIDE].concat(),
        (Kind::Node, true) => NODE_WIDE.to_vec(),
        (Kind::Profile, true) => vec![LABELS],
        (Kind::Tier, false) => vec![ORDER],
        (Kind::Tier, true) => vec![ORDER, DEFAULT_ACTION],
        _ => Vec::new(),
    });
    columns
}

const CIDR: Column = ("CIDR", |r| text(r, "/spec/cidr"));
const RESERVED: Column = ("CIDRS", |r| list(r, "/spec/reservedCIDRs"));
const NETS: Column = ("NETS", |r| list(r, "/spec/nets"));
const LABELS: Column = ("LABELS", |r| pairs(r, "/spec/labelsToApply"));
const SEVERITY: Column = ("LOGSEVERITYSCREEN", |r| text(r, "/spec/logSeverityScreen"));
const DEFAULT_ACTION: Column = ("DEFAULTACTION", |r| text(r, "/spec/defaultAction"));
const NODE: Column = ("NODE", |r| text(r, "/spec/node"));
const ORDER: Column = ("ORDER", |r| text(r, "/spec/order"));
const SELECTOR: Column = ("SELECTOR", |r| text(r, "/spec/selector"));
const ACTION: Column = ("ACTION", |r| text(r, "/spec/stagedAction"));
const POOL_SELECTOR: Column = ("SELECTOR", |r| text(r, "/spec/nodeSelector"));
const TIER: Column = ("TIER", |r| or(text(r, "/spec/tier"), "default"));

const WORKLOAD: [Column; 4] = [
    ("WORKLOAD", workload),
    NODE,
    ("NETWORKS", |r| list(r, "/spec/ipNetworks")),
    ("INTERFACE", |r| text(r, "/spec/interfaceName")),
];

const WORKLOAD_WIDE: [Column; 2] = [("PROFILES", |r| list(r, "/spec/profiles")), ("NATS", nats)];

const POOL_WIDE: [Column; 8] = [
    CIDR,
    ("NAT", |r| flag(r, "/spec/natOutgoing")),
    ("IPIPMODE", |r| or(text(r, "/spec/ipipMode"), "Never")),
    ("VXLANMODE", |r| or(text(r, "/spec/vxlanMode"), "Never")),
    ("DISABLED", |r| flag(r, "/spec/disabled")),
    ("DISABLEBGPEXPORT", |r| flag(r, "/spec/disableBGPExport")),
    POOL_SELECTOR,
    ("ASSIGNMENTMODE", |r| {
        or(text(r, "/spec/assignmentMode"), "Automatic")
    }),
];

const BGP_CONFIGURATION: [Column; 3] = [
    ("LOGSEVERITY", |r| text(r, "/spec/logSeverityScreen")),
    ("MESHENABLED", |r| text(r, "/spec/nodeToNodeMeshEnabled")),
    ("ASNUMBER", |r| text(r, "/spec/asNumber")),
];

const BGP_PEER: [Column; 3] = [
    ("PEERIP", |r| {
        or(text(r, "/spec/peerIP"), &text(r, "/spec/peerSelector"))
    }),
    ("NODE", |r| {
        or(
            or(text(r, "/spec/node"), &text(r, "/spec/nodeSelector")),
            "(global)",
        )
    }),
    ("ASN", |r| text(r, "/spec/asNumber")),
];

const AFFINITY: [Column; 3] = [NODE, CIDR, ("STATE", |r| text(r, "/spec/state"))];

const CLUSTER: [Column; 4] = [
    ("GUID", |r| text(r, "/spec/clusterGUID")),
    ("TYPE", |r| text(r, "/spec/clusterType")),
    ("VERSION", |r| text(r, "/spec/calicoVersion")),
    ("READY", |r| flag(r, "/spec/datastoreReady")),
];

const HOST_WIDE: [Column; 3] = [
    ("INTERFACE", |r| text(r, "/spec/interfaceName")),
    ("IPS", |r| list(r, "/spec/expectedIPs")),
    ("PROFILES", |r| list(r, "/spec/profiles")),
];

const NODE_WIDE: [Column; 3] = [
    ("ASN", |r| or(text(r, "/spec/bgp/asNumber"), "(64512)")),
    ("IPV4", |r| text(r, "/spec/bgp/ipv4Address")),
    ("IPV6", |r| text(r, "/spec/bgp/ipv6Address")),
];

/// What a workload endpoint belongs to, by its orchestrator.
fn workload(resource: &Value) -> String {
    ["/spec/pod", "/spec/workload", "/spec/containerID"]
        .into_iter()
        .map(|path| text(resource, path))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// External and internal address of each translation.
fn nats(resource: &Value) -> String {
    let items = resource.pointer("/spec/ipNATs").and_then(Value::as_array);
    let texts = items
        .into_iter()
        .flatten()
        .map(|nat| format!("{}->{}", text(nat, "/externalIP"), text(nat, "/internalIP")));
    texts.collect::<Vec<_>>().join(",")
}

/// A scalar; nothing where there is none.
fn text(resource: &Value, path: &str) -> String {
    match resource.pointer(path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn flag(resource: &Value, path: &str) -> String {
    or(text(resource, path), "false")
}

fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        text
    }
}

fn list(resource: &Value, path: &str) -> String {
    let items = resource.pointer(path).and_then(Value::as_array);
    let texts = items.into_iter().flatten().filter_map(Value::as_str);
    texts.collect::<Vec<_>>().join(",")
}

fn pairs(resource: &Value, path: &str) -> String {
    let fields = resource.pointer(path).and_then(Value::as_object);
    let texts = fields.into_iter().flatten();
    let texts = texts.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    texts.collect::<Vec<_>>().join(",")
}
