//! The contract and the failures of a cluster, against real etcd servers of our own.

#![expect(
    clippy::unwrap_used,
    reason = "outside of test functions too, a test may panic"
)]

mod access;
mod contract;
mod failure;
mod server;
