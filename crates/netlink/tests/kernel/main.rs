//! The crate's contract with a real kernel: every test makes its own network namespaces and needs
//! root.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod endpoint;
mod fixture;
mod monitor;
mod namespace;
mod shaping;
mod table;
mod tunnel;
