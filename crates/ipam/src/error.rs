//! Why no address could be had, or none given back.

use std::fmt;
use std::net::IpAddr;

use margay_model::{Cidr, Family, Key};
use margay_store::StoreError;

/// An error of address management.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// No address of this family; what stood against each pool.
    #[error("no {family} address for node {node}: {}", Reasons(refusals))]
    NoAddress {
        /// The family asked for.
        family: Family,
        /// The node that asked.
        node: String,
        /// One entry for each pool of the family, in pool order; empty when there is no pool at all.
        refusals: Vec<PoolRefusal>,
    },
    /// A pool was asked for that does not exist.
    #[error("pool {asked:?} does not exist{}", Known(known))]
    NoSuchPool {
        /// Name or prefix as asked for.
        asked: String,
        /// Names of the pools there are.
        known: Vec<String>,
    },
    /// An address was asked for that no usable pool contains.
    #[error("{address} lies in no enabled pool{}", Pools(refusals))]
    AddressInNoPool {
        /// The address.
        address: IpAddr,
        /// Pools that contain it, and why they cannot be used.
        refusals: Vec<PoolRefusal>,
    },
    /// An address was asked for that somebody has.
    #[error("{address} is assigned already to {holder}")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// Handle of the holder, or a description where it has none.
        holder: String,
    },
    /// An address was asked for in a block that belongs to another node, under strict affinity.
    #[error("{address} lies in block {block} of {owner}, and strict affinity forbids to borrow it")]
    ForeignBlock {
        /// The address.
        address: IpAddr,
        /// Its block.
        block: Cidr,
        /// `host:<node>`, or a description where nobody owns it.
        owner: String,
    },
    /// The node has no Node resource.
    #[error(
        "node {node:?} is not registered in the datastore; start the agent on it, or correct the node name"
    )]
    UnknownNode {
        /// The name.
        node: String,
    },
    /// The store is new, or was emptied: what it does not hold says nothing.
    #[error(
        "the datastore holds no ClusterInformation: it is new or was emptied; restore it, or start margay-agent"
    )]
    Uninitialised,
    /// A stored object cannot be used.
    #[error("{key} is damaged: {reason}")]
    Damaged {
        /// Its key.
        key: Box<Key>,
        /// What is wrong with it.
        reason: String,
    },
    /// Others were faster, again and again.
    #[error("gave up after {attempts} attempts: others kept changing {contended}")]
    Contention {
        /// How often a commit was tried.
        attempts: u32,
        /// A key that had changed the last time.
        contended: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a pool gave no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRefusal {
    /// The pool's name.
    pub pool: String,
    /// Its prefix.
    pub cidr: Cidr,
    /// The reason.
    pub refusal: Refusal,
}

/// A reason against a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// `disabled: true`.
    Disabled,
    /// Not among the pools asked for.
    NotRequested,
    /// Used only when asked for.
    Manual,
    /// `allowedUses` leaves out the use wanted.
    Use {
        /// The use wanted.
        wanted: &'static str,
    },
    /// The node's labels do not match.
    NodeSelector(String),
    /// The namespace's labels do not match, or there is no namespace to match.
    NamespaceSelector(String),
    /// A selector or prefix of the pool cannot be read.
    Unreadable(String),
    /// The node has as many blocks as it may.
    BlockLimit {
        /// The limit.
        limit: u32,
    },
    /// Automatic claiming is switched off, and the node's own blocks are full.
    ClaimingDisabled,
    /// All blocks are claimed by others, and strict affinity forbids to borrow.
    Strict {
        /// Number of the pool's blocks.
        blocks: u128,
    },
    /// Every address is assigned or reserved.
    Full {
        /// Number of addresses in the pool.
        addresses: u128,
        /// How many of them are reserved.
        reserved: u128,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("is disabled"),
            Self::NotRequested => f.write_str("was not asked for"),
            Self::Manual => f.write_str("is used only when asked for (assignmentMode Manual)"),
            Self::Use { wanted } => write!(f, "is not for use as {wanted} (allowedUses)"),
            Self::NodeSelector(selector) => {
                write!(f, "does not select this node (nodeSelector {selector:?})")
            }
            Self::NamespaceSelector(selector) => {
                write!(
                    f,
                    "does not select the namespace (namespaceSelector {selector:?})"
                )
            }
            Self::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Self::BlockLimit { limit } => {
                write!(
                    f,
                    "may not be used further: the node has its limit of {limit} blocks"
                )
            }
            Self::ClaimingDisabled => {
                f.write_str("has no room in the node's blocks, and nodes may not claim more")
            }
            Self::Strict { blocks } => write!(
                f,
                "has no free block of its {blocks}, and strict affinity forbids to borrow"
            ),
            Self::Full {
                addresses,
                reserved: 0,
            } => {
                write!(f, "is full (all {addresses} addresses assigned)")
            }
            Self::Full {
                addresses,
                reserved,
            } => {
                write!(
                    f,
                    "is full ({addresses} addresses, {reserved} of them reserved)"
                )
            }
        }
    }
}

impl fmt::Display for PoolRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pool {} ({}) {}", self.pool, self.cidr, self.refusal)
    }
}

struct Reasons<'a>(&'a [PoolRefusal]);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is no pool of this family; create an IPPool");
        }
        join(f, self.0)
    }
}

struct Pools<'a>(&'a [PoolRefusal]);

impl fmt::Display for Pools<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() {
            f.write_str(": ")?;
        }
        join(f, self.0)
    }
}

struct Known<'a>(&'a [String]);

impl fmt::Display for Known<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; there are no pools");
        }
        write!(f, "; there are {}", self.0.join(", "))
    }
}

fn join(f: &mut fmt::Formatter<'_>, refusals: &[PoolRefusal]) -> fmt::Result {
    for (index, refusal) in refusals.iter().enumerate() {
        if index > 0 {
            f.write_str("; ")?;
        }
        write!(f, "{refusal}")?;
    }
    Ok(())
}
