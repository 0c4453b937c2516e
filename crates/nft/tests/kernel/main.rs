//! The crate's contract with a real kernel: every test makes its own network namespaces and needs
//! root.

#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod agreement;
mod chance;
mod conntrack;
mod enforcement;
mod fixture;
mod frames;
mod lab;
#[path = "../../../ruleset/tests/compile/packet.rs"]
mod packet;
#[path = "../../../ruleset/tests/compile/random.rs"]
mod random;
#[path = "../../../ruleset/tests/compile/reference.rs"]
mod reference;
mod sample;
mod spoofing;
mod table;
mod watch;
