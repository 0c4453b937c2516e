//! Why a call is refused, in words for the person at the Docker client.

use std::net::IpAddr;

use margay_endpoint::SpecError;
use margay_ipam_core::IpamError;
use margay_model::Key;
use margay_store::StoreError;

/// A refused call.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The request is not what the protocol says.
    #[error("malformed request: {0}")]
    Malformed(String),
    /// There is no such call.
    #[error("call {0:?} is not one of Docker's plugin protocol")]
    UnknownCall(String),
    /// A driver option is unknown.
    #[error("option {key:?} is not known; known are {known}")]
    UnknownOption {
        /// As given to `--opt` or `--ipam-opt`.
        key: String,
        /// Those that are known.
        known: &'static str,
    },
    /// A driver option has a value that cannot be used.
    #[error("option {key:?}: {value:?} is not {allowed}")]
    OptionValue {
        /// As given to `--opt`.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The addresses come from another IPAM driver.
    #[error(
        "the addresses of address space {address_space:?} are not Margay's; create the network with --ipam-driver {ipam}"
    )]
    ForeignIpam {
        /// Its address space.
        address_space: String,
        /// Our IPAM driver's name.
        ipam: String,
    },
    /// No pool holds the subnet.
    #[error(
        "no pool holds subnet {subnet}; make one with margayctl, or choose a subnet within: {known}"
    )]
    NoPool {
        /// As asked for.
        subnet: String,
        /// The pools there are.
        known: String,
    },
    /// The range lies outside of the subnet.
    #[error("ip-range {range} does not lie within {subnet}")]
    RangeOutside {
        /// As asked for.
        range: String,
        /// The subnet.
        subnet: String,
    },
    /// An endpoint without an address.
    #[error("endpoint {0} has no address; create its network with Margay's IPAM driver")]
    NoAddress(String),
    /// Docker knows a network that the store does not.
    #[error(
        "network {id} is unknown to the datastore and Docker cannot be asked about it; remove it and create it again"
    )]
    UnknownNetwork {
        /// Its id.
        id: String,
    },
    /// Docker knows an endpoint that the store does not.
    #[error("endpoint {id} is unknown to the datastore; start the container again")]
    UnknownEndpoint {
        /// Its id.
        id: String,
    },
    /// The id is taken by an endpoint with other addresses.
    #[error("endpoint {id} exists with other addresses: {held:?}")]
    EndpointDiffers {
        /// Its id.
        id: String,
        /// What it holds.
        held: Vec<IpAddr>,
    },
    /// A host port is taken.
    #[error("host port {port}/{protocol} is taken by endpoint {holder}; choose another one")]
    PortTaken {
        /// The port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// Who has it.
        holder: String,
    },
    /// The cluster is not ready.
    #[error("{0}")]
    NotReady(&'static str),
    /// The kernel refused.
    #[error("{}", chain(.0))]
    Kernel(#[from] margay_netlink::Error),
    /// The kernel's packet filter refused.
    #[error("{}", chain(.0))]
    Filter(#[from] margay_nft::Error),
    /// The endpoint cannot be made.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Addresses.
    #[error("{}", chain(.0))]
    Ipam(#[from] IpamError),
    /// The store.
    #[error("{}", chain(.0))]
    Store(#[from] StoreError),
    /// A stored object cannot be used.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// Its key.
        key: Box<Key>,
        /// What is wrong with it.
        reason: String,
    },
    /// Others were faster, again and again.
    #[error("{0} is being changed by others; try again")]
    Contention(Box<Key>),
    /// The machine does not give what every machine has.
    #[error("reading {what}: {source}")]
    System {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl DriverError {
    /// Whether the store could not be reached, as opposed to having refused.
    pub fn is_store_away(&self) -> bool {
        match self {
            Self::Store(error) | Self::Ipam(IpamError::Store(error)) => error.is_transient(),
            _ => false,
        }
    }
}

/// An error with its causes, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// The outcome of a call.
pub type Result<T, E = DriverError> = std::result::Result<T, E>;
