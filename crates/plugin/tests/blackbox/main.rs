//! The crate's contract, tried on the example program `probe`.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start the program that they are about"
)]
#![expect(
    clippy::unwrap_used,
    reason = "a call that cannot be made fails its test"
)]

mod call;
mod delegation;
mod process;
