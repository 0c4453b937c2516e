//! Sessions with BIRD, FRR, GoBGP and ExaBGP, each test in a network namespace of its own.
//!
//! Needs root, and the programs that `scripts/setup` installs.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]
#![expect(clippy::disallowed_methods, reason = "the peers are programs")]

mod bird;
mod exabgp;
mod frr;
mod gobgp;
mod lab;
mod own;
