//! The crate's contract, tried on the example program `probe`.
#![expect(
    clippy::disallowed_methods,
    reason = "the tests start the program that they are about"
)]

mod call;
mod delegation;
mod process;
