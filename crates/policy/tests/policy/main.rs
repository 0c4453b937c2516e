//! The calculation and the evaluator: against each other, and against Calico's semantics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod common;
mod documented;
mod flaws;
mod golden;
mod hosts;
mod owners;
mod semantics;
mod staged;
mod why;
