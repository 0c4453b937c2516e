//! Docker's drivers: called as Docker calls them, and by real dockerds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and drives real programs"
)]

mod calls;
mod demonstration;
mod killed;
mod machines;
mod replay;
mod stage;
