//! Speakers among each other, in virtual time and over virtual connections.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod net;
mod properties;
mod reflection;
mod restart;
mod routes;
mod scripted;
mod sessions;
