//! Block, affinity and handle algebra, and the allocator over a store.
//!
//! The pure half decides: [`block`] and [`handle`] say what an assignment does to the stored objects,
//! [`pool`] which pools a workload may use and why not, [`plan`] what to read next or what to write.
//! The other half, [`allocator`], carries those decisions out: reads in one round trip, one atomic
//! batch, and again when somebody else was faster.
//!
//! It must never assign an address of a block it has not read in the same attempt, and never write a
//! block without the condition that the block is still as it was read.

pub mod allocator;
pub mod audit;
pub mod block;
pub mod candidates;
pub mod detach;
pub mod error;
pub mod handle;
pub mod plan;
pub mod pool;
pub mod release;
pub mod reservation;

pub use allocator::{
    Allocator, Assigned, Assignment, Companion, Limits, NoCompanion, Request, Want,
};
pub use detach::{Detach, Detached};
pub use error::{IpamError, PoolRefusal, Refusal};
pub use release::{Release, ReleaseCompanion, Released};
