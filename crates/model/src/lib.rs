//! Resources of the v3 API, IPAM objects, keys, names, defaults and validation.
//!
//! Values are exactly what Calico v3 keeps in etcd: every object decodes from and encodes to the
//! same JSON, and fields this crate does not know are kept and written back. Nothing here does I/O,
//! reads a clock or draws random numbers: timestamps and UIDs are made from values the caller brings.

#[macro_use]
mod macros;

pub mod cidr;
pub mod ipam;
pub mod json;
pub mod key;
pub mod kind;
pub mod membership;
pub mod metadata;
pub mod names;
pub mod policy_names;
pub mod problem;
pub mod resource;
pub mod scalar;
pub mod status;
pub mod syntax;
pub mod time;
pub mod uid;

pub use cidr::{Cidr, Family};
pub use key::{Key, Prefix};
pub use kind::Kind;
pub use metadata::Metadata;
pub use problem::{Problem, Problems};
pub use resource::{AnyResource, DecodeError, Resource, Spec};
