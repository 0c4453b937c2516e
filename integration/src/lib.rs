//! Black-box tests: real programs in network namespaces.
//!
//! A [`Lab`] is a bridge in a namespace of its own with node namespaces on it; nothing is made in the
//! machine's own namespace. Names carry the process id and a counter, so that labs stand side by side. A lab
//! ends its processes and deletes its namespaces when it is dropped, also when a test panics.
//!
//! Programs are those that cargo built into the same target folder (or `MARGAY_BIN_DIR`), and real ones from
//! the system: `ip`, `nsenter`, `cnitool`, `etcd`, `ping`, `tcpdump`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

pub mod agent;
pub mod cni;
pub mod docker;
pub mod etcd;
pub mod lab;
pub mod points;
pub mod process;
pub mod routers;
pub mod scene;
pub mod store;

pub use agent::Agent;
pub use cni::{Cnitool, Plugin};
pub use docker::{Driver, Machine};
pub use etcd::{Cluster, Etcd};
pub use lab::{Lab, Node, Pod};
pub use points::{Fault, Point};
pub use process::{Output, Running, run};
pub use routers::{Frr, Router, Routers};
pub use scene::{Scene, Traces};
pub use store::StoreKind;
