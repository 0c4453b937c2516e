//! Rules of policies and profiles.

pub(crate) mod check;

use std::collections::BTreeMap;

use crate::json::Absent;
use crate::scalar::{Action, Port, Protocol};

object! {
    /// What to do with packets of a description. All that is given must match.
    pub struct Rule {
        /// What to do.
        "action" => pub action: Action,
        /// 4 or 6.
        "ipVersion" => pub ip_version: Option<i64>,
        /// The protocol.
        "protocol" => pub protocol: Option<Protocol>,
        /// ICMP type and code.
        "icmp" => pub icmp: Option<IcmpMatch>,
        /// Any protocol but this one.
        "notProtocol" => pub not_protocol: Option<Protocol>,
        /// Any ICMP type and code but these.
        "notICMP" => pub not_icmp: Option<IcmpMatch>,
        /// Where the packet comes from.
        "source" => pub source: EntityRule,
        /// Where the packet goes to.
        "destination" => pub destination: EntityRule,
        /// The HTTP request the packet belongs to.
        "http" => pub http: Option<HttpMatch>,
        /// Notes.
        "metadata" => pub metadata: Option<RuleMetadata>,
    }
}

object! {
    /// One side of a connection. All that is given must match.
    pub struct EntityRule {
        /// Prefixes, one of which holds the address.
        "nets" => pub nets: Vec<String>,
        /// Endpoints and network sets by their labels.
        "selector" => pub selector: String,
        /// Namespaces by their labels; `global()` for what lies in none.
        "namespaceSelector" => pub namespace_selector: String,
        /// The endpoints of a Kubernetes service.
        "services" => pub services: Option<ServiceMatch>,
        /// Ports, one of which is the packet's.
        "ports" => pub ports: Vec<Port>,
        /// Prefixes, none of which holds the address.
        "notNets" => pub not_nets: Vec<String>,
        /// Endpoints and network sets that do not match.
        "notSelector" => pub not_selector: String,
        /// Ports, none of which is the packet's.
        "notPorts" => pub not_ports: Vec<Port>,
        /// Service accounts of the workload.
        "serviceAccounts" => pub service_accounts: Option<ServiceAccountMatch>,
    }
}

object! {
    /// ICMP type and code.
    pub struct IcmpMatch {
        /// 0 to 254.
        "type" => pub kind: Option<i64>,
        /// 0 to 255; only with a type.
        "code" => pub code: Option<i64>,
    }
}

object! {
    /// A Kubernetes service.
    pub struct ServiceMatch {
        /// Its name.
        "name" => pub name: String,
        /// Its namespace; the policy's own when empty.
        "namespace" => pub namespace: String,
    }
}

object! {
    /// Service accounts, by name and by label.
    pub struct ServiceAccountMatch {
        /// Names, one of which is the account's.
        "names" => pub names: Vec<String>,
        /// Selector of the account's labels.
        "selector" => pub selector: String,
    }
}

object! {
    /// Properties of HTTP requests.
    pub struct HttpMatch {
        /// Methods, one of which is the request's.
        "methods" => pub methods: Vec<String>,
        /// Paths, one of which is the request's.
        "paths" => pub paths: Vec<HttpPath>,
    }
}

object! {
    /// A path, whole or its beginning.
    pub struct HttpPath {
        /// The whole path.
        "exact" => pub exact: String,
        /// The beginning of the path.
        "prefix" => pub prefix: String,
    }
}

object! {
    /// Notes on a rule.
    pub struct RuleMetadata {
        /// Notes by name.
        "annotations" => pub annotations: BTreeMap<String, String>,
    }
}

impl Rule {
    /// A rule that does this with every packet.
    pub fn of(action: Action) -> Self {
        Self {
            action,
            ..Self::default()
        }
    }
}

impl Absent for EntityRule {
    fn absent(&self) -> bool {
        *self == Self::default()
    }
}
