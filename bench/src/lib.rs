//! What several measurements share: namespaces of their own, and servers of etcd.

#![expect(
    clippy::disallowed_methods,
    reason = "programs are what is measured here"
)]

pub mod etcd;
pub mod sandbox;
