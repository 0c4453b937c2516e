//! The codes of errors, and the table that explains them.

/// One line of the table of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeEntry {
    /// The number in the error object.
    pub code: u32,
    /// A short name that never changes.
    pub name: &'static str,
    /// What the code says.
    pub meaning: &'static str,
    /// What a person does about it.
    pub remedy: &'static str,
}

/// Numbers of the codes. Those from 100 on are Margay's own and never change their meaning.
pub mod code {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown, and needs no DEL.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// A `CNI_*` variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Input or output went wrong.
    pub const IO: u32 = 5;
    /// Content could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is invalid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace cannot be used.
    pub const INVALID_NETNS: u32 = 8;
    /// A passing condition; the same call will succeed later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// An ADD would not succeed now.
    pub const NOT_AVAILABLE: u32 = 50;
    /// An ADD would not succeed now, and existing containers may be cut off.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// No free address in the pools that may be used.
    pub const POOL_EXHAUSTED: u32 = 100;
    /// The address asked for belongs to someone else.
    pub const ADDRESS_OWNED: u32 = 101;
    /// The datastore does not answer.
    pub const DATASTORE_UNREACHABLE: u32 = 102;
    /// The datastore refuses the credentials.
    pub const DATASTORE_DENIED: u32 = 103;
    /// The node's agent does not answer.
    pub const AGENT_UNREACHABLE: u32 = 104;
    /// An interface of that name exists and is not Margay's.
    pub const INTERFACE_EXISTS: u32 = 105;
    /// A limit that an operator set is reached.
    pub const LIMIT: u32 = 106;
    /// The kernel refused an operation.
    pub const KERNEL: u32 = 107;
    /// The verb's time is over.
    pub const DEADLINE: u32 = 108;
    /// The endpoint's policy was not in force in time.
    pub const POLICY_NOT_PROGRAMMED: u32 = 109;
    /// The settings that lead to the datastore cannot be used.
    pub const DATASTORE_SETTINGS: u32 = 110;
    /// What CHECK found is not what ADD left.
    pub const CHECK_FAILED: u32 = 111;
    /// A DEL of the same attachment came while the ADD was under way.
    pub const OVERTAKEN: u32 = 112;
    /// A defect of the program.
    pub const INTERNAL: u32 = 999;
}

/// Every code that a plugin can answer with, its meaning and its remedy.
pub const CODES: &[CodeEntry] = &[
    CodeEntry {
        code: code::INCOMPATIBLE_VERSION,
        name: "incompatible version",
        meaning: "the configuration's cniVersion is not supported, or the verb needs a newer one",
        remedy: "set cniVersion to a version named in the details",
    },
    CodeEntry {
        code: code::UNSUPPORTED_FIELD,
        name: "unsupported field",
        meaning: "a field of the configuration is understood but cannot be honoured",
        remedy: "remove the field, or change its value, that the message names",
    },
    CodeEntry {
        code: code::UNKNOWN_CONTAINER,
        name: "unknown container",
        meaning: "the container does not exist; nothing was changed and no DEL is needed",
        remedy: "none",
    },
    CodeEntry {
        code: code::INVALID_ENVIRONMENT,
        name: "invalid environment",
        meaning: "the runtime passed a missing or malformed CNI_* variable",
        remedy: "correct the variables that the message names; usually a defect of the caller",
    },
    CodeEntry {
        code: code::IO,
        name: "input or output failed",
        meaning: "stdin, stdout or a file could not be read or written",
        remedy: "see the details for the file and the reason",
    },
    CodeEntry {
        code: code::DECODE,
        name: "undecodable content",
        meaning: "the configuration, or the answer of another plugin, is not the JSON it should be",
        remedy: "correct the document that the message names",
    },
    CodeEntry {
        code: code::INVALID_CONFIG,
        name: "invalid network configuration",
        meaning: "a key of the network configuration is missing, misspelt or has an unusable value",
        remedy: "correct the key that the message names in the file under /etc/cni/net.d",
    },
    CodeEntry {
        code: code::INVALID_NETNS,
        name: "invalid network namespace",
        meaning: "CNI_NETNS is absent, is no network namespace, or is the plugin's own",
        remedy: "give the container a network namespace of its own",
    },
    CodeEntry {
        code: code::TRY_AGAIN_LATER,
        name: "try again later",
        meaning: "a passing condition, such as an election in the datastore",
        remedy: "none; the runtime's next attempt should succeed",
    },
    CodeEntry {
        code: code::NOT_AVAILABLE,
        name: "plugin not available",
        meaning: "an ADD would not succeed now",
        remedy: "see the details; existing containers are not affected",
    },
    CodeEntry {
        code: code::LIMITED_CONNECTIVITY,
        name: "plugin not available, connectivity limited",
        meaning: "an ADD would not succeed now, and existing containers may be affected",
        remedy: "see the details; look at the agent on this node first",
    },
    CodeEntry {
        code: code::POOL_EXHAUSTED,
        name: "pool exhausted",
        meaning: "no pool that this endpoint may use has a free address for this node",
        remedy: "add a pool or enlarge one, or look for leaked addresses with margayctl ipam check",
    },
    CodeEntry {
        code: code::ADDRESS_OWNED,
        name: "address already owned",
        meaning: "the address asked for belongs to another endpoint, or this attachment has one",
        remedy: "ask for another address, or release the owner that the details name",
    },
    CodeEntry {
        code: code::DATASTORE_UNREACHABLE,
        name: "datastore unreachable",
        meaning: "no endpoint of the datastore answered within the deadline",
        remedy: "check the endpoints that the details name and the network to them",
    },
    CodeEntry {
        code: code::DATASTORE_DENIED,
        name: "datastore permission or credential",
        meaning: "the datastore answered and refused the credentials, or denied the access",
        remedy: "renew the certificate or password, or grant the role the access it lacks",
    },
    CodeEntry {
        code: code::AGENT_UNREACHABLE,
        name: "agent unreachable",
        meaning: "margay-agent has not registered this node, or not left what it writes for the plugins",
        remedy: "start margay-agent on this node, or read its log",
    },
    CodeEntry {
        code: code::INTERFACE_EXISTS,
        name: "interface name taken",
        meaning: "an interface with the wanted name exists and was not made by Margay",
        remedy: "remove or rename the interface, or put this plugin first in the chain",
    },
    CodeEntry {
        code: code::LIMIT,
        name: "limit reached",
        meaning: "a limit that an operator set is reached, such as the number of blocks of a node",
        remedy: "raise the limit that the message names",
    },
    CodeEntry {
        code: code::KERNEL,
        name: "kernel refused",
        meaning: "the kernel refused an operation; the details hold its error number",
        remedy: "check privileges, kernel modules and limits for the operation that is named",
    },
    CodeEntry {
        code: code::DEADLINE,
        name: "deadline passed",
        meaning: "the plugin's time for this verb was over; the message says where it waited",
        remedy: "look at what it waited for",
    },
    CodeEntry {
        code: code::POLICY_NOT_PROGRAMMED,
        name: "policy not in force",
        meaning: "the agent did not confirm the endpoint's policy in time",
        remedy: "read the log of margay-agent on this node",
    },
    CodeEntry {
        code: code::DATASTORE_SETTINGS,
        name: "datastore settings unusable",
        meaning: "a certificate, key or address of the datastore's settings cannot be used",
        remedy: "correct the file or key that the message names",
    },
    CodeEntry {
        code: code::CHECK_FAILED,
        name: "check failed",
        meaning: "the endpoint's record, addresses, interfaces or routes are not as ADD left them",
        remedy: "remove the container and make it anew; the details list everything that differs",
    },
    CodeEntry {
        code: code::OVERTAKEN,
        name: "overtaken by DEL",
        meaning: "a DEL of the same container came while the ADD was under way; the ADD has taken everything back",
        remedy: "none; a new ADD will succeed. If it happens often, look at why the runtime gives up on ADDs",
    },
    CodeEntry {
        code: code::INTERNAL,
        name: "internal error",
        meaning: "a defect of the program",
        remedy: "report it with the message and the version",
    },
];
