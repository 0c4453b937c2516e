//! What may be done with stored resources: create, replace, apply, delete, and initialising an empty store.
//!
//! The rules are those of Calico's v3 clients: who fills which metadata, what is refused, and which
//! other objects a deletion takes along. Everything goes through a [`Client`], which is a store, a
//! source of times and UIDs, and nothing else: this crate reads no clock and draws no random numbers.
//!
//! It must never write an object it has not validated, and never overwrite one it has not read.

pub mod client;
pub mod error;
pub mod object;

pub use client::delete::{Deleted, Note, tunnel_addresses};
pub use client::{Applied, Client, Effect, Listing};
pub use error::{Id, ResourceError};
pub use object::{Object, Stamps};
