//! What can go wrong between a plan and the kernel.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use margay_route::FdbEntry;
use nix::errno::Errno;

/// The result of anything that speaks to the kernel.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A step that did not succeed, its object and the kernel's reason.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is at a namespace's path.
    #[error("network namespace {} does not exist", path.display())]
    NamespaceAbsent {
        /// The path.
        path: PathBuf,
    },
    /// Something is at the path, but not a network namespace.
    #[error("{} is not a network namespace", path.display())]
    NotNamespace {
        /// The path.
        path: PathBuf,
    },
    /// The namespace could not be opened.
    #[error("opening network namespace {}", path.display())]
    OpenNamespace {
        /// The path.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A thread could not enter a namespace.
    #[error("entering a network namespace")]
    EnterNamespace {
        /// The reason.
        source: netns_rs::Error,
    },
    /// No thread could be started to enter a namespace.
    #[error("starting a thread for a network namespace")]
    Thread {
        /// The reason.
        source: io::Error,
    },
    /// No netlink socket could be had.
    #[error("opening a netlink socket")]
    Socket {
        /// The reason.
        source: io::Error,
    },
    /// A socket did not take an option.
    #[error("setting {option} of a TCP socket")]
    TcpOption {
        /// The option's name in C.
        option: &'static str,
        /// The reason.
        source: Errno,
    },
    /// The container has an interface of that name that is not this endpoint's.
    #[error(
        "the container has an interface {name} that is not ours: choose another interface name, \
         or remove it"
    )]
    InterfaceExists {
        /// The interface's name.
        name: String,
    },
    /// The host has an interface of that name that is not this endpoint's.
    #[error(
        "the host has an interface {name} that is not this endpoint's ({})",
        alias.as_deref().unwrap_or("no alias")
    )]
    HostInterfaceExists {
        /// The interface's name.
        name: String,
        /// Its alias, which names its owner if it is ours.
        alias: Option<String>,
    },
    /// Another interface already has the route to an endpoint's address.
    #[error("the host's route to {dst} over {ifname} cannot be added: {holder} has it")]
    RouteConflict {
        /// The destination.
        dst: IpNetwork,
        /// The interface that was to have the route.
        ifname: String,
        /// The interface that has it, or that the route has none.
        holder: String,
    },
    /// A pair could not be created.
    #[error("creating the pair {host_name} and {container_name}")]
    CreateVeth {
        /// The host end's name.
        host_name: String,
        /// The container end's name.
        container_name: String,
        /// The reason.
        source: RequestError,
    },
    /// An interface could not be looked up.
    #[error("looking up interface {name}")]
    GetLink {
        /// The interface's name.
        name: String,
        /// The reason.
        source: RequestError,
    },
    /// An interface is not there.
    #[error("interface {name} does not exist")]
    LinkMissing {
        /// The interface's name.
        name: String,
    },
    /// An interface could not be changed.
    #[error("setting up interface {name}")]
    SetLink {
        /// The interface's name.
        name: String,
        /// The reason.
        source: RequestError,
    },
    /// A bandwidth limit could not be set or lifted.
    #[error("limiting the bandwidth of {interface}: {}", facility.words(source))]
    Shape {
        /// The interface.
        interface: String,
        /// What of the kernel it needs.
        facility: Facility,
        /// The reason.
        source: RequestError,
    },
    /// An interface could not be deleted.
    #[error("deleting interface {name}")]
    DeleteLink {
        /// The interface's name.
        name: String,
        /// The reason.
        source: RequestError,
    },
    /// An address could not be added.
    #[error("adding address {address} to {ifname}")]
    AddAddress {
        /// The address.
        address: IpNetwork,
        /// The interface.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// A route could not be added or replaced.
    #[error("adding the route to {dst} over {ifname}")]
    AddRoute {
        /// The destination.
        dst: IpNetwork,
        /// The interfaces, separated by commas; empty if the route has none.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// A route could not be deleted.
    #[error("deleting the route to {dst} over {ifname}")]
    DeleteRoute {
        /// The destination.
        dst: IpNetwork,
        /// The interfaces, separated by commas; empty if the route has none.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// A neighbour entry could not be set.
    #[error("setting the neighbour {address} on {ifname}")]
    SetNeighbour {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// A neighbour entry could not be deleted.
    #[error("deleting the neighbour {address} on {ifname}")]
    DeleteNeighbour {
        /// The neighbour's address.
        address: IpAddr,
        /// The interface.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// The other end of a pair is in no namespace that can be found.
    #[error("the other end of {name} is in no network namespace that can be found")]
    PeerMissing {
        /// The host end's name.
        name: String,
    },
    /// A tunnel's device could not be created.
    #[error("creating the VXLAN device {name}")]
    CreateVxlan {
        /// The device's name.
        name: String,
        /// The reason.
        source: RequestError,
    },
    /// An address could not be deleted.
    #[error("deleting address {address} of {ifname}")]
    DeleteAddress {
        /// The address.
        address: IpNetwork,
        /// The interface.
        ifname: String,
        /// The reason.
        source: RequestError,
    },
    /// A forwarding entry could not be set.
    #[error("setting the forwarding entry for {} on {} to {}", entry.mac, entry.interface, entry.destination)]
    SetFdb {
        /// The entry.
        entry: FdbEntry,
        /// The reason.
        source: RequestError,
    },
    /// A forwarding entry could not be deleted.
    #[error("deleting the forwarding entry for {} on {}", entry.mac, entry.interface)]
    DeleteFdb {
        /// The entry.
        entry: FdbEntry,
        /// The reason.
        source: RequestError,
    },
    /// A table could not be read.
    #[error("listing {what}")]
    List {
        /// Interfaces, addresses, routes, neighbours or forwarding entries.
        what: &'static str,
        /// The reason.
        source: RequestError,
    },
    /// A kernel setting could not be written.
    #[error("setting {path} to {value}")]
    Sysctl {
        /// The file below `/proc/sys`.
        path: String,
        /// The value.
        value: String,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's error number, if the kernel refused a request.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::CreateVeth { source, .. }
            | Self::GetLink { source, .. }
            | Self::SetLink { source, .. }
            | Self::DeleteLink { source, .. }
            | Self::Shape { source, .. }
            | Self::AddAddress { source, .. }
            | Self::AddRoute { source, .. }
            | Self::DeleteRoute { source, .. }
            | Self::SetNeighbour { source, .. }
            | Self::DeleteNeighbour { source, .. }
            | Self::CreateVxlan { source, .. }
            | Self::DeleteAddress { source, .. }
            | Self::SetFdb { source, .. }
            | Self::DeleteFdb { source, .. }
            | Self::List { source, .. } => source.errno(),
            _ => None,
        }
    }
}

/// A part of the kernel without which bandwidth cannot be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Facility {
    /// Token bucket filters.
    TokenBucket,
    /// Devices of kind `ifb`.
    Ifb,
    /// The discipline `ingress`.
    Ingress,
    /// Filters that redirect packets.
    Redirect,
}

impl Facility {
    /// The modules that have it.
    fn modules(self) -> &'static str {
        match self {
            Self::TokenBucket => "sch_tbf",
            Self::Ifb => "ifb",
            Self::Ingress => "sch_ingress",
            Self::Redirect => "cls_u32 and act_mirred",
        }
    }

    /// What is missing, where the kernel's refusal says that something is.
    fn words(self, source: &RequestError) -> String {
        match source.errno() {
            Some(Errno::ENOENT | Errno::EOPNOTSUPP) => {
                format!(
                    "this kernel has no {}; load it, or remove the limit",
                    self.modules()
                )
            }
            _ => format!("the kernel refuses what {} does", self.modules()),
        }
    }
}

/// Why a request had no success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// The kernel refused it.
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's own words (extended acknowledgement), if it had any.
        message: Option<String>,
    },
    /// The connection ended.
    Closed,
    /// The kernel answered nothing of use.
    NoAnswer,
    /// The table changed under every attempt to read it.
    Interrupted,
}

impl RequestError {
    /// The error number, if the kernel refused the request.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused {
                errno,
                message: Some(message),
            } => {
                write!(f, "{errno} (kernel: {message})")
            }
            Self::Refused {
                errno,
                message: None,
            } => write!(f, "{errno}"),
            Self::Closed => f.write_str("the netlink connection is closed"),
            Self::NoAnswer => f.write_str("the kernel gave no answer"),
            Self::Interrupted => f.write_str("the table kept changing while it was read"),
        }
    }
}

impl std::error::Error for RequestError {}
