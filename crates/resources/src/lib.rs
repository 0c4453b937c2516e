//! What may be done with stored resources: create, replace, apply, delete, and initialising an empty store.
//!
//! The rules are those of Calico's v3 clients: who fills which metadata, what is refused, and which
//! other objects a deletion takes along. Everything goes through a [`Client`], which is a store, a
//! source of times and UIDs, and nothing else: this crate reads no clock and draws no random numbers.
//!
//! It must never write an object it has not validated, and never overwrite one it has not read.
//!
//! ```
//! use margay_model::resource::cluster::Node;
//! use margay_model::time::Timestamp;
//! use margay_model::{Kind, Metadata};
//! use margay_resources::{Client, Stamps};
//! use margay_store::Memory;
//!
//! struct Fixed;
//!
//! impl Stamps for Fixed {
//!     fn now(&self) -> Timestamp {
//!         Timestamp { seconds: 1_795_393_566, nanos: 0 }
//!     }
//!
//!     fn random(&self) -> [u8; 16] {
//!         [7; 16]
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let store = Memory::new();
//! let client = Client::new(&store, Fixed);
//! client.ensure_initialized().await?;
//! client.apply(Node::new(Metadata::named("n1"), Default::default())).await?;
//! let nodes = client.list::<Node>(Kind::Node, None).await?;
//! assert_eq!(nodes.items[0].metadata.name, "n1");
//! # Ok::<(), margay_resources::ResourceError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod client;
pub mod error;
pub mod object;

pub use client::delete::{Deleted, Note, tunnel_addresses};
pub use client::{Applied, Client, Effect, Listing};
pub use error::{Id, ResourceError};
pub use object::{Object, Stamps};
